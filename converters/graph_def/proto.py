"""TensorFlow's graph messages, read from bytes without TensorFlow: only what is asked for is parsed.

Sources: graph.proto, node_def.proto, attr_value.proto, tensor.proto, tensor_shape.proto, function.proto and
op_def.proto of tensorflow/core/framework.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.checkpoint import dtypes, wire
from converters.checkpoint.messages import shown
from converters.checkpoint.wire import WireError, encode_message

Array = NDArray[Any]
Dims = tuple[int | None, ...]
"""A shape as a graph has it: None is a side that it leaves open."""

_MAX_NODES = 1 << 19
_MAX_RANK = 32
# An array that repeats its last number may be this large; larger ones have all of their bytes in the file.
_MAX_REPEATED = 1 << 24
# The fields of TensorProto that list numbers: the dtype of the numbers, and how protobuf writes them.
_VALUES: dict[int, tuple[str, str]] = {
    5: ("<f4", "fixed"),
    6: ("<f8", "fixed"),
    7: ("int32", "varint"),
    9: ("<c8", "fixed"),
    10: ("int64", "varint"),
    11: ("bool", "varint"),
    12: ("<c16", "fixed"),
    13: ("uint16", "varint"),
    16: ("uint32", "varint"),
    17: ("uint64", "varint"),
}
_HALVES = ("float16", "bfloat16")


@dataclass(frozen=True)
class DType:
    """A dtype by TensorFlow's number."""

    number: int

    @property
    def name(self) -> str:
        """NumPy's name for it; `object` for strings and what no array can hold."""
        dtype = dtypes.numpy_dtype(self.number % 100, "an attribute")
        return "object" if dtype == dtypes.UNREADABLE else dtype.name


@dataclass(frozen=True)
class Function:
    """An attribute that names a function."""

    name: str


class NodeDef:
    """One node: its name, op and inputs; attributes are parsed when they are asked for.

    inputs: as written, with `:1`; those of control, with `^`, only where there are no others.
    """

    __slots__ = ("_attributes", "_buffer", "_views", "inputs", "name", "op")

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._views: dict[str, memoryview] | None = None
        name = op = ""
        inputs: list[str] = []
        # Names come before attributes, whose bytes are many. Bytes are faster to cut than a view.
        data = bytes(buffer[:_HEAD])
        offset, size = 0, len(buffer)
        while offset < size:
            if offset + _LONGEST_PREFIX > len(data) < size:
                data = bytes(buffer)
            tag = data[offset]
            if tag > 0x22:
                break
            offset += 1
            length = data[offset] if offset < size else 0x80
            if length < 0x80:
                start = offset + 1
            else:
                length, start = wire.varint(memoryview(data), offset)
            offset = start + length
            if tag not in _NODE_TAGS or offset > size:
                raise WireError("a damaged node")
            if offset > len(data):
                data = bytes(buffer)
            if tag == 0x0A:
                name = _decoded(data[start:offset])
            elif tag == 0x12:
                op = _decoded(data[start:offset])
            elif tag == 0x1A and not (inputs and data[start : start + 1] == b"^"):
                # Behind data, no one asks for what is waited for: a gradient has hundreds of such inputs.
                inputs.append(_decoded(data[start:offset]))
        self._attributes = offset
        if not name or not op:
            raise WireError(f"a node without a name or an op: {shown(name or op)}")
        self.name, self.op, self.inputs = name, op, tuple(inputs)
        if "" in inputs:
            raise WireError(f"an input without a name of node {shown(name)}")

    @property
    def data_inputs(self) -> list[str]:
        """The inputs without those of control."""
        return [name for name in self.inputs if not name.startswith("^")]

    @property
    def attributes(self) -> Mapping[str, memoryview]:
        """The bytes of each attribute's value by name."""
        if self._views is None:
            self._views = {}
            for number, _, value in wire.fields(self._buffer[self._attributes :]):
                if number == 5:
                    key, view = _map_entry(value)
                    self._views[key] = view
        return self._views

    def __contains__(self, name: str) -> bool:
        return name in self.attributes

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute's value, or the default where the node has none of that name.

        Raises:
          WireError: it is damaged; the message has the node's name.
        """
        try:
            view = self.attributes.get(name)
            return default if view is None else attr_value(view)
        except (WireError, struct.error, ValueError, OverflowError) as error:
            raise WireError(f"node {shown(self.name)}, attribute {shown(name)}: {error}") from error

    def __repr__(self) -> str:
        return f"<{self.op} {self.name}>"


_NODE_TAGS = (0x0A, 0x12, 0x1A, 0x22)
_HEAD, _LONGEST_PREFIX = 512, 12


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise WireError("a name that is not UTF-8") from error


@dataclass(frozen=True)
class FunctionDef:
    """A function of a graph's library.

    arguments: the names of its inputs, which its nodes take as theirs.
    types: their dtypes, by TensorFlow's numbers.
    results: for each output, in order, the tensor of the body that it is.
    """

    name: str
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    nodes: Mapping[str, NodeDef]
    types: tuple[int, ...] = ()


@dataclass
class GraphDef:
    """Nodes by name, in the file's order, and the library of functions, which are parsed when they are called."""

    nodes: dict[str, NodeDef]
    _library: dict[str, memoryview] = field(default_factory=dict)
    _parsed: dict[str, FunctionDef] = field(default_factory=dict)

    def mentions(self, name: str, word: bytes) -> bool:
        """Whether the bytes of a function of the library contain a word."""
        return name in self._library and word in bytes(self._library[name])

    def function(self, name: str) -> FunctionDef:
        """A function of the library.

        Raises:
          WireError: it is missing or damaged.
        """
        if name not in self._parsed:
            if name not in self._library:
                raise WireError(f"no function {shown(name)} in the library")
            self._parsed[name] = _function(self._library[name])
        return self._parsed[name]


