"""Models in memory: a port with a network's weights, and the variables of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    if np.dtype(np.float64) in weights.dtypes.values():
        arguments.setdefault("dtype", "float64")
    return keras_port(weights.network, weights.stream(), scope=weights.scope, **{**weights.arguments, **arguments})


def keras_port(network: Network, variables: Variables, **arguments: Any) -> Any:
    """The Keras port of a network with these variables, cast to its layers' dtype."""
    frameworks.require("keras")
    from slimport.keras import build
    from slimport.keras.end_points import assign
    from slimport.keras.end_points import variables as weights_of

    model = build(network, **arguments)
    weights = weights_of(model)
    for name, array in variables:
        assign(weights[name], array)
    return model


def keras_variables(model: Any) -> Iterator[tuple[str, Array]]:
    """Yields (slim's name relative to the scope, array) for the weights of a Keras model."""
    from slimport.keras.end_points import variables

    for name, weight in variables(model).items():
        yield name, np.array(weight)
