"""Graphs that TensorFlow wrote are read without TensorFlow, as the networks that they are."""

from __future__ import annotations

import importlib
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import user_graphs
from conftest import SMALL_NETWORKS, random_weights
from user_graphs import LIMIT, assert_equal, errors, first_control_flow, write

from converters import convert, open_checkpoint
from converters.errors import InputError
from converters.formats import models
from converters.graph_def import open_graph, read_network, unsupported_nodes
from converters.graph_def.judge import Judge
from converters.graph_def.known import likeness
from converters.parity.tf_slim import builder_of
from slimport import networks
from slimport.graph_differences import differences
from slimport.map_sides import map_sides

tf = user_graphs.tf
import tf_slim as slim
from google.protobuf import text_format  # type: ignore[import-untyped]
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

Tensor = Any
NETWORKS: dict[str, tuple[networks.Network, int | None]] = {
    "resnet_v2": (
        networks.ResNetV2(
            (networks.resnet_v2_block("block1", 4, 2, 2), networks.resnet_v2_block("block2", 8, 2, 1)), num_classes=7
        ),
        None,
    ),
    "resnet_v1": (networks.ResNetV1((networks.resnet_v1_block("block1", 4, 2, 2),), 7), None),
    "vgg": (networks.VGG((networks.ConvBlock(4, 1), networks.ConvBlock(6, 2)), 7, fc_depths=(12, 10)), 28),
    "inception_v3": (networks.InceptionV3(7, depth_multiplier=0.05, min_depth=4), None),
}


def slim_network(name: str, is_training: bool = False, **scope_arguments: Any) -> Callable[[], dict[str, Tensor]]:
    """The graph of a network by slim's code, with loss and optimizer where it is trained."""
    network, side = NETWORKS[name]
    builder = importlib.import_module(f"slimport.nets.{network.family}")

    def build() -> dict[str, Tensor]:
        images = tf.placeholder(tf.float32, (None, side, side, 3), "images")
        with slim.arg_scope(builder.arg_scope(**scope_arguments)):
            net, _ = builder.build(network, images, is_training=is_training, scope=name)
        if is_training:
            loss = tf.losses.softmax_cross_entropy(tf.placeholder(tf.float32, (None, 7), "labels"), net)
            with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
                tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
        return {"logits": net}

    return build


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("name", ["resnet_v2", "resnet_v1", "vgg"])
def test_a_network_of_slim_is_read_as_itself(name: str, is_training: bool, tmp_path: Path) -> None:
    written = write(slim_network(name, is_training), tmp_path)
    user = read_network(written.path)
    found = likeness(user, NETWORKS[name][0], name)
    assert found.differences == ()
    assert {source.name for source in user.sources.values()} == {f"{name}/{v}" for v in user.graph.variables}
    assert list(user.graph.variables.items()) == list(NETWORKS[name][0].variables().items())


def test_inception_v3_is_read_as_itself_and_in_less_than_a_second(tmp_path: Path) -> None:
    written = write(slim_network("inception_v3"), tmp_path)
    start = time.process_time()
    user = read_network(written.path)
    assert time.process_time() - start < 1
    assert likeness(user, NETWORKS["inception_v3"][0], "inception_v3").differences == ()
    assert [name.split("/")[1] for name in user.outputs] == ["AuxLogits", "Predictions"]


