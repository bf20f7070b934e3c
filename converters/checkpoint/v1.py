"""The V1 format: tables of SavedTensorSlices, in one file or in shards `PREFIX-?????-of-?????`.

Sources: tensorflow/core/util/saved_tensor_slice.proto, saved_tensor_slice_util.h, tensor_slice_reader.cc,
tensor_slice_writer.h; tensorflow/core/framework/tensor.proto.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import dtypes, protos, slices, wire
from converters.checkpoint.messages import shown
from converters.checkpoint.ordered_code import Extents, slice_key
from converters.checkpoint.raw import RawFile
from converters.checkpoint.reader import Checkpoint
from converters.checkpoint.table import RESTART_INTERVAL, SNAPPY_RATIO, Table
from converters.errors import CheckpointError
from converters.variables import Variable

# The field of TensorProto with a dtype's values, by NumPy's name of the dtype.
_VALUE_FIELDS = {
    "float32": 5,
    "float64": 6,
    **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16"), 7),
    "object": 8,
    "complex64": 9,
    "int64": 10,
    "bool": 11,
    "complex128": 12,
    "float16": 13,
    "bfloat16": 13,
    "uint32": 16,
    "uint64": 17,
}
# These are stored as they are in memory; all other numbers are varints.
_PLAIN = ("float32", "float64", "complex64", "complex128")
# For these, the varint is the value's bits.
_HALF = ("float16", "bfloat16")
_COPIED = 1 << 20
"""Bytes of an array that is copied out of its block."""


class V1Checkpoint(Checkpoint):
    """A V1 checkpoint."""

    format = "v1"

    def __init__(self, path: Path, shards: Sequence[Path], label: Callable[[Path], str]) -> None:
        files = [RawFile(shard, label(shard)) for shard in shards]
        # By variable: its slices, and the table that each is in.
        self._slices: dict[str, list[tuple[Extents, Table]]] = {}
        variables: dict[str, Variable] = {}
        size = 0
        for file in files:
            table = Table(file)
            size += table.size
            for variable, extents in _metadata(table):
                if variables.setdefault(variable.name, variable) != variable:
                    raise CheckpointError(
                        f"{file.label}: {shown(variable.name)} has another shape or dtype than where it was first"
                    )
                self._slices.setdefault(variable.name, []).extend((one, table) for one in extents)
        for variable in variables.values():
            self._check_size(variable, size)
        super().__init__(path, variables.values(), files)

    def _check_size(self, variable: Variable, size: int) -> None:
        """Refuses variables that are too large for the files, before memory is allocated for them."""
        found = self._slices[variable.name]
        smallest = variable.dtype.itemsize if variable.dtype.name in _PLAIN else 1
        claimed = max(math.prod(variable.shape) * smallest, len(found) * len(variable.name) // RESTART_INTERVAL)
        if claimed > SNAPPY_RATIO * size:
            raise CheckpointError(
                f"{self._where(variable)}: {variable.dtype} of shape {list(variable.shape)} in {len(found)} slices "
                f"does not fit into {size} bytes"
            )

    def _where(self, variable: Variable) -> str:
        found = self._slices[variable.name]
        return f"{found[0][1].label}: {shown(variable.name)}" if found else shown(variable.name)

    def _read(self, variable: Variable) -> NDArray[Any]:
        found = self._slices[variable.name]
        try:
            slices.check_cover(variable.shape, [extents for extents, _ in found])
            if len(found) == 1:
                return _read_slice(variable, *found[0]).reshape(variable.shape)
            # All of them, before the whole is allocated.
            pieces = [(extents, _read_slice(variable, extents, table)) for extents, table in found]
            return slices.assemble(variable.shape, variable.dtype, pieces)
        except slices.SliceError as error:
            raise CheckpointError(f"{self._where(variable)}: {error}") from error


def _metadata(table: Table) -> Iterator[tuple[Variable, list[Extents]]]:
    """The entry with the empty key: SavedTensorSlices.meta, which lists every tensor and its slices in this file."""
    entry = table.find(b"")
    if entry is None:
        raise CheckpointError(f"{table.label}: a table, but not a V1 checkpoint: it has no metadata entry")
    try:
        meta = wire.single_fields(entry).get(1)
        if meta is None:
            raise wire.WireError("it lists no tensors; an .index is opened by its prefix")
        for field, _, value in wire.fields(wire.message(meta)):
            if field == 1:
                yield _slice_meta(table.label, wire.message(value))
            elif field == 2:
                protos.check_version(wire.message(value))
    except wire.WireError as error:
        raise CheckpointError(f"{table.label}: damaged metadata entry: {error}") from error


def _slice_meta(label: str, buffer: memoryview) -> tuple[Variable, list[Extents]]:
    """SavedSliceMeta: a variable, and its slices in this file."""
    single, cut = wire.message_fields(buffer, repeated=4)
    name = wire.text(single.get(1, memoryview(b"")))
    shape = protos.shape(wire.message(single.get(2, memoryview(b""))))
    dtype = dtypes.numpy_dtype(wire.number(single.get(3, 0)), f"{label}: {shown(name)}")
    return Variable(name, shape, dtype), [protos.extents(extents) for extents in cut]


def _read_slice(variable: Variable, extents: Extents, table: Table) -> NDArray[Any]:
    """The values of a slice, [*shape of the slice]."""
    where = f"{table.label}: {shown(variable.name)}"
    entry = table.find(slice_key(variable.name.encode(), extents))
    if entry is None:
        raise CheckpointError(f"{where}: the metadata lists it, but the file does not contain it")
    shape = slices.slice_shape(variable.shape, extents)
    try:
        values = _values(_tensor_proto(variable, extents, entry), variable.dtype, math.prod(shape)).reshape(shape)
    except wire.WireError as error:
        raise CheckpointError(f"{where}: damaged: {error}; get the file again") from error
    # A small one would keep all of its block in memory as long as it is used.
    return values if values.nbytes > _COPIED else values.copy()


def _tensor_proto(variable: Variable, extents: Extents, entry: memoryview) -> memoryview:
    """SavedTensorSlices.data.data, which is checked to be the requested slice."""
    saved = wire.single_fields(wire.message(wire.single_fields(entry).get(2, memoryview(b""))))
    name, stored, proto = (wire.message(saved.get(field, memoryview(b""))) for field in (1, 2, 3))
    if wire.text(name) != variable.name or protos.extents(stored) != tuple(extents):
        raise wire.WireError(f"its entry is that of {shown(wire.text(name))!r}, or of another slice")
    return proto


def _values(proto: memoryview, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """The values in a TensorProto's typed field, [count]: a view if they are packed as in memory."""
    wanted = _VALUE_FIELDS.get(dtype.name)
    if wanted is None:
        raise wire.WireError(f"{dtype}, which the V1 format does not have")
    if dtype.kind == "O":
        return _strings(proto, wanted, count)
    # TensorFlow packs all values into one field.
    packed = wire.message(wire.single_fields(proto).get(wanted, memoryview(b"")))
    if dtype.name in _PLAIN:
        if len(packed) != count * dtype.itemsize:
            raise wire.WireError(f"{len(packed)} bytes are not {count} values of {dtype}")
        return np.frombuffer(packed, dtype)
    if dtype.name in _HALF:
        return wire.packed_varints(packed, count, "uint16").view(dtype)
    return wire.packed_varints(packed, count, dtype.name)


def _strings(proto: memoryview, wanted: int, count: int) -> NDArray[Any]:
    """string_val: a field for each string, [count]."""
    strings = np.empty(count, object)
    found = 0
    for field, _, value in wire.fields(proto):
        if field == wanted:
            if found < count:
                strings[found] = bytes(wire.message(value))
            found += 1
    if found != count:
        raise wire.WireError(f"{found} strings where {count} should be")
    return strings
