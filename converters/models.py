"""The ports with a source's weights in."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters import frameworks, mapping
from converters.sources import PathLike, Source, open_source


def load_pytorch(path: PathLike, scope: str | None = None, step: int | None = None, **arguments: Any) -> Any:
    """The PyTorch model of a checkpoint or of a converted file, in eval mode.

    Args:
      path: what `open_source` takes.
      scope: which network, where there are several.
      step: which checkpoint of a training run's directory; None is the newest.
      arguments: of the model's class (`global_pool`, `output_stride`, `spatial_squeeze`).

    Raises:
      InputError: it cannot be read, or holds no whole network, or PyTorch is not installed.
    """
    with open_source(path, scope, step) as source:
        return pytorch_model(source, **arguments)


def load_keras(path: PathLike, scope: str | None = None, step: int | None = None, **arguments: Any) -> Any:
    """The Keras model of a checkpoint or of a converted file.

    Args:
      path: what `open_source` takes.
      scope: which network, where there are several.
      step: which checkpoint of a training run's directory; None is the newest.
      arguments: of the family's `build` (`global_pool`, `output_stride`, `spatial_squeeze`, `dtype`).

    Raises:
      InputError: it cannot be read, or holds no whole network, or Keras or its backend is not installed.
    """
    with open_source(path, scope, step) as source:
        return keras_model(source, **arguments)


def state_dict(source: Source) -> dict[str, Any]:
    """The source's variables as tensors by PyTorch's names, in the file's dtypes."""
    torch = frameworks.import_torch()
    state = {}
    for name, array in source.stream():
        # A copy even where the layout is the same: torch's tensors can be written to, and a checkpoint's arrays cannot.
        laid_out = mapping.pytorch_array(name, array)
        laid_out = laid_out.copy() if laid_out is array else laid_out
        if laid_out.dtype.name == "bfloat16":
            # NumPy's bfloat16 is ml_dtypes's, which torch does not know; the bits are the same.
            state[mapping.pytorch_name(name)] = torch.from_numpy(laid_out.view(np.int16)).view(torch.bfloat16)
        else:
            state[mapping.pytorch_name(name)] = torch.from_numpy(laid_out)
    return state


def pytorch_model(source: Source, **arguments: Any) -> Any:
    """The PyTorch port with the source's weights in, in their dtype, in eval mode."""
    frameworks.import_torch()
    from slimport.pytorch import build

    state = state_dict(source)
    model = build(source.network, scope=source.scope, **arguments)
    model.to(next(iter(state.values())).dtype)
    model.load_state_dict(state)
    return model.eval()


def keras_model(source: Source, **arguments: Any) -> Any:
    """The Keras port with the source's weights in; without a `dtype`, its layers are float64 if a weight is."""
    frameworks.import_keras()
    from slimport.keras import build

    if np.dtype(np.float64) in source.dtypes.values():
        arguments.setdefault("dtype", "float64")
    model = build(source.network, scope=source.scope, **arguments)
    layers = {layer.name: layer for layer in model.layers}
    for name, array in source.stream():
        layer, weight = mapping.keras_name(name)
        getattr(layers[layer], weight).assign(np.asarray(array, dtype=layers[layer].variable_dtype))
    return model
