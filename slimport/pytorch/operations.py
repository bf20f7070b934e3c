"""TensorFlow's operations (`slimport.graph_ops`) in PyTorch. Maps are NCHW; attributes and variables are TensorFlow's.

A layer is made from its node in a graph and the channels of its inputs, as those of `slimport.pytorch.layers` are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimport.graph import Node
from slimport.pytorch import layout
from slimport.pytorch.layers import Layer, Operation, same_padding
from slimport.pytorch.layout import axis_of, from_tf, to_tf

_DTYPES = {"int32": torch.int32, "int64": torch.int64, "bool": torch.bool}


class BiasAdd(Layer):
    """Biases of their own."""

    def __init__(self, node: Node, *_: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(node.channels))
        self._follow(node)

    def forward(self, inputs: Tensor) -> Tensor:
        return self._followed(inputs + layout.aligned((inputs, self.bias))[1])


class PReLU(Layer, nn.PReLU):
    """`max(x, 0) + weights * min(x, 0)`."""

    def __init__(self, node: Node, *_: int) -> None:
        super().__init__(1 if node.attributes["shared"] else node.channels, init=0.0)
        self._follow(node)

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.dim() in (2, 4) or self.num_parameters == 1:
            return self._followed(super().forward(inputs))
        return self._followed(super().forward(inputs.movedim(-1, 1)).movedim(1, -1))


class InstanceNorm(Layer, nn.InstanceNorm2d):
    """`slim.instance_norm`, of maps."""

    def __init__(self, node: Node, *_: int) -> None:
        a = node.attributes
        super().__init__(node.channels, eps=a["epsilon"], affine=True)
        if not a["scale"]:
            self.register_parameter("weight", None)
        if not a["center"]:
            self.register_parameter("bias", None)
        self._follow(node)

    def forward(self, inputs: Tensor) -> Tensor:
        variance, mean = torch.var_mean(inputs, (2, 3), correction=0, keepdim=True)
        net = (inputs - mean) * torch.rsqrt(variance + self.eps)
        net = net if self.weight is None else net * self.weight[:, None, None]
        return self._followed(net if self.bias is None else net + self.bias[:, None, None])

    def reset_parameters(self) -> None:
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Constant(Operation):
    """Numbers that the graph itself holds."""

    def __init__(self, node: Node, *_: int) -> None:
        super().__init__(node)
        dtype = _DTYPES.get(node.attributes["dtype"])
        array = torch.tensor(node.attributes["value"], dtype=dtype or torch.get_default_dtype())
        self.register_buffer("array", array, persistent=False)

    def _compute(self) -> Tensor:  # type: ignore[override]
        return from_tf(self.get_buffer("array"))


class StoredConstant(Operation):
    """An array that is kept with the weights, in TensorFlow's axes."""

    def __init__(self, node: Node, *_: int) -> None:
        super().__init__(node)
        self.register_buffer("value", torch.zeros(node.attributes["shape"]))

    def _compute(self) -> Tensor:  # type: ignore[override]
        return from_tf(self.get_buffer("value"))


class Variable(Operation):
    """An array that is trained, in TensorFlow's axes."""

    def __init__(self, node: Node, *_: int) -> None:
        super().__init__(node)
        self.value = nn.Parameter(torch.zeros(node.attributes["shape"]))

    def _compute(self) -> Tensor:  # type: ignore[override]
        return from_tf(self.value)


class Elementwise(Operation):
    """A function of tensors, and of numbers, number by number."""

    def _compute(self, *inputs: Tensor) -> Tensor:
        tensors = iter(layout.aligned(inputs))
        arguments = [next(tensors) if number is None else number for number in self.node.attributes["numbers"]]
        net: Tensor = _FUNCTIONS[self.node.attributes["function"]](*arguments)
        return net


