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
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec

from slimport.names import clean
from slimport.nodes import (
    ACTIVATIONS,
    FAN_OUT,
    HE,
    NORMALIZERS,
    VARIABLE_LEAVES,
    VARIANCE_SCALING,
    XAVIER,
    Activation,
    EndPoint,
    Graph,
    Initializer,
    Input,
    Node,
    Output,
    Padding,
    Shape,
    Sides,
    Source,
    scoped,
)
from slimport.sizes import Size

P = ParamSpec("P")

__all__ = [
    "ACTIVATIONS",
    "FAN_OUT",
    "HE",
    "NORMALIZERS",
    "VARIABLE_LEAVES",
    "VARIANCE_SCALING",
    "XAVIER",
    "Activation",
    "EndPoint",
    "Graph",
    "Initializer",
    "Input",
    "Node",
    "Output",
    "Padding",
    "Shape",
    "Sides",
    "Source",
    "Tensor",
    "activation",
    "add",
    "add_node",
    "arg_scope",
    "avg_pool2d",
    "batch_norm",
    "concat",
    "conv2d",
    "conv2d_same",
    "conv2d_transpose",
    "dropout",
    "embed",
    "end_point",
    "features",
    "flatten",
    "fully_connected",
    "l2_normalize",
    "max_pool2d",
    "mean",
    "multiply",
    "pad_channels",
    "record",
    "scale",
    "scope",
    "scoped",
    "separable_conv2d",
    "sharing",
    "softmax",
    "sourced",
    "squeeze",
    "subsample",
]


@dataclass(frozen=True)
class Tensor:
    """The symbolic output of a node, [batch, height, width, channels] while there is a map."""

    index: int
    node: Node

    @property
    def channels(self) -> int:
        """The size of the last axis."""
        return self.node.channels


_MOST_NODES = 50_000
"""Ten times those of the largest networks and more: a file may claim to be of more than memory holds."""


class _Recorder:
    """A recording. If `free`, any scope is accepted, and changed to a valid one that no other layer has."""

    def __init__(self, free: bool = False) -> None:
        self.nodes: list[Node] = []
        self.end_points: dict[str, EndPoint] = {}
        self.parts: dict[str, None] = {}
        self.scope = ""
        self.defaults: Mapping[str, Mapping[str, Any]] = {}
        self.features: int | None = None
        self.scopes: set[str] = set()
        self.free = free

    def add(self, node: Node) -> Tensor:
        if self.free and node.op != "input":
            node = self._placed(node)
        elif node.scope in self.scopes and node.op != "input":
            raise ValueError(f"two layers under the scope {node.scope!r}: one needs another scope")
        self.scopes.add(node.scope)
        return self.append(node)

    def append(self, node: Node) -> Tensor:
        if len(self.nodes) >= _MOST_NODES:
            raise ValueError(f"more than {_MOST_NODES} layers: there is no such network")
        self.nodes.append(node)
        return Tensor(len(self.nodes) - 1, node)

    def _placed(self, node: Node) -> Node:
        """The node under a scope that is valid, and free as those of its BatchNorm and its activation are."""
        followers = ["/BatchNorm"] if node.op not in NORMALIZERS and node.normalizer is not None else []
        followers += [f"/{ACTIVATIONS[node.activation]}"] if node.activation else []
        wanted, number = clean(node.scope) or node.op, 0
        found = wanted
        while any(name in self.scopes for name in (found, *(found + follower for follower in followers))):
            number += 1
            found = f"{wanted}_{number}"
        self.scopes.update(found + follower for follower in followers)
        if found == node.scope:
            return node
        return replace(node, scope=found, attributes={**node.attributes, "source_scope": node.scope})

    def graph(self, returned: Tensor | Mapping[str, Tensor], classifier: str | None) -> Graph:
        """The graph of what was recorded, and of what the definition returned."""
        named = returned if isinstance(returned, Mapping) else {}
        outputs = tuple(Output(name, tensor.index) for name, tensor in named.items())
        if self.free:
            paths = [node.scope.split("/") for node in self.nodes]
            prefixes = ("/".join(path[:end]) for path in paths for end in range(1, len(path)))
            self.parts = dict.fromkeys(prefix for prefix in prefixes if prefix not in self.scopes)
        return Graph(
            nodes=tuple(self.nodes),
            end_points=tuple(self.end_points.values()),
            parts=tuple(self.parts),
            output=outputs[0].node if isinstance(returned, Mapping) else returned.index,
            features=self.features,
            classifier=classifier,
            outputs=outputs,
        )


