"""The network of a user's TensorFlow graph."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.checkpoint.messages import shown
from converters.checkpoint.wire import WireError
from converters.errors import InputError
from converters.graph_def import ends, objects, ops
from converters.graph_def.cover import KERNELS, Cover
from converters.graph_def.evaluate import DEAD, Evaluator, Mode, canonical
from converters.graph_def.files import GraphFile, open_graph
from converters.graph_def.names import common_scope, kernel_name
from converters.graph_def.parameters import parameter
from converters.graph_def.proto import Array
from converters.graph_def.translate import WORDS, Translator, unsupported
from converters.graph_def.values import BATCH, Size, Value
from slimport import graph as slim
from slimport.graph import Graph, Input, Source
from slimport.networks.graph_network import GraphNetwork

_WEIGHTED = (*KERNELS, "matmul")
_IN_LOOPS = ("Merge", "RefMerge", "Switch", "RefSwitch", "LoopCond", "Enter", "RefEnter")
_WHILE = ("While", "StatelessWhile")
_BEFORE_LAYERS = ("subtract", "multiply", "divide", "add", "resize", "reverse", "cast")


@dataclass(frozen=True)
class Unsupported:
    """A node that has no counterpart: its op and name."""

    op: str
    node: str


@dataclass(frozen=True)
class UserGraph:
    """The network that a TensorFlow graph holds.

    file: where the graph is from.
    mode: how it was read: `eval` as after training, `graph` as it stands.
    network: a `GraphNetwork`.
    scope: the scope that the graph's names have and the network's do not.
    sources: for each of the network's variables the checkpoint's variable, or the constant's node, with its full name.
    constants: the arrays of the graph itself, by the names of their nodes: all weights of a frozen graph.
    inputs, outputs: the tensors of TensorFlow by the names that they have in the network.
    context: what was evaluated, for the judge.
    notes: what was assumed and decided, a sentence each.
    preprocessing: the nodes before the first layer that change the input's numbers.
    layers: the tensors of TensorFlow by the names of the network's end points, without the scope.
    channels_first: the inputs that the TensorFlow graph takes in NCHW; the network's own are in NHWC, as slim's.
    """

    file: GraphFile
    mode: Mode
    network: GraphNetwork
    scope: str
    sources: Mapping[str, Source]
    constants: Mapping[str, Array]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    context: Evaluator = field(repr=False, compare=False)
    notes: tuple[str, ...] = ()
    preprocessing: tuple[str, ...] = field(default=())
    channels_first: tuple[str, ...] = ()
    layers: Mapping[str, str] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        """The network as a graph."""
        return self.network.recorded

    def arrays(self, checkpoint: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """The network's variables one after the other, views where that is possible.

        Args:
          checkpoint: the variables by the names of `sources`; needed for what is no constant of the graph.

        Raises:
          InputError: one is missing, or of another shape.
        """
        for name, shape in self.graph.variables.items():
            source = self.sources[name]
            array = self.constants.get(source.name)
            if array is None and source.name not in checkpoint:
                raise InputError(
                    f"{shown(str(self.file.path))}: its variable {shown(source.name)} is not in the checkpoint"
                )
            array = checkpoint[source.name] if array is None else array
            if array.size != math.prod(shape) or (source.shape is not None and array.shape != source.shape):
                raise InputError(
                    f"{shown(source.name)} is {list(array.shape)}; the graph has {list(source.shape or shape)}"
                )
            yield name, (array if source.permutation is None else array.transpose(source.permutation)).reshape(shape)


def read_network(
    source: str | Path | GraphFile, *, mode: Mode | None = None, inputs: Sequence[str] = (), outputs: Sequence[str] = ()
) -> UserGraph:
    """The network of a graph.

    Args:
      source: a `.meta`, a `.pb` with a frozen graph or a SavedModel, or its folder.
      mode: None is `eval` for a `.meta`, and `graph` for what was exported to be run.
      inputs: tensors where the network begins, nodes or `node:1`; none for placeholders, queues and iterators.
      outputs: tensors where it ends; none for those of the signature, or for the last layers with what follows them.

    Raises:
      InputError: no graph, a damaged one, or one with an op that has no counterpart; the message has the `--output`
        for what comes before it.
    """
    file = source if isinstance(source, GraphFile) else open_graph(source)
    try:
        return _read(file, mode or ("eval" if file.kind == "meta" else "graph"), inputs, outputs)
    except WireError as error:
        raise InputError(f"{shown(str(file.path))}: damaged: {error}") from error


def unsupported_nodes(
    source: str | Path | GraphFile, *, mode: Mode | None = None, outputs: Sequence[str] = ()
) -> tuple[Unsupported, ...]:
    """All nodes before the outputs that have no counterpart, in the graph's order.

    Raises:
      InputError: no graph, or a damaged one.
    """
    file = source if isinstance(source, GraphFile) else open_graph(source)
    try:
        file, outputs = objects.with_function(file, outputs)
        context = Evaluator(file, mode or ("eval" if file.kind == "meta" else "graph"))
        values = [context.tensor(tensor) for tensor in _outputs(file, outputs, context).values()]
        found = _lacking(values)
    except WireError as error:
        raise InputError(f"{shown(str(file.path))}: damaged: {error}") from error
    return tuple(Unsupported(str(value.attrs.get("tf_op", value.op)), value.node) for value in found)


def _read(file: GraphFile, mode: Mode, inputs: Sequence[str], outputs: Sequence[str]) -> UserGraph:
    file, outputs = objects.with_function(file, outputs)
    signature = file.signature
    cut = list(inputs) or (list(signature.inputs.values()) if signature is not None and not outputs else [])
    context = Evaluator(file, mode, cut)
    context.notes.update(dict.fromkeys(file.notes))
    tensors = _outputs(file, outputs, context)
    values = {name: context.tensor(tensor) for name, tensor in tensors.items()}
    dead = [name for name, value in values.items() if value is DEAD]
    if dead and not outputs and len(dead) < len(values):
        # An update of moving averages, say, which training does.
        values = {name: value for name, value in values.items() if name not in dead}
        tensors = {name: tensors[name] for name in values}
    elif dead:
        raise InputError(f"{shown(str(file.path))}: the output {shown(dead[0])} is not computed in evaluation")
    values = {name: _channels_last(value) for name, value in values.items()}
    for name, value in values.items():
        if (whole := _of_whole_batch(value)) is not None:
            context.notes[f"{shown(name)} is one of a batch; the network gives all of them"] = None
            values[name], tensors[name] = whole, context.name_of(whole)
    _make_noise_input(context, list(values.values()))
    lacking = _cut_front(context, list(values.values()))
    if lacking:
        raise unsupported(context, lacking, list(values.values()))
    given = _inputs(values.values())
    if not given:
        raise InputError(f"{shown(str(file.path))}: its outputs depend on no input: {', '.join(map(shown, tensors))}")
    return _record(file, context, given, values, tensors)


def _outputs(file: GraphFile, outputs: Sequence[str], context: Evaluator) -> dict[str, str]:
    """The outputs' tensors by their names."""
    if outputs:
        if file.signature is not None and any(name.partition(":")[0] not in file.graph.nodes for name in outputs):
            # A node of a function is found once it is called.
            for tensor in file.signature.outputs.values():
                context.tensor(tensor)
        return {_short(name): canonical(name) for name in outputs}
    if file.signature is not None and file.signature.outputs:
        return dict(sorted(file.signature.outputs.items()))
    found = ends.find(file)
    if not found.outputs and file.kind == "saved_model":
        raise InputError(
            f"{shown(str(file.path))}: a SavedModel without a signature and without layers outside of functions: save "
            f"it again with a signature (tf.saved_model.save(model, folder, signatures=...))"
        )
    if not found.outputs:
        raise InputError(f"{shown(str(file.path))}: no layers in it: choose its end with --output")
    context.notes.update(dict.fromkeys(found.notes))
    return {_short(name): canonical(name) for name in found.outputs}


