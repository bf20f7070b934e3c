"""The encodings, against protobuf's own code and TensorFlow's own files."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, tensor_slice_pb2

from converters.checkpoint import protos, wire
from converters.checkpoint.ordered_code import slice_key

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(INT64, max_size=300))
def test_packed_varints_are_what_protobuf_packs(values: list[int]) -> None:
    packed = wire.single_fields(memoryview(tensor_pb2.TensorProto(int64_val=values).SerializeToString())).get(10, b"")
    assert wire.packed_varints(memoryview(packed), len(values), "int64").tolist() == values


@pytest.mark.parametrize("size", [1, 65535, 65536, 65537, 200_001])
def test_packed_varints_across_pieces(size: int) -> None:
    values = np.random.default_rng(size).integers(-(2**62), 2**62, size) >> np.arange(size) % 63
    message = tensor_pb2.TensorProto(int64_val=values.tolist()).SerializeToString()
    packed = wire.message(wire.single_fields(memoryview(message))[10])
    np.testing.assert_array_equal(wire.packed_varints(packed, size, "int64"), values)
    with pytest.raises(wire.WireError):
        wire.packed_varints(packed, size + 1, "int64")
    with pytest.raises(wire.WireError):
        wire.packed_varints(memoryview(bytes(packed[:-1]) + b"\x80"), size, "int64")


@given(st.integers(0, 2**64 - 1))
def test_a_varint_is_read_back(value: int) -> None:
    encoded = wire.encode_varint(value)
    assert wire.varint(memoryview(encoded + b"\x80"), 0) == (value, len(encoded))


@given(st.lists(st.integers(1, 2**63 - 1), max_size=6) | st.lists(st.integers(0, 999), max_size=6))
def test_a_shape_is_what_protobuf_writes(sides: list[int]) -> None:
    proto = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=s) for s in sides])
    assert protos.shape(memoryview(proto.SerializeToString())) == tuple(sides)


@given(st.lists(st.tuples(INT64, INT64) | st.none(), max_size=6))
def test_a_slice_is_what_protobuf_writes(extents: list[tuple[int, int] | None]) -> None:
    proto = tensor_slice_pb2.TensorSliceProto()
    for extent in extents:
        added = proto.extent.add()
        if extent is not None:
            added.start, added.length = extent
    assert protos.extents(memoryview(proto.SerializeToString())) == tuple(e or (0, -1) for e in extents)


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_an_error(data: bytes) -> None:
    try:
        fields = list(wire.fields(memoryview(data)))
    except wire.WireError:
        return
    assert all(number > 0 for number, _, _ in fields)


def test_a_message_that_is_cut_off_is_refused_where_protobuf_refuses_it() -> None:
    whole = tensor_pb2.TensorProto(
        dtype=1, tensor_content=b"content", float_val=[1.0, 2.0], string_val=[b"one", b"another"]
    ).SerializeToString()
    refused = []
    for parse in (tensor_pb2.TensorProto.FromString, lambda data: list(wire.fields(memoryview(data)))):
        outcomes = []
        for end in range(len(whole)):
            try:
                parse(whole[:end])
            except (DecodeError, wire.WireError):
                outcomes.append(end)
        refused.append(outcomes)
    assert refused[0] == refused[1]
    assert len(refused[0]) > len(whole) / 2


EXTENTS = st.lists(st.tuples(INT64, INT64), max_size=3)


@given(st.lists(st.tuples(st.binary(max_size=9), EXTENTS), min_size=2, max_size=2))
def test_keys_of_slices_sort_as_names_and_extents_do(pair: list[tuple[bytes, list[tuple[int, int]]]]) -> None:
    def order(item: tuple[bytes, list[tuple[int, int]]]) -> tuple[bytes, int, list[tuple[int, int]]]:
        return item[0], len(item[1]), item[1]

    a, b = sorted(pair, key=order)
    assert slice_key(*a) <= slice_key(*b)
    assert (slice_key(*a) == slice_key(*b)) == (a == b)