def _of_tensors(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, of numbers too, in the dtype of the tensors among its arguments."""

    def of_tensors(*arguments: Any) -> Tensor:
        like = next(argument for argument in arguments if isinstance(argument, Tensor))
        return function(*(a if isinstance(a, Tensor) else torch.full_like(like, a) for a in arguments))

    return of_tensors


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "maximum": _of_tensors(torch.maximum),
    "minimum": _of_tensors(torch.minimum),
    "power": lambda a, b: a**b,
    "squared_difference": lambda a, b: (a - b) * (a - b),
    "divide_no_nan": _of_tensors(lambda a, b: torch.where(b == 0, 0.0, a / b)),
    "floor_divide": lambda a, b: a // b,
    "floor_mod": lambda a, b: a % b,
    "abs": torch.abs,
    "negative": torch.neg,
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "square": torch.square,
    "floor": torch.floor,
    "ceil": torch.ceil,
    # Halves to the even number, in both.
    "round": torch.round,
    "sign": torch.sign,
    "reciprocal": torch.reciprocal,
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "erf": torch.erf,
    "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b,
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "equal": lambda a, b: a == b,
    "not_equal": lambda a, b: a != b,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_not": torch.logical_not,
    "where": torch.where,
}


class Reduce(Operation):
    """A mean, a sum, ... over some axes, or all."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        a = self.node.attributes
        net = to_tf(inputs)
        axes = range(net.dim()) if a["axes"] is None else [axis % net.dim() for axis in a["axes"]]
        if not axes:
            return inputs
        if a["function"] in _REDUCTIONS:
            return from_tf(_REDUCTIONS[a["function"]](net, tuple(axes), keepdim=a["keep_dims"]))
        # PyTorch has these over one axis alone.
        functions: dict[str, Callable[..., Tensor]] = {"prod": torch.prod, "any": torch.any, "all": torch.all}
        for axis in sorted(axes, reverse=True):
            net = functions[a["function"]](net, axis, keepdim=a["keep_dims"])
        return from_tf(net)


_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "max": torch.amax,
    "min": torch.amin,
}


class Cast(Operation):
    """Another dtype; `float` is that of the model."""

    def __init__(self, node: Node, *_: int) -> None:
        super().__init__(node)
        # It has the model's dtype, whatever that becomes.
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return inputs.to(_DTYPES.get(self.node.attributes["dtype"], self.get_buffer("like").dtype))


class Pad(Operation):
    """`tf.pad`."""

    def _compute(self, inputs: Tensor, *like: Tensor) -> Tensor:  # type: ignore[override]
        a = self.node.attributes
        sizes = [[layout.number(size, (inputs, *like)) for size in pair] for pair in a["paddings"]]
        by_axis = {axis_of(inputs, axis): pair for axis, pair in enumerate(sizes)}
        if a["mode"] == "constant":
            pairs = (by_axis[axis] for axis in reversed(range(inputs.dim())))
            return F.pad(inputs, [size for pair in pairs for size in pair], value=a["value"])
        skipped = 1 if a["mode"] == "reflect" else 0
        for axis, (before, after) in by_axis.items():
            inputs = _mirrored(inputs, axis, before, after, skipped)
        return inputs


def _mirrored(net: Tensor, axis: int, before: Any, after: Any, skipped: int) -> Tensor:
    """With what is at both ends of an axis put there again, the other way round, `skipped` numbers left out."""
    parts = [net]
    if not (isinstance(before, int) and before == 0):
        parts.insert(0, net.narrow(axis, skipped, before).flip(axis))
    if not (isinstance(after, int) and after == 0):
        parts.append(net.narrow(axis, net.shape[axis] - after - skipped, after).flip(axis))
    return torch.cat(parts, axis)


class Reshape(Operation):
    """`tf.reshape`, of the numbers in TensorFlow's order."""

    def _compute(self, inputs: Tensor, *like: Tensor) -> Tensor:  # type: ignore[override]
        shape = [layout.number(size, (inputs, *like)) for size in self.node.attributes["shape"]]
        return from_tf(to_tf(inputs).reshape(shape))


class Transpose(Operation):
    """`tf.transpose`."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return from_tf(to_tf(inputs).permute(self.node.attributes["permutation"]))


class ExpandDims(Operation):
    """`tf.expand_dims`."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return from_tf(to_tf(inputs).unsqueeze(self.node.attributes["axis"]))


class Stack(Operation):
    """`tf.stack`."""

    def _compute(self, *inputs: Tensor) -> Tensor:
        return from_tf(torch.stack([to_tf(net) for net in inputs], self.node.attributes["axis"]))


class Tile(Operation):
    """`tf.tile`."""

    def _compute(self, inputs: Tensor, *like: Tensor) -> Tensor:  # type: ignore[override]
        multiples = [layout.number(size, (inputs, *like)) for size in self.node.attributes["multiples"]]
        return from_tf(to_tf(inputs).repeat(multiples))