def _short(name: str) -> str:
    return name.removesuffix(":0")


def _reachable(values: Sequence[Value]) -> list[Value]:
    """The values that these depend on, themselves included; none that only constants are made of."""
    found: dict[int, Value] = {}
    pending = list(values)
    while pending:
        value = pending.pop()
        if value.number not in found:
            found[value.number] = value
            pending.extend(value.inputs)
    return [found[number] for number in sorted(found)]


def _lacking(values: Sequence[Value]) -> list[Value]:
    """The values that no word of the vocabulary gives."""
    known = {*WORDS, *KERNELS, "batch_norm", "input", "constant", "variable"}
    return [value for value in _reachable(values) if value.op not in known]


def _make_noise_input(context: Evaluator, values: Sequence[Value]) -> None:
    """Makes inputs of the noise that the graph draws for each element of a batch, as between encoder and decoder."""
    for value in _lacking(values):
        first = value.shape[0] if value.shape else None
        drawn = value.attrs.get("tf_op") in ops.NORMAL and len(value.shape or ()) > 1
        if drawn and (first == BATCH or first == context.batch or context.batch is None):
            context.batch = first if isinstance(first, int) else context.batch
            value.op, value.shape, value.static = "input", (BATCH, *(value.shape or ())[1:]), False
            value.attrs = {"index": 0, "dtype": "float32", "behind": True}
            context.notes[f"the normal noise that the graph draws is an input: {value.node}"] = None


