"""The end points of a Keras model that slimport built or wrote, found by the names of its layers."""

from __future__ import annotations

import itertools
from typing import Any

import keras

from slimport import networks
from slimport.graph import Graph, scoped
from slimport.keras.network import Interpreter
from slimport.names import KERAS_LEAVES


def end_points(model: Any, scope: str | None = None, network: networks.Network | None = None) -> Any:
    """A model from the same inputs to every end point that slim gives.

    It needs nothing but the layers' names and shapes, so it takes a model that `keras.saving.load_model` read.

    Args:
      model: a functional `keras.Model` that slimport built or wrote.
      scope: the scope in the names of the end points; None takes it from the model's name.
      network: what the model was built of, where it is no network of slim's: its layers do not tell.

    Returns:
      A `keras.Model` from its inputs to {slim end point name: NHWC tensor}, sharing the layers of `model`.

    Raises:
      ValueError: slimport did not make the model, or made it of another network.
    """
    graph = graph_of(model) if network is None else network.graph()
    if len(model.inputs) != len(graph.inputs):
        raise ValueError(f"{model.name}: takes {len(model.inputs)} inputs, and the network {len(graph.inputs)}")
    of_layer = {layer.name: layer for layer in model.layers}
    interpreter = Interpreter(graph, model.layers[-1].dtype_policy, dict(zip(graph.inputs, model.inputs, strict=True)))
    # The model's own operations keep their names.
    interpreter.visited.update((id(operation), operation) for operation in model.operations)
    for index in range(1, len(graph.nodes)):
        names = interpreter.names(index)
        if names and names[-1] in of_layer:
            # A layer that others share has several outputs; its own is the first.
            interpreter.values[index] = of_layer[names[-1]]._inbound_nodes[0].output_tensors[0]
    scope = model.name.replace("__", "/") if scope is None else scope
    # Nodes that the model's outputs do not need (`predictions`) get layers here.
    outputs = {name: interpreter.value(point.node) for name, point in graph.end_point_names(scope).items()}
    return keras.Model(model.inputs, outputs, name=f"{model.name}__end_points")


def variables(model: Any) -> dict[str, Any]:
    """Its weights, Keras variables, by slim's names without the model's scope. Some have more axes of 1 than slim's."""
    found = {}
    for layer in model.layers:
        scope = layer.name.replace("__", "/")
        for weight in layer.weights:
            if isinstance(layer, keras.layers.Embedding):
                # A variable by itself: its layer has its whole name.
                found[scope] = weight
            elif isinstance(layer, keras.layers.DepthwiseConv2D) and weight.name == "kernel":
                found[f"{scope}/depthwise_weights"] = weight
            elif "seed" not in weight.name:
                found[scoped(scope, KERAS_LEAVES.get(weight.name, weight.name))] = weight
    return found


def in_dtype(model: Any, dtype: str) -> Any:
    """A copy of a model that computes in a dtype, with its weights; the model itself, if all of it does."""
    if {layer.dtype_policy.name for layer in model.layers} == {dtype}:
        return model

    def copied(operation: Any) -> Any:
        config = operation.get_config()
        if isinstance(operation, keras.layers.Layer):
            # Random values take long, and are replaced.
            zeros = {name: "zeros" for name in config if name.endswith("_initializer")}
            config.update(zeros, dtype=dtype)
        elif "float" in str(config.get("dtype")):
            # A cast to what the layers compute in.
            config["dtype"] = dtype
        return operation.__class__.from_config(config)

    # Keras would keep the inputs' dtype, and an operation that is no layer computes in that.
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(
            batch_shape=tensor.shape, dtype=dtype if "float" in tensor.dtype else tensor.dtype, name=tensor.name
        ),
        model.input,
    )
    clone = keras.models.clone_model(model, input_tensors=inputs, clone_function=copied)
    clone.set_weights(model.get_weights())
    return clone


def graph_of(model: Any) -> Graph:
    """The graph of a model that slimport built or wrote: of those with its variables, the one whose end points it has.

    The strides and rates may be others, which change no end point's name.

    Raises:
      ValueError: slimport did not make the model.
    """
    shapes = {name: tuple(weight.shape) for name, weight in variables(model).items()}
    layers = {layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)}
    for family in networks.FAMILIES.values():
        if "" not in family.scopes(shapes):
            continue
        try:
            network = family.recognised(shapes)
        except ValueError:
            continue
        if network.variables() != shapes:
            continue
        # Only these decide on what end points there are, and all of them add some.
        switches = [name for name, default in network.arguments.items() if isinstance(default, bool)]
        for values in itertools.product((True, False), repeat=len(switches)):
            graph = network.graph(**dict(zip(switches, values, strict=True)))
            interpreter = Interpreter(graph, None, {})
            needed = frozenset().union(*map(graph.needed_by, (graph.output, *graph.branches)))
            ends = {graph.output, *(point.node for point in graph.end_points if point.node in needed)}
            if layers.issuperset(interpreter.names(index)[-1] for index in ends):
                return graph
    raise ValueError(f"{model.name}: not a model that slimport built or wrote, so its end points are not known")
