"""A file that is read in pieces, and never mapped.

The system ends a process that looks at a memory map beyond the end of a file that was cut off since, and a training run
may still write what is read here. A read that comes too late is an error in one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import numpy as np

from converters.checkpoint.messages import shown
from converters.errors import CheckpointError, reason

LARGEST_MESSAGE = 1 << 31
"""Bytes of a protobuf message, at most."""


class RawFile:
    """A file that is read in pieces; it is opened by the first.

    Attributes:
      path: the file.
      label: what errors call it.
    """

    def __init__(self, path: Path, label: str | None = None) -> None:
        self.path = path
        self.label = shown(str(path)) if label is None else label
        self._file: FileIO | None = None

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

    def message(self) -> memoryview:
        """All of the file, which is one protobuf message.

        Raises:
          CheckpointError: it cannot be read, or is larger than a message can be.
        """
        if (self.size() or 0) > LARGEST_MESSAGE:
            raise CheckpointError(f"{self.label}: larger than 2 GiB, which no protobuf message is; name another file")
        try:
            return self.read(0, LARGEST_MESSAGE)
        finally:
            self.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, MemoryError) as error:
            raise CheckpointError(f"{self.label}: cannot be read: {reason(error)}") from error

    def size(self) -> int | None:
        """The file's size; None if it does not exist."""
        try:
            return self.path.stat().st_size
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
