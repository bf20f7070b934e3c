"""NASNet-A and PNASNet-5: slim's own code is the judge. timm's and keras.applications' NASNets compute other things."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_NETWORKS, pytorch_port, random_images, random_weights
from test_small_zoo import check_against_slim, slims_graph, under

from converters import frameworks
from converters.parity import tf_slim
from converters.parity.compare import rel_l2
from converters.weights.recognize import networks as recognised
from slimport import networks
from slimport.networks.nasnet import NASNet
from slimport.networks.pnasnet import PNASNet

frameworks.require("slimport.nets")

NAMES = ("nasnet_cifar", "nasnet_mobile", "nasnet_large", "pnasnet_mobile", "pnasnet_large")
SMALL = NASNet(3, 4, 7, aux_kernel_size=(1, 1))
LARGE = NASNet(3, 4, 7, stem_multiplier=3.0, create_aux_logits=False)


@pytest.mark.parametrize(
    ("network", "size", "arguments"),
    # Auxiliary heads are in test_families.py.
    [
        (LARGE, (67, 98), {}),
        (PNASNet(3, 5, None, stem_multiplier=3.0), (66, 99), {}),
    ],
)
def test_every_end_point_is_slims(network: networks.Network, size: tuple[int, int], arguments: dict[str, Any]) -> None:
    assert tf_slim.judge(network) == "research/slim"
    check_against_slim(network, size, **arguments)


@pytest.mark.parametrize("network", [SMALL, SMALL_NETWORKS["pnasnet"]])
def test_variables_and_end_points_are_those_of_slims_training_graph_in_its_order(network: networks.Network) -> None:
    variables, end_points = slims_graph(network, is_training=True)
    assert list(variables.items()) == list(network.variables().items())
    assert end_points == network.end_points("net")


# What slim's training graphs of full size had, built once: they take a minute.
@pytest.mark.parametrize(
    ("name", "count", "digest"),
    [
        ("nasnet_cifar", 1436, "351c9720c481dfa9"),
        ("nasnet_mobile", 1138, "0c691c341e386c82"),
        ("nasnet_large", 1558, "27de244f72a406c7"),
        ("pnasnet_mobile", 945, "e623eee9f7c81d70"),
        ("pnasnet_large", 1191, "4e3a81f9075006ac"),
    ],
)
def test_full_size_networks_have_the_variables_of_slims_in_its_order(name: str, count: int, digest: str) -> None:
    variables = networks.NETWORKS[name].variables()
    lines = "".join(f"{key} {list(shape)}\n" for key, shape in variables.items())
    assert (len(variables), hashlib.sha256(lines.encode()).hexdigest()[:16]) == (count, digest)


# Without the auxiliary head and with 1001 classes; keras.applications' two have 1000, and timm's `pnasnet5large` too.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("nasnet_mobile", 5_326_716 + 1056 + 1),
        ("nasnet_large", 88_949_818 + 4032 + 1),
        ("pnasnet_large", 86_057_668 + 4320 + 1),
    ],
)
def test_full_size_networks_have_as_many_parameters_as_others_ports(name: str, parameters: int) -> None:
    variables = networks.NETWORKS[name].without_auxiliary().variables()
    # timm counts what is trained.
    counted = {key: shape for key, shape in variables.items() if name.startswith("nasnet") or "/moving_" not in key}
    assert sum(int(np.prod(shape)) for shape in counted.values()) == parameters


@pytest.mark.parametrize("name", NAMES)
def test_the_auxiliary_head_stands_behind_the_cell_before_the_second_reduction(name: str) -> None:
    network = networks.NETWORKS[name]
    cell = {"nasnet_mobile": 7, "pnasnet_mobile": 5, "pnasnet_large": 7}.get(name, 11)
    points = network.end_points("")
    assert points[points.index("AuxLogits") - 1] == f"Cell_{cell}"
    assert f"aux_{cell}/aux_logits/FC/weights" in network.variables()
    assert not any(key.startswith("aux_") for key in network.without_auxiliary().variables())


def test_only_nasnet_has_reduction_cells_and_cifars_epsilon_is_its_own() -> None:
    for name in NAMES:
        network = networks.NETWORKS[name]
        assert any(key.startswith("reduction_cell_1/") for key in network.variables()) == name.startswith("nasnet")
        norms = [node.attributes for node in network.graph().nodes if node.op == "batch_norm"]
        epsilon, decay = (1e-5, 0.9) if name == "nasnet_cifar" else (1e-3, 0.9997)
        assert {(norm["epsilon"], norm["decay"], norm["scale"]) for norm in norms} == {(epsilon, decay, True)}


def test_a_factorized_reduction_puts_the_odd_channel_into_its_second_path() -> None:
    shapes = replace(SMALL, num_conv_filters=5).variables()
    assert shapes["cell_1/path1_conv/weights"][-1] + shapes["cell_1/path2_conv/weights"][-1] == 10
    shapes = replace(SMALL, num_conv_filters=14).variables()
    assert [shapes[f"cell_stem_1/path{i}_conv/weights"][-1] for i in (1, 2)] == [3, 4]


def test_training_is_slims() -> None:
    torch = frameworks.require("torch")
    network = SMALL_NETWORKS["nasnet"]
    weights, images = random_weights(network), random_images((3, 14, 13, 3))
    arguments: dict[str, Any] = {"dense_dropout_keep_prob": 1.0}
    with tf_slim.SlimGraph(network, "", weights, "float64", size=(14, 13), is_training=True, **arguments) as graph:
        truth = graph.run(images)
    model = pytorch_port(network, weights, **arguments).double().train()
    _, found = model.end_points(torch.from_numpy(images).double().permute(0, 3, 1, 2))
    assert list(found) == list(truth)
    for name, value in found.items():
        array = value.detach().permute(0, 2, 3, 1) if value.dim() == 4 else value.detach()
        assert rel_l2(array.numpy(), truth[name]) < 1e-12, name


# Without a scope of its own; under the Object Detection API's; and with drop path's step inside a cell.
@pytest.mark.parametrize("scope", ["", "FirstStageFeatureExtractor", "a/net"])
@pytest.mark.parametrize(
    "network",
    [
        *(networks.NETWORKS[name] for name in NAMES),
        *(SMALL_NETWORKS["nasnet"], SMALL, LARGE, SMALL_NETWORKS["pnasnet"]),
        NASNet(7, 10, 5, in_channels=1, stem="cifar", stem_multiplier=2.0, aux_kernel_size=(3, 5)),
        PNASNet(6, 12, 5, in_channels=4, stem_multiplier=0.5, create_aux_logits=False),
    ],
)
def test_it_is_recognised_under_any_scope(network: networks.Network, scope: str) -> None:
    step = "cell_stem_0/comb_iter_0/left/global_step"
    [found] = recognised({**under(scope, network), f"{scope}/{step}".lstrip("/"): ()})
    assert (found.network, found.scope, found.complete) == (network, scope, True)
    assert found.network.name == network.name
    assert list(found.extras) == ["training_state"]


@pytest.mark.parametrize(
    ("name", "end"),
    [("nasnet_large", "Cell_11"), ("nasnet_mobile", "Cell_3"), ("pnasnet_large", "Cell_7"), ("pnasnet_mobile", "Stem")],
)
def test_a_trunk_is_named_with_its_end(name: str, end: str) -> None:
    network = replace(networks.NETWORKS[name], final_endpoint=end)  # type: ignore[type-var]
    head = {"SecondStageFeatureExtractor/cell_12/1x1/weights": (1, 1, 4032, 672)}
    [found] = recognised({**under("FirstStageFeatureExtractor", network), **head})
    assert str(found) == f"{name} to {end}, no logits, scope 'FirstStageFeatureExtractor'"
    assert found.complete


def test_a_missing_variable_is_named() -> None:
    shapes = under("", networks.NETWORKS["nasnet_mobile"])
    del shapes["cell_5/comb_iter_0/left/bn_sep_5x5_1/beta"], shapes["cell_0/1x1/weights"]
    [found] = recognised(shapes)
    assert found.network == networks.NETWORKS["nasnet_mobile"]
    assert found.missing == ("cell_0/1x1/weights",)
    assert list(found.filled) == ["cell_5/comb_iter_0/left/bn_sep_5x5_1/beta"]


def test_fewer_than_three_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="num_cells 2: must be 3 or more"):
        NASNet(2, 4)
