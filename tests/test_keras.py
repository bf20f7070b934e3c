"""The Keras port is the TF-Slim graph; a saved one needs neither slimport nor TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, SMALL, TRACE_SIZE, MadeOnce, named, random_images, random_weights, save_small

from converters import InputError, convert, frameworks, load_keras, trace, verify
from converters.formats import models
from converters.parity import ports, tf_slim
from converters.parity.compare import compare, rounding_of
from converters.weights.source import open_source
from slimport import networks

frameworks.require("keras")
import slimport.keras


def keras_port(network: networks.Network, weights: dict[str, Any], **arguments: Any) -> Any:
    return models.keras_port(network, weights.items(), **arguments)


def test_it_is_the_tf_slim_graph_in_float64_and_within_its_rounding_in_float32() -> None:
    # scripts/studies/parity_matrix.py runs the deeper ones.
    network = named("resnet_v2_50")
    weights = random_weights(network)
    model = keras_port(network, weights)
    with (
        tf_slim.SlimGraph(network, network.name, weights, "float64") as exact,
        tf_slim.SlimGraph(network, network.name, weights, "float32") as rounded,
    ):
        images = random_images((1, 120, 161, 3))
        truth = exact.run(images)
        rows = compare(ports.record_keras(model, network.name, images, "float64", "cpu"), truth)
        assert [row.name for row in rows] == network.end_points(network.name)
        port = ports.record_keras(model, network.name, images, "float32", "cpu")
        rows += compare(port, truth, rounding_of(rounded.run(images), truth))
        assert not [row for row in rows if not row.ok]


@pytest.mark.parametrize(
    ("network", "scope", "arguments"),
    [
        (SMALL, "deep/er/net", {"output_stride": 4, "global_pool": False, "spatial_squeeze": False}),
        (SMALL, "", {"spatial_squeeze": False}),
        (networks.ResNetV2(SMALL.blocks), "deep/er/net", {"global_pool": False}),
        (networks.ResNetV2(SMALL.blocks, 7, in_channels=16, include_root_block=False), "", {"output_stride": 1}),
    ],
)
def test_arguments_mean_what_they_mean_in_slim(network: networks.ResNet, scope: str, arguments: dict[str, Any]) -> None:
    weights = random_weights(network)
    model = keras_port(network, weights, scope=scope, **arguments)
    images = random_images((2, 33, 46, network.in_channels))
    truth = tf_slim.record(network, scope, weights, images, "float64", **arguments)
    assert not [r for r in compare(ports.record_keras(model, scope, images, "float64", "cpu"), truth) if not r.ok]


def test_layers_are_stock() -> None:
    model = slimport.keras.resnet_v2_50()
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    assert {(layer.epsilon, layer.momentum) for layer in norms} == {(1e-5, 0.997)}


def test_end_points_takes_its_scope_from_the_models_name() -> None:
    model = slimport.keras.resnet_v2(SMALL.blocks, 7, scope="a/net")
    assert set(slimport.keras.end_points(model)(random_images((1, 40, 40, 3)))) == set(SMALL.end_points("a/net"))


ON_A_BACKEND = """
import sys
model, source, trace, images, outputs, backend = sys.argv[1:]
hidden = ("slimport", "converters")
sys.modules.update(dict.fromkeys(hidden))  # not installed
import keras, numpy
numpy.save(outputs, keras.saving.load_model(model).predict(numpy.load(images), verbose=0))
for name in hidden:
    del sys.modules[name]
from converters import verify
report = verify(source, model, dtype="float32", reference=trace)
sys.exit(not (report.ok and report.backend.endswith(backend)))
"""


@pytest.fixture(scope="module")
def one_unit(made_once: MadeOnce) -> Path:
    """A checkpoint of a network with a layer of each kind, and a trace of it: JAX compiles each shape."""
    network = replace(SMALL, blocks=(networks.resnet_v2_block("block1", 4, 1, 1),))

    def make(folder: Path) -> None:
        trace(save_small(folder / "c", "v2", network), folder / "t.npz", size=TRACE_SIZE)

    return made_once("one_unit", make)


@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_a_keras_file_loads_without_slimport_on_every_backend_and_is_verified_there(
    backend: str, one_unit: Path, tmp_path: Path
) -> None:
    convert(one_unit / "c", tmp_path / "model.keras")
    images = random_images((2, *TRACE_SIZE, 3))
    np.save(tmp_path / "in.npy", images)
    files = (tmp_path / "model.keras", one_unit / "c", one_unit / "t.npz", tmp_path / "in.npy", tmp_path / "out.npy")
    done = subprocess.run(
        [sys.executable, "-c", ON_A_BACKEND, *map(str, files), backend],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = np.asarray(load_keras(one_unit / "c")(images))
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-4, atol=1e-5)


def test_a_model_of_one_size_is_verified_with_it(slimport: Any, small_v2: Path, tmp_path: Path) -> None:
    with open_source(small_v2) as source:
        model = models.keras_model(source, image_size=(40, 51))
    report = verify(small_v2, model)
    assert report.ok
    assert report.inputs == {"images": (2, 40, 51, 3)}
    model.save(tmp_path / "m.keras")
    assert slimport("verify", small_v2, tmp_path / "m.keras").code == 0
    run = slimport("verify", small_v2, tmp_path / "m.keras", "--size", "33")
    message = "the Keras model takes images of 40x51 alone, not images of 33x33: give --size 40x51"
    assert (run.code, run.err) == (2, f"slimport: {small_v2}: nothing to compare: {message}\n")


def test_a_model_without_inputs_cannot_be_compared(small_v2: Path, small_trace: Path) -> None:
    model = frameworks.require("keras").Sequential([frameworks.require("keras").layers.Conv2D(3, 3)])
    with pytest.raises(InputError, match="nothing to compare: Keras does not run the model on images of 33x46"):
        verify(small_v2, model, reference=small_trace)


def test_float64_is_refused_where_keras_computes_in_float32(
    slimport: Any, small_v2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports.keras, "_backend", lambda: "torch")
    run = slimport("verify", small_v2, "--target", "keras", "--dtype", "float64")
    assert run.code == 2
    assert "computes BatchNorm in float32 even in float64 layers" in run.err


def test_a_float64_checkpoint_keeps_its_precision(tmp_path: Path) -> None:
    from converters.checkpoint import write_checkpoint

    weights = {f"net/{name}": array.astype(np.float64) / 3 for name, array in random_weights(SMALL).items()}
    write_checkpoint(tmp_path / "c", weights)
    assert verify(tmp_path / "c", target="keras", size=(40, 40)).worst.rel_l2 < 1e-12
    np.testing.assert_array_equal(
        load_keras(tmp_path / "c").get_layer("logits").kernel.numpy(), weights["net/logits/weights"]
    )
