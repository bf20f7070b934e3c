"""tf_slim 1.1.0 runs on TensorFlow 2: every public function of its layers, training and variables is called and run.

A case calls one function in a new graph, and says what the result should be: what NumPy computes, or a condition.
Importing `slimport.nets` repairs tf_slim; the last test is of what it does not repair.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
from conftest import random_images, tf_session

from converters import frameworks

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf
import tf_slim as slim
from tensorflow.python.eager import context
from tf_slim.layers import optimizers

from slimport.nets import repair

Case = Callable[[Any], tuple[Any, Any]]

IMAGES = random_images((2, 6, 6, 4))
VOLUMES = random_images((2, 3, 3, 3, 4))
SERIES = random_images((2, 6, 4))
ROWS = random_images((2, 4))
# Kernels of ones make convolutions and fully connected layers sums.
SUM: dict[str, Any] = {"weights_initializer": tf.ones_initializer(), "activation_fn": None, "scope": "net"}
WHOLE: dict[str, Any] = {**SUM, "padding": "VALID"}


def summed(array: Any, depth: int, *axes: int) -> Any:
    """What a kernel of ones makes of an array: its sum over `axes` and the channels, `depth` times."""
    return np.repeat(array.sum((*axes, -1), keepdims=True), depth, -1)


def normalized(array: Any, *axes: int, epsilon: float) -> Any:
    mean, variance = array.mean(axes, keepdims=True), array.var(axes, keepdims=True)
    return (array - mean) / np.sqrt(variance + epsilon)


def windows(array: Any) -> Any:
    """Images by 2x2 windows: the windows' rows and columns are axes 2 and 4."""
    batch, height, width, depth = array.shape
    return array.reshape(batch, height // 2, 2, width // 2, 2, depth)


def softmax(array: Any) -> Any:
    return np.exp(array) / np.exp(array).sum(-1, keepdims=True)


def has_shape(*shape: int) -> Callable[[Any], bool]:
    return lambda value: value.shape == shape


def tags(*expected: str) -> Callable[[Any], bool]:
    """Whether serialized summaries have these tags."""

    def have(values: Any) -> bool:
        summaries = [tf.Summary.FromString(value) for value in tf.nest.flatten(values)]
        return [value.tag for summary in summaries for value in summary.value] == [*expected]

    return have


def summaries_of_a_layer(expected: str, *arguments: Any) -> Case:
    """Summaries of the collections that a layer is in."""

    def case(f: Any) -> tuple[Any, Any]:
        slim.legacy_fully_connected(tf.constant(ROWS), 3, tf.nn.relu, name="net")
        return f(*arguments), tags(*expected.split())

    return case


def convolution_1d(f: Any) -> tuple[Any, Any]:
    return f(SERIES, 5, 6, **WHOLE), summed(SERIES, 5, 1)


def convolution_2d(f: Any) -> tuple[Any, Any]:
    return f(IMAGES, 5, [6, 6], **WHOLE), summed(IMAGES, 5, 1, 2)


def convolution_3d(f: Any) -> tuple[Any, Any]:
    return f(VOLUMES, 5, 3, **WHOLE), summed(VOLUMES, 5, 1, 2, 3)


def transposed_2d(f: Any) -> tuple[Any, Any]:
    return f(IMAGES, 5, 2, 2, **SUM), summed(IMAGES, 5).repeat(2, 1).repeat(2, 2)


def transposed_3d(f: Any) -> tuple[Any, Any]:
    return f(VOLUMES, 5, 2, 2, **SUM), summed(VOLUMES, 5).repeat(2, 1).repeat(2, 2).repeat(2, 3)


def in_plane(f: Any) -> tuple[Any, Any]:
    return f(tf.constant(IMAGES), [6, 6], **WHOLE), IMAGES.sum((1, 2), keepdims=True)


def separable(f: Any) -> tuple[Any, Any]:
    return f(IMAGES, 5, 6, **WHOLE), summed(IMAGES, 5, 1, 2)


def sums(activation: Callable[[Any], Any]) -> Case:
    """A fully connected layer of this activation."""
    return lambda f: (f(ROWS, 3, weights_initializer=tf.ones_initializer()), activation(summed(ROWS, 3)))


def legacy_sums(activation: Callable[[Any], Any]) -> Case:
    return lambda f: (f(SERIES, 3, weight_init=tf.ones_initializer()), activation(summed(SERIES, 3)))


def relu(array: Any) -> Any:
    return np.maximum(array, 0)


def scaled_gradient(f: Any) -> tuple[Any, Any]:
    rows = tf.constant(ROWS)
    return tf.gradients(f(rows, tf.constant(3.0)), rows)[0], np.full(ROWS.shape, 3)


LAYERS: dict[str, Case] = {
    "GDN": lambda f: (f(inverse=True)(tf.constant(IMAGES)), IMAGES * np.sqrt(1 + 0.1 * IMAGES**2)),
    "avg_pool2d": lambda f: (f(IMAGES, 2), windows(IMAGES).mean((2, 4))),
    "avg_pool3d": lambda f: (f(VOLUMES, 3), VOLUMES.mean((1, 2, 3), keepdims=True)),
    "batch_norm": lambda f: (f(IMAGES), normalized(IMAGES, 0, 1, 2, epsilon=0.001)),
    "bias_add": lambda f: (f(IMAGES, initializer=tf.constant_initializer(2.0)), IMAGES + 2),
    "conv1d": convolution_1d,
    "conv2d": convolution_2d,
    "conv2d_in_plane": in_plane,
    "conv2d_transpose": transposed_2d,
    "conv3d": convolution_3d,
    "conv3d_transpose": transposed_3d,
    "convolution": convolution_2d,
    "convolution1d": convolution_1d,
    "convolution2d": convolution_2d,
    "convolution2d_in_plane": in_plane,
    "convolution2d_transpose": transposed_2d,
    "convolution3d": convolution_3d,
    "convolution3d_transpose": transposed_3d,
    "dense_to_sparse": lambda f: (f(tf.constant([[1, 0], [2, 3]])).values, np.array([1, 2, 3])),
    "dropout": lambda f: (f(IMAGES), lambda net: np.all((net == 0) | (net == 2 * IMAGES)) and np.any(net == 0)),
    "elu": sums(lambda array: np.where(array > 0, array, np.expm1(array))),
    "flatten": lambda f: (f(IMAGES), IMAGES.reshape(2, -1)),
    "fully_connected": sums(relu),
    "gdn": lambda f: (f(tf.constant(IMAGES)), IMAGES / np.sqrt(1 + 0.1 * IMAGES**2)),
    "images_to_sequence": lambda f: (f(IMAGES), IMAGES.transpose(2, 0, 1, 3).reshape(6, 12, 4)),
    "layer_norm": lambda f: (f(IMAGES), normalized(IMAGES, 1, 2, 3, epsilon=1e-12)),
    "legacy_fully_connected": legacy_sums(lambda array: array),
    "legacy_linear": legacy_sums(lambda array: array),
    "legacy_relu": legacy_sums(relu),
    "linear": sums(lambda array: array),
    "max_pool2d": lambda f: (f(IMAGES, 2), windows(IMAGES).max((2, 4))),
    "max_pool3d": lambda f: (f(VOLUMES, 3), VOLUMES.max((1, 2, 3), keepdims=True)),
    "maxout": lambda f: (f(IMAGES, 2), IMAGES.reshape(2, 6, 6, 2, 2).max(-1)),
    "one_hot_encoding": lambda f: (f([0, 2], 3), np.eye(3)[[0, 2]]),
    "poincare_normalize": lambda f: (f(3 * np.eye(4)), (1 - 1e-5) * np.eye(4)),
    "pool": lambda f: (f(IMAGES, [2, 2], "AVG", stride=2), windows(IMAGES).mean((2, 4))),
    "relu": sums(relu),
    "relu6": sums(lambda array: np.clip(array, 0, 6)),
    "repeat": lambda f: (f(IMAGES, 2, slim.conv2d, 5, 3), has_shape(2, 6, 6, 5)),
    "scale_gradient": scaled_gradient,
    "separable_conv2d": separable,
    "separable_convolution2d": separable,
    "sequence_to_images": lambda f: (f(slim.images_to_sequence(IMAGES), 6), IMAGES),
    "softmax": lambda f: (f(tf.constant(ROWS)), softmax(ROWS)),
    "spatial_softmax": lambda f: (f(tf.zeros(IMAGES.shape)), np.zeros((2, 8))),
    "stack": lambda f: (f(ROWS, slim.fully_connected, [3, 2]), has_shape(2, 2)),
    "unit_norm": lambda f: (f(tf.constant(ROWS), 1), ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)),
}

