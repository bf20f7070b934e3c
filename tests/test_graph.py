"""The vocabulary of slim's layers: what a recording says, and that every word means the same in every framework."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from converters import frameworks, mapping
from converters.formats import models
from converters.parity.compare import rel_l2
from converters.parity.tf_slim import building_graphs
from scripts import make_checkpoint
from slimport import graph, networks
from slimport.graph import (
    ACTIVATIONS,
    Graph,
    Shape,
    Tensor,
    activation,
    add,
    arg_scope,
    avg_pool2d,
    batch_norm,
    concat,
    conv2d,
    conv2d_same,
    conv2d_transpose,
    dropout,
    end_point,
    features,
    flatten,
    fully_connected,
    l2_normalize,
    max_pool2d,
    mean,
    multiply,
    pad_channels,
    record,
    scale,
    scope,
    separable_conv2d,
    softmax,
    squeeze,
    subsample,
)

Definition = Callable[[Tensor], Tensor]
Array = Any
LIMIT = 1e-12


def recorded(definition: Definition) -> Graph:
    return record(definition, in_channels=3)


# What a recording says.


@pytest.mark.parametrize(
    ("definition", "variables"),
    [
        (lambda net: conv2d(net, 5, (3, 2), scope="a"), {"a/weights": (3, 2, 3, 5), "a/biases": (5,)}),
        (lambda net: conv2d(net, 5, 1, biases=False, scope="a"), {"a/weights": (1, 1, 3, 5)}),
        (
            lambda net: separable_conv2d(net, 5, 3, 2, scope="a"),
            {"a/depthwise_weights": (3, 3, 3, 2), "a/pointwise_weights": (1, 1, 6, 5), "a/biases": (5,)},
        ),
        (
            lambda net: separable_conv2d(net, None, 3, 2, scope="a"),
            {"a/depthwise_weights": (3, 3, 3, 2), "a/biases": (6,)},
        ),
        (lambda net: conv2d_transpose(net, 5, (3, 2), scope="a"), {"a/weights": (3, 2, 5, 3), "a/biases": (5,)}),
        (
            lambda net: fully_connected(flatten(net, (2, 4), scope="f"), 5, scope="a"),
            {"a/weights": (24, 5), "a/biases": (5,)},
        ),
        (
            lambda net: conv2d(net, 5, 1, normalizer=batch_norm, scope="a"),
            {"a/weights": (1, 1, 3, 5)}
            | {f"a/BatchNorm/{leaf}": (5,) for leaf in ("beta", "moving_mean", "moving_variance")},
        ),
        (
            lambda net: conv2d(net, 5, 1, normalizer=batch_norm, biases=True, scope="a"),
            {"a/weights": (1, 1, 3, 5), "a/biases": (5,)}
            | {f"a/BatchNorm/{leaf}": (5,) for leaf in ("beta", "moving_mean", "moving_variance")},
        ),
        (lambda net: batch_norm(net, scope="a"), {f"a/{n}": (3,) for n in ("beta", "moving_mean", "moving_variance")}),
        (
            lambda net: batch_norm(net, scale=True, scope="a"),
            {f"a/{leaf}": (3,) for leaf in ("gamma", "beta", "moving_mean", "moving_variance")},
        ),
        (
            lambda net: batch_norm(net, center=False, scale=True, scope="a"),
            {f"a/{leaf}": (3,) for leaf in ("gamma", "moving_mean", "moving_variance")},
        ),
        (
            lambda net: batch_norm(net, center=False, scope="a"),
            {f"a/{leaf}": (3,) for leaf in ("moving_mean", "moving_variance")},
        ),
        (lambda net: softmax(mean(max_pool2d(net, 2, scope="a"), scope="b"), scope="c"), {}),
    ],
)
def test_a_layers_variables_are_slims(definition: Definition, variables: dict[str, Shape]) -> None:
    assert list(recorded(definition).variables.items()) == list(variables.items())


def test_channels_and_strides_follow_the_layers() -> None:
    def definition(net: Tensor) -> Tensor:
        net = conv2d(net, 8, 3, 2, scope="conv")
        pool = max_pool2d(net, 3, (2, 1), scope="pool")
        up = conv2d_transpose(pool, 4, 4, 2, scope="up")
        down = separable_conv2d(up, None, 3, 3, (1, 3), scope="depthwise")
        gate = mean(down, scope="mean")
        net = concat(multiply(down, gate, scope="multiply"), pad_channels(down, 20, scope="pad"), scope="concat")
        net = flatten(net, (2, 3), scope="flatten")
        return fully_connected(net, 10, scope="logits")

    expected = {
        "": (3, (1, 1)),
        "conv": (8, (2, 2)),
        "pool": (8, (4, 2)),
        "up": (4, (2, 1)),
        "depthwise": (12, (2, 3)),
        "mean": (12, None),
        "multiply": (12, (2, 3)),
        "pad": (20, (2, 3)),
        "concat": (32, (2, 3)),
        "flatten": (192, None),
        "logits": (10, None),
    }
    assert {node.scope: (node.channels, node.stride) for node in recorded(definition).nodes} == expected


def test_a_gate_may_come_before_the_map_that_it_multiplies() -> None:
    found = recorded(lambda net: multiply(mean(net, scope="mean"), conv2d(net, 3, 1, 2, scope="conv"), scope="gated"))
    assert found.nodes[found.output].stride == (2, 2)


def attributes(definition: Definition) -> dict[str, Mapping[str, Any]]:
    """What is recorded of each layer, by scope."""
    return {node.scope: node.attributes for node in recorded(definition).nodes}


def test_arg_scopes_change_defaults_the_inner_one_last_and_end() -> None:
    def definition(net: Tensor) -> Tensor:
        with arg_scope([conv2d, max_pool2d], padding="VALID"):
            with arg_scope([conv2d], padding="SAME", rate=2):
                net = conv2d(net, 3, 3, scope="inner")
                net = max_pool2d(net, 2, scope="pool")
                net = conv2d(net, 3, 3, rate=1, scope="given")
            net = conv2d(net, 3, 3, scope="outer")
            with pytest.raises(ZeroDivisionError), arg_scope([conv2d], rate=3):
                raise ZeroDivisionError
            net = conv2d(net, 3, 3, scope="after_an_error")
        return conv2d(net, 3, 3, scope="outside")

    found = attributes(definition)
    settings = {name: (found[name]["padding"], found[name].get("rate")) for name in found if name}
    assert settings == {
        "inner": ("SAME", (2, 2)),
        "pool": ("VALID", None),
        "given": ("SAME", (1, 1)),
        "outer": ("VALID", (1, 1)),
        "after_an_error": ("VALID", (1, 1)),
        "outside": ("SAME", (1, 1)),
    }


def test_a_normalizer_has_the_settings_of_the_arg_scope_as_batch_norm_itself_has() -> None:
    def definition(net: Tensor) -> Tensor:
        with arg_scope([batch_norm], scale=True, epsilon=1e-5), arg_scope([conv2d], normalizer=batch_norm):
            net = conv2d(net, 3, 1, scope="conv")
            return batch_norm(net, scope="norm")

    found = attributes(definition)
    expected = {"decay": 0.999, "center": True, "scale": True, "epsilon": 1e-5}
    assert found["conv"]["normalizer"] == expected
    assert found["norm"] == {**expected, "activation": None}


def test_an_arg_scope_reaches_conv2d_same_too() -> None:
    def definition(net: Tensor) -> Tensor:
        with arg_scope([conv2d], activation="relu6", collect=True):
            net = conv2d_same(net, 3, 3, 2, scope="strided")
            return conv2d_same(net, 3, 3, 1, activation=None, scope="plain")

    found = attributes(definition)
    assert (found["strided"]["activation"], found["plain"]["activation"]) == ("relu6", None)
    assert list(recorded(definition).end_point_names("net")) == ["net/strided", "net/plain"]


def test_conv2d_same_pads_by_itself_where_it_strides() -> None:
    def definition(net: Tensor) -> Tensor:
        net = conv2d_same(net, 3, 3, 1, scope="plain")
        net = conv2d_same(net, 3, 7, 2, scope="strided")
        return conv2d_same(net, 3, 4, 2, scope="even")

    found = attributes(definition)
    expected = {"plain": "SAME", "strided": ((3, 3), (3, 3)), "even": ((1, 2), (1, 2))}
    assert {name: found[name]["padding"] for name in expected} == expected


def test_subsampling_by_1_is_no_layer() -> None:
    found = recorded(lambda net: subsample(subsample(net, 1, scope="none"), 2, scope="half"))
    assert [node.scope for node in found.nodes] == ["", "half"]


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        (lambda _: arg_scope([conv2d], color="red").__enter__(), "conv2d has no argument color"),
        (lambda net: conv2d(conv2d(net, 3, 1, scope="a"), 3, 1, scope="a"), "two layers under the scope 'a'"),
        (lambda net: conv2d(net, 3, 1, activation="mish", scope="a"), "no activation is named 'mish'; there are relu"),
        (lambda net: activation(net, "mish", scope="a"), "no activation is named 'mish'"),
        (lambda net: conv2d(net, 3, 1, normalizer=softmax, scope="a"), "normalizer is batch_norm or None"),
    ],
)
def test_what_slim_lacks_is_refused(definition: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        recorded(definition)


def test_two_layers_without_a_scope_of_their_own_need_two_parts() -> None:
    def definition(net: Tensor) -> Tensor:
        with scope("a"):
            net = add(net, net)
        with scope("b"):
            return concat(net, net)

    assert [(node.op, node.scope) for node in recorded(definition).nodes[1:]] == [("add", "a"), ("concat", "b")]
    with pytest.raises(ValueError, match="two layers under the scope 'a'"):
        recorded(lambda net: definition(definition(net)))


def test_an_argument_that_a_layer_lacks_is_refused_by_position_too() -> None:
    for more in ({"color": "red"}, {"num_outputs": 4}):
        with pytest.raises(TypeError):
            recorded(lambda net, more=more: conv2d(net, 3, 1, scope="a", **more))  # type: ignore[misc]
    with pytest.raises(TypeError):
        recorded(lambda net: mean(net, "a"))  # type: ignore[misc]
    with pytest.raises(TypeError):
        recorded(lambda net: conv2d(net, 3, 1, 1, "SAME", 1, None, scope="a"))  # type: ignore[misc]


def test_scopes_are_parts_from_the_outermost() -> None:
    def definition(net: Tensor) -> Tensor:
        with scope("block1/unit_1"), scope("branch"):
            net = conv2d(net, 3, 1, scope="conv1")
        with scope("block1"):
            net = conv2d(net, 3, 1, scope="last")
        return conv2d(net, 3, 1, scope="logits/conv")

    found = recorded(definition)
    assert [node.scope for node in found.nodes[1:]] == ["block1/unit_1/branch/conv1", "block1/last", "logits/conv"]
    assert found.parts == ("block1", "block1/unit_1", "block1/unit_1/branch")


def test_end_points_are_in_order_and_scoped_as_slims() -> None:
    def definition(net: Tensor) -> Tensor:
        with scope("block1"):
            net = end_point(conv2d(net, 3, 1, collect=True, scope="conv1"))
        net = end_point(mean(net, scope="pool5"), "global_pool", scoped=False)
        net = conv2d(net, 3, 1, collect=True, scope="logits")
        net = end_point(squeeze(net, scope="squeezed"), "block1")
        return end_point(softmax(net, scope="predictions"), "predictions", scoped=False)

    found = recorded(definition)
    # What is named again keeps its place, as in slim's dict.
    expected = ["net/block1/conv1", "net/block1", "global_pool", "net/logits", "predictions"]
    assert list(found.end_point_names("net")) == expected
    assert list(found.end_point_names("")) == [name.removeprefix("net/") for name in expected]
    assert found.nodes[found.end_point_names("net")["net/block1"].node].scope == "squeezed"


def test_a_graph_knows_its_output_its_features_and_what_they_need() -> None:
    def definition(net: Tensor) -> Tensor:
        net = features(conv2d(net, 8, 1, scope="conv"))
        head = conv2d(net, 5, 1, scope="AuxLogits")
        end_point(activation(head, "relu", scope="auxiliary"), "aux")
        net = conv2d(net, 5, 1, scope="logits")
        softmax(net, scope="predictions")
        return net

    found = record(definition, in_channels=3, classifier="logits")
    scopes = [node.scope for node in found.nodes]
    assert scopes[found.output] == found.classifier == "logits"
    assert scopes[found.features or 0] == "conv"
    assert found.depth_in("logits") == 8
    assert {scopes[index] for index in found.needed} == {"", "conv", "logits"}
    assert [scopes[index] for index in found.branches] == ["auxiliary"]


def test_a_recording_ends_when_its_definition_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        recorded(lambda net: conv2d(net, 3 // 0, 1, scope="a"))
    images = graph.Tensor(0, graph.Node("input", (), "", 3, (1, 1)))
    with pytest.raises(LookupError):
        conv2d(images, 3, 1, scope="a")


def test_a_recording_may_be_made_while_another_is() -> None:
    def definition(net: Tensor) -> Tensor:
        with scope("a"), arg_scope([conv2d], rate=2):
            within = recorded(lambda net: conv2d(net, 3, 1, scope="conv"))
            assert (within.nodes[1].scope, within.nodes[1].attributes["rate"]) == ("conv", (1, 1))
            return conv2d(net, 3, 1, scope="conv")

    assert recorded(definition).nodes[1].scope == "a/conv"


def test_no_framework_is_imported() -> None:
    code = (
        "import sys, slimport.networks; print({'tensorflow', 'torch', 'keras', 'numpy'} & set(sys.modules) or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "none\n"


# What the words mean: cases of all of them, each layer an end point by its scope.


def variants(**choices: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Every combination of values of arguments, by a scope that says which."""
    combinations = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    text = {str(c): "_".join(f"{key}_{value}" for key, value in c.items()) for c in combinations}
    return {re.sub(r"[\W_]+", "_", text[str(c)]).strip("_"): c for c in combinations}


