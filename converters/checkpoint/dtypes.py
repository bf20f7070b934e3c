"""TensorFlow's numbers for dtypes. Source: tensorflow/core/framework/types.proto."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.errors import CheckpointError

STRING = 7
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
# Not NumPy's own; ml_dtypes has them under these names.
_ML_DTYPES = {
    14: "bfloat16",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
    26: "float8_e4m3fnuz",
    27: "float8_e4m3b11fnuz",
    28: "float8_e5m2fnuz",
    29: "int4",
    30: "uint4",
    31: "int2",
    32: "uint2",
    33: "float4_e2m1fn",
}
_TENSORFLOW = {name: number for number, name in (_NUMPY | _ML_DTYPES).items()}
# Quantized types are stored, and read, as integers.
_QUANTIZED = {11: "int8", 12: "uint8", 13: "int32", 15: "int16", 16: "uint16"}

# Of a variant (the state of a dataset's iterator, say), a resource, or a type that is newer than this list: such a
# variable is listed, and refused when it is read, so that the others stay readable.
UNREADABLE: np.dtype[Any] = np.dtype("V")


def numpy_dtype(number: int, where: str) -> np.dtype[Any]:
    """The NumPy dtype of a TensorFlow dtype: object for strings, `UNREADABLE` for values that no array can represent.

    Raises:
      CheckpointError: ml_dtypes is needed and missing. `where` says of what.
    """
    if number in _ML_DTYPES:
        name = _ML_DTYPES[number]
        try:
            import ml_dtypes

            extension: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        except (ModuleNotFoundError, AttributeError) as error:
            raise CheckpointError(f"{where} is {name}: pip install --upgrade ml_dtypes") from error
        return extension
    known = _NUMPY.get(number) or _QUANTIZED.get(number)
    return UNREADABLE if known is None else np.dtype(known)


def tensorflow_dtype(dtype: np.dtype[Any], where: str) -> int:
    """The inverse of `numpy_dtype`.

    Raises:
      CheckpointError: TensorFlow has no such dtype.
    """
    if dtype.name not in _TENSORFLOW:
        raise CheckpointError(f"{where}: TensorFlow has no dtype {dtype}")
    return _TENSORFLOW[dtype.name]