NORMALIZATION: dict[str, Case] = {
    "group_norm": lambda f: (
        f(IMAGES, groups=2),
        normalized(IMAGES.reshape(2, 6, 6, 2, 2), 1, 2, 4, epsilon=1e-6).reshape(IMAGES.shape),
    ),
    "instance_norm": lambda f: (f(IMAGES), normalized(IMAGES, 1, 2, epsilon=1e-6)),
}

INITIALIZERS: dict[str, Case] = {
    "variance_scaling_initializer": lambda f: (f(uniform=True)((6, 4)), lambda kernel: np.abs(kernel).max() <= 1),
    "xavier_initializer": lambda f: (f()((4, 2)), lambda kernel: np.abs(kernel).max() <= 1),
    "xavier_initializer_conv2d": lambda f: (f()((3, 3, 4, 2)), has_shape(3, 3, 4, 2)),
}

REGULARIZERS: dict[str, Case] = {
    "apply_regularization": lambda f: (f(slim.l2_regularizer(0.5), [tf.constant(ROWS)]), 0.25 * (ROWS**2).sum()),
    "l1_l2_regularizer": lambda f: (f(2.0, 0.5)(tf.constant(ROWS)), (2 * np.abs(ROWS) + 0.25 * ROWS**2).sum()),
    "l1_regularizer": lambda f: (f(2.0)(tf.constant(ROWS)), 2 * np.abs(ROWS).sum()),
    "l2_regularizer": lambda f: (f(0.5)(tf.constant(ROWS)), 0.25 * (ROWS**2).sum()),
    "sum_regularizer": lambda f: (f([slim.l1_regularizer(2.0)] * 2)(tf.constant(ROWS)), 4 * np.abs(ROWS).sum()),
}


