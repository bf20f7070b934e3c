"""TensorFlow's operations as words of a graph: PyTorch and Keras compute what TensorFlow's own compute, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

from slimport import graph, names
from slimport import graph_ops as ops
from slimport.graph import Input, Tensor, record
from slimport.networks import GraphNetwork
from slimport.sizes import divide, floordiv, larger, minus, mod, plus, size, smaller, times, truncate

Array = Any
LIMIT = 1e-12
# An odd and an even height and width, and the other way about, in batches of two sizes.
SHAPES = ((2, 7, 10, 4), (3, 10, 9, 4))


class Case(NamedTuple):
    """A word of the graph, and the same in TensorFlow, of its module, an input and the variables by their names."""

    word: Callable[[Tensor], Tensor]
    judge: Callable[[Any, Any, Mapping[str, Any]], Any]
    shapes: tuple[tuple[int, ...], ...] = SHAPES
    keras: bool = True


def elementwise(function: str, judge: Callable[[Any, Any], Any], number: float | None = None) -> Case:
    """A function of the input's magnitudes, and of a number."""
    more = () if number is None else (number,)
    return Case(
        lambda net: ops.elementwise(ops.elementwise(net, function="abs"), *more, function=function),
        lambda tf, x, _: judge(tf, tf.abs(x)),
    )


def reduction(function: str, axes: tuple[int, ...] | None, keep_dims: bool = False) -> Case:
    return Case(
        lambda net: ops.reduce(net, function, axes, keep_dims),
        lambda tf, x, _: getattr(tf, f"reduce_{function}")(x, axes, keepdims=keep_dims),
    )


def resized(**settings: Any) -> Case:
    def judge(tf: Any, x: Any, _: Any) -> Any:
        given = dict(settings)
        method, factor, target = given.pop("method", "bilinear"), given.pop("factor", None), given.pop("size", None)
        side = target or [side * by for side, by in zip(x.shape[1:3], factor, strict=True)]
        if method == "nearest":
            return tf.image.resize_nearest_neighbor(x, side, **given)
        return bilinear(tf, x, side, **given)

    return Case(lambda net: ops.resize(net, **settings), judge)


def bilinear(tf: Any, x: Any, sides: Any, **settings: Any) -> Any:
    """TensorFlow's op as a matrix, which it makes of unit vectors: its result is float32 whatever its input is."""
    for axis, side in ((2, sides[1]), (1, sides[0])):
        units = tf.eye(int(x.shape[axis]))[:, :, None, None]
        matrix = tf.cast(tf.image.resize_bilinear(units, (side, 1), **settings)[:, :, 0, 0], tf.float64)
        # The weight of the pixel before is 1 less that of the pixel behind, in float64.
        behind = tf.where(tf.cumsum(matrix, exclusive=True) > 0, matrix, tf.zeros_like(matrix))
        before = tf.where((matrix > 0) & tf.equal(behind, 0), tf.ones_like(matrix), tf.zeros_like(matrix))
        matrix = behind + before * (1 - tf.reduce_sum(behind, 0))
        x = tf.einsum("nhwc,wo->nhoc" if axis == 2 else "nhwc,ho->nowc", x, matrix)
    return x


def transposed(height: int, width: int, **settings: Any) -> Case:
    """A transposed convolution to a size, which its stride and padding may not make by themselves."""
    kernel, strides = settings.get("kernel_size", (3, 3)), settings.get("stride", (2, 2))
    rate = settings.get("rate", (1, 1))
    padding = settings.get("padding", "SAME")

    def judge(tf: Any, x: Any, weights: Mapping[str, Any]) -> Any:
        explicit = padding if isinstance(padding, str) else [[0, 0], *padding, [0, 0]]
        net = tf.nn.conv2d_backprop_input(
            [x.shape[0], height, width, 5],
            weights["conv/weights"],
            x,
            [1, *strides, 1],
            explicit,
            dilations=[1, *rate, 1],
        )
        return net + weights["conv/biases"]

    return Case(
        lambda net: graph.conv2d_transpose(
            net,
            5,
            **{"kernel_size": kernel, "stride": strides, **settings},
            output_size=(height, width),
            activation=None,
            scope="conv",
        ),
        judge,
        ((2, 4, 5, 4), (3, 4, 5, 4)),
    )


