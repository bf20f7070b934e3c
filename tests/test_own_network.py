"""The user's own `.meta` or frozen graph decides: in `inspect`, `convert` and the models, without being asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import SMALL_V1, frameworks, make_checkpoint, random_images
from user_graphs import write

import slimport.pytorch
from converters import convert, inspect, load_pytorch, open_checkpoint, verify
from converters.checkpoint import write_checkpoint
from converters.errors import InputError
from converters.weights.user_graph import GraphOptions

nets = frameworks.require("slimport.nets")

import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport.nets import resnet_utils, resnet_v1

LIMIT = 1e-12


def logits(activation: Any = tf.nn.relu, epsilon: float = 1e-5) -> dict[str, Any]:
    """Slim's ResNet v1, small, under its own scope."""
    images = tf.placeholder(tf.float32, (None, None, None, 3), "images")
    arguments = resnet_utils.resnet_arg_scope(activation_fn=activation, batch_norm_epsilon=epsilon)
    with slim.arg_scope(arguments):
        net, _ = resnet_v1.build(SMALL_V1, images, is_training=False, scope="net")
    return {"logits": net}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(logits, tmp_path_factory.mktemp("stock"), "checkpoint").path.with_suffix("")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of the Object Detection API's ssd_resnet50_v1_fpn, of which the variables say nothing."""
    folder = tmp_path_factory.mktemp("other")
    return write(lambda: logits(tf.nn.relu6, 0.001), folder, "checkpoint").path.with_suffix("")


def by_tensorflow(prefix: Path, images: Any) -> Any:
    """What the file's own graph gives in TensorFlow, in float64."""
    from converters.graph_def import read_network
    from converters.graph_def.judge import Judge

    user = read_network(prefix.with_name(f"{prefix.name}.meta"))
    with open_checkpoint(prefix) as checkpoint:
        weights = {name: array.astype(np.float64) for name, array in checkpoint.items()}
    (result,) = Judge(user, "float64").run({"images": images.astype(np.float64)}, weights).values()
    return result


def by_pytorch(model: Any, images: Any) -> Any:
    with torch.inference_mode():
        return model.double()(torch.from_numpy(images.astype(np.float64).transpose(0, 3, 1, 2))).numpy()


def error(array: Any, truth: Any) -> float:
    return float(np.linalg.norm(array - truth) / np.linalg.norm(truth))


def test_a_graph_that_is_slims_is_the_known_network(stock: Path) -> None:
    found = inspect(stock).recognition
    assert found is not None
    assert (found.network, found.scope, list(found.notes())) == (SMALL_V1, "net", [])


def test_one_that_differs_is_what_the_graph_says(other: Path, tmp_path: Path) -> None:
    found = inspect(other).recognition
    assert found is not None
    notes = " ".join(found.notes())
    assert "resnet_v1, but" in notes
    assert "epsilon 0.001" in notes
    assert "relu6" in notes
    images = random_images((2, 33, 46, 3))
    convert(other, tmp_path / "m.safetensors")
    assert (
        error(by_pytorch(slimport.pytorch.load(tmp_path / "m.safetensors"), images), by_tensorflow(other, images))
        < LIMIT
    )
    assert error(by_pytorch(load_pytorch(other), images), by_tensorflow(other, images)) < LIMIT


def test_without_the_graph_what_is_assumed_is_said(other: Path, tmp_path: Path) -> None:
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copy(f"{other}{suffix}", tmp_path / f"m{suffix}")
    found = inspect(tmp_path / "m").recognition
    assert found is not None
    assert found.network == SMALL_V1
    (note,) = found.notes()
    assert note.startswith("assumed: slim's own epsilon")
    images = random_images((1, 33, 46, 3))
    assert error(by_pytorch(load_pytorch(tmp_path / "m"), images), by_tensorflow(other, images)) > 1e-3
    model = load_pytorch(tmp_path / "m", graph=GraphOptions(f"{other}.meta"))
    assert error(by_pytorch(model, images), by_tensorflow(other, images)) < LIMIT
    # And the other way round: the graph beside a checkpoint is left out on request.
    found = inspect(other, graph=GraphOptions("none")).recognition
    assert found is not None
    assert found.network == SMALL_V1