def recomputed(f: Any) -> tuple[Any, Any]:
    rows = tf.constant(ROWS)
    return tf.gradients(f(lambda x: tf.square(x))(rows), rows)[0], 2 * ROWS


REVERSIBLE: dict[str, Case] = {
    "RevBlock": lambda f: (
        (block := f(tf.tanh, tf.sin, num_layers=2)).backward(*block.forward(tf.constant(ROWS), tf.constant(ROWS))),
        [ROWS, ROWS],
    ),
    "enable_with_args": lambda f: (f(lambda function, times: lambda x: times * function(x))(times=3)(abs)(-1), 3),
    "recompute_grad": recomputed,
    "rev_block": lambda f: (
        f(tf.constant(ROWS), tf.constant(ROWS), tf.tanh, tf.sin),
        [ROWS + np.tanh(ROWS), ROWS + np.sin(ROWS + np.tanh(ROWS))],
    ),
}

SUMMARIES: dict[str, Case] = {
    "summarize_activation": lambda f: (f(tf.nn.relu(ROWS, name="net")), tags("net/activation")),
    "summarize_activations": summaries_of_a_layer("net/Relu/activation"),
    "summarize_biases": summaries_of_a_layer("net/bias_summary"),
    "summarize_collection": summaries_of_a_layer("net/weights_summary", tf.GraphKeys.WEIGHTS),
    "summarize_tensor": lambda f: (f(tf.constant(3.0), "net"), tags("net")),
    "summarize_tensors": lambda f: (
        f([tf.constant(3.0, name="a"), tf.constant(ROWS, name="b")]),
        tags("a_summary", "b_summary"),
    ),
    "summarize_variables": summaries_of_a_layer("net/weights_summary net/bias_summary"),
    "summarize_weights": summaries_of_a_layer("net/weights_summary"),
}

SPARSE: dict[str, Case] = {
    "dense_to_sparse_tensor": lambda f: (f(tf.constant([[1, 0], [2, 3]])).values, np.array([1, 2, 3])),
    "indicators_to_sparse_ids": lambda f: (f(tf.constant([[0, 1], [1, 1]])).values, np.array([1, 0, 1])),
    "sparse_row_envelope": lambda f: (f(tf.sparse.from_dense([[1, 0], [0, 1], [0, 0]])), np.array([1, 2, 0])),
}


def collected(f: Any) -> tuple[Any, Any]:
    tf.add_to_collection("nets", tf.constant(1, name="net"))
    return f("nets"), {"net": 1}


def conditional(f: Any) -> tuple[Any, Any]:
    """The condition is a tensor that has no constant value."""
    unknown = tf.placeholder_with_default(True, ())
    return f(unknown, lambda: tf.constant(1), lambda: tf.constant(2)), 1


UTILS: dict[str, Case] = {
    "NamedOutputs": lambda f: (f("net", 1).name, "net"),
    "append_tensor_alias": lambda f: (f(tf.constant(0), "net/").aliases, ["net"]),
    "channel_dimension": lambda f: (f(tf.TensorShape((1, 2, 3)), "channels_first"), 2),
    "collect_named_outputs": lambda f: (f("nets", "net", tf.constant(ROWS)), ROWS),
    "constant_value": lambda f: (f(tf.constant(3)), 3),
    "convert_collection_to_dict": collected,
    "gather_tensors_aliases": lambda f: (f([tf.constant(0, name="net")]), ["net"]),
    "get_tensor_aliases": lambda f: (f(tf.constant(0, name="net")), ["net"]),
    "get_variable_collections": lambda f: (f({"weights": ["kernels"]}, "weights"), ["kernels"]),
    "last_dimension": lambda f: (f(tf.TensorShape((1, 2, 3))), 3),
    "n_positive_integers": lambda f: (f(3, 2), (2, 2, 2)),
    "smart_cond": conditional,
    "static_cond": lambda f: (f(False, lambda: 1, lambda: 2), 2),
    "two_element_tuple": lambda f: (f(3), (3, 3)),
}


class Net:
    """A model variable in a checkpoint, in the graph with another value."""

    def __init__(self, folder: str) -> None:
        self.variable = slim.model_variable("net/weights", (2,), initializer=tf.ones_initializer())
        self.session = tf.get_default_session()
        self.session.run(tf.global_variables_initializer())
        self.path = tf.train.Saver([self.variable]).save(self.session, f"{folder}/net")
        self.session.run(self.variable.assign([5.0, 5.0]))

    def value(self) -> Any:
        return self.session.run(self.variable)


def restored(f: Any) -> tuple[Any, Any]:
    with tempfile.TemporaryDirectory() as folder:
        net = Net(folder)
        assign, values = f(net.path, [net.variable])
        net.session.run(assign, values)
        return net.value(), np.ones(2)


