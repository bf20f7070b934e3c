"""The messages that both formats share: tensor_shape.proto and tensor_slice.proto of tensorflow/core/framework."""

from __future__ import annotations

from converters.checkpoint import wire
from converters.checkpoint.ordered_code import FULL_EXTENT


def shape(buffer: memoryview) -> tuple[int, ...]:
    """TensorShapeProto: the sides.

    Raises:
      wire.WireError: no message, an unknown rank, or a negative side.
    """
    sides = []
    for field, _, value in wire.fields(buffer):
        if field == 2:
            side = 0
            for inner, _, size in wire.fields(wire.message(value)):
                if inner == 1:
                    side = wire.signed(wire.number(size))
            if side < 0:
                raise wire.WireError(f"a shape with a side of {side}")
            sides.append(side)
        elif field == 3 and wire.number(value):
            raise wire.WireError("a shape of unknown rank")
    if len(sides) > 254:
        # TensorShape::MaxDimensions() of tensorflow/core/framework/tensor_shape.h.
        raise wire.WireError(f"a shape of rank {len(sides)}")
    return tuple(sides)


def extents(buffer: memoryview) -> tuple[tuple[int, int], ...]:
    """TensorSliceProto: (start, length) for each dimension; an extent without a length is all of its dimension.

    Raises:
      wire.WireError: no message.
    """
    found = []
    for field, _, value in wire.fields(buffer):
        if field == 1:
            start, length = FULL_EXTENT
            for inner, _, number in wire.fields(wire.message(value)):
                if inner == 1:
                    start = wire.signed(wire.number(number))
                elif inner == 2:
                    length = wire.signed(wire.number(number))
            found.append((start, length))
    return tuple(found)
