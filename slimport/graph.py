"""A network as one graph of slim's layers, recorded while its definition runs. No framework is imported.

A definition is a function in slim's own words, from symbolic images to a symbolic output:

    def definition(images: Tensor) -> Tensor:
        with arg_scope([conv2d], normalizer=batch_norm):
            net = conv2d(images, 64, 7, stride=2, scope="conv1")
            with scope("block1"):
                residual = conv2d(net, 64, 3, scope="conv2")
                net = end_point(add(net, residual))
        return mean(net, scope="global_pool")

    graph = record(definition, in_channels=3)

Layers have slim's names, arguments and defaults (`tf_slim/layers/layers.py`), kernels are HWIO, and maps have channels
but no height and width: a graph is run on images of any size. `arg_scope` changes defaults as slim's does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from functools import cached_property, wraps
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec

P = ParamSpec("P")
Shape = tuple[int, ...]
Sides = tuple[int, int]
"""Of height and width."""
Padding = Literal["SAME", "VALID"] | tuple[Sides, Sides]
"""TensorFlow's, or the zeros before and after the height and the width."""
Initializer = tuple[str, float] | tuple[str]

XAVIER: Initializer = ("xavier",)
VARIANCE_SCALING: Initializer = ("variance_scaling",)
HE: Initializer = ("he",)
"""Normal numbers of variance 2 / n, n the number of inputs of an output: arXiv:1502.01852."""
VARIABLE_LEAVES = (
    "weights",
    "depthwise_weights",
    "pointwise_weights",
    "biases",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
)
ACTIVATIONS = {
    "relu": "Relu",
    "relu6": "Relu6",
    "leaky_relu": "LeakyRelu",
    "elu": "Elu",
    "selu": "Selu",
    "softplus": "Softplus",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "swish": "Swish",
    "hard_sigmoid": "HardSigmoid",
    "hard_swish": "HardSwish",
}
"""The name that an activation has under its layer's scope, which is that of TensorFlow's op where there is one."""


@dataclass(frozen=True)
class Node:
    """One layer of a graph.

    op: the name of the function here that recorded it, or `input` for the images.
    inputs: the nodes that it takes, by their numbers in the graph.
    scope: its scope relative to the model's. What has no scope of its own (`add`, `concat`) has that in which it is.
    channels: the size of its output's last axis.
    stride: the sides of the images over those of its map; None where there is no map any more.
    attributes: everything else that decides on what it computes, as JSON values, with tuples for lists.
    """

    op: str
    inputs: tuple[int, ...]
    scope: str
    channels: int
    stride: Sides | None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def normalizer(self) -> Mapping[str, Any] | None:
        """The `epsilon`, `decay`, `scale` and `center` of the layer's BatchNorm, or of the layer that is one."""
        return self.attributes if self.op == "batch_norm" else self.attributes.get("normalizer")

    @property
    def activation(self) -> str | None:
        """The name of the activation behind the layer, a key of `ACTIVATIONS`."""
        return self.attributes.get("activation")


class EndPoint(NamedTuple):
    """A name in slim's `end_points`.

    scoped: whether slim puts the model's scope before it.
    """

    name: str
    node: int
    scoped: bool


