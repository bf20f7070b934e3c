"""`slimport.nets.resnet_v1_beta` is DeepLab's: the judge is its description, written with tf_slim's layers and units.

The description: root of `conv1_1` (stride 2), `conv1_2` and `conv1_3`, all 3x3, or of a 7x7 `conv1`; `pool1`; blocks
whose stride sits in the last unit; units of `bottleneck_v1`, or of two 3x3 convolutions where the second has the stride
and no activation; `unit_rate` multiplies the rate of the output stride.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_NETWORKS, random_images, random_weights, tf_session

from converters import frameworks
from converters.formats import models
from converters.parity import ports, tf_slim
from converters.parity.compare import compare
from converters.weights.recognize import recognize
from slimport import networks
from slimport.graph import scoped
from slimport.networks.deeplab import DeepLab

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


def pool1_of(module: Any, build: Any) -> str:
    """The padding of `pool1` where the arg scope says VALID."""
    with tf.Graph().as_default() as graph, slim.arg_scope(module.resnet_arg_scope()):
        with slim.arg_scope([slim.max_pool2d], padding="VALID"):
            build(tf.zeros((1, 65, 65, 3)))
        (pool,) = (node for node in graph.as_graph_def().node if node.name.endswith("pool1/MaxPool"))
        return str(pool.attr["padding"].s.decode())


def test_pool1_is_same_whatever_the_arg_scope_says_which_slims_own_follows() -> None:
    from slimport.nets import resnet_v1 as slims
    from slimport.nets import resnet_v1_beta as deeplabs

    assert pool1_of(deeplabs, deeplabs.resnet_v1_18_beta) == "SAME"
    block = slims.resnet_v1_block("block1", 2, 1, 1)
    assert pool1_of(slims, lambda images: slims.resnet_v1(images, [block])) == "VALID"


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
    with tf.Graph().as_default(), tf_slim.building_graphs(), tf_slim.feeding_variables(), tf_session() as session:
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


def small_deeplab(**settings: Any) -> DeepLab:
    shape = ((4, 3, 2), (5, 1, 2), (6, 2, 1))
    blocks = tuple(networks.resnet_v1_block(f"block{i}", *of) for i, of in enumerate(shape, start=1))
    return DeepLab(networks.ResNetV1Beta(blocks, root_depths=(4, 5, 6)), 5, **{"depth": 6, **settings})


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        (small_deeplab(decoder_depth=3), {"output_stride": 8, "atrous_rates": (1, 2, 3), "multi_grid": (1, 2)}),
        (small_deeplab(aspp_separable=False, decoder_separable=False), {"output_stride": 16}),
        (small_deeplab(decoder=False, image_pooling=False, atrous_branches=0), {"output_stride": 8}),
    ],
    ids=["v3+", "not separable", "no pyramid and no decoder"],
)
@pytest.mark.parametrize("size", [(64, 64), (65, 81)])
def test_the_pyramid_and_the_decoder_are_deeplabs(
    network: DeepLab, arguments: dict[str, Any], size: tuple[int, int]
) -> None:
    weights, images = random_weights(network), random_images((2, *size, 3))
    truth = tf_slim.record(network, "net", weights, images, "float64", **arguments)
    assert list(truth) == network.end_points("net", **arguments)
    assert truth["net/logits"].shape[1] == -(-size[0] // (4 if network.decoder else arguments["output_stride"]))
    model = models.pytorch_port(network, weights.items(), scope="net", **arguments)
    rows = compare(ports.record_pytorch(model, images, "float64", "cpu"), truth)
    assert not [row for row in rows if not row.ok]
    model = models.keras_port(network, weights.items(), scope="net", image_size=size, **arguments)
    assert not [row for row in compare(ports.record_keras(model, "net", images, "float64", "cpu"), truth) if not row.ok]


@pytest.mark.parametrize("name", ["deeplab_xception_65", "deeplab_mobilenet_v2"])
def test_its_backbone_is_a_part_of_it_and_can_be_chosen(name: str) -> None:
    network = networks.NETWORKS[name]
    assert isinstance(network, DeepLab)
    shapes = dict(network.variables())
    found = recognize(shapes, "file")
    assert (found.network, found.scope, found.complete) == (network, "", True)
    backbone = recognize(shapes, "file", network.backbone.default_scope)
    assert (backbone.network.name, backbone.complete) == (network.backbone.name, True)


@pytest.mark.parametrize(
    "network",
    [small_deeplab(decoder_depth=3), small_deeplab(aspp_separable=False, decoder=False, decoder_separable=False)],
)
def test_it_is_recognised_from_its_variables_and_its_json(network: DeepLab) -> None:
    variables = {scoped("a/net", name): shape for name, shape in network.variables().items()}
    found = recognize(variables, "file", "a/net")
    assert (found.network, found.complete) == (network, True)
    assert networks.from_json(json.loads(json.dumps(network.to_json()))) == network


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="atrous_rates needs 3 rates"):
        small_deeplab().graph(output_stride=8, atrous_rates=(1, 2))
    with pytest.raises(ValueError, match="not its logits"):
        DeepLab(networks.NETWORKS["xception_65"])


def test_a_description_of_another_backbone_is_refused() -> None:
    described = small_deeplab().to_json()
    with pytest.raises(ValueError, match="not complete"):
        networks.from_json({**described, "backbone": {**described["backbone"], "family": "vgg"}})
