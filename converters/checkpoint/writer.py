"""Writing a V2 checkpoint without TensorFlow, for `tf.train.Saver.restore`.

Sources: tensorflow/core/util/tensor_bundle/tensor_bundle.cc; tensorflow/core/lib/io/table_builder.cc.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import dtypes
from converters.checkpoint.bundle import data_path, index_path
from converters.checkpoint.table import FOOTER_SIZE, MAGIC, NO_COMPRESSION, mask

_BLOCK_SIZE = 4096
_RESTART_INTERVAL = 16


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
            file.write(_table(entries))
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


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _header() -> bytes:
    """BundleHeaderProto: one shard, little-endian (the default), version {producer: 1}."""
    return _number(1, 1) + _message(3, _number(1, 1))


def _entry(dtype: int, shape: tuple[int, ...], offset: int, size: int, crc: int) -> bytes:
    """BundleEntryProto."""
    sides = b"".join(_message(2, _number(1, side)) for side in shape)
    where = _number(4, offset) + _number(5, size)
    return _number(1, dtype) + _message(2, sides) + where + _varint(6 << 3 | 5) + struct.pack("<I", mask(crc))


def _table(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A table of sorted entries: data blocks, an empty metaindex block, the index block, the footer."""
    table = bytearray()
    index: list[tuple[bytes, bytes]] = []

    def add(block: list[tuple[bytes, bytes]]) -> bytes:
        """Appends a block; returns its handle."""
        content = _block(block) + bytes([NO_COMPRESSION])
        handle = _varint(len(table)) + _varint(len(content) - 1)
        table.extend(content + struct.pack("<I", mask(crc32c.crc32c(content))))
        return handle

    pending: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in entries:
        pending.append((key, value))
        size += len(key) + len(value)
        if size > _BLOCK_SIZE:
            index.append((key, add(pending)))
            pending, size = [], 0
    if pending:
        index.append((pending[-1][0], add(pending)))
    handles = add([]) + add(index)
    return bytes(table) + handles.ljust(FOOTER_SIZE - len(MAGIC), b"\0") + MAGIC


def _block(entries: list[tuple[bytes, bytes]]) -> bytes:
    block = bytearray()
    restarts = []
    previous = b""
    for number, (key, value) in enumerate(entries):
        if number % _RESTART_INTERVAL == 0:
            restarts.append(len(block))
            previous = b""
        shared = next(
            (i for i, (a, b) in enumerate(zip(previous, key, strict=False)) if a != b), min(len(previous), len(key))
        )
        block += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return bytes(block) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