def restored_by_function(f: Any) -> tuple[Any, Any]:
    with tempfile.TemporaryDirectory() as folder:
        net = Net(folder)
        f(net.path, [net.variable])(net.session)
        return net.value(), np.ones(2)


def assigned(f: Any) -> tuple[Any, Any]:
    with tempfile.TemporaryDirectory() as folder:
        net = Net(folder)
        assign, values = f({"net/weights": np.array([2, 3])})
        net.session.run(assign, values)
        return net.value(), np.array([2, 3])


def assigned_by_function(f: Any) -> tuple[Any, Any]:
    with tempfile.TemporaryDirectory() as folder:
        net = Net(folder)
        f({"net/weights": np.array([2, 3])})(net.session)
        return net.value(), np.array([2, 3])


def lookup(*arguments: Any, **options: Any) -> Case:
    """One of the functions that find a variable."""

    def case(f: Any) -> tuple[Any, Any]:
        variable = slim.model_variable("net/weights", (2,))
        found = f(*arguments, **options)
        return (found[0] if isinstance(found, list) else found) is variable, True

    return case


def added(f: Any) -> tuple[Any, Any]:
    variable = tf.Variable(1.0)
    f(variable)
    return slim.get_model_variables()[0] is variable, True


def local_variables(f: Any) -> tuple[Any, Any]:
    variable = slim.local_variable(1.0)
    return f()[0] is variable, True


def steps(f: Any) -> tuple[Any, Any]:
    step = tf.train.create_global_step()
    return f() is step, True


VARIABLES: dict[str, Case] = {
    "VariableDeviceChooser": lambda f: (f(2)(tf.constant(0).op), "/job:ps/task:0/device:CPU:0"),
    "add_model_variable": added,
    "assert_global_step": lambda f: (f(tf.train.create_global_step()), None),
    "assert_or_get_global_step": steps,
    "assign_from_checkpoint": restored,
    "assign_from_checkpoint_fn": restored_by_function,
    "assign_from_values": assigned,
    "assign_from_values_fn": assigned_by_function,
    "create_global_step": lambda f: (f() is tf.train.get_global_step(), True),
    "filter_variables": lambda f: (f([tf.Variable(1.0, name="a"), tf.Variable(2.0, name="b")], ["b"])[0], 2),
    "get_global_step": steps,
    "get_local_variables": local_variables,
    "get_model_variables": lookup("net"),
    "get_or_create_global_step": steps,
    "get_trainable_variables": lookup("net"),
    "get_unique_variable": lookup("net/weights"),
    "get_variable_full_name": lambda f: (f(slim.model_variable("net", ())), "net"),
    "get_variables": lookup("net"),
    "get_variables_by_name": lookup("weights"),
    "get_variables_by_suffix": lookup("ts"),
    "get_variables_to_restore": lookup(include=["net"]),
    "global_variable": lambda f: (f(2.0), 2),
    "local_variable": lambda f: (f(2.0), 2),
    "model_variable": lambda f: (f("net", (2,), initializer=tf.ones_initializer()), np.ones(2)),
    "variable": lambda f: (f("net", (2,), initializer=tf.ones_initializer()), np.ones(2)),
}

# Of a loss w^2 / 2 with w = 10, so that a step with a learning rate of 0.1 makes w 9; and of one of its rows.
START = 10.0


def loss_of_a_weight() -> Any:
    return tf.square(tf.get_variable("w", (), initializer=tf.constant_initializer(START))) / 2


def loss_of_a_row() -> Any:
    """Its gradient is sparse: that of the second of two rows."""
    table = tf.get_variable("w", (2, 1), initializer=tf.constant_initializer(START))
    return tf.reduce_sum(tf.square(tf.nn.embedding_lookup(table, [1]))) / 2


def optimized(train: Any, *more: Any) -> Any:
    """The weight after one step of training, and the values of other tensors."""
    session = tf.get_default_session()
    session.run(tf.global_variables_initializer())
    session.run(train)
    return session.run([tf.global_variables("w")[0], *more])


def gradients() -> tuple[Any, Any, Any]:
    """A dense gradient, a sparse one and none, with their variables."""
    dense, sparse, unused = (tf.get_variable(name, (2, 1), initializer=tf.ones_initializer()) for name in "abc")
    loss = 3 * tf.reduce_sum(dense) + 3 * tf.reduce_sum(tf.gather(sparse, [1]))
    return tuple(zip(tf.gradients(loss, [dense, sparse, unused]), (dense, sparse, unused), strict=True))  # type: ignore[return-value]


def clipped(f: Any) -> tuple[Any, Any]:
    (dense, _), (sparse, _), (none, _) = f(gradients(), 1.0)
    assert none is None
    return [dense, sparse.values], [np.full((2, 1), 0.5**0.5), np.ones((1, 1))]


def multiplied(f: Any) -> tuple[Any, Any]:
    (dense, _), (sparse, _), _ = f([*gradients()], {"a": 2.0, "b": tf.constant(4.0)})
    return [dense, sparse.values], [np.full((2, 1), 6), np.full((1, 1), 12)]


