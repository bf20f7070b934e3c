"""Weights in another floating-point dtype, and the errors of that: `--dtype`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from converters import frameworks
from converters.errors import InputError
from converters.formats import FLOATING_POINT
from converters.variables import Array

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Loss:
    """The errors of rounding one variable, or several.

    numbers: the number of values.
    rel_l2: ||rounded - exact|| / ||exact||.
    relative: the largest |rounded - exact| / |exact| of the values that do not become subnormal or 0.
    subnormal: the number of values that become subnormal, with fewer bits.
    zero: the number of nonzero values that become 0.
    """

    numbers: int
    rel_l2: float
    relative: float
    subnormal: int
    zero: int


@dataclass(frozen=True)
class Rounding:
    """The rounding of a source's variables: `losses` are by slim's name relative to the scope."""

    source_dtypes: tuple[str, ...]
    dtype: str
    losses: Mapping[str, Loss]

    @property
    def worst(self) -> str:
        """The variable with the largest rel_l2."""
        return max(self.losses, key=lambda name: self.losses[name].rel_l2)

    def to_json(self) -> dict[str, Any]:
        return {
            "from": list(self.source_dtypes),
            "to": self.dtype,
            "worst": self.worst,
            "variables": {name: asdict(loss) for name, loss in self.losses.items()},
        }

    def __str__(self) -> str:
        cast = f"{' and '.join(self.source_dtypes)} to {self.dtype}"
        losses = list(self.losses.values())
        if not any(loss.rel_l2 for loss in losses):
            return f"{cast}: without loss"
        worst = self.losses[self.worst]
        subnormal, zero = sum(loss.subnormal for loss in losses), sum(loss.zero for loss in losses)
        return (
            f"{cast}: at worst rel_l2 {worst.rel_l2:.1e}, in {self.worst}; of {sum(x.numbers for x in losses):,} "
            f"numbers, {subnormal:,} become subnormal and {zero:,} become 0"
        )


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The dtype of a name in `FLOATING_POINT`. NumPy's bfloat16 is ml_dtypes'.

    Raises:
      InputError: another name, or ml_dtypes is needed and missing.
    """
    if name not in FLOATING_POINT:
        raise InputError(f"dtype {name!r}: must be one of {', '.join(FLOATING_POINT)}")
    return np.dtype(frameworks.require("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def loss(array: Array, dtype: np.dtype[Any]) -> tuple[Loss, int]:
    """The loss of one variable, and how many of its values overflow, computed in pieces to save memory."""
    if np.can_cast(array.dtype, dtype, "safe"):
        return Loss(array.size, 0.0, 0.0, 0, 0), 0
    limits = frameworks.require("ml_dtypes").finfo if dtype.name == "bfloat16" else np.finfo
    smallest = float(limits(dtype).smallest_normal)
    squares = errors = relative = 0.0
    subnormal = zero = overflows = 0
    flat = array.reshape(-1)
    for start in range(0, array.size, _CHUNK):
        piece = flat[start : start + _CHUNK]
        exact = np.abs(piece.astype(np.float64))
        with np.errstate(over="ignore"):
            rounded = np.abs(piece.astype(dtype).astype(np.float64))
        finite = np.isfinite(exact)
        overflows += int(np.count_nonzero(finite & ~np.isfinite(rounded)))
        difference = np.subtract(rounded, exact, where=finite, out=np.zeros_like(exact))
        np.abs(difference, out=difference)
        squares += float(np.sum(exact**2, where=finite))
        errors += float(np.sum(difference**2))
        normal = finite & (rounded >= smallest)
        relative = max(relative, float(np.max(difference[normal] / exact[normal], initial=0.0)))
        zero += int(np.count_nonzero((exact > 0) & (rounded == 0)))
        subnormal += int(np.count_nonzero((rounded > 0) & (rounded < smallest)))
    return Loss(array.size, math.sqrt(errors / squares) if squares else 0.0, relative, subnormal, zero), overflows
