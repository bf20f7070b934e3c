"""Files: output that appears whole or not at all, whether a source changes meanwhile, digests."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, reason
from slimport.files import exchange, locked, remove_abandoned, replacing, take_mode, workspace

if TYPE_CHECKING:
    from converters.variables import Array

PIECE = 16 << 20
"""Bytes of a large tensor that are copied at once, where a file has it in another layout than memory."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write a file to, which replaces `path` afterwards.

    The temporary file has the name of `path`, whose suffix Keras looks at. After an exception `path` is as it was.

    Raises:
      InputError: the folder is missing or not writable, `path` is no file, or the disk is full.
    """
    path = check_destination(path)
    with _reported(path), replacing(path) as temporary:
        yield temporary


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    # Windows opens no folders.
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def atomic_folder(path: Path, names: Collection[str]) -> Iterator[Path]:
    """Yields an empty temporary folder, which replaces `path` afterwards.

    An existing folder is replaced if it contains only files of these names.

    Raises:
      InputError: the parent folder is missing or not writable, `path` is a file or a folder with other content, or the
        disk is full.
    """
    path = resolved(path)
    _check_parent(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, and this is to be a folder; choose another name")
    if path.is_dir() and (others := sorted({inside.name for inside in path.iterdir()} - set(names))):
        raise InputError(
            f"{path}: contains {others[0]}{' and more' if len(others) > 1 else ''}, which a conversion does not "
            f"replace; choose another folder, or move its content away"
        )
    with _reported(path), workspace(path) as folder:
        new = folder / "new"
        new.mkdir()
        yield new
        with locked(path.parent):
            if not path.is_dir():
                new.rename(path)
                return
            for file in new.iterdir():
                take_mode(file, path / file.name)
            new.chmod(stat.S_IMODE(path.stat().st_mode))
            exchange(new, path)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {reason(error)}") from error


def resolved(path: Path) -> Path:
    """The path of an output, links followed, so that a link stays one.

    Raises:
      InputError: it has no name, one that is too long, or links in a circle.
    """
    try:
        found = path.resolve()
        found.exists()
    # RuntimeError is a circle of links; ValueError a name with a zero byte.
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no path, or its links go in a circle"
        raise InputError(f"{path}: cannot be written: {why}; choose another name") from error
    if not found.name:
        raise InputError(f"{path}: names no file")
    return found


def check_destination(path: Path) -> Path:
    """Checks that a file can be written at `path`, before a long computation; returns it with links followed.

    Raises:
      InputError: the folder is missing or not writable, or `path` is a folder, a device or the like.
    """
    path = resolved(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is a device or a pipe, which is not replaced; name a file")
    _check_parent(path)
    return path


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} is not writable")


def remove_temporary(paths: Iterable[Path]) -> None:
    """Removes what killed writers left of these files, folders or checkpoint prefixes, which nobody writes now."""
    for path in paths:
        remove_abandoned(path, certainly=True)


def fingerprints(paths: Iterable[Path]) -> list[list[Any]]:
    """Name, size and time of change of each file, for JSON; no size for a missing file."""
    found: list[list[Any]] = []
    for path in paths:
        try:
            state = path.stat()
        except OSError:
            found.append([path.name, None, None])
        else:
            found.append([path.name, state.st_size, state.st_mtime_ns])
    return found


def pieces(array: Array) -> Iterator[Array]:
    """Yields an array in parts of `PIECE` bytes at most, row by row; a part is a view."""
    if array.nbytes <= PIECE or not array.ndim:
        yield array
    elif array[0].nbytes > PIECE:
        for row in array:
            yield from pieces(row)
    else:
        step = max(1, PIECE // array[0].nbytes)
        for start in range(0, len(array), step):
            yield array[start : start + step]


class Unchanged:
    """Files as they are now, to be compared with what they are later."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._before = self._state()

    def check(self) -> None:
        """Raises InputError if a file was replaced, written to or removed."""
        for path, before, now in zip(self._paths, self._before, self._state(), strict=True):
            if before != now:
                raise InputError(f"{path}: changed while it was read; wait until nobody writes it, and run it again")

    def _state(self) -> list[tuple[int, ...]]:
        return [_identity(path) for path in self._paths]


def _identity(path: Path) -> tuple[int, ...]:
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def same_file(one: Path, other: Path) -> bool:
    """Whether two existing paths are one file."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 18))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()