@dataclass(frozen=True)
class Graph:
    """A recorded network.

    nodes: in the order in which they were recorded, which is one in which they can run; the first is the images.
    end_points: in slim's order.
    parts: the scopes that the definition opened, each before those within it.
    output: the node whose value is the network's.
    features: the node of the last map, which the head of the network takes; None where no one said so.
    classifier: the scope of the layer that makes the logits.
    """

    nodes: tuple[Node, ...]
    end_points: tuple[EndPoint, ...]
    parts: tuple[str, ...]
    output: int
    features: int | None = None
    classifier: str | None = None

    @cached_property
    def variables(self) -> dict[str, Shape]:
        """Every model variable with its shape (kernels HWIO), in the order in which slim creates them."""
        return {name: shape for node in self.nodes for name, shape in self.variables_of(node)}

    def variables_of(self, node: Node) -> Iterator[tuple[str, Shape]]:
        """The variables of one layer: its kernel, its biases and those of its BatchNorm."""
        depth_in = self.nodes[node.inputs[0]].channels if node.inputs else 0
        kernel, depth = node.attributes.get("kernel_size", ()), node.channels
        if node.op == "conv2d":
            yield f"{node.scope}/weights", (*kernel, depth_in, depth)
        elif node.op == "conv2d_transpose":
            yield f"{node.scope}/weights", (*kernel, depth, depth_in)
        elif node.op == "separable_conv2d":
            multiplier = node.attributes["depth_multiplier"]
            yield f"{node.scope}/depthwise_weights", (*kernel, depth_in, multiplier)
            if node.attributes["pointwise"]:
                yield f"{node.scope}/pointwise_weights", (1, 1, depth_in * multiplier, depth)
        elif node.op == "fully_connected":
            yield f"{node.scope}/weights", (depth_in, depth)
        if node.attributes.get("biases"):
            yield f"{node.scope}/biases", (depth,)
        if (norm := node.normalizer) is not None:
            scope = node.scope if node.op == "batch_norm" else f"{node.scope}/BatchNorm"
            leaves = {"gamma": norm["scale"], "beta": norm["center"], "moving_mean": True, "moving_variance": True}
            for leaf in (leaf for leaf, there in leaves.items() if there):
                yield f"{scope}/{leaf}", (depth,)

    def end_point_names(self, scope: str) -> dict[str, EndPoint]:
        """The end points by the names that slim gives them where the network is under `scope`."""
        return {scoped(scope, point.name) if point.scoped else point.name: point for point in self.end_points}

    def depth_in(self, scope: str) -> int:
        """The channels that the layer of a scope takes."""
        return next(self.nodes[node.inputs[0]].channels for node in self.nodes if node.scope == scope)

    def needed_by(self, index: int) -> frozenset[int]:
        """The nodes that a node's value depends on, itself included."""
        needed: set[int] = set()
        pending = [index]
        while pending:
            if (index := pending.pop()) not in needed:
                needed.add(index)
                pending.extend(self.nodes[index].inputs)
        return frozenset(needed)

    @cached_property
    def needed(self) -> frozenset[int]:
        """The nodes that the output depends on, itself included."""
        return self.needed_by(self.output)

    @cached_property
    def branches(self) -> tuple[int, ...]:
        """The last nodes of what has variables and the output does not need: auxiliary heads."""
        taken = {index for node in self.nodes for index in node.inputs}
        ends = (index for index in range(len(self.nodes)) if index not in taken and index not in self.needed)
        own = ((end, self.needed_by(end) - self.needed) for end in ends)
        return tuple(end for end, nodes in own if any(any(self.variables_of(self.nodes[i])) for i in nodes))

    def to_json(self) -> dict[str, Any]:
        """The graph as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Graph:
        """The inverse of `to_json`, of what a JSON file made of it too.

        Raises:
          ValueError: something is missing, or of another kind.
        """
        try:
            nodes = tuple(
                Node(**{**node, "attributes": _tuples(node["attributes"])}) for node in _tuples(data["nodes"])
            )
            end_points = tuple(EndPoint(*point) for point in data["end_points"])
            return cls(**{**data, "nodes": nodes, "end_points": end_points, "parts": tuple(data["parts"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the graph of a network: {error!r}") from error


def scoped(scope: str, name: str) -> str:
    """`name` under `scope`; an empty scope adds nothing."""
    return f"{scope}/{name}" if scope else name


def _tuples(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_tuples, value))
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, dict) else value


@dataclass(frozen=True)
class Tensor:
    """The symbolic output of a node, [batch, height, width, channels] while there is a map."""

    index: int
    node: Node

    @property
    def channels(self) -> int:
        return self.node.channels


class _Recorder:
    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.end_points: dict[str, EndPoint] = {}
        self.parts: dict[str, None] = {}
        self.scope = ""
        self.defaults: Mapping[str, Mapping[str, Any]] = {}
        self.features: int | None = None
        self.scopes: set[str] = set()

    def add(self, node: Node) -> Tensor:
        if node.scope in self.scopes:
            raise ValueError(f"two layers under the scope {node.scope!r}: one needs another scope")
        self.scopes.add(node.scope)
        self.nodes.append(node)
        return Tensor(len(self.nodes) - 1, node)


_recording: ContextVar[_Recorder] = ContextVar("recording")


def record(definition: Callable[[Tensor], Tensor], in_channels: int, classifier: str | None = None) -> Graph:
    """The graph of a definition.

    Args:
      definition: from the images to the network's output, in the words of this module.
      in_channels: of the images.
      classifier: the scope of the layer that makes the logits.

    Raises:
      ValueError: two layers have one scope, or an argument is not one that slim takes.
    """
    recorder = _Recorder()
    token = _recording.set(recorder)
    try:
        output = definition(recorder.add(Node("input", (), "", in_channels, (1, 1))))
    finally:
        _recording.reset(token)
    return Graph(
        nodes=tuple(recorder.nodes),
        end_points=tuple(recorder.end_points.values()),
        parts=tuple(recorder.parts),
        output=output.index,
        features=recorder.features,
        classifier=classifier,
    )


@contextmanager
def scope(name: str) -> Iterator[None]:
    """A part of the network: layers within have its name before their scopes (`tf.variable_scope`)."""
    recorder = _recording.get()
    outside = recorder.scope
    recorder.scope = scoped(outside, name)
    components = recorder.scope.split("/")
    recorder.parts.update(dict.fromkeys("/".join(components[:end]) for end in range(1, len(components) + 1)))
    try:
        yield
    finally:
        recorder.scope = outside


@contextmanager
def arg_scope(functions: Sequence[Callable[..., Tensor]], **defaults: Any) -> Iterator[None]:
    """Other defaults for arguments of layers (`slim.arg_scope`).

    Raises:
      ValueError: a layer has no such argument.
    """
    recorder = _recording.get()
    outside = recorder.defaults
    recorder.defaults = dict(outside)
    for function in functions:
        if unknown := defaults.keys() - inspect.signature(function).parameters.keys():
            raise ValueError(f"{function.__name__} has no argument {sorted(unknown)[0]}")
        recorder.defaults[function.__name__] = {**outside.get(function.__name__, {}), **defaults}
    try:
        yield
    finally:
        recorder.defaults = outside


def end_point(net: Tensor, name: str | None = None, *, scoped: bool = True) -> Tensor:
    """Adds a tensor to slim's end points.

    Args:
      net: the tensor, which is returned.
      name: relative to the model's scope; None is the scope that is open.
      scoped: whether slim puts the model's scope before the name.
    """
    recorder = _recording.get()
    name = recorder.scope if name is None else name
    recorder.end_points[name] = EndPoint(name, net.index, scoped)
    return net


def features(net: Tensor) -> Tensor:
    """Says that a tensor is the last map, which the head of the network takes."""
    _recording.get().features = net.index
    return net


def _layer(function: Callable[Concatenate[Tensor, P], Tensor]) -> Callable[Concatenate[Tensor, P], Tensor]:
    """Gives a layer the defaults of `arg_scope`."""
    signature = inspect.signature(function)

    @wraps(function)
    def with_defaults(inputs: Tensor, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        given = signature.bind_partial(inputs, *args, **kwargs).arguments
        defaults = _recording.get().defaults.get(function.__name__, {})
        return function(**{**defaults, **given})  # type: ignore[call-arg]

    return with_defaults  # type: ignore[return-value]


def _add(
    op: str,
    inputs: Sequence[Tensor],
    scope: str | None,
    *,
    channels: int | None = None,
    stride: Sides | None = (1, 1),
    up: Sides = (1, 1),
    collect: bool = False,
    **attributes: Any,
) -> Tensor:
    """Records a node; `stride` None ends the map, `up` enlarges it."""
    recorder = _recording.get()
    first = inputs[0].node
    if (name := attributes.get("activation")) not in (None, *ACTIVATIONS):
        raise ValueError(f"no activation is named {name!r}; there are {', '.join(ACTIVATIONS)}")
    reached = None
    # A gate, which is no map, may come before the map that it multiplies.
    before = next((tensor.node.stride for tensor in inputs if tensor.node.stride is not None), None)
    if stride is not None and before is not None:
        height, width = (max(1, s * by // up_by) for s, by, up_by in zip(before, stride, up, strict=True))
        reached = height, width
    where = recorder.scope if scope is None else scoped(recorder.scope, scope)
    channels = first.channels if channels is None else channels
    net = recorder.add(Node(op, tuple(tensor.index for tensor in inputs), where, channels, reached, attributes))
    return end_point(net, where) if collect else net


def _pair(value: int | Sides) -> Sides:
    return (value, value) if isinstance(value, int) else value


def _normalized(
    normalizer: Callable[..., Tensor] | None, biases: bool | None
) -> dict[Literal["normalizer", "biases"], Any]:
    """A layer's BatchNorm with the settings of the `arg_scope`; where there is one, slim leaves the biases out."""
    if normalizer not in (None, batch_norm):
        raise ValueError("a layer's normalizer is batch_norm or None")
    settings = _recording.get().defaults.get("batch_norm", {})
    params = {key: settings.get(key, default) for key, default in _BATCH_NORM.items()} if normalizer else None
    return {"normalizer": params, "biases": normalizer is None if biases is None else biases}


