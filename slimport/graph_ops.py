"""TensorFlow's operations beside slim's layers, as words of a graph. No framework is imported.

They are what graphs of other people hold, and are recorded as the layers of `slimport.graph` are. Axes are
TensorFlow's: those of a map are [batch, height, width, channels]. Where a size may depend on others it is one of
`slimport.sizes`; tensors that are needed for their sizes alone are `like`, the inputs behind the operation's own.
A word that cannot know the channels of its result takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from slimport.graph import Activation, Shape, Sides, Tensor, add_node
from slimport.sizes import Size, size

Value = float | int | bool | Sequence[Any]
Dtype = Literal["float", "int32", "int64", "bool"]
"""`float` is the dtype of the model's floating-point numbers."""
Bound = Size | None

FUNCTIONS: dict[str, int] = {
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "squared_difference"), 2),
    **dict.fromkeys(("floor_divide", "floor_mod", "divide_no_nan"), 2),
    **dict.fromkeys(("abs", "negative", "exp", "log", "log1p", "sqrt", "rsqrt", "square", "floor", "ceil", "round"), 1),
    **dict.fromkeys(("sign", "reciprocal", "sin", "cos", "atan", "erf"), 1),
    **dict.fromkeys(("greater", "greater_equal", "less", "less_equal", "equal", "not_equal"), 2),
    **dict.fromkeys(("logical_and", "logical_or"), 2),
    "logical_not": 1,
    "where": 3,
}
"""The elementwise functions, with their numbers of inputs."""
REDUCTIONS = ("mean", "sum", "max", "min", "prod", "any", "all")


def constant(value: Value, dtype: Dtype = "float", *, scope: str | None = None) -> Tensor:
    """A few numbers, which are kept in the graph; floating-point ones are float32's."""
    value = _tuples(value)
    channels = _shape(value)[-1] if isinstance(value, tuple) else 0
    return add_node("constant", [], scope, channels=channels, stride=None, value=value, dtype=dtype)


def stored_constant(shape: Shape, *, scope: str | None = None) -> Tensor:
    """An array that is kept with the weights, as the variable `value`, and is not trained."""
    return add_node("stored_constant", [], scope, channels=shape[-1] if shape else 0, stride=None, shape=shape)


def variable(shape: Shape, *, scope: str | None = None) -> Tensor:
    """An array that is trained, the variable `value`."""
    return add_node("variable", [], scope, channels=shape[-1] if shape else 0, stride=None, shape=shape)


def bias_add(
    inputs: Tensor, *, activation: Activation | None = None, collect: bool = False, scope: str | None = None
) -> Tensor:
    """Biases, one a channel, by themselves."""
    return add_node("bias_add", [inputs], scope, collect=collect, biases=True, activation=activation)


def prelu(inputs: Tensor, *, shared: bool = False, collect: bool = False, scope: str | None = None) -> Tensor:
    """`max(x, 0) + weights * min(x, 0)`, a weight a channel, or one that is `shared`."""
    return add_node("prelu", [inputs], scope, collect=collect, shared=shared)


def instance_norm(
    inputs: Tensor,
    epsilon: float,
    center: bool = True,
    scale: bool = True,
    *,
    activation: Activation | None = None,
    collect: bool = False,
    scope: str | None = None,
) -> Tensor:
    """`slim.instance_norm` of a map: normalized over height and width, each image and channel by itself."""
    settings: dict[str, Any] = {"epsilon": epsilon, "center": center, "scale": scale}
    return add_node("instance_norm", [inputs], scope, collect=collect, **settings, activation=activation)


def elementwise(*inputs: Tensor | float, function: str, scope: str | None = None) -> Tensor:
    """One of `FUNCTIONS` of tensors, each of one size or 1 along an axis, and of numbers.

    Raises:
      ValueError: there is no such function, or it takes another number of inputs.
    """
    if FUNCTIONS.get(function) != len(inputs):
        raise ValueError(f"no function of {len(inputs)} inputs is named {function!r}; there are {', '.join(FUNCTIONS)}")
    tensors = [one for one in inputs if isinstance(one, Tensor)]
    numbers = tuple(None if isinstance(one, Tensor) else one for one in inputs)
    channels = max(tensor.channels for tensor in tensors)
    return add_node("elementwise", tensors, scope, channels=channels, function=function, numbers=numbers)


def reduce(
    inputs: Tensor,
    function: str,
    axes: Sequence[int] | None = None,
    keep_dims: bool = False,
    *,
    channels: int | None = None,
    scope: str | None = None,
) -> Tensor:
    """`tf.reduce_mean` and its like, one of `REDUCTIONS`, over all axes if none are given."""
    if function not in REDUCTIONS:
        raise ValueError(f"no reduction is named {function!r}; there are {', '.join(REDUCTIONS)}")
    given: dict[str, Any] = {"axes": None if axes is None else tuple(axes), "keep_dims": keep_dims}
    return add_node("reduce", [inputs], scope, channels=channels, stride=None, function=function, **given)


