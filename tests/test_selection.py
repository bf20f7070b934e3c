"""What is taken of a checkpoint: averages, classes, heads, and layers that were built without something.

The truth is always TensorFlow's: a graph of the variant itself, or the same graph with other variables restored by
TensorFlow's Saver.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, Run, random_images, save_small, tf_session

from converters import InputError, convert, frameworks, inspect, load_keras, load_pytorch, verify
from converters.weights.selection import Selection
from converters.weights.source import open_source

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf
import tf_slim as slim
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

import slimport.pytorch
from scripts import make_checkpoint
from slimport.nets import resnet_v2

SCOPE = "net"
IMAGES = random_images((2, 40, 33, 3))


def graph(**arguments: Any) -> Any:
    """The small network on a placeholder, under `SCOPE`; its output."""
    with slim.arg_scope(resnet_v2.resnet_arg_scope(**arguments)):
        output, _ = resnet_v2.build(SMALL, tf.placeholder(tf.float32, (2, 40, 33, 3)), is_training=False, scope=SCOPE)
    return output


def run(path: Path, build: Callable[[], Any], variables: Callable[[], Mapping[str, Any] | None] = lambda: None) -> Any:
    """What a graph gives for `IMAGES` with the variables that TensorFlow's Saver restores."""
    with tf.Graph().as_default() as built, tf_session() as session:
        output = build()
        tf.train.Saver(variables()).restore(session, str(path))
        images = next(op for op in built.get_operations() if op.type == "Placeholder")
        return session.run(output, {images.outputs[0]: IMAGES})


def outputs(model: Any) -> Any:
    with torch.inference_mode():
        return model(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2))).numpy()


def close(array: Any, reference: Any) -> bool:
    """Within float32's rounding in a small network."""
    return array.shape == reference.shape and bool(np.allclose(array, reference, rtol=1e-4, atol=1e-5))


def without_biases() -> Any:
    # The arg scope inside wins, and sets no initializer of biases.
    with slim.arg_scope([slim.conv2d], biases_initializer=None):
        return graph()


def fully_connected() -> Any:
    with slim.arg_scope(resnet_v2.resnet_arg_scope()):
        images = tf.placeholder(tf.float32, (2, 40, 33, 3))
        net, _ = resnet_v2.build(SMALL.with_classes(None), images, is_training=False, scope=SCOPE)
        with tf.variable_scope(SCOPE):
            logits = slim.fully_connected(tf.squeeze(net, [1, 2]), 7, activation_fn=None, scope="logits")
    slim.fully_connected(logits, 2, scope="Decoder/fc")
    return logits


