"""Partitioned variables: checks their slices, and joins them.

Source: tensorflow/core/util/tensor_slice_set.cc.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint.ordered_code import FULL_EXTENT, Extents


class SliceError(ValueError):
    """Slices that do not cover their variable. Callers add the file and the variable."""


def slice_shape(shape: Sequence[int], extents: Extents) -> tuple[int, ...]:
    """The shape of a slice of a variable of a shape.

    Raises:
      SliceError: the slice does not lie within the shape.
    """
    if len(extents) != len(shape):
        raise SliceError(f"a slice of rank {len(extents)} in a variable of shape {list(shape)}")
    sides = []
    for side, (start, length) in zip(shape, extents, strict=True):
        if (start, length) == FULL_EXTENT:
            start, length = 0, side
        if start < 0 or length < 0 or start + length > side:
            raise SliceError(f"a slice [{start}, {start + length}) in a side of {side}")
        sides.append(length)
    return tuple(sides)


def check_cover(shape: Sequence[int], slices: Sequence[Extents]) -> None:
    """Checks that slices cover a variable, from their extents, before any is read or memory is allocated.

    Raises:
      SliceError: they are too large together, or too small.
    """
    if len(set(map(tuple, slices))) != len(slices):
        raise SliceError("a slice of it is listed twice")
    if sum(math.prod(slice_shape(shape, extents)) for extents in slices) != math.prod(shape):
        raise SliceError(f"its slices do not cover the shape {list(shape)} once")


def assemble(
    shape: Sequence[int], dtype: np.dtype[Any], pieces: Iterable[tuple[Extents, NDArray[Any]]]
) -> NDArray[Any]:
    """A partitioned variable, [*shape], from its slices, after `check_cover`.

    Raises:
      SliceError: slices overlap.
    """
    whole = np.empty(shape, dtype)
    filled = np.zeros(shape, bool)
    for extents, piece in pieces:
        place = tuple(slice(None) if e == FULL_EXTENT else slice(e[0], e[0] + e[1]) for e in extents)
        whole[place] = piece
        filled[place] = True
    # As many elements as the variable has, and none left out: so none twice.
    if not filled.all():
        raise SliceError(f"its slices do not cover the shape {list(shape)} once")
    return whole
