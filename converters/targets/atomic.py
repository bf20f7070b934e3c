"""Output that appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


def check_destination(path: Path) -> None:
    """Whether a file can be written at `path`, as far as that can be told before: for what takes long to compute.

    Raises:
      InputError: the folder is missing or not writable, or `path` is a folder.
    """
    path = path.resolve()
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} is not writable")
