"""From the values of a TensorFlow graph to a recorded `Graph` of slim's layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from converters.errors import UnsupportedError, UnsupportedNode
from converters.graph_def.cover import Cover, Layer
from converters.graph_def.evaluate import Evaluator
from converters.graph_def.names import Scopes, node_scope
from converters.graph_def.parameters import Parameter, parameter
from converters.graph_def.proto import Array
from converters.graph_def.values import BATCH, Axis, Dim, Product, Quotient, Size, Value
from slimport import graph as slim
from slimport import graph_ops as words
from slimport import sizes
from slimport.graph import Source, Tensor

# Arrays of at most this many numbers are written into the graph itself.
_INLINE = 256
_DECAY = 0.999
Word = Callable[["Translator", Layer, list[Tensor]], Tensor]
WORDS: dict[str, Word] = {}
"""Records a value that is no part of a layer with variables, by its op."""


def records(*ops: str) -> Callable[[Word], Word]:
    """Registers what records some ops."""

    def register(word: Word) -> Word:
        WORDS.update(dict.fromkeys(ops, word))
        return word

    return register


class Translator:
    """Records the layers of a cover.

    scope: the scope that is left out of all names.
    constants: the arrays that variables come from, by the names of their nodes, where the graph has their numbers.
    tensors: what was recorded for each value, by its number.
    """

    def __init__(self, context: Evaluator, cover: Cover, scope: str = "") -> None:
        self.context, self.cover, self.scope = context, cover, scope
        self.constants: dict[str, Array] = {}
        self.tensors: dict[int, Tensor] = {}
        self.nodes: dict[int, str] = {}
        self.sizes: dict[Size, tuple[Value, int]] = {}
        self.scopes = Scopes(cover.layers)
        self.shared: dict[tuple[Any, ...], str] = {}
        self.tied = _tied(cover)
        self._variables: dict[str, Tensor] = {}

    def record(self, inputs: Sequence[Tensor], values: Sequence[Value]) -> None:
        """Records everything, behind the inputs."""
        for tensor, value in zip(inputs, values, strict=True):
            self._keep(value, tensor)
        for layer in self.cover.layers:
            if layer.root.number not in self.tensors:
                self._keep(layer.root, self._record(layer))

    def _keep(self, value: Value, tensor: Tensor) -> None:
        self.tensors[value.number] = tensor
        if value.node:
            self.nodes[tensor.index] = self.context.name_of(value)
        for axis, side in enumerate(value.shape or ()):
            if isinstance(side, Size):
                self.sizes.setdefault(side, (value, axis))

    def _record(self, layer: Layer) -> Tensor:
        data = [self.tensor(value) for value in layer.data]
        if layer.kernel is not None:
            return self._kernel_layer(layer, data[0])
        if layer.norm is not None:
            return self._normalization(layer, data[0], None)
        if layer.bias is not None:
            return self._bias(layer, data[0])
        if layer.activation is not None:
            return self._activation(layer, data[0])
        if layer.root.op not in WORDS:
            raise unsupported(self.context, [layer.root], self.cover.outputs)
        return WORDS[layer.root.op](self, layer, data)

    # Names.

    def name(self, node: str) -> str:
        """The scope of what has no variables: its node's name."""
        return self.relative(node)

    def relative(self, name: str) -> str:
        """A name without the scope of the network."""
        return name.removeprefix(f"{self.scope}/") if self.scope else name

    def sources(self, net: Tensor, leaves: Mapping[str, Parameter], shapes: Mapping[str, tuple[int, ...]]) -> Tensor:
        """Says where the variables of a layer come from, where their names do not."""
        found = {}
        original = net.node.attributes.get("source_scope", net.node.scope)
        for leaf, given in leaves.items():
            source = self._remember(given)
            shape = source.source_shape if source.source_shape != shapes[leaf] or source.permutation else None
            if shape is not None or self.relative(source.name) != f"{original}/{leaf}":
                found[leaf] = Source(self.relative(source.name), shape, source.permutation)
        return slim.sourced(net, found) if found else net

    def _remember(self, source: Parameter) -> Parameter:
        """Keeps a constant's numbers; of several arrays that are computed for one node, each gets a name of its own."""
        if source.array is None:
            return source
        name, number = source.name, 0
        while (kept := self.constants.setdefault(name, source.array)) is not source.array:
            if kept.shape == source.array.shape and np.array_equal(kept, source.array):
                break
            number += 1
            name = f"{source.name}_{number}"
        return replace(source, name=name)

    # Layers with variables.

    def _kernel_layer(self, layer: Layer, data: Tensor) -> Tensor:
        kernel = layer.kernel
        assert kernel is not None
        scope = self.relative(self.scopes.of_kernel(kernel))
        if kernel.op == "fully_connected" and self.parameter(kernel.inputs[1]).name in self.tied:
            return self._tied_layer(layer, data, scope)
        norm, separate = self._own_normalizer(layer, scope)
        activation = None if separate else _function(layer)
        settings: dict[str, Any] = {"activation": activation, "normalizer": norm, "biases": layer.bias is not None}
        settings["scope"] = scope
        net, leaves = _KERNEL_WORDS[kernel.op](self, layer, data, settings)
        if layer.bias is not None:
            leaves["biases"] = self.parameter(layer.bias)
        if norm is not None and layer.norm is not None:
            for leaf, value in layer.norm.parameters.items():
                leaves[f"BatchNorm/{leaf}"] = self.parameter(value)
        depth = (net.channels,)
        shapes = dict.fromkeys(leaves, depth) | _kernel_shapes(leaves)
        net = self.sources(net, leaves, shapes)
        net = self._sharing(net, leaves)
        slim.end_point(net, net.node.scope)
        return self._normalization(layer, net, scope) if separate else net

    def _tied_layer(self, layer: Layer, data: Tensor, scope: str) -> Tensor:
        """A product with a variable that others take too, and in another order, as an autoencoder's decoder does."""
        assert layer.kernel is not None
        weights = self.parameter(layer.kernel.inputs[1])
        flipped = weights.permutation is not None
        whole = replace(weights, permutation=None, shape=weights.source_shape)
        variable = self._variable(whole)
        net = words.matmul(data, variable, transpose_b=flipped, channels=weights.shape[-1], scope=scope)
        if layer.bias is not None:
            net = self._bias(layer, net)
        if layer.norm is not None:
            net = self._normalization(layer, net, scope)
        elif layer.bias is None and layer.activation is not None:
            net = slim.activation(net, _function(layer), scope=self.name(layer.root.node))
        slim.end_point(net, net.node.scope)
        return net

    def _variable(self, found: Parameter) -> Tensor:
        """A variable by itself, recorded once."""
        if found.name not in self._variables:
            scope = self.relative(found.name)
            net = words.variable(found.shape, scope=node_scope(scope) or scope)
            self._variables[found.name] = self.sources(net, {"value": found}, {"value": found.shape})
        return self._variables[found.name]

    def _sharing(self, net: Tensor, leaves: Mapping[str, Parameter]) -> Tensor:
        """A layer that has the variables of one before it shares them."""
        if not leaves:
            return net
        own = ("source", "source_scope")
        settings = tuple((key, repr(value)) for key, value in net.node.attributes.items() if key not in own)
        arrays = tuple((leaf, source.name, source.permutation, source.shape) for leaf, source in leaves.items())
        key = (net.node.op, settings, arrays)
        first = self.shared.setdefault(key, net.node.scope)
        return net if first == net.node.scope else slim.sharing(net, first)

    def _own_normalizer(self, layer: Layer, scope: str) -> tuple[dict[str, Any] | None, bool]:
        """The BatchNorm as a part of its layer, where its variables have the names for that; else by itself."""
        if layer.norm is None:
            return None, False
        names = {leaf: self.parameter(value) for leaf, value in layer.norm.parameters.items()}
        if all(self.relative(found.name) == f"{scope}/BatchNorm/{leaf}" for leaf, found in names.items()):
            return _settings(layer.norm.settings, names), False
        return None, True

    def _normalization(self, layer: Layer, data: Tensor, before: str | None) -> Tensor:
        norm = layer.norm
        assert norm is not None
        leaves = {leaf: self.parameter(value) for leaf, value in norm.parameters.items()}
        scopes = {self.relative(found.name).rpartition("/")[0] for found in leaves.values()}
        scope = scopes.pop() if len(scopes) == 1 else ""
        if not scope or scope == before:
            scope = f"{before}/BatchNorm" if before else self.relative(node_scope(layer.root.node)) or norm.kind
        settings = _settings(norm.settings, leaves)
        if norm.kind == "instance_norm":
            settings = {key: settings[key] for key in ("epsilon", "scale", "center")}
            net = words.instance_norm(data, activation=_function(layer), scope=scope, **settings)
        else:
            net = slim.batch_norm(data, activation=_function(layer), scope=scope, **settings)
        net = self.sources(net, leaves, dict.fromkeys(leaves, (net.channels,)))
        net = self._sharing(net, leaves)
        return slim.end_point(net, net.node.scope)

    def _activation(self, layer: Layer, data: Tensor) -> Tensor:
        found = layer.activation
        assert found is not None
        scope = self.name(layer.root.node)
        if found.kind == "activation":
            return slim.activation(data, found.settings["function"], scope=scope)
        if found.kind == "l2_normalize":
            return slim.l2_normalize(data, found.settings["epsilon"], scope=scope)
        weights = self.parameter(found.parameters["weights"])
        parent = self.relative(weights.name).rpartition("/")[0] or node_scope(scope)
        scope = f"{parent}/PReLU" if parent and parent == data.node.scope else parent or f"{data.node.scope}/PReLU"
        net = words.prelu(data, shared=found.settings["shared"], scope=scope)
        shape = (1,) if found.settings["shared"] else (data.channels,)
        return self._sharing(self.sources(net, {"weights": weights}, {"weights": shape}), {"weights": weights})

    def _bias(self, layer: Layer, data: Tensor) -> Tensor:
        assert layer.bias is not None
        bias = self.parameter(layer.bias)
        scope = self.relative(bias.name).rpartition("/")[0] or self.name(layer.root.node)
        net = words.bias_add(data, activation=_function(layer), scope=scope)
        return self._sharing(self.sources(net, {"biases": bias}, {"biases": (net.channels,)}), {"biases": bias})

    def parameter(self, value: Value) -> Parameter:
        """The array that a static value is."""
        found = parameter(value)
        if found is None:
            raise unsupported(self.context, [value])
        return found

    # Values.

    def tensor(self, value: Value) -> Tensor:
        """The recorded tensor of a value; arrays are recorded when they are first needed."""
        if value.number not in self.tensors:
            if not value.static:
                raise unsupported(self.context, [value])
            self.tensors[value.number] = self._static(value)
        return self.tensors[value.number]

    def _static(self, value: Value) -> Tensor:
        found = parameter(value)
        scope = self.name(value.node)
        if found is None or (found.permutation is not None and found.name in self.tied):
            inputs = tuple(value.inputs)
            if value.op not in WORDS:
                raise unsupported(self.context, [value])
            # Elementwise functions take plain numbers as such: recorded, these would lead nowhere.
            data = [] if value.op == "elementwise" else [self.tensor(other) for other in inputs]
            return WORDS[value.op](self, Layer(value, inputs), data)
        if found.array is None and found.shape == found.source_shape:
            return self._variable(found)
        if found.array is None:
            scope = self.relative(found.name)
            net = words.variable(found.shape, scope=node_scope(scope) or scope)
        elif found.size <= _INLINE and _is_single(found.array):
            array = parameter_array(found)
            kind = {"f": "float", "b": "bool"}.get(array.dtype.kind, "int32")
            return words.constant(array.tolist(), kind, scope=scope)  # type: ignore[arg-type]
        else:
            net = words.stored_constant(found.shape, scope=scope)
        return self.sources(net, {"value": found}, {"value": found.shape})

    # Sizes.

    def size(self, side: Dim, data: Value, like: list[Value]) -> sizes.Size:
        """A side in terms of the sizes of what a layer takes; what is needed beside its data is added to `like`."""
        if isinstance(side, int):
            return side
        if data.shape is not None and side in data.shape:
            return sizes.size(0, data.shape.index(side))
        if side in self.sizes and (side == BATCH or len(side.terms) == 1):
            value, axis = self.sizes[side]
            if value is data:
                return sizes.size(0, axis)
            if value not in like:
                like.append(value)
            return sizes.size(like.index(value) + 1, axis)
        total: sizes.Size | None = side.constant if side.constant or not side.terms else None
        for term, factor in side.terms:
            if isinstance(term, Axis) and side == Size.of(term):
                raise unsupported(self.context, [data])
            part = self._term(term, data, like)
            part = part if factor == 1 else sizes.times(part, factor)
            total = part if total is None else sizes.plus(total, part)
        assert total is not None
        return total

    def _term(self, term: Axis | Quotient | Product, data: Value, like: list[Value]) -> sizes.Size:
        if isinstance(term, Quotient):
            return sizes.floordiv(self.size(term.size, data, like), term.divisor)
        if isinstance(term, Product):
            return sizes.times(self.size(term.one, data, like), self.size(term.other, data, like))
        return self.size(Size.of(term), data, like)

    def likes(self, like: Sequence[Value]) -> list[Tensor]:
        """The tensors of values that are needed for their sizes."""
        return [self.tensor(value) for value in like]


