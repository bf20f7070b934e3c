"""The TF-Slim interpreter builds what hand-written TF-Slim code builds: slim's own is the judge, to the last bit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_NETWORKS, TRACE_SIZE, random_images, tf_session

from converters import frameworks
from converters.parity.tf_slim import building_graphs
from scripts import make_checkpoint

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf
import tf_slim as slim
from tf_slim.nets import inception_v3

from slimport import graph, networks
from slimport.nets import interpreter

WEIGHT_DECAY = 1e-3
# One thread, so that sums of gradients have one order.
ONE_THREAD = {"intra_op_parallelism_threads": 1, "inter_op_parallelism_threads": 1}
Build = Callable[..., tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Case:
    """A network, its arguments, and the code that is its judge: from images, and `scope` by name, to a network."""

    network: networks.Network
    judge: Build
    judges_arg_scope: Any
    arguments: dict[str, Any]
    image_size: tuple[int, int] = TRACE_SIZE


def by_hand(name: str, **arguments: Any) -> Case:
    """A small network, judged by its family's module in `slimport.nets`."""
    network = SMALL_NETWORKS[name]
    module = import_module(f"slimport.nets.{network.family}")
    judge = partial(module.build, network, **arguments)
    return Case(network, judge, module.arg_scope(weight_decay=WEIGHT_DECAY), arguments)


def inception(create_aux_logits: bool) -> Case:
    """An Inception v3, judged by tf_slim's own code. The map of the auxiliary head is 1x3 for images of this size."""
    depths: dict[str, Any] = {"depth_multiplier": 0.05, "min_depth": 4, "create_aux_logits": create_aux_logits}
    judge = partial(inception_v3.inception_v3, num_classes=7, dropout_keep_prob=1.0, **depths)
    arg_scope = inception_v3.inception_v3_arg_scope(weight_decay=WEIGHT_DECAY, batch_norm_var_collection="moving_vars")
    network = networks.InceptionV3(7, aux_kernel_size=(1, 3), **depths)
    return Case(network, judge, arg_scope, {"dropout_keep_prob": 1.0}, (139, 203))


# Dropout keeps everything: two dropouts of one graph never drop alike.
CASES: dict[str, Callable[[], Case]] = {
    "resnet_v1": partial(by_hand, "resnet_v1"),
    "resnet_v2": partial(by_hand, "resnet_v2"),
    "resnet_v2_dense": partial(by_hand, "resnet_v2", output_stride=4, global_pool=False, spatial_squeeze=False),
    "resnet_v1_beta": partial(by_hand, "resnet_v1_beta", output_stride=4, multi_grid=(1, 2, 3)),
    "vgg": partial(by_hand, "vgg", dropout_keep_prob=1.0, spatial_squeeze=False),
    "inception_v3": partial(inception, create_aux_logits=True),
}


@dataclass
class Side:
    """One of the two codes.

    variables: that it makes, by name relative to its scope.
    collections: how many things each collection gets from each of its two builds.
    training, evaluation: the end points of its two builds; the second reuses the variables of the first.
    gradients: of the loss in training, by variable.
    """

    variables: dict[str, Any]
    collections: list[Counter[str]]
    training: dict[str, Any]
    evaluation: dict[str, Any]
    regularization: list[Any]
    gradients: dict[str, Any]
    updates: list[Any]


@dataclass
class Pair:
    """The judge and the interpreter in one graph, with the same weights.

    values: runs what it is told of each.
    """

    case: Case
    judge: Side
    interpreter: Side
    values: Callable[[Callable[[Side], Any]], tuple[Any, Any]]


@pytest.fixture(scope="module", params=list(CASES))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    case = CASES[request.param]()
    with tf.Graph().as_default(), building_graphs(), tf_session(**ONE_THREAD) as session:
        images = tf.constant(random_images((3, *case.image_size, case.network.in_channels)))
        judge = side("judge", case.judge, case.judges_arg_scope, images)
        ours = partial(interpreter.build, case.network, **case.arguments)
        mine = side("interpreter", ours, interpreter.arg_scope(weight_decay=WEIGHT_DECAY), images)
        generator = np.random.default_rng(0)
        feeds = {}
        for variables in zip(judge.variables.values(), mine.variables.values(), strict=True):
            value = make_checkpoint.random_value(variables[0].op.name, tuple(variables[0].shape.as_list()), generator)
            feeds.update({variable.initializer.inputs[1]: value for variable in variables})
        session.run([variable.initializer for s in (judge, mine) for variable in s.variables.values()], feeds)

        def values(of: Callable[[Side], Any]) -> tuple[Any, Any]:
            result: tuple[Any, Any] = session.run((of(judge), of(mine)))
            return result

        yield Pair(case, judge, mine, values)


