"""The functions of a SavedModel of TensorFlow 2, as its object graph has them: what can be called without a signature.

Source: saved_object_graph.proto and struct.proto of tensorflow/core/protobuf.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, NamedTuple

from converters.checkpoint import wire
from converters.checkpoint.messages import shown
from converters.checkpoint.wire import WireError, encode_message, encode_number
from converters.errors import InputError
from converters.graph_def import proto
from converters.graph_def.files import GraphFile, Signature
from converters.graph_def.proto import DType, NodeDef

# What Keras keeps for itself, beside the functions that a user calls.
_OF_KERAS = ("_default_save_signature", "call_and_return_all_conditional_losses", "call_and_return_conditional_losses")
_PREFERRED = ("serve", "serving_default", "_default_save_signature", "__call__", "call", "predict", "infer")
_LISTS = (51, 52)
_LOSSES = "call_and_return_"
_VALUE = ".ATTRIBUTES/VARIABLE_VALUE"
_MAX_OBJECTS = 1 << 20


@dataclass(frozen=True)
class Spec:
    """A tensor that a function takes or gives; `dims` is None for an unknown rank."""

    name: str
    dtype: DType
    dims: proto.Dims | None
    shape: bytes

    @property
    def is_data(self) -> bool:
        """Whether it is an array of numbers, and no switch or rate."""
        return self.dtype.name.startswith(("float", "int", "uint")) and self.dims != ()


@dataclass(frozen=True)
class Concrete:
    """One trace of a function.

    name: in the graph's library.
    bound: the objects that are captured, behind the arguments.
    arguments: what it is called with: a `Spec` for a tensor, or a Python value.
    outputs: the names of its outputs.
    """

    name: str
    bound: tuple[int, ...]
    arguments: tuple[Any, ...]
    outputs: tuple[str, ...]

    @property
    def specs(self) -> tuple[Spec, ...]:
        return tuple(one for one in self.arguments if isinstance(one, Spec))

    @property
    def assumptions(self) -> tuple[Any, ...]:
        """What orders traces: training off, one array, one that is an image, few other arguments."""
        data = [spec for spec in self.specs if spec.is_data]
        images = [spec for spec in data if spec.dims is None or len(spec.dims) == 4]
        trained = sum(one is True for one in self.arguments)
        return trained, not data, abs(len(data) - 1), not images, len(self.arguments)


class Object(NamedTuple):
    """A node of the object graph: its children by name, and the bytes of what it is, by the field of its kind."""

    children: Mapping[str, int]
    kinds: Mapping[int, memoryview]


def with_function(file: GraphFile, outputs: Sequence[str]) -> tuple[GraphFile, tuple[str, ...]]:
    """A SavedModel without a signature with the function that serves as one, and the outputs that are none.

    Args:
      outputs: the tensors that were asked for; a function's name among them chooses it.

    Raises:
      InputError: there is no function, or there are several and none that is known to be called.
    """
    if file.kind != "saved_model" or file.signature is not None or file.objects is None:
        return file, tuple(outputs)
    objects, traces = _object_graph(file.objects)
    functions = dict(_functions(objects, traces))
    if not functions:
        raise InputError(
            f"{shown(str(file.path))}: a SavedModel without a signature, and without a function that was called before "
            f"it was saved: save it again with one (tf.saved_model.save(model, folder, signatures=...))"
        )
    name = next((name for name in outputs if name in functions), None) or _only(file, functions)
    chosen = min(functions[name], key=lambda trace: trace.assumptions)
    extended = _called(file, name, chosen, objects)
    return extended, tuple(output for output in outputs if output != name)


def _only(file: GraphFile, functions: Mapping[str, Sequence[Concrete]]) -> str:
    """The function that is called by its convention, or the only one."""
    roots = [name for name in functions if "/" not in name]
    known = next((name for name in _PREFERRED if name in roots), None)
    own = [name for name in roots if name not in _OF_KERAS]
    if known is not None and (known != "_default_save_signature" or len(own) == 0 or "__call__" in own):
        return known
    if len(own or roots or functions) == 1:
        return (own or roots or list(functions))[0]
    names = ", ".join(map(shown, (own or roots or list(functions))[:12]))
    raise InputError(
        f"{shown(str(file.path))}: a SavedModel without a signature; choose one of its functions with --output: {names}"
    )


def _called(file: GraphFile, name: str, trace: Concrete, objects: Sequence[Object]) -> GraphFile:
    """The file with a call of a function in its graph, and the signature of that call."""
    function = file.graph.function(trace.name)
    count = len(function.arguments) - len(trace.bound)
    # A function of TensorFlow 1, as a module of TF Hub has them, has no signature of its own.
    specs = trace.specs or tuple(_untold(function, index) for index in range(count))
    if count != len(specs) or len(trace.outputs) > len(function.results):
        raise WireError(f"function {shown(trace.name)} has other arguments than its signature")
    label = name.replace("/", "_").strip("_")
    added: dict[str, NodeDef] = {}
    inputs: dict[str, str] = {}
    for index, spec in enumerate(specs):
        node = _fresh(f"{label}_{spec.name or index}", file.graph.nodes, added)
        attributes = {"dtype": encode_number(6, spec.dtype.number), "shape": encode_message(7, spec.shape)}
        added[node] = _node(node, "Placeholder", (), attributes)
        if spec.is_data:
            inputs[spec.name or node] = f"{node}:0"
    arguments = list(added)
    bound = _Bound(file, objects)
    arguments += [bound.node(index, added) for index in trace.bound]
    call = _fresh(f"{label}_call", file.graph.nodes, added)
    reference = encode_message(10, encode_message(1, trace.name.encode()))
    added[call] = _node(call, "StatefulPartitionedCall", arguments, {"f": reference})
    outputs = {output: f"{call}:{index}" for index, output in enumerate(trace.outputs)}
    training = " with training=True" if any(one is True for one in trace.arguments) else ""
    others = f", {len(inputs)} inputs" if len(inputs) != 1 else ""
    note = f"it has no signature: its function {name}{training}{others} is taken"
    return replace(
        file,
        graph=replace(file.graph, nodes={**file.graph.nodes, **added}),
        signatures={**file.signatures, "serving_default": Signature(inputs, outputs)},
        notes=(*file.notes, note),
    )


def _untold(function: proto.FunctionDef, index: int) -> Spec:
    """An argument of which only name and dtype are known."""
    return Spec(function.arguments[index], DType(function.types[index]), None, encode_number(3, 1))


class _Bound:
    """The nodes of what functions capture, by the numbers of the objects."""

    def __init__(self, file: GraphFile, objects: Sequence[Object]) -> None:
        self.file, self.objects = file, objects
        self._keys = _keys(objects)
        self._variables: dict[str, str] = {}
        renamed = file.checkpoint_names
        for node in file.graph.nodes.values():
            if node.op == "VarHandleOp":
                shared: bytes = node.get("shared_name", b"") or node.name.encode()
                variable = shared.decode(errors="replace")
                self._variables.setdefault(renamed.get(variable, variable), node.name)

    def node(self, index: int, added: dict[str, NodeDef]) -> str:
        """The node of an object, which is added where the graph has none."""
        kinds = self.objects[index].kinds if index < len(self.objects) else {}
        if 9 in kinds:
            return wire.text(wire.single_fields(kinds[9]).get(1, memoryview(b"")))
        key = self._keys.get(index, "")
        if 7 in kinds and key in self._variables:
            return self._variables[key]
        name = _fresh(f"captured_{index}", self.file.graph.nodes, added)
        if 7 in kinds:
            fields = {number: value for number, _, value in wire.fields(kinds[7])}
            attributes = {
                "dtype": encode_number(6, wire.number(fields.get(1, 1))),
                "shape": encode_message(7, bytes(wire.message(fields.get(2, memoryview(b""))))),
                "shared_name": encode_message(2, key.encode()),
            }
            added[name] = _node(name, "VarHandleOp", (), attributes)
        else:
            added[name] = _node(name, "CapturedResource", (), {})
        return name


def _fresh(name: str, nodes: Mapping[str, Any], added: Mapping[str, Any]) -> str:
    """A name that no node has yet."""
    number, found = 0, name
    while found in nodes or found in added:
        number += 1
        found = f"{name}_{number}"
    return found


def _node(name: str, op: str, inputs: Sequence[str], attributes: Mapping[str, bytes]) -> NodeDef:
    parts = [encode_message(1, name.encode()), encode_message(2, op.encode())]
    parts += [encode_message(3, text.encode()) for text in inputs]
    for key, value in attributes.items():
        parts.append(encode_message(5, encode_message(1, key.encode()) + encode_message(2, value)))
    return NodeDef(memoryview(b"".join(parts)))


# The object graph.


def _object_graph(view: memoryview) -> tuple[list[Object], dict[str, memoryview]]:
    """The objects, and the traces of functions by name."""
    objects: list[Object] = []
    traces: dict[str, memoryview] = {}
    for number, _, value in wire.fields(view):
        if number == 1:
            objects.append(_object(wire.message(value)))
            if len(objects) > _MAX_OBJECTS:
                raise WireError(f"more than {_MAX_OBJECTS} objects")
    traces.update(proto.map_entries(view, 2))
    return objects, traces


def _object(view: memoryview) -> Object:
    children: dict[str, int] = {}
    kinds: dict[int, memoryview] = {}
    for number, _, value in wire.fields(view):
        if number == 1:
            child = wire.single_fields(wire.message(value))
            children[wire.text(child.get(2, memoryview(b"")))] = wire.number(child.get(1, 0))
        elif number in (6, 7, 8, 9):
            kinds[number] = wire.message(value)
    return Object(children, kinds)


def _paths(objects: Sequence[Object]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The objects with their paths from the root, the shortest first, as TensorFlow finds them."""
    seen = {0}
    pending: deque[tuple[int, tuple[str, ...]]] = deque([(0, ())])
    while pending:
        index, path = pending.popleft()
        if index >= len(objects):
            raise WireError(f"object {index} of {len(objects)}")
        yield index, path
        for name, child in objects[index].children.items():
            if child not in seen:
                seen.add(child)
                pending.append((child, (*path, name)))


