"""The V2 format, "tensor bundle": a table `PREFIX.index`, and the tensors' bytes in `PREFIX.data-?????-of-?????`.

Sources: tensorflow/core/util/tensor_bundle/tensor_bundle.cc; tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import dtypes, protos, slices, wire
from converters.checkpoint.messages import shown
from converters.checkpoint.ordered_code import Extents, slice_key
from converters.checkpoint.raw import RawFile
from converters.checkpoint.reader import Checkpoint
from converters.checkpoint.table import RESTART_INTERVAL, Table, mask, what_it_is
from converters.errors import CheckpointError
from converters.variables import Variable

_MAX_SHARDS = 99_999
_SHAPE, _CRC, _SLICES = 2, 6, 7


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

    @property
    def end(self) -> int:
        """Where the tensor's bytes end in the shard."""
        return self.offset + self.size


def data_path(prefix: Path, shard: int, shards: int) -> Path:
    """The file of a shard."""
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")


def index_path(prefix: Path) -> Path:
    """The index of a bundle."""
    return prefix.with_name(f"{prefix.name}.index")


def data_paths(prefix: Path) -> tuple[Path, ...]:
    """The files of the shards that a bundle's index names, whether they exist or not.

    Raises:
      CheckpointError: the index is none.
    """
    return tuple(data_sizes(prefix))


def data_sizes(prefix: Path) -> dict[Path, int]:
    """The files of `data_paths`, and the bytes that the index has in each.

    Raises:
      CheckpointError: the index is none.
    """
    index = RawFile(index_path(prefix))
    values = dict(Table(index))
    index.close()
    shards = _shard_count(index.label, values.pop(b"", None))
    sizes = [0] * shards
    for key, value in values.items():
        entry = _entry(index.label, key, value, shards)
        if not entry.slices:
            sizes[entry.shard] = max(sizes[entry.shard], entry.end)
    return {data_path(prefix, shard, shards): size for shard, size in enumerate(sizes)}


def _shard_count(label: str, header: memoryview | None) -> int:
    """Reads BundleHeaderProto, the entry with the empty key, and refuses bundles that would be misread.

    Raises:
      CheckpointError: there is none, or it is damaged, of a newer version or of a big-endian machine.
    """
    if header is None:
        raise CheckpointError(f"{label}: a table, but not the index of a checkpoint: it has no header")
    try:
        found = wire.single_fields(header)
        shards, endianness = (wire.number(found.get(field, 0)) for field in (1, 2))
        protos.check_version(wire.message(found.get(3, memoryview(b""))))
        if not 0 < shards <= _MAX_SHARDS:
            raise wire.WireError(f"{shards} shards")
    except wire.WireError as error:
        raise CheckpointError(f"{label}: damaged header: {error}") from error
    if endianness != 0:
        raise CheckpointError(
            f"{label}: written on a big-endian machine, which slimport does not read; load and save it with TensorFlow"
        )
    return shards