def _tied(cover: Cover) -> set[str]:
    """The variables that are a kernel and something else as well, or kernels in two orders of their axes."""
    uses: dict[str, set[tuple[Any, ...]]] = {}
    for layer in cover.layers:
        kernels = [link.inputs[1] for link in (layer.kernel, layer.depthwise) if link is not None]
        others = () if layer.kernel is not None else layer.root.inputs
        for value in (*kernels, *(other for other in others if other.static)):
            found = parameter(value)
            if found is not None and found.array is None:
                # As anything but a kernel, an array is what it is.
                use = (found.permutation, found.shape) if value in kernels else ()
                uses.setdefault(found.name, set()).add(use)
    return {name for name, found in uses.items() if len(found) > 1}


def _is_single(array: Array) -> bool:
    """Whether float32 has all the numbers of an array; what was computed from others is in float64."""
    return array.dtype != np.float64 or bool(np.array_equal(array, array.astype(np.float32)))


def parameter_array(found: Parameter) -> Array:
    """The numbers of a constant as the network has them."""
    assert found.array is not None
    array = found.array if found.permutation is None else found.array.transpose(found.permutation)
    return array.reshape(found.shape)


def unsupported(context: Evaluator, values: Sequence[Value], outputs: Sequence[Value] = ()) -> UnsupportedError:
    """The error for values that have no counterpart, with what would convert the part before them.

    Args:
      outputs: the ends of the network that they are in.
    """
    value = next((value for value in values if value.attrs.get("tf_op") in _LOOPS), values[0])
    op = value.attrs.get("tf_op") or value.attrs.get("function") or value.op
    before = (context.name_of(other).removesuffix(":0") for other in _before(values, outputs or values))
    names = ",".join(dict.fromkeys(before))
    more = f" (and {len(values) - 1} more)" if len(values) > 1 else ""
    advice = f"; the part before it: --output {names}" if names else ""
    op += " (a loop)" if op in _LOOPS else ""
    nodes = tuple(UnsupportedNode(str(one.attrs.get("tf_op", one.op)), one.node) for one in values)
    return UnsupportedError(f"{context.file.path}: not supported: {op}, node {value.node}{more}{advice}", nodes)


