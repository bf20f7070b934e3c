"""A variable's name, shape and dtype, in any file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
PathLike = str | os.PathLike[str]


def listed(paths: PathLike | Sequence[PathLike]) -> Sequence[PathLike]:
    """One path, which may stand for a list of it, or several."""
    return [paths] if isinstance(paths, str | os.PathLike) else paths


@dataclass(frozen=True)
class Variable:
    """A variable's name, shape and dtype: object for strings, `V` (void) for values that no array can represent."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
