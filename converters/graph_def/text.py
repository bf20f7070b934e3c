"""TensorFlow's graph messages in protobuf's text format (`.pbtxt`), encoded as the binary ones that `proto` reads.

Source: https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping

from converters.checkpoint.messages import shown
from converters.checkpoint.wire import FIXED32, FIXED64, WireError, encode_message, encode_number, encode_varint

Schema = Mapping[str, tuple[int, str]]
"""The fields of a message by name: number, and kind, which is a number's or another message's."""

_DEEPEST = 32
_SCHEMAS: dict[str, Schema] = {
    "SavedModel": {"saved_model_schema_version": (1, "int"), "meta_graphs": (2, "MetaGraphDef")},
    "MetaGraphDef": {
        "meta_info_def": (1, "MetaInfoDef"),
        "graph_def": (2, "GraphDef"),
        "saver_def": (3, "SaverDef"),
        "signature_def": (5, "NamedSignature"),
    },
    "MetaInfoDef": {"tags": (4, "string")},
    "SaverDef": {"filename_tensor_name": (1, "string"), "save_tensor_name": (2, "string")},
    "NamedSignature": {"key": (1, "string"), "value": (2, "SignatureDef")},
    "SignatureDef": {"inputs": (1, "NamedTensorInfo"), "outputs": (2, "NamedTensorInfo")},
    "NamedTensorInfo": {"key": (1, "string"), "value": (2, "TensorInfo")},
    "TensorInfo": {"name": (1, "string")},
    "GraphDef": {"node": (1, "NodeDef"), "library": (2, "FunctionDefLibrary")},
    "NodeDef": {"name": (1, "string"), "op": (2, "string"), "input": (3, "string"), "attr": (5, "NamedAttr")},
    "NamedAttr": {"key": (1, "string"), "value": (2, "AttrValue")},
    "AttrValue": {
        "list": (1, "ListValue"),
        "s": (2, "string"),
        "i": (3, "int"),
        "f": (4, "float"),
        "b": (5, "bool"),
        "type": (6, "enum"),
        "shape": (7, "TensorShape"),
        "tensor": (8, "Tensor"),
        "func": (10, "Function"),
    },
    "ListValue": {
        "s": (2, "string"),
        "i": (3, "int"),
        "f": (4, "float"),
        "b": (5, "bool"),
        "type": (6, "enum"),
        "shape": (7, "TensorShape"),
        "tensor": (8, "Tensor"),
        "func": (9, "Function"),
    },
    "Function": {"name": (1, "string")},
    "TensorShape": {"dim": (2, "Dim"), "unknown_rank": (3, "bool")},
    "Dim": {"size": (1, "int")},
    "Tensor": {
        "dtype": (1, "enum"),
        "tensor_shape": (2, "TensorShape"),
        "tensor_content": (4, "string"),
        "float_val": (5, "float"),
        "double_val": (6, "double"),
        "int_val": (7, "int"),
        "string_val": (8, "string"),
        "int64_val": (10, "int"),
        "bool_val": (11, "bool"),
        "half_val": (13, "int"),
        "uint32_val": (16, "int"),
        "uint64_val": (17, "int"),
    },
    "FunctionDefLibrary": {"function": (1, "FunctionDef")},
    "FunctionDef": {"signature": (1, "OpDef"), "node_def": (3, "NodeDef"), "ret": (4, "NamedTensor")},
    "OpDef": {"name": (1, "string"), "input_arg": (2, "ArgDef"), "output_arg": (3, "ArgDef")},
    "ArgDef": {"name": (1, "string")},
    "NamedTensor": {"key": (1, "string"), "value": (2, "string")},
}
_TOPS = {"node": "GraphDef", "versions": "GraphDef", "version": "GraphDef", "library": "GraphDef"} | {
    name: message for message in ("MetaGraphDef", "SavedModel") for name in (*_SCHEMAS[message], "collection_def")
}
_TYPES = (
    "INVALID", "FLOAT", "DOUBLE", "INT32", "UINT8", "INT16", "INT8", "STRING", "COMPLEX64", "INT64", "BOOL", "QINT8",
    "QUINT8", "QINT32", "BFLOAT16", "QINT16", "QUINT16", "UINT16", "COMPLEX128", "HALF", "RESOURCE", "VARIANT",
    "UINT32", "UINT64",
)  # fmt: skip
"""DataType's names without `DT_`, by their numbers."""
_FIRST = re.compile(rb"\s*(#[^\n]*\n\s*)*(%s)\s*[:{<]" % "|".join(_TOPS).encode())
_TOKEN = re.compile(
    r"""[\s,;]*(?:\#[^\n]*[\s,;]*)*"""
    r"""([A-Za-z_][\w.]*|[-+]?[\w.+-]+|[{}<>\[\]:]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
)
_ESCAPE = re.compile(r"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_OPENING = {"{": "}", "<": ">"}


def is_text(view: memoryview) -> bool:
    """Whether bytes are a graph's message in the text format."""
    return _FIRST.match(view[:4096]) is not None


def encoded(view: memoryview) -> tuple[str, memoryview]:
    """The message that a text is (`GraphDef`, `MetaGraphDef` or `SavedModel`), and its bytes in the wire format.

    Raises:
      WireError: the text is damaged.
    """
    first = _FIRST.match(view[:4096])
    if first is None:
        raise WireError("no graph's message begins so")
    kind = _TOPS[first[2].decode()]
    try:
        parser = _Parser(str(view, "utf-8"))
    except UnicodeDecodeError as error:
        raise WireError("a text that is not UTF-8") from error
    return kind, memoryview(parser.message(kind, "", 0))


class _Parser:
    """Reads a text token by token."""

    def __init__(self, text: str) -> None:
        self._text, self._offset = text, 0
        self._token = ""
        self._next()

    def _next(self) -> str:
        """The token that was next; behind it, the one that is now; empty at the end."""
        token = self._token
        match = _TOKEN.match(self._text, self._offset)
        if match is None:
            if self._text[self._offset :].strip(" \t\r\n,;") and not self._text[self._offset :].lstrip().startswith(
                "#"
            ):
                raise self._error("cannot be read")
            self._offset, self._token = len(self._text), ""
        else:
            self._offset, self._token = match.end(), match[1]
        return token

    def _error(self, words: str) -> WireError:
        line = self._text.count("\n", 0, self._offset) + 1
        return WireError(f"line {line} of the text {words}")

    def message(self, kind: str | None, end: str, depth: int) -> bytes:
        """The fields up to a closing token, encoded; of no kind, they are read and dropped."""
        if depth > _DEEPEST:
            raise self._error(f"is more than {_DEEPEST} messages deep")
        schema = _SCHEMAS[kind] if kind is not None else {}
        parts: list[bytes] = []
        while self._token != end:
            name = self._next()
            if not name or name in "{}<>[]:":
                raise self._error("has no name of a field where one should be")
            number, inner = schema.get(name, (0, None))
            if self._token == ":":
                self._next()
            for value in self._values(inner, depth):
                if number:
                    parts.append(value(number))
        self._next()
        return b"".join(parts)

    def _values(self, kind: str | None, depth: int) -> list[Callable[[int], bytes]]:
        """What encodes each value of a field; a list has several."""
        if self._token != "[":
            return [self._value(kind, depth)]
        self._next()
        found = []
        while self._token != "]":
            found.append(self._value(kind, depth))
        self._next()
        return found

    def _value(self, kind: str | None, depth: int) -> Callable[[int], bytes]:
        if self._token in _OPENING:
            end = _OPENING[self._next()]
            content = self.message(kind if kind in _SCHEMAS else None, end, depth + 1)
            return lambda number: encode_message(number, content)
        token = self._next()
        if token[:1] in ("'", '"'):
            while self._token[:1] in ("'", '"'):
                token = token[:-1] + self._next()[1:]
            data = _unescaped(token[1:-1])
            return lambda number: encode_message(number, data)
        if not token or token in "{}<>[]:" or kind in ("string", *_SCHEMAS):
            raise self._error(f"has {shown(token) or 'its end'} where a value should be")
        if kind is None:
            return lambda _: b""
        try:
            return _NUMBER_ENCODERS[kind](token)
        except (ValueError, OverflowError, struct.error) as error:
            raise self._error(f"has {shown(token)} where a number should be") from error


def _unescaped(text: str) -> bytes:
    """The bytes of a string, whose escapes are bytes and not characters."""
    parts: list[bytes] = []
    start = 0
    for match in _ESCAPE.finditer(text):
        parts.append(text[start : match.start()].encode())
        code = match[1]
        if code[0] in "01234567":
            parts.append(bytes([int(code, 8) & 0xFF]))
        elif code[0] in "xX" and len(code) > 1:
            parts.append(bytes([int(code[1:], 16)]))
        else:
            parts.append(_ESCAPED.get(code, code).encode())
        start = match.end()
    parts.append(text[start:].encode())
    return b"".join(parts)


def _integer(token: str) -> Callable[[int], bytes]:
    value = int(token, 0) & (1 << 64) - 1
    return lambda number: encode_number(number, value)


def _truth(token: str) -> Callable[[int], bytes]:
    value = {"true": 1, "True": 1, "t": 1, "1": 1, "false": 0, "False": 0, "f": 0, "0": 0}.get(token)
    if value is None:
        raise ValueError(token)
    return lambda number: encode_number(number, value)


def _dtype(token: str) -> Callable[[int], bytes]:
    """A DataType by its name, or number; of a reference, 100 more."""
    if not token.startswith("DT_"):
        return _integer(token)
    name = token.removeprefix("DT_")
    value = _TYPES.index(name.removesuffix("_REF")) + (100 if name.endswith("_REF") else 0)
    return lambda number: encode_number(number, value)


def _real(token: str, form: str, wire_type: int) -> Callable[[int], bytes]:
    try:
        value = float(token)
    except ValueError:
        value = float(token.rstrip("fF"))
    data = struct.pack(form, value)
    return lambda number: encode_varint(number << 3 | wire_type) + data


_NUMBER_ENCODERS: dict[str, Callable[[str], Callable[[int], bytes]]] = {
    "int": _integer,
    "bool": _truth,
    "enum": _dtype,
    "float": lambda token: _real(token, "<f", FIXED32),
    "double": lambda token: _real(token, "<d", FIXED64),
}
