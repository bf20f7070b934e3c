"""Inception v3, the proof of the vocabulary: both ports are `tf_slim.nets.inception_v3` at every end point."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_NETWORKS, MadeOnce, pytorch_port, random_images, random_weights, save_small

from converters import InputError, convert, frameworks, load_keras, predict, trace, verify
from converters.checkpoint import write_checkpoint
from converters.formats import models
from converters.parity import ports, tf_slim
from converters.parity.compare import compare, rel_l2
from scripts import make_checkpoint
from scripts.studies.training_steps import Hyperparameters, Step, compare_steps, random_batches, run_both
from slimport import networks

frameworks.require("slimport.nets")
import slimport.keras
from slimport.keras.end_points import variables

FULL = networks.NETWORKS["inception_v3"]
assert isinstance(FULL, networks.InceptionV3)
OTHER_SIZE = (225, 301)


def inception(num_classes: int | None, **more: Any) -> networks.InceptionV3:
    return networks.InceptionV3(num_classes, **more)


@pytest.mark.parametrize(
    ("network", "size", "arguments"),
    [
        (inception(7, depth_multiplier=0.1, aux_kernel_size=(3, 5)), OTHER_SIZE, {"spatial_squeeze": False}),
        (inception(None, depth_multiplier=0.1), OTHER_SIZE, {}),
        (inception(7, depth_multiplier=0.1, create_aux_logits=False), (331, 310), {"global_pool": True}),
    ],
    ids=["other size, unsqueezed", "features", "global pool"],
)
def test_both_ports_are_tf_slims_at_every_end_point(
    network: networks.InceptionV3, size: tuple[int, int], arguments: dict[str, Any]
) -> None:
    weights = random_weights(network)
    images = random_images((1, *size, 3))
    truth = tf_slim.record(network, "InceptionV3", weights, images, "float64", **arguments)
    assert list(truth) == network.end_points("InceptionV3", **arguments)
    assert ("AuxLogits" in truth) == bool(network.num_classes and network.create_aux_logits)
    port = ports.record_pytorch(pytorch_port(network, weights, **arguments), images, "float64", "cpu")
    rows = compare(port, truth)
    assert not [row for row in rows if not row.ok]
    model = models.keras_port(network, weights.items(), image_size=size, **arguments)
    rows = compare(ports.record_keras(model, "InceptionV3", images, "float64", "cpu"), truth)
    assert not [row for row in rows if not row.ok]
    assert max(row.rel_l2 for row in rows) == 0


# With 60 numbers a channel in the last block, larger steps let rounding grow beyond the limit.
HYPERPARAMETERS = Hyperparameters(1e-4)
TRAINED, TRAINED_SIZE = inception(5, depth_multiplier=0.1, aux_kernel_size=(1, 3)), (139, 203)
# Dropout's random numbers are each framework's own.
NO_DROPOUT: dict[str, Any] = {"dropout_keep_prob": 1.0}


@pytest.fixture(scope="module")
def slims_and_ours() -> list[tuple[Step, Step]]:
    """Three training steps of PyTorch and of TF-Slim."""
    batches = random_batches(TRAINED, TRAINED_SIZE, 4)
    return list(run_both(TRAINED, random_weights(TRAINED), batches, HYPERPARAMETERS, **NO_DROPOUT))


def test_three_training_steps_are_slims(slims_and_ours: list[tuple[Step, Step]]) -> None:
    found = {difference.quantity: difference for difference in compare_steps(slims_and_ours)}
    assert not [difference for difference in found.values() if not difference.ok]
    moving = sum("/moving_" in name for name in TRAINED.variables())
    assert found["gradients"].compared == len(TRAINED.variables()) - moving
    assert found["moving_averages"].compared == moving


def test_a_training_step_in_keras_is_slims(slims_and_ours: list[tuple[Step, Step]]) -> None:
    import tensorflow as tf

    truth = slims_and_ours[0][1]
    weights = {name: array.astype(np.float64) for name, array in random_weights(TRAINED).items()}
    [(images, labels)] = random_batches(TRAINED, TRAINED_SIZE, 4, count=1)
    model = models.keras_port(TRAINED, weights.items(), dtype="float64", image_size=TRAINED_SIZE, **NO_DROPOUT)
    for layer in model.layers:
        if hasattr(layer, "momentum"):
            # TensorFlow rounds 1 - decay to float32, in float64 graphs too.
            layer.momentum = 1 - float(np.float32(1 - layer.momentum))
    trained = {name: weight for name, weight in variables(model).items() if weight.trainable}
    with tf.GradientTape() as tape:
        end_points = slimport.keras.end_points(model)(images.astype(np.float64), training=True)
        losses = [
            tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, end_points[name]))
            for name in ("Logits", "AuxLogits")
        ]
        loss = losses[0] + 0.4 * losses[1]
    # The model has no regularization, of which slim's has the gradient besides.
    gradients = {
        name: gradient.numpy() + name.endswith("/weights") * HYPERPARAMETERS.weight_decay * weights[name]
        for name, gradient in zip(
            trained, tape.gradient(loss, [weight.value for weight in trained.values()]), strict=True
        )
    }
    averages = {name: np.array(weight) for name, weight in variables(model).items() if not weight.trainable}
    for ours, theirs in (
        ({name: value.numpy() for name, value in end_points.items()}, truth.end_points),
        (gradients, truth.gradients),
        (averages, truth.moving_averages),
    ):
        assert ours.keys() == theirs.keys()
        assert max(rel_l2(ours[name], theirs[name]) for name in ours) < 1e-12


@pytest.fixture(scope="module")
def full_checkpoint(made_once: MadeOnce) -> Path:
    """Of full size, for images of 139x139, by tf_slim's own function and TensorFlow's Saver."""
    import tf_slim as slim
    from tf_slim.nets import inception_v3

    def build(images: Any) -> None:
        with slim.arg_scope(inception_v3.inception_v3_arg_scope()):
            inception_v3.inception_v3(images, 1001, is_training=False)

    made = made_once("inception_v3", lambda to: make_checkpoint.save(build, to / "inception_v3.ckpt", "v2", size=139))
    return made / "inception_v3.ckpt"


def test_what_tf_slim_wrote_is_converted_and_equal_in_both_ports(
    full_checkpoint: Path, slimport: Callable[..., Any], tmp_path: Path
) -> None:
    found = json.loads(slimport("inspect", full_checkpoint, "--json").out)
    model = {key: found["model"][key] for key in ("name", "scope", "num_classes")}
    assert model == {"name": "inception_v3", "scope": "InceptionV3", "num_classes": 1001}
    assert len(found["variables"]) == 388
    assert slimport("convert", full_checkpoint, tmp_path / "m.safetensors").code == 0
    # One graph for both, in which the last pool sees 3x3: Keras's own is 8x8, whatever the images are.
    pooled = ("--argument", "global_pool=true")
    assert slimport("trace", full_checkpoint, tmp_path / "t.npz", "--size", "139", *pooled).code == 0
    reference = (*pooled, "--reference", tmp_path / "t.npz", "--dtype", "float64", "--json")
    for limit, what in ((1e-13, [tmp_path / "m.safetensors"]), (0, ["--target", "keras"])):
        run = slimport("verify", full_checkpoint, *what, *reference)
        assert run.code == 0, run.err
        report = json.loads(run.out)
        assert (report["ok"], len(report["end_points"])) == (True, len(FULL.end_points("InceptionV3")))
        assert report["judge"] == "tf_slim.nets.inception_v3"
        assert report["worst"]["rel_l2"] <= limit


# What a form holds is told by the variables, see test_forms.py; these differ in what runs them.
@pytest.mark.parametrize("suffix", [".safetensors", ".weights.h5"])
def test_a_converted_file_is_verified_with_its_auxiliary_head(
    suffix: str, inception_checkpoint: Path, inception_trace: Path, tmp_path: Path
) -> None:
    network = SMALL_NETWORKS["inception_v3"]
    convert(inception_checkpoint, tmp_path / f"m{suffix}")
    report = verify(inception_checkpoint, tmp_path / f"m{suffix}", reference=inception_trace)
    assert report.ok, report.first_difference
    assert {row.name for row in report.rows} == set(network.end_points("InceptionV3"))
    assert report.weights_compared == len(network.variables())


def test_a_program_of_its_first_blocks_is_verified(tmp_path: Path) -> None:
    """An exporter's time grows with the layers; the others are like these."""
    network = replace(SMALL_NETWORKS["inception_v3"], final_endpoint="Mixed_5c")  # type: ignore[type-var]
    write_checkpoint(tmp_path / "c", {f"net/{name}": array for name, array in random_weights(network).items()})
    convert(tmp_path / "c", tmp_path / "m.pt2")
    report = verify(tmp_path / "c", tmp_path / "m.pt2", size=(76, 89))
    assert report.ok, report.first_difference
    assert [row.name for row in report.rows] == network.end_points("net")