def _keys(objects: Sequence[Object]) -> dict[int, str]:
    """The key of each variable in the checkpoint beside the graph."""
    return {
        index: "/".join([*(part.replace(".", "..").replace("/", ".S") for part in path), _VALUE])
        for index, path in _paths(objects)
        if 7 in objects[index].kinds
    }


def _functions(
    objects: Sequence[Object], traces: Mapping[str, memoryview]
) -> Iterator[tuple[str, tuple[Concrete, ...]]]:
    """The functions of the root, and then those of other objects, with their traces."""
    for index, path in _paths(objects):
        kinds = objects[index].kinds
        names: list[str] = []
        if not path:
            continue
        if 6 in kinds:
            names = [wire.text(value) for number, _, value in wire.fields(kinds[6]) if number == 1]
        elif 8 in kinds:
            names = [wire.text(value) for number, _, value in wire.fields(kinds[8]) if number == 1]
        found = [_concrete(name, traces[name], path[-1]) for name in names if name in traces]
        if found and path[0] != "signatures":
            yield "/".join(path), tuple(found)


def _concrete(name: str, view: memoryview, called: str) -> Concrete:
    bound: list[int] = []
    arguments: list[Any] = []
    outputs: list[str] = []
    for number, kind, value in wire.fields(view):
        if number == 2:
            bound += _numbers(kind, value)
        elif number == 3:
            arguments = [leaf for _, leaf in _leaves(wire.message(value), ())]
        elif number == 4:
            outputs = _output_names(wire.message(value), called)
    return Concrete(name, tuple(bound), tuple(arguments), tuple(outputs))


