"""A network that is a graph of somebody's own: any scopes, any order, shared variables, several inputs and outputs."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_graph_ops import CASES, assert_equal, keras_port, nhwc, pytorch_port, recorded

from slimport import graph, names, networks
from slimport import graph_ops as ops
from slimport.graph import Input, Node, Source, Tensor, conv2d, end_point, record, sharing, sourced
from slimport.graph_differences import describe, differences
from slimport.networks import GraphNetwork
from slimport.pytorch import Part, build, fold_batch_norm, load, save
from slimport.pytorch.layers import Layer
from slimport.sizes import size

IMAGES = Input("images", (None, 8, 8, 3))


def strange(net: Tensor) -> Mapping[str, Tensor]:
    """Scopes that PyTorch and Keras refuse, parts that are left and entered again, a layer that is a part too."""
    net = conv2d(net, 8, 3, 2, scope="features/conv.1", normalizer={"epsilon": 1e-3, "scale": True}, collect=True)
    first = conv2d(net, 8, 3, scope="-p/block/conv1", activation=None, collect=True)
    other = sourced(conv2d(first, 8, 3, scope="other/type", collect=True), {"weights": Source("Variable_12")})
    second = conv2d(other, 8, 3, scope="-p/block/conv2", collect=True)
    norm = graph.batch_norm(second, scope="-p/block/conv1/BatchNorm", collect=True)
    again = sharing(conv2d(norm, 8, 3, scope="again", activation=None), first.node.scope)
    total = end_point(graph.add(again, norm), "sum")
    net = ops.prelu(total, scope="1__2/prelu", collect=True)
    net = graph.multiply(net, ops.variable((8,), scope="gain"))
    net = ops.reshape(net, (size(0, 0), -1), channels=8 * 4 * 4)
    logits = graph.fully_connected(net, 5, activation=None, scope="logits")
    return {"heads/classes": graph.softmax(logits, scope=None), "map": total}


def classifier(net: Tensor) -> Mapping[str, Tensor]:
    net = conv2d(net, 6, 3, scope="conv", normalizer={"epsilon": 1e-3}, collect=True)
    net = graph.mean(net, scope="pool")
    net = graph.flatten(net, channels=6, scope="flat")
    net = end_point(graph.fully_connected(net, 4, activation=None, scope="dense"), "dense")
    return {"scores": graph.softmax(net, scope="softmax")}


def network(definition: Any, *inputs: Input) -> GraphNetwork:
    return GraphNetwork(record(definition, inputs=inputs or (IMAGES,), free=True), "mine")


def weights_of(described: GraphNetwork) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {name: generator.uniform(0.1, 0.4, shape) for name, shape in described.variables().items()}


def port(definition: Any) -> tuple[Any, torch.Tensor]:
    """The PyTorch port of a definition with random weights in, and images."""
    described = network(definition)
    images = np.random.default_rng(1).normal(size=(2, 3, 8, 8))
    return pytorch_port(described, weights_of(described)), torch.from_numpy(images)


def test_every_variable_has_one_parameter_by_the_rule_and_keeps_its_first_name() -> None:
    described = network(strange)
    model = build(described)
    state = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    assert state == {names.pytorch_name(name) for name in described.variables()}
    assert len(state) == len(described.variables())
    sources = described.recorded.sources
    assert sources["p/block/conv1/weights"].name == "-p/block/conv1/weights"
    assert sources["features_scope/conv_1/BatchNorm/gamma"].name == "features/conv.1/BatchNorm/gamma"
    assert sources["other/type_scope/weights"].name == "Variable_12"
    assert sources["1_2/prelu/weights"].name == "1__2/prelu/weights"
    assert all("__" not in name for name in described.variables())


def test_no_module_can_have_the_name_of_an_attribute() -> None:
    model = build(network(strange))
    layers = [module for case in CASES.values() for module in build(recorded(case)).modules()]
    # What can have other modules under its scope.
    for module in (m for m in [*model.modules(), *layers] if isinstance(m, Part | Layer)):
        own = {*module._modules, *module._parameters, *module._buffers}
        attributes = {name for name in dir(module) if not name.startswith("_")} - own
        assert attributes <= names.RESERVED, type(module)


def test_scopes_that_are_fine_stay() -> None:
    for known in ("resnet_v2_50", "inception_v3", "vgg_16"):
        nodes = networks.NETWORKS[known].graph().nodes
        assert all(names.clean(node.scope) == node.scope for node in nodes)


def test_equal_scopes_get_numbers() -> None:
    def definition(net: Tensor) -> Tensor:
        for _ in range(2):
            net = conv2d(net, 3, 1, scope="conv")
        return graph.add(graph.add(net, net), net)

    found = record(definition, inputs=[IMAGES], free=True)
    assert [node.scope for node in found.nodes[1:]] == ["conv", "conv_1", "add", "add_1"]


def test_outputs_come_by_their_names_and_every_end_point_is_found() -> None:
    model, images = port(strange)
    output, end_points = model.end_points(images)
    assert list(output) == ["heads/classes", "map"]
    assert torch.equal(output["map"], end_points["sum"])
    assert list(end_points) == list(model.graph.end_point_names(""))
    assert torch.equal(model.features(images, ["sum"])["sum"], end_points["sum"])
    single, images = port(classifier)
    assert single(images).shape == (2, 4)


def test_a_part_with_others_in_its_midst_cannot_be_called_and_its_layers_can() -> None:
    model, images = port(strange)
    with pytest.raises(TypeError, match="call them one by one: block"):
        model.p(images)
    net = model.features_scope(images)
    assert torch.equal(model.p.block.conv1(net), model.end_points(images)[1]["p/block/conv1"])


def test_a_shared_layer_is_one_and_its_gradient_is_of_all_its_uses() -> None:
    def shared(net: Tensor) -> Tensor:
        first = conv2d(net, 3, 3, scope="a", activation=None)
        second = sharing(conv2d(first, 3, 3, scope="b", activation=None), "a")
        return sharing(conv2d(second, 3, 3, rate=2, scope="c", activation=None), "a")

    model, images = port(shared)
    torch.autograd.backward(model(images).sum())
    weight, bias = (parameter.detach().requires_grad_() for parameter in model.parameters())
    net = images
    for rate in (1, 1, 2):
        net = torch.nn.functional.conv2d(net, weight, bias, padding=rate, dilation=rate)
    torch.autograd.backward(net.sum())
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], [weight.grad, bias.grad])


def test_what_follows_a_shared_layer_in_one_place_is_not_folded_into_it() -> None:
    def shared(net: Tensor) -> Tensor:
        half = graph.scale(conv2d(net, 3, 3, scope="a", activation=None), 0.5, scope="half")
        norm = graph.batch_norm(sharing(conv2d(half, 3, 3, scope="b", activation=None), "a"), scope="norm")
        return graph.scale(conv2d(norm, 4, 1, scope="last", activation=None), 0.25, scope="quarter")

    model, images = port(shared)
    folded = fold_batch_norm(model)
    torch.testing.assert_close(folded(images), model(images))
    assert isinstance(folded.quarter, torch.nn.Identity)


def test_several_inputs_are_given_in_the_graphs_order() -> None:
    def definition(images: Tensor, mask: Tensor) -> Tensor:
        return graph.multiply(conv2d(images, 4, 1, scope="conv"), ops.reshape(mask, (-1, 1, 1, 4)))

    described = network(definition, IMAGES, Input("mask", (None, 4)))
    weights = weights_of(described)
    images, mask = np.ones((2, 8, 8, 3)), np.arange(8.0).reshape(2, 4)
    expected = keras_port(described, weights)([images, mask])
    model = pytorch_port(described, weights)
    found = model(torch.from_numpy(images.transpose(0, 3, 1, 2)), torch.from_numpy(mask))
    assert_equal(nhwc(found.detach().numpy()), np.asarray(expected))


def test_a_graphs_model_compiles_whole_exports_copies_and_pickles() -> None:
    model, images = port(strange)
    with torch.no_grad():
        expected = model(images)
        twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        twins.append(torch.compile(model, backend="aot_eager", fullgraph=True))
        for twin in twins:
            torch.testing.assert_close(twin(images), expected)
        program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
        more = program(torch.cat([images, images, images]))
    torch.testing.assert_close({name: value[:2] for name, value in more.items()}, expected)


def test_a_safetensors_file_holds_the_graph(tmp_path: Path) -> None:
    model, images = port(strange)
    save(model, tmp_path / "mine.safetensors")
    loaded = load(tmp_path / "mine.safetensors")
    assert loaded.network == model.network
    torch.testing.assert_close(loaded(images), model(images))
    read = networks.from_json(json.loads(json.dumps(model.network.to_json())))
    assert read == model.network


@pytest.mark.parametrize("without", ["graph", "name", "scope"])
def test_a_graph_that_lacks_something_is_refused(without: str) -> None:
    data = network(classifier).to_json()
    del data[without]
    with pytest.raises(ValueError, match="not complete"):
        networks.from_json(data)


def test_a_new_classifier_takes_the_old_ones_place() -> None:
    model, images = port(classifier)
    assert (model.network.classifier, model.network.num_classes, model.num_features) == ("dense", 4, 6)
    conv = model.get_submodule("conv")
    model.reset_classifier(3)
    assert model(images).shape == (2, 3)
    assert model.get_submodule("conv") is conv
    model.reset_classifier(None)
    assert model(images).shape == (2, 6)
    with pytest.raises(ValueError, match="no layer of logits"):
        model.reset_classifier(3)
    with pytest.raises(ValueError, match="no layer of logits"):
        port(strange)[0].reset_classifier(3)


def test_training_mode_and_folding_leave_what_is_not_theirs() -> None:
    model, images = port(strange)
    before = model.p.block.conv1.BatchNorm.running_mean.clone()
    folded = fold_batch_norm(model)
    torch.testing.assert_close(folded(images), model(images))
    # This one is behind another layer than that under whose scope it is.
    assert isinstance(folded.p.block.conv1.BatchNorm, torch.nn.BatchNorm2d)
    model.train()(images)["map"].sum().backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if name.startswith("p."))
    assert not torch.equal(model.p.block.conv1.BatchNorm.running_mean, before)


def test_a_constant_is_in_no_state_and_follows_the_models_dtype() -> None:
    model = build(network(lambda net: graph.add(net, ops.constant([1.0, 2.0, 3.0]))))
    assert not model.state_dict()
    assert model.double()(torch.zeros(1, 3, 2, 2).double()).dtype == torch.float64
    assert "mine" in repr(model)


def test_keras_gives_the_same_outputs_and_end_points_and_its_file_needs_no_slimport(tmp_path: Path) -> None:
    import keras

    from slimport.keras import end_points
    from slimport.keras.end_points import in_dtype

    model, images = port(strange)
    inputs = images.numpy().transpose(0, 2, 3, 1)
    built = keras_port(model.network, weights_of(model.network))
    built.save(tmp_path / "mine.keras")
    outputs, expected = model.end_points(images)
    code = "import keras, sys; keras.saving.load_model('mine.keras'); print('slimport' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "False\n"
    for port_ in (built, keras.saving.load_model(tmp_path / "mine.keras")):
        for name, value in port_(inputs).items():
            assert_equal(np.asarray(value), nhwc(outputs[name].detach().numpy()))
        found = end_points(port_, "", network=model.network)(inputs)
        assert list(found) == list(expected)
        for name, value in found.items():
            assert_equal(np.asarray(value), nhwc(expected[name].detach().numpy()))
    assert in_dtype(built, "float32")(inputs.astype(np.float32))["map"].dtype == "float32"


def test_keras_says_when_it_needs_the_size_of_the_images() -> None:
    from slimport.keras import build as build_keras

    def definition(net: Tensor) -> Tensor:
        return ops.reshape(net, (-1, size(0, 1), 3))

    with pytest.raises(ValueError, match="give image_size"):
        build_keras(network(definition, Input("images", (None, None, None, 3))))
    assert build_keras(network(definition)).output_shape == (None, 8, 3)


RESNET = networks.NETWORKS["resnet_v1_50"]


def edited(edit: Any) -> graph.Graph:
    recorded = RESNET.graph()
    return replace(recorded, nodes=tuple(map(edit, recorded.nodes)))


def test_differences_are_told_in_words_and_counted() -> None:
    def edit(node: Node) -> Node:
        """The settings of the Object Detection API's `ssd_resnet50_v1_fpn`, and two of tf-faster-rcnn's."""
        changed = dict(node.attributes)
        if node.normalizer:
            changed["normalizer"] = {**node.normalizer, "epsilon": 0.0010000000474974513, "decay": 0.9}
        if node.activation:
            changed["activation"] = "relu6"
        if node.scope == "pool1":
            changed["padding"] = "VALID"
        if node.scope == "block3/unit_6/bottleneck_v1/conv2":
            changed |= {"strides": (1, 1), "padding": "SAME"}
        return replace(node, attributes=changed)

    assert describe(differences(RESNET.graph(), edited(edit))) == (
        "relu6 in 49 layers, BatchNorm epsilon 0.001 in 53 layers, block3/unit_6/bottleneck_v1/conv2 stride 1, "
        "pool1 VALID"
    )


@pytest.mark.parametrize("name", ["resnet_v1_50", "resnet_v2_50", "inception_v3", "vgg_16"])
def test_a_network_has_no_difference_from_itself_and_has_from_others(name: str) -> None:
    known = networks.NETWORKS[name]
    read = graph.Graph.from_json(json.loads(json.dumps(known.graph().to_json())))
    assert differences(known.graph(), read) == ()
    assert differences(known.graph(), networks.NETWORKS["resnet_v1_101"].graph())


def fused(net: Tensor) -> Tensor:
    net = conv2d(net, 4, 3, 2, ((1, 1), (1, 1)), scope="a", normalizer={"epsilon": 0.001})
    net = conv2d(net, 4, 1, padding="VALID", scope="b", activation="relu6")
    net = graph.squeeze(graph.mean(graph.add(net, conv2d(net, 4, 3, scope="c")), scope="m"), scope="s")
    return graph.fully_connected(net, 3, scope="d")


def spelled_out(net: Tensor) -> Tensor:
    net = ops.pad(net, [(0, 0), (1, 1), (1, 1), (0, 0)])
    net = conv2d(net, 4, 3, 2, "VALID", scope="a", biases=False, activation=None)
    # TensorFlow's graphs have float32 numbers.
    net = graph.activation(graph.batch_norm(net, epsilon=0.0010000000474974513, scope="a/BatchNorm"), "relu")
    net = ops.bias_add(conv2d(net, 4, 1, scope="b", biases=False, activation=None), activation=("relu_n", 6.0))
    net = graph.add(conv2d(net, 4, 3, padding=((1, 1), (1, 1)), scope="c"), net)
    net = graph.dropout(ops.reduce(net, "mean", (1, 2)), scope="dropout")
    return graph.fully_connected(net, 3, scope="d")


def test_another_spelling_of_the_same_computation_is_no_difference() -> None:
    one, two = (record(definition, inputs=[IMAGES], free=True) for definition in (fused, spelled_out))
    assert differences(one, two) == differences(two, one) == ()
