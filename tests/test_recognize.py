"""Which network a set of variables is, from names and shapes alone."""

from __future__ import annotations

import pytest
from conftest import DEPTHS, SMALL, named

from converters import InputError
from converters.recognize import recognize
from slimport.spec import ResNetV2, Shape, scoped


def under(scope: str, network: ResNetV2) -> dict[str, Shape]:
    return {scoped(scope, name): shape for name, shape in network.variables().items()}


@pytest.mark.parametrize("scope", ["resnet_v2", "Encoder/resnet_v2_50", ""])
@pytest.mark.parametrize("name", DEPTHS)
def test_the_network_and_its_scope(scope: str, name: str) -> None:
    found = recognize(under(scope, named(name, 21)), "file")
    assert (found.network.name, found.scope, found.network.num_classes) == (name, scope, 21)
    assert found.complete
    assert found.extras == {}


def test_what_is_beside_the_network_is_listed_by_group() -> None:
    shapes = under("net", SMALL)
    weights = "net/conv1/weights"
    found = recognize(
        {**shapes, "global_step": (), f"{weights}/Momentum": shapes[weights], "net/aux/weights": (1, 1, 2, 2)}, "file"
    )
    assert found.extras == {"Momentum": (f"{weights}/Momentum",), "other": ("global_step", "net/aux/weights")}


@pytest.mark.parametrize(
    "name", ["conv1/biases", "block2/unit_2/bottleneck_v2/conv1/weights", "postnorm/gamma", "logits/weights"]
)
def test_what_is_missing_is_named(name: str) -> None:
    shapes = under("net", SMALL)
    del shapes[f"net/{name}"]
    assert recognize(shapes, "file").missing == (f"net/{name}",)


def test_a_unit_that_is_missing_between_others_is_named() -> None:
    shapes = {name: shape for name, shape in under("net", SMALL).items() if "block2/unit_2/" not in name}
    missing = recognize(shapes, "file").missing
    assert missing == tuple(name for name in under("net", SMALL) if "block2/unit_2/" in name)


def test_a_wrong_shape_is_named() -> None:
    shapes = {**under("net", SMALL), "net/postnorm/gamma": (3,)}
    assert recognize(shapes, "file").misshapen == {"net/postnorm/gamma": (32,)}


def test_several_networks_are_listed_and_one_can_be_chosen() -> None:
    shapes = {**under("teacher", named("resnet_v2_50")), **under("student", SMALL)}
    with pytest.raises(InputError, match="2 networks, under the scopes 'student', 'teacher': choose one with --scope"):
        recognize(shapes, "file")
    assert recognize(shapes, "file", "teacher").network.name == "resnet_v2_50"
    with pytest.raises(InputError, match=r"no network .* under scope 'pupil'"):
        recognize(shapes, "file", "pupil")


def test_another_network_is_said_to_be_unknown() -> None:
    with pytest.raises(InputError, match="file: no network that slimport knows among its 1 variables"):
        recognize({"vgg_16/conv1/conv1_1/weights": (3, 3, 3, 64)}, "file")


def test_kernels_of_a_rank_that_none_have_are_refused() -> None:
    with pytest.raises(InputError, match="not a convolution kernel"):
        recognize({"net/block1/unit_1/bottleneck_v2/conv1/weights": (3,)}, "file")