_LOOPS = ("LoopCond", "While", "StatelessWhile")
"""The ops that are in loops alone."""


def _before(lacking: Sequence[Value], outputs: Sequence[Value]) -> list[Value]:
    """The last values with layers that do not depend on what is lacking, and go into what does."""
    order, pending = dict[int, Value](), list(outputs)
    while pending:
        value = pending.pop()
        if value.number not in order:
            order[value.number] = value
            pending.extend(value.inputs)
    behind = {value.number for value in lacking}
    layers: set[int] = set()
    for number in sorted(order):
        inputs = {other.number for other in order[number].inputs}
        if inputs & behind:
            behind.add(number)
        if inputs & layers or order[number].op in _KERNEL_WORDS:
            layers.add(number)
    ends = {
        other.number
        for number in behind & order.keys()
        for other in order[number].inputs
        if other.number in layers - behind and not other.static
    }
    leading: set[int] = set()
    for number in sorted(order, reverse=True):
        if number not in behind and (number in ends or number in leading):
            leading.update(other.number for other in order[number].inputs)
    return [order[number] for number in sorted(ends - leading)]


def _function(layer: Layer) -> Any:
    return None if layer.activation is None else layer.activation.settings["function"]


def _settings(settings: Mapping[str, Any], leaves: Mapping[str, Any]) -> dict[str, Any]:
    """A BatchNorm's settings as the vocabulary has them."""
    found = {"epsilon": settings["epsilon"], "decay": settings.get("decay") or _DECAY}
    found |= {"scale": "gamma" in leaves, "center": "beta" in leaves}
    if settings.get("statistics", "moving") == "batch":
        found |= {"statistics": "batch", "moving": False}
    return found


