"""Slim's variable names and layouts <-> PyTorch's and Keras's: rules, no tables of layers.

Slim names here are relative to the model's scope. Kernels are HWIO in TensorFlow and Keras, OIHW in PyTorch; fully
connected weights are [in, out] and [out, in].
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from converters import frameworks
from converters.variables import Array
from slimport.graph import Shape
from slimport.names import KERAS_LEAVES, PYTORCH_LEAVES
from slimport.names import pytorch_name as pytorch_name

_KERNELS = ("weights", "depthwise_weights", "pointwise_weights")

_TILE = 64
_PYTORCH_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}
_SLIM_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
_SLIM_LEAVES = {PYTORCH_LEAVES[leaf]: leaf for leaf in ("weights", "biases", "pointwise_weights")}
_SLIM_BATCH_NORM_LEAVES = {leaf: slim for slim, leaf in PYTORCH_LEAVES.items() if slim not in _SLIM_LEAVES.values()}


def pytorch_layout(name: str, array: Array) -> Array:
    """The array of slim's variable `name` in PyTorch's layout: a view, transposed if it is a kernel."""
    array = array.reshape(_grouped(name, array.shape))
    return array.transpose(_PYTORCH_AXES[array.ndim]) if _is_kernel(name, array.ndim) else array


def pytorch_array(name: str, array: Array) -> Array:
    """The array of slim's variable `name` in PyTorch's layout, contiguous; `array` itself if nothing changes."""
    if not _is_kernel(name, array.ndim):
        return np.ascontiguousarray(array)
    depth_in, depth = _grouped(name, array.shape)[-2:]
    # As [taps, in, out] -> [out, in, taps]; a fully connected weight has one tap. A tile at a time, copied before it is
    # transposed: reading and writing then both stay in the cache, which is twice as fast as one strided copy.
    kernel = array.reshape(-1, depth_in, depth)
    out = np.empty((depth, depth_in, len(kernel)), array.dtype)
    for i in range(0, depth_in, _TILE):
        for o in range(0, depth, _TILE):
            tile = kernel[:, i : i + _TILE, o : o + _TILE].copy()
            out[o : o + _TILE, i : i + _TILE] = tile.transpose(2, 1, 0)
    return out.reshape(pytorch_shape(name, array.shape))


def tensor_array(tensor: Any) -> Array:
    """A PyTorch tensor as an array, which shares its memory if it is on the CPU."""
    torch = frameworks.require("torch")
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        # NumPy's bfloat16 is ml_dtypes', which torch does not know; the bits are the same.
        bits: Array = tensor.view(torch.int16).numpy()
        return bits.view(frameworks.require("ml_dtypes").bfloat16)
    array: Array = tensor.numpy()
    return array


def array_tensor(array: Array) -> Any:
    """The inverse of `tensor_array`, of an array that can be written to."""
    torch = frameworks.require("torch")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def slim_layout(name: str, array: Array) -> Array:
    """The inverse of `pytorch_layout`; `name` is slim's."""
    return array.transpose(_SLIM_AXES[array.ndim]) if _is_kernel(name, array.ndim) else array


def pytorch_shape(name: str, shape: Shape) -> Shape:
    """The shape of slim's variable `name` in PyTorch's layout."""
    shape = _grouped(name, shape)
    return tuple(shape[axis] for axis in _PYTORCH_AXES[len(shape)]) if _is_kernel(name, len(shape)) else shape


def slim_shape(name: str, shape: Shape) -> Shape:
    """The inverse of `pytorch_shape`; `name` is slim's."""
    return tuple(shape[axis] for axis in _SLIM_AXES[len(shape)]) if _is_kernel(name, len(shape)) else shape


def nhwc(array: Array) -> Array:
    """An end point of PyTorch in slim's layout: feature maps are NCHW, other ranks are the same."""
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def nchw(array: Array) -> Array:
    """The inverse of `nhwc`."""
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


def slim_names(pytorch_names: Collection[str]) -> dict[str, str]:
    """From the names in a state dict to slim's. A layer with running statistics is a BatchNorm.

    `num_batches_tracked`, which has no counterpart in slim, is left out.
    """
    names = {}
    for pytorch in pytorch_names:
        layer, _, leaf = pytorch.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        normalizes = f"{layer}.running_mean" in pytorch_names
        leaves = _SLIM_BATCH_NORM_LEAVES if normalizes else _SLIM_LEAVES
        # A separable convolution, or one that slim's networks call depthwise.
        separable = f"{layer}.pointwise_weight" in pytorch_names or layer.endswith("depthwise")
        slim = "depthwise_weights" if leaf == "weight" and separable and not normalizes else leaves.get(leaf, leaf)
        names[pytorch] = "/".join([*layer.split("."), slim])
    return names


def slim_name(layer: str, weight: str) -> str:
    """Layer `block1__unit_1__conv1` and its weight `kernel` -> `block1/unit_1/conv1/weights`."""
    return f"{layer.replace('__', '/')}/{KERAS_LEAVES.get(weight, weight)}"


def _is_kernel(name: str, rank: int) -> bool:
    return name.rpartition("/")[2] in _KERNELS and rank in _PYTORCH_AXES


def _grouped(name: str, shape: Shape) -> Shape:
    """A depthwise kernel [height, width, in, multiplier] as PyTorch groups it: [height, width, 1, in * multiplier]."""
    if name.rpartition("/")[2] != "depthwise_weights" or len(shape) != 4:
        return shape
    return (*shape[:2], 1, shape[2] * shape[3])