def trained(f: Any) -> tuple[Any, Any]:
    """Three steps under a Supervisor, which writes checkpoints, summaries and traces."""
    train = slim.learning.create_train_op(loss_of_a_weight(), tf.train.GradientDescentOptimizer(0.1))
    tf.summary.scalar("net", tf.constant(1.0))
    # As after `tf.disable_eager_execution()`, for the Supervisor's threads.
    graph_mode = mock.patch.object(context, "default_execution_mode", context.GRAPH_MODE)
    with tempfile.TemporaryDirectory() as folder, graph_mode:
        loss = f(train, folder, number_of_steps=3, save_summaries_secs=0.01, trace_every_n_steps=2)
        names = [path.name for path in Path(folder).iterdir()]
        assert tf.train.latest_checkpoint(folder) == f"{folder}/model.ckpt-3"
        assert tf.train.load_variable(folder, "w") == pytest.approx(START * 0.9**3)
    assert any(name.startswith("tf_trace") for name in names)
    assert any("tfevents" in name for name in names)
    return loss, (START * 0.9**2) ** 2 / 2


def step_of_training(f: Any) -> tuple[Any, Any]:
    train = slim.learning.create_train_op(loss_of_a_weight(), tf.train.GradientDescentOptimizer(0.1))
    session = tf.get_default_session()
    session.run(tf.global_variables_initializer())
    stop = {"should_stop": tf.constant(True), "should_log": tf.constant(True)}
    return f(session, train, tf.train.get_global_step(), stop), (START**2 / 2, True)


LEARNING: dict[str, Case] = {
    "add_gradients_summaries": lambda f: (
        f(gradients()),
        tags("a/gradient", "a/gradient_norm", "b/gradient", "b/gradient_norm"),
    ),
    "clip_gradient_norms": clipped,
    "create_train_op": lambda f: (optimized(f(loss_of_a_weight(), tf.train.GradientDescentOptimizer(0.1))), [9]),
    "multiply_gradients": multiplied,
    "train": trained,
    "train_step": step_of_training,
}

OPTIMIZERS: dict[str, Case] = {
    "adaptive_clipping_fn": lambda f: (f(static_max_norm=1.0)(gradients()[:1])[0][0], np.full((2, 1), 0.5**0.5)),
    "optimize_loss": lambda f: (optimized(f(loss_of_a_weight(), None, 0.1, "SGD")), [9]),
}

CASES: dict[str, dict[str, Case]] = {
    "layers.bucketization_op": {"bucketize": lambda f: (f([-5, 5, 15], [0, 10]), np.array([0, 1, 2]))},
    "layers.initializers": INITIALIZERS,
    "layers.layers": LAYERS,
    "layers.normalization": NORMALIZATION,
    "layers.optimizers": OPTIMIZERS,
    "layers.regularizers": REGULARIZERS,
    "layers.rev_block_lib": REVERSIBLE,
    "layers.sparse_ops": SPARSE,
    "layers.summaries": SUMMARIES,
    "layers.utils": UTILS,
    "learning": LEARNING,
    "ops.variables": VARIABLES,
}


LAYERS_THAT_TRAIN = ("layers.layers", "layers.normalization")


def tf_slims(module: str) -> ModuleType:
    return importlib.import_module(f"tf_slim.{module}")


def public(module: ModuleType) -> set[str]:
    """What a module exports, and what it defines under a public name."""
    defined = {n for n, value in vars(module).items() if callable(value) and value.__module__ == module.__name__}
    return {*getattr(module, "__all__", ()), *(name for name in defined if not name.startswith("_"))}


@pytest.mark.parametrize("module", CASES)
def test_every_public_function_has_a_case(module: str) -> None:
    assert public(tf_slims(module)) == CASES[module].keys()


def test_every_module_of_the_layers_has_cases() -> None:
    names = [module.__name__ for module in vars(tf_slims("layers")).values() if isinstance(module, ModuleType)]
    layers = {name.removeprefix("tf_slim.") for name in names if name.startswith("tf_slim.layers.")}
    assert layers == {module for module in CASES if module.startswith("layers.")}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, cases in CASES.items() for name in cases])
def test_a_public_function_runs(module: str, name: str) -> None:
    run(CASES[module][name], getattr(tf_slims(module), name), trains=module in LAYERS_THAT_TRAIN)


def run(case: Case, function: Any, *, trains: bool = False) -> None:
    """Runs what a case builds, and compares it with what the case expects.

    Args:
      case: of the function.
      function: the function.
      trains: whether there is a gradient for every variable, which is then run, too.
    """
    with tf.Graph().as_default(), tf_session().as_default() as session:
        tf.set_random_seed(0)
        values, expected = case(function)
        tensors = [value for value in tf.nest.flatten(values) if tf.is_tensor(value)]
        if tensors:
            variables = tf.trainable_variables() if trains else []
            gradients = tf.gradients(tensors, variables) if variables else []
            session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
            values, slopes = session.run([values, gradients])
            assert all(np.isfinite(slope).all() for slope in slopes)
    if callable(expected):
        assert expected(values)
        return
    for value, wanted in zip(tf.nest.flatten(values), tf.nest.flatten(expected), strict=True):
        if isinstance(wanted, str | bool | None):
            assert value == wanted
        else:
            np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)


