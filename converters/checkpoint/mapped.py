"""A file as one memory map, or in pieces."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import numpy as np

from converters.checkpoint.messages import shown
from converters.errors import CheckpointError


class MappedFile:
    """A file that is read in two ways: as a map of all of it, created when `view` is first called, or in pieces.

    A map costs no memory of its own, but the system ends a process that looks beyond the end of a file that was cut
    since. So what may change while it is read, the data of a training run, is read in pieces.

    Attributes:
      path: the file.
      label: what errors call it.
    """

    def __init__(self, path: Path, label: str | None = None) -> None:
        self.path = path
        self.label = shown(str(path)) if label is None else label
        self._map: mmap.mmap | None = None
        self._file: FileIO | None = None

    @property
    def view(self) -> memoryview:
        """All of the file.

        Raises:
          CheckpointError: it cannot be read.
        """
        if self._map is None:
            with self._errors(), self.path.open("rb") as file:
                # An empty file cannot be mapped.
                if not os.fstat(file.fileno()).st_size:
                    return memoryview(b"")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return memoryview(self._map)

    def read(self, offset: int, size: int) -> memoryview:
        """A copy of `size` bytes of the file, or of fewer if it ends before.

        Raises:
          CheckpointError: it cannot be read.
        """
        with self._errors():
            if self._file is None:
                self._file = FileIO(self.path)
            size = min(size, max(0, os.fstat(self._file.fileno()).st_size - offset))
            content = np.empty(size, np.uint8).data if size else memoryview(b"")
            self._file.seek(offset)
            done = 0
            while done < size and (count := self._file.readinto(content[done:])):
                done += count
        return content[:done]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.label}: cannot be read: {reason(error)}") from error

    def size(self) -> int | None:
        """The file's size; None if it does not exist."""
        try:
            return self.path.stat().st_size
        except (OSError, ValueError):
            return None

    def drop_pages(self) -> None:
        """Releases the memory of the pages read so far. Views stay valid: their pages are read again on access."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Closes the file, and releases the map, which exists as long as an array that views it."""
        self._map = None
        if self._file is not None:
            self._file.close()
            self._file = None


def reason(error: Exception) -> str:
    """The system's reason for an error."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
