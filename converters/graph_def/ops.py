"""Evaluates each of TensorFlow's ops to known numbers, a shape, or a symbolic value in NHWC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from converters.checkpoint.wire import WireError
from converters.graph_def import statistics
from converters.graph_def.evaluate import HANDLERS, Evaluator, Results, handles
from converters.graph_def.functions import COMPUTE, FUNCTIONS
from converters.graph_def.proto import Array, DType, NodeDef
from converters.graph_def.values import BATCH, Dim, Shape, Size, UnknownSizeError, Value, known, product

NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
"""From NCHW to NHWC, and back."""
# Larger arrays are left as they are, whatever a graph would make of them.
_LARGEST_FOLDED = 1 << 16
# Partitions of a frozen graph's variable are put together.
_LARGEST_CONCATENATED = 1 << 26
_FLOATS = ("float32", "float64", "float16", "bfloat16")


def _array(value: Value) -> Array:
    if value.data is None:
        raise UnknownSizeError("not known before the network runs")
    return value.data


def _bounded(count: int, largest: int = _LARGEST_FOLDED) -> None:
    """Refuses to compute an array that would be larger than any that a real graph computes."""
    if count > largest:
        raise UnknownSizeError(f"{count} numbers that are computed")


def _ints(value: Value) -> list[Any]:
    """The elements of a vector of sizes: ints, or `Size`s."""
    return [side if isinstance(side, Size) else int(side) for side in _array(value).ravel().tolist()]


def _numbers(value: Value) -> list[int]:
    found = _ints(value)
    if any(isinstance(side, Size) for side in found):
        raise UnknownSizeError("a size where a number is needed")
    return found


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise WireError(f"axis {axis} of {rank}")
    return axis % rank


def _shape(value: Value) -> Shape:
    if value.shape is None:
        raise UnknownSizeError("a tensor of unknown rank")
    return value.shape


# Sources.


@handles("Const")
def _const(context: Evaluator, node: NodeDef, _: list[Value]) -> Value:
    array = node.get("value")
    if not isinstance(array, np.ndarray):
        raise WireError("a Const without its value")
    return context.constant(array, node)


@handles("Variable", "VariableV2", "VarHandleOp")
def _variable(context: Evaluator, node: NodeDef, _: list[Value]) -> Value:
    name = node.name
    if node.op == "VarHandleOp":
        shared = node.get("shared_name", b"")
        name = shared.decode(errors="replace") or name
    value = context.new("variable", (), node.get("shape"), node, name=name)
    value.static = True
    return value


@handles("Placeholder", "PlaceholderV2")
def _placeholder(context: Evaluator, node: NodeDef, _: list[Value]) -> Value:
    dtype = node.get("dtype")
    name = dtype.name if isinstance(dtype, DType) else "float32"
    if name == "bool":
        context.notes[f"{node.name} is false, as in evaluation"] = None
        return context.constant(np.bool_(False), node)
    # Before TensorFlow 1.2, no sides meant an unknown rank.
    shapes = node.get("_output_shapes")
    shape = node.get("shape") or (shapes[0] if isinstance(shapes, list) and shapes else None) or None
    return context.input(shape, node, 0, name)


@handles("PlaceholderWithDefault")
def _placeholder_with_default(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    shape = node.get("shape")
    dtype = node.get("dtype")
    data = inputs[0].data
    if data is not None and data.size == 1 and data.dtype == bool:
        if context.mode == "eval" and bool(data.item()):
            context.notes[f"{node.name} is false, as in evaluation; its default is true"] = None
        return context.constant(np.bool_(bool(data.item()) and context.mode == "graph"), node)
    if shape is None and inputs[0].shape is not None:
        shape = (None, *inputs[0].shape[1:]) if inputs[0].shape else ()
    if shape == () or (shape is None and data is not None and data.size == 1):
        return inputs[0]
    sides = None if shape is None else [side if isinstance(side, int) else None for side in shape]
    return context.input(sides, node, 0, dtype.name if isinstance(dtype, DType) else "float32")


@handles(
    "Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot", "EnsureShape", "Print", "PrintV2",
    "ReadVariableOp", "Enter", "DebugGradientIdentity",
)  # fmt: skip
def _identity(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    # What goes into a loop and is the same in each round is what it is outside.
    return context.unsupported(node, inputs) if node.op == "Enter" and not node.get("is_constant") else inputs[0]


@handles("IdentityN")
def _identities(_: Evaluator, __: NodeDef, inputs: list[Value]) -> Results:
    return tuple(inputs)


NORMAL = ("RandomStandardNormal", "TruncatedNormal", "StatelessRandomNormal", "StatelessRandomNormalV2")
"""The ops that draw normal noise."""


@handles("RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2", *NORMAL)
def _random(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    shape = _ints(inputs[0]) if inputs and inputs[0].data is not None else None
    return context.new("random", (), shape, node, tf_op=node.op)


@handles("StatelessRandomGetKeyCounter", "StatelessRandomGetAlg", "StatelessRandomGetKeyCounterAlg")
def _seed(context: Evaluator, node: NodeDef, _: list[Value]) -> Results:
    return context.constant(np.int64(0), node), context.constant(np.int64(0), node), context.constant(0, node)


@handles("Cast")
def _cast(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    source, target = node.get("SrcT"), node.get("DstT")
    to = target.name if isinstance(target, DType) else ""
    value = inputs[0]
    if value.data is not None:
        if value.data.dtype == object:
            return value
        return context.constant(value.data.astype(to), node) if to != "object" else context.unsupported(node, inputs)
    from_float = isinstance(source, DType) and source.name in _FLOATS
    if to in _FLOATS and (from_float or value.op == "input" or value.static):
        return value
    kinds = {"int32": "int32", "int64": "int64", "bool": "bool", "uint8": "int32"} | dict.fromkeys(_FLOATS, "float")
    if to not in kinds:
        return context.unsupported(node, inputs)
    return context.new("cast", inputs, value.shape, node, dtype=kinds[to])


# Elementwise.


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    rank = max(map(len, shapes))
    sides: list[Dim] = [1] * rank
    for shape in shapes:
        for axis, side in enumerate(shape, rank - len(shape)):
            if sides[axis] == 1 or (isinstance(sides[axis], Size) and isinstance(side, int) and side != 1):
                sides[axis] = side
    return tuple(sides)


def _foldable(inputs: Sequence[Value]) -> bool:
    """Whether a result is a number or an array of whole numbers; arrays of floats stay what they are called."""
    arrays = [value.data for value in inputs if value.data is not None]
    if len(arrays) < len(inputs):
        return False
    if all(array.size == 1 for array in arrays):
        return True
    size = math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    return size <= _LARGEST_FOLDED and all(array.dtype.kind in "iubO" for array in arrays)


def _as_numbers(array: Array) -> Array:
    """In as many digits as the judge has."""
    return array.astype(np.float64) if array.dtype.name in _FLOATS else array


def elementwise(
    context: Evaluator, node: NodeDef, inputs: list[Value], function: str, numbers: tuple[float, ...] = ()
) -> Value:
    """A function of each element, its inputs broadcast."""
    if _foldable(inputs) and not (function == "reciprocal" and _is_size(inputs[0])):
        return _folded(context, node, inputs, function, numbers)
    inputs = _without_fills(context, inputs, node)
    for value in inputs:
        if value.op == "unsupported" and value.shape is None:
            break
    if (made := _dropout(context, node, inputs, function) or _mean_of_sum(context, node, inputs, function)) is not None:
        return made
    if (same := _neutral(inputs, function)) is not None:
        return same
    permutation = next((v.attrs["permutation"] for v in inputs if v.op == "transpose" and not v.static), None)
    if permutation is not None and all(v.shape is not None for v in inputs):
        inverse = np.argsort(permutation).tolist()
        rank = len(permutation)
        if all(v.static or v.rank == rank or v.scalar for v in inputs):
            bases = [
                v if v.scalar else transpose(context, node, _of_rank(context, node, v, rank), inverse) for v in inputs
            ]
            if not any(v.op == "transpose" and not v.static for v in bases):
                return transpose(context, node, elementwise(context, node, bases, function, numbers), permutation)
    _tell_channels(inputs)
    shapes = [value.shape for value in inputs if not value.scalar or value.rank]
    open_rank = any(shape is None for shape in shapes)
    shape = None if open_rank else _broadcast([shape for shape in shapes if shape is not None] or [()])
    return context.new("elementwise", inputs, shape, node, function=function, numbers=numbers)


def _tell_channels(inputs: Sequence[Value]) -> None:
    """Gives an input of open channels as many as the means have that are subtracted from it."""
    known = [value.channels for value in inputs if value.static and value.rank == 1 and value.channels]
    for value in inputs:
        if value.op == "input" and known and known[0] > 1 and value.shape and isinstance(value.shape[-1], Size):
            value.shape = (*value.shape[:-1], known[0])


def _folded(
    context: Evaluator, node: NodeDef, inputs: Sequence[Value], function: str, numbers: tuple[float, ...]
) -> Value:
    """A function of numbers, or of sizes.

    Raises:
      UnknownSizeError: no size is such a function of others.
    """
    arrays = [_as_numbers(_array(value)) for value in inputs]
    try:
        with np.errstate(all="ignore"):
            return context.constant(np.asarray(COMPUTE[function](*arrays, *numbers)), node)
    except TypeError:
        if not any(array.dtype == object for array in arrays):
            raise
    raise UnknownSizeError(f"{function} of a size")


def _of_rank(context: Evaluator, node: NodeDef, value: Value, rank: int) -> Value:
    shape = _shape(value)
    return value if len(shape) == rank else reshape(context, node, value, (1,) * (rank - len(shape)) + shape)


def _without_fills(context: Evaluator, inputs: list[Value], node: NodeDef) -> list[Value]:
    """Tensors of one number as that number, where another input has their shape."""
    if not any(value.op == "fill" for value in inputs) or all(value.op == "fill" for value in inputs):
        return inputs
    return [context.constant(value.attrs["value"], node) if value.op == "fill" else value for value in inputs]


def _neutral(inputs: Sequence[Value], function: str) -> Value | None:
    """The input that a function leaves as it is: `x * 1`, `x + 0`."""
    unit = {"add": 0, "subtract": 0, "multiply": 1, "divide": 1}.get(function)
    if unit is None or len(inputs) != 2:
        return None
    for value, other in ((inputs[0], inputs[1]), (inputs[1], inputs[0])):
        number = other.data.item() if other.data is not None and other.data.size == 1 else None
        commutes = function in ("add", "multiply") or value is inputs[0]
        if commutes and not isinstance(number, Size | bytes | None) and number == unit and other.rank == 0:
            return value
    return None


def _dropout(context: Evaluator, node: NodeDef, inputs: Sequence[Value], function: str) -> Value | None:
    """A dropout, in whatever spelling: what is multiplied by a mask, or chosen by one, that random numbers make."""
    operand, keep = 1, None
    if function == "where" and len(inputs) == 3:
        keep = _mask(inputs[0])
    elif function == "multiply" and len(inputs) == 2 and inputs[0] is not inputs[1]:
        masks = [_mask(value) for value in inputs]
        operand = 0 if masks[0] is None else 1
        keep = masks[1 - operand]
    if keep is None:
        return None
    data, scaled = inputs[operand], None
    if data.op == "elementwise" and data.attrs["function"] in ("multiply", "divide"):
        one, other = data.inputs
        # The scale that keeps the mean: x / keep_prob, or x * (1 / (1 - rate)).
        if other.scalar or (other.rank is None and _is_setting(other)):
            data, scaled = one, 0
        elif one.scalar:
            data, scaled = other, 1
    where = {"operand": operand, "scaled": scaled}
    return context.new("dropout", (data,), data.shape, node, keep_prob=keep if 0 < keep <= 1 else 0.5, **where)


def _is_size(value: Value) -> bool:
    return value.data is not None and value.data.size == 1 and isinstance(value.data.item(), Size)


def _mean_of_sum(context: Evaluator, node: NodeDef, inputs: Sequence[Value], function: str) -> Value | None:
    """A sum times 1 over the number of elements, which only a run tells: the mean, as `tf.nn.moments` once took it."""
    if function != "multiply" or len(inputs) != 2:
        return None
    for total, share in (inputs, inputs[::-1]):
        if total.op != "reduce" or total.attrs["function"] != "sum" or share.attrs.get("function") != "reciprocal":
            continue
        data, axes = total.inputs[0], total.attrs["axes"]
        if _is_size(share.inputs[0]) and _array(share.inputs[0]).item() == product([_shape(data)[at] for at in axes]):
            return _reduced(context, node, data, list(axes), total.attrs["keep_dims"], "mean")
    return None


def _is_setting(value: Value) -> bool:
    """Whether a value is made of a placeholder of unknown shape, and numbers: a `keep_prob`."""
    while value.op == "elementwise":
        rest = [other for other in value.inputs if other.data is None]
        if len(rest) != 1:
            return False
        value = rest[0]
    return value.op == "input" and value.rank in (0, None)


def _mask(value: Value) -> float | None:
    """The share that a mask of random zeros and ones keeps; 0.5 where a placeholder says it; None for no mask."""
    function = None
    while value.op in ("cast", "elementwise"):
        if value.op == "elementwise":
            found = value.attrs["function"]
            dynamic = [
                other
                for other in value.inputs
                if other.op in ("elementwise", "cast", "random") and not _is_setting(other)
            ]
            if len(dynamic) != 1:
                return None
            if found in ("floor", "greater_equal", "greater", "less", "less_equal"):
                function = found
            if found in ("add", "greater_equal", "greater", "less", "less_equal") and function is not None:
                share = next((other.data for other in value.inputs if other is not dynamic[0]), None)
                if _leads_to_random(dynamic[0]):
                    number = 0.5 if share is None or share.size != 1 else float(share.item())
                    random_first = value.inputs[0] is dynamic[0]
                    return 1 - number if (found.startswith("greater")) == random_first and found != "add" else number
            value = dynamic[0]
        else:
            value = value.inputs[0]
    return None


def _leads_to_random(value: Value) -> bool:
    while value.op in ("elementwise", "cast"):
        dynamic = [other for other in value.inputs if other.data is None]
        if len(dynamic) != 1:
            return False
        value = dynamic[0]
    return value.op == "random"


def _register_functions() -> None:
    for op, (function, _) in FUNCTIONS.items():

        def handler(context: Evaluator, node: NodeDef, inputs: list[Value], function: str = function) -> Value:
            # Defaults are float32's, as the attributes are.
            numbers = (float(node.get("alpha", np.float32(0.2))),) if function == "leaky_relu" else ()
            if node.op == "Select" and inputs[0].rank == 1 and inputs[1].rank not in (1, None):
                return context.unsupported(node, inputs)
            return elementwise(context, node, inputs, function, numbers)

        HANDLERS[op] = handler


_register_functions()


@handles("BiasAdd", "BiasAddV1")
def _bias_add(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    data, bias = inputs
    if data.shape is None:
        context.require_rank(data, 4 if node.get("data_format") == b"NCHW" else 2, bias.channels)
    if node.get("data_format") == b"NCHW" and data.rank == 4:
        base = transpose(context, node, data, NHWC)
        return transpose(context, node, elementwise(context, node, [base, bias], "add"), NCHW)
    return elementwise(context, node, [data, bias], "add")


@handles("FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel", "FakeQuantWithMinMaxArgs")
def _fake_quant(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    """Numbers rounded to the steps of a quantization: the formula of fake_quant_ops_functor.h, whose steps have a 0."""

    def compute(function: str, *values: Value | float) -> Value:
        given = [context.constant(np.float64(v), node) if isinstance(v, int | float) else v for v in values]
        return elementwise(context, node, given, function)

    data = inputs[0]
    ends = [context.constant(np.float32(node.get(name, default)), node) for name, default in (("min", -6), ("max", 6))]
    low, high = inputs[1:] or ends
    first, last = int(node.get("narrow_range", False)), 2 ** node.get("num_bits", 8) - 1
    step = compute("divide", compute("subtract", high, low), last - first)
    zero = compute("floor", compute("add", compute("subtract", float(first), compute("divide", low, step)), 0.5))
    zero = compute("minimum", compute("maximum", zero, float(first)), float(last))
    lowest, highest = (compute("multiply", compute("subtract", float(end), zero), step) for end in (first, last))
    net = compute("subtract", compute("minimum", compute("maximum", data, lowest), highest), lowest)
    net = compute("floor", compute("add", compute("multiply", net, compute("reciprocal", step)), 0.5))
    context.notes["the graph simulates quantization, which stays in the network"] = None
    return compute("add", compute("multiply", net, step), lowest)


# Layers.


def _to_nhwc(context: Evaluator, node: NodeDef, value: Value, channels: int | None = None) -> tuple[Value, bool]:
    first = node.get("data_format") == b"NCHW"
    if value.shape is None:
        context.require_rank(value, 4, None if first else channels)
        if first and channels:
            batch, _, *sides = _shape(value)
            value.shape = (batch, channels, *sides)
    if value.rank == 3:
        context.promote(value)
    if value.rank != 4:
        raise UnknownSizeError("a map without four axes")
    return (transpose(context, node, value, NHWC) if first else value), first


def _pair(node: NodeDef, attribute: str, first: bool) -> tuple[int, int]:
    values = node.get(attribute) or [1, 1, 1, 1]
    if (
        not isinstance(values, list)
        or len(values) != 4
        or not all(isinstance(v, int) and 0 < v < 1 << 20 for v in values)
    ):
        raise WireError(f"{attribute} {values}")
    return (values[2], values[3]) if first else (values[1], values[2])


def _padding(node: NodeDef, first: bool) -> Any:
    padding = node.get("padding", b"").decode()
    if padding == "EXPLICIT":
        pads = node.get("explicit_paddings") or []
        start = 4 if first else 2
        return (tuple(pads[start : start + 2]), tuple(pads[start + 2 : start + 4]))
    if padding not in ("SAME", "VALID"):
        raise WireError(f"padding {padding}")
    return padding


def _reached(side: Dim, extent: int, stride: int, padding: Any, axis: int) -> Dim | None:
    """The side of a map behind a kernel."""
    if padding == "SAME":
        return side if stride == 1 else -(-side // stride) if isinstance(side, int) else None
    before, after = (0, 0) if padding == "VALID" else padding[axis]
    left = side + (before + after - extent)
    return left + 1 if stride == 1 else left // stride + 1 if isinstance(left, int) else None


@handles("Conv2D", "DepthwiseConv2dNative")
def _conv(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    data, kernel = inputs
    if kernel.rank != 4:
        raise UnknownSizeError("a kernel without four axes")
    deep = node.op != "Conv2D"
    depth_in, depth = _shape(kernel)[2:]
    data, first = _to_nhwc(context, node, data, depth_in if isinstance(depth_in, int) else None)
    if isinstance(depth_in, int):
        context.require_channels(data, depth_in)
    padding, data = _with_pad(_padding(node, first), data)
    depth = product([depth_in, depth]) if deep else depth
    attrs = {"strides": _pair(node, "strides", first), "rate": _pair(node, "dilations", first), "padding": padding}
    op = "depthwise" if deep else "conv2d"
    net = _convolution(context, node, op, data, kernel, depth, attrs)
    return transpose(context, node, net, NCHW) if first else net


def _convolution(
    context: Evaluator, node: NodeDef, op: str, data: Value, kernel: Value, depth: Dim, attrs: dict[str, Any]
) -> Value:
    sides = [
        _reached(side, rate * (int(size) - 1) + 1, stride, attrs["padding"], axis)  # type: ignore[arg-type]
        for axis, (side, size, stride, rate) in enumerate(
            zip(_shape(data)[1:3], _shape(kernel)[:2], attrs["strides"], attrs["rate"], strict=True)
        )
    ]
    shape = (_shape(data)[0], *sides, depth)
    return context.new(op, (data, kernel), shape, node, **attrs)


def _with_pad(padding: Any, data: Value) -> tuple[Any, Value]:
    """The zeros of an explicit Pad as the layer's own padding."""
    if padding == "VALID" and data.op == "pad" and data.attrs["mode"] == "constant" and data.attrs["value"] == 0:
        pads = data.attrs["paddings"]
        if pads[0] == pads[3] == (0, 0) and all(isinstance(side, int) for pad in pads for side in pad):
            return (pads[1], pads[2]), data.inputs[0]
    return padding, data


