"""Files that hold a TensorFlow graph: `.meta`, a frozen `.pb`, a SavedModel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from converters.checkpoint import wire
from converters.checkpoint.messages import shown
from converters.checkpoint.raw import RawFile
from converters.checkpoint.wire import WireError
from converters.errors import CheckpointError, InputError
from converters.graph_def import proto, text
from converters.graph_def.proto import GraphDef

Kind = Literal["meta", "frozen", "saved_model"]
_DEFAULT_SIGNATURES = ("serving_default", "predict", "default")
_SERVE = "serve"
_SAVES = ("SaveV2", "SaveSlices", "Save")
_VARIABLES = ("Variable", "VariableV2", "VarHandleOp")
_OTHERS = {
    b"PK\x03\x04": "it is a zip archive, as PyTorch and Keras write them",
    b"\x89HDF": "it is an HDF5 file, as Keras writes them",
    b"version https://git-lfs": "it is a pointer of Git LFS: fetch the file itself with git lfs pull",
    **{bytes((0x80, protocol)): "it is a pickle, as Python writes them" for protocol in (2, 3, 4, 5)},
}
"""What files begin with that have a graph's suffix and are none."""
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


@dataclass(frozen=True)
class Signature:
    """The signature of a SavedModel: tensors of inputs and outputs by the names that users know."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass
class GraphFile:
    """A graph and what its file says of it.

    kind: `meta` where the variables are in a checkpoint beside it, `frozen` where they are constants.
    signatures: by name.
    save_tensor: the tensor that the Saver of a `.meta` gives, if it has one.
    variables: the prefix of a SavedModel's own checkpoint.
    objects: the bytes of the object graph that TensorFlow 2 writes into a SavedModel.
    notes: what was decided about the file, a sentence each.
    """

    path: Path
    kind: Kind
    graph: GraphDef
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    save_tensor: str = ""
    variables: Path | None = None
    objects: memoryview | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def signature(self) -> Signature | None:
        """The one that serves, if there is any."""
        names = [name for name in self.signatures if not name.startswith("__")]
        first = next((name for name in _DEFAULT_SIGNATURES if name in names), names[0] if names else None)
        return None if first is None else self.signatures[first]

    @cached_property
    def checkpoint_names(self) -> Mapping[str, str]:
        """The names under which the Saver saves variables, by the names of their nodes; only those that differ.

        A partitioned variable has its slices under one name: each maps to it.
        """
        found: dict[str, str] = {}
        for node in self.graph.nodes.values():
            if node.op in _SAVES:
                _saved_by(node, self.graph.nodes, {}, self.graph.nodes, found)
            elif node.op in _CALLS:
                # A SavedModel of TensorFlow 2 is saved by a function.
                self._saved_by_function(node, found)
        for node in self.graph.nodes.values():
            # Keras 3 saves a copy of a variable, which begins as what the variable is.
            value = self.graph.nodes.get(node.data_inputs[1]) if node.op == "AssignVariableOp" else None
            if value is not None and value.op == "ReadVariableOp" and node.data_inputs[0] in found:
                found.setdefault(value.data_inputs[0], found[node.data_inputs[0]])
        return {variable: name for variable, name in found.items() if variable != name}

    def _saved_by_function(self, call: proto.NodeDef, found: dict[str, str]) -> None:
        called = call.get("f")
        if not isinstance(called, proto.Function) or not self.graph.mentions(called.name, b"SaveV2"):
            return
        function = self.graph.function(called.name)
        arguments = dict(zip(function.arguments, call.data_inputs, strict=False))
        for node in function.nodes.values():
            if node.op in _SAVES:
                _saved_by(node, function.nodes, arguments, self.graph.nodes, found)


def _saved_by(
    node: proto.NodeDef,
    nodes: Mapping[str, proto.NodeDef],
    arguments: Mapping[str, str],
    outside: Mapping[str, proto.NodeDef],
    found: dict[str, str],
) -> None:
    """Adds the names under which a node saves variables; where it is in a function, that has these arguments."""
    inputs = node.data_inputs
    tensors = inputs[3 if node.op != "Save" else 2 :]
    names = nodes.get(inputs[1].partition(":")[0]) if len(inputs) > 1 else None
    values = names.get("value") if names is not None else None
    if not isinstance(values, np.ndarray) or values.dtype != object or values.size != len(tensors):
        return
    for tensor, name in zip(tensors, values.ravel().tolist(), strict=True):
        variable = _variable_of(tensor, nodes, arguments, outside)
        # A variable's own name comes before any other.
        if variable is not None and found.get(variable) != variable:
            found[variable] = name.decode(errors="replace")


def _variable_of(
    tensor: str, nodes: Mapping[str, proto.NodeDef], arguments: Mapping[str, str], outside: Mapping[str, proto.NodeDef]
) -> str | None:
    """The name of the variable that a tensor is read from."""
    for _ in range(12):
        name = tensor.partition(":")[0]
        if name not in nodes and name in arguments:
            name, nodes, arguments = arguments[name].partition(":")[0], outside, {}
        node = nodes.get(name)
        if node is None:
            return None
        if node.op in _VARIABLES:
            shared: bytes = node.get("shared_name", b"") if node.op == "VarHandleOp" else b""
            return shared.decode(errors="replace") or node.name
        if not node.data_inputs:
            return None
        tensor = node.data_inputs[0]
    return None


def open_graph(path: str | Path) -> GraphFile:
    """Reads a graph's file; of its nodes, only the names, ops and inputs are parsed.

    Args:
      path: a `.meta`, a `.pb` with a frozen graph or a SavedModel, one of these as text (`.pbtxt`), or the folder of a
        SavedModel.

    Raises:
      InputError: it cannot be read, or is no TensorFlow graph.
    """
    path = Path(path)
    file = path / "saved_model.pb" if path.is_dir() else path
    view = RawFile(file).message()
    where = shown(str(file))
    try:
        if not len(view):
            raise WireError("it is empty")
        if text.is_text(view):
            kind, view = text.encoded(view)
            read = {"GraphDef": _frozen, "MetaGraphDef": _meta_graph, "SavedModel": _saved_model}
            return read[kind](file, view)
        if (other := _other_format(view)) is not None:
            raise InputError(f"{where}: not a TensorFlow graph: {other}")
        if view[0] == 0x08:
            return _saved_model(file, view)
        if file.suffix == ".meta":
            return _meta_graph(file, view)
        return _frozen_or_meta(file, view)
    except (WireError, CheckpointError) as error:
        raise InputError(f"{where}: not a TensorFlow graph, or a damaged one: {error}") from error


def _frozen_or_meta(path: Path, view: memoryview) -> GraphFile:
    try:
        return _frozen(path, view)
    except WireError as frozen:
        try:
            return _meta_graph(path, view)
        except WireError:
            raise frozen from None


def _frozen(path: Path, view: memoryview) -> GraphFile:
    """A GraphDef: one with variables has its weights elsewhere, as a `.meta` has."""
    graph = proto.graph_def(view)
    if not graph.nodes:
        raise WireError("it has no nodes")
    trained = any(node.op in _VARIABLES for node in graph.nodes.values())
    return GraphFile(path, "meta" if trained else "frozen", graph)


def _other_format(view: memoryview) -> str | None:
    """The kind of a file that has a graph's suffix and is no graph; None if it is not known."""
    return next((words for start, words in _OTHERS.items() if bytes(view[: len(start)]) == start), None)