@_layer
def conv2d(
    inputs: Tensor,
    num_outputs: int,
    kernel_size: int | Sides,
    stride: int | Sides = 1,
    padding: Padding = "SAME",
    rate: int | Sides = 1,
    *,
    activation: str | None = "relu",
    normalizer: Callable[..., Tensor] | None = None,
    biases: bool | None = None,
    initializer: Initializer = XAVIER,
    biases_initializer: float = 0.0,
    collect: bool = False,
    scope: str,
) -> Tensor:
    """`slim.conv2d`: a convolution, its biases or its BatchNorm, its activation.

    Args:
      biases: whether there are some; None is slim's rule, that a normalizer takes their place.
      initializer: of the kernel: `XAVIER`, `VARIANCE_SCALING`, `HE` or `("truncated_normal", standard deviation)`.
      biases_initializer: what each of the biases is at the start.
      collect: whether the output is an end point, by the layer's scope (slim's `outputs_collections`).
    """
    return _add(
        "conv2d",
        [inputs],
        scope,
        channels=num_outputs,
        stride=_pair(stride),
        collect=collect,
        kernel_size=_pair(kernel_size),
        strides=_pair(stride),
        padding=padding,
        rate=_pair(rate),
        activation=activation,
        initializer=initializer,
        biases_initializer=biases_initializer,
        **_normalized(normalizer, biases),
    )