def _cut_front(context: Evaluator, values: Sequence[Value]) -> list[Value]:
    """Makes inputs of what is not supported before the first layer; gives what is not supported behind it."""
    while True:
        # The last one first: what leads to it alone is then no part of the network.
        lacking = _lacking(values)
        value = next((value for value in reversed(lacking) if _is_source(context.file, value)), None)
        if value is None:
            return lacking
        source = _reshaped(value, values)
        found = f"{value.node} ({value.attrs.get('tf_op', value.op)})"
        if source is value:
            context.notes[f"the input is taken behind {found}, which has no counterpart"] = None
        else:
            context.notes[f"the input is taken behind {source.node}: {found} has no counterpart"] = None
        source.op, source.inputs, source.static = "input", (), False
        source.attrs["behind"] = True


def _is_source(file: GraphFile, value: Value) -> bool:
    """Whether nothing but data and plain numbers goes into a value, so that the network can begin behind it."""
    before = _reachable([value])
    if any(other.op in _WEIGHTED or other.attrs.get("tf_op") in ends.LAYERS for other in before):
        return False
    if _is_in_loop(value) or any(_has_weights(other) for other in before if other.attrs.get("tf_op") in _WHILE):
        return False
    entered = [other.node for other in before if other.attrs.get("tf_op") == "Enter"]
    if any(ends.has_layers_in_loop(file, node) for node in entered):
        return False
    data = bool(entered) or any(other.op == "input" or _is_origin(other) for other in before)
    return data and not any(other.op in ("variable", "random") for other in before)


def _has_weights(loop: Value) -> bool:
    """Whether matrices go into a loop that is a function: layers are within it."""
    arrays = [other.data for other in _reachable(loop.inputs) if other.data is not None]
    return any(array.ndim > 1 and array.size > 1 and array.dtype.kind == "f" for array in arrays)


def _is_origin(value: Value) -> bool:
    """Whether a value without a counterpart is made of nothing, as what is read from a file is."""
    return value.op == "unsupported" and not value.inputs


def _is_in_loop(value: Value) -> bool:
    """Whether a value goes round in a loop; what comes out of one does not."""
    pending, seen = [value], set()
    while pending:
        value = pending.pop()
        if value.number in seen or value.attrs.get("tf_op") in ("Exit", "RefExit"):
            continue
        seen.add(value.number)
        if value.op == "unsupported" and value.attrs["tf_op"] in _IN_LOOPS:
            return True
        pending.extend(value.inputs)
    return False


def _reshaped(value: Value, values: Sequence[Value]) -> Value:
    """The value that one of unknown shape is first reshaped to, if its shape is known; else the value itself."""
    reached = value
    while reached.shape is None or any(isinstance(side, Size) for side in reached.shape[1:]):
        users = [other for other in _reachable(values) if reached in other.inputs]
        if len(users) != 1 or users[0].op not in ("reshape", "expand_dims", "squeeze", "cast"):
            return value
        reached = users[0]
    return reached


def _channels_last(value: Value) -> Value:
    """An output without the transpose that gives it in NCHW, which is PyTorch's own layout."""
    if value.op == "transpose" and value.attrs["permutation"] == ops.NCHW:
        return value.inputs[0]
    return value


def _of_whole_batch(value: Value) -> Value | None:
    """What an output is one of, where it is one element of a batch."""
    first = value.op == "strided_slice" and value.attrs["slices"][:1] and value.attrs["slices"][0]
    if not first or 0 not in value.attrs["shrink"] or not isinstance(first[0], int) or len(value.inputs) > 1:
        return None
    alone = value.attrs["shrink"] == (0,) and not any(value.attrs["slices"][1:])
    whole = value.inputs[0]
    return whole if alone and whole.shape and whole.shape[0] == BATCH else None