@handles("Conv2DBackpropInput")
def _conv_transpose(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    sizes, kernel, data = inputs
    if kernel.rank != 4:
        raise UnknownSizeError("a kernel without four axes")
    depth, depth_in = _shape(kernel)[2:]
    data, first = _to_nhwc(context, node, data, depth_in if isinstance(depth_in, int) else None)
    wanted = _ints(sizes) if sizes.data is not None else None
    if wanted is None or len(wanted) not in (2, 4):
        raise UnknownSizeError("an unknown output shape")
    size = wanted if len(wanted) == 2 else wanted[2:] if first else wanted[1:3]
    if len(wanted) == 4 and isinstance(wanted[0], int) and _shape(data)[0] == BATCH:
        context.batch = wanted[0]
    strides, rate, padding = _pair(node, "strides", first), _pair(node, "dilations", first), _padding(node, first)
    attrs = {"strides": strides, "rate": rate, "padding": padding, "output_size": tuple(size)}
    net = context.new("conv2d_transpose", (data, kernel), (_shape(data)[0], *size, depth), node, **attrs)
    return transpose(context, node, net, NCHW) if first else net


@handles("SpaceToBatchND", "SpaceToBatch")
def _space_to_batch(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    block = _numbers(inputs[1]) if node.op == "SpaceToBatchND" else [node.get("block_size")] * 2
    pads = _array(inputs[-1]).tolist()
    context.require_rank(inputs[0], 4)
    depth = _shape(inputs[0])[-1]
    return context.new(
        "space_to_batch", inputs[:1], (None, None, None, depth), node, block=block, pads=pads, tf_op=node.op
    )


@handles("BatchToSpaceND", "BatchToSpace")
def _batch_to_space(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    """A convolution between SpaceToBatch and BatchToSpace is a dilated one."""
    net = inputs[0]
    block = _numbers(inputs[1]) if node.op == "BatchToSpaceND" else [node.get("block_size")] * 2
    crops = _array(inputs[-1]).tolist()
    spread = net.inputs[0] if net.inputs else net
    fits = (
        net.op in ("conv2d", "depthwise", "conv2d_transpose")
        and spread.op == "space_to_batch"
        and spread.attrs["block"] == block
    )
    if not fits or len(block) != 2 or net.attrs["strides"] != (1, 1) or net.attrs["padding"] != "VALID":
        return context.unsupported(node, inputs)
    pads = [(pad[0] - crop[0], pad[1] - crop[1]) for pad, crop in zip(spread.attrs["pads"], crops, strict=True)]
    if net.op == "conv2d_transpose":
        # Its padding cuts the border of the result off.
        pads = [(-before, -after) for before, after in pads]
    if any(isinstance(side, Size) or side < 0 for pad in pads for side in pad):
        return context.unsupported(node, inputs)
    data, kernel = spread.inputs[0], net.inputs[1]
    if net.op == "conv2d_transpose":
        return _dilated_transpose(context, node, net, data, tuple(block), pads)
    totals = [(int(k) - 1) * rate for k, rate in zip(_shape(kernel)[:2], block, strict=True)]  # type: ignore[arg-type]
    same = [(total // 2, total - total // 2) for total in totals]
    padding: Any = "SAME" if pads == same and any(totals) else tuple(pads)
    if padding != "SAME" and not any(side for pad in pads for side in pad):
        padding = "VALID"
    attrs = {"strides": (1, 1), "rate": tuple(block), "padding": padding}
    made = _convolution(context, node, net.op, data, kernel, _shape(net)[-1], attrs)
    return _between_blocks(made, net)


def _dilated_transpose(
    context: Evaluator, node: NodeDef, net: Value, data: Value, rate: tuple[int, ...], cut: list[tuple[int, int]]
) -> Value:
    """A dilated transposed convolution of stride 1, as `tf.nn.atrous_conv2d_transpose` spells it."""
    kernel = net.inputs[1]
    totals = [(int(k) - 1) * by for k, by in zip(_shape(kernel)[:2], rate, strict=True)]  # type: ignore[arg-type]
    same = [(total // 2, total - total // 2) for total in totals]
    padding: Any = "SAME" if cut == same else tuple(cut)
    sides = [
        side + total - before - after
        for side, total, (before, after) in zip(_shape(data)[1:3], totals, cut, strict=True)
    ]
    attrs = {"strides": (1, 1), "rate": rate, "padding": padding, "output_size": tuple(sides)}
    shape = (_shape(data)[0], *sides, _shape(net)[-1])
    made = context.new("conv2d_transpose", (data, kernel), shape, node, **attrs)
    return _between_blocks(made, net)


def _between_blocks(made: Value, net: Value) -> Value:
    """A dilated layer, which is named after the convolution and has its result behind BatchToSpace."""
    made.attrs["result"], made.node = made.node, net.node
    return made


@handles("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def _matmul(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    a, b = inputs
    flip_a, flip_b = (bool(node.get(f"transpose_{x}") or node.get(f"adj_{y}")) for x, y in (("a", "x"), ("b", "y")))
    if b.static and flip_b and b.rank == 2:
        b, flip_b = transpose(context, node, b, (1, 0)), False
    if a.shape is None:
        context.require_rank(a, 2, _shape(b)[0] if isinstance(_shape(b)[0], int) else None)  # type: ignore[arg-type]
    shape, other = _shape(a), _shape(b)
    if len(shape) < 2 or len(other) < 2:
        raise WireError("a product of vectors")
    layer = b.static and len(other) == 2 and not flip_a and not flip_b
    if layer and isinstance(shape[-1], Size) and isinstance(other[0], int):
        # Flattened: the kernel says how many there are.
        a.shape = (*shape[:-1], other[0])
    rows, columns = shape[-1 if flip_a else -2], other[-2 if flip_b else -1]
    lead = _broadcast([shape[:-2], other[:-2]]) if len(shape) > 2 or len(other) > 2 else ()
    op = "fully_connected" if layer else "matmul"
    return context.new(op, (a, b), (*lead, rows, columns), node, transpose_a=flip_a, transpose_b=flip_b)


@handles("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def _fused_batch_norm(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Results:
    data, gamma, beta, mean, variance = inputs
    data, first = _to_nhwc(context, node, data, gamma.channels)
    attrs: dict[str, Any] = {"epsilon": float(node.get("epsilon", np.float32(0.0001))), "statistics": "moving"}
    if node.get("is_training", True):
        found = statistics.moving(context, node.name, (1, 2)) if context.mode == "eval" else None
        if found is None:
            attrs["statistics"] = "batch"
            mean = variance = gamma
            context.notes["BatchNorm normalizes with the statistics of the batch, as the graph does"] = None
        else:
            mean, variance, attrs["decay"] = found
            context.notes[statistics.NOTE] = None
    net = context.new("batch_norm", (data, gamma, beta, mean, variance), data.shape, node, **attrs)
    other = context.new("unsupported", (), None, node, tf_op=node.op)
    return (transpose(context, node, net, NCHW) if first else net, *[other] * 5)


@handles("BatchNormWithGlobalNormalization")
def _old_batch_norm(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    """TensorFlow's first BatchNorm, of a mean and a variance that may be anything."""
    data, mean, variance, beta, gamma = inputs
    context.require_rank(data, 4, beta.channels)
    epsilon = context.constant(np.float64(node.get("variance_epsilon", np.float32(0))), node)
    root = elementwise(context, node, [elementwise(context, node, [variance, epsilon], "add")], "rsqrt")
    scale = elementwise(context, node, [root, gamma], "multiply") if node.get("scale_after_normalization") else root
    centred = elementwise(context, node, [data, mean], "subtract")
    return elementwise(context, node, [elementwise(context, node, [centred, scale], "multiply"), beta], "add")


@handles("MaxPool", "AvgPool", "MaxPoolV2")
def _pool(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    data, first = _to_nhwc(context, node, inputs[0])
    if node.op == "MaxPoolV2":
        kernel, strides = (tuple(_numbers(value)[2:] if first else _numbers(value)[1:3]) for value in inputs[1:3])
    else:
        kernel, strides = _pair(node, "ksize", first), _pair(node, "strides", first)
        sizes = node.get("ksize") or []
        if sizes[0] != 1 or sizes[1 if first else 3] != 1:
            return context.unsupported(node, inputs)
    padding = _padding(node, first)
    if padding not in ("SAME", "VALID"):
        return context.unsupported(node, inputs)
    sides = [_reached(s, k, by, padding, 0) for s, k, by in zip(_shape(data)[1:3], kernel, strides, strict=True)]
    op = "avg_pool2d" if node.op == "AvgPool" else "max_pool2d"
    shape = (_shape(data)[0], *sides, _shape(data)[-1])
    net = context.new(op, (data,), shape, node, kernel_size=kernel, strides=strides, padding=padding)
    return transpose(context, node, net, NCHW) if first else net


@handles("Softmax", "LogSoftmax")
def _softmax(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    return context.new("softmax" if node.op == "Softmax" else "log_softmax", inputs, inputs[0].shape, node)


@handles("LRN")
def _lrn(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    context.require_rank(inputs[0], 4)
    attrs = {"bias": 1.0, "alpha": 1.0, "beta": 0.5}
    settings = {name: float(node.get(name, default)) for name, default in attrs.items()}
    return context.new("lrn", inputs, inputs[0].shape, node, depth_radius=node.get("depth_radius", 5), **settings)


# Shapes and order.


@handles("Shape", "ShapeN")
def _shape_of(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Results:
    return tuple(context.constant(_sizes(_shape(value)), node) for value in inputs)


def _sizes(sides: Sequence[Dim]) -> Array:
    if known(tuple(sides)):
        return np.array(sides, np.int64).reshape(-1)
    array = np.empty(len(sides), object)
    array[:] = sides
    return array


@handles("Size", "Rank")
def _size_of(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    sides = _shape(inputs[0])
    return context.constant(np.asarray(len(sides) if node.op == "Rank" else product(sides)), node)


@handles("Fill", "ZerosLike", "OnesLike")
def _fill(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    sides = _ints(inputs[0]) if node.op == "Fill" else list(_shape(inputs[0]))
    number = _array(inputs[1]).item() if node.op == "Fill" else float(node.op == "OnesLike")
    if known(tuple(sides)) and math.prod(sides) <= _LARGEST_FOLDED:
        kind = _array(inputs[1]).dtype if node.op == "Fill" else np.dtype(np.float32)
        return context.constant(np.full(sides, number, kind), node)
    return context.new("fill", (), sides, node, value=number, tf_op=node.op)


@handles("Range")
def _range(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    start, stop, step = (_array(value).item() for value in inputs)
    if (
        any(isinstance(x, Size) for x in (start, stop, step))
        or not step
        or abs((stop - start) / step) > _LARGEST_FOLDED
    ):
        raise UnknownSizeError("an unknown range")
    return context.constant(np.arange(start, stop, step), node)


def reshape(context: Evaluator, node: NodeDef, value: Value, sides: Sequence[Dim | None]) -> Value:
    """A value in another shape: itself where it has that shape, the numbers where they are known."""
    if value.shape == tuple(sides):
        return value
    if value.data is not None and all(isinstance(side, int) for side in sides):
        made = context.constant(value.data.reshape(tuple(sides)), node)
        made.node = value.node
        return made
    if value.op == "reshape" and value.static:
        value = value.inputs[0]
    if value.op == "transpose" and value.shape is not None:
        base = value.inputs[0]
        # Where at most one side is not 1, the order is the same.
        if _order(_shape(base)) == [value.attrs["permutation"][axis] for axis in _order(value.shape)]:
            value = base
    return context.new("reshape", (value,), sides, node)


def _order(shape: Shape) -> list[int]:
    return [axis for axis, side in enumerate(shape) if side != 1]


@handles("Reshape")
def _reshape(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    value, target = inputs[0], _ints(inputs[1])
    if value.shape is None:
        if value.doubtful and all(isinstance(side, int) and side > 0 for side in target[1:]):
            context.batch = target[0] if target[0] > 0 else context.batch
            return context.new("reshape", (value,), (BATCH, *target[1:]), node)
        if len(target) > 4 or sum(side == -1 for side in target) > 1 or value.op != "input":
            raise UnknownSizeError("a reshape of a tensor of unknown rank")
        rest = product(target[1:]) if all(side != -1 for side in target[1:]) else None
        context.require_rank(value, 2, rest if isinstance(rest, int) else None)
    return reshape(context, node, value, _target(context, _shape(value), target))


def _target(context: Evaluator, shape: Shape, target: list[Any]) -> list[Dim | None]:
    """The sides of a reshape: a batch that was written into it is free, and -1 is what is left."""
    sides: list[Any] = list(target)
    if shape and shape[0] == BATCH and sides:
        rest, wanted = product(shape[1:]), product([side for side in sides[1:] if side != -1])
        open_rest = any(side == -1 for side in sides[1:])
        if isinstance(sides[0], int):
            written = sides[0] == context.batch
            if (not open_rest and rest == wanted) or (sides[0] != -1 and written):
                context.batch = context.batch if sides[0] == -1 else sides[0]
                sides[0] = BATCH
            elif isinstance(rest, int) and isinstance(wanted, int) and sides[0] == -1 and wanted and rest % wanted == 0:
                sides[0] = BATCH * (rest // wanted)
            elif len(sides) == 2 and open_rest and sides[0] != -1 and context.batch is None and sides[0] > 1:
                context.batch, sides[0] = sides[0], BATCH
    if -1 not in sides:
        return sides
    at = sides.index(-1)
    others = product([side for side in sides if side is not None and side != -1])
    total: Any = product(shape)
    try:
        sides[at] = total // others
    except UnknownSizeError:
        sides[at] = None
    if isinstance(sides[at], Size) and isinstance(others, int) and len(sides) == 1:
        sides[at] = total
    return sides


@handles("ExpandDims")
def _expand_dims(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    value = inputs[0]
    (axis,) = _numbers(inputs[1])
    if value.shape is None:
        context.require_rank(value, 3 if axis in (0, 1, 2) else 2)
    rank = len(_shape(value))
    if axis in (0, -rank - 1) and context.promote(value):
        context.notes["the graph takes one image and puts the batch before it; the network takes a batch"] = None
        return value
    axis = _axis(axis, rank + 1)
    sides = list(_shape(value))
    sides.insert(axis, 1)
    if value.data is not None or value.static:
        return (
            reshape(context, node, value, sides)
            if known(tuple(sides)) or value.data is None
            else _data(context, node, value, np.expand_dims, axis)
        )
    return context.new("expand_dims", (value,), sides, node, axis=axis)


def _data(context: Evaluator, node: NodeDef, value: Value, function: Any, *args: Any) -> Value:
    return context.constant(function(_array(value), *args), node)


@handles("Squeeze")
def _squeeze(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    value = inputs[0]
    axes = node.get("squeeze_dims") or node.get("axis") or []
    if value.shape is None:
        context.require_rank(value, 4)
    shape = _shape(value)
    axes = sorted({_axis(axis, len(shape)) for axis in axes}) or [axis for axis, side in enumerate(shape) if side == 1]
    if value.data is not None:
        return _data(context, node, value, np.squeeze, tuple(axes))
    sides = [side for axis, side in enumerate(shape) if axis not in axes]
    if value.static:
        return reshape(context, node, value, sides)
    if value.op == "transpose":
        permutation = value.attrs["permutation"]
        left = [permutation[axis] for axis in range(len(shape)) if axis not in axes]
        if left == sorted(left):
            value, axes = value.inputs[0], sorted(permutation[axis] for axis in axes)
    return context.new("squeeze", (value,), sides, node, axes=tuple(axes))


def transpose(context: Evaluator, node: NodeDef, value: Value, permutation: Sequence[int]) -> Value:
    """A value with its axes in another order; what takes such values works on what is within, where it can."""
    permutation = tuple(permutation)
    shape = _shape(value)
    if sorted(permutation) != list(range(len(shape))):
        raise WireError(f"axes {permutation} of {len(shape)}")
    if permutation == tuple(range(len(shape))):
        return value
    if value.data is not None and value.data.size == 1:
        return context.constant(value.data.transpose(permutation), node)
    if value.op == "transpose":
        within = value.attrs["permutation"]
        return transpose(context, node, value.inputs[0], [within[axis] for axis in permutation])
    sides = tuple(shape[axis] for axis in permutation)
    if [axis for axis in permutation if shape[axis] != 1] == _order(shape):
        return reshape(context, node, value, sides)
    if permutation == NHWC and value.op == "elementwise" and not value.static and _from_input(value):
        # Of an input in NCHW: what comes before the first layer is in NHWC too.
        inputs = [other if other.scalar else transpose(context, node, other, permutation) for other in value.inputs]
        made = context.new("elementwise", inputs, sides, node, **value.attrs)
        made.node = value.node
        return made
    return context.new("transpose", (value,), sides, node, permutation=permutation)


def _from_input(value: Value) -> bool:
    while value.op == "elementwise":
        rest = [other for other in value.inputs if not other.scalar]
        if len(rest) != 1:
            return False
        value = rest[0]
    return value.op == "input"


@handles("Transpose")
def _transpose(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    permutation = _numbers(inputs[1])
    context.require_rank(inputs[0], len(permutation))
    return transpose(context, node, inputs[0], permutation)


def _hoisted(values: Sequence[Value]) -> tuple[list[Value], tuple[int, ...] | None]:
    """The values inside transposes that are all alike, and their permutation."""
    permutations = {value.attrs["permutation"] if value.op == "transpose" else None for value in values}
    permutation = permutations.pop() if len(permutations) == 1 else None
    return ([value.inputs[0] for value in values], permutation) if permutation else (list(values), None)


@handles("ConcatV2", "Concat")
def _concat(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    axis, values = (inputs[-1], inputs[:-1]) if node.op == "ConcatV2" else (inputs[0], inputs[1:])
    (at,) = _numbers(axis)
    if all(value.data is not None for value in values):
        _bounded(sum(_array(value).size for value in values), _LARGEST_CONCATENATED)
        return context.constant(np.concatenate([_array(value) for value in values], at), node)
    rank = max((value.rank or 0 for value in values), default=0)
    for value in values:
        context.require_rank(value, rank)
    at = _axis(at, rank)
    if len(values) == 1:
        return values[0]
    sides: list[Dim] = list(_shape(values[0]))
    sides[at] = sum((_shape(value)[at] for value in values[1:]), sides[at])
    if (whole := statistics.partitioned(values)) is not None:
        made = context.new("variable", (), sides, node, name=whole)
        made.static = True
        return made
    bases, permutation = _hoisted(values)
    if permutation:
        made = concat(context, node, bases, permutation[at])
        return transpose(context, node, made, permutation)
    return concat(context, node, values, at)


def concat(context: Evaluator, node: NodeDef, values: Sequence[Value], axis: int) -> Value:
    """Values behind each other."""
    sides: list[Any] = list(_shape(values[0]))
    for other in range(len(sides)):
        ints = [_shape(value)[other] for value in values if isinstance(_shape(value)[other], int)]
        sides[other] = ints[0] if ints and other != axis else sides[other]
    sides[axis] = sum((_shape(value)[axis] for value in values[1:]), _shape(values[0])[axis])
    return context.new("concat", values, sides, node, axis=axis)


@handles("Pack")
def _pack(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    rank = max((len(_shape(value)) for value in inputs), default=0) + 1
    axis = _axis(node.get("axis", 0), rank)
    if all(value.data is not None for value in inputs):
        _bounded(sum(_array(value).size for value in inputs))
        kinds = any(value.data.dtype == object for value in inputs if value.data is not None)
        return context.constant(
            np.stack([_array(v).astype(object) if kinds else _array(v) for v in inputs], axis), node
        )
    sides = list(_shape(inputs[0]))
    if len(inputs) == 1 and axis == 0 and context.promote(inputs[0]):
        return inputs[0]
    sides.insert(axis, len(inputs))
    return context.new("stack", inputs, sides, node, axis=axis)


@handles("Unpack")
def _unpack(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Results:
    value = inputs[0]
    rank = len(_shape(value))
    axis = _axis(node.get("axis", 0), rank)
    parts = range(node.get("num", 0))
    if len(parts) > _LARGEST_FOLDED:
        raise WireError(f"{len(parts)} parts")
    if value.data is not None:
        return tuple(_data(context, node, value, np.take, part, axis) for part in parts)
    return tuple(_sliced(context, node, value, {axis: (part, part + 1, 1)}, (axis,)) for part in parts)


@handles("Split", "SplitV")
def _split(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Results:
    value, at = (inputs[1], inputs[0]) if node.op == "Split" else (inputs[0], inputs[2])
    axis = _axis(_numbers(at)[0], len(_shape(value)))
    side = _shape(value)[axis]
    if not isinstance(side, int):
        raise UnknownSizeError("a split of an open side")
    count = node.get("num_split", 1)
    if not 0 < count <= _LARGEST_FOLDED:
        raise WireError(f"{count} parts")
    parts = [side // count] * count if node.op == "Split" else _numbers(inputs[1])
    parts = [part if part >= 0 else side - sum(p for p in parts if p >= 0) for part in parts]
    starts = np.cumsum([0, *parts]).tolist()
    if value.data is not None:
        return tuple(context.constant(part, node) for part in np.split(value.data, starts[1:-1], axis))
    return tuple(_sliced(context, node, value, {axis: (a, a + n, 1)}) for a, n in zip(starts, parts, strict=False))


@handles("Slice")
def _slice(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    value, begin, size = inputs[0], _ints(inputs[1]), _ints(inputs[2])
    context.require_rank(value, len(begin))
    if value.data is not None:
        ranges = tuple(slice(b, None if n == -1 else b + n) for b, n in zip(begin, size, strict=True))
        return context.constant(_array(value)[ranges], node)
    taken: dict[int, tuple[Any, Any, int]] = {}
    for axis, (start, count) in enumerate(zip(begin, size, strict=True)):
        if not (isinstance(start, int) and start == 0 and (count == -1 or count == _shape(value)[axis])):
            taken[axis] = (start, None if isinstance(count, int) and count == -1 else start + count, 1)
    return _sliced(context, node, value, taken)


def _sliced(
    context: Evaluator, node: NodeDef, value: Value, taken: dict[int, tuple[Any, Any, int]], shrink: Sequence[int] = ()
) -> Value:
    """Some of a value along some axes, those in `shrink` then dropped."""
    if not taken:
        return value
    if value.op == "transpose" and not shrink:
        permutation = value.attrs["permutation"]
        base = _sliced(context, node, value.inputs[0], {permutation[axis]: of for axis, of in taken.items()})
        return transpose(context, node, base, permutation)
    sides: list[Any] = list(_shape(value))
    for axis, (begin, end, step) in taken.items():
        sides[axis] = _extent(sides[axis], begin, end, step)
    left = [side for axis, side in enumerate(sides) if axis not in shrink]
    slices = tuple(taken.get(axis) for axis in range(len(sides)))
    return context.new("strided_slice", (value,), left, node, slices=slices, shrink=tuple(shrink))


def _extent(side: Dim, begin: Any, end: Any, step: int) -> Dim | None:
    """How many elements a slice takes; None where only a run tells."""
    if isinstance(side, int) and not isinstance(begin, Size) and not isinstance(end, Size):
        return len(range(*slice(begin, end, step).indices(side)))
    if step != 1:
        return None
    start = begin or 0
    if not isinstance(start, Size) and start < 0:
        start = side + start
    stop = side if end is None else side + end if not isinstance(end, Size) and end < 0 else end
    return stop - start


@handles("StridedSlice")
def _strided_slice(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    value, begin, end, step = inputs[0], _ints(inputs[1]), _ints(inputs[2]), _numbers(inputs[3])
    masks = {name: node.get(f"{name}_mask", 0) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    if value.shape is None:
        context.require_rank(value, 4)
    rank = len(_shape(value))
    bits = {name: [bool(mask >> i & 1) for i in range(len(begin))] for name, mask in masks.items()}
    used = sum(not new and not dots for new, dots in zip(bits["new_axis"], bits["ellipsis"], strict=True))
    index: list[Any] = []
    for i in range(len(begin)):
        if bits["ellipsis"][i]:
            index.extend([slice(None)] * (rank - used))
        elif bits["new_axis"][i]:
            index.append(None)
        elif bits["shrink_axis"][i]:
            index.append(begin[i])
        else:
            start, stop = None if bits["begin"][i] else begin[i], None if bits["end"][i] else end[i]
            index.append(slice(start, stop, step[i]))
    if value.data is not None:
        taken = _array(value)[tuple(index)]
        return context.constant(np.asarray(taken, dtype=_array(value).dtype), node)
    return _indexed(context, node, value, index)


def _indexed(context: Evaluator, node: NodeDef, value: Value, index: Sequence[Any]) -> Value:
    axis = 0
    taken: dict[int, tuple[Any, Any, int]] = {}
    shrink: list[int] = []
    new: list[int] = []
    for item in index:
        if item is None:
            new.append(axis - len(shrink) + len(new))
            continue
        if isinstance(item, slice):
            if (item.start or 0, item.stop, item.step or 1) != (0, None, 1):
                taken[axis] = (item.start, item.stop, item.step or 1)
        else:
            taken[axis] = (item, item + 1 if not isinstance(item, int) or item != -1 else None, 1)
            shrink.append(axis)
        axis += 1
    made = _sliced(context, node, value, taken, shrink)
    for at in new:
        sides = list(_shape(made))
        sides.insert(at, 1)
        if at == 0 and context.promote(made):
            continue
        made = context.new("expand_dims", (made,), sides, node, axis=at)
    return made


@handles("Gather", "GatherV2")
def _gather(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    value, indices = inputs[:2]
    axis = _axis(_numbers(inputs[2])[0], len(_shape(value))) if len(inputs) > 2 else 0
    if value.data is not None and indices.data is not None:
        _bounded(value.data.size * max(1, indices.data.size))
        return context.constant(np.take(_array(value), _array(indices).astype(np.int64), axis), node)
    if indices.data is None or indices.rank not in (0, 1) or not value.shape:
        return context.unsupported(node, inputs)
    found = _numbers(indices)
    if indices.rank == 0:
        return _sliced(context, node, value, {axis: (found[0], found[0] + 1, 1)}, (axis,))
    sides = list(_shape(value))
    sides[axis] = len(found)
    return context.new("gather", (value,), sides, node, indices=tuple(found), axis=axis)


@handles("Sum", "Mean", "Prod", "Max", "Min", "All", "Any")
def _reduce(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    value = inputs[0]
    keep = bool(node.get("keep_dims", False) or node.get("keepdims", False))
    axes = _numbers(inputs[1])
    if value.shape is None:
        context.require_rank(value, 4)
    rank = len(_shape(value))
    axes = sorted({_axis(axis, rank) for axis in axes})
    if value.data is not None and (value.data.dtype.kind in "iubO" or value.data.size == 1):
        if value.data.dtype == object and node.op in ("Sum", "Prod") and rank == 1 and axes:
            whole = product(value.data.tolist()) if node.op == "Prod" else sum(value.data.tolist())
            return context.constant(_sizes([whole]) if keep else np.asarray(whole), node)
        function = getattr(np, node.op.lower())
        return context.constant(np.asarray(function(_array(value), axis=tuple(axes), keepdims=keep)), node)
    if not axes:
        return value
    if value.op == "transpose":
        permutation = value.attrs["permutation"]
        left = [permutation[axis] for axis in range(rank) if axis not in axes]
        if keep or left == sorted(left):
            made = _reduced(context, node, value.inputs[0], sorted(permutation[axis] for axis in axes), keep)
            return transpose(context, node, made, permutation) if keep else made
    return _reduced(context, node, value, axes, keep)


def _reduced(
    context: Evaluator, node: NodeDef, value: Value, axes: list[int], keep: bool, function: str | None = None
) -> Value:
    sides = [1 if axis in axes else side for axis, side in enumerate(_shape(value)) if keep or axis not in axes]
    function = function or node.op.lower()
    return context.new("reduce", (value,), sides, node, function=function, axes=tuple(axes), keep_dims=keep)


@handles("ArgMax", "ArgMin")
def _argmax(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    rank = len(_shape(inputs[0]))
    axis = _axis(_numbers(inputs[1])[0], rank)
    sides = [side for at, side in enumerate(_shape(inputs[0])) if at != axis]
    value = inputs[0] if node.op == "ArgMax" else elementwise(context, node, inputs[:1], "negative")
    return context.new("argmax", (value,), sides, node, axis=axis)


@handles("OneHot")
def _one_hot(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    indices, depth, on, off = inputs
    shape = _shape(indices)
    if node.get("axis", -1) not in (-1, len(shape)):
        return context.unsupported(node, inputs)
    column = context.new("expand_dims", (indices,), (*shape, 1), node, axis=len(shape))
    places = context.constant(np.arange(_numbers(depth)[0]), node)
    hot = context.new("cast", (elementwise(context, node, [column, places], "equal"),), None, node, dtype="float")
    hot.shape = (*shape, _numbers(depth)[0])
    low = _array(off).item()
    factor = context.constant(np.float64(_array(on).item() - low), node)
    scaled = elementwise(context, node, [hot, factor], "multiply")
    return elementwise(context, node, [scaled, context.constant(np.float64(low), node)], "add")


@handles("Pad", "PadV2", "MirrorPad")
def _pad(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    value = inputs[0]
    flat = _ints(inputs[1])
    pads = tuple(zip(flat[::2], flat[1::2], strict=True))
    context.require_rank(value, len(pads))
    if len(pads) != value.rank:
        raise WireError(f"paddings of {len(pads)} axes")
    mode = node.get("mode", b"constant").decode().lower()
    number = float(_array(inputs[2]).item()) if node.op == "PadV2" else 0.0
    if all(side == 0 for pad in pads for side in pad):
        return value
    permutation = value.attrs["permutation"] if value.op == "transpose" else None
    if permutation is not None:
        value, pads = value.inputs[0], tuple(pads[axis] for axis in np.argsort(permutation))
    sides = [before + side + after for side, (before, after) in zip(_shape(value), pads, strict=True)]
    made = context.new("pad", (value,), sides, node, paddings=pads, mode=mode, value=number)
    return made if permutation is None else transpose(context, node, made, permutation)


@handles("Tile")
def _tile(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    value, multiples = inputs[0], _ints(inputs[1])
    if all(multiple == 1 for multiple in multiples):
        return value
    sides = [side * multiple for side, multiple in zip(_shape(value), multiples, strict=True)]
    if value.data is not None and known(tuple(sides)) and math.prod(sides) <= _LARGEST_FOLDED:
        return context.constant(np.tile(value.data, multiples), node)
    made = context.new("tile", (value,), sides, node, multiples=tuple(multiples))
    made.static = value.static and all(isinstance(multiple, int) for multiple in multiples)
    return made


@handles("ReverseV2")
def _reverse(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    value, axes = inputs[0], _numbers(inputs[1])
    if value.shape is None:
        context.require_rank(value, 4)
    axes = [_axis(axis, len(_shape(value))) for axis in axes]
    if value.data is not None:
        return context.constant(np.flip(value.data, tuple(axes)), node)
    return context.new("reverse", (value,), value.shape, node, axes=tuple(axes))


@handles("ResizeBilinear", "ResizeNearestNeighbor")
def _resize(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    value, size = inputs[0], _ints(inputs[1])
    if value.shape is None:
        context.require_rank(value, 4)
    if value.rank == 3:
        context.promote(value)
    shape = _shape(value)
    attrs = {name: bool(node.get(name, False)) for name in ("align_corners", "half_pixel_centers")}
    method = "bilinear" if node.op == "ResizeBilinear" else "nearest"
    return context.new("resize", (value,), (shape[0], *size, shape[-1]), node, size=tuple(size), method=method, **attrs)


@handles("SpaceToDepth", "DepthToSpace")
def _block(context: Evaluator, node: NodeDef, inputs: list[Value]) -> Value:
    value, first = _to_nhwc(context, node, inputs[0])
    block = node.get("block_size", 0)
    if not isinstance(block, int) or block < 2:
        raise WireError(f"block size {block}")
    batch, height, width, depth = _shape(value)
    if node.op == "SpaceToDepth":
        sides = [batch, height // block, width // block, depth * block**2]
    else:
        sides = [batch, height * block, width * block, depth // block**2]
    op = "space_to_depth" if node.op == "SpaceToDepth" else "depth_to_space"
    made = context.new(op, (value,), sides, node, block=block)
    return transpose(context, node, made, NCHW) if first else made
