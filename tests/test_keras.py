"""The Keras port is the TF-Slim graph; a saved one needs neither slimport nor TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, SMALL, named, random_images, random_weights

from converters import convert, frameworks, load_keras, verify
from converters.formats import models
from converters.parity import ports, tf_slim
from converters.parity.compare import compare, rounding_of
from slimport import networks

frameworks.require("keras")
import slimport.keras

SIZES = ((97, 97), (112, 112), (120, 161))


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
        for size in SIZES:
            images = random_images((1, *size, 3))
            truth = exact.run(images)
            rows = compare(ports.record_keras(model, network.name, images, "float64", "cpu"), truth)
            assert [row.name for row in rows] == network.end_points(network.name)
            port = ports.record_keras(model, network.name, images, "float32", "cpu")
            rows += compare(port, truth, rounding_of(rounded.run(images), truth))
            assert not [row for row in rows if not row.ok]


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        (SMALL, {"output_stride": 4, "global_pool": False, "spatial_squeeze": False}),
        (SMALL, {"spatial_squeeze": False}),
        (networks.ResNetV2(SMALL.blocks), {"global_pool": False}),
        (networks.ResNetV2(SMALL.blocks, 7, in_channels=16, include_root_block=False), {"output_stride": 1}),
    ],
)
@pytest.mark.parametrize("scope", ["deep/er/net", ""])
def test_arguments_mean_what_they_mean_in_slim(network: networks.ResNet, arguments: dict[str, Any], scope: str) -> None:
    weights = random_weights(network)
    model = keras_port(network, weights, scope=scope, **arguments)
    images = random_images((2, 33, 46, network.in_channels))
    truth = tf_slim.record(network, scope, weights, images, "float64", **arguments)
    assert not [r for r in compare(ports.record_keras(model, scope, images, "float64", "cpu"), truth) if not r.ok]


def test_atrous_rates_are_slims() -> None:
    # What rates an output stride makes is the graph's business, and tested with PyTorch's port.
    network = named("resnet_v2_50", 21)
    arguments: dict[str, Any] = {"output_stride": 4, "global_pool": False, "spatial_squeeze": False}
    weights = random_weights(network)
    model = keras_port(network, weights, **arguments)
    images = random_images((2, 33, 46, 3))
    truth = tf_slim.record(network, network.name, weights, images, "float64", **arguments)
    rows = compare(ports.record_keras(model, network.name, images, "float64", "cpu"), truth)
    assert not [row for row in rows if not row.ok]


def test_layers_are_stock() -> None:
    model = slimport.keras.resnet_v2_50()
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    assert {(layer.epsilon, layer.momentum) for layer in norms} == {(1e-5, 0.997)}


def test_end_points_takes_its_scope_from_the_models_name() -> None:
    model = slimport.keras.resnet_v2(SMALL.blocks, 7, scope="a/net")
    assert set(slimport.keras.end_points(model)(random_images((1, 40, 40, 3)))) == set(SMALL.end_points("a/net"))


LOAD_ALONE = """
import sys
sys.modules["slimport"] = sys.modules["converters"] = None  # not installed
import keras, numpy
model = keras.saving.load_model(sys.argv[1])
numpy.save(sys.argv[2], model.predict(numpy.load(sys.argv[3]), verbose=0))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_a_keras_file_loads_without_slimport_on_every_backend(backend: str, small_v2: Path, tmp_path: Path) -> None:
    convert(small_v2, tmp_path / "model.keras")
    images = random_images((2, 33, 46, 3))
    np.save(tmp_path / "in.npy", images)
    subprocess.run(
        [sys.executable, "-c", LOAD_ALONE] + [str(tmp_path / name) for name in ("model.keras", "out.npy", "in.npy")],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    expected = np.asarray(load_keras(small_v2)(images))
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-4, atol=1e-5)


VERIFY = """
import sys
from converters import verify
report = verify(sys.argv[1], sys.argv[2], dtype="float32", reference=sys.argv[4])
sys.exit(not (report.ok and report.backend.endswith(sys.argv[3])))
"""


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_verify_holds_a_keras_file_to_tf_slims_rounding_on_the_other_backends(
    backend: str, small_v2: Path, small_trace: Path, tmp_path: Path
) -> None:
    convert(small_v2, tmp_path / "model.keras")
    done = subprocess.run(
        [sys.executable, "-c", VERIFY, str(small_v2), str(tmp_path / "model.keras"), backend, str(small_trace)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_float64_is_refused_where_keras_computes_in_float32(slimport_process: Any, small_v2: Path) -> None:
    run = slimport_process("verify", small_v2, "--target", "keras", "--dtype", "float64", KERAS_BACKEND="torch")
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
