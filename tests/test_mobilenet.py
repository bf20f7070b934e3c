"""MobileNet v1, v2 and v3: equal to slim's own code, recognised in real files, and what their widths are."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_NETWORKS, pytorch_port, random_images, random_weights
from test_drop_in import timm  # noqa: F401 - a fixture

from converters import frameworks
from converters.checkpoint import open_checkpoint
from converters.formats import models
from converters.parity import ports, tf_slim
from converters.parity.compare import rel_l2
from converters.weights.recognize import Recognition
from converters.weights.recognize import networks as recognised
from scripts.studies.training_steps import Hyperparameters, compare_steps, random_batches, run_both
from slimport import networks
from slimport.graph import Shape
from slimport.networks.mobilenet import divisible
from slimport.networks.mobilenet_v1 import MobileNetV1
from slimport.networks.mobilenet_v2 import MobileNetV2
from slimport.networks.mobilenet_v3 import MobileNetV3

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf
import tf_slim as slim
import torch

import slimport.keras
from slimport.nets import research
from slimport.pytorch import layers

pytest.importorskip("object_detection.nets", reason="slim's own networks are not installed")

Size = tuple[int, int]
SCOPE = "a/net"
GRAPHS = Path(__file__).parent.parent.parent / "shared" / "graphs"
SIZES: list[Size] = [(64, 64), (33, 33), (46, 71)]
V1, V2, V3 = (SMALL_NETWORKS[f"mobilenet_v{version}"] for version in (1, 2, 3))
assert isinstance(V3, MobileNetV3)
LARGE = replace(V3, variant="large")
EDGE = replace(V3, variant="edgetpu")


@pytest.mark.parametrize(
    ("network", "sizes", "arguments"),
    [
        (V1, SIZES, {"global_pool": True}),
        (V1, [(233, 270)], {"output_stride": 16, "use_explicit_padding": True, "spatial_squeeze": False}),
        (V2, SIZES, {}),
        (V2, [(65, 50)], {"output_stride": 8, "use_explicit_padding": True}),
        # Maps of 3x3, which is pooled whole, and of 8x9, which is pooled 7x7.
        (LARGE, [(33, 33)], {"output_stride": 16}),
        (V3, [(225, 257)], {}),
        # Two sizes, so that the Keras model has none: its pool is of 7x7, and not whole, before the mean.
        (V3, [(97, 128), (113, 97)], {"output_stride": 8}),
        (EDGE, [(50, 65)], {"output_stride": 16}),
    ],
    ids=str,
)
def test_every_end_point_is_slims_in_both_ports(
    network: networks.Network, sizes: Sequence[Size], arguments: dict[str, Any]
) -> None:
    assert tf_slim.judge(network) == research.PACKAGE
    weights = random_weights(network)
    static = sizes[0] if len(sizes) == 1 else None
    port = pytorch_port(network, weights, scope=SCOPE, **arguments)
    model = models.keras_port(network, weights.items(), scope=SCOPE, dtype="float64", image_size=static, **arguments)
    keras_port = slimport.keras.end_points(model, SCOPE)
    with tf_slim.SlimGraph(network, SCOPE, weights, "float64", size=static, **arguments) as judge:
        for size in sizes:
            images = random_images((2, *size, 3))
            truth = judge.run(images)
            assert list(truth) == network.end_points(SCOPE, **arguments)
            found = ports.record_pytorch(port, images, "float64", "cpu")
            assert max(rel_l2(found[name], value) for name, value in truth.items()) < 1e-12
            found = keras_port(images.astype(np.float64))
            assert max(rel_l2(found[name].numpy(), value) for name, value in truth.items()) < 1e-12


def test_a_training_step_is_slims_which_regularizes_no_depthwise_kernel() -> None:
    batches = random_batches(V3, (32, 32), 4, count=1)
    steps = run_both(V3, random_weights(V3), batches, Hyperparameters(1e-4), dropout_keep_prob=1.0)
    found = {difference.quantity: difference for difference in compare_steps(steps)}
    assert not [difference for difference in found.values() if not difference.ok]
    moving = sum("/moving_" in name for name in V3.variables())
    assert found["gradients"].compared == len(V3.variables()) - moving


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v1_025",
        "mobilenet_v2_035",
        "mobilenet_v3_small_075",
        "mobilenet_v3_large_minimalistic",
        "mobilenet_v3_large_detection",
        "mobilenet_edgetpu_075",
    ],
)
def test_the_variables_are_slims_in_slims_order(name: str) -> None:
    network = networks.NETWORKS[name]
    builder = importlib.import_module(f"slimport.nets.{network.family}")
    with (
        tf.Graph().as_default(),
        tf_slim.building_graphs(),
        tf_slim.feeding_variables(),
        slim.arg_scope(builder.arg_scope()),
    ):
        _, end_points = builder.build(network, tf.placeholder(tf.float32, (1, 224, 224, 3)))
        prefix = f"{network.default_scope}/"
        variables = [(v.op.name.removeprefix(prefix), tuple(v.shape.as_list())) for v in tf.global_variables()]
    assert variables == list(network.variables().items())
    assert list(end_points) == network.end_points(network.default_scope)


# Millions, in the tables of slim's nets/mobilenet_v1.md and nets/mobilenet/README.md; EdgeTPU has none there. That of
# v3's small 0.75 and small is another than slim's code makes.
PARAMETERS = {
    "mobilenet_v1": 4.24,
    "mobilenet_v1_075": 2.59,
    "mobilenet_v1_050": 1.34,
    "mobilenet_v1_025": 0.47,
    "mobilenet_v2_140": 6.06,
    "mobilenet_v2_130": 5.34,
    "mobilenet_v2": 3.47,
    "mobilenet_v2_075": 2.61,
    "mobilenet_v2_050": 1.95,
    "mobilenet_v2_035": 1.66,
    "mobilenet_v3_large": 5.4,
    "mobilenet_v3_large_075": 4.0,
    "mobilenet_v3_large_minimalistic": 3.9,
    "mobilenet_v3_small_minimalistic": 2.0,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_releases_have_the_parameters_that_slims_tables_say(name: str) -> None:
    shapes = networks.NETWORKS[name].variables()
    millions = sum(np.prod(shape) for variable, shape in shapes.items() if "BatchNorm" not in variable) / 1e6
    assert millions == pytest.approx(PARAMETERS[name], abs=0.03 if "v1" in name else 0.01 if "v2" in name else 0.06)


def test_depths_are_rounded_as_slim_rounds_them() -> None:
    slims = research.module("mobilenet.mobilenet")._make_divisible
    for depth, divisor, least in product(np.arange(0.5, 400, 0.37), (1, 4, 8, 16), (4, 8, 16)):
        assert divisible(float(depth), divisor, least) == slims(float(depth), divisor, least)


@pytest.mark.parametrize("depth_multiplier", [0.1, 0.3, 0.37, 0.6, 1.1, 1.25, 2.0])
@pytest.mark.parametrize("changed", [{}, {"num_classes": None}, {"min_depth": 16}, {"in_channels": 1}], ids=str)
@pytest.mark.parametrize("network", [MobileNetV1(7), MobileNetV2(7), MobileNetV3(7), EDGE], ids=str)
def test_any_multiplier_is_inferred(
    network: networks.Network, changed: dict[str, Any], depth_multiplier: float
) -> None:
    network = replace(network, depth_multiplier=depth_multiplier, **changed)  # type: ignore[type-var]
    inferred = type(network).infer(network.variables())
    assert inferred.variables() == network.variables()
    assert inferred.num_classes == network.num_classes


def test_v1s_depths_are_cut_and_are_multiples_of_nothing() -> None:
    shapes = MobileNetV1(depth_multiplier=0.3).variables()
    assert [shapes[f"{name}/weights"][-1] for name in ("Conv2d_0", "Conv2d_1_pointwise")] == [9, 19]
    assert MobileNetV1(depth_multiplier=0.1).variables()["Conv2d_0/weights"][-1] == 8


def test_v2s_first_block_is_not_expanded_and_the_fine_grained_mode_shows_in_the_last_layer_alone() -> None:
    fine, coarse = (
        MobileNetV2(depth_multiplier=0.5, finegrain_classification_mode=fine).variables() for fine in (True, False)
    )
    assert not [name for name in fine if name.startswith("expanded_conv/expand")]
    differing = {name.partition("/")[0] for name in fine if fine[name] != coarse[name]}
    assert (differing, fine["Conv_1/weights"], coarse["Conv_1/weights"]) == (
        {"Conv_1"},
        (1, 1, 160, 1280),
        (1, 1, 160, 640),
    )
    # A network that is wider is the same in both modes.
    assert MobileNetV2(depth_multiplier=1.4, finegrain_classification_mode=True) == MobileNetV2(depth_multiplier=1.4)


def test_v3s_gates_and_its_last_layer_have_biases_and_no_batch_norm() -> None:
    biased = {name.removesuffix("/biases") for name in LARGE.variables() if name.endswith("biases")}
    gates = {
        f"expanded_conv_{i}/squeeze_excite/{conv}" for i in (3, 4, 5, 10, 11, 12, 13, 14) for conv in ("Conv", "Conv_1")
    }
    assert biased == {*gates, "Conv_2", "Logits/Conv2d_1c_1x1"}
    assert not [name for name in LARGE.variables() if name.rpartition("/BatchNorm")[0] in biased]


def test_the_detection_variant_has_larges_names_and_half_as_wide_last_blocks() -> None:
    large, detection = (MobileNetV3(variant=variant).variables() for variant in ("large", "large_detection"))
    assert list(large) == list(detection)
    depths = {
        layer: (large[f"{layer}/weights"][-1], detection[f"{layer}/weights"][-1])
        for layer in (*(f"expanded_conv_{i}/project" for i in range(10, 15)), "Conv_1", "Conv_2")
    }
    assert list(depths.values()) == [(112, 112), (112, 112), *[(160, 80)] * 3, (960, 480), (1280, 1280)]


def _shapes(network: networks.Network, scope: str = "net") -> dict[str, Shape]:
    return {f"{scope}/{name}": shape for name, shape in network.variables().items()}


def _one(shapes: dict[str, Shape]) -> Recognition:
    [found] = recognised(shapes)
    assert not list(found.problems())
    return found


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("mobilenet_v1", "Conv2d_11_pointwise"),  # EAST's
        ("mobilenet_v1_050", "Conv2d_5_depthwise"),
        ("mobilenet_v2", "layer_18"),  # DeepLab's
        ("mobilenet_v2_050", "layer_7"),
        ("mobilenet_v2_140", "layer_15/expansion_output"),
        # Not the pool behind it, which has no variables either.
        ("mobilenet_v3_large", "layer_17"),
        ("mobilenet_v3_large_detection", "layer_17"),
        ("mobilenet_v3_small_minimalistic", "layer_13"),
        ("mobilenet_edgetpu", "layer_22"),
    ],
)
def test_a_trunk_is_named_with_its_end(name: str, end: str) -> None:
    trunk = replace(networks.NETWORKS[name], final_endpoint=end)  # type: ignore[type-var]
    assert str(_one(_shapes(trunk, "FeatureExtractor/X"))) == f"{name} to {end}, no logits, scope 'FeatureExtractor/X'"


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large"])
def test_what_detectors_put_into_the_scope_is_not_the_networks(name: str) -> None:
    network = networks.NETWORKS[name].with_classes(None)
    scope = "FeatureExtractor/MobilenetV1/MobilenetV1"
    shapes = _shapes(network, scope)
    layer = next(iter(network.variables())).rpartition("/")[0]
    for more in (
        "Conv2d_13_pointwise_1_Conv2d_2_1x1_256/weights",
        "layer_19_2_Conv2d_2_3x3_s2_512/BatchNorm/beta",
        f"{layer}/act_quant/{scope}/{layer}/act_quant/min/biased",
        f"{layer}/weights_quant/max",
    ):
        shapes[f"{scope}/{more}"] = (256,)
    assert (found := _one(shapes)).network == network
    assert {len(names) for names in found.extras.values()} == {2}


def test_somebodys_own_network_under_the_scope_is_not_claimed() -> None:
    own = {
        f"MobilenetV2/MobilenetV2_part_0/{name}": shape
        for name, shape in {
            "Conv/weights": (3, 3, 3, 32),
            "expanded_conv/project/weights": (1, 1, 32, 20),
            "expanded_conv_1/expand/weights": (1, 1, 20, 60),
            "expanded_conv_1/project/weights": (1, 1, 60, 30),
        }.items()
    }
    assert not recognised(own)
    wider = {name: (*shape[:-1], shape[-1] * (1 + ("_7/" in name))) for name, shape in _shapes(MobileNetV2(7)).items()}
    assert not recognised(wider)


@pytest.mark.skipif(not GRAPHS.exists(), reason="no real files")
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("dlc_mobilenet_v2/snapshot-800000", "mobilenet_v2_035, no logits, scope 'MobilenetV2'"),
        ("ssd_mobilenet_v1/model.ckpt", "mobilenet_v1, no logits, scope 'FeatureExtractor/MobilenetV1'"),
    ],
)
def test_real_files_are_recognised(path: str, expected: str, tmp_path: Path) -> None:
    # The index alone, as without its graph.
    for file in GRAPHS.glob(f"{path}.[di]*"):
        (tmp_path / file.name).symlink_to(file)
    with open_checkpoint(tmp_path / Path(path).name) as checkpoint:
        shapes = {name: tuple(variable.shape) for name, variable in checkpoint.variables.items()}
    assert str(_one(shapes)) == expected


def _assign_in_order(weights: Iterable[Any], values: Iterable[Any]) -> None:
    """Gives another project's network, which has no slim names, the values in slim's order."""
    for weight, value in zip(weights, values, strict=True):
        weight.assign(value.reshape(weight.shape))


def test_keras_applications_are_equal_at_even_sides() -> None:
    import keras

    images = random_images((2, 64, 96, 3)).astype(np.float64)
    keras.config.set_dtype_policy("float64")
    try:
        for name, function in (("mobilenet_v1_050", "MobileNet"), ("mobilenet_v2_050", "MobileNetV2")):
            network = networks.NETWORKS[name].with_classes(5)
            weights = random_weights(network)
            made = getattr(keras.applications, function)((64, 96, 3), 0.5, weights=None, classes=5)
            _assign_in_order(made.weights, weights.values())
            with torch.no_grad():
                port = pytorch_port(network, weights, **({"global_pool": True} if "v1" in name else {})).double()
                logits = port(torch.from_numpy(images.transpose(0, 3, 1, 2)))
            np.testing.assert_allclose(made(images, training=False), logits.softmax(1), rtol=1e-12)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("name", ["small", "small_minimalistic"])
def test_timms_v3_differs_in_the_two_factors_alone(name: str, timm: Any) -> None:  # noqa: F811
    network = networks.NETWORKS[f"mobilenet_v3_{name}"].with_classes(5)
    port = pytorch_port(network, random_weights(network)).double()
    suffix = "_minimal_100" if "minimal" in name else "_100"
    made = timm.create_model(f"tf_mobilenetv3_{name.partition('_')[0]}{suffix}", num_classes=5).double().eval()
    theirs = {key: value for key, value in made.state_dict().items() if "num_batches" not in key}
    ours = [value for key, value in port.state_dict().items() if "num_batches" not in key]
    made.load_state_dict(
        {key: value.reshape(like.shape) for (key, like), value in zip(theirs.items(), ours, strict=True)}, strict=False
    )
    images = torch.from_numpy(random_images((2, 3, 65, 65))).double()
    with torch.no_grad():
        expected = made(images).numpy()
        before = rel_l2(port(images).numpy(), expected)
        for module in port.modules():
            if hasattr(module, "factor"):
                # timm's are 1 / 6, slim's 0.16667 and a float32.
                module.factor = 1 / 6
        assert rel_l2(port(images).numpy(), expected) < 1e-12
    assert (before > 1e-9) == ("minimalistic" not in name)


def test_the_pool_before_v3s_last_layer_is_one_program_for_every_map() -> None:
    [node] = [node for node in V3.graph().nodes if node.op == "avg_pool2d"]
    pool, free = layers.AvgPool2d(node), torch.export.Dim.DYNAMIC
    with importlib.import_module("torch.fx.experimental._config").patch(backed_size_oblivious=True):
        images = (torch.rand(2, 3, 7, 8),)
        program = torch.export.export(pool, images, dynamic_shapes=(({0: free, 2: free, 3: free},),)).module()
    for shape in ((1, 3, 1, 1), (2, 3, 3, 3), (1, 3, 7, 7), (3, 3, 10, 10), (1, 3, 7, 8), (2, 3, 12, 9)):
        images = (torch.rand(shape),)
        torch.testing.assert_close(program(*images), pool(*images))
