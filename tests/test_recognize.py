"""Which network a set of variables is, from names and shapes alone."""

from __future__ import annotations

import pytest
from conftest import DEPTHS, SMALL, named

from converters import InputError
from converters.weights.recognize import UnknownNetworkError, recognize
from slimport import networks
from slimport.graph import Shape, scoped


def under(scope: str, network: networks.Network) -> dict[str, Shape]:
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
    assert found.extras == {
        "Momentum": (f"{weights}/Momentum",),
        "training_state": ("global_step",),
        "layers": ("net/aux/weights",),
    }
    assert found.complete


@pytest.mark.parametrize(
    "name", ["conv1/weights", "block2/unit_2/bottleneck_v2/conv1/weights", "postnorm/moving_mean", "logits/weights"]
)
def test_what_is_missing_is_named(name: str) -> None:
    shapes = under("net", SMALL)
    del shapes[f"net/{name}"]
    assert recognize(shapes, "file").missing == (f"net/{name}",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("block1/unit_1/bottleneck_v2/shortcut/biases", 0),
        ("postnorm/gamma", 1),
        ("postnorm/beta", 0),
        ("block1/unit_1/bottleneck_v2/preact/gamma", 1),
    ],
)
def test_what_a_layer_was_built_without_is_filled_where_the_rest_of_the_layer_is_there(name: str, value: int) -> None:
    shapes = under("net", SMALL)
    del shapes[f"net/{name}"]
    found = recognize(shapes, "file")
    assert (found.complete, found.filled) == (True, {f"net/{name}": value})
    rest = f"net/{name.rpartition('/')[0]}/{'weights' if name.endswith('biases') else 'moving_variance'}"
    del shapes[rest]
    assert set(recognize(shapes, "file").missing) == {f"net/{name}", rest}


def test_a_fully_connected_layers_weights_stand_for_those_of_a_1x1_convolution() -> None:
    shapes = {**under("net", SMALL), "net/logits/weights": (32, 7)}
    found = recognize(shapes, "file")
    assert (found.complete, found.network, found.reshaped) == (True, SMALL, {"net/logits/weights": (32, 7)})
    found = recognize({**shapes, "net/logits/weights": (16, 7)}, "file")
    assert found.mismatched == {"net/logits/weights": (1, 1, 32, 7)}


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_known_network_is_recognised_in_its_variants(name: str) -> None:
    network = networks.NETWORKS[name]
    shapes = under(f"tower_0/{name}", network)
    fewer = {full: shape for full, shape in shapes.items() if not full.endswith(("/gamma", "/biases"))}
    found = recognize(fewer, "file")
    assert (found.network, found.scope, found.complete) == (network, f"tower_0/{name}", True)
    assert set(found.filled) == shapes.keys() - fewer.keys()
    assert not found.extras
    if network.num_classes:
        head = f"tower_0/{name}/{network.classifier}"
        *sides, classes = shapes[f"{head}/weights"]
        other = (*sides[2:], classes) if len(sides) > 1 else (1, 1, *sides, classes)
        found = recognize({**shapes, f"{head}/weights": other}, "file")
        assert (found.network, list(found.reshaped)) == (network, [f"{head}/weights"])
        found = recognize({full: s for full, s in shapes.items() if not full.startswith(f"{head}/")}, "file")
        assert (found.network, found.complete) == (network.with_classes(None), True)


def test_moving_averages_alone_are_no_network_until_they_are_asked_for() -> None:
    shapes = {f"{name}/ExponentialMovingAverage": shape for name, shape in under("net", SMALL).items()}
    with pytest.raises(UnknownNetworkError, match="its moving averages are those of one: take them with --ema"):
        recognize(shapes, "file")


def test_a_unit_that_is_missing_between_others_is_named() -> None:
    shapes = {name: shape for name, shape in under("net", SMALL).items() if "block2/unit_2/" not in name}
    missing = recognize(shapes, "file").missing
    assert missing == tuple(name for name in under("net", SMALL) if "block2/unit_2/" in name)


def test_a_wrong_shape_is_named() -> None:
    shapes = {**under("net", SMALL), "net/postnorm/gamma": (3,)}
    assert recognize(shapes, "file").mismatched == {"net/postnorm/gamma": (32,)}


def test_several_networks_are_listed_and_one_can_be_chosen() -> None:
    shapes = {**under("teacher", named("resnet_v2_50")), **under("student", SMALL)}
    with pytest.raises(InputError, match="2 networks, under the scopes 'student', 'teacher': choose one with --scope"):
        recognize(shapes, "file")
    assert recognize(shapes, "file", "teacher").network.name == "resnet_v2_50"
    with pytest.raises(InputError, match=r"no network .* under scope 'pupil'"):
        recognize(shapes, "file", "pupil")


def test_a_networks_variables_are_not_layers_of_another_one() -> None:
    shapes = {**under("student", SMALL), **under("teacher", SMALL), "teacher/aux/weights": (1, 1, 2, 2)}
    assert recognize(shapes, "file", "student").extras == {
        "networks": (*under("teacher", SMALL), "teacher/aux/weights"),
    }
    shapes = {**under("", SMALL), **under("student", SMALL)}
    assert recognize(shapes, "file", "").extras == {"networks": tuple(under("student", SMALL))}
    assert recognize(shapes, "file", "student").complete


@pytest.mark.parametrize(
    "name",
    ["block1/unit_1/bottleneck_v2/se/weights", "block2/unit_1/bottleneck_v2/conv3/BatchNorm/gamma", "logits/gamma"],
)
def test_a_layer_in_the_midst_of_the_network_makes_it_another_one(name: str) -> None:
    found = recognize({**under("net", SMALL), f"net/{name}": (4,)}, "file")
    assert found.unexpected == (f"net/{name}",)
    assert not found.complete
    assert list(found.problems()) == [f"net/{name} is unexpected: a resnet_v2 does not have it"]


def test_another_network_is_said_to_be_unknown() -> None:
    with pytest.raises(InputError, match="file: no network that slimport knows among its 1 variables") as error:
        recognize({"lenet/C1/weights": (5, 5, 1, 6)}, "file")
    assert "nearest" not in str(error.value)


def test_of_an_unknown_network_the_nearest_and_the_first_difference_are_named() -> None:
    shapes = {name.replace("conv1/", "stem/"): s for name, s in under("a/b", networks.NETWORKS["vgg_16"]).items()}
    slots = {f"{name}/Adam": shape for name, shape in shapes.items()}
    with pytest.raises(UnknownNetworkError) as error:
        recognize({**shapes, **slots}, "file")
    nearest = error.value.nearest
    assert nearest is not None
    assert (nearest.network.name, nearest.scope, nearest.alike) == ("vgg_16", "a/b", 28)
    assert nearest.different == "a/b/conv1/conv1_1/weights is missing, and there is a/b/stem/conv1_1/weights"
    assert str(nearest) in str(error.value)


def test_a_network_that_shares_a_handful_of_names_is_not_called_near() -> None:
    shapes = {name.replace("bottleneck_v2", "unit"): s for name, s in under("a/b", named("resnet_v2_101")).items()}
    with pytest.raises(UnknownNetworkError) as error:
        recognize(shapes, "file")
    assert error.value.nearest is None


def test_kernels_of_a_rank_that_none_have_are_refused() -> None:
    with pytest.raises(InputError, match="not a convolution kernel"):
        recognize({"net/block1/unit_1/bottleneck_v2/conv1/weights": (3,)}, "file")
