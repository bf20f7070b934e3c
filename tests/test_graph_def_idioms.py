"""Idioms of people's graphs, each built small with TensorFlow, give in PyTorch and Keras what TensorFlow computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import user_graphs
from user_graphs import Written, assert_equal, write

from converters.graph_def import open_graph, read_network

tf = user_graphs.tf
import tf_slim as slim

Tensor = Any
CASES: dict[str, Callable[[], Any]] = {}
CONDITIONS = (
    "batch_norm_behind_a_placeholder",
    "batch_norm_with_a_learning_phase",
    "statistics_behind_a_cond",
    "fused_batch_norm_whose_result_is_discarded",
    "dropout_behind_a_cond",
)
"""The cases with a condition, which TensorFlow 1 wrote as Switch and Merge, and later ones as an If of functions."""


WHERE_CONSTANTS_MATTER = (
    "identities_of_functions",
    "names_that_say_nothing",
    "constant_gamma_and_bias",
    "slim_flatten",
    "crop_by_a_computed_slice",
    "spelled_prelu",
    "instance_norm",
    "batch_norm_unfused",
    "batch_norm_by_hand",
    "batch_norm_fused",
    "statistics_behind_a_cond",
    "separable_of_multiplier_8",
    "old_dropout_constant",
    "dropout_between_convolution_and_bias",
    "simulated_quantization",
    "computed_kernels",
    "channels_first",
    "several_heads",
)
"""The cases that are frozen, and exported as SavedModels, too."""
IN_PYTORCH_ALONE = ("dilated_transposed_convolution", "image_of_unknown_rank_less_its_means")
"""The cases that do not run in Keras: TensorFlow has no kernel on CPUs; images without a batch need one size."""


def case(function: Callable[[], Any]) -> Callable[[], Any]:
    """Registers a graph, which its function builds; what that gives is the output."""
    CASES[function.__name__] = function
    return function


def written(name: str, folder: Path, form: str = "meta") -> Written:
    """The graph of a case."""

    def outputs() -> dict[str, Tensor]:
        made = CASES[name]()
        return made if isinstance(made, dict) else {"output": made}

    return write(outputs, folder, form)


def images(channels: int = 3, side: int | None = None, batch: int | None = None, name: str = "images") -> Tensor:
    return tf.placeholder(tf.float32, (batch, side, side, channels), name)


def weights(*shape: int, name: str | None = None) -> Tensor:
    return tf.Variable(tf.zeros(shape), name=name, use_resource=False)


def conv(
    net: Tensor, depth: int, size: int = 3, stride: int = 1, padding: str = "SAME", name: str | None = None
) -> Tensor:
    kernel = weights(size, size, net.shape[-1], depth)
    return tf.nn.conv2d(net, kernel, [1, stride, stride, 1], padding, name=name)


def scoped_conv(net: Tensor, depth: int, name: str, size: int = 3, stride: int = 1, padding: str = "SAME") -> Tensor:
    with tf.variable_scope(name):
        kernel = tf.get_variable("weights", (size, size, net.shape[-1], depth), use_resource=False)
        bias = tf.get_variable("biases", (depth,), use_resource=False)
        return tf.nn.bias_add(tf.nn.conv2d(net, kernel, [1, stride, stride, 1], padding), bias)


# Names and biases.


@case
def names_that_say_nothing() -> Tensor:
    net = tf.nn.relu(conv(images(side=28), 4) + weights(4))
    net = tf.nn.max_pool2d(net, 2, 2, "SAME")
    net = tf.reshape(net, [-1, 14 * 14 * 4])
    net = tf.nn.relu(tf.matmul(net, weights(14 * 14 * 4, 6)) + weights(6))
    return tf.nn.softmax(tf.matmul(net, weights(6, 5)) + weights(5))


@case
def conv_that_is_named_itself() -> Tensor:
    net = tf.nn.relu(conv(images(), 4, name="conv1") + weights(4, name="b1"))
    return conv(net, 5, stride=2, padding="VALID", name="conv2")


@case
def bias_before_batch_norm() -> Tensor:
    net = scoped_conv(images(), 4, "conv1")
    return tf.nn.relu(slim.batch_norm(net, is_training=False, scale=True, scope="conv1/BatchNorm"))


@case
def constant_gamma_and_bias() -> Tensor:
    net = conv(images(), 4) + tf.constant([0.1, 0.2, 0.3, 0.4])
    mean, variance = weights(4, name="mean"), weights(4, name="variance")
    return tf.nn.batch_normalization(net, mean, variance, weights(4, name="beta"), tf.constant([1.5, 2, 1, 0.5]), 1e-3)


@case
def identities_in_the_data_path() -> Tensor:
    net = tf.identity(scoped_conv(tf.identity(images()), 4, "conv1"))
    return tf.identity(tf.nn.relu(tf.identity(net)), name="output")


@case
def identities_of_functions() -> Tensor:
    """As in frozen graphs of TensorFlow 2, where a function was inlined."""
    net = tf.identity(images(), "Func/StatefulPartitionedCall/input/_1")
    kernel = weights(3, 3, 3, 4, name="StatefulPartitionedCall/model/conv1/Conv2D/ReadVariableOp")
    kernel = tf.identity(kernel, "Func/StatefulPartitionedCall/input/_2")
    net = tf.nn.conv2d(net, kernel, 1, "SAME", name="StatefulPartitionedCall/model/conv1/Conv2D")
    net = tf.identity(tf.nn.relu(net), "Func/StatefulPartitionedCall/output/_3")
    return tf.identity(net, "Identity")


# Flatten, and shapes that are computed.


@case
def flatten_by_a_constant() -> Tensor:
    net = scoped_conv(images(side=9), 4, "conv1")
    return tf.matmul(tf.reshape(net, [-1, 9 * 9 * 4]), weights(9 * 9 * 4, 3, name="W"))


@case
def flatten_by_a_product_of_its_shape() -> Tensor:
    net = scoped_conv(images(side=9), 4, "conv1")
    flat = tf.reshape(net, tf.stack([tf.shape(net)[0], tf.reduce_prod(tf.shape(net)[1:])]))
    return tf.matmul(flat, weights(9 * 9 * 4, 3, name="W"))


@case
def slim_flatten() -> Tensor:
    net = slim.conv2d(images(side=9), 4, 3, scope="conv1")
    return slim.fully_connected(slim.flatten(net), 3, scope="fc")


@case
def batch_in_placeholder_and_reshape() -> Tensor:
    net = scoped_conv(images(side=9, batch=2), 4, "conv1")
    net = tf.matmul(tf.reshape(net, [2, -1]), weights(9 * 9 * 4, 12, name="W"))
    return tf.reshape(net, [2, 2, 2, 3])


@case
def batch_in_a_transposed_convolution() -> Tensor:
    net = scoped_conv(images(side=8, batch=4), 4, "conv1", stride=2)
    return tf.nn.conv2d_transpose(net, weights(3, 3, 2, 4, name="W"), [4, 8, 8, 2], [1, 2, 2, 1])


@case
def transposed_convolution_of_a_computed_shape() -> Tensor:
    net = images(side=None)
    small = scoped_conv(net, 4, "conv1", stride=2)
    shape = tf.shape(small)
    size = tf.stack([shape[0], shape[1] * 2, shape[2] * 2, 3])
    up = tf.nn.conv2d_transpose(small, weights(2, 2, 3, 4, name="up"), size, [1, 2, 2, 1], "VALID")
    return tf.nn.conv2d_transpose(
        scoped_conv(up, 4, "conv2"), weights(3, 3, 3, 4, name="to"), tf.shape(up), [1, 1, 1, 1]
    )


@case
def crop_by_a_computed_slice() -> Tensor:
    net = scoped_conv(images(), 4, "conv1", padding="VALID")
    deep = scoped_conv(net, 4, "conv2", size=5, padding="VALID")
    a, b = tf.shape(net), tf.shape(deep)
    begin = tf.stack([0, (a[1] - b[1]) // 2, (a[2] - b[2]) // 2, 0])
    cropped = tf.slice(net, begin, tf.stack([-1, b[1], b[2], 4]))
    return tf.concat([cropped, deep], 3)


@case
def flat_input_that_becomes_an_image() -> Tensor:
    net = tf.reshape(tf.placeholder(tf.float32, (None, 784), "x"), [-1, 28, 28, 1])
    return scoped_conv(net, 3, "conv1", stride=4)


@case
def placeholder_of_unknown_rank() -> Tensor:
    kernel = weights(3, 3, 3, 4, name="W")
    return tf.nn.relu(tf.nn.conv2d(tf.placeholder(tf.float32, None, "x") / 255.0 - 0.5, kernel, [1, 1, 1, 1], "SAME"))


@case
def input_of_three_axes() -> Tensor:
    net = tf.expand_dims(tf.placeholder(tf.float32, (None, 30, 8), "x"), 2)
    net = tf.nn.conv2d(net, weights(5, 1, 8, 6, name="W"), [1, 2, 1, 1], "SAME")
    return tf.reduce_max(tf.squeeze(tf.nn.relu(net), [2]), 1)


@case
def input_of_two_axes() -> Tensor:
    net = tf.placeholder(tf.float32, (None, 7), "x")
    return tf.nn.tanh(tf.matmul(net, weights(7, 4, name="w1")) + weights(4, name="b1"))


# Activations.


def _activation(function: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
    return lambda: function(scoped_conv(images(), 4, "conv1"))


def spelled_prelu(net: Tensor) -> Tensor:
    alphas = weights(4, name="alphas")
    return tf.nn.relu(net) + alphas * (net - abs(net)) * 0.5


def negated_prelu(net: Tensor) -> Tensor:
    return tf.nn.relu(net) - weights(4, name="alpha") * tf.nn.relu(-net)


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Any]] = {
    # In float32, 0.6 + 0.4 is not 1: as a leaky relu it would be 3e-8 off.
    "leaky_by_abs": (lambda net: 0.6 * net + 0.4 * abs(net), None),
    "leaky_by_halves": (lambda net: 0.625 * net + 0.375 * abs(net), "leaky_relu"),
    "leaky_by_maximum": (lambda net: tf.maximum(net, 0.1 * net), "leaky_relu"),
    "leaky_op": (lambda net: tf.nn.leaky_relu(net, 0.3), "leaky_relu"),
    "relu_then_relu6": (lambda net: tf.nn.relu6(tf.nn.relu(net)), "relu"),
    "relu_by_maximum": (lambda net: tf.maximum(net, 0.0), "relu"),
    "relu6_by_minimum": (lambda net: tf.minimum(tf.maximum(net, 0.0), 6.0), "relu6"),
    "swish": (lambda net: net * tf.nn.sigmoid(net), "swish"),
    "hard_swish": (lambda net: net * tf.nn.relu6(net + 3) * 0.16667, "hard_swish"),
    "hard_swish_by_division": (lambda net: net * tf.nn.relu6(net + 3.0) / 6.0, "hard_swish"),
    "hard_sigmoid": (lambda net: tf.nn.relu6(net + 3) * 0.16667, "hard_sigmoid"),
    "clip": (lambda net: tf.clip_by_value(net, -0.5, 0.25), "clip"),
    "keras_hard_sigmoid": (lambda net: tf.clip_by_value(0.2 * net + 0.5, 0.0, 1.0), None),
    "elu": (tf.nn.elu, "elu"),
    "selu": (tf.nn.selu, "selu"),
    "sigmoid": (tf.nn.sigmoid, "sigmoid"),
    "softplus": (tf.nn.softplus, "softplus"),
    "mish": (lambda net: net * tf.tanh(tf.nn.softplus(net)), None),
}
CASES.update({name: _activation(function) for name, (function, _) in ACTIVATIONS.items()})
CASES.update({"spelled_prelu": _activation(spelled_prelu), "negated_prelu": _activation(negated_prelu)})


@pytest.mark.parametrize("name", [name for name, (_, wanted) in ACTIVATIONS.items() if wanted])
def test_an_activation_is_a_part_of_its_layer_however_it_is_spelled(name: str, tmp_path: Path) -> None:
    user = read_network(written(name, tmp_path).path)
    assert user.graph.nodes[1].activation == ACTIVATIONS[name][1]


@pytest.mark.parametrize("name", ["spelled_prelu", "negated_prelu"])
def test_a_spelled_out_prelu_is_one_layer(name: str, tmp_path: Path) -> None:
    user = read_network(written(name, tmp_path).path)
    if name == "spelled_prelu":
        assert [node.op for node in user.graph.nodes] == ["input", "conv2d", "prelu"]


def test_an_l2_normalization_is_one_layer(tmp_path: Path) -> None:
    user = read_network(written("l2_normalized", tmp_path).path)
    last = user.graph.nodes[user.graph.output]
    assert (last.op, last.attributes["epsilon"]) == ("l2_normalize", pytest.approx(1e-10))


# Normalizations.


@case
def instance_norm() -> Tensor:
    net = scoped_conv(images(), 4, "conv1")
    mean, variance = tf.nn.moments(net, [1, 2], keepdims=True)
    scale, offset = weights(4, name="scale"), weights(4, name="offset")
    return scale * ((net - mean) * tf.rsqrt(variance + 1e-5)) + offset


@case
def instance_norm_without_epsilon() -> Tensor:
    net = scoped_conv(images(), 4, "conv1")
    mean, variance = tf.nn.moments(net, [1, 2], keepdims=True)
    return tf.divide(net - mean, tf.sqrt(variance))


@case
def slim_instance_norm() -> Tensor:
    return slim.instance_norm(scoped_conv(images(), 4, "conv1"), scope="norm", activation_fn=tf.nn.relu)


@case
def layer_norm() -> Tensor:
    return slim.layer_norm(scoped_conv(images(side=5), 4, "conv1"), scope="norm")


@case
def batch_norm_fused() -> Tensor:
    return slim.conv2d(
        images(), 4, 3, normalizer_fn=slim.batch_norm, normalizer_params={"is_training": False}, scope="conv1"
    )


@case
def batch_norm_unfused() -> Tensor:
    params = {"is_training": False, "fused": False, "scale": True}
    return slim.conv2d(images(), 4, 3, normalizer_fn=slim.batch_norm, normalizer_params=params, scope="conv1")


@case
def batch_norm_without_beta() -> Tensor:
    net = slim.batch_norm(images(), is_training=False, center=False, fused=False, scope="norm")
    return scoped_conv(net, 3, "conv1")


@case
def batch_norm_by_hand() -> Tensor:
    net = scoped_conv(images(), 4, "conv1")
    mean, variance = weights(4, name="pop_mean"), weights(4, name="pop_var")
    net = (net - mean) / tf.sqrt(variance + 0.001)
    return tf.nn.relu(weights(4, name="scale") * net + weights(4, name="shift"))


@case
def batch_norm_on_a_matmul() -> Tensor:
    net = tf.matmul(tf.placeholder(tf.float32, (None, 7), "x"), weights(7, 4, name="w"))
    return tf.nn.relu(slim.batch_norm(net, is_training=False, fused=False, scope="bn"))


@case
def batch_norm_behind_a_placeholder() -> Tensor:
    training = tf.placeholder(tf.bool, (), "is_training")
    net = scoped_conv(images(), 4, "conv1")
    return tf.nn.relu(slim.batch_norm(net, is_training=training, scope="bn", updates_collections=None))


@case
def batch_norm_with_a_learning_phase() -> Tensor:
    phase = tf.placeholder_with_default(False, (), "learning_phase")
    return slim.batch_norm(scoped_conv(images(), 4, "conv1"), is_training=phase, fused=False, scope="bn")


@case
def statistics_behind_a_cond() -> Tensor:
    training = tf.placeholder(tf.bool, (), "phase")
    net = scoped_conv(images(), 4, "conv1")
    mean, variance = tf.nn.moments(net, [0, 1, 2])
    average = weights(4, name="mean"), weights(4, name="variance")
    mean, variance = tf.cond(training, lambda: (mean, variance), lambda: tuple(map(tf.identity, average)))
    return tf.nn.batch_normalization(net, mean, variance, weights(4, name="beta"), None, 1e-3)


@case
def fused_batch_norm_whose_result_is_discarded() -> Tensor:
    """The batch's is computed outside the cond, which takes one of the two results."""
    training = tf.placeholder(tf.bool, (), "is_training")
    net = scoped_conv(images(), 4, "conv1")
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    gamma, beta, mean, variance = (weights(4, name=name) for name in names)
    of_the_batch, *_ = tf.nn.fused_batch_norm(net, gamma, beta, is_training=True)
    averaged = lambda: tf.nn.fused_batch_norm(net, gamma, beta, mean, variance, is_training=False)[0]  # noqa: E731
    return tf.nn.relu(tf.cond(training, lambda: tf.identity(of_the_batch), averaged))


