"""Transfers: cut ones are continued, and files that change meanwhile are fetched again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from converters.errors import InputError
from converters.remote.cache import beside, discard, read_json, write_json
from converters.remote.server import CutError, NoRangesError, Server, UnreachableError
from converters.remote.urls import file_name, public

Progress = Callable[[str, int, int | None], None]
"""Is called with the name of a file, its bytes so far, and all its bytes, where that is known."""

_ATTEMPTS = 5
_PAUSE_S = 0.5
_LARGEST_UNKNOWN = 256 << 20
"""Bytes of a file whose size the server does not say: a body without end must take neither minutes nor the disk."""


def transfer(
    server: Server, url: str, part: Path, stamp: dict[str, str], progress: Progress, largest: int | None = None
) -> dict[str, str]:
    """Fetches a file to `part`, continuing an earlier transfer of the same file that was cut.

    Args:
      server: the file's.
      url: of the file.
      part: where the bytes go.
      stamp: the file's.
      progress: is called after every block.
      largest: bytes of the file at most, where the server does not say its size.

    Returns:
      The stamp of the file that was fetched, the same before and after the transfer.

    Raises:
      InputError: the transfer was cut too often, the disk is full, or the server refuses the file.
    """
    # A size alone proves little: a file whose transfer was cut may have been replaced by another of the same size.
    if read_json(beside(part, "json")) != stamp or len(stamp) < 2:
        discard(part)
    failures, ranges, reached = 0, True, -1
    reason, pause = "it changes all the time", 0.0
    while failures < _ATTEMPTS:
        try:
            write_json(beside(part, "json"), stamp)
            _append(server, url, part, stamp, ranges, progress, largest)
            after = server.stamp(url)
            if after == stamp:
                return stamp
            stamp = after
            discard(part)
        except NoRangesError:
            # From the beginning, in one piece.
            ranges = False
            discard(part)
        except (CutError, UnreachableError) as error:
            reason, pause = str(error), getattr(error, "pause", 0.0)
        size = part.stat().st_size if part.exists() else 0
        # A connection that is cut again and again, but makes progress, is good enough.
        failures = 0 if size > reached >= 0 and ranges else failures + 1
        reached = size
        time.sleep(max(_PAUSE_S * 2**failures, pause) if failures < _ATTEMPTS else 0)
    raise InputError(
        f"{public(url)}: cut off after {reached} of {stamp.get('size', 'unknown')} bytes: {reason}; run it again "
        f"{'to go on' if ranges and len(stamp) > 1 else 'later'}"
    )


def _append(
    server: Server,
    url: str,
    part: Path,
    stamp: dict[str, str],
    ranges: bool,
    progress: Progress,
    largest: int | None,
) -> None:
    """Fetches the bytes that `part` lacks."""
    size = int(stamp["size"]) if "size" in stamp else None
    name = file_name(url)
    with part.open("ab") as file:
        done = file.tell()
        free = shutil.disk_usage(part.parent).free
        if size is not None and size - done > free:
            raise InputError(
                f"{public(url)}: {size - done} bytes to fetch, and {free} are free in {part.parent}; --cache "
                f"names another folder"
            )
        most = min(_LARGEST_UNKNOWN if largest is None else largest, free) if size is None else size
        blocks = server.read(url, done, size, ranges)
        for data in blocks if done or size is not None else _plausible(url, name, part, blocks):
            file.write(data)
            done += len(data)
            if done > most:
                discard(part)
                raise InputError(f"{public(url)}: {_too_long(most, size is None and largest is None)}")
            progress(name, done, size)
    if size is not None and done != size:
        raise CutError(f"the server sent {done} of {size} bytes")


def _too_long(most: int, unknown: bool) -> str:
    if not unknown:
        return f"the server sends more than {most} bytes; check the URL"
    return (
        f"longer than {most} bytes, and the server does not say how long; if it has an end, save it and name the file"
    )


def _plausible(url: str, name: str, part: Path, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks of a file from its beginning, if it begins like one that slimport reads.

    Raises:
      InputError: it does not. Its length is not known, so that it may have no end.
    """
    # With the readers of checkpoints, which `import converters` can do without.
    from converters.remote.beginnings import ENOUGH, refusal

    begins = b""
    for data in blocks:
        begins += data
        if len(begins) >= ENOUGH:
            break
    if (what := refusal(name, begins)) is not None:
        discard(part)
        raise InputError(f"{public(url)}: {what}, and the server does not say how long it is; check the URL")
    yield begins
    yield from blocks
