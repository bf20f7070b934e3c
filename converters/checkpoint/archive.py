"""A checkpoint inside a `.tar` or `.tar.gz`, as models are released.

Nothing is ever unpacked under a member's own path: the checkpoint's files, and no others, go by their last names into a
fresh temporary folder. Whatever else an archive is made for (a way out of the folder, links, devices) refuses it whole.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from converters.checkpoint.locate import GZIP_MAGIC, Candidate, candidates, choose
from converters.checkpoint.mapped import reason
from converters.checkpoint.messages import shown
from converters.checkpoint.table import MAGIC
from converters.errors import CheckpointError

# What zlib can inflate a byte to, at most: a member that claims more than that is not there.
_GZIP_RATIO = 1032
# For all headers of an archive together. The tar module reads long names and extended headers whole, however long they
# claim to be.
_HEADER_BUDGET = 16 << 20
_LARGEST_STATE = 1 << 20
_CHUNK = 1 << 20
_SEVERAL = "ask for a step, or unpack it and name one"


def unpack(path: Path, step: int | None = None) -> tuple[tempfile.TemporaryDirectory[str], str]:
    """Finds the checkpoint in an archive, and unpacks its files, each under the last part of its name.

    Args:
      path: the archive.
      step: which of several checkpoints, PREFIX-STEP; None is the only one, or the newest by a `checkpoint` file.

    Returns:
      The folder, which is removed with the object, and the checkpoint's prefix in it.

    Raises:
      CheckpointError: there is no checkpoint or more than one, the archive is damaged, refused or does not fit.
    """
    where = shown(str(path))
    try:
        contents = _contents(path, where)
        chosen = choose(where, candidates(contents.tables, contents.sizes), contents.state, step, _SEVERAL)
        return _extract(path, where, chosen, contents), PurePosixPath(chosen.prefix).name
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{where}: cannot be unpacked: {reason(error)}") from error
    # The tar module raises all sorts of things, and all are about these bytes.
    except Exception as error:
        raise CheckpointError(f"{where}: damaged or cut off: {reason(error).splitlines()[0]}; get it again") from error


@dataclass
class _Contents:
    """The content of an archive: sizes by name; the names of tables; the text of the `checkpoint` file."""

    sizes: dict[str, int] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    state: str | None = None


class _Headers:
    """An archive as the tar module sees it: reading headers counts against a budget, skipping is free."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._budget = _HEADER_BUDGET

    def read(self, size: int) -> bytes:
        self._budget -= size
        if size < 0 or self._budget < 0:
            raise tarfile.ReadError("its headers are too long")
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of the tar, inflated where they are compressed."""
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        try:
            if compressed:
                with gzip.GzipFile(fileobj=file, mode="rb") as inflated:
                    yield inflated  # type: ignore[misc]
            else:
                yield file
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise CheckpointError(f"{shown(str(path))}: damaged or cut off: {reason(error)}; get it again") from error


def _members(file: IO[bytes], where: str, largest: int) -> Iterator[tarfile.TarInfo]:
    """Yields the regular files of an archive."""
    tar = tarfile.TarFile(fileobj=_Headers(file), mode="r")  # type: ignore[arg-type]
    position = -1
    while (member := tar.next()) is not None:
        # A forged size takes a reader back to where it was.
        if member.offset <= position or tar.offset <= member.offset or not 0 <= member.size <= largest:
            raise tarfile.ReadError(f"the header at {member.offset} claims {member.size} bytes")
        position = member.offset
        # Not needed again, and there can be many.
        tar.members = []  # type: ignore[attr-defined]
        name = PurePosixPath(member.name)
        what = _refused(member, name)
        if what is not None:
            raise CheckpointError(
                f"{where}: {shown(member.name)} is {what}: refused; unpack it yourself, if you trust it, and name the "
                "checkpoint"
            )
        if member.isreg():
            yield member


def _refused(member: tarfile.TarInfo, name: PurePosixPath) -> str | None:
    if name.is_absolute():
        return "an absolute path"
    if ".." in name.parts:
        return "a path out of the archive"
    if member.issym() or member.islnk():
        return "a link"
    if member.isdev():
        return "a device"
    if member.issparse():
        return "a sparse file"
    return None


def _contents(path: Path, where: str) -> _Contents:
    contents = _Contents()
    largest = path.stat().st_size * _GZIP_RATIO
    with _opened(path) as file:
        for member in _members(file, where, largest):
            if member.name in contents.sizes:
                raise tarfile.ReadError(f"{shown(member.name)} is in it twice")
            contents.sizes[member.name] = member.size
            # The whole of a `checkpoint` file, a short text, else the end: going back would inflate all of it again.
            is_state = PurePosixPath(member.name).name == "checkpoint" and member.size <= _LARGEST_STATE
            tail = member.size if is_state else min(member.size, len(MAGIC))
            file.seek(member.offset_data + member.size - tail)
            content = file.read(tail)
            if content.endswith(MAGIC):
                contents.tables.append(member.name)
            elif is_state:
                contents.state = content.decode(errors="replace")
    return contents


def _extract(path: Path, where: str, chosen: Candidate, contents: _Contents) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="slimport-")
    try:
        size = sum(contents.sizes[name] for name in chosen.files)
        free = shutil.disk_usage(folder.name).free
        if size > free:
            raise CheckpointError(
                f"{where}: {size} bytes to unpack, and {free} are free in {folder.name}; set TMPDIR to a larger place"
            )
        missing = set(chosen.files)
        with _opened(path) as file:
            for member in _members(file, where, path.stat().st_size * _GZIP_RATIO):
                if member.name in missing:
                    file.seek(member.offset_data)
                    _copy(file, Path(folder.name) / PurePosixPath(member.name).name, member.size)
                    missing.remove(member.name)
                if not missing:
                    break
    except BaseException:
        folder.cleanup()
        raise
    return folder


def _copy(file: IO[bytes], target: Path, size: int) -> None:
    with target.open("xb") as out:
        while size:
            chunk = file.read(min(size, _CHUNK))
            if not chunk:
                raise tarfile.ReadError("unexpected end of data")
            out.write(chunk)
            size -= len(chunk)
