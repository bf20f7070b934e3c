"""LevelDB's sorted string table, the container of both checkpoint formats.

Every block's checksum is verified before a byte of it is used. Source: tensorflow/core/lib/io/table.cc, format.cc,
block.cc.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import crc32c

from converters.checkpoint import wire
from converters.errors import CheckpointError

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_SIZE = 48
BLOCK_TRAILER_SIZE = 5
NO_COMPRESSION, SNAPPY = 0, 1
# Of what is written.
BLOCK_SIZE = 4096
RESTART_INTERVAL = 16


def mask(crc: int) -> int:
    """A CRC-32C as TensorFlow stores it (tensorflow/core/lib/hash/crc32c.h)."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@dataclass(frozen=True)
class BlockHandle:
    """Where a block is; `size` is without its trailer."""

    offset: int
    size: int


class Table:
    """A table over a buffer. Blocks are read when they are asked for.

    Raises:
      CheckpointError: from any method, where the bytes are no table or damaged.
    """

    def __init__(self, path: Path, buffer: memoryview) -> None:
        self._path = path
        self._buffer = buffer
        if len(buffer) < FOOTER_SIZE or bytes(buffer[-8:]) != MAGIC:
            raise CheckpointError(
                f"{path}: not a TensorFlow checkpoint, or cut off: it does not end in a table's footer"
            )
        footer = buffer[-FOOTER_SIZE:]
        offset = 0
        try:
            _, offset = self._handle(footer, offset)
            index, offset = self._handle(footer, offset)
        except wire.WireError as error:
            raise CheckpointError(
                f"{path}: damaged table footer at offset {len(buffer) - FOOTER_SIZE}: {error}"
            ) from error
        self._index_handle = index

    @cached_property
    def blocks(self) -> list[tuple[bytes, BlockHandle]]:
        """(a key not below any in the block, and below all in the next; where the block is), in order."""
        blocks = []
        for key, value in self.entries(self._index_handle):
            try:
                blocks.append((key, self._handle(value, 0)[0]))
            except wire.WireError as error:
                raise self._damaged(self._index_handle, str(error)) from error
        return blocks

    def find(self, key: bytes) -> memoryview | None:
        """The value of a key, or None."""
        place = bisect_left(self.blocks, key, key=lambda block: block[0])
        if place == len(self.blocks):
            return None
        return next((value for found, value in self.entries(self.blocks[place][1]) if found == key), None)

    def __iter__(self) -> Iterator[tuple[bytes, memoryview]]:
        for _, handle in self.blocks:
            yield from self.entries(handle)

    def entries(self, handle: BlockHandle) -> Iterator[tuple[bytes, memoryview]]:
        """The entries of one block. Values are views into it."""
        block = self._read(handle)
        if len(block) < 4:
            raise self._damaged(handle, "it has no restart count")
        (restarts,) = struct.unpack("<I", block[-4:])
        end = len(block) - 4 * (restarts + 1)
        if end < 0:
            raise self._damaged(handle, f"{restarts} restarts do not fit")
        offset, key = 0, b""
        try:
            while offset < end:
                shared, offset = wire.varint(block, offset)
                unshared, offset = wire.varint(block, offset)
                size, offset = wire.varint(block, offset)
                if shared > len(key) or unshared > end - offset or size > end - offset - unshared:
                    raise wire.WireError("an entry reaches beyond it")
                key = key[:shared] + bytes(block[offset : offset + unshared])
                offset += unshared
                yield key, block[offset : offset + size]
                offset += size
        except wire.WireError as error:
            raise self._damaged(handle, str(error)) from error

    def _read(self, handle: BlockHandle) -> memoryview:
        stored = self._buffer[handle.offset : handle.offset + handle.size + BLOCK_TRAILER_SIZE]
        (crc,) = struct.unpack("<I", stored[-4:])
        if mask(crc32c.crc32c(stored[:-4])) != crc:
            raise self._damaged(handle, "its checksum does not match")
        contents, compression = stored[:-BLOCK_TRAILER_SIZE], stored[-BLOCK_TRAILER_SIZE]
        if compression == NO_COMPRESSION:
            return contents
        if compression == SNAPPY:
            return self._inflate(handle, contents)
        raise self._damaged(handle, f"unknown compression {compression}")

    def _inflate(self, handle: BlockHandle, contents: memoryview) -> memoryview:
        try:
            from cramjam import snappy
        except ModuleNotFoundError as error:
            raise CheckpointError(f"{self._path}: compressed with snappy: pip install 'slimport[snappy]'") from error
        try:
            size, _ = wire.varint(contents, 0)
            # A snappy element of 3 bytes copies at most 64: what claims more is forged, and is not allocated.
            if size > 22 * len(contents) + 64:
                raise wire.WireError(f"{len(contents)} compressed bytes cannot be {size}")
            return memoryview(bytes(snappy.decompress_raw(contents, output_len=size)))
        except wire.WireError as error:
            raise self._damaged(handle, str(error)) from error
        except Exception as error:
            raise self._damaged(handle, f"snappy: {error}") from error

    def _handle(self, buffer: memoryview, offset: int) -> tuple[BlockHandle, int]:
        start, offset = wire.varint(buffer, offset)
        size, offset = wire.varint(buffer, offset)
        if start + size + BLOCK_TRAILER_SIZE > len(self._buffer):
            raise wire.WireError(f"a block of {size} bytes at offset {start} reaches beyond the file")
        return BlockHandle(start, size), offset

    def _damaged(self, handle: BlockHandle, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._path}: damaged block of {handle.size} bytes at offset {handle.offset}: {what}; get the file again"
        )


def build_table(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The bytes of a table of entries, which must be sorted by key.

    Data blocks, an empty metaindex block, the index block, the footer. Source: tensorflow/core/lib/io/table_builder.cc.
    """
    table = bytearray()
    index: list[tuple[bytes, bytes]] = []

    def add(block: list[tuple[bytes, bytes]]) -> bytes:
        """Appends a block; returns its handle."""
        content = _build_block(block) + bytes([NO_COMPRESSION])
        handle = wire.encode_varint(len(table)) + wire.encode_varint(len(content) - 1)
        table.extend(content + struct.pack("<I", mask(crc32c.crc32c(content))))
        return handle

    pending: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in entries:
        pending.append((key, value))
        size += len(key) + len(value)
        if size > BLOCK_SIZE:
            index.append((key, add(pending)))
            pending, size = [], 0
    if pending:
        index.append((pending[-1][0], add(pending)))
    handles = add([]) + add(index)
    return bytes(table) + handles.ljust(FOOTER_SIZE - len(MAGIC), b"\0") + MAGIC


def _build_block(entries: list[tuple[bytes, bytes]]) -> bytes:
    block = bytearray()
    restarts = []
    previous = b""
    for number, (key, value) in enumerate(entries):
        if number % RESTART_INTERVAL == 0:
            restarts.append(len(block))
            previous = b""
        shared = next(
            (i for i, (a, b) in enumerate(zip(previous, key, strict=False)) if a != b), min(len(previous), len(key))
        )
        block += (
            wire.encode_varint(shared)
            + wire.encode_varint(len(key) - shared)
            + wire.encode_varint(len(value))
            + key[shared:]
            + value
        )
        previous = key
    restarts = restarts or [0]
    return bytes(block) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