@case
def moments_of_a_computed_count() -> Tensor:
    """As `tf.nn.moments` once was: sums over 1 over a number that is computed."""
    net = scoped_conv(images(), 4, "conv1")
    shape = tf.shape(net)
    share = tf.math.reciprocal(1.0 * tf.cast(shape[1], tf.float32) * tf.cast(shape[2], tf.float32))
    mean = tf.reduce_sum(net, [1, 2], keepdims=True) * share
    variance = tf.reduce_sum(tf.square(net - mean), [1, 2], keepdims=True) * share
    return (net - mean) * tf.rsqrt(variance + 1e-3) * weights(4, name="scale") + weights(4, name="offset")


# Layers and layouts.


@case
def separable_of_multiplier_8() -> Tensor:
    return slim.separable_conv2d(images(), 6, 5, 8, stride=2, scope="Conv2d_1a")


@case
def depthwise_and_pointwise() -> Tensor:
    net = slim.separable_conv2d(images(), None, 3, 1, scope="depthwise")
    return slim.conv2d(net, 5, 1, scope="pointwise")


@case
def dilated() -> Tensor:
    net = slim.conv2d(images(), 4, 3, rate=2, scope="conv1")
    return slim.separable_conv2d(net, None, 3, 1, rate=3, padding="VALID", scope="conv2")


