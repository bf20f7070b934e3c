"""The protobuf wire format: small functions over a buffer that check every bound.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Value = int | memoryview

# Varints are decoded in pieces of this many bytes, to save memory.
_PIECE = 1 << 16
_LONGEST_VARINT = 10


class WireError(ValueError):
    """Bytes that are not a protobuf message. Callers add the file and the offset."""


def varint(buffer: memoryview, offset: int) -> tuple[int, int]:
    """The unsigned varint of at most 64 bits at `offset`, and the offset after it."""
    # Nearly all are of one byte.
    if offset < len(buffer) and buffer[offset] < 0x80:
        return buffer[offset], offset + 1
    value = 0
    for index, byte in enumerate(buffer[offset : offset + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >> 64:
                break
            return value, offset + index + 1
    raise WireError("a varint that does not end")


def signed(value: int) -> int:
    """A varint read as int64 in two's complement, as protobuf writes negative numbers."""
    return value - (1 << 64) if value >> 63 else value


def fields(buffer: memoryview) -> Iterator[tuple[int, int, Value]]:
    """Yields (field number, wire type, value) for each field: an int for numbers, a view for bytes and messages."""
    offset = 0
    while offset < len(buffer):
        tag, offset = varint(buffer, offset)
        number, wire_type = tag >> 3, tag & 7
        value: Value
        if wire_type == VARINT:
            value, offset = varint(buffer, offset)
        elif wire_type in (FIXED64, FIXED32, BYTES):
            size = 8 if wire_type == FIXED64 else 4
            if wire_type == BYTES:
                size, offset = varint(buffer, offset)
            if size > len(buffer) - offset:
                raise WireError(f"field {number} claims {size} bytes, {len(buffer) - offset} are left")
            value = buffer[offset : offset + size]
            offset += size
        else:
            raise WireError(f"field {number} has wire type {wire_type}")
        if number == 0:
            raise WireError("a field numbered 0")
        yield number, wire_type, value


def message_fields(buffer: memoryview, repeated: int) -> tuple[dict[int, Value], list[memoryview]]:
    """The fields of a message by number, and the messages of its one repeated field.

    Of any other field that occurs twice, a parser would take the last, or merge both. TensorFlow writes none twice:
    that is a forgery.
    """
    single: dict[int, Value] = {}
    messages = []
    for field, _, value in fields(buffer):
        if field == repeated:
            messages.append(message(value))
        elif field in single:
            raise WireError(f"field {field} occurs twice")
        else:
            single[field] = value
    return single, messages


def single_fields(buffer: memoryview) -> dict[int, Value]:
    """The fields by number of a message that has no repeated one."""
    return message_fields(buffer, repeated=0)[0]


def number(value: Value) -> int:
    """A field that must be a varint."""
    if not isinstance(value, int):
        raise WireError("bytes where a number should be")
    return value


def message(value: Value) -> memoryview:
    """A field that must be bytes, a string or a message."""
    if isinstance(value, int):
        raise WireError("a number where bytes should be")
    return value


def text(value: Value) -> str:
    """A field that must be a UTF-8 string."""
    try:
        return bytes(message(value)).decode()
    except UnicodeDecodeError as error:
        raise WireError("a name that is not UTF-8") from error


def packed_varints(buffer: memoryview, count: int, dtype: str) -> NDArray[Any]:
    """Consecutive varints, [count] of an integer dtype or bool, decoded without a loop.

    A value that does not fit the dtype loses its upper bits, as in TensorFlow.

    Raises:
      WireError: there are more or fewer.
    """
    data = np.frombuffer(buffer, np.uint8)
    # Before anything is allocated: a varint takes at least a byte.
    found = int(np.count_nonzero(data < 0x80)) if count <= len(data) else len(data)
    if found != count:
        raise WireError(f"{found} values where {count} should be")
    if len(data) and data[-1] >= 0x80:
        raise WireError("a varint that does not end")
    values = np.empty(count, dtype)
    start = done = 0
    while start < len(data):
        piece = data[start : start + _PIECE]
        ends = np.flatnonzero(piece < 0x80)
        if not len(ends):
            raise WireError("a varint that does not end")
        values[done : done + len(ends)] = _varints(piece, ends).astype(dtype)
        done += len(ends)
        start += int(ends[-1]) + 1
    return values


def _varints(data: NDArray[np.uint8], ends: NDArray[np.intp]) -> NDArray[np.uint64]:
    """The varints whose last bytes are at `ends`."""
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > _LONGEST_VARINT:
        raise WireError("a varint longer than 10 bytes")
    values = np.zeros(len(ends), np.uint64)
    for index in range(longest):
        has = lengths > index
        values[has] |= (data[starts[has] + index] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * index)
    return values


def encode_varint(value: int) -> bytes:
    """A non-negative number as a varint."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def encode_number(field: int, value: int) -> bytes:
    """A field of a non-negative number."""
    return encode_varint(field << 3 | VARINT) + encode_varint(value)


def encode_message(field: int, content: bytes) -> bytes:
    """A field of bytes, a string or a message."""
    return encode_varint(field << 3 | BYTES) + encode_varint(len(content)) + content


def encode_fixed32(field: int, value: int) -> bytes:
    """A field of four bytes."""
    return encode_varint(field << 3 | FIXED32) + value.to_bytes(4, "little")
