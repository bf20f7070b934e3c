"""Values that depend on variables and constants alone: which array each is, and in what order and shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converters.graph_def.functions import COMPUTE
from converters.graph_def.proto import Array
from converters.graph_def.values import Value, known

_MOST_COMPUTED = 1 << 26


@dataclass(frozen=True)
class Parameter:
    """An array of the graph, `array.transpose(permutation).reshape(shape)`.

    name: of the variable, or of the constant's node.
    source_shape: its own shape.
    array: its numbers where it is a constant.
    """

    name: str
    source_shape: tuple[int, ...]
    permutation: tuple[int, ...] | None
    shape: tuple[int, ...]
    array: Array | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def parameter(value: Value) -> Parameter | None:
    """The array that a value is; None where it is none, or is computed from variables."""
    chain = []
    base = value
    while base.op in ("reshape", "transpose"):
        chain.append(base)
        base = base.inputs[0]
    if base.op not in ("variable", "constant") or not known(base.shape) or not known(value.shape):
        return _computed(value)
    shape: tuple[int, ...] = base.shape  # type: ignore[assignment]
    axes = _axes(chain[::-1], shape)
    if axes is None:
        return _computed(value)
    permutation = None if list(axes) == sorted(axes) else axes
    name = base.attrs["name"] if base.op == "variable" else base.node
    return Parameter(name, shape, permutation, value.shape, base.data)  # type: ignore[arg-type]


def _axes(chain: list[Value], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of an array's axes after some reshapes and transposes; None where no order has the same elements."""
    # The axes that are not 1, by their numbers in the array; a reshape that does more than insert or drop 1 is free to
    # do so only where the order is the array's own, and then nothing may be transposed.
    current: list[int | None] = [axis if side != 1 else None for axis, side in enumerate(shape)]
    reshaped = False
    for link in chain:
        sides: tuple[int, ...] = link.shape  # type: ignore[assignment]
        if link.op == "transpose":
            if reshaped:
                return None
            current = [current[axis] for axis in link.attrs["permutation"]]
        else:
            left = [axis for axis in current if axis is not None]
            if [shape[axis] for axis in left] == [side for side in sides if side != 1]:
                following = iter(left)
                current = [next(following) if side != 1 else None for side in sides]
            else:
                reshaped = True
                if left != sorted(left):
                    # The order is kept, and whatever shape comes of it.
                    break
    left = [axis for axis in current if axis is not None]
    ones = [axis for axis in range(len(shape)) if shape[axis] == 1]
    return tuple(range(len(shape))) if left == sorted(left) else (*left, *ones)


def _computed(value: Value) -> Parameter | None:
    array = numeric(value)
    return None if array is None else Parameter(value.node, array.shape, None, array.shape, array)


def numeric(value: Value, numbers: Mapping[int, Array] | None = None) -> Array | None:
    """A value as an array, from constants and the `numbers` of some values; None where that is not enough."""
    found: dict[int, Array] = dict(numbers or {})
    pending = [value]
    while pending:
        value = pending[-1]
        if value.number in found:
            pending.pop()
            continue
        if missing := [other for other in value.inputs if other.number not in found]:
            pending.extend(missing)
            continue
        array = _number(value, [found[other.number] for other in value.inputs])
        if array is None or array.size > _MOST_COMPUTED:
            return None
        found[value.number] = array
        pending.pop()
    return found[value.number]


def _number(value: Value, inputs: list[Array]) -> Array | None:
    if value.op == "constant" and value.data is not None and value.data.dtype != object:
        return value.data.astype(np.float64) if value.data.dtype.kind == "f" else value.data
    if value.op == "elementwise":
        with np.errstate(all="ignore"):
            made: Array = np.asarray(COMPUTE[value.attrs["function"]](*inputs, *value.attrs["numbers"]))
        return made
    if value.op == "reshape" and known(value.shape):
        return inputs[0].reshape(value.shape)  # type: ignore[arg-type]
    return inputs[0].transpose(value.attrs["permutation"]) if value.op == "transpose" else None