@case
def dilated_by_space_to_batch() -> Tensor:
    """As TensorFlow before 1.12 spelled it, its paddings computed from the shape."""
    net = scoped_conv(images(), 4, "conv1")
    return _atrous(net, weights(3, 3, 4, 5, name="atrous/weights"), 2) + weights(5, name="atrous/biases")


@case
def dilated_by_space_to_batch_of_a_known_shape() -> Tensor:
    net = scoped_conv(images(side=15), 4, "conv1")
    return _atrous(net, weights(3, 3, 4, 5, name="atrous/weights"), 4)


def _atrous(net: Tensor, kernel: Tensor, rate: int) -> Tensor:
    base = np.array([[rate, rate]] * 2)
    known = net.shape.as_list()[1] is not None
    shape = np.array(net.shape.as_list()[1:3]) if known else tf.shape(net)[1:3]
    paddings, crops = tf.required_space_to_batch_paddings(shape, np.array([rate, rate]), base)
    net = tf.space_to_batch_nd(net, [rate, rate], paddings)
    return tf.raw_ops.BatchToSpaceND(
        input=tf.nn.conv2d(net, kernel, [1, 1, 1, 1], "VALID"), block_shape=[rate, rate], crops=crops
    )


@case
def dilated_transposed_convolution() -> Tensor:
    net = scoped_conv(images(), 4, "conv1")
    shape = tf.shape(net)
    size = tf.stack([shape[0], shape[1], shape[2], 5])
    net = tf.nn.atrous_conv2d_transpose(net, weights(3, 4, 5, 4, name="up/weights"), size, 3, "SAME")
    size = tf.stack([shape[0], shape[1] + 4, shape[2] + 4, 2])
    return tf.nn.atrous_conv2d_transpose(net, weights(3, 3, 2, 5, name="to/weights"), size, 2, "VALID")


