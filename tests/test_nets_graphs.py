"""`slimport.nets` builds tf_slim's graphs, node by node with its inputs and attributes, collections and end points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from conftest import random_images, tf_session

from converters import frameworks
from converters.parity.tf_slim import building_graphs

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport.nets import resnet_v1

OURS, THEIRS = "slimport.nets", "tf_slim.nets"
SIZE = (65, 50)


@pytest.fixture(autouse=True, scope="module")
def _fast_graphs() -> Iterator[None]:
    with building_graphs():
        yield


@dataclass
class Described:
    """Everything that a graph is, as plain values."""

    nodes: list[Any]
    collections: dict[str, list[Any]]
    end_points: list[tuple[str, str]]
    output: str


def described(graph: tf.Graph, end_points: Mapping[str, Any], output: Any) -> Described:
    return Described(
        list(graph.as_graph_def().node),
        {str(key): [getattr(each, "name", str(each)) for each in graph.get_collection(key)] for key in named(graph)},
        [(name, tensor.name) for name, tensor in end_points.items()],
        output.name,
    )


def named(graph: tf.Graph) -> list[Any]:
    """The collections that users see: others hold TensorFlow's own stacks of scopes."""
    return sorted(key for key in graph.collections if isinstance(key, str))


def check_equal(ours: Described, theirs: Described, more: tuple[str, ...] = ()) -> None:
    """Fails where one graph is not the other; `more` are the end points that models' slim adds."""
    assert [node.name for node in ours.nodes] == [node.name for node in theirs.nodes]
    for mine, other in zip(ours.nodes, theirs.nodes, strict=True):
        assert mine == other, mine.name
    assert ours.collections == theirs.collections
    assert [point for point in ours.end_points if point[0] not in more] == theirs.end_points
    assert {name for name, _ in ours.end_points} - {name for name, _ in theirs.end_points} == {*more}
    assert ours.output == theirs.output


@dataclass(frozen=True)
class Setting:
    """A way to build a network: arguments of slim's arg scope and of the network, in `around` of arg scopes."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    scope: Mapping[str, Any] = field(default_factory=dict)
    around: Mapping[Any, Mapping[str, Any]] = field(default_factory=dict)
    calls: int = 1


@contextmanager
def arg_scopes(around: Mapping[Any, Mapping[str, Any]]) -> Iterator[None]:
    """The arg scope of each function's settings, inside of the one that is there."""
    if not around:
        yield
        return
    (function, settings), *others = around.items()
    with slim.arg_scope([function], **settings), arg_scopes(dict(others)):
        yield


def blocks(module: Any) -> list[Any]:
    """Projections, identities, and a stride that is the last unit's."""
    block = getattr(module, f"{module.__name__.rpartition('.')[2]}_block")
    return [block("block1", 2, 2, 2), block("block2", 4, 1, 1)]


def resnet_graph(package: str, family: str, setting: Setting) -> Described:
    module = import_module(f"{package}.{family}")
    more = {"spatial_squeeze": False} if package == OURS else {}
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.float32, (2, *SIZE, 3), name="images")
        with slim.arg_scope(module.resnet_arg_scope(**setting.scope)), arg_scopes(setting.around):
            for call in range(setting.calls):
                again = {"reuse": True} if call else {}
                net, end_points = getattr(module, family)(
                    images, blocks(module), **{"num_classes": 7, **setting.arguments, **again, **more}
                )
        return described(graph, end_points, net)


RESNETS = {
    "training": Setting(),
    "inference": Setting({"is_training": False}),
    "dense": Setting({"output_stride": 4, "global_pool": False}),
    "features without root": Setting({"num_classes": None, "include_root_block": False, "output_stride": 2}),
    "reused under another scope, in another arg scope": Setting(
        {"scope": "net"},
        scope={
            "weight_decay": 0.5,
            "batch_norm_decay": 0.9,
            "batch_norm_epsilon": 0.25,
            "batch_norm_scale": False,
        },
        calls=2,
    ),
}


@lru_cache
def of_tf_slim(family: str, setting: str) -> Described:
    return resnet_graph(THEIRS, family, RESNETS[setting])


@pytest.mark.parametrize("setting", RESNETS)
@pytest.mark.parametrize("family", ["resnet_v1", "resnet_v2"])
def test_a_resnets_graph_is_tf_slims(family: str, setting: str) -> None:
    pooled = RESNETS[setting].arguments.get("global_pool", True)
    ours = resnet_graph(OURS, family, RESNETS[setting])
    check_equal(ours, of_tf_slim(family, setting), ("global_pool",) if pooled else ())


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("family", ["resnet_v1", "resnet_v2"])
def test_is_training_none_leaves_it_to_the_arg_scope(family: str, is_training: bool) -> None:
    around = {slim.batch_norm: {"is_training": is_training}}
    ours = resnet_graph(OURS, family, Setting({"is_training": None}, around=around))
    check_equal(ours, of_tf_slim(family, "training" if is_training else "inference"), ("global_pool",))


