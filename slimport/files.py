"""Output that appears whole or not at all, under temporary names."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def temporary_path(path: Path) -> Path:
    """A hidden path beside `path`, with its suffix, that no other process uses, on this machine or another."""
    return path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.{path.name}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write a file to, which replaces `path` afterwards.

    After an exception the temporary file is removed, and `path` is as it was.

    Raises:
      OSError: the file cannot be written or renamed.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