class BundleCheckpoint(Checkpoint):
    """A V2 checkpoint.

    Everything that the index claims is checked when it is opened: against the shape, against the shards' sizes, and
    against the other entries. Only the checksums of the tensors' bytes are left for later.
    """

    format = "v2"

    def __init__(self, prefix: Path, label: Callable[[Path], str], check: Callable[[int], None]) -> None:
        index = RawFile(index_path(prefix), label(index_path(prefix)))
        table = Table(index)
        values = dict(table)
        self._label = index.label
        shards = _shard_count(index.label, values.pop(b"", None))
        check(len(values))
        self._entries = {key: _entry(index.label, key, value, shards) for key, value in values.items()}
        self._shards: dict[int, RawFile] = {}
        for shard in sorted({entry.shard for entry in self._entries.values() if not entry.slices}):
            path = data_path(prefix, shard, shards)
            self._shards[shard] = RawFile(path, label(path))
        # None is a shard that is missing, which is named when it is needed: what there is, the index alone tells.
        sizes = {shard: file.size() for shard, file in self._shards.items()}
        pieces: set[bytes] = set()
        variables = []
        for key, entry in self._entries.items():
            if entry.slices:
                pieces.update(self._slice_keys(key, entry, table.size))
            else:
                self._check(key, entry, sizes[entry.shard])
        self._check_overlaps()
        for key, entry in self._entries.items():
            if key not in pieces:
                where = f"{index.label}: {_shown(key)}"
                try:
                    name = key.decode()
                except UnicodeDecodeError as error:
                    raise CheckpointError(f"{where}: the name is not UTF-8") from error
                variables.append(Variable(name, entry.shape, dtypes.numpy_dtype(entry.dtype, where)))
        super().__init__(prefix, variables, [index, *self._shards.values()])

    def has_data(self, name: str) -> bool:
        entry = self._entries[name.encode()]
        return bool(entry.slices) or self._shards[entry.shard].size() is not None

    def _slice_keys(self, key: bytes, entry: Entry, index_size: int) -> Iterable[bytes]:
        """The keys of a partitioned variable's slices, which are checked to cover it."""
        # Each key contains the name, and shares it with at most so many others, so there cannot be more slices.
        if len(entry.slices) * len(key) > RESTART_INTERVAL * index_size:
            raise CheckpointError(f"{self._label}: {_shown(key)} claims {len(entry.slices)} slices")
        try:
            slices.check_cover(entry.shape, entry.slices)
        except slices.SliceError as error:
            raise CheckpointError(f"{self._label}: {_shown(key)}: {error}") from error
        return (slice_key(key, extents) for extents in entry.slices)

    def _check(self, key: bytes, entry: Entry, size: int | None) -> None:
        """Checks an entry against its shard's size, and its size against its shape."""
        where = f"{self._shards[entry.shard].label}: {_shown(key)} at offset {entry.offset}"
        if size is not None and entry.end > size:
            if what := what_it_is(bytes(self._shards[entry.shard].read(0, 64))):
                raise CheckpointError(f"{self._shards[entry.shard].label}: not the data of a checkpoint: {what}")
            raise CheckpointError(
                f"{where}: needs {entry.size} bytes, and the file has only {size}: it is cut off; get it again"
            )
        dtype = dtypes.numpy_dtype(entry.dtype, where)
        count = math.prod(entry.shape)
        if dtype.kind == "O":
            # A string takes a byte of length at least.
            if count > entry.size:
                raise CheckpointError(f"{where}: {entry.size} bytes are too few for {count} strings")
        elif dtype != dtypes.UNREADABLE and count * dtype.itemsize != entry.size:
            raise CheckpointError(f"{where}: {entry.size} bytes are not those of {dtype} of shape {list(entry.shape)}")

    def _check_overlaps(self) -> None:
        """Checks that no two tensors share bytes, as they never do in a file that TensorFlow wrote."""
        placed = sorted((e.shard, e.offset, e.end, key) for key, e in self._entries.items() if e.size and not e.slices)
        for (shard, _, end, key), (next_shard, offset, _, next_key) in pairwise(placed):
            if shard == next_shard and offset < end:
                raise CheckpointError(
                    f"{self._label}: {_shown(next_key)} at offset {offset} overlaps {_shown(key)}, which ends at {end}"
                )

    def _read(self, variable: Variable) -> NDArray[Any]:
        key = variable.name.encode()
        entry = self._entries[key]
        if not entry.slices:
            return self._read_entry(variable, entry)
        where = f"{self._label}: {shown(variable.name)}"
        pieces: list[tuple[Extents, NDArray[Any]]] = []
        # All of them, before the whole is allocated.
        for extents in entry.slices:
            piece = self._entries.get(slice_key(key, extents))
            if piece is None:
                raise CheckpointError(f"{where}: the index lists a slice of it, but has no entry for it")
            shape = slices.slice_shape(variable.shape, extents)
            if piece.shape != shape or piece.dtype != entry.dtype or piece.slices:
                raise CheckpointError(f"{where}: a slice of shape {list(piece.shape)} where {list(shape)} should be")
            pieces.append((extents, self._read_entry(variable, piece)))
        try:
            return slices.assemble(variable.shape, variable.dtype, pieces)
        except slices.SliceError as error:
            raise CheckpointError(f"{where}: {error}") from error

    def _read_entry(self, variable: Variable, entry: Entry) -> NDArray[Any]:
        file = self._shards[entry.shard]
        where = f"{file.label}: {shown(variable.name)} at offset {entry.offset}"
        data = file.read(entry.offset, entry.size)
        if len(data) != entry.size:
            raise CheckpointError(f"{where}: the file has become shorter since it was opened")
        if variable.dtype.kind == "O":
            return _strings(where, data, entry)
        if mask(crc32c.crc32c(data)) != entry.crc:
            raise CheckpointError(f"{where}: damaged: its checksum does not match; get the file again")
        return np.frombuffer(data, variable.dtype).reshape(entry.shape)


