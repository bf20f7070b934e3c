"""TensorFlow's numbers for dtypes. Source: tensorflow/core/framework/types.proto."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.errors import CheckpointError

STRING = 7
_BFLOAT16 = 14
_NUMPY = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    STRING: "object",
    8: "complex64",
    9: "int64",
    10: "bool",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
_TENSORFLOW = {name: number for number, name in _NUMPY.items()} | {"bfloat16": _BFLOAT16}
# Quantized types are stored, and read, as the integers that hold them.
_QUANTIZED = {11: "int8", 12: "uint8", 13: "int32", 15: "int16", 16: "uint16"}


def numpy_dtype(number: int, where: str) -> np.dtype[Any]:
    """The NumPy dtype of a TensorFlow dtype, little-endian; object for strings.

    Raises:
      CheckpointError: slimport reads no such dtype, or bfloat16's package is missing. `where` says of what.
    """
    if number == _BFLOAT16:
        try:
            import ml_dtypes
        except ModuleNotFoundError as error:
            raise CheckpointError(f"{where} is bfloat16: pip install 'slimport[bfloat16]'") from error
        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    name = _NUMPY.get(number) or _QUANTIZED.get(number)
    if name is None:
        raise CheckpointError(f"{where} has TensorFlow's dtype number {number}, which slimport does not read")
    return np.dtype(name)


def tensorflow_dtype(dtype: np.dtype[Any], where: str) -> int:
    """The inverse of `numpy_dtype`.

    Raises:
      CheckpointError: TensorFlow has no such dtype.
    """
    if dtype.name not in _TENSORFLOW:
        raise CheckpointError(f"{where}: TensorFlow has no dtype {dtype}")
    return _TENSORFLOW[dtype.name]
