"""Sources by URL and by name: fetched once into a cache, whole or not at all, through fsspec.

What a server says of a file (its size, ETag, date) is its stamp. A cut transfer goes on where it ended, if the stamp is
still the same; a file whose stamp changes while it is fetched is fetched anew. A cached file is used as long as its
stamp is the server's, or the server cannot be reached.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from converters import frameworks, zoo
from converters.digests import sha256_of
from converters.errors import InputError, first_line

PathLike = str | os.PathLike[str]
Progress = Callable[[str, int, int | None], None]
"""Is told the name of a file, how many bytes of it are there, and how many there will be, where that is known."""

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_ZOO = "zoo:"
_PACKAGES = {
    **dict.fromkeys(("http", "https"), "slimport[remote]"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
}
# What the file systems of fsspec tell of a file that changes when its bytes do.
_STAMP = (
    "size",
    "ETag",
    "etag",
    "Content-MD5",
    "Digest",
    "md5Hash",
    "generation",
    "Last-Modified",
    "LastModified",
    "mtime",
)
# What is lost of a transfer that is cut.
_BLOCK = 4 << 20
_ATTEMPTS = 5
_PAUSE_S = 0.5
_CONNECT_S, _READ_S = 20, 60


@dataclass(frozen=True)
class Fetched:
    """A file in the cache.

    path: where it is.
    url: where it came from, without a password or a query.
    stamp: what the server said of it.
    sha256: of its bytes, in hex.
    """

    path: Path
    url: str
    stamp: Mapping[str, str]
    sha256: str


def is_remote(source: PathLike) -> bool:
    """Whether a source is a URL, or a name of the zoo that is no file here."""
    name = os.fspath(source)
    return bool(_URL.match(name)) or (_is_zoo(name) and not os.path.lexists(name))


def local(
    source: PathLike, *, sha256: str | None = None, cache: PathLike | None = None, progress: Progress = lambda *_: None
) -> Path:
    """The source as a path that can be opened: itself, or where it was fetched to.

    Args:
      source: a path, or what `fetch` takes.
      sha256, cache, progress: as `fetch` takes them.

    Raises:
      InputError: as `fetch`; or the digest of a file that is here is another.
    """
    if is_remote(source):
        return fetch(source, sha256=sha256, cache=cache, progress=progress)[0].path
    path = Path(source)
    if sha256:
        if not path.is_file():
            raise InputError(f"{path}: no such file, so it has no digest: --sha256 is for one file, or a URL")
        _check_digest(str(path), sha256_of(path), sha256, "")
    return path


def fetch(
    source: PathLike, *, sha256: str | None = None, cache: PathLike | None = None, progress: Progress = lambda *_: None
) -> list[Fetched]:
    """Fetches what a URL names, if the cache does not hold it.

    Args:
      source: a URL of a file, or of a V2 checkpoint: its prefix, or any of its files. Or a name that `slimport zoo`
        lists, as `zoo:resnet_v2_50`.
      sha256: what its digest must be, in hex.
      cache: the folder to keep files in; None is `SLIMPORT_CACHE`, or the user's folder for caches.
      progress: is told how far a transfer is.

    Returns:
      The file; of a V2 checkpoint the index, then its shards.

    Raises:
      InputError: there is no such file, no connection, no package for its protocol or no space; or its digest is
        another, and then nothing is kept.
    """
    name = os.fspath(source)
    release = zoo.find(name)
    if release is None and name.startswith(_ZOO):
        raise InputError(f"{name}: not in the zoo; 'slimport zoo' lists what is")
    if release is None and not _URL.match(name):
        raise InputError(f"{name}: no URL, and no name that 'slimport zoo' lists: nothing to fetch")
    remote = _Remote(
        name if release is None else release.url, cache_folder(cache), progress, pinned=release is not None
    )
    first = remote.fetch(sha256)
    if not first.path.name.endswith(".index"):
        return [first]
    if sha256:
        raise InputError(f"{name}: a checkpoint of several files, which have no one digest; leave --sha256 out")
    from converters.checkpoint.bundle import data_paths

    return [first, *(remote.get(path.name) for path in data_paths(first.path.with_suffix("")))]


def cached(release: zoo.Release, cache: PathLike | None = None) -> Fetched | None:
    """A release that was fetched before, or None. Nothing is asked of the network."""
    return _kept(_folder(cache_folder(cache), release.url) / _name(release.url))


def cache_folder(cache: PathLike | None = None) -> Path:
    """Where fetched files are kept: the argument, `SLIMPORT_CACHE`, or the user's folder for caches."""
    cache = cache or os.environ.get("SLIMPORT_CACHE")
    if cache:
        return Path(cache).expanduser()
    return Path(frameworks.import_platformdirs().user_cache_path("slimport"))


