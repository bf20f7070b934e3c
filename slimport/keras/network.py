"""The Keras interpreter of a graph: stock layers alone, named by slim's scopes. Tensors are NHWC.

A scope `a/b` makes layers named `a__b`, `a__b__BatchNorm`, `a__b__Relu`: Keras refuses `/` in a name, and its torch
backend refuses `.`. A pool that is no end point has its op behind its scope, as TensorFlow's op has (`pool1__MaxPool`);
an end point that no layer is named after gets an `Identity` of its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from slimport import networks
from slimport.graph import ACTIVATIONS, NORMALIZERS, Graph, Input, Node, Sides
from slimport.keras.operations import OPERATIONS, UnknownSizeError, number
from slimport.map_sides import pooled_whole
from slimport.nodes import FACTORS
from slimport.sizes import evaluate

Tensor = Any


def build(
    network: networks.Network,
    *,
    scope: str | None = None,
    dtype: Any = None,
    image_size: Sides | None = None,
    **arguments: Any,
) -> Any:
    """The port of a network description.

    Args:
      network: the description.
      scope: the model's scope in the names of its end points; None for slim's.
      dtype: dtype or policy of every layer; None for Keras's global one.
      image_size: height and width of the images; None for any. A pool that shrinks to a small map (Inception's last)
        does so where the size is given, as in slim. Where shapes are computed from it, None is the size that the
        network was made for.
      arguments: of the network's definition; `network.arguments` lists them.

    Returns:
      A functional `keras.Model` from images [batch, height, width, in_channels] to logits, or to features where there
      are no classes. A branch with variables that the output does not need (`AuxLogits`) is a further output. A network
      with several outputs gives a dict by their names.

    Raises:
      ValueError: the network cannot be built with the arguments.
    """
    graph = network.graph(**arguments)
    scope = network.default_scope if scope is None else scope
    # A graph that was written for one size runs on others too.
    free = _of_size(network.inputs, image_size or (None, None))
    try:
        return _build(graph, scope, dtype, free)
    except UnknownSizeError:
        side = network.default_image_size
        own = isinstance(network, networks.GraphNetwork)
        known = network.inputs if own else _of_size(network.inputs, (side, side))
        if image_size is not None or known == free:
            raise
        return _build(graph, scope, dtype, known)


def _of_size(inputs: Sequence[Input], size: tuple[int | None, int | None]) -> tuple[Input, ...]:
    """The inputs with images of this height and width."""
    return tuple(one._replace(shape=(None, *size, one.shape[-1])) if one.is_images else one for one in inputs)


def _build(graph: Graph, scope: str, dtype: Any, inputs: Sequence[Input]) -> Any:
    compute_dtype = dtype and keras.DTypePolicy(dtype).compute_dtype
    shapes = zip(graph.inputs, (one.shape[1:] for one in inputs), strict=True)
    images = {index: keras.Input(shape, dtype=compute_dtype) for index, shape in shapes}
    interpreter = Interpreter(graph, dtype, images)
    outputs: Any = [interpreter.value(index) for index in (*graph.output_nodes, *graph.branches)]
    if len(graph.outputs) > 1:
        outputs = {output.name: interpreter.value(output.node) for output in graph.outputs}
    given = list(images.values())
    single = isinstance(outputs, list) and len(outputs) == 1
    name = layer_name(scope)
    return keras.Model(given if len(given) > 1 else given[0], outputs[0] if single else outputs, name=name or None)


def layer_name(scope: str) -> str:
    """The Keras name of a slim scope."""
    return scope.replace("/", "__")


class Interpreter:
    """Makes the layers of a graph's nodes, each when its value is first asked for.

    Args:
      graph: the network.
      dtype: dtype or policy of every layer; None for Keras's global one.
      values: the tensors of nodes that are there already: the images, by 0.
    """

    def __init__(self, graph: Graph, dtype: Any, values: Mapping[int, Tensor]) -> None:
        self.graph = graph
        self.dtype = dtype
        self.values = dict(values)
        self.named: dict[int, Any] = {}
        """The layers that have a name of the graph's, by their identity."""
        self.visited: dict[int, Any] = {id(op): op for op in (net._keras_history.operation for net in values.values())}
        """The layers and operations whose names are settled."""
        self._row: Tensor = None
        self.points: dict[int, list[str]] = {}
        for point in graph.end_points:
            self.points.setdefault(point.node, []).append(point.name)
        self.scopes = {node.scope for node in graph.nodes}
        self.whole = {graph.nodes[index].scope for index in pooled_whole(graph)}
        self.applied: dict[str, list[Callable[[Any], Any]]] = {}
        """The layers of each scope, which other nodes may share."""

    def value(self, index: int) -> Tensor:
        """The tensor of a node."""
        if index not in self.values:
            # In the graph's order, in which slim makes them too.
            for needed in sorted(self.graph.needed_by(index) - self.values.keys()):
                self.values[needed] = self._layers(needed)
        return self.values[index]

    def names(self, index: int) -> list[str]:
        """The names of a node's layers, first to last; the last gives the node's value."""
        node = self.graph.nodes[index]
        points = self.points.get(index, [])
        if node.op in ("input", "constant"):
            return []
        own = f"{node.scope}/{_POOLS[node.op]}" if node.op in _POOLS and node.scope not in points else node.scope
        names = [f"{node.scope}/Pad"] * _is_padded(node) + [own] * (node.op != "activation")
        names += [f"{node.scope}/Crop"] * ("output_size" in node.attributes)
        names += [f"{node.scope}/BatchNorm"] * (node.op not in NORMALIZERS and node.normalizer is not None)
        names += [f"{node.scope}/{ACTIVATIONS[node.activation]}"] if node.activation else []
        if "shares" in node.attributes:
            names = [node.scope]
        # The output of a user's graph may have the name of the activation that gives it.
        names += [point for point in points if point not in (*self.scopes, *names[-1:])]
        return [layer_name(name) for name in names]

    def _layers(self, index: int) -> Tensor:
        node = self.graph.nodes[index]
        inputs = [self.values[i] for i in node.inputs]
        if node.op == "constant":
            return self._constant(node)
        names = iter(self.names(index))
        if "shares" in node.attributes:
            made = [*self._shared(node), self._make(layers.Identity, next(names))]
        else:
            made = self.applied[node.scope] = self._made(node, inputs, names)
        net = inputs if len(inputs) > 1 else inputs[0] if inputs else None
        for apply in [*made, *(self._make(layers.Identity, name) for name in names)]:
            net = apply(net)
        self._name_operations(net, layer_name(node.scope))
        return net

    def _name_operations(self, net: Tensor, scope: str) -> None:
        """Names what Keras named itself after the node's scope, so that no name is there twice."""
        pending, number = [net], 0
        while pending:
            history = getattr(pending.pop(), "_keras_history", None)
            if history is None:
                # A value made of constants alone is an array, not the output of an operation.
                continue
            operation = history.operation
            if id(operation) in self.visited:
                continue
            self.visited[id(operation)] = operation
            pending += operation._inbound_nodes[0].input_tensors
            if id(operation) not in self.named:
                number += 1
                operation.name = f"{scope}__op_{number}"

    def _shared(self, node: Node) -> list[Callable[[Any], Any]]:
        """The layers whose variables a node has."""
        scope = node.attributes["shares"]
        owner = next(other for other in self.graph.nodes if other.scope == scope)
        if owner.settings != node.settings:
            raise ValueError(f"{node.scope}: a Keras layer cannot be used with other settings than {scope}'s")
        return self.applied[scope]

    def _made(self, node: Node, inputs: list[Tensor], names: Iterator[str]) -> list[Callable[[Any], Any]]:
        """The layers of a node, first to last."""
        made: list[Callable[[Any], Any]] = []
        if _is_padded(node):
            made.append(self._make(layers.ZeroPadding2D, next(names), padding=node.attributes["padding"]))
        if node.op == "batch_norm":
            made.append(self._batch_norm(node.attributes, next(names)))
        elif node.op != "activation":
            made.append(self._layer(node, inputs, next(names)))
            if "output_size" in node.attributes:
                made.append(self._cropped(node, inputs, next(names)))
            if node.op not in NORMALIZERS and node.normalizer is not None:
                made.append(self._batch_norm(node.normalizer, next(names)))
        if node.activation:
            layer, settings = _activation(node.activation, *node.activation_numbers)
            made.append(self._make(layer, next(names), **settings))
        return made

    def _layer(self, node: Node, inputs: list[Tensor], name: str) -> Callable[[Any], Any]:
        if node.op == "cast":
            identity = self._make(layers.Identity, name)
            return lambda net: identity(ops.cast(net, self._dtype(node)))
        if node.op in OPERATIONS:
            identity = self._make(layers.Identity, name)
            return lambda net: identity(OPERATIONS[node.op](node, *(net if isinstance(net, list) else [net])))
        if node.op in ("variable", "stored_constant", "bias_add"):
            identity = self._make(layers.Identity, name)
            if node.op == "bias_add":
                biases = self._variable(f"{name}__biases", (node.channels,), True)
                return lambda net: identity(ops.add(net, biases))
            value = self._variable(f"{name}__value", node.attributes["shape"], node.op == "variable")
            return lambda _: identity(value)
        layer, settings = _layer(node, inputs)
        if node.scope in self.whole and None in inputs[0].shape[1:3]:
            layer, settings = layers.GlobalAveragePooling2D, {"keepdims": True}
        made: Callable[[Any], Any] = self._make(layer, name, **settings)
        return made

    def _dtype(self, node: Node) -> str:
        """The dtype that a node's attribute says, `float` being that in which layers compute."""
        policy = keras.DTypePolicy(self.dtype or keras.config.dtype_policy().name)
        dtype: str = node.attributes["dtype"]
        return policy.compute_dtype if dtype == "float" else dtype

    def _constant(self, node: Node) -> Tensor:
        return np.asarray(node.attributes["value"], self._dtype(node))

    def _variable(self, name: str, shape: tuple[int, ...], trainable: bool) -> Tensor:
        """A variable by itself: Keras's only stock layer for one looks row 0 up, whatever the images are."""
        if self._row is None:
            zeros = ops.zeros_like(self.values[0])
            self._row = ops.reshape(ops.cast(ops.sum(zeros), "int32"), (1,))
        table = self._make(layers.Embedding, name, input_dim=1, output_dim=math.prod(shape), trainable=trainable)
        return ops.reshape(table(self._row), shape)

    def _cropped(self, node: Node, inputs: list[Tensor], name: str) -> Callable[[Any], Any]:
        """Cuts the whole of a transposed convolution to the size that is wanted."""
        identity: Callable[[Any], Any] = self._make(layers.Identity, name)
        if _is_slims(node):
            return identity
        before, _ = _transposed_sides(node, inputs)
        sides = [number(node, size, inputs) for size in node.attributes["output_size"]]
        rows, columns = (slice(first, first + side) for first, side in zip(before, sides, strict=True))
        return lambda net: identity(net[:, rows, columns])

    def _make(self, layer: Any, name: str, **settings: Any) -> Any:
        made = layer(dtype=self.dtype, name=name, **settings)
        named = made.identity if isinstance(made, _Computed) else made
        self.named[id(named)] = named
        return made

    def _batch_norm(self, norm: Mapping[str, Any], name: str) -> Callable[[Any], Any]:
        """`slim.batch_norm`. Keras's momentum is slim's decay."""
        settings = {"epsilon": norm["epsilon"], "scale": norm["scale"], "center": norm["center"]}
        if norm.get("statistics", "moving") == "moving":
            made: Callable[[Any], Any] = self._make(layers.BatchNormalization, name, momentum=norm["decay"], **settings)
            return made
        # Keras's own layer has the moving averages normalize, whenever a model is asked for its predictions.
        identity = self._make(layers.Identity, name)

        def normalize(net: Tensor) -> Tensor:
            axes, shape = list(range(len(net.shape) - 1)), net.shape[-1:]
            mean, variance = (of(net, axis=axes, keepdims=True) for of in (ops.mean, ops.var))
            net = (net - mean) * ops.rsqrt(variance + norm["epsilon"])
            net = net * self._variable(f"{name}__gamma", shape, True) if norm["scale"] else net
            return identity(net + self._variable(f"{name}__beta", shape, True) if norm["center"] else net)

        return normalize


class _Computed:
    """Stock operations, with numbers of the layers' dtype, and an `Identity` that has their name."""

    def __init__(self, function: Callable[[Tensor], Tensor], **settings: Any) -> None:
        self.function = function
        self.identity = layers.Identity(**settings)

    def __call__(self, net: Tensor) -> Tensor:
        return self.identity(self.function(net))


def _computed(function: Callable[[Tensor], Tensor]) -> Callable[..., Callable[[Tensor], Tensor]]:
    return partial(_Computed, function)


def _squares(net: Tensor, least: float) -> Tensor:
    """The sum of the channels' squares, but at least a number."""
    return ops.maximum(ops.sum(ops.square(net), axis=-1, keepdims=True), least)


_POOLS = {"max_pool2d": "MaxPool", "avg_pool2d": "AvgPool"}


def _layer(node: Node, inputs: Sequence[Tensor]) -> tuple[Any, dict[str, Any]]:
    """The stock layer of a node's op, without BatchNorm and activation, and its settings."""
    a = node.attributes
    settings: dict[str, Any] = {}
    if "kernel_size" in a:
        settings["padding"] = "same" if a["padding"] == "SAME" else "valid"
        settings["strides"] = a["strides"]
    if "rate" in a:
        settings["dilation_rate"] = a["rate"]
    if "biases" in a:
        settings["use_bias"] = a["biases"]
    if node.op == "conv2d":
        settings |= {"filters": node.channels, "kernel_size": a["kernel_size"], "groups": a.get("groups", 1)}
        return layers.Conv2D, settings
    if node.op == "conv2d_transpose":
        return _conv2d_transpose(node, inputs, {"filters": node.channels, "kernel_size": a["kernel_size"], **settings})
    if node.op == "separable_conv2d":
        settings |= {"kernel_size": a["kernel_size"], "depth_multiplier": a["depth_multiplier"]}
        pointwise = layers.SeparableConv2D, {"filters": node.channels, **settings}
        return pointwise if a["pointwise"] else (layers.DepthwiseConv2D, settings)
    if node.op in _POOLS:
        # TensorFlow too knows how far to shrink the kernel only where the size is known as the graph is built.
        kernel_size = a["kernel_size"] if None in inputs[0].shape[1:3] else node.window(inputs[0].shape[1:3])
        layer = layers.MaxPooling2D if node.op == "max_pool2d" else layers.AveragePooling2D
        return layer, {"pool_size": kernel_size, **settings}
    of_op: dict[str, tuple[Any, dict[str, Any]]] = {
        "fully_connected": (layers.Dense, {"units": node.channels, **settings}),
        "dropout": (layers.Dropout, {"rate": 1 - a.get("keep_prob", 1)}),
        "add": (layers.Add, {}),
        "multiply": (layers.Multiply, {}),
        "scale": (_computed(lambda net: net * a["factor"] + a["offset"]), {}),
        "concat": (layers.Concatenate, {"axis": a.get("axis", -1)}),
        "mean": (layers.GlobalAveragePooling2D, {"keepdims": True}),
        "squeeze": (layers.Reshape, {"target_shape": (node.channels,)}),
        "flatten": (layers.Reshape, {"target_shape": (node.channels or -1,)}),
        "softmax": (layers.Softmax, {"axis": a.get("axis", -1)}),
        "l2_normalize": (_computed(lambda net: net * ops.rsqrt(_squares(net, a["epsilon"]))), {}),
        "prelu": (layers.PReLU, {"shared_axes": _shared_axes(node, inputs)}),
        "instance_norm": (
            layers.GroupNormalization,
            {"groups": -1, **{name: a[name] for name in ("epsilon", "center", "scale") if name in a}},
        ),
    }
    if node.op == "squeeze" and ("axes" in a or len(inputs[0].shape) != 4):
        axes = tuple(axis % len(inputs[0].shape) for axis in a.get("axes", (1, 2)))
        return _computed(lambda net: ops.squeeze(net, axis=axes)), {}
    if node.op in ("add", "multiply") and any(not _is_batch(net, len(inputs[0].shape)) for net in inputs):
        return _computed(lambda nets: reduce(ops.add if node.op == "add" else ops.multiply, nets)), {}
    if node.op not in of_op:
        raise ValueError(f"{node.scope}: Keras has no stock layer for {node.op}")
    return of_op[node.op]


def _is_batch(net: Tensor, rank: int) -> bool:
    """Whether a tensor is of the batch's size, as the layers that join tensors want it."""
    return keras.backend.is_keras_tensor(net) and len(net.shape) == rank and net.shape[0] is None


def _is_padded(node: Node) -> bool:
    """Whether a layer of zeros comes before the layer."""
    return node.op != "conv2d_transpose" and node.attributes.get("padding", "SAME") not in ("SAME", "VALID")


def _shared_axes(node: Node, inputs: Sequence[Tensor]) -> list[int]:
    """The axes along which a PReLU has one weight."""
    rank = len(inputs[0].shape) if inputs else 1
    return list(range(1, rank if node.attributes.get("shared") else rank - 1))


def _is_slims(node: Node) -> bool:
    """Whether the size of a transposed convolution is slim's, the stride times the input's, whatever that is."""
    a = node.attributes
    if a["padding"] != "SAME" or len(node.inputs) > 1:
        return False

    def sides(side: int) -> tuple[Any, ...]:
        return tuple(evaluate(size, lambda _, axis: side + axis) for size in a["output_size"])

    return all(sides(n) == tuple(by * (n + axis) for axis, by in enumerate(a["strides"], 1)) for n in (6, 7, 11))


def _transposed_sides(node: Node, inputs: Sequence[Tensor]) -> tuple[list[int], list[int]]:
    """How much is cut off before the whole of a transposed convolution, and by how much the rest is too short."""
    a = node.attributes
    before, lacking = [], []
    for axis in (0, 1):
        extent = a.get("rate", (1, 1))[axis] * (a["kernel_size"][axis] - 1) + 1
        whole = (number(node, ("size", 0, axis + 1), inputs) - 1) * a["strides"][axis] + extent
        side = number(node, a["output_size"][axis], inputs)
        first = a["padding"][axis][0] if not isinstance(a["padding"], str) else 0
        before.append(max(whole - side, 0) // 2 if a["padding"] == "SAME" else first)
        lacking.append(max(side + before[-1] - whole, 0))
    return before, lacking


def _conv2d_transpose(node: Node, inputs: Sequence[Tensor], settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    if "output_size" not in node.attributes or _is_slims(node):
        return layers.Conv2DTranspose, settings
    # The whole of it, of which `_cropped` takes what is wanted.
    _, lacking = _transposed_sides(node, inputs)
    return layers.Conv2DTranspose, {**settings, "padding": "valid", "output_padding": tuple(lacking)}


def _activation(name: str, *numbers: float) -> tuple[Any, dict[str, Any]]:
    """The layer of an activation, and its settings."""
    if name == "leaky_relu" and numbers:
        return layers.LeakyReLU, {"negative_slope": numbers[0]}
    if name == "elu" and numbers:
        return layers.ELU, {"alpha": numbers[0]}
    if name == "relu_n":
        return layers.ReLU, {"max_value": (numbers or (1.0,))[0]}
    if name == "clip":
        low, high = numbers or (-1.0, 1.0)
        return _computed(lambda net: ops.clip(net, low, high)), {}
    if name in FACTORS:
        (factor,) = numbers or (FACTORS[name],)
        # Keras's own have 1 / 6.
        if name == "hard_sigmoid":
            return _computed(lambda net: ops.relu6(net + 3.0) * factor), {}
        return _computed(lambda net: net * ops.relu6(net + 3.0) * factor), {}
    return _ACTIVATIONS[name]


_ACTIVATIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "relu": (layers.ReLU, {}),
    "relu6": (layers.ReLU, {"max_value": 6.0}),
    "leaky_relu": (layers.LeakyReLU, {"negative_slope": 0.2}),
    "elu": (layers.ELU, {}),
    **{name: (layers.Activation, {"activation": name}) for name in ("selu", "softplus", "softsign", "sigmoid", "tanh")},
    "swish": (layers.Activation, {"activation": "silu"}),
}
