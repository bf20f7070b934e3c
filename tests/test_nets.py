"""`slimport.nets` is TF-Slim's: tf_slim's own code is the judge."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, random_images, tf_session

from converters import frameworks
from converters.parity.tf_slim import building_graphs
from scripts import make_checkpoint

frameworks.require("slimport.nets")
import slim_adapter
import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport.nets import inception_v3, resnet, resnet_utils, resnet_v1, resnet_v1_beta, resnet_v2, vgg

# How many tests tf_slim has of each module.
COUNTS = {"resnet_v1_test": 15, "resnet_v2_test": 15, "vgg_test": 21}
TF_SLIMS_TESTS = {module: slim_adapter.tests_of(module) for module in COUNTS}
# Half a minute of deep networks; test_nets_graphs.py sees that such graphs are the same, node by node.
LONG = (
    "testAtrousFullyConvolutionalValues",
    "testAtrousFullyConvolutionalEndpointShapes",
    "testAtrousValuesBottleneck",
)
# The deeper ones are these with other blocks.
NAMES = ("resnet_v1_50", "resnet_v2_50")


@pytest.fixture(autouse=True, scope="module")
def _fast_graphs() -> Iterator[None]:
    with building_graphs():
        yield


def test_the_judge_imports_nothing_that_it_judges() -> None:
    for path in (ROOT / "slimport" / "nets").glob("*.py"):
        # The interpreter runs slimport's own definitions, where there is no judge.
        if path.stem != "interpreter":
            imports = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import | ast.ImportFrom)]
            modules = {
                node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports
            }
            assert {name for name in modules if name.startswith(("slimport", "converters"))} <= {
                "slimport.nets",
                "slimport.nets.inception",
                "slimport.nets.research",
                "slimport.nets.resnet",
                "slimport.nets.resnet_utils",
            }, path


def test_tf_slims_own_tests_are_all_here() -> None:
    assert {module: len(tests) for module, tests in TF_SLIMS_TESTS.items()} == COUNTS


@pytest.mark.parametrize(
    ("module", "test"),
    [(module, name) for module, tests in TF_SLIMS_TESTS.items() for name in tests if not name.endswith(LONG)],
)
def test_tf_slims_own_test_passes(module: str, test: str) -> None:
    assert slim_adapter.run(TF_SLIMS_TESTS[module][test]) == []


def tf_slims_and_ours(name: str) -> tuple[Any, Any]:
    """The two modules that have the network of this name."""
    family = name.rsplit("_", 1)[0] if name.startswith("resnet") else "vgg"
    return import_module(f"tf_slim.nets.{family}"), import_module(f"slimport.nets.{family}")


@pytest.mark.parametrize("name", NAMES)
def test_variables_end_points_and_outputs_are_tf_slims(name: str) -> None:
    theirs, ours = tf_slims_and_ours(name)
    images = random_images((2, 65, 50, 3))
    runs = []
    with tf.Graph().as_default(), tf_session() as session:
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


@pytest.mark.parametrize("depth", [50, 101, 152, 200])
@pytest.mark.parametrize("family", ["resnet_v1", "resnet_v2"])
def test_every_depth_has_tf_slims_blocks(family: str, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    name, built = f"{family}_{depth}", []
    for module in tf_slims_and_ours(name):
        monkeypatch.setattr(module, family, lambda _, blocks, *more, **named: built.append((blocks, more, named)))
        getattr(module, name)(None, 1001, is_training=False, global_pool=False, output_stride=8)
    theirs, ours = ([(block.scope, [*map(dict, block.args)]) for block in blocks] for blocks, *_ in built)
    assert ours == theirs
    bottleneck = tf_slims_and_ours(name)[1].bottleneck
    assert {block.unit_fn for block in built[1][0]} == {bottleneck}
    for _, more, arguments in built:
        assert {1001, False, 8, name} <= {*more, *arguments.values()}


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

    with tf.Graph().as_default():
        _, end_points = getattr(resnet_v2, name)(tf.zeros((1, 33, 33, 3)), 0, is_training=False)
    _, recorded = getattr(slimport.pytorch, name)(0).end_points(torch.zeros(1, 3, 33, 33))
    assert list(recorded) == list(end_points)
    assert set(slimport.keras.end_points(getattr(slimport.keras, name)(0)).output) == end_points.keys()


def test_v1_collects_block_outputs_before_they_are_subsampled() -> None:
    with tf.Graph().as_default(), slim.arg_scope(resnet_v1.resnet_arg_scope()):
        blocks = [resnet_v1.resnet_v1_block("block1", 2, 2, 2), resnet_v1.resnet_v1_block("block2", 2, 1, 1)]
        net, end_points = resnet_v1.resnet_v1(
            tf.zeros((1, 64, 64, 3)), blocks, global_pool=False, store_non_strided_activations=True, scope="net"
        )
    assert end_points["net/block1"].shape == (1, 16, 16, 8)
    assert net.shape == (1, 8, 8, 8)


def arguments(function: Callable[..., Any]) -> str:
    return " ".join(inspect.signature(function).parameters)


def test_networks_take_slims_arguments_in_slims_order() -> None:
    first, last = "inputs num_classes is_training global_pool output_stride", "reuse scope"
    depths = "min_base_depth depth_multiplier"
    for depth in (50, 101, 152, 200):
        assert arguments(getattr(resnet_v2, f"resnet_v2_{depth}")) == f"{first} spatial_squeeze {last}"
        # Slim has the two the other way round in its deeper ones.
        pair = ["spatial_squeeze", "store_non_strided_activations"][:: 1 if depth < 152 else -1]
        assert arguments(getattr(resnet_v1, f"resnet_v1_{depth}")) == " ".join((first, *pair, depths, last))
    for name in ("18", "50", "50_beta", "101", "101_beta"):
        assert arguments(getattr(resnet_v1_beta, f"resnet_v1_{name}")) == f"{first} multi_grid {last}"
    assert arguments(resnet_v1_beta.resnet_v1_18_beta) == f"{first} multi_grid root_depth_multiplier {last}"
    for network in (vgg.vgg_a, vgg.vgg_16, vgg.vgg_19):
        assert arguments(network) == (
            "inputs num_classes is_training dropout_keep_prob spatial_squeeze reuse scope fc_conv_padding global_pool"
        )
    assert arguments(inception_v3.inception_v3) == (
        "inputs num_classes is_training dropout_keep_prob min_depth depth_multiplier prediction_fn spatial_squeeze "
        "reuse create_aux_logits scope global_pool"
    )


def test_a_depth_multiplier_leaves_the_least_depth() -> None:
    blocks = resnet.four_blocks(resnet_v1.resnet_v1_block, (1, 1, 1, 1), min_base_depth=9, depth_multiplier=0.1)
    assert [block.args[-1]["depth_bottleneck"] for block in blocks] == [9, 12, 25, 51]


def description(blocks: list[resnet_utils.Block], **more: Any) -> SimpleNamespace:
    """A description with the blocks of slim."""
    units = [[SimpleNamespace(rate=1, **{"depth_bottleneck": None, **unit}) for unit in block.args] for block in blocks]
    return SimpleNamespace(
        blocks=[SimpleNamespace(scope=b.scope, units=u) for b, u in zip(blocks, units, strict=True)], **more
    )


def small(module: Any) -> list[resnet_utils.Block]:
    block = getattr(module, module.__name__.split(".")[-1] + "_block")
    return [block("block1", 2, 2, 2), block("block2", 4, 1, 1)]


def lite() -> list[resnet_utils.Block]:
    blocks = resnet.four_blocks(resnet_v1_beta.resnet_v1_small_beta_block, (2, 2, 2, 2))
    return [
        resnet_utils.Block(scope, unit_fn, [{"depth": unit["depth"], "stride": unit["stride"]} for unit in args])
        for scope, unit_fn, args in blocks
    ]


@pytest.mark.parametrize(
    ("build", "network", "size"),
    [
        (
            lambda images: resnet_v1.build(
                description(small(resnet_v1), num_classes=7, include_root_block=False), images
            ),
            lambda images: resnet_v1.resnet_v1(images, small(resnet_v1), 7, include_root_block=False),
            33,
        ),
        (
            lambda images: resnet_v2.build(
                description(small(resnet_v2), num_classes=None, include_root_block=True), images, output_stride=8
            ),
            lambda images: resnet_v2.resnet_v2(images, small(resnet_v2), None, output_stride=8),
            33,
        ),
        (
            lambda images: resnet_v1_beta.build(
                description(lite(), num_classes=7, root_depths=(16, 16, 32), lite=True),
                images,
                output_stride=16,
                multi_grid=(1, 2),
                scope="resnet_v1_18",
            ),
            lambda images: resnet_v1_beta.resnet_v1_18_beta(images, 7, output_stride=16, multi_grid=(1, 2)),
            33,
        ),
        (
            lambda images: vgg.build(
                SimpleNamespace(
                    name="vgg_a",
                    blocks=[
                        SimpleNamespace(depth=depth, repetitions=repetitions)
                        for depth, repetitions in ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2))
                    ],
                    fc_depths=(4096, 4096),
                    num_classes=7,
                ),
                images,
                is_training=False,
            ),
            lambda images: vgg.vgg_a(images, 7, is_training=False),
            224,
        ),
        (
            lambda images: inception_v3.build(
                SimpleNamespace(num_classes=7, depth_multiplier=0.1, min_depth=5, create_aux_logits=False), images
            ),
            lambda images: inception_v3.inception_v3(
                images, 7, is_training=False, min_depth=5, depth_multiplier=0.1, create_aux_logits=False
            ),
            139,
        ),
    ],
    ids=["resnet_v1", "resnet_v2", "resnet_v1_beta", "vgg", "inception_v3"],
)
def test_a_description_is_built_as_slims_function_builds_it(
    build: Callable[[Any], Any], network: Callable[[Any], Any], size: int
) -> None:
    graphs = []
    for function in (build, network):
        with tf.Graph().as_default() as graph:
            _, end_points = function(tf.zeros((1, size, size, 3)))
        graphs.append((graph.as_graph_def(), [(name, tensor.name) for name, tensor in end_points.items()]))
    assert graphs[0] == graphs[1]


# An image whose last map, 3x5, is smaller than the windows of the poolings.
INCEPTION = {"depth_multiplier": 0.1, "is_training": False}
INCEPTION_SIZE = (139, 203)


@pytest.fixture(scope="module")
def inceptions() -> dict[str, dict[str, Any]]:
    """The end points of Inceptions v3 that share their variables: tf_slim's, and ours."""
    ours = inception_v3.inception_v3
    variants: dict[str, tuple[Any, dict[str, Any]]] = {
        "tf_slim's": (import_module("tf_slim.nets.inception_v3").inception_v3, {"num_classes": 7}),
        "ours": (ours, {"num_classes": 7}),
        "global": (ours, {"num_classes": 7, "global_pool": True}),
        "features": (ours, {"num_classes": None}),
        "global features": (ours, {"num_classes": 0, "global_pool": True}),
    }
    with tf.Graph().as_default(), tf_session() as session:
        images = tf.constant(random_images((2, *INCEPTION_SIZE, 3)))
        end_points = {}
        for name, (network, more) in variants.items():
            with slim.arg_scope(inception_v3.arg_scope()), tf.variable_scope("", reuse=bool(end_points)):
                net, end_points[name] = network(images, **INCEPTION, **more)
                assert net is end_points[name].get("Logits", net)
                end_points[name]["net"] = net
        generator = np.random.default_rng(0)
        variables = tf.global_variables()
        values = [make_checkpoint.random_value(v.op.name, tuple(v.shape.as_list()), generator) for v in variables]
        session.run(
            [v.initializer for v in variables],
            {v.initializer.inputs[1]: value for v, value in zip(variables, values, strict=True)},
        )
        computed: dict[str, dict[str, Any]] = session.run(end_points)
        return computed


