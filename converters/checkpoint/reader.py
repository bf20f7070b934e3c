"""The base class of checkpoints: a mapping from variable names to arrays."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from numpy.typing import NDArray

from converters.checkpoint.dtypes import UNREADABLE
from converters.checkpoint.messages import shown
from converters.checkpoint.raw import RawFile
from converters.errors import CheckpointError
from converters.variables import Variable


class Checkpoint(Mapping[str, NDArray[Any]]):
    """The variables of a checkpoint, sorted by name. An array is read, and its checksum verified, on access.

    Arrays are read-only copies of what is in the file, and stay valid when the checkpoint is closed.

    Attributes:
      path: the V1 file, or the prefix of several files, as TensorFlow's own reader takes it. Files from an
        archive are in a temporary folder until the checkpoint is closed.
      variables: names, shapes and dtypes; making it reads no tensor.
      format: `v1` or `v2`.
      note: what a user should know of the choice of this checkpoint.

    Raises:
      CheckpointError: from reading a variable that is damaged.
      KeyError: a variable that is not there.
    """

    format: ClassVar[str]

    def __init__(self, path: Path, variables: Iterable[Variable], files: Iterable[RawFile]) -> None:
        self.path = path
        self.note = ""
        self.variables: Mapping[str, Variable] = {v.name: v for v in sorted(variables, key=lambda v: v.name.encode())}
        self._files = tuple(files)
        self._on_close: list[Callable[[], None]] = []

    @abstractmethod
    def _read(self, variable: Variable) -> NDArray[Any]:
        """The variable's array."""

    def has_data(self, name: str) -> bool:  # noqa: ARG002
        """Whether the file with a variable's bytes exists."""
        return True

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the checkpoint, without missing shards."""
        return tuple(file.path for file in self._files if file.size() is not None)

    def __getitem__(self, name: str) -> NDArray[Any]:
        variable = self.variables[name]
        if variable.dtype == UNREADABLE:
            raise CheckpointError(
                f"{self._files[0].label}: {shown(name)} is a variant, a resource or of a newer type, which no array "
                "holds; leave it out"
            )
        array = self._read(variable)
        array.flags.writeable = False
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)

    def stream(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yields (name, array), in memory that does not grow with the file.

        Args:
          names: which variables; None is all. The file's order is the fastest.
        """
        for name in self if names is None else names:
            yield name, self[name]

    def on_close(self, action: Callable[[], None]) -> None:
        """Registers a callback for close."""
        self._on_close.append(action)

    def close(self) -> None:
        """Closes the files. Arrays that were read stay valid."""
        for file in self._files:
            file.close()
        while self._on_close:
            self._on_close.pop()()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.format} checkpoint {self.path}: {len(self)} variables>"
