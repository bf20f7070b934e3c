"""A file as one memory map: arrays are views into it."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from converters.checkpoint.messages import shown
from converters.errors import CheckpointError


class MappedFile:
    """A read-only map of a whole file, created when `view` is first called.

    Attributes:
      path: the file.
      label: what errors call it.
    """

    def __init__(self, path: Path, label: str | None = None) -> None:
        self.path = path
        self.label = shown(str(path)) if label is None else label
        self._map: mmap.mmap | None = None

    @property
    def view(self) -> memoryview:
        """All of the file.

        Raises:
          CheckpointError: it cannot be read.
        """
        if self._map is None:
            try:
                with self.path.open("rb") as file:
                    # An empty file cannot be mapped.
                    if not os.fstat(file.fileno()).st_size:
                        return memoryview(b"")
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{self.label}: cannot be read: {reason(error)}") from error
        return memoryview(self._map)

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
        """Releases the map, which exists as long as an array that views it."""
        self._map = None


def reason(error: Exception) -> str:
    """The system's reason for an error."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
