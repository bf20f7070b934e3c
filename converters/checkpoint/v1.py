"""The V1 format: tables of SavedTensorSlices, in one file or in shards `PREFIX-?????-of-?????`.

Sources: tensorflow/core/util/saved_tensor_slice.proto, tensor_slice_reader.cc, tensor_slice_writer.h;
tensorflow/core/framework/tensor.proto.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import dtypes, protos, wire
from converters.checkpoint.mapped import MappedFile
from converters.checkpoint.ordered_code import FULL_EXTENT, Extents, slice_key
from converters.checkpoint.reader import Checkpoint, Variable, assemble, element_count, slice_shape
from converters.checkpoint.table import Table
from converters.errors import CheckpointError

# The field of TensorProto that holds a dtype's values, by NumPy's name of the dtype.
_VALUE_FIELDS = {
    "float32": 5,
    "float64": 6,
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
_INT_FIELD = 7
# These are stored as they are in memory; all other numbers are varints.
_PLAIN = ("float32", "float64", "complex64", "complex128")


class V1Checkpoint(Checkpoint):
    """A V1 checkpoint."""

    format = "v1"

    def __init__(self, path: Path, shards: Sequence[Path]) -> None:
        files = [MappedFile(shard) for shard in shards]
        # By variable: its slices, and the table that each is in.
        self._slices: dict[str, list[tuple[Extents, Path, Table]]] = {}
        variables: dict[str, Variable] = {}
        for file in files:
            table = Table(file.path, file.view)
            for variable, slices in _metadata(file.path, table):
                if variables.setdefault(variable.name, variable) != variable:
                    raise CheckpointError(
                        f"{file.path}: {variable.name} has another shape or dtype than in another shard"
                    )
                self._slices.setdefault(variable.name, []).extend((extents, file.path, table) for extents in slices)
        super().__init__(path, variables.values(), files)

    def _read(self, variable: Variable) -> NDArray[Any]:
        slices = self._slices[variable.name]
        where = f"{slices[0][1] if slices else self.path}: {variable.name}"
        if len(slices) == 1 and all(extent == FULL_EXTENT for extent in slices[0][0]):
            return _read_slice(variable, *slices[0])
        # What is about to be allocated must be there: every slice's own size is checked against its bytes.
        pieces = [(extents, _read_slice(variable, extents, path, table)) for extents, path, table in slices]
        if sum(piece.size for _, piece in pieces) != element_count(variable.shape):
            raise CheckpointError(f"{where}: its slices do not cover the shape {list(variable.shape)} once")
        return assemble(where, variable, pieces)


def _metadata(path: Path, table: Table) -> list[tuple[Variable, list[Extents]]]:
    """The entry with the empty key: SavedTensorSlices.meta, which lists every tensor and its slices in this file."""
    entry = table.find(b"")
    if entry is None:
        raise CheckpointError(f"{path}: a table, but not a V1 checkpoint: it has no metadata entry")
    found = []
    try:
        for field, _, value in wire.fields(entry):
            if field != 1:
                continue
            for inner, _, tensor in wire.fields(wire.message(value)):
                if inner == 1:
                    found.append(_slice_meta(path, wire.message(tensor)))
    except wire.WireError as error:
        raise CheckpointError(f"{path}: damaged metadata entry: {error}") from error
    return found


def _slice_meta(path: Path, buffer: memoryview) -> tuple[Variable, list[Extents]]:
    name, number = "", 0
    shape: tuple[int, ...] = ()
    slices: list[Extents] = []
    for field, _, value in wire.fields(buffer):
        if field == 1:
            name = wire.text(value)
        elif field == 2:
            shape = protos.shape(wire.message(value))
        elif field == 3:
            number = wire.number(value)
        elif field == 4:
            slices.append(protos.extents(wire.message(value)))
    return Variable(name, shape, dtypes.numpy_dtype(number, f"{path}: {name}")), slices


def _read_slice(variable: Variable, extents: Extents, path: Path, table: Table) -> NDArray[Any]:
    where = f"{path}: {variable.name}"
    entry = table.find(slice_key(variable.name, extents))
    if entry is None:
        raise CheckpointError(f"{where}: the metadata lists it, but the file does not hold it")
    try:
        shape = slice_shape(variable.shape, extents)
        values = _values(_tensor_proto(variable, extents, entry), variable.dtype)
    except ValueError as error:
        raise CheckpointError(f"{where}: damaged: {error}") from error
    if values.size != element_count(shape):
        raise CheckpointError(f"{where}: holds {values.size} values, and its shape {list(shape)} needs more or fewer")
    return values.reshape(shape)


def _tensor_proto(variable: Variable, extents: Extents, entry: memoryview) -> memoryview:
    """SavedTensorSlices.data.data, after a check that it is the slice that was looked for."""
    for field, _, value in wire.fields(entry):
        if field != 2:
            continue
        parts = {number: wire.message(part) for number, _, part in wire.fields(wire.message(value))}
        name = wire.text(parts.get(1, memoryview(b"")))
        if name != variable.name or protos.extents(parts.get(2, memoryview(b""))) != tuple(extents):
            raise wire.WireError(f"its entry is that of {name!r}, or of another slice")
        return parts.get(3, memoryview(b""))
    raise wire.WireError("its entry has no data")


def _values(proto: memoryview, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values in a TensorProto's typed field, [n]: a view where they are packed as they are in memory."""
    wanted = _VALUE_FIELDS.get(dtype.name, _INT_FIELD)
    chunks: list[NDArray[Any]] = []
    for field, wire_type, value in wire.fields(proto):
        if field != wanted:
            continue
        if dtype.kind == "O":
            strings = np.empty(1, object)
            strings[0] = bytes(wire.message(value))
            chunks.append(strings)
        elif dtype.name in _PLAIN:
            chunks.append(_plain(wire.message(value), dtype))
        elif wire_type == wire.VARINT:
            chunks.append(np.array([value], np.uint64))
        else:
            chunks.append(wire.packed_varints(wire.message(value)))
    if dtype.name in _PLAIN or dtype.kind == "O":
        return chunks[0] if len(chunks) == 1 else np.concatenate([np.empty(0, dtype), *chunks])
    numbers = np.concatenate([np.empty(0, np.uint64), *chunks])
    if dtype.kind == "b":
        return numbers.astype(bool)
    if wanted == _VALUE_FIELDS["float16"]:
        # The bits of a half or a bfloat16, as an integer.
        return numbers.astype(np.uint16).view(dtype)
    integers: NDArray[Any] = numbers.view(np.int64).astype(dtype)
    return integers


def _plain(buffer: memoryview, dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(buffer) % dtype.itemsize:
        raise wire.WireError(f"{len(buffer)} bytes of {dtype}")
    return np.frombuffer(buffer, dtype)
