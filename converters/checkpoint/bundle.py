"""The V2 format, "tensor bundle": a table `PREFIX.index`, and the tensors' bytes in `PREFIX.data-?????-of-?????`.

Sources: tensorflow/core/util/tensor_bundle/tensor_bundle.cc; tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import dtypes, protos, wire
from converters.checkpoint.mapped import MappedFile
from converters.checkpoint.ordered_code import Extents, slice_key
from converters.checkpoint.reader import Checkpoint, Variable, assemble, element_count, slice_shape
from converters.checkpoint.table import Table, mask
from converters.errors import CheckpointError


@dataclass(frozen=True)
class Entry:
    """BundleEntryProto: where a tensor's bytes are, or how it is cut into slices."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[Extents, ...]


def data_path(prefix: Path, shard: int, shards: int) -> Path:
    """The file of a shard."""
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")


def index_path(prefix: Path) -> Path:
    """The index of a bundle."""
    return prefix.with_name(f"{prefix.name}.index")


class BundleCheckpoint(Checkpoint):
    """A V2 checkpoint."""

    format = "v2"

    def __init__(self, prefix: Path) -> None:
        index = MappedFile(index_path(prefix))
        entries = dict(Table(index.path, index.view))
        header = entries.pop(b"", None)
        if header is None:
            raise CheckpointError(f"{index.path}: a table, but not the index of a checkpoint: it has no header")
        self._index = index.path
        self._entries: dict[str, Entry] = {}
        self._slices: dict[bytes, memoryview] = {}
        variables = []
        shards = _shard_count(index.path, header)
        for key, value in entries.items():
            # The key of a slice begins with an encoded 0; no tensor's name does.
            if key.startswith(b"\x00"):
                self._slices[key] = value
                continue
            try:
                name = key.decode()
            except UnicodeDecodeError as error:
                raise CheckpointError(f"{index.path}: the name {key!r} is not UTF-8") from error
            entry = self._entries[name] = _entry(index.path, name, value, shards)
            variables.append(Variable(name, entry.shape, dtypes.numpy_dtype(entry.dtype, f"{index.path}: {name}")))
        used = {entry.shard for entry in self._entries.values()}
        used |= {_entry(index.path, "a slice", value, shards).shard for value in self._slices.values()}
        self._shard_count = shards
        self._shards = {shard: MappedFile(data_path(prefix, shard, shards)) for shard in sorted(used)}
        super().__init__(prefix, variables, [index, *self._shards.values()])

    def _read(self, variable: Variable) -> NDArray[Any]:
        entry = self._entries[variable.name]
        if not entry.slices:
            return self._read_entry(variable, entry)
        pieces: list[tuple[Extents, NDArray[Any]]] = []
        where = f"{self._index}: {variable.name}"
        for extents in entry.slices:
            value = self._slices.get(slice_key(variable.name, extents))
            if value is None:
                raise CheckpointError(f"{where}: the index lists a slice of it, but does not hold it")
            piece = _entry(self._index, variable.name, value, self._shard_count)
            try:
                shape = slice_shape(variable.shape, extents)
            except ValueError as error:
                raise CheckpointError(f"{where}: {error}") from error
            if piece.shape != shape or piece.dtype != entry.dtype:
                raise CheckpointError(f"{where}: a slice of shape {list(piece.shape)} where {list(shape)} should be")
            pieces.append((extents, self._read_entry(variable, piece)))
        # Before the whole is allocated: what it needs was read, and so is there.
        if sum(piece.size for _, piece in pieces) != element_count(variable.shape):
            raise CheckpointError(f"{where}: its slices do not cover the shape {list(variable.shape)} once")
        return assemble(where, variable, pieces)

    def _read_entry(self, variable: Variable, entry: Entry) -> NDArray[Any]:
        file = self._shards[entry.shard]
        where = f"{file.path}: {variable.name} at offset {entry.offset}"
        view = file.view
        if entry.offset + entry.size > len(view):
            raise CheckpointError(
                f"{where}: needs {entry.size} bytes, and the file has only {len(view)}: it is cut off; get it again"
            )
        data = view[entry.offset : entry.offset + entry.size]
        if variable.dtype.kind == "O":
            return _strings(where, data, entry)
        count = element_count(entry.shape)
        if count * variable.dtype.itemsize != entry.size:
            raise CheckpointError(
                f"{where}: {entry.size} bytes do not hold {variable.dtype} of shape {list(entry.shape)}"
            )
        if mask(crc32c.crc32c(data)) != entry.crc:
            raise CheckpointError(f"{where}: damaged: its checksum does not match; get the file again")
        return np.frombuffer(data, variable.dtype).reshape(entry.shape)


