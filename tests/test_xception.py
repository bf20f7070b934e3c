"""DeepLab's Xception. No package has its code: its facts are written out, and timm's aligned Xception is a judge."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from conftest import pytorch_port, random_images, random_weights
from test_drop_in import timm  # noqa: F401 - a fixture
from test_small_zoo import check_against_slim, under

from converters import frameworks
from converters.mapping import pytorch_name
from converters.weights.recognize import networks as recognised
from slimport import networks
from slimport.networks.xception import Xception

SMALL = Xception((4, 6, 8), 2, 7, exit_depths=(6, 8, 9, 10, 11, 12), root_depths=(3, 5))
NAMED = Xception.named()
BATCH_NORM = ("BatchNorm/gamma", "BatchNorm/beta", "BatchNorm/moving_mean", "BatchNorm/moving_variance")


@pytest.mark.parametrize(
    ("network", "size", "arguments"),
    [
        (replace(SMALL, entry_depths=(4, 5, 6, 7, 8), regularize_depthwise=True), (65, 98), {"output_stride": 8}),
        (SMALL, (66, 80), {"output_stride": 16, "global_pool": False, "multi_grid": (1, 2, 4)}),
    ],
)
def test_both_ports_are_the_tf_slim_interpreter(
    network: networks.Network, size: tuple[int, int], arguments: dict[str, Any]
) -> None:
    check_against_slim(network, size, **arguments)


# What `tf.global_variables()` and `end_points` of deeplab/core/xception.py were, run once.
@pytest.mark.parametrize(
    ("name", "regularize_depthwise", "variables", "end_points", "trainable"),
    [
        ("xception_41", False, 422, 106, 26_971_609),
        ("xception_41", True, 266, 67, 26_918_169),
        ("xception_65", False, 662, 162, 39_918_361),
        ("xception_65", True, 410, 99, 39_829_977),
        ("xception_71", False, 732, 180, 42_340_785),
        ("xception_71", True, 456, 111, 42_246_497),
    ],
)
def test_there_are_as_many_variables_end_points_and_parameters_as_in_deeplab(
    name: str, regularize_depthwise: bool, variables: int, end_points: int, trainable: int
) -> None:
    network = replace(NAMED[name], regularize_depthwise=regularize_depthwise)
    found = network.variables()
    assert (len(found), len(network.end_points(name))) == (variables, end_points)
    assert sum(int(np.prod(shape)) for key, shape in found.items() if "/moving_" not in key) == trainable


def test_a_modules_variables_have_deeplabs_names() -> None:
    module = "entry_flow/block1/unit_1/xception_module"
    layers = [f"separable_conv{n}_{kind}" for n in (1, 2, 3) for kind in ("depthwise", "pointwise")] + ["shortcut"]
    kernels = [f"{layer}/{'depthwise_' * layer.endswith('depthwise')}weights" for layer in layers]
    expected = [
        f"{module}/{name}"
        for layer, kernel in zip(layers, kernels, strict=True)
        for name in (kernel, *(f"{layer}/{leaf}" for leaf in BATCH_NORM))
    ]
    found = [name for name in NAMED["xception_65"].variables() if name.startswith(module)]
    assert found == expected
    one = replace(NAMED["xception_65"], regularize_depthwise=True)
    found = [name for name in one.variables() if name.startswith(f"{module}/separable_conv1")]
    leaves = ("depthwise_weights", "pointwise_weights", *BATCH_NORM)
    assert found == [f"{module}/separable_conv1/{leaf}" for leaf in leaves]


def test_end_points_have_deeplabs_names_and_order() -> None:
    points = NAMED["xception_41"].end_points("xception_41")
    assert points[:2] == ["xception_41/entry_flow/conv1_1", "xception_41/entry_flow/conv1_2"]
    unit = "xception_41/exit_flow/block2/unit_1/xception_module"
    assert points[-6:] == [
        f"{unit}/separable_conv3_pointwise",
        unit,
        "xception_41/exit_flow/block2",
        "global_pool",
        "xception_41/logits",
        "predictions",
    ]


def timms(network: Xception) -> Any:
    """timm's network of the same blocks, and its modules with weights in slim's order."""
    import torch
    from timm.models import xception_aligned

    skips = {"none": {"no_skip": True, "start_with_relu": False}}
    depth, blocks = 64, []
    for block in network.blocks:
        for _ in range(block.units):
            given = {"in_chs": depth, "out_chs": block.depths, "stride": block.stride}
            blocks.append({**given, **skips.get(block.skip, {})})
            depth = block.depths[-1]
    norm = partial(torch.nn.BatchNorm2d, eps=0.001)
    model: Any = xception_aligned.XceptionAligned(blocks, network.num_classes, norm_layer=norm)  # type: ignore[arg-type]
    model = model.double().eval()
    parts = [model.stem]
    for module in model.blocks:
        # The shortcut's variables come last in slim.
        parts += [module.stack, *([module.shortcut] if module.shortcut is not None else [])]
    kinds = (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear)
    return model, [m for part in [*parts, model.head] for m in part.modules() if isinstance(m, kinds)]


@pytest.mark.parametrize("entry_depths", [(12, 14, 16), (12, 14, 16, 18, 20)])
@pytest.mark.usefixtures("without_onednn", "timm")
def test_timms_aligned_xception_gives_the_same_logits(entry_depths: tuple[int, ...]) -> None:
    torch = frameworks.require("torch")
    network = replace(SMALL, entry_depths=entry_depths, middle_units=2, root_depths=(32, 64))
    weights = random_weights(network)
    port = pytorch_port(network, weights).double()
    judge, modules = timms(network)
    state = port.state_dict()
    ours = iter(state[pytorch_name(name)] for name in network.variables())
    with torch.no_grad():
        for module in modules:
            leaves = ("weight", "bias", "running_mean", "running_var")
            for leaf in leaves:
                if (tensor := getattr(module, leaf, None)) is not None:
                    tensor.copy_(next(ours).reshape(tensor.shape))
        assert next(ours, None) is None
        for size in ((96, 96), (97, 131)):
            images = torch.from_numpy(random_images((2, 3, *size))).double()
            expected = judge(images)
            error = torch.linalg.norm(port(images)[:, :, 0, 0] - expected) / torch.linalg.norm(expected)
            assert error < 1e-13


@pytest.mark.parametrize("scope", ["", "xception_65", "a/net"])
@pytest.mark.parametrize(
    "network",
    [
        *NAMED.values(),
        SMALL,
        replace(SMALL, num_classes=None, in_channels=1, middle_units=5),
        replace(SMALL, entry_depths=(4, 5, 6, 7, 8), regularize_depthwise=True),
    ],
)
def test_it_is_recognised_under_any_scope(network: networks.Network, scope: str) -> None:
    head = {"aspp0/weights": (1, 1, 2048, 256), "decoder/feature_projection0/weights": (1, 1, 256, 48)}
    [found] = recognised({**under(scope, network), **head, "global_step": ()})
    assert (found.network, found.scope, found.complete) == (network, scope, True)


@pytest.mark.parametrize("end", ["entry_flow/block2", "middle_flow/block1", "exit_flow/block1"])
def test_a_trunk_is_named_with_its_end(end: str) -> None:
    network = replace(NAMED["xception_65"], final_endpoint=end)
    [found] = recognised(under("net", network))
    assert found.network.variables() == network.variables()
    assert found.network.final_endpoint == end


def test_a_missing_variable_is_named() -> None:
    name = "net/entry_flow/block2/unit_1/xception_module/separable_conv1_pointwise/weights"
    shapes = under("net", NAMED["xception_71"])
    del shapes[name]
    [found] = recognised(shapes)
    assert (found.network, found.missing) == (NAMED["xception_71"], (name,))


def test_strides_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="output_stride 7 is not a multiple of 2"):
        SMALL.graph(output_stride=7)
    with pytest.raises(ValueError, match="output_stride 64 cannot be reached by the strides of xception"):
        SMALL.graph(output_stride=64)
    with pytest.raises(ValueError, match="multi_grid needs 3 rates"):
        SMALL.graph(multi_grid=(1, 2))