def activated(function: graph.Activation, judge: Callable[[Any, Any], Any]) -> Case:
    return Case(lambda net: graph.activation(net, function), lambda tf, x, _: judge(tf, x))


def bias_and_scale(net: Tensor) -> Tensor:
    net = ops.bias_add(net, scope="offset")
    net = graph.multiply(net, ops.variable((4,), scope="gain"), scope="scaled")
    net = graph.add(net, ops.stored_constant((1, 1, 1, 4), scope="stored"), scope="moved")
    return graph.add(net, ops.constant([0.5, -1.0, 2.0, 0.25]), scope="moved_again")


def batch_normalized(net: Tensor) -> Tensor:
    settings = {"scale": True, "epsilon": 0.002, "statistics": "batch"}
    net = graph.batch_norm(net, **settings, scope="with_averages")  # type: ignore[arg-type]
    return graph.batch_norm(net, **settings, moving=False, activation="relu", scope="alone")  # type: ignore[arg-type]


def batch_normalized_by_tf(tf: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    for scope in ("with_averages", "alone"):
        mean, variance = tf.nn.moments(x, list(range(len(x.shape) - 1)))
        gamma, beta = (weights[f"{scope}/{leaf}"] for leaf in ("gamma", "beta"))
        x = tf.nn.batch_normalization(x, mean, variance, beta, gamma, 0.002)
    return tf.nn.relu(x)


def unet_crop(net: Tensor) -> Tensor:
    """The middle of a map, as large as another one."""
    small = graph.max_pool2d(net, 2, scope="pool")
    begins = [floordiv(minus(size(0, axis), size(1, axis)), 2) for axis in (1, 2)]
    bounds = [(begin, plus(begin, size(1, axis)), 1) for axis, begin in enumerate(begins, 1)]
    return graph.concat(ops.strided_slice(net, [None, *bounds], like=[small]), small)


def unet_crop_by_tf(tf: Any, x: Any, _: Any) -> Any:
    small = tf.nn.max_pool(x, 2, 2, "VALID")
    top, left = ((x.shape[axis] - small.shape[axis]) // 2 for axis in (1, 2))
    return tf.concat([x[:, top : top + small.shape[1], left : left + small.shape[2]], small], -1)


def instance_normalized_by_tf(tf: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
    net = (x - mean) / tf.sqrt(variance)
    net = net * weights["norm/gamma"] + weights["norm/beta"]
    mean, variance = tf.nn.moments(net, [1, 2], keepdims=True)
    return tf.nn.relu((net - mean) / tf.sqrt(variance + 1e-3))


def instance_normalized(net: Tensor) -> Tensor:
    net = ops.instance_norm(net, 0.0, scope="norm")
    return ops.instance_norm(net, 1e-3, center=False, scale=False, activation="relu", scope="plain")


def arithmetic_of_sizes(net: Tensor) -> Tensor:
    """A pad by sizes that every operation on sizes makes."""
    height, width = size(0, 1), size(0, 2)
    before = smaller(mod(height, 4), larger(minus(width, height), 1))
    after = truncate(divide(times(plus(width, 1), 0.5), 3))
    return ops.pad(net, [(0, 0), (before, after), (0, 0), (0, 0)])


def arithmetic_of_sizes_by_tf(tf: Any, x: Any, _: Any) -> Any:
    height, width = (int(side) for side in x.shape[1:3])
    before, after = min(height % 4, max(width - height, 1)), int((width + 1) * 0.5 / 3)
    return tf.pad(x, [[0, 0], [before, after], [0, 0], [0, 0]])


def convolved(**settings: Any) -> Case:
    """A convolution with a kernel of 2x3, which is not square."""

    def judge(tf: Any, x: Any, weights: Mapping[str, Any]) -> Any:
        net = tf.nn.conv2d(
            x,
            weights["conv/weights"],
            [1, *settings.get("stride", (1, 1)), 1],
            settings.get("padding", "SAME"),
            dilations=[1, *settings.get("rate", (1, 1)), 1],
        )
        return net + weights["conv/biases"]

    return Case(lambda net: graph.conv2d(net, 6, (2, 3), **settings, activation=None, scope="conv"), judge)


def depthwise(**settings: Any) -> Case:
    def judge(tf: Any, x: Any, weights: Mapping[str, Any]) -> Any:
        strides, rate = settings.get("stride", (1, 1)), settings.get("rate", (1, 1))
        kernel = weights["conv/depthwise_weights"]
        return tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], settings.get("padding", "SAME"), rate)

    def word(net: Tensor) -> Tensor:
        return graph.separable_conv2d(net, None, 3, 3, **settings, biases=False, activation=None, scope="conv")

    return Case(word, judge)


def attention(net: Tensor) -> Tensor:
    """Every pixel's softmax over all pixels."""
    pixels = ops.reshape(net, (size(0, 0), times(size(0, 1), size(0, 2)), 4))
    weights = ops.softmax(ops.matmul(pixels, pixels, transpose_b=True), 1)
    return ops.matmul(weights, pixels, transpose_a=True)


def attention_by_tf(tf: Any, x: Any, _: Any) -> Any:
    pixels = tf.reshape(x, [x.shape[0], -1, 4])
    weights = tf.nn.softmax(tf.matmul(pixels, pixels, transpose_b=True), 1)
    return tf.matmul(weights, pixels, transpose_a=True)


def by_a_computed_kernel(depthwise: bool = False, **settings: Any) -> Case:
    """A convolution by a kernel that is twice a variable."""
    strides, rate, padding = (settings.get(key, usual) for key, usual in USUAL.items())

    def word(net: Tensor) -> Tensor:
        kernel = graph.scale(ops.variable((3, 2, 4, 2), scope="kernel"), 2.0)
        return ops.convolve(net, kernel, strides, padding, rate, depthwise, channels=8 if depthwise else 2)

    def judge(tf: Any, x: Any, weights: Mapping[str, Any]) -> Any:
        kernel = 2 * weights["kernel/value"]
        if depthwise:
            return tf.nn.depthwise_conv2d(x, kernel, (1, *strides, 1), padding, dilations=rate)
        return tf.nn.conv2d(x, kernel, (1, *strides, 1), padding, dilations=(1, *rate, 1))

    return Case(word, judge)


USUAL = {"strides": (1, 1), "rate": (1, 1), "padding": "SAME"}


def dense(net: Tensor) -> Tensor:
    """Fully connected layers and BatchNorm of 4, 3 and 2 axes."""
    net = graph.fully_connected(net, 5, scope="map")
    rows = ops.reshape(net, (-1, 10, 5))
    rows = graph.batch_norm(rows, 0.9, scale=True, scope="norm")
    rows = graph.fully_connected(rows, 3, activation=None, scope="rows")
    flat = graph.flatten(rows, channels=30, scope="flat")
    return graph.fully_connected(flat, 2, activation="tanh", normalizer={"epsilon": 1e-5}, scope="last")


def dense_by_tf(tf: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    net = tf.nn.relu(tf.tensordot(x, weights["map/weights"], 1) + weights["map/biases"])
    net = tf.reshape(net, [-1, 10, 5])
    moments, scales = (
        [weights[f"norm/{leaf}"] for leaf in leaves]
        for leaves in (("moving_mean", "moving_variance"), ("beta", "gamma"))
    )
    net = tf.nn.batch_normalization(net, *moments, *scales, 0.001)
    net = tf.tensordot(net, weights["rows/weights"], 1) + weights["rows/biases"]
    net = tf.matmul(tf.reshape(net, [-1, 30]), weights["last/weights"])
    last = [weights[f"last/BatchNorm/{leaf}"] for leaf in ("moving_mean", "moving_variance", "beta")]
    return tf.tanh(tf.nn.batch_normalization(net, *last, None, 1e-5))


def broadcast(net: Tensor) -> Tensor:
    """Operands of 0 to 5 axes."""
    gate = ops.reduce(net, "mean", (1, 2))
    net = ops.elementwise(net, ops.constant(2.0), function="maximum")
    net = ops.elementwise(net, ops.constant([[1.0, 2.0, 3.0, 4.0]]), function="subtract")
    five = ops.expand_dims(ops.expand_dims(gate, 1), 1)
    net = graph.multiply(five, net)
    return ops.elementwise(ops.stack(net, net, axis=0), net, function="squared_difference")


def broadcast_by_tf(tf: Any, x: Any, _: Any) -> Any:
    gate = tf.reduce_mean(x, [1, 2])[:, None, None]
    net = gate * (tf.maximum(x, 2.0) - tf.constant([[1.0, 2.0, 3.0, 4.0]], x.dtype))
    return tf.squared_difference(tf.stack([net, net], 0), net)


def compared(net: Tensor) -> Tensor:
    """Comparisons, logic, and a choice."""
    positive = ops.elementwise(net, 0.0, function="greater")
    small = ops.elementwise(net, ops.elementwise(net, function="square"), function="less_equal")
    other = ops.elementwise(ops.elementwise(net, 0.25, function="less"), function="logical_not")
    either = ops.elementwise(ops.elementwise(positive, small, function="logical_and"), other, function="logical_or")
    kept = ops.elementwise(either, net, ops.elementwise(net, function="negative"), function="where")
    same = ops.cast(ops.elementwise(kept, net, function="equal"), "float")
    return graph.add(kept, same, ops.cast(ops.cast(graph.scale(net, 3.0), "int32"), "float"), scope="all")


def compared_by_tf(tf: Any, x: Any, _: Any) -> Any:
    either = ((x > 0) & (x <= x * x)) | ~(x < 0.25)
    kept = tf.where(either, x, -x)
    return kept + tf.cast(tf.equal(kept, x), x.dtype) + tf.cast(tf.cast(x * 3.0, tf.int32), x.dtype)


def prelu(net: Tensor) -> Tensor:
    return ops.prelu(ops.prelu(net, scope="each"), shared=True, scope="all")


def prelu_by_tf(tf: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    for scope in ("each", "all"):
        x = tf.nn.relu(x) + weights[f"{scope}/weights"] * (x - tf.abs(x)) * 0.5
    return x


def lrn_by_tf(tf: Any, x: Any, _: Any) -> Any:
    """TensorFlow has no kernel in float64."""
    squares = tf.pad(x * x, [[0, 0]] * 3 + [[2, 2]])
    return x / (1.5 + 0.3 * sum(squares[..., i : i + 4] for i in range(5))) ** 0.75


def split_and_joined(net: Tensor) -> Tensor:
    first, second = ops.split(net, 2)
    above, below = ops.split(graph.concat(second, first), [2, 1], 1)[:2]
    left, _, right = ops.split(graph.concat(below, above, axis=1), 3, 2)
    return graph.concat(right, left, axis=-1)


def split_and_joined_by_tf(tf: Any, x: Any, _: Any) -> Any:
    x = tf.concat([x[..., 2:], x[..., :2]], -1)
    x = tf.concat([x[:, 2:3], x[:, :2]], 1)
    left, _, right = tf.split(x, 3, 2)
    return tf.concat([right, left], -1)


UNARY = [name for name, inputs in ops.FUNCTIONS.items() if inputs == 1 and name != "logical_not"]
CASES: dict[str, Case] = {
    "pad": Case(
        lambda net: ops.pad(net, [(1, 0), (2, 1), (0, 3), (1, 2)], value=-1.5),
        lambda tf, x, _: tf.pad(x, [[1, 0], [2, 1], [0, 3], [1, 2]], constant_values=-1.5),
    ),
    "pad_reflect": Case(
        lambda net: ops.pad(net, [(0, 0), (2, 1), (0, 3), (0, 0)], "reflect"),
        lambda tf, x, _: tf.pad(x, [[0, 0], [2, 1], [0, 3], [0, 0]], "REFLECT"),
    ),
    "pad_symmetric": Case(
        lambda net: ops.pad(net, [(0, 0), (2, 1), (0, 3), (1, 1)], "symmetric"),
        lambda tf, x, _: tf.pad(x, [[0, 0], [2, 1], [0, 3], [1, 1]], "SYMMETRIC"),
    ),
    "pad_computed": Case(arithmetic_of_sizes, arithmetic_of_sizes_by_tf),
    "max_pool": Case(
        lambda net: graph.max_pool2d(net, (2, 3), (2, 1), "SAME", scope="pool"),
        lambda tf, x, _: tf.nn.max_pool(x, (2, 3), (2, 1), "SAME"),
    ),
    "avg_pool": Case(
        lambda net: graph.avg_pool2d(net, (3, 2), (1, 2), "SAME", scope="pool"),
        lambda tf, x, _: tf.nn.avg_pool(x, (3, 2), (1, 2), "SAME"),
    ),
    "reshape": Case(
        lambda net: ops.reshape(net, (size(0, 0), size(0, 2), -1)),
        lambda tf, x, _: tf.reshape(x, [x.shape[0], x.shape[2], -1]),
    ),
    "reshape_to_a_map": Case(
        lambda net: ops.reshape(ops.reshape(net, (-1, 4)), (-1, size(1, 2), size(1, 1), 4), like=[net]),
        lambda tf, x, _: tf.reshape(x, [-1, x.shape[2], x.shape[1], 4]),
    ),
    "transpose": Case(lambda net: ops.transpose(net, (0, 3, 1, 2)), lambda tf, x, _: tf.transpose(x, [0, 3, 1, 2])),
    "transpose_and_flatten": Case(
        lambda net: graph.flatten(ops.transpose(net, (0, 2, 1, 3))),
        lambda tf, x, _: tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [x.shape[0], -1]),
    ),
    "slice": Case(
        lambda net: ops.strided_slice(net, [None, (1, -1, 2), (-2, None, -3), (3, 0, -1)], channels=3),
        lambda _, x, __: x[:, 1:-1:2, -2::-3, 3:0:-1],
    ),
    "slice_and_shrink": Case(
        lambda net: ops.strided_slice(net, [None, (2, 3, 1), (None, None, -1), (-1, None, 1)], [1, 3]),
        lambda _, x, __: x[:, 2, ::-1, -1],
    ),
    "crop": Case(unet_crop, unet_crop_by_tf),
    "split": Case(split_and_joined, split_and_joined_by_tf, ((2, 7, 9, 4), (3, 5, 6, 4))),
    "unstack": Case(
        lambda net: ops.stack(*ops.unstack(net, 4, -1, rank=4)[::-1], axis=1),
        lambda tf, x, _: tf.stack(tf.unstack(x, axis=-1)[::-1], axis=1),
    ),
    "concat": Case(
        lambda net: graph.concat(net, graph.scale(net, 2.0), axis=1), lambda tf, x, _: tf.concat([x, x * 2.0], 1)
    ),
    "squeeze": Case(
        lambda net: graph.squeeze(ops.reduce(net, "sum", (2,), keep_dims=True), (2,), scope=None),
        lambda tf, x, _: tf.reduce_sum(x, 2),
    ),
    "expand_dims": Case(lambda net: ops.expand_dims(net, -2), lambda tf, x, _: tf.expand_dims(x, -2)),
    "tile": Case(lambda net: ops.tile(net, (1, 2, 1, 3)), lambda tf, x, _: tf.tile(x, [1, 2, 1, 3])),
    "reverse": Case(lambda net: ops.reverse(net, (-1, 1)), lambda tf, x, _: tf.reverse(x, [-1, 1])),
    "gather": Case(
        lambda net: ops.gather(net, (3, 0, 0, 2, 1)), lambda tf, x, _: tf.gather(x, [3, 0, 0, 2, 1], axis=-1)
    ),
    "cast_and_compare": Case(compared, compared_by_tf),
    "argmax": Case(lambda net: ops.argmax(net, -1), lambda tf, x, _: tf.argmax(x, -1)),
    "attention": Case(attention, attention_by_tf),
    "dense": Case(dense, dense_by_tf, ((2, 7, 10, 4), (3, 4, 10, 4))),
    "broadcast": Case(broadcast, broadcast_by_tf),
    "bias_and_scale": Case(
        bias_and_scale,
        lambda _, x, v: (x + v["offset/biases"]) * v["gain/value"] + v["stored/value"] + [0.5, -1.0, 2.0, 0.25],
    ),
    "prelu": Case(prelu, prelu_by_tf),
    "instance_norm": Case(instance_normalized, instance_normalized_by_tf),
    "batch_statistics": Case(batch_normalized, batch_normalized_by_tf),
    "batch_statistics_of_rows": Case(batch_normalized, batch_normalized_by_tf, ((5, 4), (3, 4))),
    "log_softmax": Case(lambda net: ops.log_softmax(net), lambda tf, x, _: tf.nn.log_softmax(x)),
    "softmax_of_rows": Case(lambda net: ops.softmax(net, 1), lambda tf, x, _: tf.nn.softmax(x, 1)),
    "lrn": Case(lambda net: ops.lrn(net, 2, 1.5, 0.3, 0.75), lrn_by_tf),
    "space_to_depth": Case(
        lambda net: ops.space_to_depth(net, 2),
        lambda tf, x, _: tf.nn.space_to_depth(x, 2),
        ((2, 4, 6, 3), (1, 2, 8, 3)),
    ),
    "depth_to_space": Case(
        lambda net: ops.depth_to_space(net, 2),
        lambda tf, x, _: tf.nn.depth_to_space(x, 2),
        ((2, 3, 5, 8), (1, 2, 1, 8)),
    ),
    "dilated": convolved(rate=(2, 3)),
    "dilated_valid": convolved(rate=(1, 2), padding="VALID"),
    "strided": convolved(stride=(2, 3)),
    "grouped": Case(
        lambda net: graph.conv2d(net, 6, 3, groups=2, biases=False, activation=None, scope="conv"),
        lambda tf, x, v: tf.concat(
            [
                tf.nn.conv2d(part, kernel, 1, "SAME")
                for part, kernel in zip(tf.split(x, 2, -1), tf.split(v["conv/weights"], 2, -1), strict=True)
            ],
            -1,
        ),
    ),
    "depthwise": depthwise(),
    "depthwise_dilated": depthwise(rate=(2, 2), padding="VALID"),
    "depthwise_strided": depthwise(stride=(2, 2)),
    "transposed": transposed(8, 10),
    "transposed_odd": transposed(7, 9),
    "transposed_valid": transposed(10, 12, padding="VALID"),
    "transposed_wide": transposed(12, 13, kernel_size=(2, 5), stride=(3, 3)),
    "transposed_explicit": transposed(8, 9, padding=((1, 0), (1, 1))),
    "transposed_twice": Case(
        lambda net: graph.conv2d_transpose(
            net, 3, 3, 2, output_size=(times(size(0, 1), 2), times(2, size(0, 2))), activation=None, scope="conv"
        ),
        lambda tf, x, v: (
            tf.nn.conv2d_transpose(x, v["conv/weights"], [x.shape[0], x.shape[1] * 2, x.shape[2] * 2, 3], 2, "SAME")
            + v["conv/biases"]
        ),
    ),
    **{
        f"{function}_of_{axes}": reduction(function, axes, keep_dims)
        for function, axes, keep_dims in (
            ("mean", (1, 2), False),
            ("sum", (-1,), True),
            ("max", (1,), False),
            ("min", (2, 3), False),
            ("prod", (1, 3), True),
            ("mean", None, False),
        )
    },
    **{
        function: elementwise(function, lambda tf, x, function=function: getattr(tf.math, function)(x))  # type: ignore[misc]
        for function in UNARY
    },
    **{
        function: elementwise(function, lambda tf, x, name=name: getattr(tf, name)(x, tf.cast(0.75, x.dtype)), 0.75)  # type: ignore[misc]
        for function, name in {
            "subtract": "subtract",
            "divide": "divide",
            "minimum": "minimum",
            "power": "pow",
            "divide_no_nan": "div_no_nan",
            "floor_divide": "floordiv",
            "floor_mod": "floormod",
        }.items()
    },
    "leaky_relu": activated(("leaky_relu", 0.125), lambda tf, x: tf.nn.leaky_relu(x, 0.125)),
    "elu": activated(("elu", 0.5), lambda tf, x: tf.where(x > 0, x, 0.5 * (tf.exp(x) - 1))),
    "relu_n": activated(("relu_n", 0.5), lambda tf, x: tf.minimum(tf.nn.relu(x), 0.5)),
    "clip": activated(("clip", -0.25, 0.5), lambda tf, x: tf.clip_by_value(x, -0.25, 0.5)),
    "softsign": activated("softsign", lambda tf, x: tf.nn.softsign(x)),
    "hard_swish": activated(("hard_swish", 0.125), lambda tf, x: x * tf.nn.relu6(x + 3) * 0.125),
    "convolve": by_a_computed_kernel(),
    "convolve_strided": by_a_computed_kernel(strides=(2, 2)),
    "convolve_dilated": by_a_computed_kernel(rate=(2, 2), padding="VALID"),
    "convolve_depthwise": by_a_computed_kernel(depthwise=True, strides=(2, 2)),
    "resize": resized(size=(5, 13)),
    "resize_by_factors": resized(factor=(2, 3)),
    "resize_half_pixel": resized(size=(11, 4), half_pixel_centers=True),
    "resize_align_corners": resized(size=(11, 4), align_corners=True),
    "resize_to_one": resized(size=(1, 1), align_corners=True),
    "nearest": resized(size=(5, 13), method="nearest"),
    "nearest_by_factors": resized(factor=(2, 3), method="nearest"),
    "nearest_half_pixel": resized(size=(11, 4), method="nearest", half_pixel_centers=True),
    "nearest_align_corners": resized(size=(11, 4), method="nearest", align_corners=True),
}


class Judged(NamedTuple):
    """A case's graph, its inputs, its variables' values, and what TensorFlow makes of each input."""

    network: GraphNetwork
    inputs: list[Array]
    weights: dict[str, Array]
    expected: list[Array]


def recorded(case: Case) -> GraphNetwork:
    """The network of a case's word alone."""
    shape = (None,) * (len(case.shapes[0]) - 1) + case.shapes[0][-1:]
    return GraphNetwork(record(case.word, inputs=[Input("images", shape)], free=True))


@pytest.fixture(scope="module")
def judged() -> dict[str, Judged]:
    """All cases, which one session of TensorFlow runs."""
    import tensorflow.compat.v1 as tf

    generator = np.random.default_rng(0)
    prepared = {}
    with tf.Graph().as_default(), tf.Session() as session:
        fetches = {}
        for name, case in CASES.items():
            network = recorded(case)
            inputs = [generator.normal(size=shape) for shape in case.shapes]
            weights = {key: generator.uniform(0.1, 1, shape) for key, shape in network.variables().items()}
            constants = {key: tf.constant(value) for key, value in weights.items()}
            fetches[name] = [case.judge(tf, tf.constant(value), constants) for value in inputs]
            prepared[name] = network, inputs, weights
        expected = session.run(fetches)
    return {name: Judged(*case, expected[name]) for name, case in prepared.items()}


def assert_equal(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=LIMIT * max(scale, 1))


def pytorch_layout(variable: str, array: Array) -> Array:
    """A kernel as PyTorch has it; all else is as in TensorFlow."""
    leaf = variable.rpartition("/")[2]
    if leaf == "depthwise_weights":
        array = array.reshape(*array.shape[:2], 1, -1)
    if leaf in ("weights", "depthwise_weights") and array.ndim in (2, 4):
        return array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0)).copy()
    return array