def _shard_count(path: Path, header: memoryview) -> int:
    """Reads BundleHeaderProto, and refuses what would be misread."""
    shards = endianness = 0
    try:
        for field, _, value in wire.fields(header):
            if field == 1:
                shards = wire.number(value)
            elif field == 2:
                endianness = wire.number(value)
    except wire.WireError as error:
        raise CheckpointError(f"{path}: damaged header: {error}") from error
    if endianness != 0:
        raise CheckpointError(f"{path}: written on a big-endian machine, which slimport does not read")
    if not 0 < shards < 100_000:
        raise CheckpointError(f"{path}: damaged header: {shards} shards")
    return shards


def _entry(path: Path, name: str, buffer: memoryview, shards: int) -> Entry:
    numbers = dict.fromkeys((1, 3, 4, 5), 0)
    shape: tuple[int, ...] = ()
    crc = 0
    slices = []
    try:
        for field, _, value in wire.fields(buffer):
            if field in numbers:
                numbers[field] = wire.number(value)
            elif field == 2:
                shape = protos.shape(wire.message(value))
            elif field == 6:
                (crc,) = struct.unpack("<I", wire.message(value))
            elif field == 7:
                slices.append(protos.extents(wire.message(value)))
        if numbers[3] >= shards:
            raise wire.WireError(f"shard {numbers[3]} of {shards}")
    except (wire.WireError, struct.error) as error:
        raise CheckpointError(f"{path}: damaged entry of {name}: {error}") from error
    return Entry(numbers[1], shape, numbers[3], numbers[4], numbers[5], crc, tuple(slices))


def _strings(where: str, data: memoryview, entry: Entry) -> NDArray[Any]:
    """A string tensor: the lengths as varints, a checksum of the lengths, the bytes of all strings.

    The checksums cover the lengths as fixed-size integers, not as the varints that are stored.
    """
    count = element_count(entry.shape)
    # A length takes at least one byte: this bounds what is allocated.
    if count > entry.size:
        raise CheckpointError(f"{where}: {entry.size} bytes do not hold {count} strings")
    strings = np.empty(count, object)
    try:
        offset, lengths, crc = 0, [], 0
        for _ in range(count):
            length, offset = wire.varint(data, offset)
            lengths.append(length)
            crc = crc32c.crc32c(struct.pack("<I" if length <= 0xFFFFFFFF else "<Q", length), crc)
        stored = bytes(data[offset : offset + 4])
        offset += 4
        if len(stored) != 4 or mask(crc) != int.from_bytes(stored, "little"):
            raise wire.WireError("the checksum of its strings' lengths does not match")
        if sum(lengths) != len(data) - offset:
            raise wire.WireError("its strings do not fill its bytes")
        if mask(crc32c.crc32c(data[offset:], crc32c.crc32c(stored, crc))) != entry.crc:
            raise wire.WireError("its checksum does not match")
        for index, length in enumerate(lengths):
            strings[index] = bytes(data[offset : offset + length])
            offset += length
    except wire.WireError as error:
        raise CheckpointError(f"{where}: damaged: {error}; get the file again") from error
    return strings.reshape(entry.shape)