def graph_def(buffer: memoryview) -> GraphDef:
    """A GraphDef.

    Raises:
      WireError: the bytes are none, or it has more nodes than any graph.
    """
    nodes: dict[str, NodeDef] = {}
    library: dict[str, memoryview] = {}
    for number, _, value in wire.fields(buffer):
        if number == 1:
            _add_node(nodes, value)
        elif number == 2:
            for inner, _, function in wire.fields(wire.message(value)):
                if inner == 1:
                    view = wire.message(function)
                    library[_function_name(view)] = view
    return GraphDef(nodes, library)


def _add_node(nodes: dict[str, NodeDef], value: wire.Value) -> None:
    node = NodeDef(wire.message(value))
    if node.name in nodes:
        raise WireError(f"two nodes are called {shown(node.name)}")
    if len(nodes) >= _MAX_NODES:
        raise WireError(f"more than {_MAX_NODES} nodes")
    nodes[node.name] = node


def _function_name(buffer: memoryview) -> str:
    for number, _, value in wire.fields(buffer):
        if number == 1:
            return next((_text(v) for n, _, v in wire.fields(wire.message(value)) if n == 1), "")
    return ""


def _function(buffer: memoryview) -> FunctionDef:
    nodes: dict[str, NodeDef] = {}
    returned: dict[str, str] = {}
    arguments: list[str] = []
    outputs: list[str] = []
    types: list[int] = []
    for number, _, value in wire.fields(buffer):
        if number == 1:
            for inner, _, argument in wire.fields(wire.message(value)):
                if inner in (2, 3):
                    fields = {n: v for n, _, v in wire.fields(wire.message(argument))}
                    (arguments if inner == 2 else outputs).append(_text(fields.get(1, memoryview(b""))))
                    types += [wire.number(fields.get(3, 0))] if inner == 2 else []
        elif number == 3:
            _add_node(nodes, value)
        elif number == 4:
            key, view = _map_entry(value)
            returned[key] = _text(view)
    missing = [name for name in outputs if name not in returned]
    if missing:
        raise WireError(f"a function without its result {shown(missing[0])}")
    name = _function_name(buffer)
    return FunctionDef(name, tuple(arguments), tuple(returned[output] for output in outputs), nodes, tuple(types))


def attr_value(buffer: memoryview) -> Any:
    """An AttrValue as a Python value: bytes, int, float, bool, DType, Dims, an array, `Function`, or a list.

    None where it is empty, as a shape of unknown rank is too.
    """
    found = None
    for number, _, value in wire.fields(buffer):
        if number == 1:
            found = _attr_list(wire.message(value))
        elif number in _SCALARS:
            found = _SCALARS[number](value)
    return found


