"""What every checkpoint is, whatever its format: a mapping from variable names to arrays."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint.mapped import MappedFile
from converters.checkpoint.ordered_code import FULL_EXTENT, Extents
from converters.errors import CheckpointError

# Pages are given back to the system in steps of this many bytes read, so that memory does not grow with the file.
_DROP_AFTER = 16 << 20


@dataclass(frozen=True)
class Variable:
    """A variable's name, shape and dtype (object for strings)."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Checkpoint(Mapping[str, NDArray[Any]]):
    """The variables of a checkpoint, sorted by name. An array is read, and its checksum verified, when it is asked for.

    Arrays are read-only, and views into the file where its format allows that.

    Attributes:
      path: the V1 file, or the prefix of several files, as TensorFlow's own reader takes it.
      variables: names, shapes and dtypes; making it reads no tensor.
      format: `v1` or `v2`.

    Raises:
      CheckpointError: from reading a variable that is damaged.
      KeyError: a variable that is not there.
    """

    format: ClassVar[str]

    def __init__(self, path: Path, variables: Iterable[Variable], files: Iterable[MappedFile]) -> None:
        self.path = path
        self.variables: Mapping[str, Variable] = {v.name: v for v in sorted(variables, key=lambda v: v.name.encode())}
        self._files = tuple(files)

    @abstractmethod
    def _read(self, variable: Variable) -> NDArray[Any]:
        """The variable's array."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file whose bytes make up the checkpoint."""
        return tuple(file.path for file in self._files)

    def __getitem__(self, name: str) -> NDArray[Any]:
        array = self._read(self.variables[name])
        array.flags.writeable = False
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)

    def stream(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, NDArray[Any]]]:
        """(name, array) one after the other, in memory that does not grow with the file."""
        read = 0
        for name in self if names is None else names:
            array = self[name]
            yield name, array
            read += array.nbytes
            if read > _DROP_AFTER:
                read = 0
                for file in self._files:
                    file.drop_pages()

    def close(self) -> None:
        """Lets go of the files. Arrays that were handed out stay valid."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.format} checkpoint {self.path}: {len(self)} variables>"


def slice_shape(shape: Sequence[int], extents: Extents) -> tuple[int, ...]:
    """The shape of a slice of a variable of a shape.

    Raises:
      ValueError: the slice does not lie within the shape.
    """
    if len(extents) != len(shape):
        raise ValueError(f"a slice of rank {len(extents)} in a variable of shape {list(shape)}")
    sides = []
    for side, (start, length) in zip(shape, extents, strict=True):
        if (start, length) == FULL_EXTENT:
            start, length = 0, side
        if start < 0 or length < 0 or start + length > side:
            raise ValueError(f"a slice [{start}, {start + length}) in a side of {side}")
        sides.append(length)
    return tuple(sides)


def assemble(where: str, variable: Variable, pieces: Iterable[tuple[Extents, NDArray[Any]]]) -> NDArray[Any]:
    """A partitioned variable from its slices, each read and checked already.

    Raises:
      CheckpointError: the slices overlap, or leave a part of the variable out. `where` begins the message.
    """
    whole = np.empty(variable.shape, variable.dtype)
    filled = np.zeros(variable.shape, bool)
    count = 0
    for extents, piece in pieces:
        place = tuple(slice(None) if e == FULL_EXTENT else slice(e[0], e[0] + e[1]) for e in extents)
        whole[place] = piece
        filled[place] = True
        count += piece.size
    if count != whole.size or not filled.all():
        raise CheckpointError(f"{where}: its slices do not cover the shape {list(variable.shape)} once")
    return whole


def element_count(shape: Sequence[int]) -> int:
    """The number of elements, in Python's unbounded integers."""
    return math.prod(shape)
