"""The network as data."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from conftest import DEPTHS, SMALL, named

from slimport import networks


@pytest.mark.parametrize("name", DEPTHS)
@pytest.mark.parametrize("num_classes", [1001, None])
def test_a_network_is_inferred_from_its_variables(name: str, num_classes: int | None) -> None:
    network = named(name, num_classes)
    inferred = networks.ResNetV2.infer(network.variables())
    assert inferred == network
    assert inferred.name == name


@pytest.mark.parametrize("changed", [{"in_channels": 1}, {"in_channels": 12, "include_root_block": False}])
def test_a_custom_network_is_inferred_from_its_variables(changed: dict[str, int]) -> None:
    network = networks.ResNetV2(SMALL.blocks, 5, **changed)  # type: ignore[arg-type]
    assert networks.ResNetV2.infer(network.variables()) == network
    assert network.name == "resnet_v2"


@pytest.mark.parametrize("name", DEPTHS)
def test_a_description_survives_json(name: str) -> None:
    assert networks.from_json(named(name).to_json()) == named(name)


@pytest.mark.parametrize(
    ("output_stride", "strides", "rates"),
    [
        (None, [1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1], [1] * 16),
        (32, [1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1], [1] * 16),
        (16, [1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1], [1] * 13 + [2] * 3),
        (8, [1, 1, 2] + [1] * 13, [1] * 7 + [2] * 6 + [4] * 3),
        (4, [1] * 16, [1] * 3 + [2] * 4 + [4] * 6 + [8] * 3),
    ],
)
def test_the_atrous_schedule_dilates_only_after_the_unit_that_would_have_strided(
    output_stride: int | None, strides: list[int], rates: list[int]
) -> None:
    nodes = [node for node in named("resnet_v2_50").graph(output_stride=output_stride).nodes if node.op == "conv2d"]
    units = [node.attributes for node in nodes if node.scope.endswith("bottleneck_v2/conv2")]
    assert [unit["strides"] for unit in units] == [(stride, stride) for stride in strides]
    assert [unit["rate"] for unit in units] == [(rate, rate) for rate in rates]


@pytest.mark.parametrize("output_stride", [1, 6, 12, 64])
def test_output_strides_that_cannot_be_reached_are_refused(output_stride: int) -> None:
    with pytest.raises(ValueError, match=f"output_stride {output_stride}"):
        named("resnet_v2_50").graph(output_stride=output_stride)


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown network family 'densenet'"):
        networks.from_json({"family": "densenet"})


def test_a_description_that_lacks_something_is_refused() -> None:
    with pytest.raises(ValueError, match="not complete"):
        networks.from_json({"family": "resnet_v2"})


@pytest.mark.parametrize("depth_multiplier", [0.1, 0.25, 0.37, 0.5, 0.75, 1.0, 1.3])
@pytest.mark.parametrize("more", [{}, {"num_classes": None}, {"create_aux_logits": False}, {"aux_kernel_size": (3, 5)}])
def test_an_inception_v3_is_inferred_from_its_variables(depth_multiplier: float, more: dict[str, Any]) -> None:
    network = networks.InceptionV3(**{"num_classes": 7, "depth_multiplier": depth_multiplier, **more})
    inferred = networks.InceptionV3.infer(network.variables())
    assert inferred.depth_multiplier == depth_multiplier
    assert inferred.variables() == network.variables()


def test_a_depth_below_slims_least_is_inferred() -> None:
    network = networks.InceptionV3(7, depth_multiplier=0.1, min_depth=4)
    assert networks.InceptionV3.infer(network.variables()) == network


@pytest.mark.parametrize("num_classes", [-1, True, 2.0, "10"])
def test_what_is_no_number_of_classes_is_refused(num_classes: Any) -> None:
    with pytest.raises(ValueError, match="num_classes"):
        named("resnet_v2_50").with_classes(num_classes)


def test_no_framework_is_imported() -> None:
    code = "import sys, slimport.networks; print(sorted({'torch', 'keras', 'tensorflow', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
