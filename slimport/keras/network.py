"""The Keras interpreter of a graph: stock layers alone, named by slim's scopes. Tensors are NHWC.

A scope `a/b` makes layers named `a__b`, `a__b__BatchNorm`, `a__b__Relu`: Keras refuses `/` in a name, and its torch
backend refuses `.`. A pool that is no end point has its op behind its scope, as TensorFlow's op has (`pool1__MaxPool`);
an end point that no layer is named after gets an `Identity` of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import layers

from slimport import networks
from slimport.graph import ACTIVATIONS, Graph, Node, Sides

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
        does so where the size is given, as in slim.
      arguments: of the network's definition; `network.arguments` lists them.

    Returns:
      A functional `keras.Model` from images [batch, height, width, in_channels] to logits, or to features where there
      are no classes. A branch with variables that the output does not need (`AuxLogits`) is a further output.

    Raises:
      ValueError: the network cannot be built with the arguments.
    """
    graph = network.graph(**arguments)
    images = keras.Input(
        (*(image_size or (None, None)), network.in_channels), dtype=dtype and keras.DTypePolicy(dtype).compute_dtype
    )
    interpreter = Interpreter(graph, dtype, {0: images})
    outputs = [interpreter.value(index) for index in (graph.output, *graph.branches)]
    name = layer_name(network.default_scope if scope is None else scope)
    return keras.Model(images, outputs if len(outputs) > 1 else outputs[0], name=name or None)


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
        self.points: dict[int, list[str]] = {}
        for point in graph.end_points:
            self.points.setdefault(point.node, []).append(point.name)
        self.scopes = {node.scope for node in graph.nodes}

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
        explicit = node.attributes.get("padding", "SAME") not in ("SAME", "VALID")
        own = f"{node.scope}/{_POOLS[node.op]}" if node.op in _POOLS and node.scope not in points else node.scope
        names = [f"{node.scope}/Pad"] * explicit + [own] * (node.op != "activation")
        names += [f"{node.scope}/BatchNorm"] * (node.op != "batch_norm" and node.normalizer is not None)
        names += [f"{node.scope}/{ACTIVATIONS[node.activation]}"] if node.activation else []
        names += [point for point in points if point not in self.scopes]
        return [layer_name(name) for name in names]

    def _layers(self, index: int) -> Tensor:
        node = self.graph.nodes[index]
        inputs = [self.values[i] for i in node.inputs]
        made: list[Callable[[Any], Any]] = []
        names = iter(self.names(index))
        if node.attributes.get("padding", "SAME") not in ("SAME", "VALID"):
            made.append(self._make(layers.ZeroPadding2D, next(names), padding=node.attributes["padding"]))
        if node.op == "batch_norm":
            made.append(self._batch_norm(node.attributes, next(names)))
        elif node.op != "activation":
            layer, settings = _layer(node, inputs[0])
            made.append(self._make(layer, next(names), **settings))
            if node.normalizer is not None:
                made.append(self._batch_norm(node.normalizer, next(names)))
        if node.activation:
            layer, settings = _ACTIVATIONS[node.activation]
            made.append(self._make(layer, next(names), **settings))
        made += [self._make(layers.Identity, name) for name in names]
        net = inputs if len(inputs) > 1 else inputs[0]
        for apply in made:
            net = apply(net)
        return net

    def _make(self, layer: Any, name: str, **settings: Any) -> Any:
        return layer(dtype=self.dtype, name=name, **settings)

    def _batch_norm(self, norm: Mapping[str, Any], name: str) -> Any:
        """`slim.batch_norm`. Keras's momentum is slim's decay."""
        settings = {"epsilon": norm["epsilon"], "scale": norm["scale"], "center": norm["center"]}
        return self._make(layers.BatchNormalization, name, momentum=norm["decay"], **settings)


def _computed(function: Callable[[Tensor], Tensor]) -> Callable[..., Callable[[Tensor], Tensor]]:
    """Stock operations, with numbers of the layers' dtype, and an `Identity` that has their name."""

    def make(**settings: Any) -> Callable[[Tensor], Tensor]:
        identity = layers.Identity(**settings)
        return lambda net: identity(function(net))

    return make


_POOLS = {"max_pool2d": "MaxPool", "avg_pool2d": "AvgPool"}


def _layer(node: Node, inputs: Tensor) -> tuple[Any, dict[str, Any]]:
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
    if node.op in ("conv2d", "conv2d_transpose"):
        layer = layers.Conv2D if node.op == "conv2d" else layers.Conv2DTranspose
        return layer, {"filters": node.channels, "kernel_size": a["kernel_size"], **settings}
    if node.op == "separable_conv2d":
        settings |= {"kernel_size": a["kernel_size"], "depth_multiplier": a["depth_multiplier"]}
        pointwise = layers.SeparableConv2D, {"filters": node.channels, **settings}
        return pointwise if a["pointwise"] else (layers.DepthwiseConv2D, settings)
    if node.op in _POOLS:
        sides = zip(a["kernel_size"], inputs.shape[1:3], strict=True)
        # TensorFlow too knows how far to shrink the kernel only where the size is known as the graph is built.
        shrinks = a["clipped"] and None not in inputs.shape[1:3]
        kernel_size = tuple(min(side, of) for side, of in sides) if shrinks else a["kernel_size"]
        layer = layers.MaxPooling2D if node.op == "max_pool2d" else layers.AveragePooling2D
        return layer, {"pool_size": kernel_size, **settings}
    of_op: dict[str, tuple[Any, dict[str, Any]]] = {
        "fully_connected": (layers.Dense, {"units": node.channels, **settings}),
        "dropout": (layers.Dropout, {"rate": 1 - a.get("keep_prob", 1)}),
        "add": (layers.Add, {}),
        "multiply": (layers.Multiply, {}),
        "scale": (_computed(lambda net: net * a["factor"] + a["offset"]), {}),
        "concat": (layers.Concatenate, {}),
        "mean": (layers.GlobalAveragePooling2D, {"keepdims": True}),
        "squeeze": (layers.Reshape, {"target_shape": (node.channels,)}),
        "flatten": (layers.Reshape, {"target_shape": (node.channels,)}),
        "softmax": (layers.Softmax, {}),
    }
    if node.op not in of_op:
        raise ValueError(f"{node.scope}: Keras has no stock layer for {node.op}")
    return of_op[node.op]


_ACTIVATIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "relu": (layers.ReLU, {}),
    "relu6": (layers.ReLU, {"max_value": 6.0}),
    "leaky_relu": (layers.LeakyReLU, {"negative_slope": 0.2}),
    "elu": (layers.ELU, {}),
    **{name: (layers.Activation, {"activation": name}) for name in ("selu", "softplus", "sigmoid", "tanh")},
    "swish": (layers.Activation, {"activation": "silu"}),
    # Keras's own have 1 / 6 where slim has 0.16667, or the float32 of 1 / 6.
    "hard_sigmoid": (_computed(lambda net: keras.ops.relu6(net + 3.0) * 0.16667), {}),
    "hard_swish": (_computed(lambda net: net * keras.ops.relu6(net + 3.0) * 0.1666666716337204), {}),
}