def conv2d_same(
    inputs: Tensor,
    num_outputs: int,
    kernel_size: int,
    stride: int,
    rate: int = 1,
    *,
    scope: str,
    **settings: Any,
) -> Tensor:
    """`resnet_utils.conv2d_same`: a strided convolution that equals the unstrided SAME one, subsampled.

    TensorFlow's own strided SAME convolution pads an even side at its end only, and so reads other pixels.

    Args:
      settings: the other arguments of `conv2d`.
    """
    total = rate * (kernel_size - 1)
    side = total // 2, total - total // 2
    padding: Padding = "SAME" if stride == 1 else (side, side)
    return conv2d(inputs, num_outputs, kernel_size, stride, padding, rate, scope=scope, **settings)


@_layer
def separable_conv2d(
    inputs: Tensor,
    num_outputs: int | None,
    kernel_size: int | Sides,
    depth_multiplier: int = 1,
    stride: int | Sides = 1,
    padding: Padding = "SAME",
    rate: int | Sides = 1,
    *,
    activation: str | None = "relu",
    normalizer: Callable[..., Tensor] | None = None,
    biases: bool | None = None,
    initializer: Initializer = XAVIER,
    collect: bool = False,
    scope: str,
) -> Tensor:
    """`slim.separable_conv2d`: a depthwise convolution and a pointwise one.

    Without the latter where `num_outputs` is None. Channel c of the former is of input c // `depth_multiplier`. Other
    arguments as of `conv2d`.
    """
    return _add(
        "separable_conv2d",
        [inputs],
        scope,
        channels=num_outputs or inputs.channels * depth_multiplier,
        stride=_pair(stride),
        collect=collect,
        kernel_size=_pair(kernel_size),
        depth_multiplier=depth_multiplier,
        pointwise=num_outputs is not None,
        strides=_pair(stride),
        padding=padding,
        rate=_pair(rate),
        activation=activation,
        initializer=initializer,
        **_normalized(normalizer, biases),
    )