def each(layer: Any, *choices: Mapping[str, Mapping[str, Any]], **common: Any) -> Definition:
    """The definition of a layer in variants, all of the images."""

    def definition(images: Tensor) -> Tensor:
        for name, settings in itertools.chain.from_iterable(c.items() for c in choices):
            net = end_point(layer(images, scope=name, **settings, **common), name)
        return net

    return definition


LAYERS_WITH_KERNELS = (conv2d, separable_conv2d, conv2d_transpose, fully_connected)
NORMALIZERS = variants(scale=(False, True), center=(False, True))


def normalized(images: Tensor) -> Tensor:
    """BatchNorm in all its forms, of maps and of vectors, by itself and behind the layers."""
    # TensorFlow rounds 1 - decay to float32, in float64 too; this one is exact.
    exact = {"decay": 0.75, "epsilon": 0.01}
    for name, settings in NORMALIZERS.items():
        with (
            scope(name),
            arg_scope([batch_norm], **exact, **settings),
            arg_scope(LAYERS_WITH_KERNELS, normalizer=batch_norm, collect=True),
        ):
            net = batch_norm(images, activation="relu", collect=True, scope="maps")
            net = conv2d(net, 4, 3, scope="conv")
            net = squeeze(mean(net, scope="mean"), scope="squeeze")
            net = fully_connected(net, 3, scope="fc")
            batch_norm(net, collect=True, scope="vectors")
    with arg_scope([batch_norm], **exact), arg_scope(LAYERS_WITH_KERNELS, normalizer=batch_norm, collect=True):
        conv2d(images, 4, 3, biases=True, scope="biases_too")
        separable_conv2d(images, 4, 3, scope="separable")
        separable_conv2d(images, None, 3, scope="depthwise")
        return conv2d_transpose(images, 4, 3, 2, scope="transposed")


