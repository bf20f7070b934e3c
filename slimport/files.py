"""Output that appears whole or not at all.

A file is written in a hidden folder beside the path that it is to have, and then renamed. The folder is locked while
its process lives, so that the next writer of the same path knows what a killed one left, and removes it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # On Windows.
    _LOCKS = False
else:
    _LOCKS = True

_LONGEST_NAME = 200
"""Bytes of a name that are in the name of its folder: file systems take 255 for both and the prefix."""
_OLD = "old"
"""The name in its folder of what is replaced, where a system cannot exchange two folders at once."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path of the same name to write a file to, which replaces `path` afterwards.

    The file gets the mode that `path` had, or that of a new file. After an exception `path` is as it was.

    Raises:
      OSError: the file cannot be written or renamed.
    """
    with workspace(path) as folder:
        temporary = folder / path.name
        yield temporary
        take_mode(temporary, path)
        temporary.replace(path)


@contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """Yields an empty hidden folder beside `path`, which no other process uses and which is removed afterwards.

    Raises:
      OSError: the folder cannot be made.
    """
    folder = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.{_cut(path.name)}")
    descriptor = None
    try:
        # Together, so that no other process takes the new folder for one that was left behind.
        with locked(path.parent):
            remove_abandoned(path)
            folder.mkdir()
            descriptor = _lock(folder)
        yield folder
    finally:
        _remove(folder, path)
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other process is in such a block for this folder. No effect where the system has no locks."""
    descriptor = _lock(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def remove_abandoned(path: Path, certainly: bool = False) -> None:
    """Removes what killed writers of `path` left beside it.

    Args:
      path: the file, folder or checkpoint prefix.
      certainly: whether nobody writes it now, for systems that have no locks to tell.
    """
    pattern = re.compile(rf"\.\d+-[0-9a-f]{{8}}\.{re.escape(_cut(path.name))}")
    for folder in _folders(path.parent):
        if not pattern.fullmatch(folder.name):
            continue
        try:
            descriptor = _lock(folder, wait=False)
        except BlockingIOError:
            continue
        if descriptor is not None or certainly:
            _remove(folder, path)
        if descriptor is not None:
            os.close(descriptor)


def exchange(new: Path, path: Path) -> None:
    """Puts the folder `new`, which is in a workspace, in the place of the folder `path`, which the workspace then has.

    Raises:
      OSError: it cannot be done; `path` is as it was once the workspace is left.
    """
    if not _exchanged_at_once(new, path):
        path.rename(new.with_name(_OLD))
        new.rename(path)


def take_mode(new: Path, path: Path) -> None:
    """Gives a file in a workspace the mode of the file at `path`, or that of a new file if there is none."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        mode = new.parent.stat().st_mode & 0o666
    # Not every file system has modes.
    with suppress(OSError):
        new.chmod(mode)


def _remove(folder: Path, path: Path) -> None:
    """Removes a workspace of `path`; what it has of before goes back where it was, if nothing took its place."""
    if (folder / _OLD).exists() and not os.path.lexists(path):
        (folder / _OLD).rename(path)
    shutil.rmtree(folder, ignore_errors=True)


def _folders(parent: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _exchanged_at_once(new: Path, path: Path) -> bool:
    """Whether the system has exchanged two paths, which Linux does on most file systems."""
    import ctypes

    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(new), here, os.fsencode(path), flag) == 0


def _cut(name: str) -> str:
    return os.fsencode(name)[-_LONGEST_NAME:].decode(errors="replace")


def _lock(folder: Path, wait: bool = True) -> int | None:
    """The descriptor whose end is the lock's; None where the system cannot lock.

    Raises:
      BlockingIOError: another process has the lock, and this one is not to wait.
    """
    if not _LOCKS:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError) and not isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor
