"""safetensors: PyTorch's names and layout, with a description of the network in the metadata.

Written and read here and not by the safetensors library: variables flow from file to file one at a time, and a file
that is cut off while it is read is an error and not the end of the process. The format: 8 bytes of header length, a
JSON header, the tensors without gaps. Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from converters import frameworks, mapping
from converters.errors import InputError
from converters.files import Unchanged, atomic
from converters.formats.base import (
    LARGEST_TEXT,
    Format,
    OpenFile,
    Weights,
    check_count,
    description_text,
    pytorch_file,
    pytorch_names,
    pytorch_pieces,
    read_description,
    read_json,
)
from converters.variables import Array

_DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
_NUMPY_DTYPES = {safetensors: numpy for numpy, safetensors in _DTYPES.items()}


class _Tensor(NamedTuple):
    """A tensor's place in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@contextmanager
def open_file(path: Path, step: int | None = None) -> Iterator[OpenFile]:  # noqa: ARG001
    """Opens a file; its description is in the metadata.

    Raises:
      InputError: it is not a safetensors file, or of a dtype that is not floating point.
    """
    with path.open("rb", buffering=0) as file:
        tensors, metadata = _parse(path, file)
        description = read_description(path, metadata.get("slimport", ""))

        def read(name: str) -> Array:
            return read_array(file, path, tensors[name].offset, tensors[name].shape, tensors[name].dtype)

        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        yield pytorch_file(path, "safetensors", shapes, read, description)


def read_array(file: IO[bytes], path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array at an offset of an unbuffered file.

    Raises:
      InputError: the file ends before it does.
    """
    array = np.empty(shape, dtype)
    left = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
    file.seek(offset)
    while left:
        # Unbuffered files have it.
        count = file.readinto(left)  # type: ignore[attr-defined]
        if not count:
            raise InputError(f"{path}: has become shorter while it was read; run it again when nobody writes it")
        left = left[count:]
    return array


def write(weights: Weights, path: Path) -> None:
    """Writes every variable in its own dtype, in the order of the stream."""
    unchanged = Unchanged(weights.files)
    with ThreadPoolExecutor(1) as executor, atomic(path) as temporary, temporary.open("wb") as file:
        # Hashing the source takes about as long as writing the tensors. It runs beside that, and a placeholder of the
        # digests' length keeps the header's place.
        digests = executor.submit(weights.digests)
        file.write(_header(weights, {part.name: "0" * 64 for part in weights.files}))
        for name, array in weights.stream():
            for piece in pytorch_pieces(name, array):
                file.write(piece)
        file.seek(0)
        file.write(_header(weights, digests.result()))
        unchanged.check()


def _header(weights: Weights, digests: Mapping[str, str]) -> bytes:
    description = description_text(weights.description(digests))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "slimport": description}}
    shapes = weights.network.variables()
    names = pytorch_names(weights.dtypes)
    end = 0
    for name, dtype in weights.dtypes.items():
        shape = mapping.pytorch_shape(name, shapes[name])
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[names[name]] = {"dtype": _DTYPES[dtype.name], "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    # The tensors begin at a multiple of 8 bytes; the format pads its header with spaces.
    text = text.ljust(-(-len(text) // 8) * 8)
    return struct.pack("<Q", len(text)) + text


def _parse(path: Path, file: IO[bytes]) -> tuple[dict[str, _Tensor], Mapping[str, str]]:
    """The tensors by name and the metadata, from the header, which must account for every byte of the file."""
    length = int.from_bytes(file.read(8), "little")
    end = file.seek(0, 2)
    if not 0 < length <= min(end - 8, LARGEST_TEXT):
        raise InputError(f"{path}: not a safetensors file, or cut off: its header would have {length} bytes")
    file.seek(8)
    header = read_json(path, file.read(length), "its header")
    check_count(path, len(header))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputError(f"{path}: not a safetensors file: its metadata is not of strings")
    tensors = {name: _tensor(path, name, said, 8 + length) for name, said in header.items()}
    offset = 8 + length
    for name, tensor in sorted(tensors.items(), key=lambda pair: (pair[1].offset, pair[1].size)):
        if tensor.offset != offset:
            raise InputError(f"{path}: damaged: {name} begins at offset {tensor.offset} and not at {offset}")
        offset += tensor.size
    if offset != end:
        raise InputError(f"{path}: cut off: its tensors end at {offset}, and the file has {end} bytes; get it again")
    return tensors, metadata


def _tensor(path: Path, name: str, said: Any, base: int) -> _Tensor:
    """The place of a tensor by its entry in the header."""
    try:
        dtype, shape, (start, stop) = said["dtype"], said["shape"], said["data_offsets"]
        if any(type(number) is not int or number < 0 for number in (*shape, start, stop)) or len(shape) > 32:
            raise ValueError("a number that is none")
        numpy_dtype = _NUMPY_DTYPES.get(dtype)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged: its header has no shape, dtype and place for {name}") from error
    if numpy_dtype is None:
        raise InputError(f"{path}: {name} is of dtype {dtype}, which slimport does not read")
    if numpy_dtype == "bfloat16":
        # Its import makes the name known to NumPy.
        frameworks.require("ml_dtypes")
    tensor = _Tensor(tuple(shape), np.dtype(numpy_dtype), base + start)
    if tensor.size != stop - start:
        raise InputError(f"{path}: damaged: {name} of shape {list(shape)} has {stop - start} bytes")
    return tensor


FORMAT = Format("safetensors", "pytorch", (".safetensors",), 0, open_file, write)
