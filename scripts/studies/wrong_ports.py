"""Ports of ResNet v2 that are wrong in the ways in which people get them wrong, each with where it begins.

Each is slimport's PyTorch port with one thing changed: its weights, its description, layers of its graph, or modules.
Where a difference begins follows from the graph and from what was changed, never from a comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from converters.formats import models
from slimport.graph import Graph, Node
from slimport.networks import Block, ResNetV2

Weights = Mapping[str, Any]
Edit = Callable[[Graph, Node], Node]
"""From a graph and one of its layers to another layer in its place."""
DENSE = {"output_stride": 4, "global_pool": False, "spatial_squeeze": False}


@dataclass(frozen=True)
class Edited(ResNetV2):
    """A ResNet v2 with other layers in its graph."""

    edit: Edit = lambda _, node: node

    def graph(self, **arguments: Any) -> Graph:
        graph = super().graph(**arguments)
        return replace(graph, nodes=tuple(self.edit(graph, node) for node in graph.nodes))


@dataclass(frozen=True)
class WrongPort:
    """One mistake.

    name: what is wrong.
    how: how people get there.
    weights: changes the variables, by slim's names and in slim's layouts.
    network: changes the description.
    layer: changes a layer of the graph.
    modules: change the modules of layers, whose scopes match a pattern.
    arguments: under which it shows, of slim and of the port.
    ignored: the arguments that the port does not get.
    odd: whether it shows where every map has odd sides, as from images of a multiple of 32, plus 1.
    float32: whether it is beyond the limit in float32 too.
    """

    name: str
    how: str
    weights: Callable[[Weights], Weights] = lambda weights: weights
    network: Callable[[ResNetV2], ResNetV2] = lambda network: network
    layer: Edit = lambda _, node: node
    modules: Mapping[str, Callable[[Any], nn.Module]] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    odd: bool = True
    float32: bool = True

    def build(self, network: ResNetV2, weights: Weights, scope: str) -> Any:
        """The wrong port with these weights in."""
        described, arguments = self._described(network)
        variables = self.weights(weights)
        used = [(name, variables[name]) for name in described.variables()]
        model = models.pytorch_port(described, used, scope=scope, **arguments)
        for node in model.graph.nodes:
            for change in self._changes(node):
                parent, _, name = node.scope.replace("/", ".").rpartition(".")
                part = model.get_submodule(parent)
                setattr(part, name, change(getattr(part, name)))
        return model

    def first_end_point(self, network: ResNetV2, weights: Weights, scope: str) -> str:
        """The first end point, by slim's name, that depends on a layer which was changed."""
        right = network.graph(**self.arguments)
        described, arguments = self._described(network)
        was, now = by_scope(right), by_scope(described.graph(**arguments))
        variables = self.weights(weights)
        touched: set[int] = set()
        for index, node in enumerate(right.nodes):
            if (
                not touched.isdisjoint(node.inputs)
                or was[node.scope] != now.get(node.scope)
                or any(not np.array_equal(weights[name], variables[name]) for name, _ in right.variables_of(node))
                or any(self._changes(node))
            ):
                touched.add(index)
        return next(name for name, point in right.end_point_names(scope).items() if point.node in touched)

    def _described(self, network: ResNetV2) -> tuple[ResNetV2, dict[str, Any]]:
        """The description of the wrong port, and the arguments that it gets."""
        arguments = {name: value for name, value in self.arguments.items() if name not in self.ignored}
        return Edited(**vars(self.network(network)), edit=self.layer), arguments

    def _changes(self, node: Node) -> Iterator[Callable[[Any], nn.Module]]:
        return (change for pattern, change in self.modules.items() if fnmatchcase(node.scope, pattern))


def by_scope(graph: Graph) -> dict[str, Any]:
    """What each layer computes, and of which layers, by its scope."""
    return {
        node.scope: (node.op, node.channels, node.attributes, [graph.nodes[index].scope for index in node.inputs])
        for node in graph.nodes
    }


# Changes of weights


def each(changes: Mapping[str, Callable[[Any], Any]]) -> Callable[[Weights], Weights]:
    """Changes every variable whose name matches a pattern."""

    def change(name: str, array: Any) -> Any:
        for pattern, changed in changes.items():
            array = changed(array) if fnmatchcase(name, pattern) else array
        return array

    return lambda weights: {name: change(name, array) for name, array in weights.items()}


def swapped(one: str, other: str) -> Callable[[Weights], Weights]:
    """Two variables of each scope, the one as the other."""
    leaves = {one: other, other: one}

    def swap(weights: Weights) -> Weights:
        split = {name: name.rpartition("/") for name in weights}
        return {name: weights[f"{scope}/{leaves.get(leaf, leaf)}"] for name, (scope, _, leaf) in split.items()}

    return swap


def transposed_where_square(kernel: Any) -> Any:
    return kernel.transpose(0, 1, 3, 2) if kernel.shape[2] == kernel.shape[3] else kernel


def reshaped(kernel: Any) -> Any:
    """The bytes of an HWIO kernel read as OIHW, in HWIO."""
    return kernel.reshape(kernel.shape[::-1][:2] + kernel.shape[:2]).transpose(2, 3, 1, 0)


