"""`slimport.nets.resnet_v1_beta` is DeepLab's: the judge is its description, written with tf_slim's layers and units.

The description: root of `conv1_1` (stride 2), `conv1_2` and `conv1_3`, all 3x3, or of a 7x7 `conv1`; `pool1`; blocks
whose stride sits in the last unit; units of `bottleneck_v1`, or of two 3x3 convolutions where the second has the stride
and no activation; `unit_rate` multiplies the rate of the output stride.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_NETWORKS, random_images, random_weights, tf_session

from converters import frameworks
from converters.parity import tf_slim
from converters.weights.recognize import recognize
from slimport import networks
from slimport.graph import scoped

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf
import tf_slim as slim
from tf_slim.nets import resnet_utils, resnet_v1


def bottleneck(inputs: Any, depth: int, depth_bottleneck: int, stride: int, unit_rate: int, rate: int) -> Any:
    return resnet_v1.bottleneck(inputs, depth, depth_bottleneck, stride, rate * unit_rate)


def lite_bottleneck(inputs: Any, depth: int, stride: int, unit_rate: int, rate: int) -> Any:
    with tf.variable_scope("lite_bottleneck_v1"):
        if inputs.shape[3] == depth:
            shortcut = resnet_utils.subsample(inputs, stride)
        else:
            shortcut = slim.conv2d(inputs, depth, 1, stride, activation_fn=None, scope="shortcut")
        net = slim.conv2d(inputs, depth, 3, rate=rate * unit_rate, scope="conv1")
        with slim.arg_scope([slim.conv2d], activation_fn=None):
            net = resnet_utils.conv2d_same(net, depth, 3, stride, rate * unit_rate, scope="conv2")
        return tf.nn.relu(net + shortcut)


def features(
    images: Any, units: list[list[dict[str, int]]], root_depths: tuple[int, ...], output_stride: int | None
) -> Any:
    """DeepLab's network without logits, under no scope; units without `depth_bottleneck` are lite ones."""
    net = images
    if len(root_depths) == 1:
        net = resnet_utils.conv2d_same(net, root_depths[0], 7, stride=2, scope="conv1")
    else:
        for number, depth in enumerate(root_depths, start=1):
            net = resnet_utils.conv2d_same(net, depth, 3, stride=2 if number == 1 else 1, scope=f"conv1_{number}")
    net = slim.max_pool2d(net, 3, stride=2, padding="SAME")
    unit_fn = bottleneck if "depth_bottleneck" in units[0][0] else lite_bottleneck
    blocks = [resnet_utils.Block(f"block{number}", unit_fn, args) for number, args in enumerate(units, start=1)]
    return resnet_utils.stack_blocks_dense(net, blocks, output_stride // 4 if output_stride else None)


def lite(depth: int, count: int, stride: int, rates: tuple[int, ...] | None = None) -> list[dict[str, int]]:
    strides = [1] * (count - 1) + [stride]
    return [{"depth": depth, "stride": s, "unit_rate": r} for s, r in zip(strides, rates or [1] * count, strict=True)]


def deep(depth: int, count: int, stride: int, rates: tuple[int, ...] | None = None) -> list[dict[str, int]]:
    return [{**unit, "depth": 4 * depth, "depth_bottleneck": depth} for unit in lite(depth, count, stride, rates)]


def eighteen(rates: tuple[int, ...] | None = None) -> list[list[dict[str, int]]]:
    return [lite(64, 2, 2), lite(128, 2, 2), lite(256, 2, 2), lite(512, 2, 1, rates)]


@pytest.mark.parametrize(
    ("network", "units", "root_depths", "arguments"),
    [
        (networks.NETWORKS["resnet_v1_18"], eighteen(), (64,), {}),
        (
            networks.NETWORKS["resnet_v1_18_beta"],
            eighteen((1, 2)),
            (16, 16, 32),
            {"output_stride": 16, "multi_grid": (1, 2)},
        ),
        (
            replace(SMALL_NETWORKS["resnet_v1_beta"], num_classes=None, root_depths=(64, 64, 128)),
            [deep(4, 2, 2), deep(8, 3, 1, (1, 2, 4))],
            (64, 64, 128),
            {"output_stride": 4, "multi_grid": (1, 2, 4)},
        ),
    ],
    ids=["resnet_v1_18", "resnet_v1_18_beta", "beta with a multi-grid"],
)
def test_features_are_those_of_deeplabs_description(
    network: networks.ResNetV1Beta, units: Any, root_depths: tuple[int, ...], arguments: dict[str, Any]
) -> None:
    weights = random_weights(network)
    images = random_images((2, 65, 50, 3))
    ours = tf_slim.record(network, "net", weights, images, "float64", **arguments)
    with tf.Graph().as_default(), tf_slim.building_graphs(), tf_session() as session:
        inference = slim.arg_scope([slim.batch_norm], is_training=False, fused=False)
        with slim.arg_scope(resnet_v1.resnet_arg_scope()), inference:
            net = features(tf.constant(images, tf.float64), units, root_depths, arguments.get("output_stride"))
        variables = {v.op.name: v for v in tf.global_variables()}
        assert {name: tuple(v.shape.as_list()) for name, v in variables.items()} == network.variables()
        session.run(
            [v.initializer for v in variables.values()],
            {v.initializer.inputs[1]: weights[name] for name, v in variables.items()},
        )
        np.testing.assert_allclose(ours[f"net/{network.blocks[-1].scope}"], session.run(net), rtol=1e-12, atol=1e-12)


def test_the_deep_ones_are_slims_with_another_root() -> None:
    for depth in (50, 101):
        slims = dict(networks.NETWORKS[f"resnet_v1_{depth}"].variables())
        beta = dict(networks.NETWORKS[f"resnet_v1_{depth}_beta"].variables())
        different = {name for name in slims.keys() & beta.keys() if slims[name] != beta[name]}
        # What takes the root's 128 channels.
        assert different == {f"block1/unit_1/bottleneck_v1/{layer}/weights" for layer in ("shortcut", "conv1")}
        assert {name.split("/")[0] for name in slims.keys() - beta.keys()} == {"conv1", "logits"}
        assert {name.split("/")[0] for name in beta.keys() - slims.keys()} == {"conv1_1", "conv1_2", "conv1_3"}


def test_the_backbone_of_a_deeplab_checkpoint_is_found() -> None:
    network = networks.NETWORKS["resnet_v1_50_beta"]
    shapes = {scoped("resnet_v1_50", name): shape for name, shape in network.variables().items()}
    beside = {"aspp0/weights": (1, 1, 2048, 256), "logits/semantic/weights": (1, 1, 256, 21), "global_step": ()}
    found = recognize({**shapes, **beside}, "file")
    assert (found.network, found.scope, found.complete) == (network, network.default_scope, True)
    assert {name for names in found.extras.values() for name in names} == set(beside)


def test_a_multi_grid_of_another_length_is_refused() -> None:
    import slimport.keras
    import slimport.pytorch
    from slimport.nets import resnet_v1_beta

    for function in (slimport.pytorch.resnet_v1_18_beta, slimport.keras.resnet_v1_18_beta):
        with pytest.raises(ValueError, match="multi_grid needs 2 rates, one for each unit of block4"):
            function(multi_grid=(1, 2, 4))
    with tf.Graph().as_default(), pytest.raises(ValueError, match="multi_grid needs 3 rates"):
        resnet_v1_beta.resnet_v1_50(tf.zeros((1, 65, 65, 3)), multi_grid=(1, 2))
