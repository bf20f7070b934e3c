"""`.pt2`: a program of `torch.export`, for `torch.export.load(FILE).module()(images)`.

To load a program is to run code from its file: its sample inputs and some constants are pickles, its shapes are
expressions that are evaluated. So only `verify` and `predict` on a program do it. Its weights are read as what they
are, raw bytes in a zip archive with a table of their shapes in JSON, and its description likewise. Source:
torch/export/pt2_archive.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from converters import frameworks
from converters.errors import InputError
from converters.files import atomic, check_destination
from converters.formats import programs, zipped
from converters.formats.base import Format, OpenFile, Weights, pytorch_file, read_description, read_json
from converters.formats.models import pytorch_model
from converters.variables import Array

_WEIGHTS = "data/weights/"
_TABLE = f"{_WEIGHTS}model_weights_config.json"
_EXTRA = f"extra/{programs.NOTES}"
_DTYPES = {5: "int64", 6: "float16", 7: "float32", 8: "float64", 13: "bfloat16"}
"""By the numbers of torch._export.serde.schema.ScalarType."""


class _Tensor(NamedTuple):
    """A weight: its member of the archive, its shape and its dtype."""

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@contextmanager
def open_file(path: Path, step: int | None = None) -> Iterator[OpenFile]:  # noqa: ARG001
    """Opens a file: the program's parameters and buffers. The program is not loaded, and PyTorch is not needed.

    Raises:
      InputError: slimport did not write it, or it is damaged.
    """
    with zipped.opened(path, "a program of torch.export") as archive:
        folder = next((name.removesuffix(_EXTRA) for name in archive.namelist() if name.endswith(f"/{_EXTRA}")), None)
        if folder is None:
            raise InputError(
                f"{path}: slimport did not write it, and to load a program of others runs code from it; convert the "
                "weights that it was made from"
            )
        if f"{folder}{_TABLE}" not in archive.namelist():
            raise InputError(f"{path}: written with PyTorch before 2.9; convert its source again")
        if zipped.text(archive, f"{folder}byteorder") != b"little":
            raise InputError(f"{path}: written on a big-endian machine; convert its source here")
        description = read_description(path, zipped.text(archive, f"{folder}{_EXTRA}"))
        table = read_json(path, zipped.text(archive, f"{folder}{_TABLE}"), "its table of weights")
        tensors = _tensors(path, table, f"{folder}{_WEIGHTS}")

        def read(name: str) -> Array:
            tensor = tensors[name]
            values = zipped.array(archive, tensor.member, tensor.dtype)
            if len(values) != math.prod(tensor.shape):
                raise InputError(f"{path}: damaged: {name} of shape {list(tensor.shape)} has {len(values)} values")
            return values.reshape(tensor.shape)

        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        yield pytorch_file(path, "pt2", shapes, read, description)


def _tensors(path: Path, table: Mapping[str, Any], folder: str) -> dict[str, _Tensor]:
    """The weights by name."""
    found = {}
    try:
        for name, said in table["config"].items():
            meta = said["tensor_meta"]
            shape, strides = (tuple(side["as_int"] for side in meta[key]) for key in ("sizes", "strides"))
            if any(type(side) is not int or side < 0 for side in shape):
                raise ValueError(f"a shape of {name}")
            contiguous = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
            if said["use_pickle"] or meta["storage_offset"]["as_int"] or strides != contiguous:
                raise ValueError(f"{name} is not stored as it is")
            if _DTYPES[meta["dtype"]] == "bfloat16":
                # Its import makes the name known to NumPy.
                frameworks.require("ml_dtypes")
            found[name] = _Tensor(f"{folder}{said['path_name']}", shape, np.dtype(_DTYPES[meta["dtype"]]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its table of weights is damaged: {error}; convert its source again") from error
    return found


def write(weights: Weights, path: Path) -> None:
    """Writes the program, with the weights in their dtype and the network's arguments."""
    check_destination(path)
    torch = frameworks.require("torch")
    weights = weights.without_auxiliary()
    model = pytorch_model(weights)
    program = programs.export(model)
    # Operations have the same names whatever is returned.
    every, end_points = programs.export_end_points(model)
    named = zip(end_points, every.graph.output_node().args[0][-len(end_points) :], strict=True)
    there = {node.name for node in program.graph.nodes}
    values = {name: node.name for name, node in named if node.name in there}
    extra = {programs.NOTES: programs.notes(weights.description(), values)}
    # Images that it was traced with, which are larger than the weights, and which nothing needs.
    program.example_inputs = None
    # In memory first: if the disk is full, PyTorch's file writer ends the process.
    content = io.BytesIO()
    torch.export.save(program, content, extra_files=extra)
    with atomic(path) as temporary:
        temporary.write_bytes(content.getbuffer())


FORMAT = Format("pt2", "pytorch", (".pt2",), 2, open_file, write, program=True)
