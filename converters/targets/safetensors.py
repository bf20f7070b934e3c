"""safetensors: PyTorch's names and layout, with a description of the network in the metadata.

Written here and not by the safetensors library, which wants every tensor in memory at once: variables flow from the
checkpoint to the file one at a time. The format: 8 bytes of header length, a JSON header, the tensors without gaps.
Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from converters import mapping
from converters.sources import Source
from converters.targets.atomic import atomic

_DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}


def write(source: Source, path: Path) -> None:
    """Writes every variable of the source, in its own dtype and in the order in which the source yields them."""
    with ThreadPoolExecutor(1) as executor, atomic(path) as temporary, temporary.open("wb") as file:
        # Hashing the source takes about as long as writing the tensors. It runs beside that, and a placeholder of the
        # digests' length keeps the header's place.
        digests = executor.submit(source.digests)
        file.write(_header(source, {part.name: "0" * 64 for part in source.files}))
        for name, array in source.stream():
            file.write(mapping.pytorch_array(name, array).reshape(-1).view(np.uint8).data)
        file.seek(0)
        file.write(_header(source, digests.result()))


def metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says about itself, all strings."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        found: dict[str, str] = json.loads(file.read(length))["__metadata__"]
        return found


def _header(source: Source, digests: Mapping[str, str]) -> bytes:
    description = json.dumps(source.description(digests))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "slimport": description}}
    shapes = source.network.variables()
    end = 0
    for name, dtype in source.dtypes.items():
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
