"""Output that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from converters.errors import InputError
from converters.temporary import temporary_path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, and renames what was written to `path` afterwards.

    The temporary name keeps the suffix, which Keras looks at. On any exception the temporary file is removed and what
    stood at `path` is untouched.

    Raises:
      InputError: the folder is missing or not writable, `path` is a folder, or the disk is full.
    """
    # Following a link, so that the link stays one.
    path = path.resolve()
    check_destination(path)
    temporary = temporary_path(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, names: Collection[str]) -> Iterator[Path]:
    """Yields an empty folder beside `path`, which takes its place afterwards.

    A folder that stands at `path` is replaced if it holds nothing but files of these names. It is moved aside for that:
    a process that is killed in this moment leaves it beside `path`, under a hidden name.

    Raises:
      InputError: the folder of `path` is missing or not writable, `path` is a file or a folder that holds something
        else, or the disk is full.
    """
    path = path.resolve()
    _check_parent(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, and this is to be a folder; choose another name")
    if path.is_dir() and (others := sorted({inside.name for inside in path.iterdir()} - set(names))):
        raise InputError(
            f"{path}: holds {others[0]}{' and more' if len(others) > 1 else ''}, which a conversion does not replace; "
            f"choose another folder, or move what is in it"
        )
    temporary, old = temporary_path(path), temporary_path(path)
    try:
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
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_destination(path: Path) -> None:
    """Whether a file can be written at `path`, as far as that can be told before: for what takes long to compute.

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
