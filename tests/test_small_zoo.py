"""AlexNet v2, OverFeat, CifarNet and LeNet: slim's own code is the judge, `research/slim` and `tf_slim.nets`."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_NETWORKS, random_images, random_weights, tf_session

from converters import frameworks
from converters.formats import models
from converters.parity import ports, tf_slim
from converters.parity.compare import compare
from converters.weights.recognize import networks as recognised
from slimport import networks
from slimport.networks.alexnet import AlexNetV2
from slimport.networks.cifarnet import CifarNet
from slimport.networks.lenet import LeNet
from slimport.networks.overfeat import OverFeat

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf
import tf_slim as slim

NAMES = ("alexnet_v2", "overfeat", "cifarnet", "lenet")


def check_against_slim(network: networks.Network, size: tuple[int, int], **arguments: Any) -> None:
    """Every end point of both ports is slim's, in slim's order, in float64."""
    weights = random_weights(network)
    images = random_images((2, *size, network.in_channels))
    truth = tf_slim.record(network, "a/net", weights, images, "float64", **arguments)
    assert list(truth) == network.end_points("a/net", **arguments)
    model = models.pytorch_port(network, weights.items(), scope="a/net", **arguments)
    found = {"PyTorch": ports.record_pytorch(model, images, "float64", "cpu")}
    model = models.keras_port(network, weights.items(), scope="a/net", **arguments)
    found["Keras"] = ports.record_keras(model, "a/net", images, "float64", "cpu")
    for framework, end_points in found.items():
        worst = max(compare(end_points, truth), key=lambda row: row.rel_l2)
        assert worst.ok, (framework, worst)


def slims_graph(network: networks.Network, is_training: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The variables and the end points that slim's own code makes, in its order."""
    judge = import_module(f"slimport.nets.{network.family}")
    side = network.default_image_size
    with (
        tf.Graph().as_default(),
        tf_slim.building_graphs(),
        tf_slim.feeding_variables(),
        slim.arg_scope(judge.arg_scope()),
    ):
        images = tf.placeholder(tf.float32, (1, side, side, network.in_channels))
        _, end_points = judge.build(network, images, is_training=is_training, scope="net")
        variables = {v.op.name.removeprefix("net/"): tuple(v.shape.as_list()) for v in tf.global_variables()}
    return variables, list(end_points)


def under(scope: str, network: networks.Network) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's variables in a file."""
    return {f"{scope}/{name}" if scope else name: shape for name, shape in network.variables().items()}


@pytest.mark.parametrize(
    ("network", "size", "arguments"),
    [
        (SMALL_NETWORKS["alexnet"], (224, 224), {}),
        (SMALL_NETWORKS["alexnet"], (231, 260), {"spatial_squeeze": False}),
        (SMALL_NETWORKS["alexnet"], (240, 231), {"global_pool": True}),
        (replace(SMALL_NETWORKS["alexnet"], num_classes=None), (224, 227), {}),  # type: ignore[type-var]
        (SMALL_NETWORKS["overfeat"], (231, 231), {}),
        (SMALL_NETWORKS["overfeat"], (260, 240), {"spatial_squeeze": False}),
        (SMALL_NETWORKS["overfeat"], (232, 263), {"global_pool": True}),
        (SMALL_NETWORKS["cifarnet"], (32, 32), {}),
        (SMALL_NETWORKS["cifarnet"], (33, 35), {}),
        (CifarNet(7, depths=(10, 12, 9, 8), map_area=40), (34, 20), {}),
        (SMALL_NETWORKS["lenet"], (28, 28), {}),
        (SMALL_NETWORKS["lenet"], (29, 31), {}),
        (LeNet(None, in_channels=3, depths=(4, 6, 9), map_area=40), (20, 35), {}),
    ],
)
def test_every_end_point_is_slims(network: networks.Network, size: tuple[int, int], arguments: dict[str, Any]) -> None:
    assert tf_slim.judge(network) == "research/slim"
    check_against_slim(network, size, **arguments)


@pytest.mark.parametrize("name", NAMES)
def test_variables_and_end_points_are_slims_in_its_order(name: str) -> None:
    network = networks.NETWORKS[name]
    variables, end_points = slims_graph(network)
    assert list(variables.items()) == list(network.variables().items())
    assert end_points == network.end_points("net")