def lengths_crc(lengths: Iterable[int]) -> int:
    """The checksum of the lengths of strings, which covers them as fixed-size integers, not as the varints stored."""
    crc: int = crc32c.crc32c(b"".join(n.to_bytes(4 if n <= 0xFFFFFFFF else 8, "little") for n in lengths))
    return crc


def _shown(key: bytes) -> str:
    return shown(key.decode(errors="backslashreplace"))


def _entry(label: str, key: bytes, buffer: memoryview, shards: int) -> Entry:
    try:
        single, cut = wire.message_fields(buffer, repeated=_SLICES)
        dtype, shard, offset, size = (wire.number(single.get(field, 0)) for field in (1, 3, 4, 5))
        shape = protos.shape(wire.message(single.get(_SHAPE, memoryview(b""))))
        crc = _fixed32(single)
        extents = tuple(protos.extents(one) for one in cut)
        if shard >= shards:
            raise wire.WireError(f"shard {shard} of {shards}")
    except wire.WireError as error:
        raise CheckpointError(f"{label}: damaged entry of {_shown(key)}: {error}") from error
    return Entry(dtype, shape, shard, offset, size, crc, extents)


def _fixed32(single: Mapping[int, wire.Value]) -> int:
    """The checksum of an entry; 0 if it is missing, since protobuf omits a 0."""
    stored = wire.message(single.get(_CRC, memoryview(bytes(4))))
    if len(stored) != 4:
        raise wire.WireError("a checksum that is not of 4 bytes")
    return int.from_bytes(stored, "little")


def _strings(where: str, data: memoryview, entry: Entry) -> NDArray[Any]:
    """A string tensor: the lengths as varints, a checksum of the lengths, the bytes of all strings."""
    strings = np.empty(math.prod(entry.shape), object)
    try:
        offset, lengths = 0, []
        for _ in range(len(strings)):
            length, offset = wire.varint(data, offset)
            lengths.append(length)
        crc = lengths_crc(lengths)
        stored = bytes(data[offset : offset + 4])
        offset += 4
        if len(stored) != 4 or mask(crc) != int.from_bytes(stored, "little"):
            raise wire.WireError("the checksum of its strings' lengths does not match")
        if sum(lengths) != len(data) - offset:
            raise wire.WireError("its strings do not fill its bytes")
        if mask(crc32c.crc32c(data[offset:], crc32c.crc32c(stored, crc))) != entry.crc:
            raise wire.WireError("its checksum does not match")
    except wire.WireError as error:
        raise CheckpointError(f"{where}: damaged: {error}; get the file again") from error
    for index, length in enumerate(lengths):
        strings[index] = bytes(data[offset : offset + length])
        offset += length
    return strings.reshape(entry.shape)