# The ways through `batch_norm`: TensorFlow's layer, the fused function, and tf_slim's own.
BATCH_NORM_OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "activation": lambda: {"activation_fn": tf.nn.relu},
    "adjustment": lambda: {"adjustment": lambda shape: (tf.ones(shape[-1:]), tf.zeros(shape[-1:]))},
    "batch weights": lambda: {"batch_weights": [1.0, 2.0]},
    "collections": lambda: {"variables_collections": {"gamma": ["nets"]}, "outputs_collections": "nets"},
    "initializers": lambda: {"param_initializers": {"beta": tf.ones_initializer()}},
    "not fused": lambda: {"fused": False},
    "more": lambda: {"decay": 0.9, "epsilon": 1e-5, "reuse": False, "scope": "net", "trainable": False},
    "not fused, channels first": lambda: {"fused": False, "data_format": "NCHW", "updates_collections": None},
    "not fused, updates in place": lambda: {"fused": False, "updates_collections": None},
    "regularizers": lambda: {"param_regularizers": {"beta": slim.l2_regularizer(0.5)}},
    "renorm": lambda: {"renorm": True, "renorm_clipping": {"rmax": 3.0}, "renorm_decay": 0.9},
    "scale, no center": lambda: {"scale": True, "center": False},
    "tensor of training": lambda: {"is_training": tf.placeholder_with_default(True, ())},
    "tensor of training, updates in place": lambda: {
        "is_training": tf.placeholder_with_default(False, ()),
        "updates_collections": None,
    },
    "updates in place": lambda: {"updates_collections": None},
    "zero debias": lambda: {"zero_debias_moving_mean": True, "updates_collections": None},
}


@pytest.mark.parametrize("inputs", [ROWS, IMAGES], ids=["rows", "images"])
@pytest.mark.parametrize("option", BATCH_NORM_OPTIONS)
def test_batch_norm_runs_with_every_option(option: str, inputs: Any) -> None:
    def case(f: Any) -> tuple[Any, Any]:
        return f(inputs, **BATCH_NORM_OPTIONS[option]()), has_shape(*inputs.shape)

    run(case, slim.batch_norm, trains=True)


def test_batch_norm_updates_the_moving_averages_in_place() -> None:
    def case(f: Any) -> tuple[Any, Any]:
        with tf.control_dependencies([f(IMAGES, decay=0.75, updates_collections=None)]):
            moving_mean, moving_variance = (
                slim.get_variables_by_name(f"moving_{name}")[0] for name in ("mean", "variance")
            )
            expected = [0.25 * IMAGES.mean((0, 1, 2)), 0.75 + 0.25 * IMAGES.var((0, 1, 2)) * 72 / 71]
            return [moving_mean.read_value(), moving_variance.read_value()], expected

    run(case, slim.batch_norm)


LAYER_OPTIONS: dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]] = {
    "atrous": (slim.conv2d, lambda: {"num_outputs": 5, "kernel_size": 3, "rate": 2}),
    "collections": (
        slim.conv2d,
        lambda: {"num_outputs": 5, "kernel_size": 3, "variables_collections": ["a"], "outputs_collections": "b"},
    ),
    "depthwise": (slim.separable_conv2d, lambda: {"num_outputs": None, "kernel_size": 3, "stride": 2}),
    "depthwise atrous": (slim.separable_conv2d, lambda: {"num_outputs": 5, "kernel_size": 3, "rate": 2}),
    "layer_norm": (slim.fully_connected, lambda: {"num_outputs": 5, "normalizer_fn": slim.layer_norm}),
    "no biases": (slim.conv2d, lambda: {"num_outputs": 5, "kernel_size": 3, "biases_initializer": None}),
    "normalized": (slim.conv2d, lambda: {"num_outputs": 5, "kernel_size": 3, "normalizer_fn": slim.batch_norm}),
    "normalized depthwise": (
        slim.separable_conv2d,
        lambda: {"num_outputs": 5, "kernel_size": 3, "normalizer_fn": slim.batch_norm},
    ),
    "normalized fully connected": (
        slim.fully_connected,
        lambda: {"num_outputs": 5, "normalizer_fn": slim.batch_norm, "normalizer_params": {"scale": True}},
    ),
    "normalized in plane": (slim.conv2d_in_plane, lambda: {"kernel_size": 3, "normalizer_fn": slim.batch_norm}),
    "normalized transpose": (
        slim.conv2d_transpose,
        lambda: {"num_outputs": 5, "kernel_size": 3, "stride": 2, "normalizer_fn": slim.batch_norm},
    ),
    "regularized": (
        slim.conv2d,
        lambda: {"num_outputs": 5, "kernel_size": 3, "weights_regularizer": slim.l2_regularizer(0.5)},
    ),
}