def pytorch_port(network: GraphNetwork, weights: Mapping[str, Array]) -> Any:
    import torch

    from slimport.pytorch import build

    model = build(network).double()
    state = {names.pytorch_name(key): torch.from_numpy(pytorch_layout(key, a)) for key, a in weights.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [name for name in missing if not name.endswith("num_batches_tracked")]
    return model.eval()


def keras_port(network: GraphNetwork, weights: Mapping[str, Array], image_size: Any = None) -> Any:
    from slimport.keras import build
    from slimport.keras.end_points import variables

    model = build(network, dtype="float64", image_size=image_size)
    found = variables(model)
    for key, array in weights.items():
        # Keras has no moving averages where the batch's statistics normalize.
        if key in found or "moving_" not in key:
            found[key].assign(array.reshape(found[key].shape))
    return model


def nhwc(array: Array) -> Array:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


@pytest.mark.parametrize("name", CASES)
def test_pytorch_computes_what_tensorflow_computes(name: str, judged: dict[str, Judged]) -> None:
    import torch

    case = judged[name]
    model = pytorch_port(case.network, case.weights)
    for value, expected in zip(case.inputs, case.expected, strict=True):
        inputs = torch.from_numpy(value.transpose(0, 3, 1, 2) if value.ndim == 4 else value)
        with torch.no_grad():
            assert_equal(nhwc(model(inputs).numpy()), expected)


@pytest.mark.parametrize("name", CASES)
def test_keras_computes_what_tensorflow_computes(name: str, judged: dict[str, Judged]) -> None:
    case = judged[name]
    for value, expected in zip(case.inputs, case.expected, strict=True):
        model = keras_port(case.network, case.weights, value.shape[1:3] if value.ndim == 4 else None)
        assert_equal(np.asarray(model(value, training=False)), expected)


def test_the_cases_have_every_word() -> None:
    from slimport.keras.operations import OPERATIONS as KERAS_OPERATIONS
    from slimport.pytorch.operations import OPERATIONS

    nodes = [node for case in CASES.values() for node in recorded(case).recorded.nodes]
    assert {node.op for node in nodes} >= OPERATIONS.keys() | KERAS_OPERATIONS.keys()