def _inputs(values: Any) -> list[Value]:
    return [value for value in _reachable(list(values)) if value.op == "input"]


def _record(
    file: GraphFile, context: Evaluator, given: list[Value], values: Mapping[str, Value], tensors: Mapping[str, str]
) -> UserGraph:
    given = [_nhwc_input(value, list(values.values())) for value in given]
    cover = Cover(context, values.values())
    scope = _scope(cover)
    translator = Translator(context, cover, scope)
    names = _input_names(file, given)
    described = [Input(name, _open(value)) for name, value in names.items()]

    def definition(*inputs: slim.Tensor) -> Any:
        translator.record(inputs, given)
        return {name: slim.end_point(translator.tensor(value), name, scoped=False) for name, value in values.items()}

    try:
        graph = slim.record(definition, inputs=described, free=True)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{shown(str(file.path))}: no network can be made of it: {error}") from error
    preprocessing = _preprocessing(cover)
    if preprocessing:
        context.notes[f"preprocessing in the graph, which stays in the network: {', '.join(preprocessing)}"] = None
    network = GraphNetwork(graph, re.sub(r"\.(meta|pb)$", "", file.path.name), scope)
    return UserGraph(
        file,
        context.mode,
        network,
        scope,
        _sources(file, graph, scope, translator),
        translator.constants,
        {name: f"{value.node}:{value.attrs.get('index', 0)}" for name, value in names.items()},
        tensors,
        context,
        tuple(context.notes),
        preprocessing,
        tuple(name for name, value in names.items() if value.attrs.get("nchw")),
        {
            point.name: translator.nodes[point.node]
            for point in graph.end_points
            if point.scoped and point.node in translator.nodes
        },
    )


def _sources(file: GraphFile, graph: Graph, scope: str, translator: Translator) -> dict[str, Source]:
    """The variables' names in the checkpoint, as the graph's own Saver has them."""
    renamed = file.checkpoint_names
    found = {}
    for name, source in graph.sources.items():
        full = source.name if source.name in translator.constants else slim.scoped(scope, source.name)
        found[name] = source._replace(name=renamed.get(full, full))
    return found


def _scope(cover: Cover) -> str:
    """The scope that all of a network's variables have in common."""
    names = [kernel_name(layer.kernel) for layer in cover.layers if layer.kernel is not None]
    for layer in cover.layers:
        statics = list(layer.norm.parameters.values()) if layer.norm is not None else []
        statics += [layer.bias] if layer.bias is not None else []
        names.extend(found.name for value in statics if (found := parameter(value)) is not None)
    return common_scope([name.rpartition("/")[0] for name in names])


def _nhwc_input(value: Value, values: Sequence[Value]) -> Value:
    """The input in NHWC, where the graph takes NCHW and does nothing but transpose it."""
    users = [other for other in _reachable(values) if value in other.inputs]
    if not users or any(user.op != "transpose" or user.attrs["permutation"] != ops.NHWC for user in users):
        return value
    for user in users:
        user.op, user.inputs, user.node = "input", (), value.node
        user.attrs = {**value.attrs, "nchw": True}
    first = users[0]
    for user in users[1:]:
        user.op, user.inputs, user.attrs = "reshape", (first,), {}
    return first


def _open(value: Value) -> tuple[int | None, ...]:
    """An input's shape, None for what is open."""
    if value.shape is None:
        raise InputError(f"the input {value.node} has no known rank: choose another with --input")
    return tuple(None if isinstance(side, Size) else side for side in value.shape)


def _input_names(file: GraphFile, given: Sequence[Value]) -> dict[str, Value]:
    """The inputs by the names of the signature, or else of their nodes."""
    signature = file.signature.inputs if file.signature is not None else {}
    known = {canonical(tensor): name for name, tensor in signature.items()}
    found: dict[str, Value] = {}
    for value in given:
        index = value.attrs.get("index", 0)
        name = known.get(f"{value.node}:{index}") or (f"{value.node}:{index}" if index else value.node)
        found[name] = value
    return found


def _preprocessing(cover: Cover) -> tuple[str, ...]:
    """The nodes before the first layer that change an input's numbers."""
    first = min((layer.root.number for layer in cover.layers if layer.kernel is not None), default=0)
    changing = [
        layer.root
        for layer in cover.layers
        if layer.root.number < first
        and (layer.root.attrs.get("function") in _BEFORE_LAYERS or layer.root.op in _BEFORE_LAYERS)
    ]
    return tuple(value.node for value in changing)