def arithmetic(images: Tensor) -> Tensor:
    """What has no variables and no map of its own."""
    with arg_scope([conv2d], activation="tanh"):
        nets = [conv2d(images, 4, 3, scope=f"conv{number}") for number in range(3)]
        plane = conv2d(images, 1, 1, scope="plane")
    gate = mean(nets[0], scope="gate")
    points = {
        "sum": add(*nets[:2], scope="sum"),
        "sum_of_three": add(*nets, activation="relu", scope="sum_of_three"),
        "product": multiply(*nets, scope="product"),
        "gated": multiply(nets[1], gate, scope="gated"),
        "gates": multiply(gate, nets[1], scope="gates"),
        "masked": multiply(nets[1], plane, scope="masked"),
        "scaled": scale(nets[1], 0.17, scope="scaled"),
        "shifted": scale(nets[1], 2.0, -1.0, scope="shifted"),
        "concatenated": concat(nets[0], plane, nets[1], scope="concatenated"),
        "mean": gate,
        "squeezed": squeeze(gate, scope="squeezed"),
        "softmax_of_maps": softmax(nets[0], scope="softmax_of_maps"),
        "dropped": dropout(nets[0], 0.3, scope="dropped"),
    }
    points["softmax"] = softmax(points["squeezed"], scope="softmax")
    points["unit"] = l2_normalize(points["squeezed"], scope="unit")
    points["unit_map"] = l2_normalize(nets[0], 0.5, scope="unit_map")
    with scope("part"):
        points["part"] = add(nets[0], nets[2])
    for name, net in points.items():
        end_point(net, name)
    return points["part"]


