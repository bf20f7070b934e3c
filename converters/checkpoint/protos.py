"""The messages of both formats: tensor_shape, tensor_slice and versions of tensorflow/core/framework."""

from __future__ import annotations

import math

from converters.checkpoint import wire
from converters.checkpoint.ordered_code import FULL_EXTENT

# NumPy's limit in every version; TensorFlow stores up to 254, and computes with 8.
_MAX_RANK = 32
# NumPy multiplies an empty array's other sides all the same.
_MAX_BYTES, _LARGEST_ITEM = 1 << 63, 16
# TF_CHECKPOINT_VERSION of tensorflow/core/public/release_version.h, kTensorBundleVersion of tensor_bundle.cc.
_VERSION = 1


def shape(buffer: memoryview) -> tuple[int, ...]:
    """TensorShapeProto: the sides.

    Raises:
      wire.WireError: no message, an unknown rank, a negative side, or a shape that no array can have.
    """
    sides = []
    for field, _, value in wire.fields(buffer):
        if field == 2:
            side = wire.signed(wire.number(wire.single_fields(wire.message(value)).get(1, 0)))
            if side < 0:
                raise wire.WireError(f"a shape with a side of {side}")
            sides.append(side)
            if len(sides) > _MAX_RANK:
                raise wire.WireError(f"a shape of more than {_MAX_RANK} sides")
        elif field == 3 and wire.number(value):
            raise wire.WireError("a shape of unknown rank")
    if not all(sides) and math.prod(filter(None, sides)) * _LARGEST_ITEM >= _MAX_BYTES:
        raise wire.WireError(f"an empty shape with sides that are too large: {sides}")
    return tuple(sides)


def extents(buffer: memoryview) -> tuple[tuple[int, int], ...]:
    """TensorSliceProto: (start, length) for each dimension; an extent without a length is all of its dimension.

    Raises:
      wire.WireError: no message.
    """
    found = []
    for field, _, value in wire.fields(buffer):
        if field == 1:
            extent = wire.single_fields(wire.message(value))
            start, length = (
                wire.signed(wire.number(extent.get(number, default % (1 << 64))))
                for number, default in zip((1, 2), FULL_EXTENT, strict=True)
            )
            found.append((start, length))
    return tuple(found)


def check_version(buffer: memoryview) -> None:
    """VersionDef: refuses files for newer readers, as CheckVersions of tensorflow/core/framework does.

    Raises:
      wire.WireError: no message, or such a version.
    """
    for field, wire_type, value in wire.fields(buffer):
        if field == 2 and wire.number(value) > _VERSION:
            raise wire.WireError(
                f"written for readers of version {wire.number(value)} or newer; slimport reads {_VERSION}"
            )
        if field == 3:
            # bad_consumers, packed or not.
            bad = (value,) if wire_type == wire.VARINT else tuple(wire.message(value))
            if _VERSION in bad:
                raise wire.WireError(f"not to be read by readers of version {_VERSION}, as slimport is")