def side(name: str, build: Build, arg_scope: Any, images: Any) -> Side:
    """A network in training, and again in evaluation with the same variables."""
    before = len(tf.global_variables())
    updates_before = len(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
    regularization_before = len(tf.losses.get_regularization_losses())
    collections, built = [], []
    with slim.arg_scope(arg_scope):
        for is_training in (True, False):
            sizes = collection_sizes()
            built.append(build(images, is_training=is_training, reuse=not is_training or None, scope=f"{name}/net"))
            collections.append(collection_sizes() - sizes)
    variables = {relative(v.op.name): v for v in tf.global_variables()[before:]}
    regularization = tf.losses.get_regularization_losses()[regularization_before:]
    net, end_points = built[0]
    # Every number of the output, and of the auxiliary logits, matters, each to its own extent.
    outputs = [net, *(end_points[key] for key in end_points if key == "AuxLogits")]
    weights = [tf.constant(random_images(tuple(tf.TensorShape(output.shape).as_list()), 1)) for output in outputs]
    loss = tf.add_n([tf.reduce_sum(o * w) for o, w in zip(outputs, weights, strict=True)] + regularization)
    trainable = {key: v for key, v in variables.items() if v in tf.trainable_variables()}
    gradients = dict(zip(trainable, tf.gradients(loss, list(trainable.values())), strict=True))
    training, evaluation = ({relative(key): value for key, value in points.items()} for _, points in built)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)[updates_before:]
    return Side(variables, collections, training, evaluation, regularization, gradients, updates)


def relative(name: str) -> str:
    """A name without the model's scope. slim names a pool by the name scope, whose second has a number."""
    return re.sub(r"^(judge|interpreter)/net(_\d+)?/", "", name)


def collection_sizes() -> Counter[str]:
    """Without those that slim's generators make for themselves: of end points, and that an arg scope names."""
    keys = (key for key in tf.get_default_graph().collections if isinstance(key, str))
    return Counter({k: len(tf.get_collection(k)) for k in keys if not k.endswith(("_end_points", "moving_vars"))})


def assert_equal(pair: Pair, of: Callable[[Side], dict[str, Any]]) -> None:
    """The interpreter's values are the judge's, bit for bit, by name and in order."""
    judges, mine = pair.values(of)
    assert list(mine) == list(judges)
    for name, value in judges.items():
        np.testing.assert_array_equal(mine[name], value, err_msg=name)


def test_variables_are_the_judges(pair: Pair) -> None:
    described = [
        [(name, v.shape.as_list(), v.dtype.name, v.trainable) for name, v in s.variables.items()]
        for s in (pair.interpreter, pair.judge)
    ]
    assert described[0] == described[1]
    assert {name: tuple(v.shape.as_list()) for name, v in pair.judge.variables.items()} == pair.case.network.variables()


def test_initializers_are_the_judges(pair: Pair) -> None:
    for name, variable in pair.judge.variables.items():
        assert initializer(pair.interpreter.variables[name]) == initializer(variable), name


def initializer(variable: Any) -> Counter[Any]:
    """The ops from which a variable's first value comes, with the numbers among them."""
    found, pending = set(), [variable.initializer.inputs[1].op]
    while pending:
        if (op := pending.pop()) not in found:
            found.add(op)
            pending.extend(tensor.op for tensor in op.inputs)
    return Counter(
        (op.type, tf.make_ndarray(op.get_attr("value")).tobytes() if op.type == "Const" else b"") for op in found
    )


def test_what_slim_collects_is_the_judges(pair: Pair) -> None:
    assert pair.interpreter.collections == pair.judge.collections
    kernels = [name for name in pair.judge.variables if name.endswith("/weights")]
    first, second = pair.interpreter.collections
    assert first[tf.GraphKeys.REGULARIZATION_LOSSES] == len(kernels)
    assert first[tf.GraphKeys.MODEL_VARIABLES] == len(pair.judge.variables)
    assert first[tf.GraphKeys.UPDATE_OPS] == sum("moving_" in name for name in pair.judge.variables)
    assert +second == Counter(), "reuse makes nothing anew"


def test_regularization_losses_are_the_judges(pair: Pair) -> None:
    judges, mine = pair.values(lambda s: s.regularization)
    assert mine == judges
    assert min(mine) > 0


def test_end_points_are_the_judges_bit_for_bit(pair: Pair) -> None:
    names = [relative(name) for name in pair.case.network.end_points("judge/net", **pair.case.arguments)]
    assert list(pair.interpreter.evaluation) == names
    # tf_slim's Inception v3 is older than the end point that `research/slim/nets` has for its last pool.
    assert [name for name in names if name != "AvgPool_1a"] == list(pair.judge.evaluation)
    assert_equal(pair, lambda s: {name: s.evaluation[name] for name in pair.judge.evaluation})


