"""The ports with a source's weights in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from converters import frameworks, mapping
from converters.mapping import Array
from converters.sources import PathLike, Source, open_source
from converters.views import AS_IT_IS, View
from slimport.networks import Network

Variables = Iterable[tuple[str, Array]]
"""(slim name relative to the scope, array); an array is needed only until the next one is asked for."""


def load_pytorch(
    path: PathLike, scope: str | None = None, step: int | None = None, view: View = AS_IT_IS, **arguments: Any
) -> Any:
    """The PyTorch model of a checkpoint or of a converted file, in eval mode.

    Args:
      path: what `open_source` takes.
      scope: which network, where there are several.
      step: which checkpoint of a training run's directory; None is the newest.
      view: what to take of the source's network.
      arguments: of the network (`global_pool`, say), as the family's `arguments` lists them.

    Raises:
      InputError: it cannot be read, or holds no whole network, or PyTorch is not installed.
    """
    with open_source(path, scope, step, view) as source:
        return pytorch_model(source, **arguments)


def load_keras(
    path: PathLike, scope: str | None = None, step: int | None = None, view: View = AS_IT_IS, **arguments: Any
) -> Any:
    """The Keras model of a checkpoint or of a converted file.

    Args:
      path: what `open_source` takes.
      scope: which network, where there are several.
      step: which checkpoint of a training run's directory; None is the newest.
      view: what to take of the source's network.
      arguments: of the network (`global_pool`, say), as the family's `arguments` lists them, and `dtype`.

    Raises:
      InputError: it cannot be read, or holds no whole network, or Keras or its backend is not installed.
    """
    with open_source(path, scope, step, view) as source:
        return keras_model(source, **arguments)


def state_dict(variables: Variables) -> dict[str, Any]:
    """Variables as tensors by PyTorch's names, in their dtypes."""
    state = {}
    for name, array in variables:
        # A copy even where the layout is the same: torch's tensors can be written to, and a checkpoint's arrays cannot.
        laid_out = mapping.pytorch_array(name, array)
        laid_out = laid_out.copy() if laid_out is array else laid_out
        state[mapping.pytorch_name(name)] = mapping.array_tensor(laid_out)
    return state


def pytorch_model(source: Source, **arguments: Any) -> Any:
    """The PyTorch port with the source's weights in, in their dtype, in eval mode."""
    return pytorch_port(source.network, source.stream(), scope=source.scope, **arguments)


def pytorch_port(network: Network, variables: Variables, **arguments: Any) -> Any:
    """The PyTorch port of a network with these variables in, in the dtype of the first, in eval mode."""
    state = state_dict(variables)
    from slimport.pytorch import build

    model = build(network, **arguments)
    model.to(next(iter(state.values())).dtype)
    model.load_state_dict(state)
    return model.eval()


def pytorch_variables(model: Any) -> Iterator[tuple[str, Array]]:
    """(slim name relative to the scope, array in slim's layout) for everything in a module's state dict.

    Copies, so that a later training step does not change them.
    """
    state = model.state_dict()
    for name, slim_name in mapping.slim_names(state).items():
        yield slim_name, mapping.slim_layout(slim_name, mapping.tensor_array(state[name]).copy())


def keras_variables(model: Any) -> Iterator[tuple[str, Array]]:
    """(slim name relative to the scope, array) for every weight of a Keras model."""
    from slimport.keras.end_points import variables

    for name, weight in variables(model).items():
        yield name, np.array(weight)


def keras_model(source: Source, **arguments: Any) -> Any:
    """The Keras port with the source's weights in; without a `dtype`, its layers are float64 if a weight is."""
    if np.dtype(np.float64) in source.dtypes.values():
        arguments.setdefault("dtype", "float64")
    return keras_port(source.network, source.stream(), scope=source.scope, **arguments)


def keras_port(network: Network, variables: Variables, **arguments: Any) -> Any:
    """The Keras port of a network with these variables in, cast to its layers' dtype."""
    frameworks.import_keras()
    from slimport.keras import build
    from slimport.keras.end_points import variables as weights_of

    model = build(network, **arguments)
    weights = weights_of(model)
    for name, array in variables:
        weights[name].assign(np.asarray(array, dtype=weights[name].dtype))
    return model