# Changes of the description


def stride_first(network: ResNetV2) -> ResNetV2:
    """Every block's stride in its first unit."""

    def moved(block: Block) -> Block:
        strides = [unit.stride for unit in block.units][::-1]
        units = (replace(unit, stride=stride) for unit, stride in zip(block.units, strides, strict=True))
        return replace(block, units=tuple(units))

    return replace(network, blocks=tuple(map(moved, network.blocks)))


def without_background(network: ResNetV2) -> ResNetV2:
    return replace(network, num_classes=(network.num_classes or 0) - 1)


# Changes of a layer


def with_attributes(node: Node, **attributes: Any) -> Node:
    return replace(node, attributes={**node.attributes, **attributes})


def layers(pattern: str, op: str | None = None, to: str | None = None, **attributes: Any) -> Edit:
    """Other attributes, or another op, for the layers whose scopes match a pattern."""

    def edit(_: Graph, node: Node) -> Node:
        found = fnmatchcase(node.scope, pattern) and op in (None, node.op)
        return replace(with_attributes(node, **attributes), op=to or node.op) if found else node

    return edit


def batch_norms(**settings: Any) -> Edit:
    """Other settings for every BatchNorm."""

    def edit(_: Graph, node: Node) -> Node:
        if node.op == "batch_norm":
            return with_attributes(node, **settings)
        return with_attributes(node, normalizer={**node.normalizer, **settings}) if node.normalizer else node

    return edit


def stride_in_conv1(graph: Graph, node: Node) -> Node:
    unit, _, name = node.scope.rpartition("/")
    if unit and name == "conv1":
        conv2 = next(other for other in graph.nodes if other.scope == f"{unit}/conv2")
        return with_attributes(node, strides=conv2.attributes["strides"])
    return with_attributes(node, strides=(1, 1)) if name == "conv2" else node


def projection_of_input(graph: Graph, node: Node) -> Node:
    projects = node.op == "conv2d" and node.scope.endswith("/shortcut")
    return replace(node, inputs=graph.nodes[node.inputs[0]].inputs) if projects else node


def identity_of_preactivation(graph: Graph, node: Node) -> Node:
    """Whatever takes a unit's input takes its preactivation."""
    preacts = {other.inputs[0]: index for index, other in enumerate(graph.nodes) if other.scope.endswith("/preact")}
    if node.scope.endswith("/preact"):
        return node
    return replace(node, inputs=tuple(preacts.get(index, index) for index in node.inputs))


def rates_early(graph: Graph, node: Node) -> Node:
    """Each unit at the rate of the next one."""
    units = [other for other in graph.nodes if other.scope.endswith("/conv2")]
    rates = {one.scope: following.attributes["rate"] for one, following in pairwise(units)}
    return with_attributes(node, rate=rates[node.scope]) if node.scope in rates else node


# Modules


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(inputs)


def reshape_images(images: Tensor) -> Tensor:
    """The bytes of NHWC images read as NCHW."""
    return images.permute(0, 2, 3, 1).reshape(images.shape)


def pad_with_zeros(inputs: Tensor) -> Tensor:
    height, width = inputs.shape[2:]
    return F.pad(inputs, (width % 2, 1, height % 2, 1))


