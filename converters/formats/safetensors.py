"""safetensors: PyTorch's names and layout, with a description of the network in the metadata.

Written here and not by the safetensors library, which wants every tensor in memory at once: variables flow from the
checkpoint to the file one at a time. The format: 8 bytes of header length, a JSON header, the tensors without gaps.
Weights: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from converters import frameworks, mapping
from converters.errors import InputError, first_line
from converters.files import atomic
from converters.formats.base import Format, OpenFile, Weights, pytorch_file
from converters.variables import Array

_DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
_NUMPY_DTYPES = {safetensors: numpy for numpy, safetensors in _DTYPES.items()}


@contextmanager
def open_file(path: Path, step: int | None = None) -> Iterator[OpenFile]:  # noqa: ARG001
    """Opens a file; its description is in the metadata.

    Raises:
      InputError: it is not a safetensors file, or of a dtype that is not floating point.
    """
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file: {first_line(error)}") from error
    with file as content:
        tensors = {}
        for name in content.keys():  # noqa: SIM118
            part = content.get_slice(name)
            dtype = _NUMPY_DTYPES.get(part.get_dtype())
            if dtype is None:
                raise InputError(f"{path}: {name} is of dtype {part.get_dtype()}, which slimport does not read")
            if dtype == "bfloat16":
                # The safetensors library finds NumPy's bfloat16 by its name, which ml_dtypes makes known.
                frameworks.require("ml_dtypes")
            tensors[name] = tuple(part.get_shape()), np.dtype(dtype)

        def read(name: str) -> Array:
            array: Array = content.get_tensor(name)
            return array

        description = json.loads((content.metadata() or {}).get("slimport", "{}"))
        yield pytorch_file(path, "safetensors", tensors, read, description)


def write(weights: Weights, path: Path) -> None:
    """Writes every variable in its own dtype, in the order of the stream."""
    with ThreadPoolExecutor(1) as executor, atomic(path) as temporary, temporary.open("wb") as file:
        # Hashing the source takes about as long as writing the tensors. It runs beside that, and a placeholder of the
        # digests' length keeps the header's place.
        digests = executor.submit(weights.digests)
        file.write(_header(weights, {part.name: "0" * 64 for part in weights.files}))
        for name, array in weights.stream():
            file.write(mapping.pytorch_array(name, array).reshape(-1).view(np.uint8).data)
        file.seek(0)
        file.write(_header(weights, digests.result()))


def _header(weights: Weights, digests: Mapping[str, str]) -> bytes:
    description = json.dumps(weights.description(digests))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "slimport": description}}
    shapes = weights.network.variables()
    end = 0
    for name, dtype in weights.dtypes.items():
        shape = mapping.pytorch_shape(name, shapes[name])
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[mapping.pytorch_name(name)] = {
            "dtype": _DTYPES[dtype.name],
            "shape": shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    # The tensors begin at a multiple of 8 bytes; the format pads its header with spaces.
    text = text.ljust(-(-len(text) // 8) * 8)
    return struct.pack("<Q", len(text)) + text


FORMAT = Format("safetensors", "pytorch", (".safetensors",), 0, open_file, write)