_recording: ContextVar[_Recorder] = ContextVar("recording")


def record(
    definition: Callable[..., Tensor | Mapping[str, Tensor]],
    in_channels: int = 0,
    classifier: str | None = None,
    *,
    inputs: Sequence[Input] = (),
    free: bool = False,
) -> Graph:
    """The graph of a definition.

    Args:
      definition: from the inputs to the network's output, or to its outputs by name, in the words of this module.
      in_channels: of the images, where there are no `inputs`.
      classifier: the scope of the layer that makes the logits.
      inputs: the inputs where they are not just images; the definition is called with one tensor for each.
      free: whether layers may have any scopes, as those of a user's graph have: they are changed to valid ones, each
        once, and where the variables come from is kept (`Graph.sources`). The parts follow from the scopes.

    Raises:
      ValueError: two layers have one scope, or an argument is not one that slim takes.
    """
    recorder = _Recorder(free)
    token = _recording.set(recorder)
    try:
        given = [recorder.add(_input(one)) for one in inputs] or [
            recorder.add(Node("input", (), "", in_channels, (1, 1)))
        ]
        returned = definition(*given)
    finally:
        _recording.reset(token)
    return recorder.graph(returned, classifier)


def _input(described: Input) -> Node:
    attributes = {"name": described.name, "shape": described.shape}
    channels = described.shape[-1] if len(described.shape) > 1 else 0
    return Node("input", (), "", channels or 0, (1, 1) if len(described.shape) == 4 else None, attributes)


def sourced(net: Tensor, sources: Mapping[str, Source]) -> Tensor:
    """Says where a layer's variables come from, by their leaves: `weights`, `BatchNorm/gamma`."""
    return _with_attribute(net, "source", {**net.node.attributes.get("source", {}), **sources})


def sharing(net: Tensor, scope: str) -> Tensor:
    """Says that a layer has the variables of another one, whose scope is given, and whose settings are the same."""
    return _with_attribute(net, "shares", scope)


def _with_attribute(net: Tensor, name: str, value: Any) -> Tensor:
    node = replace(net.node, attributes={**net.node.attributes, name: value})
    _recording.get().nodes[net.index] = node
    return Tensor(net.index, node)


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


def embed(part: Graph, images: Tensor, name: str) -> list[Tensor]:
    """Records another network's graph as a part of this one.

    Args:
      part: its graph; its end points become some of this one.
      images: what it takes.
      name: its scope.

    Returns:
      The tensors of its nodes.
    """
    recorder = _recording.get()
    with scope(name):
        where = recorder.scope
        recorder.parts.update(dict.fromkeys(scoped(where, path) for path in part.parts))
        tensors: list[Tensor] = []
        for node in part.nodes:
            if node.op == "input":
                tensors.append(images)
                continue
            inputs = tuple(tensors[index].index for index in node.inputs)
            shared = {"shares": scoped(where, node.attributes["shares"])} if "shares" in node.attributes else {}
            attributes = {**node.attributes, **shared}
            tensors.append(
                recorder.add(replace(node, inputs=inputs, scope=scoped(where, node.scope), attributes=attributes))
            )
        for point in part.end_points:
            own = scoped(where, point.name) if point.scoped else point.name
            end_point(tensors[point.node], own, scoped=point.scoped)
    return tensors


