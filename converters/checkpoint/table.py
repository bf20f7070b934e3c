"""LevelDB's sorted string table, the container of both checkpoint formats.

Every block's checksum is verified before a byte of it is used. Source: tensorflow/core/lib/io/table.cc, format.cc,
block.cc, table_builder.cc.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import crc32c

from converters.checkpoint import wire
from converters.errors import CheckpointError

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_SIZE = 48
BLOCK_TRAILER_SIZE = 5
NO_COMPRESSION, SNAPPY = 0, 1
# Every so many entries, TensorFlow stores a key whole.
RESTART_INTERVAL = 16
# Of what is written.
BLOCK_SIZE = 4096
# A snappy element of 3 bytes copies at most 64: what claims to inflate more than this is forged.
SNAPPY_RATIO = 22
# Bytes of blocks that a table keeps.
_KEPT = 16 << 20


def mask(crc: int) -> int:
    """A CRC-32C as TensorFlow stores it (tensorflow/core/lib/hash/crc32c.h)."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@dataclass(frozen=True)
class BlockHandle:
    """The place of a block; `size` is without its trailer."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        """The offset at which the next block can begin."""
        return self.offset + self.size + BLOCK_TRAILER_SIZE


class File(Protocol):
    """The file that a table is in."""

    @property
    def label(self) -> str:
        """What errors call it."""

    def size(self) -> int | None:
        """Its size in bytes; None if it does not exist."""

    def read(self, offset: int, size: int) -> memoryview:
        """`size` bytes of it, or fewer if it ends before."""


class Table:
    """A table in a file. Blocks are read on access.

    Raises:
      CheckpointError: from any method, where the bytes are no table or damaged.
    """

    def __init__(self, file: File) -> None:
        self.label = file.label
        self._file = file
        self._size = file.size() or 0
        # Keys and values of the blocks read last, by their handles.
        self._blocks: dict[BlockHandle, dict[bytes, memoryview]] = {}
        # A file that is missing says so when it is read.
        footer = file.read(max(0, self._size - FOOTER_SIZE), FOOTER_SIZE)
        if len(footer) < FOOTER_SIZE or bytes(footer[-8:]) != MAGIC:
            raise CheckpointError(f"{self.label}: {_what_it_is_instead(bytes(file.read(0, _SAMPLE)))}")
        try:
            # The metaindex: a table of a checkpoint has nothing there.
            _, offset = self._handle(footer, 0)
            self.index, _ = self._handle(footer, offset)
        except wire.WireError as error:
            raise CheckpointError(
                f"{self.label}: damaged table footer at offset {self._size - FOOTER_SIZE}: {error}; get the file again"
            ) from error

    @property
    def size(self) -> int:
        """The size of the file in bytes, when it was opened."""
        return self._size

    @cached_property
    def blocks(self) -> list[tuple[bytes, BlockHandle]]:
        """Yields (a key not below any in the block and below all in the next, the block's handle), in order."""
        blocks = []
        end = 0
        for key, value in self.entries(self.index).items():
            try:
                handle, _ = self._handle(value, 0)
                # So that reading every block takes no longer than reading the file.
                if handle.offset < end:
                    raise wire.WireError(f"it lists a block at offset {handle.offset} that overlaps the one before it")
            except wire.WireError as error:
                raise self._damaged(self.index, str(error)) from error
            blocks.append((key, handle))
            end = handle.end
        return blocks

    def find(self, key: bytes) -> memoryview | None:
        """The value of a key, or None."""
        place = bisect_left(self.blocks, key, key=lambda block: block[0])
        return None if place == len(self.blocks) else self.entries(self.blocks[place][1]).get(key)

    def __iter__(self) -> Iterator[tuple[bytes, memoryview]]:
        last: bytes | None = None
        for _, handle in self.blocks:
            entries = self.entries(handle)
            if last is not None and entries and next(iter(entries)) <= last:
                raise self._damaged(handle, "its keys are not above those of the block before it")
            last = next(reversed(entries), last)
            yield from entries.items()

    def entries(self, handle: BlockHandle) -> dict[bytes, memoryview]:
        """Values by key of one block, in order. Values are views into it."""
        if (known := self._blocks.get(handle)) is not None:
            return known
        # Variables of one block are mostly read one after another. Before the next block is read, so that the memory
        # of a large tensor is free when the next one needs it.
        while self._blocks and sum(block.size for block in self._blocks) + handle.size > _KEPT:
            del self._blocks[next(iter(self._blocks))]
        try:
            found = self._blocks[handle] = _parse_block(self._read(handle))
        except wire.WireError as error:
            raise self._damaged(handle, str(error)) from error
        return found

    def _read(self, handle: BlockHandle) -> memoryview:
        """A block's contents."""
        stored = self._file.read(handle.offset, handle.end - handle.offset)
        if len(stored) != handle.end - handle.offset:
            raise CheckpointError(f"{self.label}: has become shorter while it was read; run it again later")
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
            raise CheckpointError(f"{self.label}: compressed with snappy: pip install cramjam") from error
        try:
            size, _ = wire.varint(contents, 0)
            if size > SNAPPY_RATIO * len(contents):
                raise wire.WireError(f"{len(contents)} compressed bytes cannot be {size}")
            return memoryview(bytes(snappy.decompress_raw(contents, output_len=size)))
        # Whatever the library raises, it is about these bytes.
        except Exception as error:
            raise self._damaged(handle, f"snappy: {error}") from error

    def _handle(self, buffer: memoryview, offset: int) -> tuple[BlockHandle, int]:
        start, offset = wire.varint(buffer, offset)
        size, offset = wire.varint(buffer, offset)
        handle = BlockHandle(start, size)
        if handle.end > self._size:
            raise wire.WireError(f"a block of {size} bytes at offset {start} reaches beyond the file")
        return handle, offset

    def _damaged(self, handle: BlockHandle, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.label}: damaged block of {handle.size} bytes at offset {handle.offset}: {what}; get the file again"
        )


