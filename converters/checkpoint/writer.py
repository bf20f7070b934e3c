"""Writing a V2 checkpoint without TensorFlow, for `tf.train.Saver.restore`.

Sources: tensorflow/core/util/tensor_bundle/tensor_bundle.cc; tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import dtypes, wire
from converters.checkpoint.bundle import data_path, index_path
from converters.checkpoint.table import build_table, mask


def write_checkpoint(prefix: str | os.PathLike[str], variables: Mapping[str, NDArray[Any]]) -> None:
    """Writes `prefix`.data-00000-of-00001 and `prefix`.index.

    Args:
      prefix: of the two files, in a folder that exists.
      variables: arrays of any numeric or bool dtype by name.

    Raises:
      CheckpointError: a dtype that TensorFlow does not have.
      OSError: the files cannot be written; what stood there before is then as it was.
    """
    prefix = Path(prefix).resolve()
    data, index = data_path(prefix, 0, 1), index_path(prefix)
    temporary = {path: path.with_name(f".{os.getpid()}.{path.name}") for path in (data, index)}
    try:
        entries = [(b"", _header())]
        with temporary[data].open("wb") as file:
            offset = 0
            # TensorFlow's table wants its keys sorted as bytes.
            for name in sorted(variables, key=str.encode):
                array = np.asarray(variables[name])
                dtype = dtypes.tensorflow_dtype(array.dtype, name)
                content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
                file.write(content)
                entries.append(
                    (name.encode(), _entry(dtype, array.shape, offset, len(content), crc32c.crc32c(content)))
                )
                offset += len(content)
            _sync(file)
        with temporary[index].open("wb") as file:
            file.write(build_table(entries))
            _sync(file)
        # The index last: without it, there is no checkpoint.
        for path in (data, index):
            temporary[path].replace(path)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _header() -> bytes:
    """BundleHeaderProto: one shard, little-endian (the default), version {producer: 1}."""
    return wire.encode_number(1, 1) + wire.encode_message(3, wire.encode_number(1, 1))


def _entry(dtype: int, shape: tuple[int, ...], offset: int, size: int, crc: int) -> bytes:
    """BundleEntryProto."""
    sides = b"".join(wire.encode_message(2, wire.encode_number(1, side)) for side in shape)
    where = wire.encode_number(4, offset) + wire.encode_number(5, size)
    return wire.encode_number(1, dtype) + wire.encode_message(2, sides) + where + wire.encode_fixed32(6, mask(crc))
