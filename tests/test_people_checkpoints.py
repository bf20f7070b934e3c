"""What the checkpoints of people's networks hold beside slim's: each is recognised with its end, or is not claimed.

The names are those of files in public repositories (docs/public_checkpoints.md); shapes are the networks' own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from converters import InputError
from converters.checkpoint import full_names, write_checkpoint
from converters.weights import training_state
from converters.weights.recognize import Recognition, UnknownNetworkError, networks, recognize
from scripts.studies.public_indexes import main
from slimport.graph import Shape, scoped
from slimport.networks import NETWORKS, Network

Shapes = dict[str, Shape]


def of(name: str, scope: str, end: str | None = None, *, classes: int | None = None, **fields: Any) -> Shapes:
    """The variables of a network that has a name, under a scope, up to an end point."""
    network: Network = dataclasses.replace(NETWORKS[name], final_endpoint=end, **fields)  # type: ignore[type-var]
    if end is None:
        network = network.with_classes(classes)
    return {scoped(scope, variable): shape for variable, shape in network.variables().items()}


def layer(scope: str, *kernel: int, leaf: str = "weights", norm: bool = True) -> Shapes:
    """A convolution with its BatchNorm, or with biases."""
    depth = (kernel[-1],)
    if not norm:
        return {f"{scope}/{leaf}": kernel, f"{scope}/biases": depth}
    statistics = ("gamma", "beta", "moving_mean", "moving_variance")
    return {f"{scope}/{leaf}": kernel, **{f"{scope}/BatchNorm/{name}": depth for name in statistics}}


def whole(shapes: Mapping[str, Shape]) -> Recognition:
    """The one network among variables, all of which it has."""
    [found] = networks(shapes)
    assert not list(found.problems())
    assert not found.filled
    return found


def not_claimed(shapes: Mapping[str, Shape]) -> UnknownNetworkError:
    """The error of what is no network."""
    assert not networks(shapes)
    with pytest.raises(UnknownNetworkError) as error:
        recognize(shapes, "file")
    return error.value


MOBILENET_V1 = "FeatureExtractor/MobilenetV1"
MOBILENET_V2 = "FeatureExtractor/MobilenetV2"
MOBILENET_V3 = "FeatureExtractor/MobilenetV3"
INCEPTION = "FeatureExtractor/InceptionV{}"
FIRST, SECOND = "FirstStageFeatureExtractor", "SecondStageFeatureExtractor"
BOXES = layer("BoxPredictor_0/BoxEncodingPredictor", 1, 1, 512, 12, norm=False)
NORMALIZED: dict[str, Any] = {"batch_norm_scale": True}
DETECTION: dict[str, Any] = {"batch_norm_scale": True, "separable_batch_norm": True}


@pytest.mark.parametrize(
    ("shapes", "beside", "said"),
    [
        (
            of("mobilenet_v1", MOBILENET_V1),
            ("Conv2d_13_pointwise_1_Conv2d_2_1x1_256", "Conv2d_13_pointwise_2_Conv2d_2_3x3_s2_512"),
            "mobilenet_v1",
        ),
        (
            of("mobilenet_v2", MOBILENET_V2),
            ("layer_19_1_Conv2d_2_1x1_256", "layer_19_2_Conv2d_2_3x3_s2_512_depthwise"),
            "mobilenet_v2",
        ),
        (
            of("mobilenet_v3_large_detection", MOBILENET_V3, "layer_17"),
            ("layer_17_1_Conv2d_2_1x1_256", "layer_17_2_Conv2d_2_3x3_s2_512"),
            "mobilenet_v3_large_detection to layer_17",
        ),
        (
            of("inception_v2", INCEPTION.format(2), **DETECTION),
            ("Mixed_5c_1_Conv2d_2_1x1_256", "Mixed_5c_2_Conv2d_2_3x3_s2_512"),
            "inception_v2",
        ),
        (
            of("inception_v3", INCEPTION.format(3), **NORMALIZED),
            ("Mixed_7c_1_Conv2d_3_1x1_128", "Mixed_7c_2_Conv2d_3_3x3_s2_256"),
            "inception_v3",
        ),
        (of("vgg_16", "ssd_300_vgg", "pool5"), ("conv6", "block8/conv1x1", "block4_box/conv_cls"), "vgg_16 to pool5"),
    ],
    ids=["mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "inception_v2", "inception_v3", "vgg"],
)
def test_the_layers_that_ssd_puts_inside_the_networks_scope_are_not_the_networks(
    shapes: Shapes, beside: Iterable[str], said: str
) -> None:
    scope = min(shapes).partition("/Conv")[0].partition("/conv")[0]
    more = {name: shape for at in beside for name, shape in layer(f"{scope}/{at}", 3, 3, 8, 16).items()}
    found = whole({**shapes, **more, **BOXES})
    assert str(found) == f"{said}, no logits, scope {scope!r}"
    assert found.extras == {"layers": (*more, *BOXES)}


@pytest.mark.parametrize(("name", "fields"), [("inception_v2", DETECTION), ("inception_v3", NORMALIZED)])
def test_the_object_detection_apis_inceptions_have_a_gamma_in_each_batch_norm_and_slims_none(
    name: str, fields: dict[str, Any]
) -> None:
    assert not any(variable.endswith("/gamma") for variable in of(name, "net"))
    shapes = of(name, "net", **fields)
    found = whole(shapes)
    assert fields.items() <= found.network.to_json().items()
    assert found.network.variables().keys() == {variable.removeprefix("net/") for variable in shapes}


def test_the_separable_stem_of_inception_v2_has_a_batch_norm_there_and_biases_in_slim() -> None:
    slims, theirs = of("inception_v2", "net"), of("inception_v2", "net", **DETECTION)
    assert "net/Conv2d_1a_7x7/biases" in slims.keys() - theirs.keys()
    assert "net/Conv2d_1a_7x7/BatchNorm/beta" in theirs.keys() - slims.keys()
    assert whole(slims).network != whole(theirs).network
    without = {name: shape for name, shape in slims.items() if name != "net/Conv2d_1a_7x7/biases"}
    [found] = networks(without)
    assert (found.filled, found.complete) == ({"net/Conv2d_1a_7x7/biases": 0.0}, True)


@pytest.mark.parametrize(
    "name",
    [
        f"{MOBILENET_V2}/Conv/act_quant/max",
        f"{MOBILENET_V2}/Conv/weights_quant/min",
        f"{MOBILENET_V2}/Conv/act_quant/{MOBILENET_V2}/Conv/act_quant/min/biased",
        f"{MOBILENET_V2}/Conv/act_quant/{MOBILENET_V2}/Conv/act_quant/max/local_step",
        f"{MOBILENET_V2}/MobilenetV2/expanded_conv/depthwise/act_quant/min",
        f"{MOBILENET_V2}/expanded_conv_2/add_quant/conv_quant/max",
    ],
)
def test_the_ranges_of_a_quantized_network_are_no_layers(name: str) -> None:
    found = whole({**of("mobilenet_v2", MOBILENET_V2), name: ()})
    assert str(found) == f"mobilenet_v2, no logits, scope '{MOBILENET_V2}'"
    assert found.extras == {"quantization": (name,)}


def test_a_scope_that_is_nested_in_itself_is_the_networks() -> None:
    scope = f"{MOBILENET_V1}/MobilenetV1"
    shapes = of("mobilenet_v1_050", scope)
    ranges = (f"{scope}/Conv2d_0/act_quant/min", f"{MOBILENET_V1}/Conv2d_0/act_quant/max")
    found = whole({**shapes, **dict.fromkeys(ranges, ())})
    assert str(found) == f"mobilenet_v1_050, no logits, scope '{scope}'"
    assert found.extras == {"quantization": ranges}


@pytest.mark.parametrize(
    ("name", "scope", "end"),
    [
        *((f"mobilenet_v2{by}", "MobilenetV2", "layer_18") for by in ("", "_140", "_130", "_075", "_050", "_035")),
        ("mobilenet_v1", "MobilenetV1", "Conv2d_12_pointwise"),
        ("mobilenet_v1_025", "MobilenetV1", "Conv2d_11_pointwise"),
        ("mobilenet_v3_large_detection", MOBILENET_V3, "layer_17"),
        ("mobilenet_v3_small_detection", MOBILENET_V3, "layer_13"),
        ("mobilenet_v3_large", "MobilenetV3", "layer_17"),
        ("inception_v3", "AttentionOcr_v1/conv_tower_fn/INCE/InceptionV3", "Mixed_5d"),
        ("inception_v4", "InceptionV4", "Mixed_6h"),
        ("resnet_v1_50", "resnet_v1_50", "block3"),
        ("resnet_v1_101", "resnet_v1_101", "block3"),
        ("resnet_v1_152", "resnet_v1_152", "block3/unit_14/bottleneck_v1"),
        ("resnet_v2_101", "resnet_v2_101", "block3"),
        ("vgg_19", "vgg_19", "pool4"),
        ("xception_65", "xception_65", "exit_flow/block2"),
    ],
)
def test_a_trunk_is_named_with_its_multiplier_and_its_end(name: str, scope: str, end: str) -> None:
    shapes = of(name, scope, end)
    head = {**layer("aspp0", 1, 1, 320, 256), **layer("logits/semantic", 1, 1, 256, 21, norm=False), "global_step": ()}
    found = whole({**shapes, **head})
    assert found.network.variables().keys() == {variable.removeprefix(f"{scope}/") for variable in shapes}
    if name == "xception_65":  # The block is its last layer: what is behind it has no variables.
        assert str(found) == f"{name}, no logits, scope {scope!r}"
    else:
        assert str(found) == f"{name} to {end}, no logits, scope {scope!r}"


def test_mobilenet_v3s_detection_variant_is_half_as_wide_at_its_end() -> None:
    detection, large = (of(name, "net") for name in ("mobilenet_v3_large_detection", "mobilenet_v3_large"))
    assert (detection["net/Conv_1/weights"], large["net/Conv_1/weights"]) == ((1, 1, 80, 480), (1, 1, 160, 960))
    assert whole(detection).network.name == "mobilenet_v3_large_detection"


def test_faster_rcnn_holds_one_inception_in_two_scopes_and_the_first_is_a_trunk() -> None:
    every = of("inception_v2", "", **DETECTION)
    second = {f"{SECOND}/InceptionV2/{name}": shape for name, shape in every.items() if name.startswith("Mixed_5")}
    shapes = {**of("inception_v2", f"{FIRST}/InceptionV2", "Mixed_4e", **DETECTION), **second}
    found = whole({**shapes, **layer("Conv", 3, 3, 576, 512, norm=False)})
    assert str(found) == f"inception_v2 to Mixed_4e, no logits, scope '{FIRST}/InceptionV2'"
    assert set(second) <= set(found.extras["layers"])


def test_faster_rcnn_holds_a_resnet_and_its_last_block_again_and_a_scope_chooses() -> None:
    scopes = [f"{FIRST}/resnet_v1_101", f"{SECOND}/resnet_v1_101"]
    every = of("resnet_v1_101", "")
    again = {f"{scopes[1]}/{name}": shape for name, shape in every.items() if name.startswith("block4/")}
    for end in ("block3", None):
        shapes = {**of("resnet_v1_101", scopes[0], end), **again}
        with pytest.raises(InputError, match=r"2 networks, under the scopes .* choose one with --scope") as error:
            recognize(shapes, "file")
        assert all(repr(scope) in str(error.value) for scope in scopes)
        first, second = (recognize(shapes, "file", scope) for scope in scopes)
        to = f" to {end}" if end else ""
        assert str(first) == f"resnet_v1_101{to}, no logits, scope '{scopes[0]}'"
        assert first.extras == {"networks": tuple(again)}
        # It is three units of a ResNet v1, and never called by the name of the whole.
        assert str(second) == f"resnet_v1, no logits, scope '{scopes[1]}'"


def test_faster_rcnns_nasnet_has_no_scope_of_its_own() -> None:
    every = of("nasnet_large", "")
    shapes = of("nasnet_large", FIRST, "Cell_11")
    rest = {name: shape for name, shape in every.items() if f"{FIRST}/{name}" not in shapes and "aux_" not in name}
    second = {f"{SECOND}/{name}": shape for name, shape in rest.items()}
    found = whole({**shapes, **second})
    assert f"{FIRST}/cell_0/comb_iter_0/right/separable_3x3_1/depthwise_weights" in shapes
    assert str(found) == f"nasnet_large to Cell_11, no logits, scope '{FIRST}'"


@pytest.mark.parametrize("width", [128, 512])
def test_facenets_class_layer_is_beside_its_scope(width: int) -> None:
    shapes = of("inception_resnet_v1", "", classes=8631, bottleneck_layer_size=width)
    assert shapes["InceptionResnetV1/Bottleneck/weights"] == (1792, width)
    assert shapes["Logits/weights"] == (width, 8631)
    found = whole({**shapes, "global_step": (), "Variable": ()})
    assert str(found) == "inception_resnet_v1, 8631 classes, scope ''"
    assert found.network.to_json()["bottleneck_layer_size"] == width


def test_facenet_with_other_heads_gives_the_embedding() -> None:
    shapes = of("inception_resnet_v1", "")
    heads = {"logits/age/weights": (128, 101), "logits/age/biases": (101,), "logits/gender/weights": (128, 2)}
    found = whole({**shapes, **heads})
    assert str(found) == "inception_resnet_v1, no logits, scope ''"
    assert found.extras == {"layers": tuple(heads)}


def test_a_squeezenet_with_facenets_last_layers_is_not_claimed() -> None:
    shapes = {
        **layer("squeezenet/conv1", 7, 7, 3, 96),
        **layer("squeezenet/fire2/squeeze", 1, 1, 96, 16),
        **layer("squeezenet/fire2/expand/1x1", 1, 1, 16, 64),
        **layer("squeezenet/fire2/expand/3x3", 3, 3, 16, 64),
        **layer("squeezenet/conv10", 1, 1, 512, 1000),
        **layer("squeezenet/Bottleneck", 1000, 128),
        **layer("Logits", 128, 44052, norm=False),
    }
    assert not_claimed(shapes).nearest is None


def test_im2txts_words_are_no_classes_of_the_network() -> None:
    words = layer("logits", 512, 12000, norm=False)
    more = {
        "image_embedding/weights": (2048, 512),
        "seq_embedding/map": (12000, 512),
        "lstm/basic_lstm_cell/bias": (2048,),
    }
    found = whole({**of("inception_v3", "InceptionV3"), **words, **more})
    assert str(found) == "inception_v3, no logits, scope 'InceptionV3'"
    assert set(words) <= set(found.extras["layers"])


def test_tf_hubs_objects_hold_slims_names() -> None:
    escaped = {
        f"layer_with_weights-0/{name.replace('/', '.S')}:0/.ATTRIBUTES/VARIABLE_VALUE": shape
        for name, shape in of("mobilenet_v2_140", "MobilenetV2", classes=1001).items()
    }
    assert "layer_with_weights-0/MobilenetV2.SConv.Sweights:0/.ATTRIBUTES/VARIABLE_VALUE" in escaped
    own = {"layer_with_weights-1/kernel/.ATTRIBUTES/VARIABLE_VALUE": (1001, 5)}
    checkpoint: Any = SimpleNamespace(variables={**escaped, **own})
    named = full_names(checkpoint)
    found = whole({named.get(key, key): shape for key, shape in {**escaped, **own}.items()})
    assert str(found) == "mobilenet_v2_140, 1001 classes, scope 'MobilenetV2'"


def test_moving_averages_may_be_of_statistics_and_of_what_is_not_in_the_file() -> None:
    shapes = of("mobilenet_v2_050", "MobilenetV2", classes=1001)
    averages = {f"{name}/ExponentialMovingAverage": shape for name, shape in shapes.items()}
    assert "MobilenetV2/Conv/BatchNorm/moving_mean/ExponentialMovingAverage" in averages
    absent = {
        "total_loss/ExponentialMovingAverage": (),
        "softmax_cross_entropy_loss/value/ExponentialMovingAverage": (),
    }
    found = whole({**shapes, **averages, **absent})
    assert str(found) == "mobilenet_v2_050, 1001 classes, scope 'MobilenetV2'"
    assert set(found.extras) == {training_state.SHADOW}
    assert set(found.extras[training_state.SHADOW]) == averages.keys() | absent.keys()


def test_adadelta_has_two_slots_of_a_variable_and_there_may_be_no_step() -> None:
    shapes = of("inception_resnet_v2", "InceptionResnetV2", classes=7)
    slots = [{f"{name}/{slot}": shape for name, shape in shapes.items()} for slot in ("Adadelta", "Adadelta_1")]
    found = whole({**shapes, **slots[0], **slots[1]})
    assert str(found) == "inception_resnet_v2, 7 classes, scope 'InceptionResnetV2'"
    assert {group: len(names) for group, names in found.extras.items()} == dict.fromkeys(
        ("Adadelta", "Adadelta_1"), len(shapes)
    )


def test_a_scope_alone_proves_nothing() -> None:
    part = "MobilenetV2/MobilenetV2_part_0"
    own = {**layer(f"{part}/Conv", 3, 3, 3, 32), **layer(f"{part}/expanded_conv/project", 1, 1, 32, 16)}
    assert not_claimed(own).nearest is None
    # What is under the scope of another network is what it is.
    assert str(whole(of("resnet_v2_50", "InceptionV3"))) == "resnet_v2_50, no logits, scope 'InceptionV3'"


def test_common_names_of_layers_do_not_make_a_network_one_that_its_shapes_do_not_fit() -> None:
    convs = [f"inference/coefficients/global/conv{number}" for number in range(1, 13)]
    shapes = {name: shape for conv in convs for name, shape in layer(conv, 3, 3, 64, 64, norm=False).items()}
    for number in (1, 2, 3):
        shapes |= layer(f"inference/coefficients/global/fc{number}", 1024, 256, norm=False)
    error = not_claimed(shapes)
    assert "AlexNet" not in str(error)
    assert error.nearest is None


def test_the_nearest_network_is_not_one_that_has_little_of_what_is_under_the_scope() -> None:
    stem = layer("net/conv1", 7, 7, 3, 64, norm=False) | layer("net/conv2", 5, 5, 64, 64, norm=False)
    rest = {name: shape for i in range(40) for name, shape in layer(f"net/stage{i}/mix", 3, 3, 64, 64).items()}
    assert not_claimed({**stem, **rest}).nearest is None


def test_layers_with_common_names_and_kernels_of_other_sides_make_no_network_near() -> None:
    sides = {"mcnn/large/conv1": (9, 9, 3, 16), "mcnn/large/conv2": (7, 7, 16, 32), "mcnn/large/conv3": (7, 7, 32, 16)}
    shapes = {
        name: shape for scope, kernel in sides.items() for name, shape in layer(scope, *kernel, norm=False).items()
    }
    assert not_claimed({**shapes, **layer("mcnn/large/conv4", 7, 7, 16, 8, norm=False)}).nearest is None


def test_the_study_prints_a_row_for_each_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "someone+something" / "run"
    folder.mkdir(parents=True)
    shapes = of("mobilenet_v1_025", "MobilenetV1", "Conv2d_2_pointwise")
    write_checkpoint(folder / "model.ckpt-7", {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    write_checkpoint(folder / "own.ckpt", {"net/w": np.zeros((2, 2), np.float32)})
    (folder / "broken.ckpt.index").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    for data in folder.glob("*.data-*"):
        data.unlink()
    main([str(tmp_path)])
    broken, known, own = capsys.readouterr().out.splitlines()[2:]
    assert broken.startswith("| someone/something, `run/broken.ckpt.index` |  | refused: ")
    said = "mobilenet_v1_025 to Conv2d_2_pointwise, no logits, scope 'MobilenetV1'"
    assert known.startswith(f"| someone/something, `run/model.ckpt-7.index` | {len(shapes)} | {said} | ")
    assert "| 1 | unknown: no network that slimport knows among its 1 variables | " in own