@pytest.mark.parametrize("option", LAYER_OPTIONS)
def test_a_layer_runs_with_the_option(option: str) -> None:
    layer, options = LAYER_OPTIONS[option]
    run(lambda f: (f(tf.constant(IMAGES), **options()), lambda net: net.shape[0] == 2), layer, trains=True)


@pytest.mark.parametrize("is_training", [True, False])
def test_dropout_asks_a_tensor_whether_it_trains(is_training: bool) -> None:
    def case(f: Any) -> tuple[Any, Any]:
        net = f(IMAGES, is_training=tf.placeholder_with_default(is_training, ()))
        return net, lambda net: np.any(net != IMAGES) == is_training

    run(case, slim.dropout)


def the_weight() -> Any:
    return tf.global_variables("w")[0]


# The options of both training functions, and the weight that they make of START.
TRAINING_OPTIONS: dict[str, tuple[Callable[[], dict[str, Any]], float]] = {
    "colocate_gradients_with_ops": (lambda: {"colocate_gradients_with_ops": True}, 9),
    "gradient_multipliers by name": (lambda: {"gradient_multipliers": {"w": 0.5, "w:0": 0.5}}, 9.5),
    "update_ops": (lambda: {"update_ops": [tf.no_op()]}, 9),
}
CREATE_TRAIN_OP_OPTIONS = {
    **TRAINING_OPTIONS,
    "check_numerics": (lambda: {"check_numerics": False}, 9),
    "clip_gradient_norm": (lambda: {"clip_gradient_norm": 1.0}, 9.9),
    "gate_gradients": (lambda: {"gate_gradients": tf.train.Optimizer.GATE_GRAPH}, 9),
    "global_step": (lambda: {"global_step": None}, 9),
    "gradient_multipliers": (lambda: {"gradient_multipliers": {"w": tf.constant(0.5)}}, 9.5),
    "summarize_gradients": (lambda: {"summarize_gradients": True}, 9),
    "variables_to_train": (lambda: {"variables_to_train": [the_weight()]}, 9),
}
OPTIMIZE_LOSS_OPTIONS = {
    **TRAINING_OPTIONS,
    "adaptive clipping": (
        lambda: {
            "clip_gradients": slim.adaptive_clipping_fn(
                static_max_norm=1.0, global_step=tf.train.get_global_step(), report_summary=True
            )
        },
        9.9,
    ),
    "clip_gradients": (lambda: {"clip_gradients": 1.0}, 9.9),
    "gradient_noise_scale": (lambda: {"gradient_noise_scale": 0.0}, 9),
    "increment_global_step": (lambda: {"increment_global_step": False}, 9),
    "learning_rate": (lambda: {"learning_rate": tf.constant(0.2)}, 8),
    "learning_rate_decay_fn": (
        lambda: {"learning_rate_decay_fn": lambda lr, step: tf.cast(step + 1, tf.float32) * lr},
        9,
    ),
    "name": (lambda: {"name": "training"}, 9),
    "optimizer, a class": (lambda: {"optimizer": tf.train.GradientDescentOptimizer}, 9),
    "optimizer, a function": (lambda: {"optimizer": lambda lr: tf.train.GradientDescentOptimizer(lr)}, 9),
    "optimizer, a function of nothing": (
        lambda: {"optimizer": lambda: tf.train.GradientDescentOptimizer(0.2), "learning_rate": None},
        8,
    ),
    "optimizer, an instance": (lambda: {"optimizer": tf.train.GradientDescentOptimizer(0.2)}, 8),
    "summaries": (lambda: {"summaries": optimizers.OPTIMIZER_SUMMARIES, "clip_gradients": 20.0}, 9),
    "variables": (lambda: {"variables": [the_weight()]}, 9),
}
LOSSES = [loss_of_a_weight, loss_of_a_row]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("option", CREATE_TRAIN_OP_OPTIONS)
def test_create_train_op_trains_with_every_option(option: str, loss: Callable[[], Any]) -> None:
    def case(f: Any) -> tuple[Any, Any]:
        options, weight = CREATE_TRAIN_OP_OPTIONS[option]
        train = f(loss(), tf.train.GradientDescentOptimizer(0.1), **options())
        return optimized(train)[0].ravel()[-1], weight

    run(case, slim.learning.create_train_op)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("option", OPTIMIZE_LOSS_OPTIONS)
def test_optimize_loss_trains_with_every_option(option: str, loss: Callable[[], Any]) -> None:
    def case(f: Any) -> tuple[Any, Any]:
        step = tf.train.create_global_step()
        options, weight = OPTIMIZE_LOSS_OPTIONS[option]
        start = loss()
        train = f(start, step, **{"learning_rate": 0.1, "optimizer": "SGD", **options()})
        summaries = tf.summary.merge_all()
        trained, steps, summary = optimized(train, step, summaries)
        assert steps == (option != "increment_global_step")
        assert b"loss" in summary
        return trained.ravel()[-1], weight

    run(case, slim.optimize_loss)