BATCH_NORM = {"decay": 0.997, "epsilon": 1e-5, "scale": True}
# An argument of models' slim's arg scope, and what it is in the arg scopes that tf_slim has.
NEW_ARGUMENTS: dict[str, tuple[dict[str, Any], dict[Any, dict[str, Any]]]] = {
    "activation_fn": ({"activation_fn": tf.nn.elu}, {slim.conv2d: {"activation_fn": tf.nn.elu}}),
    "use_batch_norm": ({"use_batch_norm": False}, {slim.conv2d: {"normalizer_fn": None}}),
    "batch_norm_updates_collections": (
        {"batch_norm_updates_collections": "mine"},
        {
            slim.conv2d: {"normalizer_params": {**BATCH_NORM, "updates_collections": "mine"}},
            slim.batch_norm: {"updates_collections": "mine"},
        },
    ),
}


@pytest.mark.parametrize("name", NEW_ARGUMENTS)
def test_an_argument_that_tf_slims_arg_scope_lacks_does_what_nested_arg_scopes_do(name: str) -> None:
    given, nested = NEW_ARGUMENTS[name]
    ours = resnet_graph(OURS, "resnet_v2", Setting(scope=given))
    check_equal(ours, resnet_graph(THEIRS, "resnet_v2", Setting(around=nested)), ("global_pool",))
    if name == "batch_norm_updates_collections":
        assert "mine" in ours.collections
        assert not ours.collections.get(tf.GraphKeys.UPDATE_OPS)


def test_strides_moved_to_the_ends_of_blocks_dilate_what_comes_behind_as_they_do_in_units() -> None:
    dense = {"output_stride": 4, "global_pool": False}
    ours = resnet_graph(OURS, "resnet_v1", Setting({**dense, "store_non_strided_activations": True}))
    check_equal(ours, of_tf_slim("resnet_v1", "dense"))
    assert any("SpaceToBatchND" in node.name for node in ours.nodes)


def bounded_unit(images: Any, depth: int, names: tuple[str, ...]) -> list[Any]:
    """Tensors of a bounded bottleneck unit by their names in its scope, and its output."""
    with (
        tf.Graph().as_default() as graph,
        tf_session() as session,
        slim.arg_scope(resnet_v1.resnet_arg_scope()),
        slim.arg_scope([slim.batch_norm], is_training=False),
    ):
        output = resnet_v1.bottleneck(tf.constant(images), depth, 2, 1, use_bounded_activations=True)
        session.run(tf.global_variables_initializer())
        return session.run([*(graph.get_tensor_by_name(f"bottleneck_v1/{name}:0") for name in names), output])


RESIDUAL = "conv3/BatchNorm/FusedBatchNormV3"


def test_a_bounded_unit_bounds_its_shortcut_its_residual_and_their_sum() -> None:
    names = ("shortcut/Relu6", "shortcut/BatchNorm/FusedBatchNormV3", RESIDUAL)
    bounded, unbounded, free, found = bounded_unit(300 * random_images((2, 9, 8, 4)), 8, names)
    assert unbounded.min() < 0
    assert unbounded.max() > 6
    assert free.min() < -6
    assert free.max() > 6
    np.testing.assert_array_equal(bounded, unbounded.clip(0, 6))
    np.testing.assert_array_equal(found, (bounded + free.clip(-6, 6)).clip(0, 6))


def test_a_bounded_unit_bounds_its_residual_where_the_shortcut_is_the_input() -> None:
    images = 300 * random_images((2, 9, 8, 4))
    free, found = bounded_unit(images, 4, (RESIDUAL,))
    # What is not bounded: the sum, of which the residual's bound takes no part beyond [0, 6].
    assert ((images > 12) & (free < -images)).any()
    np.testing.assert_array_equal(found, (images + free.clip(-6, 6)).clip(0, 6))


def vgg_graph(package: str, name: str, setting: Setting) -> Described:
    module = import_module(f"{package}.vgg")
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.float32, (2, 224, 224, 3), name="images")
        with slim.arg_scope(module.vgg_arg_scope(**setting.scope)), arg_scopes(setting.around):
            net, end_points = getattr(module, name)(images, 7, **setting.arguments)
        return described(graph, end_points, net)


@pytest.mark.parametrize("name", ["vgg_a", "vgg_16", "vgg_19"])
def test_a_vgg_can_be_built_again_with_its_variables(name: str) -> None:
    network = getattr(import_module(f"{OURS}.vgg"), name)
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, (2, 224, 224, 3))
        network(images, 7, True, 0.5, True, None, "net")
        variables = tf.global_variables()
        # `reuse` stands before `scope`, as in models' slim.
        network(images, 7, True, 0.5, True, True, "net")
        assert tf.global_variables() == variables


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("vgg_a", Setting()),
        ("vgg_a", Setting({"dropout_keep_prob": 0.25, "scope": "net"}, {"weight_decay": 0.5})),
        ("vgg_a", Setting({"is_training": False, "spatial_squeeze": False})),
        ("vgg_16", Setting()),
        ("vgg_19", Setting()),
    ],
)
def test_a_vggs_graph_is_tf_slims(name: str, setting: Setting) -> None:
    ours, theirs = (vgg_graph(package, name, setting) for package in (OURS, THEIRS))
    # tf_slim's VGG 19 alone has a collection without the slash; in models' slim it is as the others.
    theirs.collections = {key.replace("vgg_19_end", "vgg_19/_end"): each for key, each in theirs.collections.items()}
    check_equal(ours, theirs)