def _parse_block(block: memoryview) -> dict[bytes, memoryview]:
    """The entries of a block, whose restarts are checked too: TensorFlow searches by them, and must find the same."""
    if len(block) < 4:
        raise wire.WireError("it has no restart count")
    (restart_count,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 * (restart_count + 1)
    if end < 0:
        raise wire.WireError(f"{restart_count} restarts do not fit")
    entries: dict[bytes, memoryview] = {}
    whole_keys = set()
    offset, key = 0, b""
    # A key that shares much with the one before it takes few bytes here and many in memory.
    budget = RESTART_INTERVAL * len(block)
    while offset < end:
        start = offset
        shared, offset = wire.varint(block, offset)
        unshared, offset = wire.varint(block, offset)
        size, offset = wire.varint(block, offset)
        if shared > len(key) or unshared > end - offset or size > end - offset - unshared:
            raise wire.WireError(f"the entry at {start} reaches beyond it")
        if not shared:
            whole_keys.add(start)
        budget -= shared + unshared
        if budget < 0:
            raise wire.WireError(f"the keys up to {start} are longer than can be")
        previous, key = key, key[:shared] + bytes(block[offset : offset + unshared])
        if entries and key <= previous:
            raise wire.WireError(f"the key at {start} is not above the one before it")
        offset += unshared
        entries[key] = block[offset : offset + size]
        offset += size
    if not whole_keys:
        # The one restart of an empty block is where an entry would be.
        whole_keys.add(0)
    restarts = struct.unpack(f"<{restart_count}I", block[end:-4])
    if not restarts or restarts[0] != 0 or not whole_keys.issuperset(restarts) or len(set(restarts)) != restart_count:
        raise wire.WireError("its restarts are not where its entries are")
    return entries


def what_it_is(begins: bytes) -> str | None:
    """The kind of a file that is no checkpoint, by its first bytes, and the advice; None if it is not known."""
    begins = begins.lstrip(b"\xef\xbb\xbf \t\r\n")
    small = begins.lower()
    return next((what for magic, what in _OTHER_FILES if begins.startswith(magic) or small.startswith(magic)), None)


def _what_it_is_instead(begins: bytes) -> str:
    """A description of a file that is not a table, by its first bytes, and what to do about it."""
    if what := what_it_is(begins[:_BEGIN]):
        return f"not a TensorFlow checkpoint: {what}"
    if _looks_random(begins):
        return "not a TensorFlow checkpoint: its bytes look random, as encrypted or compressed ones do"
    return (
        "not a TensorFlow checkpoint, or cut off: it does not end in a table's footer; get the file again, or name "
        "another"
    )


def _looks_random(sample: bytes) -> bool:
    """Whether bytes are as evenly spread as random ones are: within five standard deviations of chi-squared."""
    counts = Counter(sample)
    expected = len(sample) / 256
    spread = sum((counts[value] - expected) ** 2 for value in range(256)) / expected if sample else math.inf
    return len(sample) == _SAMPLE and spread < 255 + 5 * math.sqrt(2 * 255)


_BEGIN = 64
_SAMPLE = 4096
_OTHER_FILES = (
    (b"version https://git-lfs", "a pointer that Git LFS left; get the file itself with git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    (b"PK\x03\x04", "a zip archive, as PyTorch and Keras write"),
    (b"<!doctype", "a web page; the download went wrong"),
    (b"<html", "a web page; the download went wrong"),
    (b"<head", "a web page; the download went wrong"),
    (b"<?xml", "an XML page; the download went wrong"),
)


def build_table(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The bytes of a table of entries, which must be sorted by key.

    Data blocks, an empty metaindex block, the index block, the footer. Source: tensorflow/core/lib/io/table_builder.cc.
    """
    table = bytearray()
    index: list[tuple[bytes, bytes]] = []

    def add(block: list[tuple[bytes, bytes]], restart_interval: int = RESTART_INTERVAL) -> bytes:
        """Appends a block; returns its handle."""
        content = _build_block(block, restart_interval) + bytes([NO_COMPRESSION])
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
    handles = add([]) + add(index, restart_interval=1)
    return bytes(table) + handles.ljust(FOOTER_SIZE - len(MAGIC), b"\0") + MAGIC


def _build_block(entries: list[tuple[bytes, bytes]], restart_interval: int) -> bytes:
    block = bytearray()
    restarts = []
    previous = b""
    for number, (key, value) in enumerate(entries):
        if number % restart_interval == 0:
            restarts.append(len(block))
            previous = b""
        shared = _shared(previous, key)
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


def _shared(a: bytes, b: bytes) -> int:
    """The length of two keys' common prefix."""
    shortest = min(len(a), len(b))
    return next((i for i in range(shortest) if a[i] != b[i]), shortest)