class _NotFoundError(InputError):
    """The server has no such file."""


class _UnreachableError(InputError):
    """The server does not answer."""


class _Remote:
    """The folder that a URL names a file in, and its copy in the cache.

    pinned: the file never changes, so that what it was when it was first fetched is what it must be.
    """

    def __init__(self, url: str, cache: Path, progress: Progress, *, pinned: bool = False) -> None:
        self._url = url
        self._folder = _folder(cache, url)
        self._progress = progress
        self._pinned = pinned
        self._files = _file_system(url)

    def fetch(self, sha256: str | None) -> Fetched:
        """The file that the URL names, or the index of the V2 checkpoint that it names by another file or its prefix.

        A V1 checkpoint's prefix is its file: what is there under the name itself goes first.
        """
        name = _name(self._url)
        from converters.checkpoint.locate import prefix_name

        if prefix_name(name) != name:
            return self.get(f"{prefix_name(name)}.index")
        try:
            return self.get(name, sha256)
        except _NotFoundError as error:
            try:
                return self.get(f"{name}.index")
            except _NotFoundError:
                raise error from None

    def get(self, name: str, sha256: str | None = None) -> Fetched:
        """The file of this name, from the cache if that has it as the server does."""
        url = _sibling(self._url, name)
        target = self._folder / name
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Of two processes that want the same file, one fetches it.
            with frameworks.import_filelock().FileLock(_beside(target, "lock")):
                kept = _kept(target)
                try:
                    stamp = self._stamp(url)
                except _UnreachableError:
                    if kept is None:
                        raise
                    stamp = dict(kept.stamp)
                if kept is not None and kept.stamp == stamp:
                    if sha256:
                        _check_digest(url, sha256_of(target), sha256, f"; remove {target} to fetch it again")
                    return kept
                part, stamp = self._transfer(url, target, stamp)
                digest = sha256_of(part)
                try:
                    _check_digest(url, digest, sha256, "; nothing is kept")
                    if self._pinned and kept is not None:
                        advice = f", as it was before; remove {target} to take the new one"
                        _check_digest(url, digest, kept.sha256, advice)
                except InputError:
                    _discard(part)
                    raise
                fetched = Fetched(target, _public(url), stamp, digest)
                # A copy without a record is fetched again; a record without its copy never is.
                _beside(target, "json").unlink(missing_ok=True)
                part.replace(target)
                _write_json(_beside(target, "json"), {**asdict(fetched), "path": name})
                _discard(part)
                return fetched
        except OSError as error:
            raise InputError(
                f"{target}: cannot be kept: {error.strerror or error}; --cache names another folder"
            ) from error

    def _stamp(self, url: str) -> dict[str, str]:
        """What the server says of a file."""
        try:
            info = self._files.info(url)
        except Exception as error:
            raise _refusal(url, error) from error
        if info.get("type") == "directory":
            raise InputError(f"{_public(url)}: a folder; name a checkpoint in it")
        return {key: str(info[key]) for key in _STAMP if info.get(key) is not None}

    def _transfer(self, url: str, target: Path, stamp: dict[str, str]) -> tuple[Path, dict[str, str]]:
        """Fetches a file beside its place, and goes on where an earlier transfer of the same file was cut.

        Returns:
          Where it is, and its stamp, which is the same before and after.
        """
        part = _beside(target, "part")
        # Nothing but a size says little: a file cut in an earlier run may have become another of the same size.
        if _read_json(_beside(part, "json")) != stamp or len(stamp) < 2:
            _discard(part)
        failures, ranges, reached = 0, True, -1
        reason = "it changes all the time"
        while failures < _ATTEMPTS:
            try:
                _write_json(_beside(part, "json"), stamp)
                self._copy(url, part, stamp, ranges)
                after = self._stamp(url)
                if after == stamp:
                    return part, stamp
                stamp = after
                _discard(part)
            except _NoRangesError:
                # From the beginning, in one piece.
                ranges = False
                _discard(part)
            except (_CutError, _UnreachableError) as error:
                reason = str(error)
            size = part.stat().st_size if part.exists() else 0
            # A line that is cut again and again, but gets on, is good enough.
            failures = 0 if size > reached >= 0 and ranges else failures + 1
            reached = size
            time.sleep(_PAUSE_S * 2**failures if failures < _ATTEMPTS else 0)
        raise InputError(
            f"{_public(url)}: cut off after {reached} of {stamp.get('size', 'unknown')} bytes: {reason}; run it again "
            f"{'to go on' if ranges and len(stamp) > 1 else 'later'}"
        )

    def _copy(self, url: str, part: Path, stamp: Mapping[str, str], ranges: bool) -> None:
        """Fetches what `part` lacks of the file, in ranges, or all of it in one piece."""
        size = int(stamp["size"]) if "size" in stamp else None
        with part.open("ab") as file:
            done = file.tell()
            free = shutil.disk_usage(part.parent).free
            if size is not None and size - done > free:
                raise InputError(
                    f"{_public(url)}: {size - done} bytes to fetch, and {free} are free in {part.parent}; --cache "
                    f"names another folder"
                )
            for data in self._blocks(url, done, size, ranges):
                file.write(data)
                done += len(data)
                self._progress(_name(url), done, size)
        if size is not None and done != size:
            raise _CutError(f"the server sent {done} of {size} bytes")

    def _blocks(self, url: str, start: int, size: int | None, ranges: bool) -> Iterator[bytes]:
        if start == size:
            return
        try:
            with self._files.open(url, "rb", block_size=_BLOCK if ranges else 0, cache_type="none") as remote:
                remote.seek(start)
                while data := remote.read(_BLOCK):
                    yield data
        except ValueError as error:
            # fsspec's, where a server has no ranges.
            raise _NoRangesError from error
        # Each file system raises its own.
        except Exception as error:
            raise _CutError(_reason(error)) from error