def _kernel_shapes(leaves: Mapping[str, Parameter]) -> dict[str, tuple[int, ...]]:
    """The shapes of the kernels of a layer, as the vocabulary has them."""
    return {
        leaf: leaves[leaf].shape for leaf in ("weights", "depthwise_weights", "pointwise_weights") if leaf in leaves
    }


Made = tuple[Tensor, dict[str, Parameter]]


def _conv2d(self: Translator, layer: Layer, data: Tensor, settings: dict[str, Any]) -> Made:
    kernel = layer.kernel
    assert kernel is not None
    if layer.depthwise is not None:
        return _separable(self, layer, data, settings)
    weights = self.parameter(kernel.inputs[1])
    groups = max(1, data.channels // weights.shape[2])
    attrs = kernel.attrs
    where = {"stride": attrs["strides"], "padding": attrs["padding"], "rate": attrs["rate"], "groups": groups}
    net = slim.conv2d(data, weights.shape[3], weights.shape[:2], **where, **settings)  # type: ignore[arg-type]
    return net, {"weights": weights}


def _separable(self: Translator, layer: Layer, data: Tensor, settings: dict[str, Any]) -> Made:
    kernel = layer.depthwise or layer.kernel
    assert kernel is not None
    leaves = {"depthwise_weights": self.parameter(kernel.inputs[1])}
    outputs = None
    if layer.depthwise is not None and layer.kernel is not None:
        leaves["pointwise_weights"] = self.parameter(layer.kernel.inputs[1])
        outputs = leaves["pointwise_weights"].shape[3]
    *sides, _, multiplier = leaves["depthwise_weights"].shape
    attrs = kernel.attrs
    where = {"stride": attrs["strides"], "padding": attrs["padding"], "rate": attrs["rate"]}
    net = slim.separable_conv2d(data, outputs, tuple(sides), multiplier, **where, **settings)  # type: ignore[arg-type]
    return net, leaves


def _conv2d_transpose(self: Translator, layer: Layer, data: Tensor, settings: dict[str, Any]) -> Made:
    kernel = layer.kernel
    assert kernel is not None
    weights, attrs = self.parameter(kernel.inputs[1]), kernel.attrs
    value = layer.data[0]
    like: list[Value] = []
    output_size: Any = None
    if not _is_usual(value, kernel, weights):
        height, width = (self.size(side, value, like) for side in attrs["output_size"])
        output_size = (height, width)
    where = {"stride": attrs["strides"], "padding": attrs["padding"], "rate": attrs["rate"]}
    where |= {"output_size": output_size, "like": self.likes(like)}
    net = slim.conv2d_transpose(data, weights.shape[2], weights.shape[:2], **where, **settings)  # type: ignore[arg-type]
    return net, {"weights": weights}


def _is_usual(value: Value, kernel: Value, weights: Parameter) -> bool:
    """Whether a transposed convolution gives slim's output size; where only the result is known, it may as well."""
    if kernel.attrs["padding"] not in ("SAME", "VALID") or value.shape is None:
        return False
    for side, found, stride, size in zip(
        value.shape[1:3], kernel.attrs["output_size"], kernel.attrs["strides"], weights.shape, strict=False
    ):
        more = max(size - stride, 0) if kernel.attrs["padding"] == "VALID" else 0
        if isinstance(side, Size) and isinstance(found, int):
            if (found - more) % stride:
                return False
        elif side * stride + more != found:
            return False
    return True


def _fully_connected(self: Translator, layer: Layer, data: Tensor, settings: dict[str, Any]) -> Made:
    assert layer.kernel is not None
    weights = self.parameter(layer.kernel.inputs[1])
    return slim.fully_connected(data, weights.shape[1], **settings), {"weights": weights}


_KERNEL_WORDS: dict[str, Callable[[Translator, Layer, Tensor, dict[str, Any]], Made]] = {
    "conv2d": _conv2d,
    "depthwise": _separable,
    "conv2d_transpose": _conv2d_transpose,
    "fully_connected": _fully_connected,
}


# What has no variables of its own.


@records("conv2d", "depthwise")
def _convolve(self: Translator, layer: Layer, _: list[Tensor]) -> Tensor:
    """A convolution by a kernel that the graph computes."""
    value = layer.root
    data, kernel = map(self.tensor, value.inputs)
    scope = self.name(value.node)
    padding: Any = value.attrs["padding"]
    if not isinstance(padding, str):
        data, padding = words.pad(data, [(0, 0), *padding, (0, 0)], scope=f"{scope}/Pad"), "VALID"
    attrs = {"strides": value.attrs["strides"], "rate": value.attrs["rate"], "depthwise": value.op == "depthwise"}
    return words.convolve(data, kernel, padding=padding, channels=_channels(value), scope=scope, **attrs)


@records("elementwise")
def _elementwise(self: Translator, layer: Layer, _: list[Tensor]) -> Tensor:
    value = layer.root
    function, scope = value.attrs["function"], self.name(value.node)
    inputs = [_plain_number(other) for other in value.inputs]
    given = [
        self.tensor(other) if number is None else number for other, number in zip(value.inputs, inputs, strict=True)
    ]
    tensors = [one for one in given if isinstance(one, Tensor)]
    if function in ("relu", "relu6", "elu", "selu", "leaky_relu", "softplus", "softsign", "sigmoid", "tanh"):
        return slim.activation(
            tensors[0], (function, *value.attrs["numbers"]) if value.attrs["numbers"] else function, scope=scope
        )
    if function == "add" and len(tensors) == len(given):
        return slim.add(*tensors, scope=scope)
    if function == "multiply" and len(tensors) == len(given):
        return slim.multiply(*tensors, scope=scope)
    number = next((one for one in given if not isinstance(one, Tensor)), None)
    if len(given) == 2 and number is not None and (scaled := _scaled(function, number, isinstance(given[0], Tensor))):
        return slim.scale(tensors[0], *scaled, scope=scope)
    if function not in words.FUNCTIONS:
        raise unsupported(self.context, [value])
    return words.elementwise(*given, function=function, scope=scope)


def _plain_number(value: Value) -> float | None:
    if value.op != "constant" or value.data is None or value.data.size != 1 or value.data.dtype == object:
        return None
    return value.data.item() if value.data.dtype.kind in "iub" else float(value.data.item())


def _scaled(function: str, number: float, first: bool) -> tuple[float, float] | None:
    """A function of a tensor and a number as a factor and an offset; `first`: the tensor comes first."""
    if function == "multiply":
        return (number, 0.0)
    if function == "add":
        return (1.0, number)
    if function == "subtract":
        return (1.0, -number) if first else (-1.0, number)
    return None


@records("cast")
def _cast(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    return words.cast(data[0], layer.root.attrs["dtype"], scope=self.name(layer.root.node))


@records("dropout")
def _dropout(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    scope = node_scope(self.name(layer.root.node)) or "dropout"
    return slim.dropout(data[0], layer.root.attrs["keep_prob"], scope=scope)


@records("max_pool2d", "avg_pool2d")
def _pool(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    value = layer.root
    word = slim.max_pool2d if value.op == "max_pool2d" else slim.avg_pool2d
    attrs = value.attrs
    return word(data[0], attrs["kernel_size"], attrs["strides"], attrs["padding"], scope=self.name(value.node))


@records("reduce")
def _reduce(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    value = layer.root
    function, axes, keep = (value.attrs[key] for key in ("function", "axes", "keep_dims"))
    scope = self.name(value.node)
    if function == "mean" and axes == (1, 2) and layer.data[0].rank == 4:
        net = slim.mean(data[0], scope=scope)
        return net if keep else slim.squeeze(net, scope=f"{scope}/squeeze")
    return words.reduce(data[0], function, axes, keep, channels=_channels(value), scope=scope)


def _channels(value: Value) -> int:
    return value.channels or 0


@records("softmax", "log_softmax")
def _softmax(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    word = slim.softmax if layer.root.op == "softmax" else words.log_softmax
    return word(data[0], scope=self.name(layer.root.node))


@records("lrn")
def _lrn(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    return words.lrn(data[0], **layer.root.attrs, scope=self.name(layer.root.node))


@records("concat")
def _concat(self: Translator, layer: Layer, _: list[Tensor]) -> Tensor:
    value = layer.root
    axis = value.attrs["axis"] - (value.rank or 0)
    return slim.concat(*map(self.tensor, value.inputs), axis=axis, scope=self.name(value.node))


@records("stack")
def _stack(self: Translator, layer: Layer, _: list[Tensor]) -> Tensor:
    value = layer.root
    return words.stack(
        *map(self.tensor, value.inputs),
        axis=value.attrs["axis"],
        channels=_channels(value),
        scope=self.name(value.node),
    )


@records("reshape")
def _reshape(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    value, before = layer.root, layer.data[0]
    scope = self.name(value.node)
    shape, rank = value.shape or (), before.rank or 0
    if (
        len(shape) == 2
        and shape[0] == BATCH
        and before.shape
        and before.shape[0] == BATCH
        and value.channels
        and rank > 2
    ):
        return slim.flatten(data[0], channels=value.channels, scope=scope)
    like: list[Value] = []
    sides: list[sizes.Size] = []
    for axis, side in enumerate(shape):
        if isinstance(side, Size) and -1 not in sides and side == Size.of(Axis(value.number, axis)):
            sides.append(-1)
        else:
            sides.append(self.size(side, before, like))
    open_sides = [axis for axis, side in enumerate(sides) if not isinstance(side, int)]
    if -1 not in sides and len(open_sides) == 1:
        sides[open_sides[0]], like = -1, []
    return words.reshape(data[0], sides, like=self.likes(like), channels=_channels(value), scope=scope)


@records("expand_dims")
def _expand_dims(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    value = layer.root
    axis = value.attrs["axis"] if value.attrs["axis"] < (layer.data[0].rank or 0) else -1
    return words.expand_dims(data[0], axis, channels=_channels(value), scope=self.name(value.node))


@records("squeeze")
def _squeeze(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    value, axes = layer.root, layer.root.attrs["axes"]
    # Channels are what is last now, which another axis may be.
    channels = value.channels if axes != (1, 2) else None
    return slim.squeeze(data[0], axes=axes, channels=channels, scope=self.name(value.node))


@records("transpose")
def _transpose(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    value = layer.root
    return words.transpose(data[0], value.attrs["permutation"], channels=_channels(value), scope=self.name(value.node))


@records("strided_slice")
def _strided_slice(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    value, before = layer.root, layer.data[0]
    like: list[Value] = []
    slices: list[Any] = []
    for taken in value.attrs["slices"]:
        if taken is None:
            slices.append(None)
            continue
        begin, end, step = taken
        slices.append((*(None if bound is None else self.size(bound, before, like) for bound in (begin, end)), step))
    attrs = {"shrink": value.attrs["shrink"], "channels": _channels(value), "scope": self.name(value.node)}
    return words.strided_slice(data[0], slices, like=self.likes(like), **attrs)


@records("gather")
def _gather(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    value = layer.root
    axis = value.attrs["axis"] - (value.rank or 0)
    return words.gather(data[0], value.attrs["indices"], axis, scope=self.name(value.node))


@records("argmax")
def _argmax(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    return words.argmax(
        data[0], layer.root.attrs["axis"], channels=_channels(layer.root), scope=self.name(layer.root.node)
    )


@records("pad")
def _pad(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    value = layer.root
    like: list[Value] = []
    pads = [tuple(self.size(side, layer.data[0], like) for side in pad) for pad in value.attrs["paddings"]]
    attrs = {"mode": value.attrs["mode"], "value": value.attrs["value"], "scope": self.name(value.node)}
    return words.pad(data[0], pads, like=self.likes(like), **attrs)  # type: ignore[arg-type]


@records("tile")
def _tile(self: Translator, layer: Layer, _: list[Tensor]) -> Tensor:
    value = layer.root.inputs[0]
    like: list[Value] = []
    multiples = [self.size(multiple, value, like) for multiple in layer.root.attrs["multiples"]]
    return words.tile(self.tensor(value), multiples, like=self.likes(like), scope=self.name(layer.root.node))


@records("fill")
def _fill(self: Translator, layer: Layer, _: list[Tensor]) -> Tensor:
    """One number in a shape that only a run tells: the number, repeated."""
    number: Any = layer.root.attrs["value"]
    like: list[Value] = []
    sides = [self.size(side, Value("fill"), like) for side in layer.root.shape or ()]
    for _side in sides:
        number = [number]
    scope = self.name(layer.root.node)
    return words.tile(words.constant(number, scope=scope), sides, like=self.likes(like), scope=scope)


@records("reverse")
def _reverse(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    return words.reverse(data[0], layer.root.attrs["axes"], scope=self.name(layer.root.node))


@records("resize")
def _resize(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    value, before = layer.root, layer.data[0]
    attrs = {key: value.attrs[key] for key in ("method", "align_corners", "half_pixel_centers")}
    factors = [_factor(found, side) for found, side in zip(value.attrs["size"], (before.shape or ())[1:3], strict=True)]
    if all(factor is not None for factor in factors):
        attrs["factor"] = tuple(factors)
        return words.resize(data[0], scope=self.name(value.node), **attrs)
    like: list[Value] = []
    height, width = (self.size(side, before, like) for side in value.attrs["size"])
    return words.resize(data[0], (height, width), like=self.likes(like), scope=self.name(value.node), **attrs)


def _factor(found: Dim, side: Dim) -> int | None:
    """How many times a side is, where that is a whole number at any size."""
    if isinstance(found, Size) and isinstance(side, Size) and len(side.terms) == len(found.terms) == 1:
        factor = found.terms[0][1] // side.terms[0][1]
        return factor if side * factor == found else None
    return None


@records("space_to_depth", "depth_to_space")
def _block(self: Translator, layer: Layer, data: list[Tensor]) -> Tensor:
    word = words.space_to_depth if layer.root.op == "space_to_depth" else words.depth_to_space
    return word(data[0], layer.root.attrs["block"], scope=self.name(layer.root.node))


@records("matmul", "fully_connected")
def _matmul(self: Translator, layer: Layer, _: list[Tensor]) -> Tensor:
    a, b = map(self.tensor, layer.root.inputs)
    return words.matmul(a, b, **layer.root.attrs, scope=self.name(layer.root.node))