WRONG_PORTS = (
    WrongPort(
        "images reshaped to NCHW, not transposed",
        "`images.reshape(n, 3, h, w)`",
        modules={"conv1": lambda conv1: nn.Sequential(Lambda(reshape_images), conv1)},
    ),
    WrongPort(
        "RGB and BGR swapped",
        "a network that took images from OpenCV",
        weights=each({"conv1/weights": lambda kernel: kernel[:, :, ::-1]}),
    ),
    WrongPort(
        "kernels reshaped to OIHW, not transposed",
        "`weights.reshape(module.weight.shape)`",
        weights=each({"*weights": reshaped}),
    ),
    WrongPort(
        "height and width of kernels swapped",
        "`transpose()` of all axes, OIWH",
        weights=each({"*weights": lambda kernel: kernel.transpose(1, 0, 2, 3)}),
    ),
    WrongPort(
        "kernels flipped",
        "convolution as mathematics has it, or a Theano habit",
        weights=each({"*weights": lambda kernel: kernel[::-1, ::-1]}),
    ),
    WrongPort(
        "input and output channels swapped where both are as many",
        "a transposition found by trying until the shapes fit",
        weights=each({"*weights": transposed_where_square}),
    ),
    WrongPort(
        "weights rounded to float16",
        "a file saved in half precision to make it small",
        weights=each({"*": lambda array: array.astype(np.float16).astype(array.dtype)}),
    ),
    WrongPort(
        "conv1 padded as TensorFlow's SAME",
        "`conv2d_same` taken for SAME: pads (2, 3) on even sides",
        layer=layers("conv1", padding="SAME"),
        odd=False,
    ),
    WrongPort("conv1 with ReLU", "the root of ResNet v1", layer=layers("conv1", activation="relu")),
    WrongPort(
        "pool1 padded alike on both sides",
        "`MaxPool2d(3, 2, padding=1)`, what SAME is taken for",
        modules={"pool1": lambda _: nn.MaxPool2d(3, 2, padding=1)},
        odd=False,
    ),
    WrongPort(
        "pool1 padded with zeros",
        "`ZeroPadding2D` or `F.pad` before the pool, as in keras.applications; nothing has made conv1 positive",
        modules={"pool1": lambda _: nn.Sequential(Lambda(pad_with_zeros), nn.MaxPool2d(3, 2))},
    ),
    WrongPort(
        "pool1 without padding",
        "the VALID of the code that accompanies arXiv:1512.03385",
        layer=layers("pool1", padding="VALID"),
    ),
    WrongPort("stride in the first unit of a block", "timm, torchvision and the paper", network=stride_first),
    WrongPort("stride in the 1x1 convolution of a unit", "the first ResNets, in Caffe", layer=stride_in_conv1),
    WrongPort(
        "strided conv2 padded as TensorFlow's SAME",
        "`conv2d_same` taken for SAME: pads (0, 1) on even sides",
        layer=layers("*/conv2", padding="SAME"),
        odd=False,
    ),
    WrongPort(
        "identity shortcut subsampled by an average pool",
        "ResNet-D",
        layer=layers("*/shortcut", "max_pool2d", to="avg_pool2d", kernel_size=(2, 2)),
    ),
    WrongPort(
        "identity shortcut subsampled by a 2x2 max pool",
        "slim's `max_pool2d(inputs, [1, 1], stride=factor)` read in haste",
        layer=layers("*/shortcut", "max_pool2d", kernel_size=(2, 2)),
    ),
    WrongPort(
        "projection taken from the input, not from the preactivation",
        "the shortcut of ResNet v1",
        layer=projection_of_input,
    ),
    WrongPort(
        "identity shortcut taken from the preactivation",
        "one rule for both kinds of shortcut",
        layer=identity_of_preactivation,
    ),
    WrongPort("ReLU after the addition", "the unit of ResNet v1", layer=layers("*", "add", activation="relu")),
    WrongPort(
        "no bias in the projections",
        "`bias=False`, as every other ResNet has it",
        layer=layers("*/shortcut", "conv2d", biases=False),
    ),
    WrongPort("no bias in conv3", "`bias=False`, as every other ResNet has it", layer=layers("*/conv3", biases=False)),
    WrongPort("epsilon 1e-3", "the default of Keras and of slim.batch_norm", layer=batch_norms(epsilon=1e-3)),
    WrongPort("epsilon 1.001e-5", "keras.applications", layer=batch_norms(epsilon=1.001e-5), float32=False),
    WrongPort("gamma and beta swapped", "both have one number for each channel", weights=swapped("gamma", "beta")),
    WrongPort(
        "gamma left out",
        "slim.batch_norm's default `scale=False`, which `resnet_arg_scope` overrides",
        layer=batch_norms(scale=False),
    ),
    WrongPort(
        "moving mean and moving variance swapped",
        "both have one number for each channel",
        weights=swapped("moving_mean", "moving_variance"),
    ),
    WrongPort(
        "moving averages not converted",
        "`load_state_dict(strict=False)`, or only the trainable variables",
        weights=each({"*/moving_mean": np.zeros_like, "*/moving_variance": np.ones_like}),
    ),
    WrongPort(
        "BatchNorm in training mode",
        "no `model.eval()`",
        modules=dict.fromkeys(("*/preact", "*/conv1", "*/conv2", "postnorm"), nn.Module.train),
    ),
    WrongPort("no postnorm", "ResNet v1 has none", modules={"postnorm": nn.Identity}),
    WrongPort("postnorm without ReLU", "`BatchNorm` alone", layer=layers("postnorm", activation=None)),
    WrongPort(
        "global pool before postnorm",
        "the order of ResNet v1",
        modules={"postnorm": lambda postnorm: nn.Sequential(nn.AdaptiveAvgPool2d(1), postnorm)},
    ),
    WrongPort(
        "global max pool",
        "slim's name of the operation is `pool5`",
        modules={"global_pool": lambda _: nn.AdaptiveMaxPool2d(1)},
    ),
    WrongPort(
        "background class dropped",
        "1000 classes, as others have",
        network=without_background,
        weights=each({"logits/*": lambda array: array[..., 1:]}),
    ),
    WrongPort(
        "background class moved to the end",
        "labels that begin with 0",
        weights=each({"logits/*": partial(np.roll, shift=-1, axis=-1)}),
    ),
    WrongPort(
        "output stride ignored",
        "a network for classification, run densely",
        arguments=DENSE,
        ignored=("output_stride",),
    ),
    WrongPort(
        "strides left out, and no atrous rates in their stead",
        "`stride=1`, and nothing else",
        layer=layers("*/conv2", rate=(1, 1)),
        arguments=DENSE,
    ),
    WrongPort(
        "atrous rate applied one unit early",
        "the unit that would have strided, already dilated",
        layer=rates_early,
        arguments=DENSE,
    ),
)
"""In the order in which they show in a network."""
