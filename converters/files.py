"""Files: output that appears whole or not at all, temporary names, digests."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from converters.errors import InputError
from slimport.files import replacing, temporary_path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write a file to, which replaces `path` afterwards.

    The temporary name has the suffix of `path`, which Keras looks at. After an exception the temporary file is removed,
    and `path` is as it was.

    Raises:
      InputError: the folder is missing or not writable, `path` is a folder, or the disk is full.
    """
    # Following a link, so that the link stays one.
    path = path.resolve()
    check_destination(path)
    with _reported(path), replacing(path) as temporary:
        yield temporary


@contextmanager
def durable(path: Path) -> Iterator[IO[bytes]]:
    """Yields a file to write to, which replaces `path` once its bytes are on the disk.

    Raises:
      OSError: the file cannot be written or renamed; `path` is as it was.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


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

    An existing folder is replaced if it contains only files of these names. It is moved aside first: a process that is
    killed at this moment leaves it beside `path`, under a hidden name.

    Raises:
      InputError: the parent folder is missing or not writable, `path` is a file or a folder with other content, or the
        disk is full.
    """
    path = path.resolve()
    _check_parent(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, and this is to be a folder; choose another name")
    if path.is_dir() and (others := sorted({inside.name for inside in path.iterdir()} - set(names))):
        raise InputError(
            f"{path}: contains {others[0]}{' and more' if len(others) > 1 else ''}, which a conversion does not "
            f"replace; choose another folder, or move its content away"
        )
    temporary, old = temporary_path(path), temporary_path(path)
    try:
        with _reported(path):
            temporary.mkdir()
            yield temporary
            if path.is_dir():
                path.rename(old)
                try:
                    temporary.rename(path)
                except OSError:
                    old.rename(path)
                    raise
                shutil.rmtree(old, ignore_errors=True)
            else:
                temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def check_destination(path: Path) -> None:
    """Checks that a file can be written at `path`, before a long computation.

    Raises:
      InputError: the folder is missing or not writable, or `path` is a folder.
    """
    path = path.resolve()
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    _check_parent(path)


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} is not writable")


def remove_temporary(paths: Iterable[Path]) -> None:
    """Removes the temporary files that killed writers left of these files, folders or checkpoint prefixes."""
    for path in paths:
        pattern = re.compile(rf"\.\d+-[0-9a-f]{{8}}\.{re.escape(path.name)}(\.index|\.data-\d{{5}}-of-\d{{5}})?")
        for found in path.parent.iterdir():
            if not pattern.fullmatch(found.name):
                continue
            if found.is_dir():
                shutil.rmtree(found, ignore_errors=True)
            else:
                found.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 18))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()