def _numbers(kind: int, value: wire.Value) -> Iterator[int]:
    if kind != wire.BYTES:
        yield wire.number(value)
        return
    view, offset = wire.message(value), 0
    while offset < len(view):
        one, offset = wire.varint(view, offset)
        yield one


def _output_names(view: memoryview, called: str) -> list[str]:
    """Names for a function's outputs, in order: keys of a dict, or numbers."""
    found = [(path, leaf) for path, leaf in _leaves(view, ()) if isinstance(leaf, Spec)]
    if called.startswith(_LOSSES):
        # With the layers' losses, which are no outputs.
        found = [(path[1:], leaf) for path, leaf in found if path[:1] == (0,)]
    texts = ["/".join(map(str, path)) for path, _ in found]
    return [text if text and not text.isdigit() else f"output_{index}" for index, text in enumerate(texts)]


def _leaves(view: memoryview, path: tuple[Any, ...], depth: int = 0) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The leaves of a StructuredValue with their paths, as `tf.nest.flatten` orders them."""
    if depth > 32:
        raise WireError("a structure of more than 32 levels")
    for number, _, value in wire.fields(view):
        if number in _LISTS:
            inner = [item for tag, _, item in wire.fields(wire.message(value)) if tag == 1]
            for index, item in enumerate(inner):
                yield from _leaves(wire.message(item), (*path, index), depth + 1)
        elif number == 53:
            for key, item in sorted(proto.map_entries(wire.message(value), 1), key=itemgetter(0)):
                yield from _leaves(item, (*path, key), depth + 1)
        elif number == 54:
            pairs = [item for tag, _, item in wire.fields(wire.message(value)) if tag == 2]
            for item in pairs:
                pair = wire.single_fields(wire.message(item))
                key = wire.text(pair.get(1, memoryview(b"")))
                yield from _leaves(wire.message(pair.get(2, memoryview(b""))), (*path, key), depth + 1)
        elif number in (33, 35):
            yield path, _spec(wire.message(value))
        else:
            yield path, bool(wire.number(value)) if number == 14 else None


def _spec(view: memoryview) -> Spec:
    fields = wire.single_fields(view)
    shape = wire.message(fields.get(2, memoryview(b"")))
    name = wire.text(fields.get(1, memoryview(b"")))
    return Spec(name, DType(wire.number(fields.get(3, 0))), proto.dims(shape), bytes(shape))