class _NoRangesError(Exception):
    """The server sends whole files only."""


class _CutError(Exception):
    """A transfer ended before the file did."""


def _is_zoo(name: str) -> bool:
    return name.startswith(_ZOO) or zoo.find(name) is not None


def _file_system(url: str) -> Any:
    match = _URL.match(url)
    assert match
    protocol = match[1].lower()
    fsspec = frameworks.import_fsspec()
    options: dict[str, Any] = {}
    if protocol in ("http", "https"):
        timeout = frameworks.import_aiohttp().ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
        # The bytes of the file, not what they were compressed to; through the proxy that the environment names.
        options = {
            "headers": {"Accept-Encoding": "identity"},
            "client_kwargs": {"trust_env": True, "timeout": timeout},
        }
    try:
        return fsspec.filesystem(protocol, skip_instance_cache=True, **options)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        advice = f"pip install {package}" if package else first_line(error)
        raise InputError(f"{_public(url)}: {protocol}:// needs a package that is not installed: {advice}") from error
    except ValueError as error:
        raise InputError(f"{_public(url)}: no protocol that slimport knows: {first_line(error)}") from error


def _refusal(url: str, error: Exception) -> InputError:
    """What a file system's exception means, in one line."""
    # fsspec says "not found" of everything, and keeps what it was as the cause.
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
    status = getattr(cause, "status", None)
    where = _public(url)
    if status in (404, 410) or isinstance(cause, FileNotFoundError):
        return _NotFoundError(f"{where}: no such file there; check the URL")
    if status in (401, 403) or isinstance(cause, PermissionError):
        return InputError(f"{where}: the server refuses it ({_reason(cause)}); check the URL and your credentials")
    return _UnreachableError(f"{where}: cannot be reached: {_reason(cause)}; check the URL and the network")


def _reason(error: BaseException) -> str:
    status, message = getattr(error, "status", None), getattr(error, "message", None)
    if status and message:
        return f"{status} {message}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _folder(cache: Path, url: str) -> Path:
    """One folder for each folder that was fetched from, so that a checkpoint's files are beside each other."""
    return cache / hashlib.sha256(_sibling(url, "").encode()).hexdigest()[:16]


def _name(url: str) -> str:
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not name or "\0" in name:
        raise InputError(f"{_public(url)}: names no file")
    return name


def _sibling(url: str, name: str) -> str:
    """The URL of the file `name` in the same folder."""
    parts = urlsplit(url)
    if name == _name(url):
        return url
    folder = parts.path[: parts.path.rstrip("/").rfind("/") + 1]
    return urlunsplit(parts._replace(path=folder + quote(name), fragment=""))


def _public(url: str) -> str:
    """The URL without what may be secret."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _kept(target: Path) -> Fetched | None:
    record = _read_json(_beside(target, "json"))
    if not isinstance(record, dict) or not target.is_file():
        return None
    try:
        fetched = Fetched(target, record["url"], record["stamp"], record["sha256"])
        whole = int(fetched.stamp.get("size", target.stat().st_size)) == target.stat().st_size
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return fetched if whole else None


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name.removeprefix('.')}.{suffix}")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _beside(part, "json").unlink(missing_ok=True)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    temporary = _beside(path, "new")
    temporary.write_text(json.dumps(value, indent=1))
    temporary.replace(path)


def _check_digest(name: str, found: str, wanted: str | None, advice: str) -> None:
    if wanted is not None and found != wanted.strip().lower():
        raise InputError(f"{name}: its SHA-256 is {found}, not {wanted.strip().lower()}{advice}")