@_layer
def conv2d_transpose(
    inputs: Tensor,
    num_outputs: int,
    kernel_size: int | Sides,
    stride: int | Sides = 1,
    padding: Literal["SAME", "VALID"] = "SAME",
    *,
    activation: str | None = "relu",
    normalizer: Callable[..., Tensor] | None = None,
    biases: bool | None = None,
    initializer: Initializer = XAVIER,
    collect: bool = False,
    scope: str,
) -> Tensor:
    """`slim.conv2d_transpose`: the output's sides are the input's times `stride`, where padding is SAME.

    Arguments as of `conv2d`; the kernel is [height, width, out, in].
    """
    return _add(
        "conv2d_transpose",
        [inputs],
        scope,
        channels=num_outputs,
        up=_pair(stride),
        collect=collect,
        kernel_size=_pair(kernel_size),
        strides=_pair(stride),
        padding=padding,
        activation=activation,
        initializer=initializer,
        **_normalized(normalizer, biases),
    )


@_layer
def fully_connected(
    inputs: Tensor,
    num_outputs: int,
    *,
    activation: str | None = "relu",
    normalizer: Callable[..., Tensor] | None = None,
    biases: bool | None = None,
    initializer: Initializer = XAVIER,
    collect: bool = False,
    scope: str,
) -> Tensor:
    """`slim.fully_connected`, of [batch, channels]. Arguments as of `conv2d`."""
    return _add(
        "fully_connected",
        [inputs],
        scope,
        channels=num_outputs,
        stride=None,
        collect=collect,
        activation=activation,
        initializer=initializer,
        **_normalized(normalizer, biases),
    )


@_layer
def batch_norm(
    inputs: Tensor,
    decay: float = 0.999,
    center: bool = True,
    scale: bool = False,
    epsilon: float = 0.001,
    *,
    activation: str | None = None,
    collect: bool = False,
    scope: str,
) -> Tensor:
    """`slim.batch_norm`: `center` has a `beta`, `scale` a `gamma`."""
    return _add(
        "batch_norm",
        [inputs],
        scope,
        collect=collect,
        decay=decay,
        center=center,
        scale=scale,
        epsilon=epsilon,
        activation=activation,
    )


_BATCH_NORM = {
    name: parameter.default
    for name, parameter in inspect.signature(batch_norm).parameters.items()
    if name in ("decay", "center", "scale", "epsilon")
}


@_layer
def max_pool2d(
    inputs: Tensor,
    kernel_size: int | Sides,
    stride: int | Sides = 2,
    padding: Literal["SAME", "VALID"] = "VALID",
    *,
    collect: bool = False,
    scope: str,
) -> Tensor:
    """`slim.max_pool2d`."""
    return _add(
        "max_pool2d",
        [inputs],
        scope,
        stride=_pair(stride),
        collect=collect,
        kernel_size=_pair(kernel_size),
        strides=_pair(stride),
        padding=padding,
        clipped=False,
    )


