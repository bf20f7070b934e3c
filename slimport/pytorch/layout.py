"""TensorFlow's axes, shapes and sizes for PyTorch's tensors: those of 4 axes are maps, NCHW; the others are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from slimport.sizes import OPERATIONS, evaluate

_MAP_AXES = (0, 2, 3, 1)


def axis_of(net: Tensor, axis: int) -> int:
    """Where TensorFlow's axis, which may be negative, is in a tensor."""
    axis = axis % net.dim()
    return _MAP_AXES[axis] if net.dim() == 4 else axis


def to_tf(net: Tensor) -> Tensor:
    """The tensor as TensorFlow has it: a map is NHWC."""
    return net.permute(0, 2, 3, 1) if net.dim() == 4 else net


def from_tf(net: Tensor) -> Tensor:
    """The inverse of `to_tf`."""
    return net.permute(0, 3, 1, 2) if net.dim() == 4 else net


def aligned(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The tensors with as many axes each, so that they broadcast as TensorFlow's do."""
    rank = max(tensor.dim() for tensor in tensors)
    if all(tensor.dim() == rank for tensor in tensors):
        return tensors
    return [tensor if tensor.dim() == rank else _raised(to_tf(tensor), rank) for tensor in tensors]


def _raised(net: Tensor, rank: int) -> Tensor:
    return from_tf(net.reshape((1,) * (rank - net.dim()) + tuple(net.shape)))


def number(size: Any, inputs: Sequence[Tensor]) -> Any:
    """A size, by the shapes of a layer's inputs: a number, or a symbol in a program for any sizes."""
    return evaluate(size, lambda index, axis: inputs[index].shape[axis_of(inputs[index], axis)], _OPERATIONS)


def _either(symbolic: Any, plain: Any) -> Any:
    def operation(a: Any, b: Any) -> Any:
        return plain(a, b) if isinstance(a, int) and isinstance(b, int) else symbolic(a, b)

    return operation


_OPERATIONS = {
    **OPERATIONS,
    "larger": _either(torch.sym_max, max),
    "smaller": _either(torch.sym_min, min),
    "truncate": lambda a: a if isinstance(a, int) else torch.sym_int(a),  # type: ignore[no-untyped-call]
}
