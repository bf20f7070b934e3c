"""TensorFlow's operations (`slimport.graph_ops`) in Keras: `keras.ops` and stock layers, which a file holds by itself.

Most sizes are numbers here: Keras builds a model for the images' size, where that decides on a shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from slimport.graph import Node
from slimport.sizes import OPERATIONS as SIZE_OPERATIONS
from slimport.sizes import evaluate

Tensor = Any


class UnknownSizeError(ValueError):
    """A shape depends on the size of the images, which is not given."""


def number(node: Node, size: Any, inputs: Sequence[Tensor]) -> int:
    """A size, by the shapes of a layer's inputs.

    Raises:
      UnknownSizeError: it depends on one that is not known.
    """

    def known(index: int, axis: int) -> int:
        found = inputs[index].shape[axis]
        if found is None:
            raise UnknownSizeError(f"{node.scope}: a shape depends on the size of the images: give image_size")
        return int(found)

    return int(evaluate(size, known, SIZE_OPERATIONS))


def _elementwise(node: Node, *inputs: Tensor) -> Tensor:
    tensors = iter(inputs)
    arguments = [next(tensors) if one is None else one for one in node.attributes["numbers"]]
    return _FUNCTIONS[node.attributes["function"]](*arguments)


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    **{name: getattr(ops, name) for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum", "power")},
    **{name: getattr(ops, name) for name in ("abs", "negative", "exp", "log", "log1p", "sqrt", "rsqrt", "square")},
    **{name: getattr(ops, name) for name in ("floor", "ceil", "round", "sign", "reciprocal", "sin", "cos", "erf")},
    "atan": ops.arctan,
    **{name: getattr(ops, name) for name in ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal")},
    **{name: getattr(ops, name) for name in ("logical_and", "logical_or", "logical_not", "where", "floor_divide")},
    "divide_no_nan": ops.divide_no_nan,
    "floor_mod": ops.mod,
    "squared_difference": lambda a, b: ops.square(ops.subtract(a, b)),
}
_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "mean": ops.mean,
    "sum": ops.sum,
    "max": ops.max,
    "min": ops.min,
    "prod": ops.prod,
    "any": ops.any,
    "all": ops.all,
}


def _reduce(node: Node, inputs: Tensor) -> Tensor:
    a = node.attributes
    return _REDUCTIONS[a["function"]](inputs, axis=a["axes"], keepdims=a["keep_dims"])


def _pad(node: Node, *inputs: Tensor) -> Tensor:
    a = node.attributes
    paddings = [[number(node, size, inputs) for size in pair] for pair in a["paddings"]]
    value = {"constant_values": a["value"]} if a["mode"] == "constant" else {}
    return ops.pad(inputs[0], paddings, mode=a["mode"], **value)


def _reshape(node: Node, *inputs: Tensor) -> Tensor:
    first, *rest = node.attributes["shape"] or (None,)
    if first is None:
        return ops.reshape(inputs[0], ())
    target = [size if size == -1 else number(node, size, inputs) for size in rest]
    if target and target[-1] == -1 and node.channels:
        # Known where Keras, which may not know the height and width, cannot compute it.
        target[-1] = node.channels
    if first == ("size", 0, 0):
        # A layer keeps the batch, so that another size may be left open.
        return layers.Reshape(target, dtype=inputs[0].dtype)(inputs[0])
    if isinstance(first, tuple) and first[0] == "size" and first[2] == 0 and -1 not in target:
        # The batch of another input, which is open: what is left is as much.
        first = -1
    return ops.reshape(inputs[0], (first if first == -1 else number(node, first, inputs), *target))


def _strided_slice(node: Node, *inputs: Tensor) -> Tensor:
    net = inputs[0]
    for axis, one in enumerate(node.attributes["slices"]):
        if one is not None:
            begin, end, step = (size if size is None else number(node, size, inputs) for size in one)
            net = _sliced(node, net, axis, begin, end, step or 1)
    shrink = node.attributes["shrink"]
    return ops.squeeze(net, axis=tuple(axis % len(net.shape) for axis in shrink)) if shrink else net


def _sliced(node: Node, net: Tensor, axis: int, begin: int | None, end: int | None, step: int) -> Tensor:
    whole = (slice(None),) * axis
    if step > 0:
        return net[(*whole, slice(begin, end, step))]
    if begin is end is None:
        return ops.flip(net, axis=axis)[(*whole, slice(None, None, -step))]
    indices = range(number(node, ("size", 0, axis), [net]))[slice(begin, end, step)]
    return ops.take(net, list(indices), axis=axis)


def _matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    a = ops.swapaxes(a, -1, -2) if node.attributes["transpose_a"] else a
    return ops.matmul(a, ops.swapaxes(b, -1, -2) if node.attributes["transpose_b"] else b)


def _convolve(node: Node, inputs: Tensor, kernel: Tensor) -> Tensor:
    a = node.attributes
    convolution = ops.depthwise_conv if a["depthwise"] else ops.conv
    return convolution(inputs, kernel, a["strides"], a["padding"].lower(), dilation_rate=a["rate"])


def _lrn(node: Node, inputs: Tensor) -> Tensor:
    a, channels = node.attributes, inputs.shape[-1]
    radius = a["depth_radius"]
    padded = ops.pad(ops.square(inputs), [[0, 0]] * (len(inputs.shape) - 1) + [[radius, radius]])
    sums = padded[..., :channels]
    for first in range(1, 2 * radius + 1):
        sums = ops.add(sums, padded[..., first : first + channels])
    return ops.divide(inputs, ops.power(ops.add(ops.multiply(sums, a["alpha"]), a["bias"]), a["beta"]))


def _resize(node: Node, *inputs: Tensor) -> Tensor:
    a, net = node.attributes, inputs[0]
    if a["method"] == "nearest" and a["factor"] is not None and not a["align_corners"] and None in net.shape[1:3]:
        return layers.UpSampling2D(a["factor"], dtype=net.dtype)(net)
    # Rows of pixels first, as TensorFlow does.
    for axis in (2, 1):
        side = number(node, ("size", 0, axis), [net])
        out = side * a["factor"][axis - 1] if a["size"] is None else number(node, a["size"][axis - 1], inputs)
        lower, upper, lerp = _taps(side, out, a["method"], a["align_corners"], a["half_pixel_centers"])
        if lerp is None:
            net = ops.take(net, lower, axis=axis)
            continue
        first, last = ops.take(net, lower, axis=axis), ops.take(net, upper, axis=axis)
        shape = (-1, 1, 1) if axis == 1 else (-1, 1)
        weights = np.reshape(lerp, shape).astype(net.dtype).tolist()
        net = ops.add(first, ops.multiply(ops.subtract(last, first), ops.convert_to_tensor(weights, net.dtype)))
    return net


def _taps(side: int, out: int, method: str, align_corners: bool, half_pixel: bool) -> tuple[Any, Any, Any]:
    """The pixels between which each of the output is, and where, as TensorFlow's float32 has it."""
    numerator, denominator = (side - 1, max(out - 1, 1)) if align_corners else (side, out)
    scale = np.float32(numerator) / np.float32(denominator)
    position = (np.arange(out, dtype=np.float32) + np.float32(0.5 if half_pixel else 0)) * scale
    if method == "nearest":
        pixels = np.floor(position + np.float32(0.5)) if align_corners else np.floor(position)
        return np.minimum(pixels.astype(int), side - 1).tolist(), None, None
    position = position - np.float32(0.5 if half_pixel else 0)
    floor = np.floor(position)
    lower, upper = np.maximum(floor.astype(int), 0), np.minimum(np.ceil(position).astype(int), side - 1)
    return lower.tolist(), upper.tolist(), position - floor