def cast(inputs: Tensor, dtype: Dtype, *, scope: str | None = None) -> Tensor:
    """`tf.cast`."""
    return add_node("cast", [inputs], scope, dtype=dtype)


def pad(
    inputs: Tensor,
    paddings: Sequence[tuple[Size, Size]],
    mode: Literal["constant", "reflect", "symmetric"] = "constant",
    value: float = 0.0,
    *,
    like: Sequence[Tensor] = (),
    scope: str | None = None,
) -> Tensor:
    """`tf.pad`: what is put before and after each axis."""
    before, after = paddings[-1]
    more = before + after if isinstance(before, int) and isinstance(after, int) else 0
    given: dict[str, Any] = {"paddings": _tuples(paddings), "mode": mode, "value": value}
    return add_node("pad", [inputs, *like], scope, channels=inputs.channels + more, **given)


def reshape(
    inputs: Tensor,
    shape: Sequence[Size],
    *,
    like: Sequence[Tensor] = (),
    channels: int | None = None,
    scope: str | None = None,
) -> Tensor:
    """`tf.reshape`; one of the sizes may be -1."""
    last = shape[-1] if shape and isinstance(shape[-1], int) and shape[-1] > 0 else 0
    channels = last if channels is None else channels
    return add_node("reshape", [inputs, *like], scope, channels=channels, stride=None, shape=_tuples(shape))


def transpose(
    inputs: Tensor, permutation: Sequence[int], *, channels: int | None = None, scope: str | None = None
) -> Tensor:
    """`tf.transpose`."""
    if channels is None and permutation[-1] != len(permutation) - 1:
        channels = 0
    return add_node("transpose", [inputs], scope, channels=channels, stride=None, permutation=tuple(permutation))


def expand_dims(inputs: Tensor, axis: int, *, channels: int | None = None, scope: str | None = None) -> Tensor:
    """`tf.expand_dims`; a new last axis is 1 channel."""
    channels = 1 if channels is None and axis == -1 else channels
    return add_node("expand_dims", [inputs], scope, channels=channels, stride=None, axis=axis)


def stack(*inputs: Tensor, axis: int = 0, channels: int | None = None, scope: str | None = None) -> Tensor:
    """`tf.stack`."""
    channels = len(inputs) if channels is None and axis == -1 else channels
    return add_node("stack", inputs, scope, channels=channels, stride=None, axis=axis)


def tile(inputs: Tensor, multiples: Sequence[Size], *, like: Sequence[Tensor] = (), scope: str | None = None) -> Tensor:
    """`tf.tile`."""
    last = multiples[-1]
    channels = inputs.channels * last if isinstance(last, int) else 0
    return add_node("tile", [inputs, *like], scope, channels=channels, multiples=_tuples(multiples))


def reverse(inputs: Tensor, axes: Sequence[int], *, scope: str | None = None) -> Tensor:
    """`tf.reverse`."""
    return add_node("reverse", [inputs], scope, axes=tuple(axes))


def gather(inputs: Tensor, indices: Sequence[int], axis: int = -1, *, scope: str | None = None) -> Tensor:
    """`tf.gather` of known indices: each of them along the axis, in their order."""
    channels = len(indices) if axis == -1 else inputs.channels
    return add_node("gather", [inputs], scope, channels=channels, indices=tuple(indices), axis=axis)


def strided_slice(
    inputs: Tensor,
    slices: Sequence[tuple[Bound, Bound, int] | None],
    shrink: Sequence[int] = (),
    *,
    like: Sequence[Tensor] = (),
    channels: int | None = None,
    scope: str | None = None,
) -> Tensor:
    """`tf.strided_slice`: of each axis, from the first on, what Python's `[begin:end:step]` gives; None is all of it.

    Args:
      shrink: the axes that are dropped then, of which one element is left.
      channels: of the result, where the last axis is sliced or dropped.
    """
    given: dict[str, Any] = {"slices": _tuples(slices), "shrink": tuple(shrink)}
    stride = None if shrink else (1, 1)
    return add_node("strided_slice", [inputs, *like], scope, channels=channels, stride=stride, **given)


def split(
    inputs: Tensor, parts: int | Sequence[int], axis: int = -1, *, rank: int = 4, scope: str | None = None
) -> list[Tensor]:
    """`tf.split`, recorded as slices: equal parts, as many as `parts` says, or parts of these sizes.

    Args:
      rank: of the input; an equal split of an axis that is not the last is computed from its size.
    """
    where = axis % rank
    last = where == rank - 1
    whole: list[tuple[Bound, Bound, int] | None] = [None] * where
    found, begin = [], 0
    for i in range(parts if isinstance(parts, int) else len(parts)):
        bounds: tuple[Bound, Bound, int]
        channels = inputs.channels
        if not isinstance(parts, int):
            bounds, channels = (begin, begin + parts[i], 1), parts[i] if last else channels
            begin += parts[i]
        elif last and channels:
            channels //= parts
            bounds = channels * i, channels * (i + 1), 1
        else:
            bounds = _share(where, i, parts), _share(where, i + 1, parts), 1
        found.append(strided_slice(inputs, [*whole, bounds], channels=channels, scope=scope))
    return found


