"""Every family, from a checkpoint to both ports and back, by one path: no test here knows what a family is like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_NETWORKS, SMALL_V1, keras_name, random_images, random_weights, save_small

import slimport.keras
import slimport.pytorch
from converters import InputError, convert, frameworks, inspect, verify
from converters.checkpoint import write_checkpoint
from converters.formats import models
from converters.mapping import pytorch_name, pytorch_shape
from converters.parity import ports, tf_slim
from converters.parity.compare import compare
from converters.weights.recognize import recognize
from slimport import networks

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf

small = pytest.mark.parametrize("name", SMALL_NETWORKS)


def test_every_family_is_tested_here() -> None:
    assert {network.family for network in SMALL_NETWORKS.values()} == set(networks.FAMILIES)


def variables_of(source: Path) -> dict[str, Any]:
    """A checkpoint's variables, by TensorFlow's reader, under their names without the scope."""
    reader = tf.train.load_checkpoint(str(source))
    return {name.removeprefix("a/net/"): reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@small
def test_a_checkpoint_goes_to_both_ports_and_back(name: str, tmp_path: Path) -> None:
    network = SMALL_NETWORKS[name]
    # The judge below sees whether these are the variables of slim's graph.
    source = tmp_path / "small.ckpt"
    write_checkpoint(source, {f"a/net/{variable}": array for variable, array in random_weights(network).items()})
    found = inspect(source).recognition
    assert found is not None
    assert (found.network, found.scope, found.extras) == (network, "a/net", {})
    side = network.default_image_size
    images = random_images(
        (1, *((40, 47) if isinstance(network, networks.ResNet) else (side, side)), network.in_channels)
    )
    with tf_slim.SlimGraph(network, "a/net", variables_of(source), "float64", size=images.shape[1:3]) as graph:
        truth = graph.run(images)
    for suffix in (".safetensors", ".keras"):
        convert(source, tmp_path / f"m{suffix}")
        # Whose rounding is within slim's in float32 is in the tests of ResNet v2, and of every network in a study.
        if suffix == ".keras":
            loaded = frameworks.require("keras").saving.load_model(tmp_path / "m.keras")
            port = ports.record_keras(loaded, "a/net", images, "float64", "cpu")
        else:
            port = ports.record_pytorch(slimport.pytorch.load(tmp_path / "m.safetensors"), images, "float64", "cpu")
        rows = compare(port, truth)
        assert not [row for row in rows if not row.ok]
        assert {row.name for row in rows} == set(network.end_points("a/net"))
        convert(tmp_path / f"m{suffix}", tmp_path / "back.ckpt")
        there, back = (tf.train.load_checkpoint(str(path)) for path in (source, tmp_path / "back.ckpt"))
        assert back.get_variable_to_shape_map() == there.get_variable_to_shape_map()
        for variable in there.get_variable_to_shape_map():
            np.testing.assert_array_equal(back.get_tensor(variable), there.get_tensor(variable))


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        (SMALL_V1, {"output_stride": 4, "global_pool": False, "spatial_squeeze": False}),
        (SMALL_V1, {"output_stride": 8, "global_pool": False, "spatial_squeeze": False}),
        (networks.ResNetV1(SMALL_V1.blocks, in_channels=16, include_root_block=False), {"output_stride": 1}),
        (SMALL_NETWORKS["resnet_v1_beta"], {"output_stride": 4, "multi_grid": (1, 2, 4)}),
        (SMALL_NETWORKS["resnet_v1_lite"], {"output_stride": 4, "multi_grid": (1, 2, 4), "global_pool": True}),
        (SMALL_NETWORKS["vgg"], {"fc_conv_padding": "SAME", "spatial_squeeze": False}),
        (SMALL_NETWORKS["vgg"], {"global_pool": True}),
        (replace(SMALL_NETWORKS["vgg"], num_classes=None, in_channels=1), {}),
    ],
)
def test_arguments_mean_what_they_mean_in_slim(network: networks.Network, arguments: dict[str, Any]) -> None:
    weights = random_weights(network)
    images = random_images((2, 33, 46, network.in_channels))
    truth = tf_slim.record(network, "", weights, images, "float64", **arguments)
    assert list(truth) == network.end_points("", **arguments)
    model = models.pytorch_port(network, weights.items(), scope="", **arguments)
    port = ports.record_pytorch(model, images, "float64", "cpu")
    assert list(port) == list(truth)
    assert not [row for row in compare(port, truth) if not row.ok]
    model = models.keras_port(network, weights.items(), scope="", **arguments)
    port = ports.record_keras(model, "", images, "float64", "cpu")
    assert not [row for row in compare(port, truth) if not row.ok]


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_network_of_a_name_is_known_by_its_variables_and_its_json(name: str) -> None:
    network = networks.NETWORKS[name]
    found = recognize({f"net/{variable}": shape for variable, shape in network.variables().items()}, "file")
    assert (found.network, found.scope, found.complete) == (network, "net", True)
    assert found.network.name == name
    assert networks.from_json(network.to_json()) == network


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_both_ports_have_a_function_of_the_name_and_the_variables_of_the_rule(name: str) -> None:
    torch = frameworks.require("torch")
    network = networks.NETWORKS[name]
    with torch.device("meta"):
        model = getattr(slimport.pytorch, name)()
    assert model.network == network
    assert model.arguments == network.arguments
    state = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items() if "num_batches" not in key}
    assert state == {pytorch_name(n): pytorch_shape(n, shape) for n, shape in network.variables().items()}


@small
def test_keras_weights_are_the_variables_of_the_rule(name: str) -> None:
    network = SMALL_NETWORKS[name]
    model = slimport.keras.build(network)
    weights = {(layer.name, weight.name): tuple(weight.shape) for layer in model.layers for weight in layer.weights}
    weights = {key: shape for key, shape in weights.items() if "seed" not in key[1]}
    expected = {keras_name(variable): shape for variable, shape in network.variables().items()}
    for layer, weight in list(expected):
        # A depthwise convolution by itself is another layer of Keras's.
        if weight == "depthwise_kernel" and (layer, "pointwise_kernel") not in expected:
            expected[layer, "kernel"] = expected.pop((layer, weight))
    assert weights == expected


@small
def test_an_argument_that_the_family_has_not_is_refused(name: str, tmp_path: Path) -> None:
    network = SMALL_NETWORKS[name]
    write_checkpoint(tmp_path / "c", {f"net/{n}": array for n, array in random_weights(network).items()})
    with pytest.raises(InputError, match=rf"{network.name} takes .*; it has no depth_multiplier"):
        verify(tmp_path / "c", depth_multiplier=2)


def test_images_that_the_network_cannot_take_are_refused_with_the_layer_that_cannot(tmp_path: Path) -> None:
    source = save_small(tmp_path / "small.ckpt", "v2", SMALL_NETWORKS["vgg"], "net")
    for size, layer in (((20, 20), "fc6"), ((40, 47), "fc8")):
        with pytest.raises(InputError, match=f"small.ckpt: TensorFlow: 'net/{layer}/.* [A-Z]"):
            verify(source, size=size)


@pytest.mark.parametrize(("name", "variables", "end_points"), [("resnet_v1_50", 267, 77)])
def test_what_tf_slim_wrote_is_recognised_and_equal(
    name: str, variables: int, end_points: int, full_size_checkpoint: Callable[[str, str], Path], tmp_path: Path
) -> None:
    checkpoint = full_size_checkpoint(name, "v1")
    found = inspect(checkpoint)
    assert found.recognition is not None
    assert found.recognition.network == networks.NETWORKS[name]
    assert len(found.variables) == variables
    convert(checkpoint, tmp_path / "m.safetensors")
    report = verify(checkpoint, tmp_path / "m.safetensors")
    assert report.ok, report.first_difference
    assert set(report.by_dtype) == {"float64", "float32"}
    assert (report.reader, len(report.rows), report.weights_compared) == ("tensorflow", end_points, variables)