@case
def explicit_pad() -> Tensor:
    net = tf.pad(images(), [[0, 0], [1, 2], [3, 0], [0, 0]])
    net = scoped_conv(net, 4, "conv1", padding="VALID", stride=2)
    return tf.nn.max_pool2d(tf.pad(net, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")


@case
def mirror_pad() -> Tensor:
    net = scoped_conv(tf.pad(images(), [[0, 0], [2, 2], [2, 2], [0, 0]], "REFLECT"), 4, "conv1", padding="VALID")
    return tf.pad(net, [[0, 0], [1, 0], [0, 1], [0, 0]], "SYMMETRIC")


@case
def not_square() -> Tensor:
    net = tf.placeholder(tf.float32, (None, 20, 49, 1), "audio")
    net = tf.nn.relu(tf.nn.conv2d(net, weights(8, 5, 1, 4, name="w"), [1, 2, 1, 1], "SAME"))
    return tf.nn.max_pool2d(net, [1, 3], [1, 2], "VALID")


@case
def depth_to_space_and_transpose() -> Tensor:
    net = tf.depth_to_space(scoped_conv(images(), 8, "conv1"), 2)
    return tf.transpose(tf.nn.bias_add(net, weights(2, name="b")), (0, 2, 1, 3))


@case
def space_to_depth() -> Tensor:
    return scoped_conv(tf.space_to_depth(images(side=12), 2), 3, "conv1")


@case
def reversed_channels_less_their_means() -> Tensor:
    net = tf.reverse(images(), [-1]) * 255.0 - tf.constant([103.9, 116.8, 123.7])
    return scoped_conv(net, 3, "conv1")


@case
def grayscale() -> Tensor:
    return scoped_conv(tf.image.rgb_to_grayscale(images()), 3, "conv1")


@case
def resized() -> Tensor:
    net = scoped_conv(tf.image.resize_bilinear(images(), [17, 19]), 4, "conv1", stride=2)
    net = tf.image.resize_nearest_neighbor(net, tf.shape(net)[1:3] * 2)
    return tf.image.resize_bilinear(scoped_conv(net, 3, "conv2"), [30, 31], align_corners=True)


@case
def split_stack_and_concat() -> Tensor:
    a, b = tf.split(scoped_conv(images(), 6, "conv1"), 2, axis=3)
    c, d, e = tf.split(a, [1, 1, 1], axis=-1)
    net = tf.concat([a * b, c, tf.maximum(d, e)], -1)
    return tf.add_n([net, net * 2.0, net / 3.0])


@case
def lrn_and_average_pool() -> Tensor:
    net = tf.nn.lrn(scoped_conv(images(), 8, "conv1"), 3, 2.0, 1e-2, 0.75)
    return tf.nn.avg_pool2d(net, 3, 2, "SAME")


@case
def global_pool_and_log_softmax() -> Tensor:
    net = tf.reduce_mean(scoped_conv(images(), 8, "conv1"), [1, 2])
    return tf.nn.log_softmax(tf.matmul(net, weights(8, 5, name="w")))


@case
def squeeze_and_excite() -> Tensor:
    net = slim.conv2d(images(), 8, 3, scope="conv1")
    gate = tf.reduce_mean(net, [1, 2], keepdims=True)
    gate = slim.conv2d(slim.conv2d(gate, 2, 1, scope="down"), 8, 1, activation_fn=tf.nn.sigmoid, scope="up")
    return net * gate


@case
def division_by_what_may_be_zero() -> Tensor:
    net = scoped_conv(images(), 4, "conv1")
    largest = tf.reduce_max(tf.nn.relu(net - 100.0), [1, 2, 3], keepdims=True)
    return tf.math.divide_no_nan(net, largest) + tf.math.divide_no_nan(net, tf.nn.relu(net))


@case
def whole_slices() -> Tensor:
    net = scoped_conv(images(), 4, "conv1")
    return net[..., 1:3] + net[:, :, :, ::2]


@case
def product_of_matrices_on_a_map() -> Tensor:
    """A fully connected layer on the last axis of a map, with its bias behind a reshape."""
    net = tf.tensordot(scoped_conv(images(), 4, "conv1"), weights(4, 6, name="dense/kernel"), [[3], [0]])
    return tf.nn.relu(tf.nn.bias_add(net, weights(6, name="dense/bias")))


@case
def l2_normalized() -> Tensor:
    net = tf.reduce_mean(scoped_conv(images(), 8, "conv1"), [1, 2])
    return tf.nn.l2_normalize(net, 1, epsilon=1e-10)


@case
def several_heads() -> dict[str, Tensor]:
    net = tf.nn.relu(scoped_conv(images(side=8), 8, "conv1", stride=2))
    scores = tf.nn.softmax(scoped_conv(net, 4, "scores", size=1))
    flat = tf.reshape(net, [-1, 4 * 4 * 8])
    age = tf.nn.sigmoid(tf.matmul(flat, weights(128, 1, name="age/w")) + weights(1, name="age/b"))
    return {"scores": scores, "boxes": scoped_conv(net, 6, "boxes"), "age": age}


# Kernels that the graph computes, and quantization.


@case
def kernels_that_are_parts_of_one() -> Tensor:
    """As where a convolution in groups was written out."""
    parts = tf.split(weights(3, 3, 2, 6, name="conv/weights"), 2, 3)
    halves = tf.split(scoped_conv(images(), 4, "conv1"), 2, 3)
    return tf.concat([tf.nn.conv2d(net, part, 1, "SAME") for net, part in zip(halves, parts, strict=True)], 3)


@case
def product_whose_last_axis_is_dropped() -> Tensor:
    """A layer behind a squeeze of the last axis, as capsules have it."""
    net = tf.reshape(scoped_conv(images(side=8), 6, "conv1", stride=2), [-1, 16, 6])
    net = tf.squeeze(tf.matmul(net, tf.reduce_mean(net, 1, keepdims=True), transpose_b=True), [2])
    return tf.matmul(net, weights(16, 5, name="fc/weights"))


@case
def image_of_unknown_rank_less_its_means() -> Tensor:
    net = tf.expand_dims(tf.placeholder(tf.float32, None, "image") - [123.7, 116.8, 103.9], 0)
    net = tf.image.resize_bilinear(net, [12, 10])
    return tf.nn.conv2d(net, weights(3, 3, 3, 4, name="conv1/weights"), 2, "SAME")


@case
def codes_of_a_codebook() -> Tensor:
    """The nearest of some vectors, and straight through, as a VQ-VAE has it."""
    net = scoped_conv(images(side=8), 4, "conv1")
    flat, codes = tf.reshape(net, [-1, 4]), weights(4, 7, name="codes")
    far = tf.reduce_sum(flat**2, 1, keepdims=True) + tf.reduce_sum(codes**2, 0) - 2.0 * tf.matmul(flat, codes)
    found = tf.matmul(tf.one_hot(tf.argmin(far, 1), 7), codes, transpose_b=True)
    return net + tf.stop_gradient(tf.reshape(found, tf.shape(net)) - net)


@case
def one_hot_of_a_column() -> Tensor:
    features = tf.placeholder(tf.float32, (None, 5), "features")
    kinds = tf.one_hot(tf.cast(tf.abs(features[:, 0]) * 3, tf.int32), 3, on_value=2.0, off_value=-1.0)
    return tf.matmul(tf.concat([features[:, 1:], kinds], 1), weights(7, 4, name="fc/weights"))


@case
def tied_weights() -> Tensor:
    """An autoencoder whose decoder has the encoder's matrix, transposed."""
    kernel = weights(6, 4, name="encoder/kernel")
    net = tf.nn.relu(tf.matmul(tf.placeholder(tf.float32, (None, 6), "data"), kernel) + weights(4, name="encoder/bias"))
    return tf.nn.sigmoid(tf.matmul(net, tf.transpose(kernel)) + weights(6, name="decoder/bias"))


@case
def variables_repeated_for_the_batch() -> Tensor:
    """Capsules: a matrix and zeros for each element of the batch."""
    net = tf.reshape(scoped_conv(images(side=8), 6, "conv1", stride=2), [-1, 16, 1, 6])
    count = tf.shape(net)[0]
    votes = tf.matmul(net, tf.tile(weights(1, 16, 6, 5, name="capsules/weights"), [count, 1, 1, 1]))
    shares = tf.nn.softmax(tf.zeros([count, 16, 1, 1]), 1)
    return tf.reduce_sum(votes * shares, [1, 2])


@case
def coordinates_as_channels() -> Tensor:
    net = images(side=8)
    places = tf.constant(np.linspace(-1, 1, 8, dtype=np.float32).reshape((1, 8, 1, 1)))
    net = tf.concat([net, tf.tile(places, [tf.shape(net)[0], 1, 8, 1])], 3)
    return scoped_conv(net, 4, "conv1")


@case
def first_moments_of_tensorflow() -> Tensor:
    """The variance as the mean of the squares, less the square of the mean; twice, without variables."""
    net = images()
    for scope, depth in (("conv1", 4), ("conv2", 5)):
        net = scoped_conv(net, depth, scope)
        mean = tf.reduce_mean(net, [1, 2], keepdims=True)
        variance = tf.reduce_mean(tf.square(net), [1, 2], keepdims=True) - tf.square(mean)
        net = tf.nn.relu((net - mean) * tf.rsqrt(variance + 1e-5))
    return net


@case
def transposes_of_two_orders() -> Tensor:
    left = tf.transpose(scoped_conv(images(side=8), 8, "conv1"), [0, 2, 1, 3])
    right = tf.transpose(scoped_conv(images(side=8, name="more"), 8, "conv2"), [0, 3, 1, 2])
    return tf.nn.relu(left * right)


@case
def computed_kernels() -> Tensor:
    """As with equalized learning rates."""
    net = tf.nn.conv2d(images(), weights(3, 3, 3, 4, name="conv/weight") * 0.25, [1, 2, 2, 1], "SAME")
    net = tf.nn.relu(tf.nn.bias_add(net, weights(4, name="conv/bias")))
    net = tf.nn.depthwise_conv2d(
        tf.pad(net, [[0, 0], [1, 0], [2, 1], [0, 0]]),
        weights(3, 3, 4, 2, name="deep/weight") * 2.0,
        [1, 1, 1, 1],
        "VALID",
    )
    return tf.matmul(tf.reduce_mean(net, [1, 2]), tf.nn.l2_normalize(weights(8, 3, name="dense/weight"), 0))


@case
def simulated_quantization() -> Tensor:
    quantized = tf.quantization.fake_quant_with_min_max_vars
    net = tf.quantization.fake_quant_with_min_max_args(images(), -1.0, 0.75)
    kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        weights(3, 3, 3, 4, name="conv/weights"), tf.constant([-1.0, -0.5, -0.7, -2]), tf.constant([1.0, 1.5, 0.3, 1])
    )
    net = tf.nn.relu(tf.nn.conv2d(net, kernel, [1, 1, 1, 1], "SAME") + weights(4, name="conv/biases"))
    net = tf.reduce_mean(quantized(net, tf.constant(0.0), tf.constant(2.7), narrow_range=True), [1, 2])
    kernel = quantized(weights(4, 5, name="dense/weights"), tf.constant(-1.1), tf.constant(0.9))
    return quantized(tf.matmul(net, kernel), tf.constant(-3.0), tf.constant(2.0))


# Dropout.


def _old_dropout(net: Tensor, keep_prob: Any) -> Tensor:
    random = tf.random_uniform(tf.shape(net))
    return tf.div(net, keep_prob) * tf.floor(keep_prob + random)


def _new_dropout(net: Tensor, keep_prob: Any) -> Tensor:
    rate = 1 - keep_prob
    scale = 1 / (1 - rate)
    return net * scale * tf.cast(tf.random_uniform(tf.shape(net)) >= rate, tf.float32)


def _dropout(function: Callable[[Tensor, Any], Tensor], setting: Callable[[], Any]) -> Callable[[], Tensor]:
    def build() -> Tensor:
        net = tf.nn.relu(scoped_conv(images(), 4, "conv1"))
        net = function(net, setting())
        net.set_shape((None, None, None, 4))
        return scoped_conv(net, 4, "conv2")

    return build


SETTINGS: dict[str, Callable[[], Any]] = {
    "constant": lambda: tf.constant(0.7),
    "placeholder": lambda: tf.placeholder(tf.float32, name="keep_prob"),
    "default": lambda: tf.placeholder_with_default(1.0, (), "keep_prob"),
}
CASES.update({f"old_dropout_{name}": _dropout(_old_dropout, setting) for name, setting in SETTINGS.items()})
CASES.update({f"new_dropout_{name}": _dropout(_new_dropout, setting) for name, setting in SETTINGS.items()})
CASES["tf_dropout"] = _dropout(lambda net, keep: tf.nn.dropout(net, rate=1 - keep), lambda: 0.7)


@case
def dropout_between_convolution_and_bias() -> Tensor:
    return tf.nn.relu(tf.nn.bias_add(_old_dropout(conv(images(), 4), tf.constant(0.5)), weights(4, name="b")))


@case
def dropout_behind_a_cond() -> Tensor:
    training = tf.placeholder(tf.bool, (), "is_training")
    return slim.dropout(scoped_conv(images(), 4, "conv1"), 0.6, is_training=training)


# NCHW.


@case
def channels_first() -> Tensor:
    net = tf.placeholder(tf.float32, (None, 3, 21, 22), "images") * 2.0 - 1.0
    net = tf.nn.conv2d(net, weights(3, 3, 3, 4, name="conv1/w"), [1, 1, 2, 2], "SAME", data_format="NCHW")
    net = tf.nn.relu(tf.nn.bias_add(net, weights(4, name="conv1/b"), data_format="NCHW"))
    net = tf.nn.max_pool2d(net, [1, 1, 2, 2], [1, 1, 2, 2], "VALID", data_format="NCHW")
    net = tf.concat([net, net * tf.reshape(weights(4, name="gamma"), (1, 4, 1, 1))], 1)
    net = tf.reshape(net, [-1, 8 * 5 * 5])
    return tf.matmul(net, weights(200, 3, name="fc/w"))


@case
def channels_first_on_every_op() -> Tensor:
    first = {"data_format": "NCHW"}
    net = tf.placeholder(tf.float32, (None, 3, 20, 22), "images")
    net = tf.nn.conv2d(net, weights(3, 3, 3, 4, name="conv1/w"), [1, 1, 1, 1], "VALID", **first)
    net = slim.batch_norm(net, is_training=False, scale=True, scope="conv1/BatchNorm", **first)
    net = tf.nn.depthwise_conv2d(net, weights(3, 3, 4, 2, name="deep/w"), [1, 1, 2, 2], "SAME", **first)
    net = tf.nn.avg_pool2d(tf.nn.bias_add(net, weights(8, name="deep/b"), **first), 2, 1, "SAME", **first)
    shape = tf.stack([tf.shape(net)[0], 5, 18, 20])
    net = tf.nn.conv2d_transpose(net, weights(3, 3, 5, 8, name="up/w"), shape, [1, 1, 2, 2], "SAME", **first)
    return tf.nn.max_pool2d(tf.pad(net, [[0, 0], [0, 0], [1, 1], [1, 1]]), 3, 2, "VALID", **first)


@case
def channels_first_map() -> Tensor:
    net = tf.placeholder(tf.float32, (None, 3, 21, 22), "images")
    net = tf.nn.conv2d(net, weights(3, 3, 3, 4, name="conv1/w"), [1, 1, 1, 1], "SAME", data_format="NCHW")
    gate = tf.nn.sigmoid(tf.matmul(tf.reduce_mean(net, [2, 3]), weights(4, 4, name="gate")))
    return tf.nn.elu(net * tf.reshape(gate, [-1, 4, 1, 1]))


def test_a_mean_that_is_a_sum_over_a_computed_count_is_known(tmp_path: Path) -> None:
    user = read_network(written("moments_of_a_computed_count", tmp_path).path)
    assert [node.op for node in user.graph.nodes] == ["input", "conv2d", "instance_norm"]


def test_first_moments_are_an_instance_norm(tmp_path: Path) -> None:
    user = read_network(written("first_moments_of_tensorflow", tmp_path).path)
    assert [node.op for node in user.graph.nodes] == ["input", *["conv2d", "instance_norm"] * 2]


def test_tied_weights_are_one_variable(tmp_path: Path) -> None:
    user = read_network(written("tied_weights", tmp_path).path)
    assert {source.name for source in user.sources.values()} == {"encoder/kernel", "encoder/bias", "decoder/bias"}
    assert len(user.graph.variables) == 3


def test_simulated_quantization_is_kept_and_told(tmp_path: Path) -> None:
    user = read_network(written("simulated_quantization", tmp_path).path)
    assert "the graph simulates quantization, which stays in the network" in user.notes


@pytest.mark.parametrize("name", ["batch_in_placeholder_and_reshape", "batch_in_a_transposed_convolution"])
def test_a_batch_that_is_written_into_the_graph_is_free(name: str, tmp_path: Path) -> None:
    made = written(name, tmp_path)
    user = read_network(made.path)
    assert max(user_graphs.errors(user, made.weights, [1, 5], free_batch=True).values()) <= user_graphs.LIMIT
    assert user.graph.nodes[0].attributes["shape"][0] is None


@pytest.mark.parametrize("name", CASES)
def test_an_idiom_is_what_tensorflow_computes_at_any_batch(name: str, tmp_path: Path) -> None:
    batch = 4 if name == "batch_in_a_transposed_convolution" else 2
    assert_equal(written(name, tmp_path), (batch, 3), keras=name not in IN_PYTORCH_ALONE)


@pytest.mark.parametrize("form", ["meta", "frozen"])
@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_of_switch_and_merge_takes_evaluations_side(name: str, form: str, tmp_path: Path) -> None:
    with user_graphs.first_control_flow():
        made = written(name, tmp_path, form)
    assert {"Switch", "Merge"} <= {node.op for node in open_graph(made.path).graph.nodes.values()}
    user = assert_equal(made, (2,), keras=False)
    assert not {"dropout", "matmul"} & {node.op for node in user.graph.nodes}


def test_statistics_may_be_behind_a_switch_of_references(tmp_path: Path) -> None:
    with user_graphs.first_control_flow():
        made = written("statistics_behind_a_cond", tmp_path)
    meta = tf.MetaGraphDef.FromString(made.path.read_bytes())
    switches = [node for node in meta.graph_def.node if node.op == "Switch" and node.input[0].endswith("/read")]
    assert len(switches) == 2
    for node in switches:
        node.op, node.input[0] = "RefSwitch", node.input[0].removesuffix("/read")
    made.path.write_bytes(meta.SerializeToString())
    assert_equal(made, (2,), keras=False)


@pytest.mark.parametrize("form", ["meta", "frozen"])
@pytest.mark.parametrize("name", ["old_dropout_constant", "new_dropout_constant", "tf_dropout", "old_dropout_default"])
def test_dropout_is_recognised_and_never_run(name: str, form: str, tmp_path: Path) -> None:
    """Run at keep_prob 1, `floor(1 + random)` is 2 once in 2 ** 24; in a frozen graph nothing can switch it off."""
    user = read_network(written(name, tmp_path, form).path)
    ops = [node.op for node in user.graph.nodes if node.op != "dropout"]
    assert ops == ["input", "conv2d", "conv2d"]


@pytest.mark.parametrize("form", ["frozen", "saved_model"])
@pytest.mark.parametrize("name", WHERE_CONSTANTS_MATTER)
def test_an_idiom_with_constants_for_variables_is_the_same(name: str, form: str, tmp_path: Path) -> None:
    assert_equal(written(name, tmp_path, form), (2,), keras=False)
