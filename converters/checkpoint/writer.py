"""Writing a V2 checkpoint without TensorFlow, for `tf.train.Saver.restore`.

Sources: tensorflow/core/util/tensor_bundle/tensor_bundle.cc; tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any

import crc32c
import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import dtypes, wire
from converters.checkpoint.bundle import data_path, data_paths, index_path, lengths_crc
from converters.checkpoint.locate import ends_as_table
from converters.checkpoint.messages import shown
from converters.checkpoint.table import build_table, mask
from converters.errors import CheckpointError, InputError, reason
from converters.files import pieces, resolved, sync_folder
from slimport.files import locked, take_mode, workspace


def write_checkpoint(
    prefix: str | os.PathLike[str], variables: Mapping[str, NDArray[Any]] | Iterable[tuple[str, NDArray[Any]]]
) -> None:
    """Writes `prefix`.index and `prefix`.data-00000-of-00001, whole or not at all.

    The index is renamed last, so that at any moment there is the old checkpoint or the new one. For that the new data
    file must not have the name of the old one: a checkpoint of one shard is replaced by one of two, the second empty.

    Args:
      prefix: of the files, in a folder that exists.
      variables: arrays by name, of any dtype that TensorFlow has; strings as objects, bytes or str. A mapping is
        written in TensorFlow's own order, by the names as bytes. Pairs are written in their order; an
        array may change once the next pair is requested.

    Raises:
      CheckpointError: a name or a dtype that TensorFlow does not have.
      InputError: the files cannot be written; the old checkpoint is as it was.
    """
    prefix = resolved(Path(prefix))
    if ends_as_table(prefix):
        raise InputError(f"{shown(str(prefix))}: a V1 checkpoint has this name; move it away, or choose another name")
    if prefix.exists() and not (prefix.is_file() or prefix.is_dir()):
        raise InputError(f"{shown(str(prefix))}: is a device or a pipe; choose another name")
    if not prefix.parent.is_dir():
        raise InputError(f"{shown(str(prefix))}: the folder {shown(str(prefix.parent))} does not exist; make it first")
    pairs = _sorted(variables) if isinstance(variables, Mapping) else variables
    try:
        _write(prefix, pairs)
    except OSError as error:
        raise InputError(f"{shown(str(prefix))}: cannot be written: {reason(error)}") from error


def _sorted(variables: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    for name in sorted(variables, key=_encoded):
        yield name, variables[name]


def _write(prefix: Path, pairs: Iterable[tuple[str, NDArray[Any]]]) -> None:
    with workspace(prefix) as folder:
        with _durable(folder / "data") as data:
            entries = _write_data(data, pairs)
        # Of two processes that write the same checkpoint, the last one's is there at the end, whole.
        with locked(prefix.parent):
            _replace(prefix, folder, entries)


def _replace(prefix: Path, folder: Path, entries: Mapping[bytes, bytes]) -> None:
    """Puts the data file in a folder, with an index of its entries, in the place of the checkpoint at a prefix."""
    old = _data_paths(prefix)
    shards = next(n for n in count(1) if not old.intersection(data_path(prefix, shard, n) for shard in range(n)))
    new = [data_path(prefix, shard, shards) for shard in range(shards)]
    files = [folder / "data", *(folder / f"empty{shard}" for shard in range(1, shards)), folder / "index"]
    for empty in files[1:-1]:
        empty.touch()
    with _durable(files[-1]) as index:
        index.write(build_table([(b"", _header(shards)), *sorted(entries.items())]))
    try:
        for file, path in zip(files, [*new, index_path(prefix)], strict=True):
            take_mode(file, index_path(prefix))
            file.replace(path)
        # The new names must be on the disk before the old data goes.
        sync_folder(prefix.parent)
    except BaseException:
        # The index may be the new one already; it says which data files are needed.
        for path in set(new) - _named(prefix):
            path.unlink(missing_ok=True)
        raise
    for path in old:
        path.unlink(missing_ok=True)


@contextmanager
def _durable(path: Path) -> Iterator[IO[bytes]]:
    """Yields a file to write to, whose bytes are on the disk afterwards."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _named(prefix: Path) -> set[Path]:
    """The data files that the index at a prefix names; empty if there is no index."""
    try:
        return set(data_paths(prefix))
    except CheckpointError:
        return set()


def _write_data(data: IO[bytes], pairs: Iterable[tuple[str, NDArray[Any]]]) -> dict[bytes, bytes]:
    """Writes the tensors one after another; returns their entries by key."""
    entries: dict[bytes, bytes] = {}
    offset = 0
    for name, value in pairs:
        key = _encoded(name)
        if not key or key in entries:
            raise CheckpointError(f"{shown(name)!r}: an empty name, or a second variable of this name")
        array = np.asarray(value)
        dtype = dtypes.tensorflow_dtype(array.dtype, shown(name))
        size = crc = 0
        for content, so_far in [_strings(array, name)] if dtype == dtypes.STRING else _numbers(array):
            data.write(content)
            size, crc = size + len(content), so_far
        entries[key] = _entry(dtype, array.shape, offset, size, crc)
        offset += size
    return entries


def _data_paths(prefix: Path) -> set[Path]:
    """The data files of the checkpoint at a prefix."""
    pattern = re.compile(re.escape(prefix.name) + r"\.data-\d{5}-of-\d{5}")
    return {path for path in prefix.parent.iterdir() if pattern.fullmatch(path.name)}


def _encoded(name: str) -> bytes:
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{shown(name)}: a name that is not Unicode") from error


def _numbers(array: NDArray[Any]) -> Iterator[tuple[memoryview, int]]:
    """Yields a tensor's bytes, row-major and little-endian, in pieces, with the checksum of all bytes so far."""
    crc = 0
    for piece in pieces(array):
        content = np.ascontiguousarray(piece, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
        crc = crc32c.crc32c(content, crc)
        yield content, crc


def _strings(array: NDArray[Any], name: str) -> tuple[bytes, int]:
    """WriteStringTensor: the lengths as varints, the checksum of the lengths, the bytes of all strings."""
    strings = [value.encode() if isinstance(value, str) else value for value in array.reshape(-1).tolist()]
    if not all(isinstance(value, bytes) for value in strings):
        raise CheckpointError(f"{shown(name)}: an array of objects that are not strings")
    lengths = [len(value) for value in strings]
    crc = lengths_crc(lengths)
    rest = b"".join([mask(crc).to_bytes(4, "little"), *strings])
    return b"".join(map(wire.encode_varint, lengths)) + rest, crc32c.crc32c(rest, crc)


def _header(shards: int) -> bytes:
    """BundleHeaderProto: little-endian (the default), version {producer: 1}."""
    return wire.encode_number(1, shards) + wire.encode_message(3, wire.encode_number(1, 1))


def _entry(dtype: int, shape: tuple[int, ...], offset: int, size: int, crc: int) -> bytes:
    """BundleEntryProto."""
    sides = b"".join(wire.encode_message(2, wire.encode_number(1, side)) for side in shape)
    where = wire.encode_number(4, offset) + wire.encode_number(5, size)
    return wire.encode_number(1, dtype) + wire.encode_message(2, sides) + where + wire.encode_fixed32(6, mask(crc))
