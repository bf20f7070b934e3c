"""Where slim's networks break their own pattern: names, shapes and settings, as slim's files have them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from slimport.graph import Node
from slimport.names import pytorch_name
from slimport.networks import NETWORKS, Network
from slimport.nodes import FACTORS


def node(network: Network, scope: str) -> Node:
    """The last node of a scope."""
    return [node for node in network.graph().nodes if node.scope == scope][-1]


def auxiliary(name: str, **fields: Any) -> dict[str, tuple[int, ...]]:
    """The auxiliary head's kernels in a file."""
    variables = replace(NETWORKS[name], **fields).variables()  # type: ignore[type-var]
    kernels = {key: shape for key, shape in variables.items() if key.endswith("/weights")}
    return {key.split("/")[1]: shape for key, shape in kernels.items() if key.startswith("AuxLogits/")}


@pytest.mark.parametrize(
    ("name", "at_224", "at_299", "last"),
    [
        ("inception_v3", "Conv2d_2a_3x3", "Conv2d_2a_5x5", "Conv2d_2b_1x1"),
        ("inception_v4", "Conv2d_2a", "Conv2d_2a", "Aux_logits"),
        ("inception_resnet_v2", "Conv2d_2a_5x5", "Conv2d_2a_5x5", "Logits"),
    ],
)
def test_an_auxiliary_heads_names_and_kernel_follow_the_size_of_training(
    name: str, at_224: str, at_299: str, last: str
) -> None:
    for scope, side in ((at_224, 3), (at_299, 5)):
        kernels = auxiliary(name, aux_kernel_size=(side, side))
        assert list(kernels) == ["Conv2d_1b_1x1", scope, last]
        assert kernels[scope][:2] == (side, side)


def test_scopes_of_inceptions_that_break_the_pattern_are_slims() -> None:
    v1, v3 = (NETWORKS[name].variables() for name in ("inception_v1", "inception_v3"))
    assert "Mixed_5b/Branch_2/Conv2d_0a_3x3/weights" in v1
    assert "Mixed_5c/Branch_2/Conv2d_0b_3x3/weights" in v1
    assert "Mixed_5b/Branch_1/Conv2d_0b_5x5/weights" in v3
    assert "Mixed_5c/Branch_1/Conv_1_0c_5x5/weights" in v3
    assert "Mixed_7b/Branch_1/Conv2d_0b_3x1/weights" in v3
    assert "Mixed_7c/Branch_1/Conv2d_0c_3x1/weights" in v3


def test_inceptions_have_no_gamma_and_mobilenets_nasnets_and_xceptions_have() -> None:
    for name, network in NETWORKS.items():
        variables = network.variables()
        normalized = any(key.endswith("/moving_mean") for key in variables)
        assert any(key.endswith("/gamma") for key in variables) == (normalized and "inception" not in name), name


def test_inception_v2s_stem_is_separable_with_biases_and_without_batch_norm() -> None:
    stem = node(NETWORKS["inception_v2"], "Conv2d_1a_7x7")
    wanted = {"depth_multiplier": 8, "biases": True, "normalizer": None}
    assert (stem.op, wanted.items() <= stem.attributes.items()) == ("separable_conv2d", True)


def test_inception_resnets_residual_has_biases_and_its_last_block_neither_scale_nor_activation() -> None:
    network = NETWORKS["inception_resnet_v2"]
    for block in ("Repeat/block35_1", "Repeat_1/block17_20", "Repeat_2/block8_9", "Block8"):
        residual = node(network, f"{block}/Conv2d_1x1").attributes
        assert (residual["biases"], residual["normalizer"], residual["activation"]) == (True, None, None)
        last = block == "Block8"
        assert node(network, block).attributes["activation"] == (None if last else "relu")
        assert any(found.scope == f"{block}/mul" for found in network.graph().nodes) != last


@pytest.mark.parametrize(
    ("name", "scope", "pool"),
    [
        ("inception_v1", "AvgPool_0a_7x7", ((7, 7), False)),
        ("inception_v2", "AvgPool_1a_7x7", ((7, 7), True)),
        ("inception_v3", "AvgPool_1a_8x8", ((8, 8), True)),
        ("mobilenet_v1", "AvgPool_1a", ((7, 7), True)),
        ("inception_v4", "AvgPool_1a", None),
        ("inception_resnet_v2", "AvgPool_1a_8x8", None),
    ],
)
def test_the_last_pool_is_of_one_size_shrinks_or_takes_the_whole_map(
    name: str, scope: str, pool: tuple[tuple[int, int], bool] | None
) -> None:
    found = node(NETWORKS[name], f"Logits/{scope}")
    if pool is None:
        assert found.op == "mean"
    else:
        assert (found.op, found.attributes["kernel_size"], found.attributes["clipped"]) == ("avg_pool2d", *pool)


def test_end_points_that_research_slim_has_and_tf_slim_lacks_are_given() -> None:
    for name, wanted in {
        "inception_v1": {"AvgPool_0a_7x7"},
        "inception_v2": {"AvgPool_1a", "PreLogits"},
        "inception_v3": {"AvgPool_1a", "PreLogits"},
    }.items():
        assert wanted <= set(NETWORKS[name].end_points(""))


def test_mobilenet_v3s_factors_are_slims_and_not_a_sixth() -> None:
    graph = NETWORKS["mobilenet_v3_large"].graph()
    wanted = {"hard_sigmoid": 0.16667, "hard_swish": float(np.float32(1 / 6))}
    assert wanted == FACTORS
    assert set(wanted) <= {node.activation for node in graph.nodes}


def test_xceptions_convolutions_have_a_batch_norm_each_and_stride_2_is_padded_by_hand() -> None:
    nodes = [node for node in NETWORKS["xception_65"].graph().nodes if "/separable_conv" in node.scope]
    assert {node.scope.rpartition("_")[2] for node in nodes} == {"depthwise", "pointwise"}
    assert all(node.attributes["normalizer"] for node in nodes)
    within = {node.scope.partition("/unit")[0] for node in nodes if node.attributes["activation"]}
    assert within == {"exit_flow/block2"}
    strided = [node.attributes["padding"] for node in nodes if node.attributes["strides"] == (2, 2)]
    assert len(strided) == 4
    assert set(strided) == {((1, 1), (1, 1))}


def test_nasnets_batch_norms_are_siblings_of_their_convolutions() -> None:
    variables = NETWORKS["nasnet_mobile"].variables()
    for name in ("conv0_bn/gamma", "cell_0/beginning_bn/gamma", "cell_0/comb_iter_0/left/bn_sep_5x5_1/gamma"):
        assert name in variables
        assert pytorch_name(name).endswith(".weight")