VARIANTS: dict[str, tuple[Callable[[], Any], str, int]] = {
    "without gamma": (
        lambda: graph(batch_norm_scale=False),
        "filled with 1",
        sum("gamma" in n for n in SMALL.variables()),
    ),
    "without biases": (without_biases, "filled with 0", sum("biases" in n for n in SMALL.variables())),
    "fully connected logits": (fully_connected, "reshaped: net/logits/weights, [32, 7] in the file", 0),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_of_the_network_is_converted_to_the_same_function(variant: str, tmp_path: Path) -> None:
    build, note, filled = VARIANTS[variant]
    path, converted = tmp_path / "variant.ckpt", tmp_path / "m.safetensors"
    make_checkpoint.save(lambda _: build(), path, "v2")
    truth = run(path, build)
    done = convert(path, converted)
    assert any(line.startswith(note) for line in done.recognition.notes())
    assert len(done.recognition.filled) == filled
    model = slimport.pytorch.load(converted)
    assert close(outputs(model), truth)
    assert model.state_dict().keys() == slimport.pytorch.build(SMALL).state_dict().keys()
    with safe_open(converted, "np") as file:
        metadata = json.loads(file.metadata()["slimport"])
    assert metadata.get("filled", {}) == done.recognition.filled
    report = verify(path, converted, size=(40, 33))
    assert report.ok
    assert any(line.startswith(note) for line in report.notes)
    assert ("the TF-Slim graph is built with scale=False, without a gamma in any BatchNorm" in report.notes) == (
        variant == "without gamma"
    )
    assert report.reader == "tensorflow"
    if variant == "fully connected logits":
        assert done.recognition.extras["layers"] == ("Decoder/fc/biases", "Decoder/fc/weights")
        assert close(np.asarray(load_keras(path)(IMAGES)), truth)


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of variables and their moving averages, which are other numbers; the statistics have none."""
    path = tmp_path_factory.mktemp("averaged") / "model.ckpt"

    def build(_: Any) -> None:
        graph()
        tf.train.ExponentialMovingAverage(0.99).apply(tf.trainable_variables())

    make_checkpoint.save(build, path, "v2")
    return path


def test_ema_takes_what_tensorflow_restores_as_moving_averages(averaged: Path, tmp_path: Path) -> None:
    def restored() -> Mapping[str, Any]:
        names: Mapping[str, Any] = tf.train.ExponentialMovingAverage(0.99).variables_to_restore()
        return names

    truth, raw = run(averaged, graph, restored), run(averaged, graph)
    assert not close(truth, raw)
    assert close(outputs(load_pytorch(averaged)), raw)
    assert close(outputs(load_pytorch(averaged, selection=Selection(ema=True))), truth)
    convert(averaged, tmp_path / "m.safetensors", selection=Selection(ema=True))
    assert close(outputs(slimport.pytorch.load(tmp_path / "m.safetensors")), truth)
    assert verify(averaged, tmp_path / "m.safetensors", size=(40, 33), selection=Selection(ema=True)).ok
    with tf.Graph().as_default():
        graph()
        trainable = {variable.op.name for variable in tf.trainable_variables()}
    found = inspect(averaged, selection=Selection(ema=True)).recognition
    assert found is not None
    assert found.averaged is not None
    assert set(found.averaged) == trainable


def test_the_command_says_which_variables_had_a_moving_average(
    averaged: Path, slimport: Callable[..., Run], tmp_path: Path
) -> None:
    done = slimport("convert", averaged, tmp_path / "m.safetensors", "--ema")
    statistics = [name for name in SMALL.variables() if "moving_" in name]
    total, each = len(SMALL.variables()), len(statistics) // 2
    assert f"moving averages: {total - 2 * each} of {total} variables; none of " in done.out
    assert f"{each} moving_mean" in done.out
    assert "left out: " not in done.out
    run = slimport("inspect", averaged)
    assert "ExponentialMovingAverage (moving averages of the variables; --ema takes them)" in run.out
    run = slimport("inspect", averaged, "--ema")
    assert f"next: slimport convert {averaged} resnet_v2.safetensors --ema" in run.out
    run = slimport("verify", averaged, tmp_path / "m.safetensors", "--size", "33")
    assert (run.code, run.out) == (2, "")
    assert "was converted with --ema, but verify was called with no such option: give it the same" in run.err


def test_moving_averages_that_are_not_there_are_refused(small_v2: Path) -> None:
    with pytest.raises(InputError, match=r"has a moving average .*; leave --ema out"):
        load_pytorch(small_v2, selection=Selection(ema=True))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("plain") / "model.ckpt", "v1", scope=SCOPE)


def features() -> Any:
    with slim.arg_scope(resnet_v2.resnet_arg_scope()):
        images = tf.placeholder(tf.float32, (2, 40, 33, 3))
        return resnet_v2.build(SMALL.with_classes(None), images, is_training=False, scope=SCOPE)[0]


CLASSES: dict[str, tuple[Selection, Callable[[], Any], Callable[[Any], Any]]] = {
    "--drop-background": (Selection(drop_background=True), graph, lambda logits: logits[:, 1:]),
    "--no-head": (Selection(head=False), features, lambda net: net.transpose(0, 3, 1, 2)),
    "--exclude-scope net/logits": (
        Selection(exclude_scopes=("net/logits",)),
        features,
        lambda net: net.transpose(0, 3, 1, 2),
    ),
}


@pytest.mark.parametrize("options", CLASSES)
def test_classes_and_heads_are_left_out(
    options: str, plain: Path, slimport: Callable[..., Run], tmp_path: Path
) -> None:
    selection, build, expected = CLASSES[options]
    assert str(selection) == options
    truth = expected(run(plain, build))
    path = tmp_path / "m.safetensors"
    done = slimport("convert", plain, path, *options.split())
    assert (done.code, done.err) == (0, "")
    model = load_pytorch(path)
    assert close(outputs(model), truth)
    assert model.network == SMALL.with_classes(6 if selection.drop_background else None)
    with pytest.raises(InputError, match=f"was converted with {options}"):
        verify(plain, path, size=(40, 33))


def test_a_converted_file_remembers_what_was_left_out(plain: Path, tmp_path: Path) -> None:
    selection = Selection(drop_background=True)
    convert(plain, tmp_path / "m.safetensors", selection=selection)
    convert(tmp_path / "m.safetensors", tmp_path / "features.safetensors", selection=Selection(head=False))
    with open_source(tmp_path / "features.safetensors") as source:
        assert source.selection == Selection(drop_background=True, head=False)
    report = verify(plain, tmp_path / "m.safetensors", size=(33, 33), selection=selection)
    assert report.ok
    note = "model.ckpt is taken with --drop-background, and the TF-Slim graph runs with these variables"
    assert note in report.notes
    assert verify(tmp_path / "m.safetensors", tmp_path / "m.safetensors", size=(33, 33)).ok


def test_a_selection_reaches_every_target(plain: Path, tmp_path: Path) -> None:
    selection = Selection(drop_background=True)
    truth = run(plain, graph)[:, 1:]
    for name in ("m.pth", "m.keras", "m.weights.h5"):
        convert(plain, tmp_path / name, selection=selection)
        assert close(outputs(load_pytorch(tmp_path / name)), truth)
    assert verify(plain, tmp_path / "m.keras", size=(40, 33), selection=selection).ok
    with pytest.raises(
        InputError, match="was converted with --drop-background, but verify was called with no such option"
    ):
        verify(plain, tmp_path / "m.pth")
    convert(plain, tmp_path / "m.ckpt", selection=selection)
    assert verify(plain, tmp_path / "m.ckpt", size=(40, 33), selection=selection).ok
    reader = tf.train.load_checkpoint(str(tmp_path / "m.ckpt"))
    assert (
        reader.get_tensor("net/logits/biases")
        == tf.train.load_checkpoint(str(plain)).get_tensor("net/logits/biases")[1:]
    ).all()


@pytest.mark.parametrize(
    ("selection", "classes", "message"),
    [
        (Selection(drop_background=True), 1000, "1000 classes has no background to drop: these are ImageNet's"),
        (Selection(drop_background=True), None, "no classes has no background to drop: it has no logits"),
        (Selection(exclude_scopes=("net/block1/unit_1",)), 7, "which --exclude-scope leaves out"),
        (
            Selection(exclude_scopes=("net/conv1/biases",)),
            7,
            r"needs net/conv1/biases, .* exclude its whole head \(net/logits\)",
        ),
    ],
)
def test_what_cannot_be_left_out_is_refused(
    selection: Selection, classes: int | None, message: str, tmp_path: Path
) -> None:
    network = SMALL.with_classes(classes)
    make_checkpoint.save_without_tensorflow(network, tmp_path / "m.ckpt", scope="net")
    with pytest.raises(InputError, match=message), open_source(tmp_path / "m.ckpt", selection=selection):
        pass


def test_selections_of_selections_add_up() -> None:
    both = Selection(ema=True, exclude_scopes=("a",)).after(Selection(head=False, exclude_scopes=("b", "a")))
    assert str(both) == "--ema --exclude-scope b,a --no-head"


def test_an_object_based_checkpoint_is_taken_by_the_names_that_it_remembers(plain: Path, tmp_path: Path) -> None:
    reader = tf.train.load_checkpoint(str(plain))
    names = [f"{SCOPE}/{name}" for name in SMALL.variables()]

    def saved(folder: str, named: bool) -> Path:
        scope: AbstractContextManager[Any] = nullcontext()
        with scope:
            variables = [tf.Variable(reader.get_tensor(n), name=n if named else "v", use_resource=True) for n in names]
        root = tf.train.Checkpoint()
        for name, variable in zip(names, variables, strict=True):
            node = root
            for part in name.split("/")[:-1] if not named else ():
                if not hasattr(node, part):
                    setattr(node, part, tf.train.Checkpoint())
                node = getattr(node, part)
            setattr(node, name.rpartition("/")[2] if not named else f"v{names.index(name)}", variable)
        return Path(tf.train.Checkpoint.save(root, str(tmp_path / folder / "c")))

    for path in (saved("named", True), saved("ways", False)):
        with open_source(path) as source:
            assert (source.scope, source.network) == (SCOPE, SMALL)
            arrays = source.arrays()
        assert all((array == reader.get_tensor(f"{SCOPE}/{name}")).all() for name, array in arrays.items())
        assert inspect(path).recognition is not None


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_layers_beside_the_network_are_kept_raw(suffix: str, slimport: Callable[..., Run], tmp_path: Path) -> None:
    path, aside = tmp_path / "m.ckpt", tmp_path / f"aside{suffix}"

    def build(_: Any) -> None:
        fully_connected()
        gradients = [(tf.zeros_like(variable), variable) for variable in tf.trainable_variables()]
        tf.train.MomentumOptimizer(0.1, 0.9).apply_gradients(gradients)
        tf.get_variable("net/mean_rgb", (3,))

    make_checkpoint.save(build, path, "v2")
    done = slimport("convert", path, tmp_path / "m.pth", "--no-head", "--extras", aside)
    assert (done.code, done.err) == (0, "")
    assert f"{aside}: 5 variables, raw\n" in done.out
    names = {"Decoder/fc/weights", "Decoder/fc/biases", "net/mean_rgb", "net/logits/weights", "net/logits/biases"}
    reader = tf.train.load_checkpoint(str(path))
    kept = load_file(aside) if suffix == ".safetensors" else dict(np.load(aside))
    assert kept.keys() == names
    assert all(array.tobytes() == reader.get_tensor(name).tobytes() for name, array in kept.items())


def test_extras_that_are_not_there_or_cannot_be_written_are_refused(plain: Path, tmp_path: Path) -> None:
    for name, message in (
        ("aside.txt", "must end in .safetensors or .npz"),
        ("no/aside.npz", "does not exist; make it first"),
        ("aside.npz", "no variables of other layers for --extras; leave it out"),
    ):
        with pytest.raises(InputError, match=message):
            convert(plain, tmp_path / "m.pth", extras=tmp_path / name)
        assert not list(tmp_path.iterdir())