def unstack(inputs: Tensor, number: int, axis: int = 0, *, rank: int, scope: str | None = None) -> list[Tensor]:
    """`tf.unstack`, recorded as slices."""
    where = axis % rank
    channels = 0 if where == rank - 1 else inputs.channels
    whole: list[tuple[Bound, Bound, int] | None] = [None] * where
    slices = ([*whole, (i, i + 1, 1)] for i in range(number))
    return [strided_slice(inputs, one, (where,), channels=channels, scope=scope) for one in slices]


def convolve(
    inputs: Tensor,
    kernel: Tensor,
    strides: Sides = (1, 1),
    padding: Literal["SAME", "VALID"] = "SAME",
    rate: Sides = (1, 1),
    depthwise: bool = False,
    *,
    channels: int,
    scope: str | None = None,
) -> Tensor:
    """`tf.nn.conv2d`, or `tf.nn.depthwise_conv2d`, by a kernel that is computed."""
    given: dict[str, Any] = {"strides": strides, "padding": padding, "rate": rate, "depthwise": depthwise}
    return add_node("convolve", [inputs, kernel], scope, channels=channels, stride=strides, **given)


def matmul(
    a: Tensor,
    b: Tensor,
    transpose_a: bool = False,
    transpose_b: bool = False,
    *,
    channels: int | None = None,
    scope: str | None = None,
) -> Tensor:
    """`tf.matmul`, over the last two axes; without `channels`, those of a transposed `b` are not known."""
    if channels is None:
        channels = 0 if transpose_b else b.channels
    given: dict[str, Any] = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    return add_node("matmul", [a, b], scope, channels=channels, stride=None, **given)


def softmax(inputs: Tensor, axis: int = -1, *, scope: str | None = None) -> Tensor:
    """`tf.nn.softmax`, over any axis."""
    given: dict[str, Any] = {} if axis == -1 else {"axis": axis}
    return add_node("softmax", [inputs], scope, **given)


def log_softmax(inputs: Tensor, axis: int = -1, *, scope: str | None = None) -> Tensor:
    """`tf.nn.log_softmax`."""
    return add_node("log_softmax", [inputs], scope, axis=axis)


def argmax(inputs: Tensor, axis: int, *, channels: int = 0, scope: str | None = None) -> Tensor:
    """`tf.argmax`, int64."""
    return add_node("argmax", [inputs], scope, channels=channels, stride=None, axis=axis)


def lrn(
    inputs: Tensor, depth_radius: int, bias: float, alpha: float, beta: float, *, scope: str | None = None
) -> Tensor:
    """`tf.nn.local_response_normalization`: `x / (bias + alpha * (the squares' sum within the radius)) ** beta`."""
    given: dict[str, Any] = {"depth_radius": depth_radius, "bias": bias, "alpha": alpha, "beta": beta}
    return add_node("lrn", [inputs], scope, **given)


def resize(
    inputs: Tensor,
    size: tuple[Size, Size] | None = None,
    factor: Sides | None = None,
    method: Literal["bilinear", "nearest"] = "bilinear",
    align_corners: bool = False,
    half_pixel_centers: bool = False,
    *,
    like: Sequence[Tensor] = (),
    scope: str | None = None,
) -> Tensor:
    """`tf.compat.v1.image.resize_bilinear` and `resize_nearest_neighbor`, to a size or by whole factors.

    Raises:
      ValueError: neither a size nor a factor is given, or both are.
    """
    if (size is None) == (factor is None):
        raise ValueError("a resize needs a size or a factor")
    given: dict[str, Any] = {"size": _tuples(size), "factor": factor, "method": method}
    given |= {"align_corners": align_corners, "half_pixel_centers": half_pixel_centers}
    stride = None if factor is None else (1, 1)
    return add_node("resize", [inputs, *like], scope, stride=stride, up=factor or (1, 1), **given)


def space_to_depth(inputs: Tensor, block: int, *, scope: str | None = None) -> Tensor:
    """`tf.nn.space_to_depth`."""
    channels = inputs.channels * block**2
    return add_node("space_to_depth", [inputs], scope, channels=channels, stride=(block, block), block=block)


def depth_to_space(inputs: Tensor, block: int, *, scope: str | None = None) -> Tensor:
    """`tf.nn.depth_to_space`."""
    channels = inputs.channels // block**2
    return add_node("depth_to_space", [inputs], scope, channels=channels, up=(block, block), block=block)


def _share(axis: int, numerator: int, denominator: int) -> Bound:
    """Where a part of an axis ends: a fraction of its size."""
    if numerator in (0, denominator):
        return 0 if numerator == 0 else None
    return ("floordiv", ("times", size(0, axis), numerator), denominator)


def _shape(value: Any) -> Shape:
    return (len(value), *_shape(value[0])) if isinstance(value, tuple) and value else ()


def _tuples(value: Any) -> Any:
    """Sequences as tuples, which a graph can be compared by."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