def flattened(images: Tensor) -> Tensor:
    """A map of 2x3 as slim flattens it, channels last, before fully connected layers."""
    net = end_point(flatten(images, (2, 3), scope="flatten"), "flatten")
    net = fully_connected(net, 5, activation="sigmoid", collect=True, scope="fc1")
    return fully_connected(net, 4, activation=None, biases=False, collect=True, scope="fc2")


PADDINGS = ("SAME", "VALID", ((1, 2), (0, 3)))
STRIDES = (1, 2, 3, (2, 1), (1, 3))
POOLS = variants(kernel_size=(1, 2, 3, 4, (2, 3)), stride=STRIDES, padding=("SAME", "VALID"))
CASES: dict[str, Definition] = {
    "conv2d": each(
        conv2d,
        variants(kernel_size=(1, 2, 3, (4, 3)), stride=STRIDES, padding=PADDINGS),
        variants(kernel_size=(2, 3, (1, 3)), rate=(2, 3, (1, 2)), padding=PADDINGS),
        num_outputs=4,
        activation=None,
    ),
    "separable_conv2d": each(
        separable_conv2d,
        variants(
            num_outputs=(5, None), kernel_size=(1, 3, (2, 4)), depth_multiplier=(1, 3), stride=(1, 2), padding=PADDINGS
        ),
        variants(num_outputs=(5, None), kernel_size=(3,), depth_multiplier=(1, 3), rate=(2,), padding=PADDINGS),
        activation=None,
    ),
    "conv2d_transpose": each(
        conv2d_transpose,
        variants(kernel_size=(1, 2, 3, 4, (2, 3)), stride=(1, 2, 3, (3, 2)), padding=("SAME", "VALID")),
        num_outputs=4,
        activation=None,
    ),
    "max_pool2d": each(max_pool2d, POOLS),
    "avg_pool2d": each(avg_pool2d, POOLS),
    "clipped_avg_pool2d": each(avg_pool2d, variants(kernel_size=(3, 8, 20, (20, 3)), stride=(1, 2)), clipped=True),
    # Large enough for every threshold of theirs.
    "activations": lambda net: each(activation, variants(function=ACTIVATIONS))(scale(net, 40.0, scope="large")),
    "activations_behind_a_layer": each(conv2d, variants(activation=ACTIVATIONS), num_outputs=4, kernel_size=1),
    "pad_channels": each(pad_channels, variants(channels=(3, 4, 9))),
    "normalizers": normalized,
    "arithmetic": arithmetic,
    "flatten": flattened,
}
SIZES = {"flatten": [(2, 3)]}
# An odd and an even height and width, and the other way about.
ODD_AND_EVEN = [(9, 12), (10, 7)]