def test_training_is_the_judges_bit_for_bit(pair: Pair) -> None:
    # In one run: TensorFlow prepares the whole graph anew for every new set of fetches.
    assert_equal(pair, lambda s: {name: s.training[name] for name in pair.judge.training} | s.gradients)


def test_updates_of_the_moving_averages_are_the_judges_bit_for_bit(pair: Pair) -> None:
    def averages(s: Side) -> dict[str, Any]:
        return {name: variable for name, variable in s.variables.items() if "/moving_" in name}

    before, _ = pair.values(averages)
    pair.values(lambda s: s.updates)
    assert_equal(pair, averages)
    after, _ = pair.values(averages)
    assert not any(np.array_equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("is_training", [False, True])
def test_dropout_drops_in_training_alone(is_training: bool) -> None:
    recorded = graph.record(lambda images: graph.dropout(images, 0.25, scope="dropout"), in_channels=3)
    images = 1 + random_images((4, 31, 32, 3)) / 2
    with tf.Graph().as_default(), tf_session() as session:
        net, _ = interpreter.run(recorded, tf.constant(images), "net", is_training=is_training)
        value = session.run(net)
    kept = value != 0
    assert 0.2 < kept.mean() < 0.3 if is_training else kept.all()
    np.testing.assert_allclose(value[kept], images[kept] / (0.25 if is_training else 1), rtol=1e-6)


def test_is_training_may_be_a_tensor() -> None:
    network = SMALL_NETWORKS["resnet_v1"]
    with tf.Graph().as_default(), building_graphs(), tf_session(**ONE_THREAD) as session:
        images = tf.constant(random_images((2, *TRACE_SIZE, 3)))
        is_training = tf.placeholder(tf.bool, ())
        nets = {}
        for chosen in (is_training, True, False):
            nets[chosen], _ = interpreter.build(
                network, images, is_training=chosen, scope="net", reuse=bool(nets) or None, spatial_squeeze=False
            )
        session.run(tf.global_variables_initializer())
        for value in (True, False):
            asked, known = session.run([nets[is_training], nets[value]], {is_training: value})
            np.testing.assert_allclose(asked, known, rtol=1e-5)


def test_scopes_are_made_unique_as_slims_are() -> None:
    network = replace(SMALL_NETWORKS["vgg"], num_classes=None)
    with tf.Graph().as_default():
        images = tf.zeros((1, 28, 28, 3))
        first, second, bare = (next(iter(interpreter.build(network, images, scope=s)[1])) for s in (None, None, ""))
    assert [first, second, bare] == ["vgg/conv1/conv1_1", "vgg_1/conv1/conv1_1", "conv1/conv1_1"]


def test_open_arg_scopes_decide_on_what_the_graph_does_not_record() -> None:
    with tf.Graph().as_default():
        images = tf.zeros((1, *TRACE_SIZE, 3))
        with (
            slim.arg_scope([slim.conv2d, slim.batch_norm], trainable=False, variables_collections=["frozen"]),
            # What is recorded is not theirs to decide.
            slim.arg_scope([slim.conv2d], normalizer_fn=None, activation_fn=tf.nn.tanh, padding="VALID"),
        ):
            interpreter.build(SMALL_NETWORKS["resnet_v1"], images)
        assert not tf.trainable_variables()
        assert len(tf.get_collection("frozen")) == len(tf.global_variables())
        assert {v.op.name.removeprefix("resnet_v1/") for v in tf.global_variables()} == set(
            SMALL_NETWORKS["resnet_v1"].variables()
        )
        assert not tf.losses.get_regularization_losses()


def test_a_float64_graph_is_float64_throughout() -> None:
    with tf.Graph().as_default():
        images = tf.zeros((1, *TRACE_SIZE, 3), tf.float64)
        _, end_points = interpreter.build(SMALL_NETWORKS["resnet_v2"], images)
        assert {tensor.dtype for tensor in (*end_points.values(), *tf.global_variables())} == {tf.float64}


def test_a_flattened_map_of_another_size_is_refused() -> None:
    recorded = graph.record(lambda images: graph.flatten(images, (2, 3), scope="flatten"), in_channels=3)
    with tf.Graph().as_default(), tf_session() as session:
        images = tf.placeholder(tf.float32, (None, None, None, 3))
        net, _ = interpreter.run(recorded, images, "net")
        assert session.run(net, {images: np.zeros((5, 2, 3, 3))}).shape == (5, 18)
        with pytest.raises(tf.errors.InvalidArgumentError):
            session.run(net, {images: np.zeros((5, 4, 3, 3))})


def test_arguments_that_the_network_lacks_are_refused() -> None:
    with tf.Graph().as_default(), pytest.raises(ValueError, match="it has no multi_grid"):
        interpreter.build(SMALL_NETWORKS["vgg"], tf.zeros((1, 28, 28, 3)), multi_grid=(1, 2, 3))
