"""Made for people who use timm, torchvision and keras.applications: their idioms work, and types are checked."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import pydoc
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL_NETWORKS, pytorch_port, random_images, random_weights
from torch import Tensor, nn

import slimport.keras
import slimport.pytorch
from slimport import networks
from slimport.pytorch import Network

SIZES = {
    name: (64, 81) if isinstance(network, networks.ResNet) else (network.default_image_size,) * 2
    for name, network in SMALL_NETWORKS.items()
}
_PREDICTED = {"Logits", "Predictions"}
# End points that are values within another scope of slim's, such as `Logits`; FaceNet's names lack the network's scope.
WITHOUT_SCOPE = {
    "inception_v1": {"AvgPool_0a_7x7"},
    "inception_v2": {"AvgPool_1a", "PreLogits"},
    "inception_v3": {"AvgPool_1a", "PreLogits"},
    "inception_v4": {"global_pool", "PreLogitsFlatten"},
    "inception_resnet_v1": set(SMALL_NETWORKS["inception_resnet_v1"].end_points("")) - {"embeddings", "Logits"},
    "inception_resnet_v2": {"PreAuxLogits", "global_pool", "PreLogitsFlatten"},
    "mobilenet_v1": {"AvgPool_1a"},
    "lenet": {"Logits"},
    "cifarnet": {"Logits"},
    **{name: set(SMALL_NETWORKS[name].end_points("")) - _PREDICTED for name in ("mobilenet_v2", "mobilenet_v3")},
    **{name: set(SMALL_NETWORKS[name].end_points("")) for name in ("nasnet", "pnasnet")},
    "deeplab": {point for point in SMALL_NETWORKS["deeplab"].end_points("") if point.startswith("layer_")},
}
every_family = pytest.mark.parametrize("name", SMALL_NETWORKS)


def ported(name: str, **arguments: Any) -> tuple[Network, Tensor]:
    """A small network and images for it."""
    network = SMALL_NETWORKS[name]
    model: Network = pytorch_port(network, random_weights(network), **arguments)
    return model, torch.from_numpy(random_images((2, network.in_channels, *SIZES[name])))


@pytest.fixture(scope="module")
def timm() -> Any:
    """timm, which imports torchvision: with a CPU build of PyTorch that lacks its operators, in name."""
    found = importlib.util.find_spec("torchvision")
    assert found is not None
    assert found.origin is not None
    registrations = (Path(found.origin).parent / "_meta_registrations.py").read_text(encoding="utf-8")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in set(re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"', registrations)):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor x) -> Tensor")
    import timm

    yield timm
    del library


@pytest.mark.parametrize("name", ["resnet_v1", "resnet_v1_beta", "resnet_v2", "vgg"])
def test_all_children_but_the_last_compute_what_comes_before_the_logits(name: str) -> None:
    model, images = ported(name)
    taken = []
    classifier = model.get_submodule(model.network.classifier.replace("/", "."))
    classifier.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    model(images)
    before = nn.Sequential(*list(model.children())[:-1])
    assert torch.equal(before(images), taken[0])
    assert list(dict(model.named_children()))[-1] == model.network.classifier


def test_what_a_user_adds_is_a_child_and_moves_with_the_model() -> None:
    model, _ = ported("resnet_v2")
    model.spatial_squeeze = nn.Sequential(nn.Flatten(), nn.Linear(7, 3))
    model.extra = nn.Linear(3, 2)
    assert {"spatial_squeeze", "extra"} <= set(dict(model.named_children()))
    assert {parameter.dtype for parameter in model.double().parameters()} == {torch.float64}


def test_inception_without_its_auxiliary_head_is_a_chain_of_children() -> None:
    network = SMALL_NETWORKS["inception_v3"].without_auxiliary()
    model = pytorch_port(network, random_weights(network))
    images = torch.from_numpy(random_images((1, 3, 299, 299)))
    before = nn.Sequential(*list(model.children())[:-1])
    assert torch.equal(before(images), model.features(images, ["Mixed_7c"])["Mixed_7c"])


def test_torchvisions_intermediate_layer_getter_equals_features(timm: Any) -> None:  # noqa: ARG001
    from torchvision.models._utils import IntermediateLayerGetter

    model, images = ported("resnet_v2")
    found = IntermediateLayerGetter(model, {"block2": "net", "conv1": "root"})(images)
    features = model.features(images, ["conv1", "block2"])
    assert torch.equal(found["net"], features["block2"])
    assert torch.equal(found["root"], features["conv1"])


@every_family
def test_a_hook_on_a_scope_that_is_an_end_point_gives_that_end_point(name: str) -> None:
    model, images = ported(name)
    paths = {point: end.name.replace("/", ".") for point, end in model.graph.end_point_names(model.scope).items()}
    modules = dict(model.named_modules())
    hooked: dict[str, Tensor] = {}
    for point, path in paths.items():
        if path in modules:
            modules[path].register_forward_hook(lambda _, __, output, point=point: hooked.__setitem__(point, output))
    _, end_points = model.end_points(images)
    assert end_points.keys() - hooked.keys() == WITHOUT_SCOPE.get(name, set())
    for point, value in hooked.items():
        assert torch.equal(value, end_points[point]), point


def test_parts_are_called_by_themselves() -> None:
    model, images = ported("inception_v3")
    features = model.features(images, ["Mixed_6d", "Mixed_6e"])
    assert torch.equal(model.get_submodule("Mixed_6e")(features["Mixed_6d"]), features["Mixed_6e"])
    model, images = ported("resnet_v2")
    features = model.features(images, ["block1", "block2"])
    assert torch.equal(model.get_submodule("block2")(features["block1"]), features["block2"])


def test_a_replaced_block_runs_and_the_other_end_points_stay() -> None:
    model, images = ported("resnet_v2")
    names = list(model.end_points(images)[1])
    model.block2 = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU())
    output, end_points = model.end_points(images)
    assert output.shape == (2, 7)
    assert torch.equal(model(images), output)
    assert torch.equal(end_points["resnet_v2/block2"], model.block2(end_points["resnet_v2/block1"]))
    assert list(end_points) == [name for name in names if not name.startswith("resnet_v2/block2/")]
    model.reset_classifier(3)
    assert isinstance(model.block2, nn.Sequential)
    assert model(images).shape == (2, 3)


# These have every kind of layer and of part that the families have.
@pytest.mark.parametrize("name", ["resnet_v1_lite", "resnet_v2", "inception_v2", "mobilenet_v3"])
def test_models_compile_whole_trace_copy_and_pickle(name: str) -> None:
    model, images = ported(name)
    with torch.inference_mode():
        expected = model(images)
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), nn.DataParallel(model)]
    with torch.no_grad():
        twins.append(torch.jit.trace(model, images, check_trace=False))
        twins.append(torch.compile(model, backend="aot_eager", fullgraph=True))
        for twin in twins:
            torch.testing.assert_close(twin(images), expected)


@every_family
def test_a_new_classifier_is_refused_before_anything_changes(name: str) -> None:
    model, images = ported(name)
    expected = model(images)
    for wrong in (-1, 2.5, "10", True):
        with pytest.raises(ValueError, match="num_classes"):
            model.reset_classifier(wrong)  # type: ignore[arg-type]
    assert torch.equal(model(images), expected)


def test_a_new_classifier_leaves_every_other_module_and_its_hooks() -> None:
    model, images = ported("inception_v3")
    model.double()
    before = dict(model.named_modules())
    model.reset_classifier(3)
    after = dict(model.named_modules())
    new = {path for path, module in after.items() if before.get(path) is not module}
    assert {path.rpartition(".")[2] for path in new} <= {
        "Conv2d_1c_1x1",
        "Conv2d_2b_1x1",
        "SpatialSqueeze",
        "Predictions",
    }
    output, end_points = model.end_points(images.double())
    assert output.shape == end_points["AuxLogits"].shape == (2, 3)
    model.reset_classifier(None)
    assert "AuxLogits" not in dict(model.named_children())
    assert model(images.double()).shape == (2, model.num_features, 1, 1)


def test_models_are_created_and_listed_by_name() -> None:
    for port in (slimport.pytorch, slimport.keras):
        assert port.list_models("resnet_v2*") == [f"resnet_v2_{depth}" for depth in (50, 101, 152, 200)]
        assert port.list_models() == list(networks.NETWORKS)
        with pytest.raises(ValueError, match=r"no network is named 'resnet_v2_51'; the nearest: resnet_v2_50"):
            port.create_model("resnet_v2_51")
        with pytest.raises(TypeError, match="num_clases"):
            port.create_model("resnet_v2_50", num_clases=10)
    with torch.device("meta"):
        model = slimport.pytorch.create_model("resnet_v2_50", num_classes=10, in_channels=1, output_stride=16)
    assert model.network == networks.ResNetV2(networks.ResNetV2.depths["resnet_v2_50"], 10, 1)
    assert model.arguments["output_stride"] == 16
    keras_model = slimport.keras.create_model("vgg_a", num_classes=10, in_channels=1)
    assert (keras_model.input_shape, keras_model.output_shape) == ((None, None, None, 1), (None, 10))


@every_family
def test_feature_info_is_what_the_end_points_are(name: str) -> None:
    model, images = ported(name)
    net, end_points = model.end_points(images)
    assert [info.end_point for info in model.feature_info] == list(end_points)
    for end_point, channels, stride in model.feature_info:
        value = end_points[end_point]
        assert value.shape[1] == channels
        if stride is not None and not name.startswith(("inception", "alexnet", "overfeat")):
            # Their VALID layers take something off each side.
            assert value.shape[2:] == tuple(-(-side // stride) for side in images.shape[2:]) or "fc" in end_point
    assert model.forward_features(images).ndim == 4
    features = pytorch_port(model.network.with_classes(None), random_weights(model.network.with_classes(None)))
    assert features.num_features == features(images).shape[1]
    if model.network.num_classes:
        assert model.num_features == features.num_features
    assert net.shape[1] == (model.network.num_classes or model.num_features)


def test_forward_features_is_the_last_map() -> None:
    model, images = ported("resnet_v2")
    taken = []
    model.get_submodule("global_pool").register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    model(images)
    assert torch.equal(model.forward_features(images), taken[0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet_v2_50", {"input_size": (3, 299, 299), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 0.875}),
        (
            "vgg_16",
            {"input_size": (3, 224, 224), "mean": (123.68 / 255, 116.78 / 255, 103.94 / 255), "crop_pct": 0.875},
        ),
        ("inception_v3", {"input_size": (3, 299, 299), "interpolation": "bilinear", "crop_mode": "squash"}),
    ],
)
def test_timm_understands_the_preprocessing(timm: Any, name: str, expected: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = slimport.pytorch.create_model(name)
    config = timm.data.resolve_data_config(model=model)
    assert {key: config[key] for key in expected} == expected
    assert {key: model.preprocessing[key] for key in config} == config


def test_help_explains_the_arguments() -> None:
    for port in (slimport.pytorch, slimport.keras):
        text = pydoc.plain(pydoc.render_doc(port.resnet_v2_50))
        assert "resnet_v2_50(num_classes: 'int | None' = 1001, global_pool: 'bool' = True" in text
        assert "output_stride: ratio of input to output resolution" in text


def test_every_network_has_a_function_in_both_ports() -> None:
    for port in (slimport.pytorch, slimport.keras):
        for name in {*networks.NETWORKS, *networks.FAMILIES}:
            assert name in dir(port)
            assert getattr(port, name).__name__ == name