def test_the_last_pool_of_a_program_shrinks_to_maps_that_are_smaller() -> None:
    torch = frameworks.require("torch")
    from slimport.pytorch.layers import AvgPool2d

    pool = AvgPool2d(next(node for node in FULL.graph().nodes if node.scope == "Logits/AvgPool_1a_8x8"))
    free, config = torch.export.Dim.DYNAMIC, import_module("torch.fx.experimental._config")
    with config.patch(backed_size_oblivious=True):
        shapes = (({0: free, 2: free, 3: free},),)
        program = torch.export.export(pool, (torch.zeros(2, 3, 9, 10),), dynamic_shapes=shapes)
    for shape in ((1, 3, 8, 8), (3, 3, 5, 8), (2, 3, 8, 3), (1, 3, 10, 6), (2, 3, 17, 9)):
        images = torch.from_numpy(random_images(shape))
        torch.testing.assert_close(program.module()(images), pool(images))


@pytest.fixture(scope="module")
def inception_checkpoint(made_once: MadeOnce) -> Path:
    def make(folder: Path) -> None:
        save_small(folder / "small.ckpt", "v2", SMALL_NETWORKS["inception_v3"], "InceptionV3")

    return made_once("small_inception_v3", make) / "small.ckpt"


@pytest.fixture(scope="module")
def inception_trace(inception_checkpoint: Path, made_once: MadeOnce) -> Path:
    return made_once("inception_v3_trace", lambda to: trace(inception_checkpoint, to / "small.npz")) / "small.npz"


