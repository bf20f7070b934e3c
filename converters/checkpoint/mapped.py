"""A file as one memory map: arrays are views into it."""

from __future__ import annotations

import mmap
from pathlib import Path

from converters.errors import CheckpointError


class MappedFile:
    """A read-only map of a whole file, made when `view` is first asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
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
                    if not file.seek(0, 2):
                        return memoryview(b"")
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError as error:
                raise CheckpointError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        return memoryview(self._map)

    def drop_pages(self) -> None:
        """Gives the pages read so far back to the system. Views stay valid: they are read again when touched."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Lets go of the map, which stays for as long as an array that views it."""
        self._map = None
