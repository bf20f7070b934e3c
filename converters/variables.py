"""A variable's name, shape and dtype, in any file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Variable:
    """A variable's name, shape and dtype: object for strings, `V` (void) for values that no array can represent."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
