"""The object graph of an object-based checkpoint, as `tf.train.Checkpoint` and SavedModel write it.

Such a checkpoint names a variable by its object path (`layer/kernel/.ATTRIBUTES/VARIABLE_VALUE`); the graph also
remembers the name that it had as a variable. Source: tensorflow/core/protobuf/trackable_object_graph.proto.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from converters.checkpoint import wire
from converters.checkpoint.reader import Checkpoint
from converters.errors import CheckpointError

KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_ESCAPED = re.compile(r"\.([.S])")


@dataclass(frozen=True)
class Attribute:
    """SerializedTensor: `checkpoint_key` is its key in the checkpoint, `full_name` the variable's own name."""

    name: str
    full_name: str
    checkpoint_key: str


@dataclass(frozen=True)
class Node:
    """TrackableObject. Children are indices into the graph, by local name.

    `slots` are an optimizer's: (index of the variable, name of the slot, index of the slot's own variable).
    """

    children: Mapping[str, int]
    attributes: tuple[Attribute, ...]
    slots: tuple[tuple[int, str, int], ...] = field(default=())


def object_graph(checkpoint: Checkpoint) -> tuple[Node, ...]:
    """The nodes of a checkpoint's object graph; the first is the root. None if the checkpoint is not object-based.

    Without its data, a checkpoint has none.

    Raises:
      CheckpointError: the graph is damaged.
    """
    if KEY not in checkpoint.variables or not checkpoint.has_data(KEY):
        return ()
    where = f"{checkpoint.path}: {KEY}"
    array = checkpoint[KEY]
    if array.shape != () or array.dtype.kind != "O":
        raise CheckpointError(f"{where}: not one string")
    try:
        graph = tuple(
            _node(wire.message(value)) for number, _, value in wire.fields(memoryview(array.item())) if number == 1
        )
        for node in graph:
            for index in (*node.children.values(), *(i for slot in node.slots for i in (slot[0], slot[2]))):
                if index >= len(graph):
                    raise wire.WireError(f"object {index} of {len(graph)}")
    except wire.WireError as error:
        raise CheckpointError(f"{where}: damaged: {error}") from error
    return graph


def full_names(checkpoint: Checkpoint) -> dict[str, str]:
    """The variables' original names, if the graph or the keys have them, by their keys in the checkpoint.

    TF Hub's modules keep a variable in an attribute of its name (`MobilenetV2.SConv.Sweights:0`), where `.S` is a slash
    and `..` a dot, as in any object path.

    Raises:
      CheckpointError: the graph is damaged.
    """
    named = {
        attribute.checkpoint_key: attribute.full_name
        for node in object_graph(checkpoint)
        for attribute in node.attributes
        if attribute.full_name and attribute.checkpoint_key in checkpoint.variables
    }
    for key in checkpoint.variables:
        path, value, rest = key.rpartition(_VALUE)
        attribute = path.rpartition("/")[2]
        if value and not rest and ".S" in attribute:
            named[key] = _ESCAPED.sub(lambda found: "/" if found[1] == "S" else ".", attribute).removesuffix(":0")
    return named


def _node(buffer: memoryview) -> Node:
    children: dict[str, int] = {}
    attributes = []
    slots = []
    for number, _, value in wire.fields(buffer):
        if number not in (1, 2, 3):
            continue
        inner = wire.single_fields(wire.message(value))
        if number == 1:
            children[_text(inner, 2)] = _index(inner, 1)
        elif number == 2:
            attributes.append(Attribute(_text(inner, 1), _text(inner, 2), _text(inner, 3)))
        else:
            slots.append((_index(inner, 1), _text(inner, 2), _index(inner, 3)))
    return Node(children, tuple(attributes), tuple(slots))


def _text(message: Mapping[int, wire.Value], number: int) -> str:
    return wire.text(message.get(number, memoryview(b"")))


def _index(message: Mapping[int, wire.Value], number: int) -> int:
    return wire.number(message.get(number, 0))
