"""SavedModels of TensorFlow 2 without a signature, and object-based checkpoints, which one program writes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL_NETWORKS, random_weights

import slimport.pytorch
from converters import convert, inspect, load_pytorch, open_checkpoint, verify
from converters.errors import InputError
from converters.graph_def import read_network
from converters.weights.user_graph import GraphOptions

PROGRAM = """
import numpy as np, tensorflow as tf, tf_keras
rng = np.random.default_rng(0)
numbers = lambda *shape: rng.uniform(0.1, 0.5, shape).astype("float32")
images = rng.normal(size=(2, 12, 14, 3)).astype("float32")
spec = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
norm = tf.compat.v1.nn.fused_batch_norm

class Block(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(numbers(3, 3, 4, 4), name="kernel")
    def __call__(self, net):
        return tf.nn.relu(tf.nn.conv2d(net, self.kernel, 1, "SAME"))

class Plain(tf.Module):
    def __init__(self):
        super().__init__()
        self.stem = tf.Variable(numbers(3, 3, 3, 4), name="kernel")
        self.blocks = [Block(), Block()]
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        self.norm = [tf.Variable(numbers(4), name=name) for name in names]
        self.scale = tf.constant(numbers(4))
    @tf.function
    def __call__(self, images, training=False, rate=0.5):
        net = tf.nn.conv2d(images, self.stem, 2, "SAME")
        statistics = self.norm[:2] if training else self.norm
        net, *_ = norm(net, *statistics, is_training=training)
        net = net * self.scale
        for block in self.blocks:
            net = block(net)
        return {"features": net, "pooled": tf.reduce_mean(net, [1, 2])}

class Called(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(numbers(3, 3, 4, 4), name="kernel")
    @tf.function
    def __call__(self, net):
        return tf.nn.leaky_relu(tf.nn.conv2d(net, self.kernel, 1, "SAME"))

class Nested(tf.Module):
    def __init__(self):
        super().__init__()
        self.blocks = [Called(), Called(), Called()]
    @tf.function(input_signature=[spec])
    def __call__(self, images):
        net = tf.pad(images, [[0, 0], [0, 0], [0, 0], [0, 1]])
        for block in self.blocks:
            net = block(net)
        return net

class Two(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = tf.Variable(numbers(3, 3, 3, 4), name="w")
    @tf.function(input_signature=[spec])
    def encode(self, images):
        return tf.nn.conv2d(images, self.w, 1, "SAME")
    @tf.function(input_signature=[spec])
    def double(self, images):
        return 2 * tf.nn.conv2d(images, self.w, 1, "SAME")
    @tf.function
    def never(self, images):
        return images

plain, two = Plain(), Two()
for training in (True, False):
    plain.__call__.get_concrete_function(spec, training=training)
tf.saved_model.save(plain, "plain")
truth = {"plain/" + name: value.numpy() for name, value in plain(images).items()}
nested = Nested()
tf.saved_model.save(nested, "nested", signatures=nested.__call__)
two.encode(images), two.double(images)
tf.saved_model.save(two, "two")
truth["two"] = two.double(images).numpy()
hub = tf.Module()
hub.w = tf.Variable(numbers(3, 3, 3, 4))
reflected = lambda net: tf.pad(net, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
wrapped = tf.compat.v1.wrap_function(
    lambda images: tf.nn.conv2d(reflected(images), hub.w, 1, "VALID"), [tf.TensorSpec(None, tf.float32)])
hub.f = wrapped.prune(wrapped.inputs[:1], wrapped.outputs[0])
tf.saved_model.save(hub, "hub1")
truth["hub1"] = hub.f(tf.constant(images)).numpy()
one = tf.Module()
one.never, one.w = tf.function(lambda net: net), tf.Variable(1.0)
tf.saved_model.save(one, "never")
layers = tf_keras.layers
keras = tf_keras.Sequential([layers.Conv2D(4, 3, input_shape=(None, None, 3)), layers.BatchNormalization(),
                             layers.ReLU(), layers.GlobalAveragePooling2D(), layers.Dropout(0.5), layers.Dense(5)])
for weight in keras.weights:
    weight.assign(numbers(*weight.shape))
tf.saved_model.save(keras, "keras", signatures={})
truth["keras"] = keras(images).numpy()
tf.saved_model.save(keras, "signed")

class Slim(tf_keras.Model):
    def __init__(self, arrays):
        super().__init__()
        for name, array in arrays.items():
            setattr(self, name + ":0", tf.Variable(array, name=name))
arrays = dict(np.load("weights.npz"))
slim = Slim(arrays)
slim.save_weights("hub/weights", save_format="tf")
step = tf.Variable(0, name="global_step", dtype=tf.int64)
variables = [tf.Variable(array, name=name) for name, array in arrays.items()]
tf.train.Checkpoint(model=variables, step=step).write("checkpoint/ckpt")
np.savez("truth.npz", images=images, **truth)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with everything that the program writes."""
    folder = tmp_path_factory.mktemp("saved")
    weights = random_weights(SMALL_NETWORKS["mobilenet_v1"])
    np.savez(folder / "weights.npz", **{f"MobilenetV1/{name}": array for name, array in weights.items()})
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, cwd=folder)
    return folder


def error(saved: Path, found: torch.Tensor, name: str) -> float:
    truth = np.load(saved / "truth.npz")[name]
    array = (found.permute(0, 2, 3, 1) if found.dim() == 4 else found).numpy()
    return float(np.linalg.norm(array - truth) / np.linalg.norm(truth))


def outputs(saved: Path, model: Any) -> Any:
    images = torch.from_numpy(np.load(saved / "truth.npz")["images"].transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        return model(images)


def test_without_a_signature_the_function_that_is_called_is_taken_with_training_off(
    saved: Path, tmp_path: Path
) -> None:
    user = read_network(saved / "plain")
    assert "it has no signature: its function __call__ is taken" in user.notes
    assert (list(user.inputs), list(user.outputs)) == (["images"], ["features", "pooled"])
    convert(saved / "plain", tmp_path / "m.safetensors")
    found = outputs(saved, slimport.pytorch.load(tmp_path / "m.safetensors"))
    assert max(error(saved, value, f"plain/{name}") for name, value in found.items()) < 1e-6


def test_names_that_tensorflow_numbered_give_layers_that_can_be_told_apart(saved: Path) -> None:
    scopes = {name.partition("/")[0] for name in read_network(saved / "plain").graph.variables}
    assert {"conv1", "conv2", "conv3"} <= scopes


def test_of_several_functions_none_is_guessed_and_an_output_chooses(saved: Path) -> None:
    with pytest.raises(InputError, match=r"choose one of its functions with --output: double, encode$"):
        read_network(saved / "two")
    model = load_pytorch(saved / "two", graph=GraphOptions(outputs=("double",)))
    assert error(saved, outputs(saved, model), "two") < 1e-6


def test_a_function_of_tensorflow_1_has_the_channels_of_its_first_kernel(saved: Path) -> None:
    """As modules of TF Hub have them: without a signature of its own, and behind a pad."""
    user = read_network(saved / "hub1")
    assert user.graph.nodes[0].attributes["shape"] == (None, None, None, 3)
    assert error(saved, outputs(saved, load_pytorch(saved / "hub1")), "hub1") < 1e-6


def test_functions_that_were_never_called_are_said(saved: Path) -> None:
    with pytest.raises(InputError, match="without a function that was called before it was saved: save it again"):
        read_network(saved / "never")


def test_layers_whose_nodes_have_one_name_in_several_functions_are_each_compared(saved: Path, tmp_path: Path) -> None:
    user = read_network(saved / "nested")
    assert len(user.layers) == len(set(user.layers.values())) == 3
    convert(saved / "nested", tmp_path / "m.safetensors")
    report = verify(saved / "nested", tmp_path / "m.safetensors", dtype="float64")
    assert (report.ok, len(report.rows)) == (True, 4)


@pytest.mark.parametrize("name", ["keras", "signed"])
def test_a_keras_model_converts_with_and_without_its_signature(name: str, saved: Path, tmp_path: Path) -> None:
    found = inspect(saved / name).recognition
    assert found is not None
    assert not list(found.problems())
    assert error(saved, outputs(saved, load_pytorch(saved / name)), "keras") < 1e-6
    convert(saved / name, tmp_path / "m.keras")
    convert(tmp_path / "m.keras", tmp_path / "back.ckpt")
    with open_checkpoint(tmp_path / "back.ckpt") as back:
        assert {"conv2d/kernel", "dense/bias", "batch_normalization/moving_variance"} <= set(back)
    # What was written back is read by the names that the graph had.
    assert error(saved, outputs(saved, load_pytorch(tmp_path / "back.ckpt")), "keras") < 1e-6


@pytest.mark.parametrize("path", ["hub/weights", "checkpoint/ckpt"])
def test_object_based_checkpoints_of_a_network_with_slims_names_convert(path: str, saved: Path, tmp_path: Path) -> None:
    found = inspect(saved / path).recognition
    assert found is not None
    assert (found.network.family, found.scope, found.complete) == ("mobilenet_v1", "MobilenetV1", True)
    convert(saved / path, tmp_path / "m.ckpt")
    weights = np.load(saved / "weights.npz")
    with open_checkpoint(tmp_path / "m.ckpt") as back:
        assert all(np.array_equal(back[name], weights[name]) for name in weights.files)


@pytest.mark.parametrize("damage", [lambda data, at: data[:at], lambda data, at: data[:at] + b"\xff" + data[at + 1 :]])
def test_a_damaged_object_graph_is_one_line(damage: Callable[[bytes, int], bytes], saved: Path, tmp_path: Path) -> None:
    data = (saved / "plain" / "saved_model.pb").read_bytes()
    start, messages = data.index(b"blocks"), []
    for at in range(start, len(data), max(1, (len(data) - start) // 40)):
        (tmp_path / "saved_model.pb").write_bytes(damage(data, at))
        try:
            read_network(tmp_path / "saved_model.pb")
        except InputError as one:
            messages.append(str(one))
    assert messages
    assert not [message for message in messages if "\n" in message]