class Described:
    """The description of one graph, with what the ports ask of one."""

    name = default_scope = "net"
    num_classes = None
    arguments: Mapping[str, Any] = {}

    def __init__(self, of: Graph) -> None:
        self._graph = of
        self.in_channels = of.nodes[0].channels

    def graph(self) -> Graph:
        return self._graph

    def with_defaults(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return arguments


class Judged:
    """A case as TF-Slim computes it in float64, with random weights.

    graph: the recording.
    images: batches of the case's sizes.
    variables: names, without the model's scope, with shapes, in the order in which they were made.
    weights: their values.
    end_points: of each batch.
    averages: the moving averages after the updates of the first batch, in training.
    """

    def __init__(self, case: str, is_training: bool) -> None:
        frameworks.require("slimport.nets")
        import tensorflow.compat.v1 as tf

        from slimport.nets import interpreter

        self.graph = recorded(CASES[case])
        generator = np.random.default_rng(0)
        self.images = [generator.uniform(-1, 1, (2, *size, 3)) for size in SIZES.get(case, ODD_AND_EVEN)]
        with tf.Graph().as_default(), building_graphs(), tf.Session() as session:
            feeds, end_points = {}, []
            for images in self.images:
                feeds[placeholder := tf.placeholder(tf.float64, images.shape)] = images
                _, points = interpreter.run(
                    self.graph, placeholder, "net", is_training=is_training, scope="net", reuse=tf.AUTO_REUSE
                )
                end_points.append(points)
            variables = {v.op.name.removeprefix("net/"): v for v in tf.global_variables()}
            self.variables = {name: tuple(v.shape.as_list()) for name, v in variables.items()}
            self.weights = {
                name: make_checkpoint.random_value(name, shape, generator).astype(np.float64)
                for name, shape in self.variables.items()
            }
            initial = {v.initializer.inputs[1]: self.weights[name] for name, v in variables.items()}
            session.run([v.initializer for v in variables.values()], initial)
            self.end_points = session.run(end_points, feeds)
            updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
            session.run(updates[: len(updates) // len(self.images)], feeds)
            self.averages = session.run({name: v for name, v in variables.items() if "moving_" in name})


judged = cache(Judged)


def assert_close(case: Judged, ports: Iterable[Mapping[str, Array]]) -> None:
    """Every end point of every batch, NHWC, is TF-Slim's."""
    for found, expected in zip(ports, case.end_points, strict=True):
        assert {n: value.shape for n, value in found.items()} == {n: value.shape for n, value in expected.items()}
        assert_close_values(found, expected)


def assert_close_values(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    errors = {name: rel_l2(found[name], value) for name, value in expected.items()}
    assert not {name: error for name, error in errors.items() if not error <= LIMIT}


def pytorch_end_points(model: Any, images: Array) -> dict[str, Array]:
    """NHWC, by name."""
    import torch

    with torch.no_grad():
        _, end_points = model.end_points(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    return {name: mapping.nhwc(tensor.numpy()) for name, tensor in end_points.items()}


def pytorch_port(case: Judged) -> Any:
    from slimport.pytorch import Network

    model = Network(Described(case.graph)).double()  # type: ignore[arg-type]
    model.load_state_dict(models.state_dict(case.weights.items()))
    return model.eval()


def test_the_cases_have_every_word() -> None:
    from slimport.pytorch.layers import LAYERS

    ops = {node.op for definition in CASES.values() for node in recorded(definition).nodes} - {"input"}
    assert ops == LAYERS.keys()


@pytest.mark.parametrize("case", CASES)
def test_variables_are_those_that_slim_makes(case: str) -> None:
    assert list(recorded(CASES[case]).variables.items()) == list(judged(case, False).variables.items())


@pytest.mark.parametrize("case", CASES)
def test_maps_have_the_channels_that_the_recording_says(case: str) -> None:
    names = recorded(CASES[case]).end_point_names("net")
    channels = {name: recorded(CASES[case]).nodes[point.node].channels for name, point in names.items()}
    for end_points in judged(case, False).end_points:
        assert {name: value.shape[-1] for name, value in end_points.items()} == channels


@pytest.mark.parametrize("case", CASES)
def test_pytorch_computes_what_slim_computes(case: str) -> None:
    model = pytorch_port(judged(case, False))
    assert_close(judged(case, False), (pytorch_end_points(model, images) for images in judged(case, False).images))


def test_pytorch_trains_batch_norm_as_slim_does() -> None:
    from slimport.pytorch import training

    case = judged("normalizers", True)
    model = pytorch_port(case).train()
    # TensorFlow's unfused BatchNorm, the only one in float64, takes the biased variance.
    training.set_moving_variance(model, "biased")
    found = [pytorch_end_points(model, case.images[0])]
    averages = dict(models.pytorch_variables(model))
    found += [pytorch_end_points(model, images) for images in case.images[1:]]
    assert_close(case, found)
    assert_close_values(averages, case.averages)


def initialized(net: Tensor) -> Tensor:
    """Kernels of every kind, with every initializer, large enough for statistics."""
    initializers = {"xavier": graph.XAVIER, "variance_scaling": graph.VARIANCE_SCALING, "he": graph.HE}
    for name, initializer in {**initializers, "truncated_normal": ("truncated_normal", 0.03)}.items():
        with scope(name), arg_scope(LAYERS_WITH_KERNELS, initializer=initializer):
            wide = conv2d(net, 64, 5, biases_initializer=0.5, scope="conv")
            conv2d_transpose(wide, 96, 3, scope="transposed")
            separable_conv2d(wide, 96, 7, 2, scope="separable")
            last = fully_connected(squeeze(mean(wide, scope="mean"), scope="squeeze"), 96, scope="fc")
    return last


def test_pytorch_initializes_kernels_as_slim_does() -> None:
    frameworks.require("slimport.nets")
    import tensorflow.compat.v1 as tf
    import torch

    from slimport.nets import interpreter
    from slimport.pytorch import Network, training

    found = record(initialized, in_channels=48)
    with tf.Graph().as_default(), building_graphs(), tf.Session() as session:
        tf.set_random_seed(0)
        interpreter.run(found, tf.zeros((1, 8, 8, 48)), "net", scope="")
        session.run(tf.global_variables_initializer())
        expected = session.run({v.op.name: v for v in tf.global_variables()})
    model = Network(Described(found))  # type: ignore[arg-type]
    training.initialize(model, torch.Generator().manual_seed(0))
    values = dict(models.pytorch_variables(model))
    for name, value in expected.items():
        if name.endswith("biases"):
            np.testing.assert_array_equal(values[name], value)
        else:
            np.testing.assert_allclose(spread(values[name]), spread(value), rtol=0.05, err_msg=name)


def spread(kernel: Array) -> list[float]:
    """Its standard deviation, and how large all but a hundredth of it is at most, which tells distributions apart."""
    return [kernel.std(), np.quantile(np.abs(kernel), 0.99)]


@pytest.mark.parametrize("case", [case for case in CASES if case != "pad_channels"])
def test_keras_computes_what_slim_computes(case: str) -> None:
    found = [keras_end_points(judged(case, False), images) for images in judged(case, False).images]
    assert_close(judged(case, False), found)


def test_keras_says_which_word_it_lacks() -> None:
    case = judged("pad_channels", False)
    with pytest.raises(ValueError, match="channels_3: Keras has no stock layer for pad_channels"):
        keras_end_points(case, case.images[0])


def keras_end_points(case: Judged, images: Array) -> dict[str, Array]:
    """By name, from the port for images of this size."""
    keras = frameworks.require("keras")
    from slimport.keras.end_points import variables
    from slimport.keras.network import Interpreter

    inputs = keras.Input(images.shape[1:], dtype="float64")
    interpreter = Interpreter(case.graph, "float64", {0: inputs})
    points = case.graph.end_point_names("net").items()
    model = keras.Model(inputs, {name: interpreter.value(point.node) for name, point in points})
    weights = variables(model)
    assert weights.keys() == case.weights.keys()
    for name, value in case.weights.items():
        weights[name].assign(value)
    return {name: np.asarray(net) for name, net in model(images, training=False).items()}


@pytest.mark.parametrize("case", CASES)
def test_a_json_file_holds_the_whole_graph(case: str) -> None:
    found = recorded(CASES[case])
    assert Graph.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_json_file_holds_the_graph_of_every_network(name: str) -> None:
    found = networks.NETWORKS[name].graph()
    assert Graph.from_json(found.to_json()) == found
    read = Graph.from_json(json.loads(json.dumps(found.to_json())))
    assert read == found
    assert read.variables == found.variables


@pytest.mark.parametrize("without", ["nodes", "end_points", "parts", "output"])
def test_json_that_lacks_something_is_refused(without: str) -> None:
    data = recorded(CASES["flatten"]).to_json()
    del data[without]
    with pytest.raises(ValueError, match="not the graph of a network"):
        Graph.from_json(data)
