"""A model in PyTorch is nice to hold: features by name, another number of classes, out to a file and back."""

from __future__ import annotations

import copy
import importlib
import io
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, SMALL_NETWORKS, pytorch_port, random_images, random_weights
from torch import nn

import slimport.pytorch
from converters import convert, frameworks, mapping, verify
from slimport import networks
from slimport.pytorch import Network

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf

UNIT = "block2/unit_1/bottleneck_v2"


@pytest.fixture
def model() -> Network:
    port: Network = pytorch_port(SMALL, random_weights(SMALL))
    return port


def images(*shape: int) -> torch.Tensor:
    return torch.from_numpy(random_images(shape or (2, 3, 33, 40)))


class Features(nn.Module):
    def __init__(self, model: Network, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.model.features(images, self.names)


def test_features_are_the_end_points_by_slims_names_and_without_the_scope(model: Network) -> None:
    _, end_points = model.end_points(images())
    names = ["predictions", "global_pool", UNIT, "resnet_v2/block1", "logits"]
    features = model.features(images(), names)
    assert list(features) == names
    for name in names:
        full = name if name in end_points else f"resnet_v2/{name}"
        assert torch.equal(features[name], end_points[full])
    assert model.features(images(), []) == {}


def test_nothing_runs_after_the_last_feature(model: Network) -> None:
    calls: Counter[str] = Counter()
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: calls.update([name]))
    model.features(images(), [f"{UNIT}/conv1", "block1"])
    assert calls["conv1"] == 1
    # `forward` is not called, and the unit is entered; of its residual branch, only the first convolution runs.
    started = {name for name in calls if name.startswith("block2") and "unit_1.bottleneck_v2." in name}
    inside = "block2.unit_1.bottleneck_v2."
    layers = ("preact", "preact.Relu", "shortcut", "conv1", "conv1.BatchNorm", "conv1.Relu")
    assert started == {f"{inside}{name}" for name in layers}
    assert not [name for name in calls if name.startswith(("block2.unit_2", "postnorm", "logits"))]
    complete = sum(calls.values())
    model(images())
    assert sum(calls.values()) - complete > complete


def test_an_unknown_feature_is_refused_with_the_nearest_before_anything_runs(model: Network) -> None:
    model.conv1.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    with pytest.raises(ValueError, match=r"no end point 'blok2' in resnet_v2; the nearest: resnet_v2/block2"):
        model.features(images(), ["block1", "blok2"])
    model.reset_classifier(None)
    with pytest.raises(ValueError, match="no end point 'logits'"):
        model.features(images(), ["logits"])


def test_features_compile_whole_and_export_without_the_rest(model: Network) -> None:
    features = Features(model, ["block1", UNIT])
    compiled = torch.compile(features, backend="aot_eager", fullgraph=True)
    # Decomposed, since an exported BatchNorm is never dropped: for all that the program knows, it may be training.
    program = torch.export.export(features, (images(),)).run_decompositions()
    with torch.inference_mode():
        for run in (compiled, program.module()):
            values = run(images())
            for name, value in features(images()).items():
                torch.testing.assert_close(values[name], value, rtol=0, atol=0)
    # block2's other two units and the logits are not in the program.
    in_program = sum("convolution" in str(node.target) for node in program.graph.nodes)
    assert in_program == sum(isinstance(module, nn.Conv2d) for module in model.modules()) - 2 * 3 - 1


def test_a_model_is_copied_pickled_and_saved_whole(model: Network) -> None:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)):
        assert torch.equal(twin(images()), model(images()))
    other = slimport.pytorch.build(SMALL)
    assert other.load_state_dict(model.state_dict(), strict=True) == ([], [])


