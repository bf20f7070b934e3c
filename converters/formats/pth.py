"""`.pth`: a plain state dict, for `model.load_state_dict(torch.load(FILE, weights_only=True))`.

A state dict has metadata (`state_dict._metadata`), where PyTorch keeps the versions of modules; the description of the
network is there too.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from converters import frameworks, mapping
from converters.errors import InputError, first_line
from converters.files import atomic
from converters.formats.base import Format, OpenFile, Weights, pytorch_file
from converters.formats.models import state_dict

_KEY = "slimport"


@contextmanager
def open_file(path: Path, step: int | None = None) -> Iterator[OpenFile]:  # noqa: ARG001
    """Opens a file. Only tensors are unpickled.

    Raises:
      InputError: it is not a file of plain tensors.
    """
    torch = frameworks.require("torch")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise InputError(f"{path}: not a PyTorch file of plain tensors: {first_line(error)}") from error
    yield of_state(path, "pth", state, _description(state))


def of_state(path: Path, format_: str, state: Any, description: dict[str, Any]) -> OpenFile:
    """The file of this state dict."""
    torch = frameworks.require("torch")
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise InputError(f"{path}: not a state dict, a dict from names to tensors")
    dtypes = {dtype: _numpy_dtype(dtype) for dtype in {tensor.dtype for tensor in state.values()}}
    tensors = {name: (tuple(tensor.shape), dtypes[tensor.dtype]) for name, tensor in state.items()}
    return pytorch_file(path, format_, tensors, lambda name: mapping.tensor_array(state[name]), description)


def write(weights: Weights, path: Path) -> None:
    """Writes the state dict with `torch.save`."""
    torch = frameworks.require("torch")
    state: Any = OrderedDict(state_dict(weights.stream()))
    state._metadata = OrderedDict({"": {"version": 1, _KEY: json.dumps(weights.description())}})
    with atomic(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:
            # PyTorch's error for a full disk.
            raise OSError(f"torch.save: {first_line(error)}") from error


def _description(state: Any) -> dict[str, Any]:
    try:
        found = json.loads(state._metadata[""][_KEY])
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _numpy_dtype(dtype: Any) -> np.dtype[Any]:
    torch = frameworks.require("torch")
    return mapping.tensor_array(torch.empty(0, dtype=dtype)).dtype


FORMAT = Format("pth", "pytorch", (".pth", ".pt"), 1, open_file, write)
