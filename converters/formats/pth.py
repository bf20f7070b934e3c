"""`.pth`: a plain state dict, for `model.load_state_dict(torch.load(FILE, weights_only=True))`.

A state dict has metadata (`state_dict._metadata`), where PyTorch keeps the versions of modules; the description of the
network is there too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from converters import frameworks, mapping
from converters.errors import InputError, first_line
from converters.files import atomic
from converters.formats import pickled, zipped
from converters.formats.base import (
    Format,
    OpenFile,
    Weights,
    description_text,
    pytorch_file,
    pytorch_names,
    pytorch_pieces,
    read_description,
)
from slimport.graph import Shape

_KEY = "slimport"


@contextmanager
def open_file(path: Path, step: int | None = None) -> Iterator[OpenFile]:  # noqa: ARG001
    """Opens a file. Nothing in it is run, and PyTorch is not needed, but for files of before PyTorch 1.6.

    Raises:
      InputError: it is not a file of plain tensors.
    """
    if not pickled.is_zipped(path):
        yield _written_before_1_6(path)
        return
    with zipped.opened(path, "a PyTorch file") as archive:
        state = pickled.read(archive)
        tensors = {name: (tensor.shape, tensor.storage.dtype) for name, tensor in state.tensors.items()}
        read = pickled.reader(archive, state)
        yield pytorch_file(path, "pth", tensors, read, _description(path, state.metadata))


def _written_before_1_6(path: Path) -> OpenFile:
    """The file as PyTorch reads it, whole."""
    torch = frameworks.require("torch")
    try:
        with frameworks.quiet():
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path}: not a PyTorch file of plain tensors: {first_line(error)}") from error
    if not isinstance(state, dict) or not all(map(_is_plain, state, state.values())):
        raise InputError(f"{path}: not a state dict, a dict from names to plain tensors; save model.state_dict()")
    dtypes = {name: mapping.tensor_array(tensor.new_empty(0)).dtype for name, tensor in state.items()}
    tensors = {name: (tuple(tensor.shape), dtypes[name]) for name, tensor in state.items()}
    return pytorch_file(path, "pth", tensors, lambda name: mapping.tensor_array(state[name]), {})


def _is_plain(name: Any, tensor: Any) -> bool:
    """Whether an entry of a state dict has a name, and is a tensor that NumPy can hold."""
    torch = frameworks.require("torch")
    return (
        isinstance(name, str)
        and isinstance(tensor, torch.Tensor)
        and (tensor.layout, tensor.device.type) == (torch.strided, "cpu")
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )


def write(weights: Weights, path: Path) -> None:
    """Writes the state dict as `torch.save` does, one variable at a time."""
    frameworks.require("torch")
    names = pytorch_names(weights.dtypes)
    metadata = OrderedDict({"": {"version": 1, _KEY: description_text(weights.description())}})

    def arrays() -> Iterator[tuple[str, np.dtype[Any], Shape, pickled.Pieces]]:
        for name, array in weights.stream():
            yield names[name], array.dtype, mapping.pytorch_shape(name, array.shape), pytorch_pieces(name, array)

    with atomic(path) as temporary:
        pickled.write(temporary, arrays(), metadata)


def _description(path: Path, metadata: Any) -> dict[str, Any]:
    own = metadata.get("") if isinstance(metadata, dict) else None
    text = own.get(_KEY) if isinstance(own, dict) else None
    return read_description(path, text) if isinstance(text, str) else {}


FORMAT = Format("pth", "pytorch", (".pth", ".pt"), 1, open_file, write)