@_layer
def avg_pool2d(
    inputs: Tensor,
    kernel_size: int | Sides,
    stride: int | Sides = 2,
    padding: Literal["SAME", "VALID"] = "VALID",
    *,
    clipped: bool = False,
    collect: bool = False,
    scope: str,
) -> Tensor:
    """`slim.avg_pool2d`; what SAME pads is not averaged.

    Args:
      clipped: whether the kernel shrinks to a map that is smaller (`_reduced_kernel_size_for_small_input` in slim).
    """
    if clipped and padding == "SAME":
        raise ValueError("a clipped average pool is VALID, as slim's are")
    return _add(
        "avg_pool2d",
        [inputs],
        scope,
        stride=_pair(stride),
        collect=collect,
        kernel_size=_pair(kernel_size),
        strides=_pair(stride),
        padding=padding,
        clipped=clipped,
    )


def subsample(inputs: Tensor, factor: int, *, scope: str) -> Tensor:
    """`resnet_utils.subsample`: every `factor`-th row and column; the input itself where the factor is 1."""
    return inputs if factor == 1 else max_pool2d(inputs, 1, factor, "SAME", scope=scope, collect=False)


@_layer
def dropout(inputs: Tensor, keep_prob: float = 0.5, *, scope: str) -> Tensor:
    """`slim.dropout`: in training, what is kept is divided by `keep_prob`."""
    return _add("dropout", [inputs], scope, keep_prob=keep_prob)


def add(*inputs: Tensor, activation: str | None = None, scope: str | None = None) -> Tensor:
    """The sum of tensors, as `tf.add_n`, and its activation."""
    return _add("add", inputs, scope, activation=activation)


def multiply(*inputs: Tensor, scope: str | None = None) -> Tensor:
    """The product of tensors, each of one size or 1 along an axis."""
    return _add("multiply", inputs, scope, channels=max(tensor.channels for tensor in inputs))


def scale(inputs: Tensor, factor: float, offset: float = 0.0, *, scope: str | None = None) -> Tensor:
    """`inputs * factor + offset`, of two numbers."""
    return _add("scale", [inputs], scope, factor=factor, offset=offset)


def concat(*inputs: Tensor, scope: str | None = None) -> Tensor:
    """`tf.concat` over the channels."""
    return _add("concat", inputs, scope, channels=sum(tensor.channels for tensor in inputs))


def pad_channels(inputs: Tensor, channels: int, *, scope: str) -> Tensor:
    """Channels of zeros behind the input's, to be `channels` in all: option A of arXiv:1512.03385, section 4.2."""
    return _add("pad_channels", [inputs], scope, channels=channels)


def mean(inputs: Tensor, *, scope: str) -> Tensor:
    """The mean over height and width, [batch, 1, 1, channels]."""
    return _add("mean", [inputs], scope, stride=None)


def squeeze(inputs: Tensor, *, scope: str, collect: bool = False) -> Tensor:
    """[batch, 1, 1, channels] to [batch, channels]."""
    return _add("squeeze", [inputs], scope, stride=None, collect=collect)


def flatten(inputs: Tensor, size: Sides, *, scope: str) -> Tensor:
    """`slim.flatten` of a map whose height and width are `size`: [batch, height * width * channels], channels last."""
    return _add("flatten", [inputs], scope, channels=inputs.channels * size[0] * size[1], stride=None)


def softmax(inputs: Tensor, *, scope: str) -> Tensor:
    """`slim.softmax`, over the channels."""
    return _add("softmax", [inputs], scope)


def activation(inputs: Tensor, function: str, *, scope: str | None = None) -> Tensor:
    """An activation by its name in `ACTIVATIONS`, as a layer of its own."""
    return _add("activation", [inputs], scope, activation=function)