def faster_rcnn() -> dict[str, Any]:
    """The trunk of tf-faster-rcnn, small: `pool1` padded on both sides and VALID, and no stride in the last block."""
    images = tf.placeholder(tf.float32, (None, None, None, 3), "images")
    blocks = [resnet_v1.resnet_v1_block("block1", 4, 2, 2), resnet_v1.resnet_v1_block("block2", 8, 3, 1)]
    blocks.append(resnet_v1.resnet_v1_block("block3", 8, 2, 1))
    with slim.arg_scope(resnet_utils.resnet_arg_scope()):
        with slim.arg_scope([slim.batch_norm], is_training=False), tf.variable_scope("net"):
            net = resnet_utils.conv2d_same(images, 64, 7, stride=2, scope="conv1")
            net = tf.pad(net, [[0, 0], [1, 1], [1, 1], [0, 0]])
            net = slim.max_pool2d(net, [3, 3], stride=2, padding="VALID", scope="pool1")
        net, _ = resnet_v1.resnet_v1(
            net, blocks, is_training=False, global_pool=False, include_root_block=False, scope="net"
        )
    return {"features": net}


def test_the_padding_and_strides_of_a_detector_are_the_graphs(tmp_path: Path) -> None:
    prefix = write(faster_rcnn, tmp_path / "run", "checkpoint").path.with_suffix("")
    images = random_images((2, 64, 97, 3))
    truth = by_tensorflow(prefix, images).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        assumed = load_pytorch(prefix, graph=GraphOptions("none"), global_pool=False, spatial_squeeze=False)
        port = assumed.double()(torch.from_numpy(images.astype(np.float64).transpose(0, 3, 1, 2))).numpy()
    assert port.shape != truth.shape or error(port, truth) > 1e-3
    convert(prefix, tmp_path / "m.safetensors")
    assert error(by_pytorch(slimport.pytorch.load(tmp_path / "m.safetensors"), images), truth) < LIMIT
    assert verify(prefix, tmp_path / "m.safetensors", size=(64, 97)).ok
    found = inspect(prefix).recognition
    assert found is not None
    (note,) = found.notes()
    assert "pool1" in note


def test_a_frozen_graph_is_a_source(tmp_path: Path) -> None:
    written = write(lambda: logits(tf.nn.relu6, 0.001), tmp_path, "frozen")
    convert(written.path, tmp_path / "m.safetensors")
    convert(tmp_path / "m.safetensors", tmp_path / "back.ckpt")
    with open_checkpoint(tmp_path / "back.ckpt") as back:
        same = {name: np.array_equal(back[name], array) for name, array in written.weights.items()}
    assert all(same.values())
    convert(written.path, tmp_path / "m.pth")
    images = torch.from_numpy(random_images((1, 3, 33, 46)))
    with torch.inference_mode():
        assert torch.equal(load_pytorch(tmp_path / "m.pth")(images), load_pytorch(written.path)(images))


def test_a_part_is_chosen_by_its_output(other: Path) -> None:
    graph = GraphOptions(outputs=("net/pool1/MaxPool",))
    assert load_pytorch(other, graph=graph)(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 8, 8)
    with pytest.raises(InputError, match="nothing"):
        load_pytorch(other, graph=GraphOptions(outputs=("nothing",)))


@pytest.mark.parametrize("name", ["m.pth", "m.pt2", "m.onnx", "m.keras", "m.weights.h5", "folder"])
def test_every_format_holds_a_graph(name: str, other: Path, tmp_path: Path) -> None:
    convert(other, tmp_path / name, to="huggingface" if name == "folder" else None)
    convert(tmp_path / name, tmp_path / "back.safetensors")
    images = torch.from_numpy(random_images((2, 3, 33, 46)))
    with torch.inference_mode():
        assert torch.equal(slimport.pytorch.load(tmp_path / "back.safetensors")(images), load_pytorch(other)(images))


@pytest.mark.parametrize("damage", ["cut", "of another checkpoint"])
def test_one_that_cannot_be_used_is_said_and_not_needed(damage: str, stock: Path, tmp_path: Path) -> None:
    make_checkpoint.save_without_tensorflow(SMALL_V1, tmp_path / "m.ckpt", scope="other")
    content = stock.with_name(f"{stock.name}.meta").read_bytes()
    (tmp_path / "m.ckpt.meta").write_bytes(content[:1000] if damage == "cut" else content)
    found = inspect(tmp_path / "m.ckpt").recognition
    assert found is not None
    assert (found.network, found.scope) == (SMALL_V1, "other")
    trouble, assumed = found.notes()
    assert "m.ckpt.meta" in trouble
    assert assumed.startswith("assumed: ")
    convert(tmp_path / "m.ckpt", tmp_path / "m.safetensors")
    if damage == "cut":
        # What is asked for is needed.
        with pytest.raises(InputError, match=r"m\.ckpt\.meta"):
            convert(tmp_path / "m.ckpt", tmp_path / "n.safetensors", graph=GraphOptions(tmp_path / "m.ckpt.meta"))