def _space_to_depth(node: Node, inputs: Tensor) -> Tensor:
    block = node.attributes["block"]
    return ops.concatenate([inputs[:, i::block, j::block] for i in range(block) for j in range(block)], axis=-1)


def _depth_to_space(node: Node, inputs: Tensor) -> Tensor:
    block = node.attributes["block"]
    height, width = (number(node, ("size", 0, axis), [inputs]) for axis in (1, 2))
    net = ops.reshape(inputs, (-1, height, width, block, block, node.channels))
    return ops.reshape(ops.transpose(net, (0, 1, 3, 2, 4, 5)), (-1, height * block, width * block, node.channels))


def _tile(node: Node, net: Tensor, *like: Tensor) -> Tensor:
    first, *rest = node.attributes["multiples"]
    ones = None
    if isinstance(first, tuple) and first[0] == "size" and first[2] == 0 and net.shape[0] == 1:
        # The batch, which is open: one number of each of its elements has its size.
        batch = like[first[1] - 1]
        one = ops.reshape(batch[(slice(None), *[slice(1)] * (len(batch.shape) - 1))], (-1, *[1] * len(rest)))
        first, ones = 1, ops.cast(ops.ones_like(one), net.dtype)
    multiples = [number(node, size, (net, *like)) for size in (first, *rest)]
    tiled = net if set(multiples) == {1} else ops.tile(net, multiples)
    return tiled if ones is None else tiled * ones


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "elementwise": _elementwise,
    "reduce": _reduce,
    "pad": _pad,
    "reshape": _reshape,
    "transpose": lambda node, net: ops.transpose(net, node.attributes["permutation"]),
    "expand_dims": lambda node, net: ops.expand_dims(net, node.attributes["axis"]),
    "stack": lambda node, *nets: ops.stack(nets, axis=node.attributes["axis"]),
    "tile": _tile,
    "reverse": lambda node, net: ops.flip(net, axis=node.attributes["axes"]),
    "gather": lambda node, net: ops.take(net, list(node.attributes["indices"]), axis=node.attributes["axis"]),
    "strided_slice": _strided_slice,
    "matmul": _matmul,
    "convolve": _convolve,
    "log_softmax": lambda node, net: ops.log_softmax(net, axis=node.attributes["axis"]),
    "argmax": lambda node, net: ops.argmax(net, axis=node.attributes["axis"]),
    "lrn": _lrn,
    "resize": _resize,
    "space_to_depth": _space_to_depth,
    "depth_to_space": _depth_to_space,
}
"""What computes a node's op, from the node and its inputs."""
