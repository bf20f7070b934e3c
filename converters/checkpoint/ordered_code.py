"""TensorFlow's order-preserving encoding, the part that the keys of tensor slices need.

Source: tensorflow/core/lib/strings/ordered_code.cc; tensorflow/core/util/saved_tensor_slice_util.cc.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Extents = Sequence[tuple[int, int]]
"""(start, length) for each dimension; length -1 is all of it, from 0 on."""

FULL_EXTENT = (0, -1)


def slice_key(name: bytes, extents: Extents) -> bytes:
    """The key of a tensor's slice in a table."""
    key = _unsigned(0) + _string(name) + _unsigned(len(extents))
    return key + b"".join(_signed(start) + _signed(length) for start, length in extents)


def _unsigned(value: int) -> bytes:
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def _string(value: bytes) -> bytes:
    return re.sub(rb"[\x00\xff]", lambda byte: byte[0] + bytes([byte[0][0] ^ 0xFF]), value) + b"\x00\x01"


def _signed(value: int) -> bytes:
    """n bytes of two's complement whose leading n bits are flipped: they count the bytes, which sort as numbers do."""
    size = (~value if value < 0 else value).bit_length() // 7 + 1
    twos_complement = value & ((1 << 8 * size) - 1)
    return (twos_complement ^ ((1 << size) - 1) << 7 * size).to_bytes(size, "big")