def test_inception_v3_is_tf_slims_with_one_end_point_more(inceptions: dict[str, dict[str, Any]]) -> None:
    theirs, ours = inceptions["tf_slim's"], inceptions["ours"]
    names = [*theirs]
    names.insert(names.index("PreLogits"), "AvgPool_1a")
    assert names[names.index("AuxLogits") + 1] == "AvgPool_1a"
    assert list(ours) == names
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    # Dropout does nothing here.
    np.testing.assert_array_equal(ours["AvgPool_1a"], theirs["PreLogits"])


def test_inception_v3_pools_over_the_whole_map(inceptions: dict[str, dict[str, Any]]) -> None:
    theirs, ours = inceptions["tf_slim's"], inceptions["global"]
    assert list(ours) == [name if name != "AvgPool_1a" else "global_pool" for name in inceptions["ours"]]
    np.testing.assert_array_equal(ours["AuxLogits"], theirs["AuxLogits"])
    np.testing.assert_allclose(ours["global_pool"], theirs["Mixed_7c"].mean((1, 2), keepdims=True), rtol=1e-5)
    # So does the window that is no larger than the map.
    np.testing.assert_allclose(ours["Predictions"], theirs["Predictions"], rtol=1e-5)


@pytest.mark.parametrize(("variant", "pool"), [("features", "AvgPool_1a"), ("global features", "global_pool")])
def test_inception_v3_without_classes_returns_the_pooled_features(
    inceptions: dict[str, dict[str, Any]], variant: str, pool: str
) -> None:
    features = inceptions[variant]
    assert list(features)[-3:] == ["Mixed_7c", pool, "net"]
    np.testing.assert_array_equal(features["net"], features[pool])
    np.testing.assert_allclose(features["net"], inceptions["tf_slim's"]["PreLogits"], rtol=1e-5)


