"""What training leaves in a checkpoint: TensorFlow's own optimizers and averages, found and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import SMALL, Run

from converters import convert, frameworks, inspect
from converters.display.inspection import inspection_text
from converters.weights.selection import Selection

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf
import tf_slim as slim

from scripts import make_checkpoint
from slimport.nets import resnet_v2

SCOPE = "Encoder/resnet_v2"
BY_HAND = {
    "training_state": ("Encoder/learning_rate", "epoch"),
    "quantization": (
        f"{SCOPE}/conv1/weights_quant/min",
        f"{SCOPE}/conv1/act_quant/max",
        f"{SCOPE}/conv1/act_quant/{SCOPE}/conv1/act_quant/max/biased",
        f"{SCOPE}/conv1/act_quant/{SCOPE}/conv1/act_quant/max/local_step",
    ),
    "other": ("Encoder/LogicalAnd",),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[str]]]:
    """A checkpoint with the slots of several optimizers, and what they are."""
    expected: dict[str, set[str]] = {group: set(names) for group, names in BY_HAND.items()}

    def build(images: Any) -> None:
        with slim.arg_scope(resnet_v2.resnet_arg_scope()):
            net, _ = resnet_v2.build(SMALL, images, is_training=False, scope=SCOPE)
            with tf.variable_scope("Decoder"):
                slim.fully_connected(net, 2, scope="fc")
        variables = tf.trainable_variables()
        gradients = [(tf.zeros_like(variable), variable) for variable in variables]
        for scope, optimizer in (
            ("", tf.train.MomentumOptimizer(0.1, 0.9)),
            ("", tf.train.RMSPropOptimizer(0.1)),
            # tf.contrib.layers.optimize_loss has a scope of its own.
            ("OptimizeLoss", tf.train.AdamOptimizer()),
            ("", tf.train.AdagradOptimizer(0.1)),
        ):
            with tf.variable_scope(scope) if scope else tf.name_scope("train"):
                optimizer.apply_gradients(gradients, tf.train.get_or_create_global_step())
            for slot in optimizer.get_slot_names():
                names = [optimizer.get_slot(variable, slot).op.name for variable in variables]
                expected.setdefault(names[0].rpartition("/")[2], set()).update(names)
        average = tf.train.ExponentialMovingAverage(0.99)
        average.apply(slim.get_model_variables())
        expected["ExponentialMovingAverage"] = {average.average_name(v) for v in slim.get_model_variables()}
        for group in ("training_state", "quantization"):
            for name in BY_HAND[group]:
                tf.get_variable(name, ())
        tf.get_variable("Encoder/LogicalAnd", (), tf.bool, initializer=tf.zeros_initializer())
        expected["training_state"] |= {"global_step", "OptimizeLoss/beta1_power", "OptimizeLoss/beta2_power"}
        expected["layers"] = {"Decoder/fc/weights", "Decoder/fc/biases"}

    path = tmp_path_factory.mktemp("trained") / "model.ckpt"
    make_checkpoint.save(build, path, "v2")
    return path, expected


def test_what_training_left_is_grouped_as_tensorflow_made_it(trained: tuple[Path, dict[str, set[str]]]) -> None:
    path, expected = trained
    found = inspect(path)
    assert found.recognition is not None
    assert found.recognition.complete
    assert (found.recognition.scope, found.recognition.network) == (SCOPE, SMALL)
    assert {group: set(names) for group, names in found.extras.items()} == expected
    assert len(expected) > 10


def test_inspect_counts_the_groups_for_a_person(
    trained: tuple[Path, dict[str, set[str]]], slimport: Callable[..., Run]
) -> None:
    path, expected = trained
    run = slimport("inspect", path)
    assert (run.code, run.err) == (0, "")
    for group, names in expected.items():
        assert f"\nother variables: {len(names)} {group.replace('_', ' ')} (" in run.out
    assert "Momentum" not in run.out.partition("\n\n")[0]
    assert "Decoder/fc " in run.out.partition("\n\n")[0]
    everything = slimport("inspect", path, "--all").out
    shapes = tf.train.load_checkpoint(str(path)).get_variable_to_shape_map()
    lines = {line.split()[0]: line for line in everything.partition("\n\n")[0].splitlines()}
    assert {name: json.loads(line.split(maxsplit=2)[2]) for name, line in lines.items()} == shapes


def test_a_saved_model_of_a_hub_module_holds_the_network_under_the_modules_scope(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.float32, (1, 33, 33, 3))
        with slim.arg_scope(resnet_v2.resnet_arg_scope()):
            resnet_v2.build(SMALL, images, is_training=False, scope="module/resnet_v2_50")
        session.run(tf.global_variables_initializer())
        builder = tf.saved_model.Builder(str(tmp_path / "hub"))
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.save()
    found = inspect(tmp_path / "hub").recognition
    assert found is not None
    assert (found.scope, found.network, found.complete) == ("module/resnet_v2_50", SMALL, True)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".keras", ".weights.h5"])
def test_inspect_says_what_a_converted_file_is(suffix: str, small_v2: Path, tmp_path: Path) -> None:
    convert(small_v2, tmp_path / f"m{suffix}", scope="resnet_v2", selection=Selection(head=False))
    network = SMALL.with_classes(None)
    found = inspect(tmp_path / f"m{suffix}")
    text = click.unstyle(inspection_text(found)).partition("\n\n")[2].splitlines()
    assert text[0].startswith(
        f"{tmp_path}/m{suffix}: converted file, {suffix[1:]}, {len(network.variables())} variables"
    )
    assert text[1] == "model: resnet_v2, no logits, scope 'resnet_v2'"
    files = f"{small_v2.name}.index, {small_v2.name}.data-00000-of-00001"
    assert text[2] == f"made from: {files}, with --no-head"
    assert {v.name: v.shape for v in found.variables} == network.variables()


def test_the_tree_draws_alike_units_once_and_is_cut_at_a_depth(slimport: Callable[..., Run], small_v2: Path) -> None:
    path = small_v2
    tree = slimport("inspect", path).out.partition("\n\n")[0].splitlines()
    assert any("unit_{2..3}/bottleneck_v2" in line and "2 alike" in line for line in tree)
    total = sum(shape.num_elements() for shape in map(tf.TensorShape, SMALL.variables().values()))
    assert tree[0].split() == ["resnet_v2", f"{total:,}"]
    assert len(tree) > len(slimport("inspect", path, "--depth", "2").out.partition("\n\n")[0].splitlines()) == 6