@pytest.mark.parametrize("form", ["frozen", "saved_model"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_slim_is_itself_in_every_form(name: str, form: str, tmp_path: Path) -> None:
    user = read_network(write(slim_network(name), tmp_path, form).path)
    assert likeness(user, NETWORKS[name][0], name).differences == ()


def test_a_trained_inception_v3_is_itself(tmp_path: Path) -> None:
    user = read_network(write(slim_network("inception_v3", is_training=True), tmp_path).path)
    assert likeness(user, NETWORKS["inception_v3"][0], "inception_v3").differences == ()


@pytest.mark.parametrize(
    ("name", "form", "is_training"),
    [
        ("resnet_v1_lite", "meta", True),
        ("inception_resnet_v1", "saved_model", False),
        ("mobilenet_v2", "frozen", False),
        ("mobilenet_v3", "meta", True),
        ("nasnet", "frozen", False),
        # Its graph of one size resizes to numbers, where the definition has the sides of other maps.
        ("deeplab", "frozen", False),
    ],
)
def test_a_network_of_the_zoo_is_itself(name: str, form: str, is_training: bool, tmp_path: Path) -> None:
    # All of them, at full size and in all forms: scripts/studies/graphs_of_slim.py.
    network = SMALL_NETWORKS[name]
    side, builder = network.default_image_size, builder_of(network)

    def build() -> dict[str, Tensor]:
        images = tf.placeholder(tf.float32, (None, side, side, 3), "images")
        with slim.arg_scope(builder.arg_scope()):
            net, _ = builder.build(network, images, is_training=is_training, scope="net")
        if is_training:
            with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
                tf.train.MomentumOptimizer(0.1, 0.9).minimize(tf.reduce_sum(net))
        return {"output": net}

    user = read_network(write(build, tmp_path, form).path)
    assert likeness(user, network, "net").differences == ()


def test_to_resize_to_numbers_is_the_same_for_images_of_the_size_that_they_are_for() -> None:
    graph = SMALL_NETWORKS["deeplab"].graph()

    def differs(resized_for: tuple[int, int], image: tuple[int, int] | None) -> bool:
        sides = map_sides(graph, resized_for)
        nodes = (
            replace(node, inputs=node.inputs[:1], attributes={**node.attributes, "size": map_size})
            if node.op == "resize"
            else node
            for node, map_size in zip(graph.nodes, sides, strict=True)
        )
        return bool(differences(graph, replace(graph, nodes=tuple(nodes)), image))

    assert not differs((65, 97), (65, 97))
    assert differs((65, 97), (97, 65))
    assert differs((65, 97), None)


@pytest.mark.parametrize("name", ["inception_resnet_v2", "mobilenet_v3", "nasnet", "vgg"])
def test_the_sides_of_maps_are_those_of_the_model(name: str) -> None:
    network = SMALL_NETWORKS[name].without_auxiliary()
    side = network.default_image_size
    whole = {"spatial_squeeze": False} if "spatial_squeeze" in network.arguments else {}
    graph = network.graph(**whole)
    sides = map_sides(graph, (side, side + 32))
    model = models.pytorch_port(network, random_weights(network).items(), **whole).eval()
    _, maps = model.end_points(torch.zeros(1, network.in_channels, side, side + 32))
    points = graph.end_point_names(model.scope)
    known = {point: sides[points[point].node] for point in maps if maps[point].ndim == 4}
    assert len(known) > 5
    assert known == {point: tuple(maps[point].shape[2:]) for point in known}


@pytest.mark.parametrize("form", ["meta", "frozen", "saved_model"])
def test_every_form_gives_the_same_network(form: str, tmp_path: Path) -> None:
    written = write(slim_network("resnet_v2"), tmp_path, form)
    user = read_network(written.path)
    assert likeness(user, NETWORKS["resnet_v2"][0], "resnet_v2").differences == ()
    weights = written.weights if form != "frozen" else {}
    assert max(errors(user, weights, [2], side=33).values()) <= LIMIT


def test_other_settings_are_found_and_told(tmp_path: Path) -> None:
    written = write(slim_network("resnet_v1", batch_norm_epsilon=0.001), tmp_path)
    user = read_network(written.path)
    assert "epsilon 0.001" in str(likeness(user, NETWORKS["resnet_v1"][0], "resnet_v1"))


def test_graph_mode_keeps_the_statistics_of_the_batch(tmp_path: Path) -> None:
    written = write(slim_network("resnet_v1", is_training=True), tmp_path)
    user = read_network(written.path, mode="graph", outputs=["resnet_v1/SpatialSqueeze"])
    assert "with the statistics of the batch" in " ".join(user.notes)
    assert max(errors(user, written.weights, [3], side=33).values()) <= 1e-11
    assert "the moving averages are taken" in " ".join(read_network(written.path).notes)


def test_a_training_graph_without_fused_batch_norm_gives_its_moving_averages(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        net = tf.placeholder(tf.float32, (None, 9, 9, 3), "images")
        params = {"is_training": True, "fused": False, "decay": 0.9, "scale": True}
        net = slim.conv2d(net, 4, 3, normalizer_fn=slim.batch_norm, normalizer_params=params, scope="conv1")
        return {"net": net}

    user = assert_equal(write(build, tmp_path), (2,))
    norm = user.graph.nodes[1].normalizer
    assert norm is not None
    assert norm["decay"] == 0.9
    assert "conv1/BatchNorm/moving_mean" in user.graph.variables


# SavedModels of TensorFlow 2.


def test_a_saved_model_of_tensorflow_2_is_inlined(tmp_path: Path) -> None:
    script = f"""
import numpy as np, tensorflow as tf
rng = np.random.default_rng(0)
class Model(tf.Module):
    def __init__(self):
        super().__init__()
        self.a = tf.Variable(rng.normal(size=(3, 3, 3, 4)).astype("float32"), name="kernel")
        self.b = tf.Variable(rng.normal(size=(3, 3, 4, 5)).astype("float32"), name="kernel")
        self.bias = tf.Variable(rng.normal(size=4).astype("float32"), name="first/bias")
    @tf.function
    def layer(self, net):
        return tf.nn.relu(tf.nn.conv2d(net, self.a, 1, "SAME") + self.bias)
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), name="images")])
    def __call__(self, images):
        training = tf.constant(False)
        net = self.layer(images)
        net = tf.cond(training, lambda: net * 2, lambda: tf.identity(net))
        return {{"scores": tf.nn.conv2d(net, self.b, 2, "VALID"), "features": net}}
model = Model()
tf.saved_model.save(model, {str(tmp_path / "saved")!r}, signatures=model.__call__)
images = np.random.default_rng(1).normal(size=(2, 12, 13, 3)).astype("float32")
unsigned = tf.Module()
unsigned.one, unsigned.two = tf.function(lambda x: tf.nn.relu(x)), tf.function(lambda x: tf.nn.relu(x) + 1)
unsigned.one(images), unsigned.two(images)
tf.saved_model.save(unsigned, {str(tmp_path / "unsigned")!r})
class Called(Model):
    @tf.function
    def __call__(self, images, training):
        net = self.layer(images)
        return tf.nn.conv2d(net * 2 if training else net, self.b, 2, "VALID")
    @tf.function
    def pooled(self, images):
        return tf.reduce_mean(self.layer(images), [1, 2])
called = Called()
found = {{**model(images), "called": called(images, training=False), "pooled": called.pooled(images)}}
called(images, training=True)
tf.saved_model.save(called, {str(tmp_path / "called")!r})
np.savez({str(tmp_path / "truth.npz")!r}, images=images, **{{k: v.numpy() for k, v in found.items()}})
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    user = read_network(tmp_path / "saved")
    assert list(user.inputs) == ["images"]
    assert list(user.outputs) == ["features", "scores"]
    with open_checkpoint(tmp_path / "saved" / "variables" / "variables") as checkpoint:
        weights = {name: checkpoint[name] for name in checkpoint if "VARIABLE_VALUE" in name}
        model = user_graphs.port(user, weights, "float32")
    truth = np.load(tmp_path / "truth.npz")
    found = user_graphs.outputs_of(model, user, {"images": truth["images"]})
    for name in user.outputs:
        assert user_graphs.relative(found[name], truth[name]) < 1e-6
    # A node in a function can be an output, too.
    assert list(read_network(tmp_path / "saved", outputs=["Relu"]).outputs) == ["Relu"]
    with pytest.raises(InputError, match=r"a SavedModel without a signature; choose .* --output: one, two"):
        read_network(tmp_path / "unsigned")
    # Without a signature, the model is called, in evaluation.
    for name, arguments in (("called", {}), ("pooled", {"outputs": ["pooled"]})):
        user = read_network(tmp_path / "called", **arguments)
        assert any("it has no signature: its function" in note for note in user.notes)
        with open_checkpoint(tmp_path / "called" / "variables" / "variables") as checkpoint:
            weights = {name: checkpoint[name] for name in checkpoint if "VARIABLE_VALUE" in name}
            model = user_graphs.port(user, weights, "float32")
        (value,) = user_graphs.outputs_of(model, user, dict.fromkeys(user.inputs, truth["images"])).values()
        assert user_graphs.relative(value, truth[name]) < 1e-6


# Ends.


def test_of_two_networks_that_share_everything_but_their_input_the_first_is_taken(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        nets = {}
        for side in ("left", "right"):
            with tf.variable_scope("net", reuse=side == "right"):
                net = slim.conv2d(tf.placeholder(tf.float32, (None, 9, 9, 3), side), 4, 3, scope="conv1")
                kernel = tf.get_variable("dense/kernel", (4, 5), use_resource=False)
                net = tf.tensordot(net, kernel, [[3], [0]])
                nets[side] = tf.nn.bias_add(net, tf.get_variable("dense/bias", (5,), use_resource=False))
        same = tf.placeholder(tf.float32, (None,), "same")
        tf.losses.mean_squared_error(same, tf.reduce_sum(tf.square(nets["left"] - nets["right"]), [1, 2, 3]))
        return {"net": nets["left"]}

    user = assert_equal(write(build, tmp_path), (2,))
    assert (list(user.inputs), list(user.outputs)) == (["net/left"], ["net/BiasAdd"])


FUSIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda left, right: tf.add(left, right, name="fused"),
    "subtract": lambda left, right: tf.subtract(left, right, name="fused"),
    "concat": lambda left, right: tf.concat([left, right], 1, name="fused"),
    "softmax of a sum": lambda left, right: tf.nn.softmax((left + right) * 0.5, name="fused"),
}


def _towers() -> list[Tensor]:
    """Two networks with variables and inputs of their own, the logits of each."""
    nets = []
    for name, channels in (("left", 3), ("right", 1)):
        images = tf.placeholder(tf.float32, (None, 9, 9, channels), f"{name}_images")
        net = tf.reduce_mean(slim.conv2d(images, 4, 3, scope=f"{name}/conv1"), [1, 2])
        nets.append(slim.fully_connected(net, 5, activation_fn=None, scope=f"{name}/logits"))
    return nets


@pytest.mark.parametrize("form", ["meta", "frozen"])
@pytest.mark.parametrize("name", FUSIONS)
def test_two_inputs_that_meet_behind_the_last_layers_are_one_network(name: str, form: str, tmp_path: Path) -> None:
    user = assert_equal(write(lambda: {"net": FUSIONS[name](*_towers())}, tmp_path, form), (2,), keras=form == "meta")
    assert (list(user.inputs), list(user.outputs)) == (["left_images", "right_images"], ["fused"])


def test_a_softmax_of_two_networks_is_one_network_in_a_training_graph_too(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        logits = tf.add(*_towers())
        tf.losses.softmax_cross_entropy(tf.placeholder(tf.float32, (None, 5), "labels"), logits)
        return {"net": tf.nn.softmax(logits, name="fused")}

    user = read_network(write(build, tmp_path).path)
    assert (len(user.inputs), list(user.outputs)) == (2, ["fused"])


def _distilled(left: Tensor, right: Tensor) -> Tensor:
    return tf.reduce_mean(tf.square(left - right))


def _adversaries(left: Tensor, right: Tensor) -> Tensor:
    return tf.reduce_mean(tf.nn.softplus(left)) + tf.reduce_mean(tf.nn.softplus(-right))


def _contrasted(left: Tensor, right: Tensor) -> Tensor:
    same = tf.placeholder(tf.float32, (None,), "same")
    return tf.reduce_mean(same * tf.reduce_sum(tf.square(left - right), 1))


@pytest.mark.parametrize("loss", [_distilled, _adversaries, _contrasted])
@pytest.mark.parametrize("trained", [False, True])
def test_a_loss_joins_no_networks(trained: bool, loss: Callable[[Tensor, Tensor], Tensor], tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        towers = _towers()
        value = loss(*towers)
        if trained:
            tf.train.GradientDescentOptimizer(0.1).minimize(value)
        return {"net": towers[0]}

    user = read_network(write(build, tmp_path).path)
    assert list(user.inputs) == ["left_images"]
    assert len(user.outputs) == 1
    assert "another network ends at right/logits/MatMul" in " ".join(user.notes)


def test_a_training_graph_ends_before_its_loss(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        images = tf.placeholder(tf.float32, (None, 9, 9, 3), "images")
        net = slim.conv2d(images, 4, 3, scope="encoder")
        net = slim.conv2d_transpose(net, 3, 3, activation_fn=tf.nn.sigmoid, scope="decoder")
        loss = tf.reduce_mean(tf.square(net - images))
        tf.summary.scalar("loss", loss)
        tf.summary.histogram("outputs", net * 2)
        tf.train.GradientDescentOptimizer(0.1).minimize(loss)
        return {"net": net}

    assert list(read_network(write(build, tmp_path).path).outputs) == ["decoder/Sigmoid"]


def test_networks_of_one_input_that_meet_before_an_activation_are_one(tmp_path: Path) -> None:
    """As capsules do, each with a probability, although a loss comes next."""

    def build() -> dict[str, Tensor]:
        images = tf.placeholder(tf.float32, (None, 12), "images")
        found = []
        for i in range(3):
            net = slim.fully_connected(images, 4, scope=f"capsule_{i}/recognition")
            share = slim.fully_connected(net, 1, activation_fn=tf.nn.sigmoid, scope=f"capsule_{i}/probability")
            drawn = slim.fully_connected(net, 12, activation_fn=tf.nn.tanh, scope=f"capsule_{i}/output")
            found.append(drawn * tf.tile(share, [1, 12]))
        net = tf.nn.tanh(tf.add_n(found), name="drawn")
        wanted = tf.placeholder(tf.float32, (None, 12), "wanted")
        tf.train.GradientDescentOptimizer(0.1).minimize(tf.losses.mean_squared_error(wanted, net))
        return {"net": net}

    assert list(assert_equal(write(build, tmp_path), (2,)).outputs) == ["drawn"]


def test_a_sum_that_is_the_logits_of_a_loss_is_the_networks(tmp_path: Path) -> None:
    """As of a conditional random field: the logits and what the neighbours say, with summaries of how many are 0."""

    def build() -> dict[str, Tensor]:
        images = tf.placeholder(tf.float32, (None, 9, 9, 3), "images")
        unary = slim.conv2d(images, 4, 3, activation_fn=None, scope="conv1")
        terms = [
            slim.conv2d(tf.nn.softmax(unary), 4, side, activation_fn=None, scope=f"term_{side}") for side in (1, 3)
        ]
        pairwise = tf.add(*terms, name="pairwise")
        logits = tf.add(unary, pairwise, name="energy")
        tf.summary.scalar("sparsity", tf.nn.zero_fraction(logits))
        labels = tf.placeholder(tf.int32, (None,), "labels")
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=tf.reshape(logits, (-1, 4)))
        tf.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(loss))
        return {"net": logits}

    with first_control_flow():
        made = write(build, tmp_path)
    assert list(read_network(made.path).outputs) == ["energy"]


def test_a_gradient_that_was_written_by_hand_is_no_network(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        data = tf.placeholder(tf.float32, (None, 6), "data")
        first, second = (tf.Variable(tf.zeros(shape), name=f"w{shape[0]}") for shape in ((6, 4), (4, 5)))
        net = tf.matmul(tf.nn.sigmoid(tf.matmul(data, first)), second, name="logits")
        costs, kept = (tf.placeholder(tf.float32, (None, size), f"kept_{size}") for size in (5, 4))
        back = tf.matmul(costs, tf.transpose(second)) * kept * (1 - kept)
        tf.assign_sub(first, tf.matmul(tf.transpose(data), back))
        return {"net": net}

    user = read_network(write(build, tmp_path).path)
    assert (list(user.inputs), list(user.outputs)) == (["data"], ["logits"])


def test_a_generator_is_found_before_its_discriminator(tmp_path: Path) -> None:
    def discriminator(images: Tensor) -> Tensor:
        with tf.variable_scope("dis", reuse=tf.AUTO_REUSE):
            return slim.fully_connected(images, 1, activation_fn=None, scope="fc")

    def build() -> dict[str, Tensor]:
        net = slim.fully_connected(tf.placeholder(tf.float32, (None, 3), "noise"), 8, scope="gen/fc1")
        made = slim.fully_connected(net, 12, activation_fn=tf.nn.tanh, scope="gen/fc2")
        real = discriminator(tf.placeholder(tf.float32, (None, 12), "real"))
        loss = tf.reduce_mean(tf.nn.softplus(-real)) + tf.reduce_mean(tf.nn.softplus(discriminator(made)))
        tf.train.GradientDescentOptimizer(0.1).minimize(loss)
        return {"net": made}

    user = assert_equal(write(build, tmp_path), (2,))
    assert (list(user.inputs), list(user.outputs)) == (["noise"], ["gen/fc2/Tanh"])
    assert "another network ends at dis/fc/MatMul" in " ".join(user.notes)


def test_an_output_that_is_one_of_a_batch_is_given_of_all(tmp_path: Path) -> None:
    """As a tool for Keras models wrote it, which takes `model.output[0]` for the first output."""

    def build() -> dict[str, Tensor]:
        net = slim.fully_connected(tf.placeholder(tf.float32, (None, 6), "data"), 4, scope="fc")
        return {"net": tf.identity(tf.nn.softmax(net, name="predictions")[0], name="k2tfout_0")}

    user = assert_equal(write(build, tmp_path, "frozen"), (2,))
    assert user.outputs == {"k2tfout_0": "predictions:0"}
    assert "k2tfout_0 is one of a batch; the network gives all of them" in user.notes


def test_a_network_in_float16_is_run_in_the_floats_that_are_asked_for(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        images = tf.placeholder(tf.float32, (None, 9, 9, 3), "images")
        kernel = tf.Variable(tf.zeros((3, 3, 3, 4)), name="conv1/weights")
        net = tf.nn.conv2d(tf.cast(images, tf.float16), tf.cast(kernel, tf.float16), 1, "SAME")
        return {"net": tf.cast(tf.nn.relu(net), tf.float32, name="relu")}

    assert_equal(write(build, tmp_path), (2,))


def test_an_input_of_whole_numbers_has_their_dtype(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        board = tf.placeholder(tf.int8, (None, 6), "board")
        return {"net": slim.fully_connected(tf.cast(board, tf.float32), 4, scope="fc")}

    user = read_network(write(build, tmp_path, "saved_model").path)
    assert [value.attrs["dtype"] for value in user.context.inputs] == ["int8"]


def test_a_pickle_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "model.meta"
    path.write_bytes(pickle.dumps({"labels": [1, 2]}))
    with pytest.raises(InputError, match="it is a pickle, as Python writes them"):
        read_network(path)


@pytest.mark.parametrize(
    ("last", "name"),
    [
        (lambda net: tf.multiply(tf.atan(net), 2, name="angle"), "angle"),
        (lambda net: 127.5 * tf.tanh(net) + 1.0, "add"),
    ],
)
def test_an_output_in_another_range_is_the_networks_before_a_loss_too(
    last: Callable[[Tensor], Tensor], name: str, tmp_path: Path
) -> None:
    """As of networks that steer cars, and that draw images."""

    def build() -> dict[str, Tensor]:
        images = tf.placeholder(tf.float32, (None, 9, 9, 3), "images")
        net = last(slim.conv2d(images, 4, 3, activation_fn=None, scope="conv1"))
        labels = tf.placeholder(tf.float32, (None, 9, 9, 4), "labels")
        tf.train.AdamOptimizer(0.1).minimize(tf.reduce_mean(tf.square(labels - net)))
        return {"net": net}

    assert list(assert_equal(write(build, tmp_path), (2,)).outputs) == [name]


def test_of_two_copies_with_the_same_variables_one_is_taken_and_it_is_told(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        net = {}
        for name, reuse in (("train", False), ("sample", True)):
            with tf.variable_scope("net", reuse=reuse), tf.name_scope(name):
                images = tf.placeholder(tf.float32, (None, 9, 9, 3), f"{name}_images")
                net[name] = slim.conv2d(images, 4, 3, scope="conv1")
        return net

    written = write(build, tmp_path)
    user = read_network(written.path)
    assert len(user.outputs) == len(user.inputs) == 1
    assert len(user.graph.variables) == 2
    assert "has the variables of" in user.notes[0]
    other = user.notes[0].rpartition("--output ")[2].split()[0]
    assert list(read_network(written.path, outputs=[other]).inputs) != list(user.inputs)


def test_a_layer_that_is_used_twice_has_one_set_of_variables(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        net = slim.conv2d(tf.placeholder(tf.float32, (None, 9, 9, 3), "images"), 4, 3, scope="trunk")
        heads = {}
        for name, level in (("fine", net), ("coarse", slim.max_pool2d(net, 2))):
            heads[name] = slim.conv2d(level, 5, 3, scope="head", reuse=name == "coarse")
        return heads

    written = write(build, tmp_path)
    user = read_network(written.path, outputs=written.outputs)
    assert len(user.graph.variables) == 4
    assert_equal(written, (2,), outputs=written.outputs)


def test_inputs_and_outputs_can_be_chosen(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        images = tf.placeholder(tf.float32, (None, 9, 9, 3), "images")
        net = slim.conv2d(images, 4, 3, scope="conv1")
        return {"net": slim.conv2d(slim.conv2d(net, 5, 3, scope="conv2"), 6, 3, scope="conv3")}

    written = write(build, tmp_path)
    user = assert_equal(written, (2,), inputs=["conv1/Relu"], outputs=["conv2/Relu"])
    assert list(user.graph.variables) == ["weights", "biases"] or len(user.graph.variables) == 2


def test_a_component_of_an_iterator_is_the_input(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        data = tf.data.Dataset.from_tensors((np.zeros((4,), np.int32), np.zeros((4, 9, 9, 3), np.float32)))
        _, images = tf.data.make_one_shot_iterator(data).get_next()
        return {"net": slim.conv2d(images, 4, 3, scope="conv1")}

    user = assert_equal(write(build, tmp_path), (4, 3))
    assert list(user.inputs.values()) == ["IteratorGetNext:1"]


def test_an_input_behind_what_has_no_counterpart_is_found(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        encoded = tf.placeholder(tf.string, (), "encoded")
        image = tf.image.convert_image_dtype(tf.image.decode_jpeg(encoded, channels=3), tf.float32)
        return {"net": slim.conv2d(tf.expand_dims(image, 0), 4, 3, scope="conv1")}

    user = read_network(write(build, tmp_path).path)
    assert "the input is taken behind DecodeJpeg" in " ".join(user.notes)
    assert user.graph.nodes[0].attributes["shape"] == (None, None, None, 3)


def test_an_input_behind_a_random_crop_is_found(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        image = tf.image.decode_png(tf.placeholder(tf.string, (), "encoded"), channels=3)
        crop = tf.image.random_flip_left_right(tf.image.random_crop(tf.cast(image, tf.float32), (24, 24, 3)))
        images = tf.train.batch([crop], 16)
        return {"net": slim.conv2d(images, 4, 3, scope="conv1")}

    user = assert_equal(write(build, tmp_path), (16, 3))
    assert user.graph.nodes[0].attributes["shape"] == (None, 24, 24, 3)


def test_an_input_behind_what_has_no_counterpart_has_the_shape_that_it_is_given_first(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        sound, rate = tf.audio.decode_wav(tf.placeholder(tf.string, (), "wav"), 1, 16000)
        spectrogram = tf.raw_ops.AudioSpectrogram(input=sound, window_size=480, stride=160)
        features = tf.raw_ops.Mfcc(spectrogram=spectrogram, sample_rate=rate, dct_coefficient_count=10)
        net = tf.reshape(tf.reshape(features, [-1, 98 * 10]), [-1, 98, 10, 1])
        return {"net": slim.conv2d(net, 4, 3, scope="conv1")}

    user = assert_equal(write(build, tmp_path), (2, 1))
    assert "the input is taken behind Reshape: Mfcc (Mfcc) has no counterpart" in user.notes
    assert user.graph.nodes[0].attributes["shape"] == (None, 980)


def test_an_input_behind_a_map_of_each_element_has_the_shape_of_an_element(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        images = tf.placeholder(tf.float32, (None, 32, 30, 3), "images")
        net = tf.map_fn(tf.image.per_image_standardization, images)
        return {"net": slim.conv2d(net, 4, 3, scope="conv1")}

    with user_graphs.first_control_flow():
        written = write(build, tmp_path)
    user = assert_equal(written, (2,))
    assert user.graph.nodes[0].attributes["shape"] == (None, 32, 30, 3)
    assert len([note for note in user.notes if "has no counterpart" in note]) == 1


@pytest.mark.parametrize("op", ["LoopCond", "While|StatelessWhile"])
def test_a_loop_is_told_with_what_comes_before(op: str, tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        net = slim.conv2d(tf.placeholder(tf.float32, (None, 9, 9, 3), "images"), 4, 3, scope="conv1")
        kernel = tf.get_variable("step/weights", (3, 3, 4, 4), use_resource=False)
        limit = tf.placeholder(tf.int32, (), "steps")
        body = lambda i, net: (i + 1, tf.nn.conv2d(net, kernel, 1, "SAME"))  # noqa: E731
        _, net = tf.while_loop(lambda i, _: i < limit, body, (0, net))
        return {"net": slim.conv2d(net, 4, 3, scope="conv2")}

    with user_graphs.first_control_flow() if op == "LoopCond" else nullcontext():
        written = write(build, tmp_path)
    with pytest.raises(InputError, match=rf"not supported: ({op}) \(a loop\), node .*--output conv1/Relu$") as error:
        read_network(written.path)
    assert_equal(written, (2,), outputs=[str(error.value).rpartition(" ")[2]])


@pytest.mark.parametrize(("lowered", "loop"), [(True, "LoopCond"), (False, "StatelessWhile")])
def test_a_recurrent_cell_in_the_form_of_tensorflow_2_is_told(lowered: bool, loop: str, tmp_path: Path) -> None:
    """Its loop is a function, or one of `Enter` and `Exit`, where nothing says that the weights are always the same."""
    import tf_keras
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = tf_keras.Sequential([tf_keras.Input((6, 2)), tf_keras.layers.LSTM(4), tf_keras.layers.Dense(3)])
    run = importlib.import_module("tensorflow").function(lambda x: model(x, training=False))
    traced = run.get_concrete_function(tf.TensorSpec((None, 6, 2)))
    frozen = convert_variables_to_constants_v2(traced, lower_control_flow=lowered).graph.as_graph_def()
    for node in frozen.node:
        if node.op == "Enter":
            node.attr["is_constant"].b = False
    (tmp_path / "frozen.pb").write_bytes(frozen.SerializeToString())
    with pytest.raises(InputError, match=rf"not supported: {loop} \(a loop\)"):
        read_network(tmp_path / "frozen.pb")


def test_what_only_training_computes_is_no_output(tmp_path: Path) -> None:
    """As of a frozen training graph, whose updates of moving averages were made plain subtractions."""

    def build() -> dict[str, Tensor]:
        training = tf.placeholder_with_default(False, (), "phase_train")
        settings = {"is_training": training, "updates_collections": None, "fused": True}
        net = tf.placeholder(tf.float32, (None, 9, 9, 3), "images")
        net = slim.conv2d(net, 4, 3, normalizer_fn=slim.batch_norm, normalizer_params=settings, activation_fn=None)
        return {"net": tf.nn.softmax(tf.reduce_mean(net, [1, 2]), name="probabilities")}

    with first_control_flow():
        written = write(build, tmp_path, "frozen")
    frozen = tf.GraphDef.FromString(written.path.read_bytes())
    for node in frozen.node:
        node.op = "Sub" if node.op in ("AssignSub", "AssignSubVariableOp") else node.op.removeprefix("Ref")
    written.path.write_bytes(frozen.SerializeToString())
    assert "Sub" in {node.op for node in frozen.node if "AssignMovingAvg" in node.name}
    assert list(read_network(written.path).outputs) == ["probabilities"]


def test_a_variable_of_which_a_copy_is_saved_is_found(tmp_path: Path) -> None:
    """As Keras 3 saves some models: what runs is not what is saved, but what that begins with."""
    path = tmp_path / "model.ckpt"
    with tf.Graph().as_default(), tf.Session() as session:
        kernel = tf.get_variable("conv/kernel", (3, 3, 3, 4), use_resource=True)
        read = lambda: tf.raw_ops.ReadVariableOp(resource=kernel.handle, dtype=tf.float32)  # noqa: E731
        copy = tf.Variable(read, use_resource=True, name="Variable")
        images = tf.placeholder(tf.float32, (None, 9, 9, 3), "images")
        tf.nn.conv2d(images, kernel, 1, "SAME", name="conv")
        session.run(kernel.initializer)
        session.run(copy.initializer)
        tf.train.Saver({"layer/kernel": copy}).save(session, str(path))
        saved = session.run(copy)
    with open_checkpoint(path) as checkpoint:
        (found,) = dict(read_network(f"{path}.meta").arrays(checkpoint)).values()
    assert np.array_equal(found, saved)


def test_a_batch_in_a_flatten_is_told_to_the_judge(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        net = slim.conv2d(tf.placeholder(tf.float32, (None, 8, 8, 3), "images"), 4, 3, stride=2, scope="conv1")
        net = tf.reshape(net, [8, -1])
        net.set_shape((8, 64))
        return {"net": slim.fully_connected(net, 5, scope="fc", activation_fn=None)}

    written = write(build, tmp_path)
    user = read_network(written.path)
    assert user.context.batch == 8
    assert max(errors(user, written.weights, [1, 5], free_batch=True).values()) <= LIMIT


def _between(random: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """A decoder behind an encoder, with random numbers between them."""
    net = slim.conv2d(tf.placeholder(tf.float32, (None, 9, 9, 3), "images"), 4, 3, scope="conv1")
    mean = slim.conv2d(net, 4, 3, activation_fn=None, scope="mean")
    deviation = tf.exp(slim.conv2d(net, 4, 3, activation_fn=None, scope="deviation"), name="exp")
    return {"net": slim.conv2d(mean + deviation * random(tf.shape(mean)), 4, 3, scope="decoder")}


def test_normal_noise_that_a_graph_draws_is_an_input(tmp_path: Path) -> None:
    user = assert_equal(write(lambda: _between(tf.random_normal), tmp_path), (2, 3))
    assert list(user.inputs) == ["images", "random_normal/RandomStandardNormal"]
    note = "the normal noise that the graph draws is an input: random_normal/RandomStandardNormal"
    assert note in user.notes


def test_a_generator_whose_graph_draws_the_noise_is_a_network(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        net = slim.fully_connected(tf.random_normal([16, 5], name="noise"), 8, scope="fc1")
        return {"net": slim.fully_connected(net, 12, activation_fn=tf.nn.tanh, scope="fc2")}

    user = assert_equal(write(build, tmp_path), (16,))
    assert list(user.inputs) == ["noise/RandomStandardNormal"]


def test_other_random_numbers_within_are_told_with_all_that_comes_before(tmp_path: Path) -> None:
    written = write(lambda: _between(tf.random_uniform), tmp_path)
    with pytest.raises(InputError, match=r"RandomUniform.*--output mean/BiasAdd,exp$") as error:
        read_network(written.path)
    assert_equal(written, (2,), outputs=str(error.value).rpartition(" ")[2].split(","))


def test_what_is_not_supported_is_named_with_what_comes_before(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        net = slim.conv2d(tf.placeholder(tf.float32, (None, 9, 9, 3), "images"), 4, 3, scope="conv1")
        net = tf.cumsum(net, name="total")
        return {"net": slim.conv2d(net, 4, 3, scope="conv2")}

    written = write(build, tmp_path)
    with pytest.raises(InputError, match=r"not supported: Cumsum, node total.*--output conv1/Relu$") as error:
        read_network(written.path)
    assert [found.node for found in unsupported_nodes(written.path)] == ["total"]
    assert_equal(written, (2,), outputs=[str(error.value).rpartition(" ")[2]])


def _boxes(net: Tensor) -> Tensor:
    return tf.image.non_max_suppression(tf.reshape(net, [-1, 4]), tf.reshape(net, [-1, 4])[:, 0], 10)


def _characters(net: Tensor) -> Tensor:
    steps = tf.transpose(tf.reduce_max(net, 1), (1, 0, 2))
    return tf.nn.ctc_greedy_decoder(steps, tf.placeholder(tf.int32, (None,), "lengths"))[0][0].values


@pytest.mark.parametrize(
    ("behind", "op"),
    [
        (_boxes, "NonMaxSuppressionV3"),
        (_characters, "CTCGreedyDecoder"),
        (lambda net: tf.gather(tf.constant(["a", "b", "c", "d"]), tf.argmax(net, 3)), "GatherV2"),
        (lambda net: tf.as_string(net), "AsString"),
    ],
    ids=["detections", "ctc", "names of classes", "strings"],
)
def test_what_follows_a_network_is_left_out_or_refused_in_one_line(
    behind: Callable[[Tensor], Tensor], op: str, tmp_path: Path
) -> None:
    def build() -> dict[str, Tensor]:
        images = tf.placeholder(tf.float32, (None, 9, 9, 3), "images")
        net = slim.conv2d(images, 4, 3, activation_fn=None, scope="conv1")
        return {"last": tf.identity(behind(net), "last")}

    written = write(build, tmp_path)
    assert_equal(written, (2,), keras=False)
    with pytest.raises(InputError, match=rf"not supported: {op}, node .*--output [/\w,]+$") as error:
        read_network(written.path, outputs=["last"])
    assert_equal(written, (2,), keras=False, outputs=str(error.value).rpartition(" ")[2].split(","))


def test_parameters_are_named_after_their_layers(tmp_path: Path) -> None:
    def build() -> dict[str, Tensor]:
        net = tf.placeholder(tf.float32, (None, 8, 8, 3), "x")
        net = tf.nn.relu(tf.nn.conv2d(net, tf.Variable(tf.zeros((3, 3, 3, 4))), 1, "SAME", name="conv3"))
        net = tf.reshape(net + tf.Variable(tf.zeros(4)), [-1, 256])
        return {"net": tf.matmul(net, tf.Variable(tf.zeros((256, 5)), name="W_fc1"), name="MatMul")}

    user = read_network(write(build, tmp_path).path)
    assert "conv3/weights" in user.graph.variables
    assert "fc1/weights" in user.graph.variables
    assert user.sources["conv3/weights"].name == "Variable"


def test_a_saver_that_renames_variables_is_followed(tmp_path: Path) -> None:
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as session:
        slim.conv2d(tf.placeholder(tf.float32, (None, 9, 9, 3), "images"), 4, 3, scope="conv1")
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver({f"old/{variable.op.name}": variable for variable in tf.global_variables()})
        saver.save(session, str(tmp_path / "model.ckpt"))
    user = read_network(tmp_path / "model.ckpt.meta")
    assert {source.name for source in user.sources.values()} == {"old/conv1/weights", "old/conv1/biases"}


def test_a_run_of_the_first_tensorflow_is_read_from_its_graph_and_its_one_file(tmp_path: Path) -> None:
    """The op `Variable`, a Saver that writes V1, and a step behind a minus sign, as for the prefix `run/`."""
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as session:
        kernel = tf.Variable(tf.random_normal((3, 3, 3, 4)), use_resource=False)
        bias = tf.Variable(tf.random_normal((4,)), use_resource=False)
        tf.nn.relu(tf.nn.conv2d(tf.placeholder(tf.float32, (None, 9, 9, 3), "x"), kernel, 1, "SAME") + bias)
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(write_version=tf.train.SaverDef.V1)
        prefix = Path(saver.save(session, f"{tmp_path}/", global_step=500))
        arrays = dict(zip(("Variable", "Variable_1"), session.run([kernel, bias]), strict=True))
    meta = tf.MetaGraphDef.FromString(prefix.with_name("-500.meta").read_bytes())
    for node in meta.graph_def.node:
        node.op = "Variable" if node.op == "VariableV2" else node.op
    prefix.with_name("-500.meta").write_bytes(meta.SerializeToString())
    assert "SaveSlices" in {node.op for node in meta.graph_def.node}
    user = assert_equal(user_graphs.Written(prefix.with_name("-500.meta"), arrays, ()), (2,))
    assert list(user.graph.variables) == ["conv1/weights", "conv1/biases"]
    convert(prefix, tmp_path / "m.safetensors")
    convert(tmp_path / "m.safetensors", tmp_path / "back.ckpt")
    with open_checkpoint(tmp_path / "back.ckpt") as back:
        assert all(np.array_equal(back[name], array) for name, array in arrays.items())


def test_partitions_of_a_variable_are_one(tmp_path: Path) -> None:
    graph = tf.Graph()
    with graph.as_default(), tf.Session(graph=graph) as session:
        with tf.variable_scope("conv1", partitioner=tf.fixed_size_partitioner(2, axis=3)):
            kernel = tf.get_variable("weights", (3, 3, 3, 4), use_resource=False)
        tf.nn.conv2d(tf.placeholder(tf.float32, (None, 9, 9, 3), "x"), tf.convert_to_tensor(kernel), 1, "SAME")
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    user = read_network(tmp_path / "model.ckpt.meta")
    assert list(user.graph.variables.values()) == [(3, 3, 3, 4)]
    assert [source.name for source in user.sources.values()] == ["conv1/weights"]


# Files.


def test_neither_tensorflow_nor_torch_is_imported(tmp_path: Path) -> None:
    path = write(slim_network("vgg"), tmp_path).path
    script = (
        "import sys; from converters.graph_def import read_network; from converters.graph_def import known;"
        f"read_network({str(path)!r}); assert not {{'tensorflow', 'torch', 'keras'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_judge_writes_a_graph_that_tensorflow_imports(tmp_path: Path) -> None:
    written = write(slim_network("resnet_v1", is_training=True), tmp_path)
    serialized = Judge(read_network(written.path)).serialized()
    graph_def = tf.GraphDef.FromString(serialized)
    assert not [node for node in graph_def.node if "gradients" in node.name]
    with tf.Graph().as_default():
        tf.import_graph_def(graph_def)


@pytest.mark.parametrize("form", ["meta", "frozen", "saved_model"])
def test_damaged_files_give_one_clear_line(form: str, tmp_path: Path) -> None:
    written = write(slim_network("vgg"), tmp_path, form)
    path = written.path / "saved_model.pb" if form == "saved_model" else written.path
    whole, rng = path.read_bytes(), random.Random(0)
    damaged = tmp_path / f"damaged{path.suffix}"
    messages = []
    for _ in range(60):
        data = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.choice((0, 1, 8))):
            if data:
                data[rng.randrange(min(len(data), 20_000))] = rng.randrange(256)
        damaged.write_bytes(data)
        try:
            read_network(damaged)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert not [message for message in messages if "\n" in message]


@pytest.mark.parametrize("form", ["meta", "frozen", "saved_model"])
def test_a_graph_as_text_is_the_same(form: str, tmp_path: Path) -> None:
    written = write(slim_network("resnet_v1"), tmp_path, form)
    path = written.path / "saved_model.pb" if form == "saved_model" else written.path
    message = {"meta": tf.MetaGraphDef, "frozen": tf.GraphDef, "saved_model": SavedModel}[form]
    text = tmp_path / "graph.pbtxt"
    text.write_text(text_format.MessageToString(message.FromString(path.read_bytes())))
    known, user = read_network(written.path), read_network(text)
    assert (user.graph, user.inputs, user.outputs) == (known.graph, known.inputs, known.outputs)
    for name, array in known.constants.items():
        assert np.array_equal(user.constants[name], array)


def test_the_text_format_is_read_in_all_its_spellings(tmp_path: Path) -> None:
    (tmp_path / "graph.pbtxt").write_text(
        """# a graph
        node: < name: 'x' op: "Placeholder" attr { key: "dtype" value { type: 1 } }
                attr { key: "shape" value: { shape { dim { size: -1 }; dim { size: 0x2 } } } } >
        node { name: "w" op: "Const" attr { key: "value" value { tensor { dtype: DT_FLOAT
          tensor_shape { dim { size: 2 } dim { size: 3 } } float_val: [1.5, -2e0, 3f], float_val: inf
          tensor_content: "" } } } attr { key: "dtype" value { type: DT_FLOAT } } }
        node { name: "net" op: "Mat" 'Mul' input: "x" input: "w" unknown { deep: [{a: 1}, {a: "\\101"}] } }
        versions { producer: 24 }"""
    )
    user = read_network(tmp_path / "graph.pbtxt")
    assert (list(user.inputs), list(user.outputs)) == (["x"], ["net"])
    assert user.constants["w"].tolist() == [[1.5, -2, 3], [np.inf] * 3]


def test_damaged_text_gives_one_clear_line(tmp_path: Path) -> None:
    written = write(slim_network("vgg"), tmp_path)
    whole = text_format.MessageToString(tf.MetaGraphDef.FromString(written.path.read_bytes()).graph_def)
    rng, damaged = random.Random(0), tmp_path / "damaged.pbtxt"
    messages = []
    for _ in range(40):
        text = list(whole[: rng.randrange(200, len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.choice((1, 8, 40))):
            text[rng.randrange(100, len(text))] = rng.choice('{}<>[]:"\\ x7\n\u00e4')
        damaged.write_text("".join(text), encoding="utf-8")
        try:
            read_network(damaged)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert not [message for message in messages if "\n" in message]


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"PK\x03\x04", "a zip archive"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"version https://git-lfs.github", "git lfs"),
    ],
)
def test_another_format_is_named(start: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "model.pb").write_bytes(start + bytes(100))
    with pytest.raises(InputError, match=f"model.pb: not a TensorFlow graph: .*{words}"):
        open_graph(tmp_path / "model.pb")


def test_attributes_that_are_left_out_have_tensorflows_defaults(tmp_path: Path) -> None:
    """Of float32: 0.2 is 0.20000000298."""

    def build() -> dict[str, Tensor]:
        return {"net": tf.nn.leaky_relu(slim.conv2d(tf.placeholder(tf.float32, (None, 9, 9, 3), "images"), 4, 3))}

    path = write(build, tmp_path, "frozen").path
    graph_def = tf.GraphDef.FromString(path.read_bytes())
    for node in graph_def.node:
        node.attr.pop("alpha", None)
    path.write_bytes(graph_def.SerializeToString())
    assert max(errors(read_network(path), {}, [2]).values()) <= LIMIT


def test_tensorflows_first_batch_norm_is_one(tmp_path: Path) -> None:
    """An op that TensorFlow no longer writes."""

    def build() -> dict[str, Tensor]:
        net = slim.conv2d(tf.placeholder(tf.float32, (None, 9, 9, 3), "images"), 4, 3, activation_fn=None)
        names = ("mean", "variance", "beta", "gamma")
        values = [tf.get_variable(f"norm/{name}", (4,), use_resource=False) for name in names]
        net = tf.raw_ops.FusedBatchNorm(
            x=net, scale=values[3], offset=values[2], mean=values[0], variance=values[1], is_training=False, name="norm"
        )[0]
        return {"net": tf.nn.relu(net)}

    written = write(build, tmp_path)
    meta = tf.MetaGraphDef.FromString(written.path.read_bytes())
    node = next(node for node in meta.graph_def.node if node.op == "FusedBatchNorm")
    node.op = "BatchNormWithGlobalNormalization"
    data, gamma, beta, mean, variance = node.input
    node.input[:] = [data, mean, variance, beta, gamma]
    node.attr.clear()
    node.attr["variance_epsilon"].f = 0.001
    node.attr["scale_after_normalization"].b = True
    written.path.write_bytes(meta.SerializeToString())
    user = assert_equal(written, (2,))
    assert [node.op for node in user.graph.nodes] == ["input", "conv2d", "batch_norm"]


def test_what_is_no_graph_is_told(tmp_path: Path) -> None:
    for name, data in {"empty.pb": b"", "text.pb": b"graph { node }", "zeros.meta": bytes(100)}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            open_graph(tmp_path / name)
    with pytest.raises(InputError):
        open_graph(tmp_path / "missing.meta")