def test_scope_chooses_beside_the_graphs_network(stock: Path, tmp_path: Path) -> None:
    """A checkpoint of two networks, whose graph is of one of them."""
    with open_checkpoint(stock) as checkpoint:
        arrays = dict(checkpoint.items())
    write_checkpoint(tmp_path / "m", arrays | {f"second/{name.partition('/')[2]}": -a for name, a in arrays.items()})
    shutil.copy(f"{stock}.meta", tmp_path / "m.meta")
    for scope, sign in ((None, 1), ("net", 1), ("second", -1)):
        weight = load_pytorch(tmp_path / "m", scope=scope).state_dict()["conv1.weight"].numpy()
        np.testing.assert_array_equal(weight.transpose(2, 3, 1, 0), sign * arrays["net/conv1/weights"])


def less_the_mean() -> dict[str, Any]:
    images = tf.placeholder(tf.float32, (None, None, None, 3), "images")
    return {"a": slim.conv2d(images - [123.68, 116.779, 103.939], 4, 3, scope="a")}


@pytest.mark.parametrize("target", ["pytorch", "keras"])
def test_preprocessing_before_the_first_layer_is_in_float64_too(target: str, tmp_path: Path) -> None:
    prefix = write(less_the_mean, tmp_path, "checkpoint").path.with_suffix("")
    report = verify(prefix, target=target, dtype="float64", size=(9, 12), batch=2)
    assert report.ok
    assert report.judge == "model.ckpt.meta, run by TensorFlow"


def one_size() -> dict[str, Any]:
    images = tf.placeholder(tf.float32, (None, 8, 8, 3), "images")
    return {"a": slim.fully_connected(slim.flatten(images), 4, scope="a")}


def two_heads() -> dict[str, Any]:
    """As DeepLabCut has them, behind a mean that is subtracted."""
    images = tf.placeholder(tf.float32, (None, None, None, 3), "images")
    net = slim.conv2d(images - [123.68, 116.779, 103.939], 4, 3, 2, scope="trunk")
    heads = {name: slim.conv2d_transpose(net, 2, 3, 2, activation_fn=None, scope=name) for name in ("b", "a")}
    return {name: heads[name] for name in ("a", "b")}


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize(("build", "size"), [(two_heads, (9, 12)), (one_size, (8, 8))])
def test_a_program_has_the_graphs_outputs_and_its_size(
    build: Any, size: tuple[int, int], suffix: str, tmp_path: Path
) -> None:
    prefix = write(build, tmp_path, "checkpoint").path.with_suffix("")
    convert(prefix, tmp_path / f"m{suffix}")
    report = verify(prefix, tmp_path / f"m{suffix}", size=size)
    assert report.ok
    assert {row.name for row in report.rows} >= set("ab" if build is two_heads else "a")
    convert(tmp_path / f"m{suffix}", tmp_path / "back.ckpt")
    with open_checkpoint(prefix) as there, open_checkpoint(tmp_path / "back.ckpt") as back:
        assert all(np.array_equal(there[name], back[name]) for name in there)


def test_the_outputs_of_an_onnx_file_have_their_names(tmp_path: Path) -> None:
    prefix = write(two_heads, tmp_path, "checkpoint").path.with_suffix("")
    convert(prefix, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    found = session.run(None, {"images": np.zeros((3, 3, 5, 7), np.float32)})
    assert {output.name: value.shape for output, value in zip(session.get_outputs(), found, strict=True)} == {
        "b/BiasAdd": (3, 2, 6, 8),
        "a/BiasAdd": (3, 2, 6, 8),
    }


def test_the_saver_of_another_program_is_not_asked(tmp_path: Path) -> None:
    """A checkpoint without a graph beside it is recognised as before."""
    make_checkpoint.save_without_tensorflow(SMALL_V1, tmp_path / "m.ckpt", scope="net")
    found = inspect(tmp_path / "m.ckpt").recognition
    assert found is not None
    assert found.network == SMALL_V1