@pytest.mark.parametrize("name", optimizers.OPTIMIZER_CLS_NAMES)
def test_optimize_loss_knows_the_optimizer(name: str) -> None:
    def case(f: Any) -> tuple[Any, Any]:
        return optimized(f(loss_of_a_weight(), None, 0.1, name))[0] < START, True

    run(case, slim.optimize_loss)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (slim.batch_norm, [*BATCH_NORM_OPTIONS.values()]),
        (slim.learning.create_train_op, [make for make, _ in CREATE_TRAIN_OP_OPTIONS.values()]),
        (slim.optimize_loss, [make for make, _ in OPTIMIZE_LOSS_OPTIONS.values()]),
    ],
    ids=["batch_norm", "create_train_op", "optimize_loss"],
)
def test_every_argument_is_among_the_options(function: Any, options: list[Callable[[], dict[str, Any]]]) -> None:
    with tf.Graph().as_default():
        loss_of_a_weight()
        tf.train.create_global_step()
        given = {name for make in options for name in make()}
    # What every call gives.
    given |= {"inputs", "total_loss", "loss", "optimizer", "global_step", "aggregation_method"}
    assert inspect.signature(inspect.unwrap(function)).parameters.keys() <= given


def image_of_an_example() -> Any:
    """A PNG in a tf.Example, whose format the decoder tells by conditions."""
    png = tf.io.encode_png(np.zeros((2, 3, 3), np.uint8))
    decoder = slim.tfexample_decoder.Image(channels=3)
    return decoder.tensors_to_item({"image/encoded": png, "image/format": tf.constant("png")})


def clusters() -> Any:
    """Medoids, which are searched for in a loop."""
    distances = tf.constant(np.abs(np.subtract.outer(np.arange(4), np.arange(4))).astype(np.float32))
    search = tf_slims("losses.metric_learning").compute_augmented_facility_locations
    return search(distances, tf.constant([0, 0, 1, 1]), tf.constant([0, 1, 2, 3]), 1.0, "nmi")


def updated(metric: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """A metric of two scores, of a positive and a negative, after its update."""
    value, update = metric(*(tf.constant(argument) for argument in arguments), **options)
    session = tf.get_default_session()
    session.run(tf.local_variables_initializer())
    session.run(update)
    return session.run(value)


def area_by_histogram() -> Any:
    metric = tf_slims("metrics.histogram_ops").auc_using_histogram
    return updated(metric, [True, False], [0.75, 0.25], score_range=[0.0, 1.0])


def area() -> Any:
    return updated(slim.metrics.streaming_dynamic_auc, [1, 0], [0.75, 0.25])


def points_of_the_curve() -> Any:
    return updated(slim.metrics.streaming_curve_points, [1, 0], [0.75, 0.25], num_thresholds=3)


# Outside of the layers, a function for each of the other names that the repair restores.
ELSEWHERE: dict[str, tuple[Callable[[], Any], Any]] = {
    "Assert": (area_by_histogram, 1),
    "case": (image_of_an_example, np.zeros((2, 3, 3))),
    "cond": (area, 1),
    "stack": (points_of_the_curve, np.array([[1, 1], [0, 1], [0, 0]])),
    "while_loop": (clusters, has_shape(2)),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_else_uses_a_restored_name_runs(name: str) -> None:
    run(lambda build: (build(), ELSEWHERE[name][1]), ELSEWHERE[name][0])


def test_every_name_of_tensorflow_that_tf_slim_uses_exists() -> None:
    missing = []
    for path in sorted(Path(slim.__file__).parent.rglob("*.py")):
        if path.stem.endswith("_test"):
            continue
        tree = ast.parse(path.read_text())
        imported: dict[str, Any] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tensorflow"):
                for alias in node.names:
                    imported[alias.asname or alias.name] = imported_from(str(node.module), alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.asname and alias.name.startswith("tensorflow"):
                        imported[alias.asname] = importlib.import_module(alias.name)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = imported.get(node.value.id)
                if owner is not None and not hasattr(owner, node.attr):
                    missing.append(f"{path.name}:{node.lineno}: {node.value.id}.{node.attr}")
    assert not missing


def imported_from(module: str, name: str) -> Any:
    owner = importlib.import_module(module)
    return getattr(owner, name) if hasattr(owner, name) else importlib.import_module(f"{module}.{name}")


def test_what_exists_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorflow.python.framework import ops
    from tensorflow.python.ops import control_flow_ops

    mine = object()
    monkeypatch.setattr(control_flow_ops, "cond", mine)
    monkeypatch.delattr(ops, "IndexedSlices")
    repair.restore_names()
    assert control_flow_ops.cond is mine
    assert ops.IndexedSlices is tf.IndexedSlices


@pytest.mark.xfail(raises=IndexError, strict=True, reason="tf_slim indexes an array by a list of slices")
def test_a_variable_in_partitions_is_assigned_from_a_checkpoint(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf_session() as session:
        slim.model_variable("net", (4,), partitioner=tf.fixed_size_partitioner(2))
        session.run(tf.global_variables_initializer())
        path = tf.train.Saver().save(session, str(tmp_path / "net"))
        slim.assign_from_checkpoint(path, slim.get_model_variables())
