"""`slimport.nets` is TF-Slim's: tf_slim's own code is the judge."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from typing import Any

import make_checkpoint
import numpy as np
import pytest
import torch
from conftest import DEPTHS, ROOT, named, random_images

from converters import frameworks
from converters.parity.tf_slim import building_graphs

frameworks.import_nets()
import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport import spec
from slimport.nets import resnet_utils, resnet_v1, resnet_v2

# How many tests tf_slim has of each module, beside those that it skips.
TF_SLIMS_TESTS = {"resnet_v1_test": 15, "resnet_v2_test": 15, "vgg_test": 21}
# tf_slim's own code for each family. The deeper ResNets v1 differ from it and each other by the blocks of v2 alone.
NAMES = ("resnet_v1_50", *DEPTHS)


def test_tf_slims_own_tests_pass() -> None:
    tests = [f"tf_slim.nets.{module}" for module in TF_SLIMS_TESTS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "slim_adapter", "-p", "no:cacheprovider", "--pyargs", *tests],
        capture_output=True,
        text=True,
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert f"{sum(TF_SLIMS_TESTS.values())} passed" in done.stdout, done.stdout[-3000:]


def tf_slims_and_ours(name: str) -> tuple[Any, Any]:
    """The two modules that have the network of this name."""
    family = spec.NETWORKS[name].family
    return import_module(f"tf_slim.nets.{family}"), import_module(f"slimport.nets.{family}")


@pytest.mark.parametrize("name", NAMES)
def test_variables_end_points_and_outputs_are_tf_slims(name: str) -> None:
    theirs, ours = tf_slims_and_ours(name)
    images = random_images((2, 65, 50, 3))
    runs = []
    with tf.Graph().as_default(), building_graphs(), tf.Session() as session:
        inputs = tf.constant(images)
        for module, more in ((theirs, {}), (ours, {"spatial_squeeze": False})):
            before = len(tf.global_variables())
            with slim.arg_scope(module.resnet_arg_scope()):
                _, end_points = getattr(module, name)(
                    inputs, 1001, is_training=False, scope=f"{module.__name__[:4]}/net", **more
                )
            variables = tf.global_variables()[before:]
            runs.append((variables, end_points))
        their_variables, our_variables = runs[0][0], runs[1][0]
        assert described(our_variables) == described(their_variables)
        generator = np.random.default_rng(0)
        feeds = {}
        for mine, other in zip(our_variables, their_variables, strict=True):
            value = make_checkpoint.random_value(other.op.name, tuple(other.shape.as_list()), generator)
            feeds[mine.initializer.inputs[1]] = feeds[other.initializer.inputs[1]] = value
        # In one run: TensorFlow prepares the whole graph anew for every new set of fetches.
        session.run([v.initializer for v in our_variables + their_variables], feeds)
        renamed = [{n.split("/net/")[-1]: t for n, t in end_points.items()} for _, end_points in runs]
        assert [n for n in renamed[1] if n != "global_pool"] == list(renamed[0])
        their_values, our_values = session.run(
            [renamed[0], {end_point: renamed[1][end_point] for end_point in renamed[0]}]
        )
        for end_point, value in their_values.items():
            np.testing.assert_array_equal(our_values[end_point], value, err_msg=end_point)


def described(variables: list[Any]) -> list[tuple[str, list[int], str]]:
    """Names in the network, shapes and dtypes."""
    return [(v.op.name.split("/net/")[1], v.shape.as_list(), v.dtype.name) for v in variables]


@pytest.mark.parametrize("family", ["resnet_v1", "resnet_v2"])
def test_collections_are_tf_slims(family: str) -> None:
    counts = []
    for module in tf_slims_and_ours(f"{family}_50"):
        with tf.Graph().as_default() as graph:
            blocks = [getattr(module, f"{family}_block")("block1", base_depth=2, num_units=2, stride=2)]
            with slim.arg_scope(module.resnet_arg_scope()):
                getattr(module, family)(tf.zeros((1, 64, 64, 3)), blocks, 10, is_training=True)
            counts.append({key: len(tf.get_collection(key)) for key in graph.collections})
    assert counts[1] == counts[0]
    assert counts[0][f"{family}/_end_points"] > 0


def test_end_points_that_models_slim_adds() -> None:
    with tf.Graph().as_default(), slim.arg_scope(resnet_v2.resnet_arg_scope()):
        net, end_points = resnet_v2.resnet_v2_50(tf.zeros((2, 64, 64, 3)), 10, is_training=False)
        assert net.shape == (2, 10)
        assert end_points["global_pool"].shape == (2, 1, 1, 2048)
        assert end_points["resnet_v2_50/spatial_squeeze"] is net
        assert end_points["predictions"].shape == (2, 10)


@pytest.mark.parametrize("num_classes", [None, 0])
def test_no_classes_returns_the_features(num_classes: int | None) -> None:
    with tf.Graph().as_default(), slim.arg_scope(resnet_v2.resnet_arg_scope()):
        net, end_points = resnet_v2.resnet_v2_50(tf.zeros((1, 64, 64, 3)), num_classes, is_training=False)
        assert net.shape == (1, 1, 1, 2048)
        assert "predictions" not in end_points


def test_block_outputs_can_be_collected_before_they_are_subsampled() -> None:
    with tf.Graph().as_default(), slim.arg_scope(resnet_v2.resnet_arg_scope()):
        blocks = [resnet_v2.resnet_v2_block("block1", 2, 2, 2), resnet_v2.resnet_v2_block("block2", 2, 1, 1)]
        net = resnet_utils.stack_blocks_dense(
            tf.zeros((1, 16, 16, 3)), blocks, store_non_strided_activations=True, outputs_collections="blocks"
        )
        collected = slim.utils.convert_collection_to_dict("blocks")
        assert collected["block1"].shape == (1, 16, 16, 8)
        assert net.shape == (1, 8, 8, 8)


@pytest.mark.parametrize("output_stride", [3, 6, 64])
def test_output_strides_that_cannot_be_reached_are_refused(output_stride: int) -> None:
    with (
        tf.Graph().as_default(),
        slim.arg_scope(resnet_v2.resnet_arg_scope()),
        pytest.raises(ValueError, match="output_stride"),
    ):
        resnet_v2.resnet_v2_50(tf.zeros((1, 64, 64, 3)), 10, output_stride=output_stride)


def test_no_classes_may_be_written_as_0_in_every_framework() -> None:
    name = "resnet_v2_50"
    import slimport.keras
    import slimport.pytorch

    features = [*named(name, None).end_points(name)]
    with tf.Graph().as_default(), building_graphs():
        _, end_points = getattr(resnet_v2, name)(tf.zeros((1, 33, 33, 3)), 0, is_training=False)
    assert list(end_points) == features
    _, recorded = getattr(slimport.pytorch, name)(0).end_points(torch.zeros(1, 3, 33, 33))
    assert list(recorded) == features
    assert set(slimport.keras.end_points(getattr(slimport.keras, name)(0)).output) == set(features)


def test_v1s_bounded_activations_are_bounded() -> None:
    images = 100 * random_images((1, 8, 8, 4))
    with tf.Graph().as_default(), tf.Session() as session, slim.arg_scope(resnet_v1.resnet_arg_scope()):
        with slim.arg_scope([slim.batch_norm], is_training=False):
            net = resnet_v1.bottleneck(tf.constant(images), 8, 2, 1, use_bounded_activations=True)
            free = resnet_v1.bottleneck(tf.constant(images), 8, 2, 1)
        session.run(tf.global_variables_initializer())
        net, free = session.run([net, free])
    assert net.min() == 0
    assert net.max() == 6
    assert free.max() > 6


def test_v1_collects_block_outputs_before_they_are_subsampled() -> None:
    with tf.Graph().as_default(), slim.arg_scope(resnet_v1.resnet_arg_scope()):
        blocks = [resnet_v1.resnet_v1_block("block1", 2, 2, 2), resnet_v1.resnet_v1_block("block2", 2, 1, 1)]
        net, end_points = resnet_v1.resnet_v1(
            tf.zeros((1, 64, 64, 3)), blocks, global_pool=False, store_non_strided_activations=True, scope="net"
        )
    assert end_points["net/block1"].shape == (1, 16, 16, 8)
    assert net.shape == (1, 8, 8, 8)


def test_vgg_is_tf_slims() -> None:
    theirs, ours = tf_slims_and_ours("vgg_16")
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.constant(random_images((1, 224, 224, 3)))
        runs = []
        for module in (theirs, ours):
            with slim.arg_scope(module.vgg_arg_scope()), tf.variable_scope("", reuse=bool(runs)):
                _, end_points = module.vgg_16(images, 10, is_training=False)
            # The second graph under a scope has another name scope, and slim names a pool by that.
            runs.append({end_point.replace("vgg_16_1/", "vgg_16/"): net for end_point, net in end_points.items()})
        assert list(runs[1]) == list(runs[0])
        variables = {v.op.name.removeprefix("vgg_16/"): tuple(v.shape.as_list()) for v in tf.global_variables()}
        assert variables == spec.NETWORKS["vgg_16"].with_classes(10).variables()
        session.run(tf.global_variables_initializer())
        for name, (their, our) in session.run({name: (runs[0][name], runs[1][name]) for name in runs[0]}).items():
            np.testing.assert_array_equal(our, their, err_msg=name)