def _meta_graph(path: Path, view: memoryview) -> GraphFile:
    graph: GraphDef | None = None
    save_tensor, objects = "", None
    for number, _, value in wire.fields(view):
        if number == 2:
            graph = proto.graph_def(wire.message(value))
        elif number == 3:
            save_tensor = wire.text(wire.single_fields(wire.message(value)).get(2, memoryview(b"")))
        elif number == 7:
            objects = wire.message(value)
    if graph is None or not graph.nodes:
        raise WireError("it has no nodes")
    signatures = {name: _signature(entry) for name, entry in proto.map_entries(view, 5)}
    return GraphFile(path, "meta", graph, signatures, save_tensor, objects=objects)


def _saved_model(path: Path, view: memoryview) -> GraphFile:
    """The MetaGraphDef with the tag `serve`, or else the first."""
    metas = [wire.message(value) for number, _, value in wire.fields(view) if number == 2]
    if not metas:
        raise WireError("a SavedModel without a graph")
    file = _meta_graph(path, next((meta for meta in metas if _SERVE in _tags(meta)), metas[0]))
    file.kind = "saved_model"
    prefix = path.parent / "variables" / "variables"
    file.variables = prefix if prefix.with_name("variables.index").exists() else None
    return file


def _tags(meta: memoryview) -> set[str]:
    infos = [wire.message(value) for number, _, value in wire.fields(meta) if number == 1]
    return {wire.text(value) for info in infos for number, _, value in wire.fields(info) if number == 4}


def _signature(view: memoryview) -> Signature:
    inputs, outputs = (
        {key: name for key, info in proto.map_entries(view, number) if (name := _tensor_name(info))}
        for number in (1, 2)
    )
    return Signature(inputs, outputs)


def _tensor_name(info: memoryview) -> str:
    return next((wire.text(value) for number, _, value in wire.fields(info) if number == 1), "")