def _layer(function: Callable[Concatenate[Tensor, P], Tensor]) -> Callable[Concatenate[Tensor, P], Tensor]:
    """Gives a layer the defaults of `arg_scope`."""
    signature = inspect.signature(function)

    @wraps(function)
    def with_defaults(inputs: Tensor, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        given = signature.bind_partial(inputs, *args, **kwargs).arguments
        defaults = _recording.get().defaults.get(function.__name__, {})
        return function(**{**defaults, **given})  # type: ignore[call-arg]

    return with_defaults  # type: ignore[return-value]


def add_node(
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
    """Records a node, for a word of a vocabulary; `stride` None ends the map, `up` enlarges it."""
    recorder = _recording.get()
    name = attributes.get("activation")
    if (name if name is None or isinstance(name, str) else name[0]) not in (None, *ACTIVATIONS):
        raise ValueError(f"no activation is named {name!r}; there are {', '.join(ACTIVATIONS)}")
    reached = None
    # A gate, which is no map, may come before the map that it multiplies.
    before = next((tensor.node.stride for tensor in inputs if tensor.node.stride is not None), None)
    if stride is not None and before is not None:
        height, width = (max(1, s * by // up_by) for s, by, up_by in zip(before, stride, up, strict=True))
        reached = height, width
    scope = op if scope is None and recorder.free else scope
    where = recorder.scope if scope is None else scoped(recorder.scope, scope)
    channels = inputs[0].channels if channels is None else channels
    net = recorder.add(Node(op, tuple(tensor.index for tensor in inputs), where, channels, reached, attributes))
    return end_point(net, net.node.scope) if collect else net


def _pair(value: int | Sides) -> Sides:
    return (value, value) if isinstance(value, int) else value


Normalizer = Callable[..., Tensor] | Mapping[str, Any] | None
"""Of a layer: `batch_norm` with the settings of its `arg_scope`, or its settings themselves."""


def _normalized(normalizer: Normalizer, biases: bool | None) -> dict[Literal["normalizer", "biases"], Any]:
    """A layer's BatchNorm with the settings of the `arg_scope`; where there is one, slim leaves the biases out."""
    if normalizer not in (None, batch_norm) and not isinstance(normalizer, Mapping):
        raise ValueError("a layer's normalizer is batch_norm or None")
    given = normalizer if isinstance(normalizer, Mapping) else _recording.get().defaults.get("batch_norm", {})
    settings = {key: given.get(key, default) for key, default in _BATCH_NORM.items()}
    params = {**settings, **_statistics(given.get("statistics", "moving"), given.get("moving", True))}
    return {
        "normalizer": params if normalizer is not None else None,
        "biases": normalizer is None if biases is None else biases,
    }


def _statistics(statistics: str, moving: bool) -> dict[str, Any]:
    """What of a BatchNorm's statistics is not as usual."""
    found: dict[str, Any] = {} if statistics == "moving" else {"statistics": statistics}
    return found if moving else {**found, "moving": False}


@_layer
def conv2d(
    inputs: Tensor,
    num_outputs: int,
    kernel_size: int | Sides,
    stride: int | Sides = 1,
    padding: Padding = "SAME",
    rate: int | Sides = 1,
    *,
    activation: Activation | None = "relu",
    normalizer: Normalizer = None,
    biases: bool | None = None,
    initializer: Initializer = XAVIER,
    biases_initializer: float = 0.0,
    regularized: bool = True,
    groups: int = 1,
    collect: bool = False,
    scope: str,
) -> Tensor:
    """`slim.conv2d`: a convolution, its biases or its BatchNorm, its activation.

    Args:
      biases: whether there are some; None is slim's rule, that a normalizer takes their place.
      initializer: of the kernel: `XAVIER`, `VARIANCE_SCALING`, `FAN_OUT`, `HE` or `("truncated_normal", deviation)`.
      biases_initializer: what each of the biases is at the start.
      regularized: whether training has a loss for the size of the kernel, slim's `weights_regularizer`.
      groups: of channels, each convolved by itself, as TensorFlow's op does where the kernel takes fewer than it gets.
      collect: whether the output is an end point, by the layer's scope (slim's `outputs_collections`).
    """
    special: dict[str, Any] = {} if groups == 1 else {"groups": groups}
    special |= {} if regularized else {"regularized": False}
    return add_node(
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
        **special,
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
    activation: Activation | None = "relu",
    normalizer: Normalizer = None,
    biases: bool | None = None,
    initializer: Initializer = XAVIER,
    regularized: bool = True,
    collect: bool = False,
    scope: str,
) -> Tensor:
    """`slim.separable_conv2d`: a depthwise convolution and a pointwise one.

    Without the latter where `num_outputs` is None. Channel c of the former is of input c // `depth_multiplier`. Other
    arguments as of `conv2d`.

    Args:
      regularized: whether training has a loss for the size of the kernels, slim's `weights_regularizer`.
    """
    special: dict[str, Any] = {} if regularized else {"regularized": False}
    return add_node(
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
        **special,
    )


@_layer
def conv2d_transpose(
    inputs: Tensor,
    num_outputs: int,
    kernel_size: int | Sides,
    stride: int | Sides = 1,
    padding: Padding = "SAME",
    rate: int | Sides = 1,
    *,
    output_size: tuple[Size, Size] | None = None,
    like: Sequence[Tensor] = (),
    activation: Activation | None = "relu",
    normalizer: Normalizer = None,
    biases: bool | None = None,
    initializer: Initializer = XAVIER,
    collect: bool = False,
    scope: str,
) -> Tensor:
    """`slim.conv2d_transpose`: the output's sides are the input's times `stride`, where padding is SAME.

    Arguments as of `conv2d`; the kernel is [height, width, out, in].

    Args:
      output_size: the output's sides, where they are others, as TensorFlow's op takes any that its convolution makes
        the input's sides of. Padding that is neither SAME nor VALID needs it.
      like: tensors whose sizes it depends on, the inputs 1, 2, ... of the layer.
    """
    if output_size is None and padding not in ("SAME", "VALID"):
        raise ValueError("a transposed convolution with its own padding needs output_size")
    special: dict[str, Any] = {} if output_size is None else {"output_size": output_size}
    special |= {} if _pair(rate) == (1, 1) else {"rate": _pair(rate)}
    return add_node(
        "conv2d_transpose",
        [inputs, *like],
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
        **special,
    )


@_layer
def fully_connected(
    inputs: Tensor,
    num_outputs: int,
    *,
    activation: Activation | None = "relu",
    normalizer: Normalizer = None,
    biases: bool | None = None,
    initializer: Initializer = XAVIER,
    biases_initializer: float = 0.0,
    regularized: bool = True,
    collect: bool = False,
    scope: str,
) -> Tensor:
    """`slim.fully_connected`, of the last axis of [batch, ..., channels]. Arguments as of `conv2d`."""
    special: dict[str, Any] = {} if biases_initializer == 0 else {"biases_initializer": biases_initializer}
    special |= {} if regularized else {"regularized": False}
    return add_node(
        "fully_connected",
        [inputs],
        scope,
        channels=num_outputs,
        stride=None,
        collect=collect,
        activation=activation,
        initializer=initializer,
        **_normalized(normalizer, biases),
        **special,
    )


@_layer
def batch_norm(
    inputs: Tensor,
    decay: float = 0.999,
    center: bool = True,
    scale: bool = False,
    epsilon: float = 0.001,
    *,
    statistics: Literal["moving", "batch"] = "moving",
    moving: bool = True,
    activation: Activation | None = None,
    collect: bool = False,
    scope: str,
) -> Tensor:
    """`slim.batch_norm`, over the last axis: `center` has a `beta`, `scale` a `gamma`.

    Args:
      statistics: what normalizes in evaluation, the moving averages or the batch's own, as where `is_training` was
        written into a graph.
      moving: whether there are moving averages.
    """
    return add_node(
        "batch_norm",
        [inputs],
        scope,
        collect=collect,
        decay=decay,
        center=center,
        scale=scale,
        epsilon=epsilon,
        activation=activation,
        **_statistics(statistics, moving),
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
    return add_node(
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
    clipped: bool | Literal["square"] = False,
    collect: bool = False,
    scope: str,
) -> Tensor:
    """`slim.avg_pool2d`; what SAME pads is not averaged.

    Args:
      clipped: whether the kernel shrinks to a map that is smaller (`_reduced_kernel_size_for_small_input` in slim); or
        `square`, whether it is the map itself where that is square (`reduce_to_1x1` in slim's MobileNet v3).
    """
    if clipped and padding == "SAME":
        raise ValueError("a clipped average pool is VALID, as slim's are")
    return add_node(
        "avg_pool2d",
        [inputs],
        scope,
        # What comes of a map that is pooled whole is none any more, as of `mean`.
        stride=None if clipped else _pair(stride),
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
    return add_node("dropout", [inputs], scope, keep_prob=keep_prob)


def add(*inputs: Tensor, activation: Activation | None = None, scope: str | None = None) -> Tensor:
    """The sum of tensors, each of one size or 1 along an axis, and its activation."""
    return add_node("add", inputs, scope, channels=max(tensor.channels for tensor in inputs), activation=activation)


def multiply(*inputs: Tensor, scope: str | None = None) -> Tensor:
    """The product of tensors, each of one size or 1 along an axis."""
    return add_node("multiply", inputs, scope, channels=max(tensor.channels for tensor in inputs))


def scale(inputs: Tensor, factor: float, offset: float = 0.0, *, scope: str | None = None) -> Tensor:
    """`inputs * factor + offset`, of two numbers."""
    return add_node("scale", [inputs], scope, factor=factor, offset=offset)


def concat(*inputs: Tensor, axis: int = -1, scope: str | None = None) -> Tensor:
    """`tf.concat`, over the channels if not told otherwise."""
    channels = sum(tensor.channels for tensor in inputs) if axis == -1 else max(t.channels for t in inputs)
    given: dict[str, Any] = {} if axis == -1 else {"axis": axis}
    return add_node("concat", inputs, scope, channels=channels, **given)


def pad_channels(inputs: Tensor, channels: int, *, scope: str) -> Tensor:
    """Channels of zeros behind the input's, to be `channels` in all: option A of arXiv:1512.03385, section 4.2."""
    return add_node("pad_channels", [inputs], scope, channels=channels)


def mean(inputs: Tensor, *, scope: str | None) -> Tensor:
    """The mean over height and width, [batch, 1, 1, channels]."""
    return add_node("mean", [inputs], scope, stride=None)


def squeeze(
    inputs: Tensor,
    axes: tuple[int, ...] = (1, 2),
    *,
    channels: int | None = None,
    scope: str | None,
    collect: bool = False,
) -> Tensor:
    """`tf.squeeze`: [batch, 1, 1, channels] to [batch, channels], if not told of other axes."""
    given: dict[str, Any] = {} if axes == (1, 2) else {"axes": axes}
    return add_node("squeeze", [inputs], scope, channels=channels, stride=None, collect=collect, **given)


def flatten(
    inputs: Tensor, size: Sides | None = None, *, channels: int | None = None, scope: str | None = None
) -> Tensor:
    """`slim.flatten`: [batch, ...] to [batch, channels], channels last.

    Args:
      size: height and width, of a map.
      channels: of the result, where there is no `size`.
    """
    if size is not None:
        channels = inputs.channels * size[0] * size[1]
    return add_node("flatten", [inputs], scope, channels=channels or 0, stride=None)


def softmax(inputs: Tensor, *, scope: str | None) -> Tensor:
    """`slim.softmax`, over the channels."""
    return add_node("softmax", [inputs], scope)


def l2_normalize(inputs: Tensor, epsilon: float = 1e-12, *, scope: str | None) -> Tensor:
    """`tf.nn.l2_normalize`, over the channels; `epsilon` is the least sum of squares."""
    return add_node("l2_normalize", [inputs], scope, epsilon=epsilon)


def activation(inputs: Tensor, function: Activation, *, scope: str | None = None) -> Tensor:
    """An activation of `ACTIVATIONS`, as a layer of its own."""
    return add_node("activation", [inputs], scope, activation=function)
