"""What the checkpoint tests share: files that TensorFlow itself writes, and what TensorFlow itself reads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import ml_dtypes
import numpy as np
import tensorflow as tf

THIRD_PARTY = Path(__file__).parents[3] / "shared" / "checkpoints"

# Every dtype that TensorFlow's own writers take.
V1_DTYPES = [
    "float16", "float32", "float64", "complex64", "complex128", "bool",
    "int8", "int16", "int32", "int64", "uint8", "uint16",
]  # fmt: skip
V2_DTYPES = [
    *V1_DTYPES, "uint32", "uint64", "bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz",
    "float8_e4m3b11fnuz", "float8_e5m2fnuz", "int4", "uint4",
]  # fmt: skip

Arrays = Mapping[str, Any]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's, or that of ml_dtypes."""
    return np.dtype(getattr(ml_dtypes, name, name))


def random_array(dtype: str, shape: Sequence[int], seed: int = 0) -> Any:
    """Random bits: not-a-numbers of every kind; and integers of all sizes, so that varints of every length appear."""
    generator = np.random.default_rng(seed)
    count = int(np.prod(shape))
    if dtype == "string":
        lengths = generator.integers(0, 300, count)
        return np.array([generator.bytes(n) for n in lengths], object).reshape(shape)
    made = numpy_dtype(dtype)
    if dtype == "bool":
        return generator.integers(0, 2, count).astype(bool).reshape(shape)
    if dtype in ("int4", "uint4"):
        return generator.integers(0, 8, count).astype(made).reshape(shape)
    bits = generator.bytes(count * made.itemsize)
    if made.kind in "iu":
        values = np.frombuffer(bits, made) >> generator.integers(0, 8 * made.itemsize, count).astype(made)
        return values.astype(made).reshape(shape)
    return np.frombuffer(bits, made).reshape(shape)


def assert_same(ours: Any, theirs: Any, name: str = "") -> None:
    """Dtype, shape and every bit."""
    theirs = np.asarray(theirs)
    assert ours.dtype == theirs.dtype, name
    assert ours.shape == theirs.shape, name
    if theirs.dtype.kind == "O":
        assert ours.tolist() == theirs.tolist(), name
    else:
        assert ours.tobytes() == theirs.tobytes(), name


def tensors(arrays: Arrays) -> list[Any]:
    """What TensorFlow holds in memory."""
    assert tf.executing_eagerly()
    return [tf.constant(array, tf.string if array.dtype.kind == "O" else None) for array in arrays.values()]


def save_v2(prefix: Path, arrays: Arrays, slices: Sequence[str] | None = None) -> Path:
    """By the op of `Saver(write_version=V2)`."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(arrays),
        shape_and_slices=slices or [""] * len(arrays),
        tensors=tensors(arrays),
    )
    return prefix


def save_v1(path: Path, arrays: Arrays, slices: Sequence[str] | None = None) -> Path:
    """By the op of `Saver(write_version=V1)`."""
    tf.raw_ops.SaveSlices(
        filename=str(path),
        tensor_names=list(arrays),
        shapes_and_slices=slices or [""] * len(arrays),
        data=tensors(arrays),
    )
    return path


SAVE = {"v1": save_v1, "v2": save_v2}


def restore(path: Path, arrays: Arrays) -> dict[str, Any]:
    """By the op of `Saver.restore`, which takes both formats."""
    restored = tf.raw_ops.RestoreV2(
        prefix=str(path),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        dtypes=[tf.string if array.dtype.kind == "O" else tf.as_dtype(array.dtype) for array in arrays.values()],
    )
    # A string by itself comes as bytes.
    return {name: np.asarray(t.numpy(), arrays[name].dtype) for name, t in zip(arrays, restored, strict=True)}
