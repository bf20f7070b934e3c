"""Networks that end at an end point, as those of detectors and text readers do: recognised, converted, compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL_NETWORKS, random_weights

from converters import convert, inspect, load_pytorch, verify
from converters.checkpoint import write_checkpoint
from converters.weights.recognize import networks as recognised
from slimport import networks

TRUNKS = [("resnet_v2", "block1"), ("inception_v3", "Mixed_5d"), ("vgg", "pool2")]


def _trunk(family: str, end: str) -> networks.Network:
    return replace(SMALL_NETWORKS[family], final_endpoint=end)  # type: ignore[type-var]


@pytest.mark.parametrize(("family", "end"), TRUNKS)
def test_a_trunk_is_converted_and_equal(family: str, end: str, tmp_path: Path) -> None:
    network = _trunk(family, end)
    weights = {f"net/{name}": array for name, array in random_weights(network).items()}
    write_checkpoint(tmp_path / "c", {**weights, "head/weights": np.zeros((2, 3), np.float32)})
    for suffix in (".safetensors", ".keras", ".pth"):
        convert(tmp_path / "c", tmp_path / f"m{suffix}")
        report = verify(tmp_path / "c", tmp_path / f"m{suffix}", dtype="float64", size=(224, 230))
        assert report.ok, report.first_difference
        assert [row.name for row in report.rows][-1:] == network.end_points("net")[-1:]
    model = load_pytorch(tmp_path / "m.pth")
    assert model.network.num_classes is None


@pytest.mark.parametrize(
    ("name", "end"), [("vgg_16", "pool5"), ("inception_v3", "Mixed_5d"), ("resnet_v1_50", "block3")]
)
def test_a_named_network_is_named_with_its_end(name: str, end: str) -> None:
    network = replace(networks.NETWORKS[name], final_endpoint=end)  # type: ignore[type-var]
    shapes = {f"net/{variable}": shape for variable, shape in network.variables().items()}
    [found] = recognised(shapes)
    assert (found.network.final_endpoint, found.complete) == (end, True)
    assert found.network.variables() == network.variables()
    assert str(found) == f"{name} to {end}, no logits, scope 'net'"
    assert networks.from_json(network.to_json()) == network


def test_what_lacks_a_layer_inside_is_no_trunk() -> None:
    shapes = {f"net/{name}": shape for name, shape in networks.NETWORKS["vgg_16"].variables().items()}
    del shapes["net/conv5/conv5_1/weights"], shapes["net/conv5/conv5_1/biases"]
    [found] = recognised(shapes)
    assert found.network == networks.NETWORKS["vgg_16"]
    assert found.missing == ("net/conv5/conv5_1/weights", "net/conv5/conv5_1/biases")


def test_an_end_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no end point is named 'pool9'; the nearest: pool"):
        replace(networks.NETWORKS["vgg_16"], final_endpoint="pool9").graph()  # type: ignore[type-var]


def test_a_trunk_has_no_logits(tmp_path: Path) -> None:
    network = _trunk("vgg", "pool2")
    assert network.num_classes is None
    with pytest.raises(ValueError, match="to pool2 has no logits"):
        network.with_classes(5)
    write_checkpoint(tmp_path / "c", {f"net/{n}": array for n, array in random_weights(network).items()})
    assert inspect(tmp_path / "c").to_json()["model"]["final_endpoint"] == "pool2"