def test_a_keras_model_with_the_auxiliary_head_has_two_outputs(inception_checkpoint: Path) -> None:
    model = load_keras(inception_checkpoint)
    images = random_images((2, 299, 299, 3))
    logits, auxiliary = model(images)
    end_points = slimport.keras.end_points(model)(images)
    np.testing.assert_array_equal(logits, end_points["Logits"])
    np.testing.assert_array_equal(auxiliary, end_points["AuxLogits"])
    assert slimport.keras.inception_v3(3, create_aux_logits=False, depth_multiplier=0.1).output_shape == (None, 3)


def test_a_batch_norm_without_gamma_is_folded() -> None:
    torch = frameworks.require("torch")
    from slimport.pytorch import fold_batch_norm

    network = SMALL_NETWORKS["inception_v3"]
    model = pytorch_port(network, random_weights(network)).double()
    images = torch.from_numpy(random_images((1, 3, 299, 299))).double()
    for name, value in fold_batch_norm(model).features(images, ["Mixed_7c", "AuxLogits"]).items():
        assert rel_l2(value.numpy(), model.features(images, [name])[name].detach().numpy()) < 1e-14


def test_images_are_predicted_with_1001_classes(full_checkpoint: Path, tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (320, 400, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    found = predict(full_checkpoint, [tmp_path / "image.png"])
    assert (found.preprocessing, found.size) == ("inception", (299, 299))
    assert len(found.images[0].top) == 5


def test_an_auxiliary_head_of_other_images_is_said(inception_checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"AuxLogits"):
        verify(inception_checkpoint, size=OTHER_SIZE)
