"""Models in memory: a port with a network's weights, and the variables of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from converters import frameworks, mapping
from converters.errors import InputError
from converters.formats.base import Weights
from converters.variables import Array
from slimport.networks import Network

Variables = Iterable[tuple[str, Array]]
"""(slim's name relative to the scope, array); an array is needed only until the next one is requested."""


def state_dict(variables: Variables) -> dict[str, Any]:
    """Variables as tensors by PyTorch's names, in their dtypes."""
    state: dict[str, Any] = {}
    for name, array in variables:
        if (own := mapping.pytorch_name(name)) in state:
            raise InputError(f"{name}: a second variable that would be {own} in PyTorch; leave one out")
        # A copy even if the layout is the same: torch's tensors are writable, and a checkpoint's arrays are not.
        laid_out = mapping.pytorch_array(name, array)
        laid_out = laid_out.copy() if laid_out is array else laid_out
        state[own] = mapping.array_tensor(laid_out)
    return state


def pytorch_model(weights: Weights, **arguments: Any) -> Any:
    """The PyTorch port with these weights, in their dtype and in eval mode.

    Args:
      weights: the network, its arguments and its variables.
      arguments: of the definition, in place of those that the weights have.
    """
    return pytorch_port(weights.network, weights.stream(), scope=weights.scope, **{**weights.arguments, **arguments})


def pytorch_port(network: Network, variables: Variables, **arguments: Any) -> Any:
    """The PyTorch port of a network with these variables, in the dtype of the first, in eval mode."""
    state = state_dict(variables)
    from slimport.pytorch import build

    model = build(network, **arguments)
    model.to(next(iter(state.values())).dtype)
    model.load_state_dict(state)
    return model.eval()


def pytorch_variables(model: Any) -> Iterator[tuple[str, Array]]:
    """Yields (slim's name relative to the scope, array in slim's layout) for a module's state dict.

    Copies, so that a later training step does not change them.
    """
    state = model.state_dict()
    network = getattr(model, "network", None)
    shapes = network.variables() if isinstance(network, Network) else {}
    described = {mapping.pytorch_name(name): name for name in shapes}
    for name, slim_name in mapping.slim_names(state).items():
        slim_name = described.get(name, slim_name)
        array = mapping.slim_layout(slim_name, mapping.tensor_array(state[name]).copy())
        fits = slim_name in shapes and array.size == np.prod(shapes[slim_name])
        yield slim_name, array.reshape(shapes[slim_name]) if fits else array


def keras_model(weights: Weights, **arguments: Any) -> Any:
    """The Keras port with these weights; without a `dtype`, its layers are float64 if a weight is.

    Args:
      weights: the network, its arguments and its variables.
      arguments: of the definition, in place of those that the weights have, and `dtype`.
    """
    return keras_port(weights.network, weights.stream(), **_keras_arguments(weights, arguments))


def _keras_arguments(weights: Weights, arguments: Mapping[str, Any]) -> dict[str, Any]:
    wide = {"dtype": "float64"} if np.dtype(np.float64) in weights.dtypes.values() else {}
    return {"scope": weights.scope, **weights.arguments, **wide, **arguments}


@contextmanager
def keras_structure(weights: Weights) -> Iterator[tuple[Any, Callable[[Any], Array]]]:
    """Yields the Keras port of a network without values, and a function for the value of a variable of its own."""
    keras = frameworks.require("keras")
    model, scope = _without_values(weights.network, **_keras_arguments(weights, {}))

    def current(variable: Any) -> Array:
        found = scope.get_current_value(variable)
        return np.asarray(keras.ops.convert_to_numpy(variable if found is None else found))

    with eagerly():
        yield model, current


def _without_values(network: Network, **arguments: Any) -> tuple[Any, Any]:
    """The Keras port of a network whose variables have no values, and the scope in which it was built."""
    keras = frameworks.require("keras")
    from slimport.keras import build

    state = import_module("keras.src.backend.common.global_state")
    before = list(state.get_global_attribute("uninitialized_variables") or ())
    with eagerly(), keras.StatelessScope(initialize_variables=False) as scope:
        model = build(network, **arguments)
    # Or Keras would make their values the next time that it makes others'.
    state.set_global_attribute("uninitialized_variables", before)
    return model, scope


def keras_port(network: Network, variables: Variables, **arguments: Any) -> Any:
    """The Keras port of a network with these variables, cast to its layers' dtype.

    Where TensorFlow does not execute eagerly, in a program of TensorFlow 1, it is a part of the default graph, whose
    initializers (`tf.global_variables_initializer()`) have these values.
    """
    ops = frameworks.require("keras").ops
    weights_of = import_module("slimport.keras.end_points").variables
    model, _ = _without_values(network, **arguments)
    weights = weights_of(model)
    for name, array in variables:
        variable = weights[name]
        # Keras's variables may have more axes of 1.
        value = np.array(array, variable.dtype).reshape(variable.shape)
        # To replace a random value takes longer, and in a graph an operation that nobody runs.
        variable._initializer = lambda _, dtype, value=value: ops.convert_to_tensor(value, dtype)
        variable._deferred_initialize()
    for variable in model.variables:
        if variable._initializer is not None:
            variable._deferred_initialize()
    return model


def executes_eagerly() -> bool:
    """Whether Keras computes at once, and not in a graph of TensorFlow 1."""
    if frameworks.require("keras").config.backend() != "tensorflow":
        return True
    return bool(import_module("tensorflow").executing_eagerly())


@contextmanager
def eagerly() -> Iterator[None]:
    """Executes eagerly where a program of TensorFlow 1 has disabled it: Keras cannot compute without."""
    if executes_eagerly():
        yield
        return
    with import_module("tensorflow.python.eager.context").eager_mode():
        yield


def eager_copy(model: Any) -> Any:
    """A Keras model that can compute; itself, or a copy of one in a graph of TensorFlow 1, with its values.

    These are those of the default session, or else those of the initializers.
    """
    values = [variable.value for variable in model.variables]
    if not any(getattr(value, "_in_graph_mode", False) for value in values):
        return model
    tf = import_module("tensorflow.compat.v1")
    session = tf.get_default_session()
    if session is None:
        with tf.Session(graph=values[0].graph) as session:
            session.run([value.initializer for value in values])
            arrays = session.run(values)
    else:
        arrays = session.run(values)
    with eagerly():
        copied = frameworks.require("keras").models.clone_model(model)
        for variable, array in zip(copied.variables, arrays, strict=True):
            variable.assign(array)
    return copied


def keras_variables(model: Any) -> Iterator[tuple[str, Array]]:
    """Yields (slim's name relative to the scope, array) for the weights of a Keras model."""
    from slimport.keras.end_points import variables

    for name, weight in variables(model).items():
        yield name, np.array(weight)