def _attr_list(buffer: memoryview) -> list[Any]:
    found: list[Any] = []
    for number, kind, value in wire.fields(buffer):
        if number in (3, 5, 6) and kind == wire.BYTES:
            view = wire.message(value)
            offset = 0
            while offset < len(view):
                item, offset = wire.varint(view, offset)
                found.append(_SCALARS[number](item))
        elif number == 4 and kind == wire.BYTES:
            view = wire.message(value)
            found.extend(np.frombuffer(view[: len(view) // 4 * 4], "<f4").tolist())
        elif number == 9:
            found.append(_SCALARS[10](value))
        elif number in _SCALARS:
            found.append(_SCALARS[number](value))
    return found


def dims(value: wire.Value) -> Dims | None:
    """TensorShapeProto: the sides, None for an open one; None for an unknown rank.

    Raises:
      WireError: damaged, or of more axes than any tensor.
    """
    sides: list[int | None] = []
    for number, _, item in wire.fields(wire.message(value)):
        if number == 2:
            side = wire.signed(wire.number(wire.single_fields(wire.message(item)).get(1, 0)))
            sides.append(side if side >= 0 else None)
            if len(sides) > _MAX_RANK:
                raise WireError(f"a shape of more than {_MAX_RANK} sides")
        elif number == 3 and wire.number(item):
            return None
    return tuple(sides)


def tensor(value: wire.Value) -> Array:
    """TensorProto as an array: a read-only view where the bytes are as NumPy has them.

    Raises:
      WireError: damaged, or of a dtype that no array holds.
    """
    number, content = 0, None
    shape: Dims = ()
    lists: dict[int, list[wire.Value]] = {}
    for tag, _, item in wire.fields(wire.message(value)):
        if tag == 1:
            number = wire.number(item)
        elif tag == 2:
            shape = dims(item) or ()
        elif tag == 4:
            content = wire.message(item)
        elif tag in _VALUES or tag == 8:
            lists.setdefault(tag, []).append(item)
    dtype = dtypes.numpy_dtype(number, "a constant")
    if dtype == dtypes.UNREADABLE or None in shape:
        raise WireError(f"a constant of dtype {number} and shape {shape}")
    sides = tuple(side or 0 for side in shape)
    count = math.prod(sides)
    if content is not None and len(content):
        if dtype.kind == "O" or len(content) != count * dtype.itemsize:
            raise WireError(f"{len(content)} bytes for a {dtype} of shape {sides}")
        return np.frombuffer(content, dtype).reshape(sides)
    if dtype.kind == "O":
        return _strings(lists.get(8, []), sides, count)
    if count > _MAX_REPEATED:
        raise WireError(f"a constant of shape {sides} without its numbers")
    return _repeated(_numbers(lists, dtype), sides, count, dtype)


def _strings(items: list[wire.Value], sides: tuple[int, ...], count: int) -> Array:
    if len(items) != count:
        raise WireError(f"{len(items)} strings for shape {sides}")
    strings = np.empty(count, object)
    strings[:] = [bytes(wire.message(item)) for item in items]
    return strings.reshape(sides)


def _numbers(lists: Mapping[int, list[wire.Value]], dtype: np.dtype[Any]) -> Array:
    """The numbers that are listed one by one or packed."""
    for tag, items in lists.items():
        if tag == 8:
            continue
        kind, written = _VALUES[tag]
        parts: list[Array] = []
        for item in items:
            if isinstance(item, int):
                parts.append(np.array([item], np.uint64).astype(kind))
            elif written == "varint":
                count = int(np.count_nonzero(np.frombuffer(item, np.uint8) < 0x80))
                parts.append(wire.packed_varints(item, count, kind))
            else:
                parts.append(
                    np.frombuffer(item[: len(item) // np.dtype(kind).itemsize * np.dtype(kind).itemsize], kind)
                )
        numbers = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return numbers.astype(np.uint16).view(dtype) if dtype.name in _HALVES else numbers.astype(dtype)
    return np.zeros(0, dtype)


def _repeated(numbers: Array, sides: tuple[int, ...], count: int, dtype: np.dtype[Any]) -> Array:
    """TensorFlow's rule: the last number stands for all that are missing, and no number for zeros."""
    if len(numbers) > count:
        raise WireError(f"{len(numbers)} numbers for shape {sides}")
    if len(numbers) < count:
        last = numbers[-1] if len(numbers) else np.zeros((), dtype)
        numbers = np.concatenate([numbers, np.full(count - len(numbers), last, dtype)])
    return numbers.reshape(sides)


def _function_reference(value: wire.Value) -> Function:
    return Function(next((_text(v) for n, _, v in wire.fields(wire.message(value)) if n == 1), ""))


_SCALARS: dict[int, Any] = {
    2: lambda value: bytes(wire.message(value)),
    3: lambda value: wire.signed(wire.number(value)),
    4: lambda value: struct.unpack("<f", wire.message(value))[0],
    5: lambda value: bool(wire.number(value)),
    6: lambda value: DType(wire.number(value)),
    7: dims,
    8: tensor,
    10: _function_reference,
}
"""How each field of AttrValue is read."""


def map_entries(buffer: memoryview, number: int) -> Iterator[tuple[str, memoryview]]:
    """The keys and values of a message's map of messages."""
    for tag, _, value in wire.fields(buffer):
        if tag == number:
            yield _map_entry(value)


def _map_entry(value: wire.Value) -> tuple[str, memoryview]:
    key, view = "", memoryview(b"")
    for number, _, item in wire.fields(wire.message(value)):
        if number == 1:
            key = _text(item)
        elif number == 2:
            view = wire.message(item)
    return key, view


def _text(value: wire.Value) -> str:
    return wire.text(value)


def encode_node(node: NodeDef, name: str, inputs: list[str], op: str | None = None, **changed: bytes | None) -> bytes:
    """A NodeDef with another name and other inputs, its device dropped; attributes are replaced, or dropped by None."""
    attributes: dict[str, bytes | None] = {key: bytes(view) for key, view in node.attributes.items()}
    attributes.update(changed)
    parts = [encode_message(1, name.encode()), encode_message(2, (op or node.op).encode())]
    parts += [encode_message(3, text.encode()) for text in inputs]
    for key, value in attributes.items():
        if value is not None:
            parts.append(encode_message(5, encode_message(1, key.encode()) + encode_message(2, value)))
    return b"".join(parts)
