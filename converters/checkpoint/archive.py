"""A checkpoint inside a tar, compressed or not, or a zip, as models are released.

Nothing is ever unpacked under a member's own path: the checkpoint's files, and no others, go by their last names into a
fresh temporary folder. Whatever else an archive is made for (a way out of the folder, links, devices) refuses it whole.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from converters.checkpoint.locate import (
    BZIP2_MAGIC,
    GZIP_MAGIC,
    LARGEST_STATE,
    XZ_MAGIC,
    Candidate,
    candidates,
    choose,
    is_zip,
)
from converters.checkpoint.messages import shown
from converters.checkpoint.table import MAGIC
from converters.errors import CheckpointError, reason

# A checkpoint hardly compresses; of a small archive, more than this can be true.
_RATIO, _SMALL = 50, 256 << 20
# For all headers of an archive together. The tar module reads long names and extended headers whole, however long they
# claim to be.
_HEADER_BUDGET = 16 << 20
_CHUNK = 1 << 20
_COMPRESSIONS: Mapping[bytes, Callable[[IO[bytes]], Any]] = {
    GZIP_MAGIC: lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    BZIP2_MAGIC: bz2.BZ2File,
    XZ_MAGIC: lzma.LZMAFile,
}
_LONGEST_MAGIC = max(map(len, _COMPRESSIONS))
_SEVERAL = "ask for a step, or unpack it and name one"


def unpack(path: Path, step: int | None = None) -> tuple[tempfile.TemporaryDirectory[str], Candidate]:
    """Finds the checkpoint in an archive, and unpacks its files, each under the last part of its name.

    Args:
      path: the archive.
      step: which of several checkpoints, PREFIX-STEP; None is the only one, or the newest by a `checkpoint` file.

    Returns:
      The folder, which is removed with the object, and the checkpoint, whose prefix's last part is that in the folder.

    Raises:
      CheckpointError: there is no checkpoint or more than one, the archive is damaged, refused or does not fit.
    """
    where = shown(str(path))
    try:
        contents = _contents(path, where)
        chosen = choose(where, candidates(contents.tables, contents.sizes), contents.state, step, _SEVERAL)
        return _extract(path, where, chosen, contents), chosen
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


class _Member(NamedTuple):
    """A regular file in an archive: its name, its size, and where its bytes begin in a stream of them."""

    name: str
    size: int
    file: IO[bytes]
    offset: int


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of the tar, inflated where they are compressed."""
    with path.open("rb") as file:
        begins = file.read(_LONGEST_MAGIC)
        file.seek(0)
        inflate = next((inflate for magic, inflate in _COMPRESSIONS.items() if begins.startswith(magic)), None)
        try:
            if inflate is None:
                yield file
            else:
                with inflate(file) as inflated:
                    yield inflated
        except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
            raise CheckpointError(f"{shown(str(path))}: damaged or cut off: {reason(error)}; get it again") from error


def _members(path: Path, where: str) -> Iterator[_Member]:
    """Yields the regular files of an archive, which together are not far larger than it is."""
    left = max(_SMALL, path.stat().st_size * _RATIO)
    for member in _zip_members(path, where) if is_zip(path) else _tar_members(path, where):
        left -= member.size
        if left < 0:
            raise CheckpointError(
                f"{where}: would be more than {_RATIO} times its size once unpacked, which no checkpoint is: refused; "
                "unpack it yourself, if you trust it"
            )
        yield member


def _tar_members(path: Path, where: str) -> Iterator[_Member]:
    with _opened(path) as file:
        tar = tarfile.TarFile(fileobj=_Headers(file), mode="r")  # type: ignore[arg-type]
        position = -1
        while (member := tar.next()) is not None:
            # A forged size takes a reader back to where it was.
            if member.offset <= position or tar.offset <= member.offset or member.size < 0:
                raise tarfile.ReadError(f"the header at {member.offset} claims {member.size} bytes")
            position = member.offset
            # Not needed again, and there can be many.
            tar.members = []  # type: ignore[attr-defined]
            _check_allowed(where, member.name, _refused(member))
            if member.isreg():
                yield _Member(member.name, member.size, file, member.offset_data)


def _zip_members(path: Path, where: str) -> Iterator[_Member]:
    try:
        opened = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{where}: a zip archive that is damaged or cut off: {error}; get it again") from error
    with opened as archive:
        for info in archive.infolist():
            link = stat.S_ISLNK(info.external_attr >> 16)
            _check_allowed(where, info.filename, "a link" if link else "encrypted" if info.flag_bits & 1 else None)
            if not info.is_dir():
                with archive.open(info) as file:
                    yield _Member(info.filename, info.file_size, file, 0)


def _check_allowed(where: str, name: str, what: str | None) -> None:
    """Raises CheckpointError if a member leads out of the archive, or is `what`, which no checkpoint is."""
    path = PurePosixPath(name)
    if path.is_absolute():
        what = "an absolute path"
    elif ".." in path.parts:
        what = "a path out of the archive"
    if what is not None:
        raise CheckpointError(
            f"{where}: {shown(name)} is {what}: refused; unpack it yourself, if you trust it, and name the checkpoint"
        )


def _refused(member: tarfile.TarInfo) -> str | None:
    if member.issym() or member.islnk():
        return "a link"
    if member.isdev():
        return "a device"
    if member.issparse():
        return "a sparse file"
    return None


def _contents(path: Path, where: str) -> _Contents:
    contents = _Contents()
    for member in _members(path, where):
        if member.name in contents.sizes:
            raise tarfile.ReadError(f"{shown(member.name)} is in it twice")
        contents.sizes[member.name] = member.size
        # The whole of a `checkpoint` file, a short text, else the end: going back would inflate all of it again.
        is_state = PurePosixPath(member.name).name == "checkpoint" and member.size <= LARGEST_STATE
        tail = member.size if is_state else min(member.size, len(MAGIC))
        member.file.seek(member.offset + member.size - tail)
        content = member.file.read(tail)
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
        for member in _members(path, where):
            if member.name in missing:
                member.file.seek(member.offset)
                _copy(member.file, Path(folder.name) / PurePosixPath(member.name).name, member.size)
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
