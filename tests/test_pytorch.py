"""The PyTorch port is the TF-Slim graph, at every end point."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import DEPTHS, SMALL, named, pytorch_port, random_images, random_weights

import slimport.pytorch
from converters.parity import ports, tf_slim
from converters.parity.compare import compare, rounding_of
from slimport import networks

SIZES = ((97, 97), (112, 112), (225, 225), (120, 161))


def assert_equal(rows: Any) -> None:
    assert not [row for row in rows if not row.ok]


def test_it_is_the_tf_slim_graph_in_float64_and_within_its_rounding_in_float32_at_every_size() -> None:
    # scripts/studies/parity_matrix.py runs the deeper ones.
    network = named("resnet_v2_50")
    weights = random_weights(network)
    exact, rounded = pytorch_port(network, weights).double(), pytorch_port(network, weights)
    with (
        tf_slim.SlimGraph(network, network.name, weights, "float64") as exact_graph,
        tf_slim.SlimGraph(network, network.name, weights, "float32") as rounded_graph,
    ):
        for size in SIZES:
            images = random_images((1, *size, 3))
            truth = exact_graph.run(images)
            rows = compare(ports.record_pytorch(exact, images, "float64", "cpu"), truth)
            assert [row.name for row in rows] == network.end_points(network.name)
            assert_equal(rows)
            port = ports.record_pytorch(rounded, images, "float32", "cpu")
            assert_equal(compare(port, truth, rounding_of(rounded_graph.run(images), truth)))


@pytest.mark.parametrize(
    ("network", "scope", "arguments"),
    [
        (SMALL, "deep/er/net", {"output_stride": 4, "global_pool": False, "spatial_squeeze": False}),
        (SMALL, "", {"output_stride": 8, "global_pool": False, "spatial_squeeze": False}),
        (SMALL, "net", {"spatial_squeeze": False}),
        (networks.ResNetV2(SMALL.blocks), "", {}),
        (networks.ResNetV2(SMALL.blocks), "deep/er/net", {"global_pool": False}),
        (networks.ResNetV2(SMALL.blocks, 7, in_channels=1), "net", {}),
        (networks.ResNetV2(SMALL.blocks, 7, in_channels=16, include_root_block=False), "net", {"output_stride": 1}),
    ],
)
def test_arguments_mean_what_they_mean_in_slim(network: networks.ResNet, scope: str, arguments: dict[str, Any]) -> None:
    weights = random_weights(network)
    model = pytorch_port(network, weights, scope=scope, **arguments)
    images = random_images((2, 33, 46, network.in_channels))
    truth = tf_slim.record(network, scope, weights, images, "float64", **arguments)
    assert_equal(compare(ports.record_pytorch(model, images, "float64", "cpu"), truth))


# 8 and 32 are in the study of scripts/studies/parity_matrix.py.
@pytest.mark.parametrize("output_stride", [4, 16])
def test_atrous_rates_are_slims(output_stride: int) -> None:
    network = named("resnet_v2_50", 21)
    arguments = {"output_stride": output_stride, "global_pool": False, "spatial_squeeze": False}
    weights = random_weights(network)
    model = pytorch_port(network, weights, **arguments)
    images = random_images((2, 33, 46, 3))
    truth = tf_slim.record(network, network.name, weights, images, "float64", **arguments)
    assert_equal(compare(ports.record_pytorch(model, images, "float64", "cpu"), truth))


@pytest.mark.parametrize("name", DEPTHS)
def test_the_functions_make_the_network_of_their_name(name: str) -> None:
    model = getattr(slimport.pytorch, name)(num_classes=10, output_stride=16, in_channels=1)
    assert model.network == networks.ResNetV2(networks.ResNetV2.depths[name], 10, 1)
    assert model.arguments["output_stride"] == 16
    assert model.scope == name


def test_forward_gives_the_output_of_end_points() -> None:
    model = slimport.pytorch.resnet_v2(SMALL.blocks, 7).eval()
    images = torch.rand(2, 3, 40, 40)
    net, end_points = model.end_points(images)
    assert net.shape == (2, 7)
    assert torch.equal(model(images), net)
    assert torch.equal(end_points["resnet_v2/spatial_squeeze"], net)


def test_batch_norm_is_slims() -> None:
    norms = [m for m in slimport.pytorch.resnet_v2_50().modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {(m.eps, round(m.momentum or 0, 12)) for m in norms} == {(1e-5, 0.003)}
    assert len(norms) == 49


def test_a_map_that_cannot_be_squeezed_is_refused() -> None:
    model = slimport.pytorch.resnet_v2(SMALL.blocks, 7, global_pool=False).eval()
    with pytest.raises(ValueError, match="spatial_squeeze needs logits of 1x1, not 5x5: pass spatial_squeeze=False"):
        model(torch.rand(1, 3, 40, 40))


def test_a_network_without_units_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one block"):
        slimport.pytorch.resnet_v2([])


def test_the_identity_shortcut_is_a_view() -> None:
    node = next(node for node in SMALL.graph().nodes if node.scope.endswith("shortcut") and node.op == "max_pool2d")
    images = torch.rand(1, 4, 9, 8)
    view = slimport.pytorch.layers.MaxPool2d(node)(images)
    assert view.data_ptr() == images.data_ptr()
    np.testing.assert_array_equal(view, torch.nn.functional.max_pool2d(images, 1, 2))