def test_inception_v3_finds_the_pooled_features_behind_dropout() -> None:
    with tf.Graph().as_default(), tf_session() as session:
        images = tf.constant(random_images((1, *INCEPTION_SIZE, 3)))
        _, end_points = inception_v3.inception_v3(images, 7, dropout_keep_prob=0.5, depth_multiplier=0.1)
        session.run(tf.global_variables_initializer())
        pooled, dropped = session.run([end_points["AvgPool_1a"], end_points["PreLogits"]])
    kept = dropped != 0
    assert 0 < kept.sum() < kept.size
    np.testing.assert_allclose(dropped[kept], 2 * pooled[kept], rtol=1e-6)


def test_inception_v3s_window_is_8x8_where_the_size_is_not_known() -> None:
    with tf.Graph().as_default() as graph:
        inception_v3.inception_v3(tf.placeholder(tf.float32, (None, None, None, 3)), None, **INCEPTION)
        pool = graph.get_operation_by_name("InceptionV3/Logits/AvgPool_1a_8x8/AvgPool")
        assert list(pool.get_attr("ksize")) == [1, 8, 8, 1]


@pytest.mark.parametrize("num_classes", [None, 7])
def test_inception_v3_refuses_a_depth_multiplier_of_0(num_classes: int | None) -> None:
    with tf.Graph().as_default(), pytest.raises(ValueError, match="depth_multiplier is not greater than zero"):
        inception_v3.inception_v3(tf.zeros((1, 299, 299, 3)), num_classes, depth_multiplier=0)


def test_inception_v3s_arg_scope_has_weight_decay_and_the_settings_of_batch_norm() -> None:
    scope = inception_v3.arg_scope(weight_decay=0.5, batch_norm_decay=0.9, batch_norm_epsilon=1e-5)
    settings = scope[slim.arg_scope_func_key(slim.conv2d)]
    assert settings["normalizer_params"]["decay"] == 0.9
    assert settings["normalizer_params"]["epsilon"] == 1e-5
    with tf.Graph().as_default(), tf_session() as session:
        assert session.run(settings["weights_regularizer"](tf.constant([2.0]))) == 1