class Reverse(Operation):
    """`tf.reverse`."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return inputs.flip([axis_of(inputs, axis) for axis in self.node.attributes["axes"]])


class Gather(Operation):
    """`tf.gather` of known indices."""

    def __init__(self, node: Node, *_: int) -> None:
        super().__init__(node)
        self.register_buffer("indices", torch.tensor(node.attributes["indices"]), persistent=False)

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return inputs.index_select(axis_of(inputs, self.node.attributes["axis"]), self.get_buffer("indices"))


class StridedSlice(Operation):
    """`tf.strided_slice`."""

    def _compute(self, inputs: Tensor, *like: Tensor) -> Tensor:  # type: ignore[override]
        net = to_tf(inputs)
        for axis, one in enumerate(self.node.attributes["slices"]):
            if one is not None:
                begin, end, step = (layout.number(size, (inputs, *like)) for size in one)
                net = _sliced(net, axis, begin, end, step)
        if self.node.attributes["shrink"]:
            net = net.squeeze(tuple(axis % net.dim() for axis in self.node.attributes["shrink"]))
        return from_tf(net)


def _sliced(net: Tensor, axis: int, begin: Any, end: Any, step: int) -> Tensor:
    whole = (slice(None),) * axis
    if step > 0:
        return net[(*whole, slice(begin, end, step))]
    # PyTorch has no steps back.
    indices = range(net.shape[axis])[slice(begin, end, step)]
    if not indices:
        return net.narrow(axis, 0, 0)
    return net[(*whole, slice(indices[-1], indices[0] + 1, -step))].flip(axis)


class MatMul(Operation):
    """`tf.matmul`, over the last two of TensorFlow's axes."""

    def _compute(self, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
        a, b = to_tf(a), to_tf(b)
        a = a.mT if self.node.attributes["transpose_a"] else a
        return from_tf(a @ (b.mT if self.node.attributes["transpose_b"] else b))


class Convolve(Operation):
    """`tf.nn.conv2d`, or `tf.nn.depthwise_conv2d`, by a kernel that is computed."""

    def _compute(self, inputs: Tensor, kernel: Tensor) -> Tensor:  # type: ignore[override]
        a = self.node.attributes
        height, width, depth_in, depth = to_tf(kernel).shape
        if a["depthwise"]:
            weight = to_tf(kernel).permute(2, 3, 0, 1).reshape(depth_in * depth, 1, height, width)
        else:
            weight = to_tf(kernel).permute(3, 2, 0, 1)
        groups = depth_in if a["depthwise"] else inputs.shape[1] // depth_in
        if a["padding"] == "SAME":
            sides = zip(inputs.shape[2:], (height, width), a["strides"], a["rate"], strict=True)
            pads = [same_padding(*side) for side in sides]
            inputs = F.pad(inputs, (*pads[1], *pads[0]))
        return F.conv2d(inputs, weight, None, a["strides"], 0, a["rate"], groups)


class LogSoftmax(Operation):
    """`tf.nn.log_softmax`."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return F.log_softmax(inputs, axis_of(inputs, self.node.attributes["axis"]))


class ArgMax(Operation):
    """`tf.argmax`."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return from_tf(to_tf(inputs).argmax(self.node.attributes["axis"]))


class LocalResponseNorm(Operation):
    """`tf.nn.local_response_normalization`."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        a = self.node.attributes
        size = 2 * a["depth_radius"] + 1
        # PyTorch's alpha is that of the mean of the squares, not of their sum.
        return F.local_response_norm(inputs, size, a["alpha"] * size, a["beta"], a["bias"])


class Resize(Operation):
    """TensorFlow's resizing, which looks pixels up at places that PyTorch's does not have."""

    def _compute(self, inputs: Tensor, *like: Tensor) -> Tensor:  # type: ignore[override]
        a = self.node.attributes
        # Rows of pixels first, as TensorFlow does.
        for axis in (3, 2):
            side = inputs.shape[axis]
            factor = a["factor"]
            out = layout.number(a["size"][axis - 2], (inputs, *like)) if factor is None else side * factor[axis - 2]
            position = _positions(side, out, a["align_corners"], a["half_pixel_centers"], inputs.device)
            resized = _nearest if a["method"] == "nearest" else _bilinear
            inputs = resized(inputs, axis, position, a)
        return inputs


def _positions(side: Any, out: Any, align_corners: bool, half_pixel_centers: bool, device: torch.device) -> Tensor:
    """Where the pixels of the output are looked up, in float32 as TensorFlow has it, since that decides on pixels."""
    if align_corners:
        # A single pixel is the first one.
        scale = (side - 1) / torch.sym_max(out - 1, 1)  # type: ignore[no-untyped-call]
    else:
        scale = side / out
    pixels = torch.arange(out, dtype=torch.float32, device=device)
    scale = torch.full((), scale, dtype=torch.float32, device=device)
    return (pixels + 0.5) * scale if half_pixel_centers else pixels * scale


def _nearest(net: Tensor, axis: int, position: Tensor, attributes: Any) -> Tensor:
    # TensorFlow rounds a half away from 0 where corners are aligned.
    position = torch.floor(position + 0.5) if attributes["align_corners"] else torch.floor(position)
    return net.index_select(axis, position.long().clamp(max=net.shape[axis] - 1))


def _bilinear(net: Tensor, axis: int, position: Tensor, attributes: Any) -> Tensor:
    if attributes["half_pixel_centers"]:
        position = position - 0.5
    floor = torch.floor(position)
    lower = net.index_select(axis, floor.long().clamp(min=0))
    upper = net.index_select(axis, torch.ceil(position).long().clamp(max=net.shape[axis] - 1))
    lerp = (position - floor).to(net.dtype)
    return lower + (upper - lower) * (lerp[:, None] if axis == 2 else lerp)


class SpaceToDepth(Operation):
    """`tf.nn.space_to_depth`."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        block = self.node.attributes["block"]
        batch, channels, height, width = inputs.shape
        net = inputs.reshape(batch, channels, height // block, block, width // block, block)
        return net.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * block**2, height // block, width // block)


class DepthToSpace(Operation):
    """`tf.nn.depth_to_space`."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        block = self.node.attributes["block"]
        batch, channels, height, width = inputs.shape
        channels = channels // block**2
        net = inputs.reshape(batch, block, block, channels, height, width)
        return net.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels, height * block, width * block)


class Shared(nn.Module):
    """A layer once more, with the variables of another one, which is elsewhere in the network.

    Args:
      layer: one with the settings of this place; it is not among the modules, so that every variable has one name.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.owners: tuple[nn.Module, ...] = ()
        """The layer with the variables, in a tuple, so that it is not among the modules of this one."""
        self._layer: tuple[nn.Module, ...] = (layer,)

    def share(self, owner: nn.Module, alike: bool) -> None:
        """Takes the variables of `owner`, and runs it where it is `alike`."""
        self.owners = (owner,)
        self._layer = () if alike else self._layer

    def forward(self, *inputs: Tensor) -> Any:
        (owner,) = self.owners
        if not self._layer:
            return owner(*inputs)
        (layer,) = self._layer
        # Under the owner's scope there may be other layers, too.
        state: dict[str, Tensor] = {name: owner.get_parameter(name) for name, _ in layer.named_parameters()}
        state |= {name: owner.get_buffer(name) for name, _ in layer.named_buffers()}
        return torch.func.functional_call(layer.train(self.training), state, inputs)


OPERATIONS: dict[str, Callable[..., nn.Module]] = {
    "bias_add": BiasAdd,
    "prelu": PReLU,
    "instance_norm": InstanceNorm,
    "constant": Constant,
    "stored_constant": StoredConstant,
    "variable": Variable,
    "elementwise": Elementwise,
    "reduce": Reduce,
    "cast": Cast,
    "pad": Pad,
    "reshape": Reshape,
    "transpose": Transpose,
    "expand_dims": ExpandDims,
    "stack": Stack,
    "tile": Tile,
    "reverse": Reverse,
    "gather": Gather,
    "strided_slice": StridedSlice,
    "matmul": MatMul,
    "convolve": Convolve,
    "log_softmax": LogSoftmax,
    "argmax": ArgMax,
    "lrn": LocalResponseNorm,
    "resize": Resize,
    "space_to_depth": SpaceToDepth,
    "depth_to_space": DepthToSpace,
}
"""The layer of a node's op, made from the node and the channels of its inputs."""