def test_a_new_classifier_takes_the_place_dtype_and_mode_of_the_old(model: Network) -> None:
    model.double().requires_grad_(False)
    features = model.features(images().double(), ["global_pool"])["global_pool"]
    model.reset_classifier(5)
    assert model.network == SMALL.with_classes(5)
    assert list(model.end_points(images().double())[1]) == model.network.end_points("resnet_v2")
    assert model(images().double()).shape == (2, 5)
    assert torch.equal(model.features(images().double(), ["global_pool"])["global_pool"], features)
    logits = model.get_submodule("logits")
    assert [(p.dtype, p.requires_grad) for p in logits.parameters()] == [(torch.float64, True)] * 2
    assert not logits.training
    assert "5 classes" in repr(model)
    model.reset_classifier(None)
    assert torch.equal(model(images().double()), features)
    assert "logits.weight" not in model.state_dict()
    assert "no logits" in repr(model)
    model.train().reset_classifier(3)
    assert model.get_submodule("logits").training


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (networks.ResNetV2([networks.resnet_v2_block("block1", 256, 1, 1)], 1000), 32),
        (replace(networks.NETWORKS["vgg_16"], blocks=[(8, 1)] * 5, fc_depths=(16, 1024)), 224),
    ],
    ids=["resnet_v2", "vgg"],
)
def test_a_new_classifier_starts_as_in_slim(network: networks.Network, size: int) -> None:
    import tf_slim as slim

    builder = importlib.import_module(f"slimport.nets.{network.family}")
    with tf.Graph().as_default(), tf.Session() as session, slim.arg_scope(builder.arg_scope()):
        builder.build(network, tf.zeros((1, size, size, 3)), is_training=False, scope="net")
        variables = {v.op.name: v for v in tf.global_variables()}
        leaves = (f"net/{network.classifier}/{leaf}" for leaf in ("weights", "biases"))
        weights, biases = session.run([variables[name].initializer.inputs[1] for name in leaves])
    model = slimport.pytorch.build(network.with_classes(None))
    model.reset_classifier(1000)
    mine = model.get_parameter(f"{network.classifier}.weight").detach().numpy()
    # A million numbers: their standard deviation has an error of 0.07%, and the largest is cut off at the same.
    assert mine.std() == pytest.approx(weights.std(), rel=0.005)
    assert abs(mine).max() == pytest.approx(abs(weights).max(), rel=0.001)
    np.testing.assert_array_equal(model.get_parameter(f"{network.classifier}.bias").detach().numpy(), biases)


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_every_family_does_all_this(name: str, tmp_path: Path) -> None:
    network = SMALL_NETWORKS[name]
    model = pytorch_port(network, random_weights(network))
    # Only the ResNets take images of any size.
    side = 64 if isinstance(network, networks.ResNet) else network.default_image_size
    inputs = images(1, network.in_channels, side, side)
    with torch.inference_mode():
        _, end_points = model.end_points(inputs)
        for wanted in list(end_points)[:: len(end_points) // 2]:
            assert torch.equal(model.features(inputs, [wanted])[wanted], end_points[wanted])
        assert any(end.endswith(("logits", "fc8", "Logits")) for end in end_points) == bool(network.num_classes)
        model.reset_classifier(3)
        output = model(inputs)
        assert output.shape[1] == 3
        assert "3 classes" in repr(model)
        slimport.pytorch.save(model, tmp_path / "m.safetensors")
        loaded = slimport.pytorch.load(tmp_path / "m.safetensors")
        assert loaded.network == network.with_classes(3)
        assert torch.equal(loaded(inputs), output)
        loaded.reset_classifier(None)
        assert list(loaded.end_points(inputs)[1]) == loaded.network.end_points(loaded.scope, **loaded.arguments)


def test_a_tuned_model_goes_out_to_a_file_and_to_slim(model: Network, tmp_path: Path) -> None:
    model.reset_classifier(5)
    model.train()(images()).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    slimport.pytorch.save(model.eval(), tmp_path / "tuned.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["tuned.safetensors"]
    loaded = slimport.pytorch.load(tmp_path / "tuned.safetensors")
    assert torch.equal(loaded(images()), model(images()))

    convert(tmp_path / "tuned.safetensors", tmp_path / "tuned.ckpt")
    reader = tf.train.load_checkpoint(str(tmp_path / "tuned.ckpt"))
    assert reader.get_variable_to_shape_map()["resnet_v2/logits/weights"] == [1, 1, 32, 5]
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            slim_name = mapping.slim_names(model.state_dict().keys())[name]
            expected = mapping.slim_layout(slim_name, tensor.numpy())
            np.testing.assert_array_equal(reader.get_tensor(f"resnet_v2/{slim_name}"), expected)
    assert verify(tmp_path / "tuned.ckpt", model, size=(33, 40)).ok


def test_a_saved_model_runs_as_it_did(tmp_path: Path) -> None:
    model = slimport.pytorch.build(
        SMALL, scope="Encoder/net", output_stride=4, global_pool=False, spatial_squeeze=False
    )
    slimport.pytorch.save(model.bfloat16().to(memory_format=torch.channels_last), tmp_path / "m.safetensors")
    loaded = slimport.pytorch.load(tmp_path / "m.safetensors")
    assert (loaded.scope, loaded.arguments) == (model.scope, model.arguments)
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.bfloat16}
    assert slimport.pytorch.load(tmp_path / "m.safetensors", output_stride=8).arguments["output_stride"] == 8


def test_what_is_not_the_network_any_more_is_not_saved_as_it(model: Network, tmp_path: Path) -> None:
    model.logits = nn.Conv2d(32, 5, 1)
    with pytest.raises(ValueError, match=r"not what a resnet_v2 of 7 classes has: logits.weight and 1 more"):
        slimport.pytorch.save(model, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"not what a resnet_v2 of 7 classes has: .*BatchNorm"):
        slimport.pytorch.save(slimport.pytorch.fold_batch_norm(model), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