@pytest.mark.parametrize("name", ["alexnet_v2", "overfeat"])
def test_tf_slims_own_module_makes_the_same_variables_and_end_points(name: str) -> None:
    network = networks.NETWORKS[name]
    module = import_module(f"tf_slim.nets.{network.family}")
    side = network.default_image_size
    with tf.Graph().as_default(), slim.arg_scope(getattr(module, f"{name}_arg_scope")()):
        _, end_points = getattr(module, name)(tf.placeholder(tf.float32, (1, side, side, 3)), 1000)
        variables = {v.op.name.removeprefix(f"{name}/"): tuple(v.shape.as_list()) for v in tf.global_variables()}
    assert list(variables.items()) == list(network.variables().items())
    assert list(end_points) == network.end_points(name)


@pytest.mark.parametrize("family", ["alexnet", "overfeat", "cifarnet", "lenet"])
def test_biases_and_kernels_start_and_are_regularized_as_slims(family: str) -> None:
    network = SMALL_NETWORKS[family]
    judge = import_module(f"slimport.nets.{family}")
    side = network.default_image_size
    with tf.Graph().as_default(), tf_session() as session, slim.arg_scope(judge.arg_scope(weight_decay=1e-3)):
        judge.build(network, tf.zeros((1, side, side, network.in_channels)), scope="net")
        tf.set_random_seed(0)
        session.run(tf.global_variables_initializer())
        values = {v.op.name.removeprefix("net/"): session.run(v) for v in tf.global_variables()}
        losses = [loss.op.name for loss in tf.losses.get_regularization_losses()]
    for node in network.graph().nodes:
        if not node.attributes.get("initializer"):
            continue
        assert set(values[f"{node.scope}/biases"]) == {np.float32(node.attributes.get("biases_initializer", 0.0))}
        kind, *deviation = node.attributes["initializer"]
        kernel = values[f"{node.scope}/weights"]
        if kind == "xavier":
            assert np.abs(kernel).max() <= (6 / (np.prod(kernel.shape[:-2]) * sum(kernel.shape[-2:]))) ** 0.5
        else:
            assert 1.2 * deviation[0] < np.abs(kernel).max() <= 2 * deviation[0]
        regularized = any(f"net/{node.scope}/" in name for name in losses)
        assert regularized == node.attributes.get("regularized", True)


def test_local_response_normalization_is_tensorflows_op() -> None:
    from slimport.nets.interpreter import lrn

    net = random_images((2, 5, 6, 20))
    settings = (4, 1.0, 0.3, 0.75)
    with tf.Graph().as_default(), tf_session() as session:
        op, written_out = session.run((lrn(tf.constant(net), *settings), lrn(tf.constant(net, tf.float64), *settings)))
    np.testing.assert_allclose(op, written_out, rtol=1e-6)


@pytest.mark.parametrize("scope", ["", "a/net"])
@pytest.mark.parametrize(
    "network",
    [
        *(networks.NETWORKS[name] for name in NAMES),
        *(SMALL_NETWORKS[family] for family in ("alexnet", "overfeat", "cifarnet", "lenet")),
        AlexNetV2(None, in_channels=1),
        OverFeat(None, fc_depths=(9, 8)),
        CifarNet(None),
        LeNet(None, depths=(64, 64, 384)),
        LeNet(12, in_channels=3, map_area=64),
    ],
)
def test_it_is_recognised_under_any_scope(network: networks.Network, scope: str) -> None:
    [found] = recognised({**under(scope, network), "global_step": ()})
    assert (found.network, found.scope, found.complete) == (network, scope, True)
    assert found.network.name == network.name


def test_a_trunk_is_alexnets_or_overfeats_by_its_depths() -> None:
    for name in ("alexnet_v2", "overfeat"):
        network = replace(networks.NETWORKS[name], final_endpoint="pool5")  # type: ignore[type-var]
        [found] = recognised(under("net", network))
        assert str(found) == f"{name} to pool5, no logits, scope 'net'" or found.network.final_endpoint == "conv5"
        assert found.network.variables() == network.variables()


@pytest.mark.parametrize("scope", ["alexnet_v2", "LeNet"])
def test_somebodys_own_network_is_not_claimed(scope: str) -> None:
    own: dict[str, tuple[int, ...]] = {f"{scope}/conv{i}/weights": (3, 3, 8, 8) for i in range(1, 6)}
    own |= {f"{scope}/conv{i}/biases": (8,) for i in range(1, 6)}
    assert not recognised({**own, f"{scope}/fc3/weights": (72, 5), f"{scope}/fc6/weights": (5, 5, 8, 9)})


def test_a_missing_layer_is_named() -> None:
    shapes = under("net", networks.NETWORKS["lenet"])
    del shapes["net/conv2/biases"]
    [found] = recognised(shapes)
    assert found.network == networks.NETWORKS["lenet"]
    assert found.filled == {"net/conv2/biases": 0.0}
