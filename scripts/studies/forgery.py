"""Builds checkpoint files that are false though their checksums are right, for tests, `damage.py` and the fuzz target.

Nothing here checks anything: every size, shape, offset and count is what the caller says.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import crc32c
import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import wire
from converters.checkpoint.bundle import lengths_crc
from converters.checkpoint.ordered_code import slice_key
from converters.checkpoint.table import FOOTER_SIZE, MAGIC, mask

Pairs = Sequence[tuple[bytes, bytes]]
Extents = Sequence[tuple[int, int]]


def number(field: int, value: int) -> bytes:
    """A varint field; negative numbers as protobuf writes them."""
    return wire.encode_number(field, value % (1 << 64))


def message(field: int, *parts: bytes) -> bytes:
    """A field of bytes."""
    return wire.encode_message(field, b"".join(parts))


def raw_entry(shared: int, suffix: bytes, value: bytes, claimed: int | None = None) -> bytes:
    """An entry of a block; `claimed` is the value's length as written."""
    lengths = (shared, len(suffix), len(value) if claimed is None else claimed)
    return b"".join(map(wire.encode_varint, lengths)) + suffix + value


def block(pairs: Pairs, restarts: Sequence[int] | None = None) -> bytes:
    """A block's contents, every key whole. `restarts` are the offsets as written; None is the right ones."""
    contents, starts = bytearray(), []
    for key, value in pairs:
        starts.append(len(contents))
        contents += raw_entry(0, key, value)
    written = list(restarts) if restarts is not None else starts or [0]
    return bytes(contents) + struct.pack(f"<{len(written) + 1}I", *written, len(written))


def stored(contents: bytes, compression: int = 0) -> bytes:
    """A block as it is in the file, with its trailer."""
    body = contents + bytes([compression])
    return body + struct.pack("<I", mask(crc32c.crc32c(body)))


def handle(offset: int, size: int) -> bytes:
    """Where a block is."""
    return wire.encode_varint(offset) + wire.encode_varint(size)


def footer(metaindex: bytes, index: bytes) -> bytes:
    """The end of a table."""
    return (metaindex + index).ljust(FOOTER_SIZE - len(MAGIC), b"\0") + MAGIC


def table_of_blocks(
    blocks: Iterable[tuple[bytes, bytes]], compression: int = 0, index_contents: bytes | None = None
) -> bytes:
    """A table of (separator, contents of a block); `index_contents` replaces the index block's."""
    out, index = bytearray(), []
    for separator, contents in blocks:
        index.append((separator, handle(len(out), len(contents))))
        out += stored(contents, compression)
    metaindex = handle(len(out), len(block([])))
    out += stored(block([]))
    contents = block(index) if index_contents is None else index_contents
    where = handle(len(out), len(contents))
    out += stored(contents)
    return bytes(out) + footer(metaindex, where)


def table(pairs: Pairs) -> bytes:
    """A table of one block."""
    return table_of_blocks([(pairs[-1][0] if pairs else b"", block(pairs))])


def shape(sides: Sequence[int]) -> bytes:
    """TensorShapeProto."""
    return b"".join(message(2, number(1, side)) for side in sides)


def tensor_slice(extents: Extents) -> bytes:
    """TensorSliceProto; a length of -1 is left out."""
    return b"".join(
        message(1, b"" if length == -1 else number(1, start) + number(2, length)) for start, length in extents
    )


def bundle_header(shards: int = 1, endianness: int = 0, version: bytes | None = None) -> bytes:
    """BundleHeaderProto."""
    return number(1, shards) + number(2, endianness) + message(3, number(1, 1) if version is None else version)


def bundle_entry(
    sides: Sequence[int] = (),
    dtype: int = 1,
    shard: int = 0,
    offset: int = 0,
    size: int = 4,
    data: bytes = bytes(4),
    slices: Sequence[Extents] = (),
    crc: int | None = None,
) -> bytes:
    """BundleEntryProto, with the checksum `crc`, or that of `data`."""
    return (
        number(1, dtype)
        + message(2, shape(sides))
        + number(3, shard)
        + number(4, offset)
        + number(5, size)
        + wire.encode_fixed32(6, mask(crc32c.crc32c(data) if crc is None else crc))
        + b"".join(message(7, tensor_slice(extents)) for extents in slices)
    )


@dataclass(frozen=True)
class StringTensor:
    """The bytes of a string tensor and their checksum, which is not that of the bytes."""

    content: bytes
    crc: int


def string_tensor(strings: Sequence[bytes], claimed: Sequence[int] | None = None) -> StringTensor:
    """Strings as a bundle stores them; `claimed` are their lengths as written."""
    lengths = [len(string) for string in strings] if claimed is None else list(claimed)
    crc = lengths_crc(lengths)
    rest = b"".join([struct.pack("<I", mask(crc)), *strings])
    return StringTensor(b"".join(map(wire.encode_varint, lengths)) + rest, crc32c.crc32c(rest, crc))


def write_bundle(prefix: Path, pairs: Pairs, data: bytes = bytes(16), header: bytes | None = None) -> Path:
    """A V2 checkpoint of these entries, one shard."""
    index = table([(b"", bundle_header() if header is None else header), *pairs])
    prefix.with_name(f"{prefix.name}.index").write_bytes(index)
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    return prefix


def slice_meta(name: str, sides: Sequence[int], slices: Sequence[Extents], dtype: int = 1) -> bytes:
    """SavedSliceMeta."""
    cut = b"".join(message(4, tensor_slice(extents)) for extents in slices)
    return message(1, name.encode()) + message(2, shape(sides)) + number(3, dtype) + cut


def v1_metadata(*metas: bytes) -> tuple[bytes, bytes]:
    """The first entry of a V1 table."""
    return b"", message(1, *(message(1, meta) for meta in metas), message(2, number(1, 1)))


def v1_data(name: str, extents: Extents, proto: bytes, said: str | None = None) -> tuple[bytes, bytes]:
    """The entry of a slice; `said` is the name inside it."""
    inner = message(1, (name if said is None else said).encode()) + message(2, tensor_slice(extents))
    return slice_key(name.encode(), extents), message(2, inner + message(3, proto))


def write_v1(path: Path, arrays: Mapping[str, NDArray[np.float32]]) -> Path:
    """A V1 checkpoint of float32 variables, a block for each."""
    whole = {name: tuple((0, -1) for _ in array.shape) for name, array in arrays.items()}
    metas = [slice_meta(name, array.shape, [whole[name]]) for name, array in arrays.items()]
    data = [
        v1_data(name, whole[name], number(1, 1) + message(5, array.astype("<f4").tobytes()))
        for name, array in arrays.items()
    ]
    path.write_bytes(
        table_of_blocks((key, block([(key, value)])) for key, value in [v1_metadata(*metas), *sorted(data)])
    )
    return path


def packed_floats(count: int) -> bytes:
    """TensorProto of so many zeros."""
    return number(1, 1) + message(5, bytes(4 * count))
