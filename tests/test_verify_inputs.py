"""`verify` runs networks of any inputs: vectors, sequences, whole numbers, and several at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import user_graphs
from conftest import Run
from PIL import Image
from user_graphs import write

from converters import InputError, convert, inspect, load_keras, load_pytorch, open_checkpoint, trace, verify
from converters.display import page
from converters.display.inspection import inspection_text
from converters.display.report import report_text
from converters.parity.tracing import open_trace

tf = user_graphs.tf
import tf_slim as slim

SUFFIXES = (".safetensors", ".pth", ".keras", ".weights.h5", ".pt2", ".onnx")


def dense() -> dict[str, Any]:
    net = slim.fully_connected(tf.placeholder(tf.float32, (None, 12), "x"), 8, scope="hidden")
    return {"logits": slim.fully_connected(net, 3, activation_fn=None, scope="logits")}


def image_and_vector() -> dict[str, Any]:
    """Both outputs depend on both inputs, and the names of the outputs are not in the order of the alphabet."""
    image = tf.placeholder(tf.float32, (None, 8, 10, 3), "camera/image")
    vector = tf.placeholder(tf.float32, (None, 5), "speed")
    net = slim.flatten(slim.conv2d(image, 4, 3, stride=2, scope="conv"))
    net = tf.concat([net, slim.fully_connected(vector, 6, scope="measured")], 1)
    steer = slim.fully_connected(net, 2, activation_fn=None, scope="steer")
    return {"steer": steer, "brake": slim.fully_connected(net, 1, activation_fn=None, scope="brake")}


def sequence() -> dict[str, Any]:
    """A convolution along time, of any length."""
    net = tf.placeholder(tf.float32, (None, None, 6), "words")
    net = slim.conv2d(tf.expand_dims(net, 1), 8, [1, 3], scope="conv")
    net = tf.reduce_max(tf.squeeze(net, [1]), 1)
    return {"logits": slim.fully_connected(net, 3, activation_fn=None, scope="logits")}


def whole_numbers() -> dict[str, Any]:
    ids = tf.placeholder(tf.int32, (None, 7), "ids")
    mask = tf.placeholder(tf.float32, (None, 7), "mask")
    net = tf.concat([tf.cast(ids, tf.float32) * mask, tf.cast(tf.equal(ids, 1), tf.float32)], 1)
    net = slim.fully_connected(net, 4, scope="hidden")
    return {"logits": slim.fully_connected(net, 3, activation_fn=None, scope="logits")}


def pixels() -> dict[str, Any]:
    images = tf.placeholder(tf.uint8, (None, None, None, 3), "images")
    net = slim.conv2d(tf.cast(images, tf.float32) / 255, 4, 3, 2, scope="conv")
    return {"logits": slim.fully_connected(tf.reduce_mean(net, [1, 2]), 3, activation_fn=None, scope="logits")}


def two_images() -> dict[str, Any]:
    """A stereo pair of any size, which is added: both must have the same."""
    left, right = (tf.placeholder(tf.float32, (None, None, None, 3), name) for name in ("left", "right"))
    net = slim.conv2d(left, 4, 3, scope="a") + slim.conv2d(right, 4, 3, scope="b")
    return {"c": slim.conv2d(net, 4, 3, scope="c")}


def channels_first() -> dict[str, Any]:
    """An image that TensorFlow takes in NCHW behind another input, and an output in NCHW."""
    vector = tf.placeholder(tf.float32, (None, 4), "vector")
    image = tf.placeholder(tf.float32, (None, 3, 8, 9), "image")
    net = slim.conv2d(tf.transpose(image, (0, 2, 3, 1)), 4, 3, scope="conv")
    net += tf.reshape(slim.fully_connected(vector, 4, scope="measured"), (-1, 1, 1, 4))
    return {"map": tf.transpose(net, (0, 3, 1, 2), name="map")}


def frames() -> dict[str, Any]:
    """A video, [batch, time, height, width, channels], whose frames are images of one batch."""
    video = tf.placeholder(tf.float32, (None, 4, 9, 12, 3), "video")
    net = slim.conv2d(tf.reshape(video, (-1, 9, 12, 3)), 4, 3, 2, scope="conv")
    net = tf.reshape(tf.reduce_mean(net, [1, 2]), (-1, 16))
    return {"logits": slim.fully_connected(net, 3, activation_fn=None, scope="logits")}


NETWORKS: dict[str, tuple[Callable[[], dict[str, Any]], dict[str, tuple[int, ...]]]] = {
    "dense": (dense, {"x": (2, 12)}),
    "image and vector": (image_and_vector, {"camera/image": (2, 8, 10, 3), "speed": (2, 5)}),
    "sequence": (sequence, {"words": (2, 20, 6)}),
    "whole numbers": (whole_numbers, {"ids": (2, 7), "mask": (2, 7)}),
    "pixels": (pixels, {"images": (2, 97, 128, 3)}),
    "two images": (two_images, {"left": (2, 97, 128, 3), "right": (2, 97, 128, 3)}),
    "channels first": (channels_first, {"vector": (2, 4), "image": (2, 8, 9, 3)}),
    "frames": (frames, {"video": (2, 4, 9, 12, 3)}),
}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The prefix of a checkpoint of one of `NETWORKS`, with its `.meta`."""
    made: dict[str, Path] = {}

    def prefix(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp(name.replace(" ", "_"))
            made[name] = write(NETWORKS[name][0], folder, "checkpoint").path.with_suffix("")
        return made[name]

    return prefix


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_converted_file_is_equal_whatever_its_inputs_are(
    name: str, suffix: str, run_of: Callable[[str], Path], tmp_path: Path
) -> None:
    convert(run_of(name), tmp_path / f"m{suffix}")
    report = verify(run_of(name), tmp_path / f"m{suffix}")
    assert report.ok, report_text(report)
    assert dict(report.inputs) == NETWORKS[name][1]
    returned = next(iter(report.by_dtype.values())).returned
    assert returned
    # Of no batch that it was written with.
    assert verify(run_of(name), tmp_path / f"m{suffix}", batch=1).ok
    assert verify(run_of(name), tmp_path / f"m{suffix}", batch=5, seed=3).ok


@pytest.mark.parametrize("name", ["dense", "image and vector", "whole numbers", "pixels"])
def test_a_model_in_memory_is_equal(name: str, run_of: Callable[[str], Path]) -> None:
    assert verify(run_of(name), load_pytorch(run_of(name))).ok
    assert verify(run_of(name), load_keras(run_of(name))).ok
    assert verify(run_of(name), target="keras").ok


class Lookup(torch.nn.Module):
    """Somebody's own port of `whole_numbers`, which indexes with the ids."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("numbers", torch.arange(2.0))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.end_points(ids, mask)[0]

    def end_points(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.model.get_submodule("").end_points(self.numbers[ids.long()], mask)  # type: ignore[operator]


def test_the_port_of_somebody_else_gets_whole_numbers(run_of: Callable[[str], Path]) -> None:
    seen: list[torch.dtype] = []
    model = Lookup(load_pytorch(run_of("whole numbers")))
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    assert verify(run_of("whole numbers"), model).ok
    assert set(seen) == {torch.int32}


@pytest.mark.parametrize("name", ["image and vector", "sequence", "whole numbers"])
def test_a_trace_takes_tensorflows_place(name: str, run_of: Callable[[str], Path], tmp_path: Path) -> None:
    prefix, recorded = run_of(name), tmp_path / "t.npz"
    trace(prefix, recorded, batch=3)
    convert(prefix, tmp_path / "m.safetensors")
    report = verify(prefix, tmp_path / "m.safetensors", reference=recorded)
    live = verify(prefix, tmp_path / "m.safetensors", batch=3)
    assert report.ok
    assert replace(report, reference=None, reference_versions={}) == live
    kinds = {"whole numbers": ["i", "f"], "sequence": ["f"]}.get(name, ["f", "f"])
    assert [array.dtype.kind for array in open_trace(recorded).inputs] == kinds
    with pytest.raises(InputError, match="recorded with batch 3, not with batch 2"):
        verify(prefix, reference=recorded, batch=2)
    with np.load(recorded) as file:
        arrays = {**file, "images": file["images"] + 1}
    np.savez(tmp_path / "changed.npz", allow_pickle=False, **arrays)
    with pytest.raises(InputError, match="its numbers are not those that were recorded"):
        verify(prefix, reference=tmp_path / "changed.npz")


def changed(path: Path, scope: str, leaf: str) -> None:
    """Changes a weight in a file by a thousandth."""
    if path.suffix == ".pth":
        state = torch.load(path, weights_only=True)
        state[f"{scope}.weight"][0] *= 1.001
        torch.save(state, path)
    elif path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            (weights,) = (layer["vars"] for layer in file["layers"].values() if layer["vars"].attrs["name"] == scope)
            weights["0"][0] *= np.float32(1.001)
    elif path.suffix == ".onnx":
        file = onnx.load(path)
        (tensor,) = (one for one in file.graph.initializer if one.name == f"{scope}.{leaf}")
        array = onnx.numpy_helper.to_array(tensor) * np.float32(1.001)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        onnx.save(file, path)
    else:
        notes = {"slimport": ""}
        program = torch.export.load(path, extra_files=notes)
        program.state_dict[f"{scope}.{leaf}"].data *= 1.001
        torch.export.save(program, path, extra_files=notes)


@pytest.mark.parametrize("suffix", [".pth", ".weights.h5", ".onnx", ".pt2"])
def test_a_weight_that_is_changed_is_found_where_it_is(
    suffix: str, run_of: Callable[[str], Path], slimport: Callable[..., Run], tmp_path: Path
) -> None:
    prefix, path = run_of("image and vector"), tmp_path / f"m{suffix}"
    convert(prefix, path)
    changed(path, "measured", "weight")
    run = slimport("verify", prefix, path)
    assert run.code == 1
    assert run.out.splitlines()[-1].endswith("it begins at measured")


def test_the_reports_say_what_the_inputs_were(run_of: Callable[[str], Path], tmp_path: Path) -> None:
    report = verify(run_of("image and vector"), dtype="float32")
    assert ", batch 2 of camera/image 8x10x3 and speed 5\n" in report_text(report)
    found = report.to_json()
    assert found["input_shape"] is None
    assert found["inputs"] == {"camera/image": [2, 8, 10, 3], "speed": [2, 5]}
    page.write(report, tmp_path / "report.html")
    assert "batch 2 of camera/image 8x10x3 and speed 5, random numbers" in (tmp_path / "report.html").read_text()
    report = verify(run_of("sequence"), dtype="float32", batch=3)
    assert ", batch 3 of words 20x6\n" in report_text(report)
    assert report.to_json()["input_shape"] == [3, 20, 6]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dense", ["--size", "8"], r"--size: is of images, and model.ckpt takes x \[12\]: leave it out"),
        (
            "dense",
            ["--image", "photo.png"],
            r"--image: is the whole input, and model.ckpt takes x \[12\]: leave it out",
        ),
        (
            "image and vector",
            ["--image", "photo.png"],
            r"takes camera/image \[8, 10, 3\] and speed \[5\]: leave it out",
        ),
        ("image and vector", ["--size", "9x9"], "TensorFlow does not run its graph on inputs of 2x9x9x3 and 2x5: "),
    ],
)
def test_what_is_of_images_alone_is_refused(
    name: str,
    options: list[str],
    message: str,
    run_of: Callable[[str], Path],
    slimport: Callable[..., Run],
    tmp_path: Path,
) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "photo.png")
    options = [option.replace("photo.png", str(tmp_path / "photo.png")) for option in options]
    run = slimport("verify", run_of(name), *options)
    assert run.code == 2
    assert re.search(message, run.err)
    assert run.err.count("\n") == 1
    if "2x9x9x3" not in message:
        trace(run_of(name), tmp_path / "t.npz")
        run = slimport("verify", run_of(name), "--reference", tmp_path / "t.npz", *options)
        assert run.code == 2
        assert run.err.startswith("error: ") or "--" in run.err


def test_images_of_whole_numbers_are_pixels_and_files_too(run_of: Callable[[str], Path], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    report = verify(run_of("pixels"), images=tmp_path / "photo.png", size=(21, 30))
    assert report.ok
    assert report.input_shape == (1, 21, 30, 3)
    trace(run_of("pixels"), tmp_path / "t.npz", size=(33, 46))
    (images,) = open_trace(tmp_path / "t.npz").inputs
    assert (images.dtype, images.min(), images.max()) == (np.uint8, 0, 255)
    assert verify(run_of("pixels"), target="keras", reference=tmp_path / "t.npz").ok


def test_predict_is_for_images_alone(
    run_of: Callable[[str], Path], slimport: Callable[..., Run], tmp_path: Path
) -> None:
    for name, advised in (("dense", False), ("sequence", False), ("pixels", True)):
        text = inspection_text(inspect(run_of(name)))
        assert "slimport verify" in text
        assert ("slimport predict" in text) is advised
    Image.new("RGB", (20, 20)).save(tmp_path / "photo.png")
    run = slimport("predict", run_of("dense"), tmp_path / "photo.png")
    assert run.code == 2
    assert "has other inputs than images" in run.err


def named_badly() -> dict[str, Any]:
    """Names that are no identifiers, that are alike, and that a layer has."""
    inputs = [tf.placeholder(tf.float32, (None, 4), name) for name in ("class", "a/x", "a_x", "net")]
    with tf.variable_scope("net"):
        weights, biases = tf.get_variable("weights", (16, 3)), tf.get_variable("biases", (3,))
    return {"out": tf.nn.relu(tf.matmul(tf.concat(inputs, 1), weights) + biases)}


def test_names_that_are_none_of_a_program_are_changed(tmp_path: Path) -> None:
    prefix = write(named_badly, tmp_path, "checkpoint").path.with_suffix("")
    for suffix in (".onnx", ".pt2"):
        convert(prefix, tmp_path / f"m{suffix}")
        assert verify(prefix, tmp_path / f"m{suffix}").ok
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert [one.name for one in session.get_inputs()] == ["input_class", "a_x", "a_x_1", "net_1"]


def test_the_inputs_of_a_program_have_the_networks_names(run_of: Callable[[str], Path], tmp_path: Path) -> None:
    """And run in ONNX Runtime and PyTorch by these, and in this order, without slimport."""
    prefix = run_of("image and vector")
    for suffix in (".onnx", ".pt2", ".safetensors"):
        convert(prefix, tmp_path / f"m{suffix}")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert {one.name: one.shape for one in session.get_inputs()} == {
        "camera_image": ["batch", 3, 8, 10],
        "speed": ["batch", 5],
    }
    program = torch.export.load(tmp_path / "m.pt2")
    assert program.graph_signature.user_inputs == ("camera_image", "speed")
    image, speed = torch.rand(3, 3, 8, 10), torch.rand(3, 5)
    expected = load_pytorch(tmp_path / "m.safetensors")(image, speed)
    torch.testing.assert_close(program.module()(image, speed), expected)
    outputs = session.run(None, {"camera_image": image.numpy(), "speed": speed.numpy()})
    for output, value in zip(outputs, expected.values(), strict=True):
        np.testing.assert_allclose(output, value.detach().numpy(), rtol=0, atol=1e-5)
    convert(run_of("dense"), tmp_path / "dense.onnx")
    (given,) = onnxruntime.InferenceSession(tmp_path / "dense.onnx").get_inputs()
    assert (given.name, given.shape) == ("x", ["batch", 12])
    convert(run_of("sequence"), tmp_path / "sequence.onnx")
    (given,) = onnxruntime.InferenceSession(tmp_path / "sequence.onnx").get_inputs()
    assert (given.name, given.shape) == ("words", ["batch", "axis_1", 6])
    convert(run_of("pixels"), tmp_path / "pixels.onnx")
    (given,) = onnxruntime.InferenceSession(tmp_path / "pixels.onnx").get_inputs()
    assert (given.name, given.shape, given.type) == ("images", ["batch", 3, "height", "width"], "tensor(float)")


def shared_convolution() -> dict[str, Any]:
    """One kernel in two convolutions of other strides, which are two layers."""
    images = tf.placeholder(tf.float32, (None, 9, 9, 3), "images")
    kernel = tf.get_variable("kernel", (3, 3, 3, 4))
    outputs = [tf.nn.conv2d(images, kernel, stride, "SAME", name=f"by_{stride}") for stride in (1, 2)]
    net = tf.concat([tf.reduce_mean(net, [1, 2]) for net in outputs], 1)
    return {"logits": slim.fully_connected(net, 3, activation_fn=None, scope="logits")}


def test_a_variable_that_two_layers_take_is_written_back_once(tmp_path: Path) -> None:
    prefix = write(shared_convolution, tmp_path, "checkpoint").path.with_suffix("")
    convert(prefix, tmp_path / "m.pth")
    convert(tmp_path / "m.pth", tmp_path / "back.ckpt")
    with open_checkpoint(prefix) as there, open_checkpoint(tmp_path / "back.ckpt") as back:
        assert all(np.array_equal(there[name], back[name]) for name in there)
    state = torch.load(tmp_path / "m.pth", weights_only=True)
    kernels = [name for name, tensor in state.items() if tensor.ndim == 4]
    assert len(kernels) == 2
    state[kernels[1]][0] *= 1.001
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(InputError, match=r"kernel is one variable in TensorFlow.*trained apart") as error:
        convert(tmp_path / "m.pth", tmp_path / "again.ckpt")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "again.ckpt.index").exists()


def test_a_keras_model_of_other_inputs_is_refused(run_of: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="takes 1 inputs, and the network 2"):
        verify(run_of("image and vector"), load_keras(run_of("dense")))
