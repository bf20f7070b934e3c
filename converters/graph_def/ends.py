"""Where a network ends: the layers behind which no layer with variables comes, and what follows them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np

from converters.graph_def.files import GraphFile
from converters.graph_def.proto import NodeDef

LAYERS = {"Conv2D": 1, "DepthwiseConv2dNative": 1, "Conv2DBackpropInput": 1, "MatMul": 1, "BatchMatMulV2": 1}
"""The ops of layers with variables, and which input their kernel is."""
_SOURCES = re.compile(
    r"Placeholder.*|.*QueueDequeue.*|IteratorGetNext.*|ReaderRead.*|.*Decode.*|.*(Standard|Truncated)Normal"
)
_VARIABLES = ("Variable", "VariableV2", "VarHandleOp")
_GRADIENT = re.compile(r"(^|.*/)(gradients?(_\d+)?|gradient_tape)(/.*|$)")
_UPDATE = re.compile(r"Assign.*")
_SUMMARY = re.compile(r".*Summary(V2)?|Assign.*|Assert|NoOp|Print|Save.*")
# What belongs to a layer wherever it stands.
_OF_LAYERS = (
    "BiasAdd", "BiasAddV1", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "Relu", "Relu6", "Elu", "Selu",
    "LeakyRelu", "Softplus", "Softsign", "Sigmoid", "Tanh", "Atan", "Softmax", "LogSoftmax", "Squeeze", "Identity",
    "Switch", "Merge", "BatchToSpaceND", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxArgs",
    "FakeQuantWithMinMaxVarsPerChannel", "BatchNormWithGlobalNormalization",
)  # fmt: skip
# What may belong to a network, where nothing but the network's own input goes into what comes behind it.
_ARITHMETIC = (
    "Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Div", "DivNoNan", "Maximum", "Minimum", "Abs", "Neg", "Square",
    "Sqrt", "Rsqrt", "Exp", "Log", "Pow", "SquaredDifference", "Reshape", "Transpose", "ExpandDims", "ConcatV2",
    "Concat", "Pack", "MaxPool", "AvgPool", "Pad", "PadV2", "MirrorPad", "ResizeBilinear", "ResizeNearestNeighbor",
    "DepthToSpace", "SpaceToDepth", "Slice", "StridedSlice", "Tile", "Split", "Unpack", "ReverseV2", "LRN",
    "IdentityN",
)  # fmt: skip


_BIASES = ("BiasAdd", "BiasAddV1")
_AFFINE = ("Add", "AddV2", "Mul", "Sub")
_BATCH_NORM = "FusedBatchNorm"
_SUMS = ("Add", "AddV2", "AddN")
_ACTIVATIONS = ("Relu", "Relu6", "Elu", "Selu", "LeakyRelu")
_REDUCTIONS = ("Mean", "Sum", "Max", "Min")
_MEETING = (*_SUMS, "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "SquaredDifference", "ConcatV2", "Concat", "Pack")
_MOVING = ("Reshape", "Transpose", "Tile", "Squeeze", "ExpandDims", "Slice", "StridedSlice", "Identity", "BiasAdd")
_BOUNDED = ("Tanh", "Atan", "Sigmoid")
_SCALES = ("Mul", "Add", "AddV2", "Sub", "RealDiv", "Div")
_SOFTMAXES = ("Softmax", "LogSoftmax")
_ROUND = ("NextIteration", "RefNextIteration")


class _Step(NamedTuple):
    """A node, and the nodes whose outputs it takes."""

    node: NodeDef
    taken: tuple[str, ...]


@dataclass
class _Facts:
    """Facts about each node, as bits: the sources that it depends on, and the layers.

    kernels: the layers with variables, in order, and the variable that each one's kernel is.
    transposed: those of them that take the variable's transpose.
    variable: the nodes that depend on a variable.
    data: the sources that are no switches and rates.
    """

    sources: dict[str, int] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    kernels: dict[str, str] = field(default_factory=dict)
    transposed: set[str] = field(default_factory=set)
    variable: set[str] = field(default_factory=set)
    data: int = 0


@dataclass(frozen=True)
class Ends:
    """The outputs that were found.

    outputs: tensors, in the graph's order.
    notes: what was decided, a sentence each.
    """

    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find(file: GraphFile) -> Ends:
    """The outputs of a graph that names none."""
    nodes = file.graph.nodes
    order = _order(file)
    facts = _facts(file, order.steps)
    behind = 0
    for index, name in enumerate(facts.kernels):
        behind |= facts.layers[name] & ~(1 << index)
    last = {name for index, name in enumerate(facts.kernels) if not behind >> index & 1}
    ends = [name for name in nodes if name in last]
    if not ends:
        # The operations outside the functions of a SavedModel save and restore it.
        return Ends(() if file.kind == "saved_model" else tuple(_sinks(order.steps)))
    chosen, notes = _one_of_each(ends, facts)
    ends = [name for name in nodes if name in chosen]
    meetings, around = _meetings(ends, order, facts)
    ends, more = _one_network(ends, meetings, facts)
    followed = set(_followed(ends, order, facts, {*meetings, *around}))
    return Ends(tuple(name for name in nodes if name in followed), (*notes, *more))


class _Order(NamedTuple):
    """Nodes behind what they take; the nodes that take each one; and what gradients are made from."""

    steps: list[_Step]
    users: dict[str, list[_Step]]
    trained: set[str]


def _order(file: GraphFile) -> _Order:
    """The nodes that are no gradients; a loop is entered, but not gone round."""
    nodes = file.graph.nodes
    missing: dict[str, int] = {}
    users: dict[str, list[_Step]] = {}
    ready: list[_Step] = []
    trained: set[str] = set()
    for name, node in nodes.items():
        taken = tuple([text.partition(":")[0] for text in node.inputs if text[0] != "^"])
        if "gradient" in name and _GRADIENT.fullmatch(name):
            trained.update(taken)
            continue
        step = _Step(node, taken)
        waits = {other for other in taken if other in nodes and nodes[other].op not in _ROUND}
        missing[name] = len(waits)
        for other in waits:
            users.setdefault(other, []).append(step)
        if not waits:
            ready.append(step)
    order = []
    while ready:
        step = ready.pop()
        order.append(step)
        for user in users.get(step.node.name, ()):
            missing[user.node.name] -= 1
            if not missing[user.node.name]:
                ready.append(user)
    return _Order(order, users, trained)


def _facts(file: GraphFile, order: Sequence[_Step]) -> _Facts:
    facts = _Facts()
    roots = _VARIABLES if file.kind == "meta" else (*_VARIABLES, "Const")
    count = 0
    is_source = {op: bool(_SOURCES.fullmatch(op)) for op in {step.node.op for step in order}}
    for node, inputs in order:
        sources = layers = 0
        varies = node.op in roots
        for name in inputs:
            sources |= facts.sources.get(name, 0)
            layers |= facts.layers.get(name, 0)
            varies = varies or name in facts.variable
        if is_source[node.op] and not sources:
            sources = 1 << count
            count += 1
            if not _is_setting(node):
                facts.data |= sources
        facts.sources[node.name], facts.layers[node.name] = sources, layers
        if varies:
            facts.variable.add(node.name)
        kernel = LAYERS.get(node.op)
        if kernel is None or len(inputs) <= kernel or not sources & facts.data:
            continue
        read = file.graph.nodes.get(inputs[kernel])
        if read is not None and read.op == "Tile":
            # For each element of a batch, whose size is all that it takes of the data.
            read = file.graph.nodes.get(read.data_inputs[0].partition(":")[0])
        root = _root(file, read.name) if read is not None and not facts.sources.get(read.name, 1) else None
        if root is not None:
            facts.layers[node.name] = layers | 1 << len(facts.kernels)
            facts.kernels[node.name] = root
            if node.get("transpose_b") or (read is not None and read.op == "Transpose"):
                facts.transposed.add(node.name)
    return facts


def _is_setting(node: NodeDef) -> bool:
    """Whether a placeholder is a switch or a rate, and not data."""
    dtype = node.get("dtype")
    shape = node.get("shape")
    return dtype is not None and (dtype.name == "bool" or (node.op == "PlaceholderWithDefault" and shape == ()))


def _root(file: GraphFile, name: str) -> str | None:
    """The variable that a kernel is read from; the constant, in a graph without variables."""
    for _ in range(16):
        node = file.graph.nodes.get(name.partition(":")[0])
        if node is None:
            return None
        if node.op in _VARIABLES or (node.op == "Const" and file.kind != "meta"):
            return node.name
        if not node.data_inputs:
            return None
        name = node.data_inputs[0]
    return None


def has_layers_in_loop(file: GraphFile, enter: str) -> bool:
    """Whether arrays go into the loop that a node `Enter` begins: layers are within it.

    What TensorFlow 2 writes does not say what is the same in each round: there, it is a matrix that tells.
    """
    nodes = file.graph.nodes
    frame = nodes[enter].get("frame_name") if enter in nodes else None
    for node in nodes.values():
        if node.op == "Enter" and node.get("frame_name") == frame:
            root = _root(file, node.name)
            array = nodes[root].get("value") if root is not None and nodes[root].op == "Const" else None
            least = 1 if node.get("is_constant") else 2
            if root is not None and (
                array is None or (array.size > 1 and array.ndim >= least and array.dtype.kind == "f")
            ):
                return True
    return False


def _one_of_each(ends: list[str], facts: _Facts) -> tuple[list[str], list[str]]:
    """Of copies of a network, which share their variables, the one that has fewest layers, or else the first.

    A layer by the transpose of what another one takes is a gradient that was written by hand.
    """

    def size(name: str) -> tuple[bool, int]:
        return name in facts.transposed, facts.layers[name].bit_count()

    best: dict[str, str] = {}
    notes = []
    for name in ends:
        kernel = facts.kernels[name]
        if kernel not in best:
            best[kernel] = name
            continue
        other = best[kernel]
        if size(name) < size(other):
            best[kernel], name = name, other
        notes.append(f"{name} has the variables of {best[kernel]}, which is taken; --output {name} takes the other")
    kept = [name for name in ends if best[facts.kernels[name]] == name]
    for name in ends:
        for last in _before(name, best[facts.kernels[name]], facts) if name not in kept else ():
            if facts.kernels[last] not in best:
                best[facts.kernels[last]] = last
                kept.append(last)
    return kept, notes


def _before(name: str, other: str, facts: _Facts) -> list[str]:
    """The last layers of a network before one that has another's variables: the generator before a discriminator."""
    names = list(facts.kernels)
    of = {facts.kernels[layer] for index, layer in enumerate(names) if facts.layers[other] >> index & 1}
    more = {i: x for i, x in enumerate(names) if facts.layers[name] >> i & 1 and facts.kernels[x] not in of}
    behind = 0
    for index, layer in more.items():
        behind |= facts.layers[layer] & ~(1 << index)
    return [layer for index, layer in more.items() if not behind >> index & 1]


def _meetings(ends: Sequence[str], order: _Order, facts: _Facts) -> tuple[dict[str, int], set[str]]:
    """Where networks meet behind their last layers, with the inputs of both, and what else is theirs around it.

    Two of different inputs meet in what leads to no loss; and any in what leads to an activation or to logits, before
    the batch is reduced or labels are taken. The nodes on the way there are theirs, and so are sums of layers.
    """
    sources = 0
    for name in ends:
        sources |= facts.sources[name] & facts.data
    behind = _behind(ends, order)
    losses = {step.node.name for step in behind if _is_loss(step.node, sources, order, facts)}
    spoiled: set[str] = set()
    from_ends = {name: 1 << index for index, name in enumerate(ends)}
    for node, taken in behind:
        if node.name in losses or any(name in spoiled for name in taken):
            spoiled.add(node.name)
        for name in taken:
            from_ends[node.name] = from_ends.get(node.name, 0) | from_ends.get(name, 0)
    leading = losses | _leading(losses, behind, order)
    activated = _activated(behind, spoiled, order)
    found: dict[str, int] = {}
    sums: set[str] = set()
    for node, taken in behind:
        if node.op not in _MEETING or node.name in spoiled:
            continue
        if node.op in _SUMS and node.name in activated and all(facts.layers.get(name) for name in taken):
            sums.add(node.name)
        reached = [name for name in taken if name in from_ends]
        different = len({facts.sources[name] & facts.data for name in reached}) > 1 and node.name not in leading
        if different or (len({from_ends[name] for name in reached}) > 1 and node.name in activated):
            found[node.name] = facts.sources[node.name] & facts.data
    return found, sums | (_leading(found, behind, order) - spoiled)


def _activated(behind: Sequence[_Step], spoiled: Collection[str], order: _Order) -> set[str]:
    """The nodes that lead to an activation, a prediction or the logits of a loss, on a way that is no loss yet."""
    found: set[str] = set()
    for node, _ in reversed(behind):
        for user, taken in order.users.get(node.name, ()) if node.name not in spoiled else ():
            logits = "CrossEntropy" in user.op and taken[0] == node.name
            onward = user.op in (*_MEETING, *_MOVING) and user.name in found
            if logits or onward or user.op in (*_SOFTMAXES, *_ACTIVATIONS, *_BOUNDED, "ArgMax"):
                found.add(node.name)
    return found


def _is_loss(node: NodeDef, sources: int, order: _Order, facts: _Facts) -> bool:
    """Whether a node takes other data than the networks do, or reduces the batch."""
    reduces = node.op in _REDUCTIONS and not _keeps_batch(node, order)
    foreign = bool(facts.sources[node.name] & facts.data & ~sources)
    return reduces or foreign or node.op == "L2Loss" or "CrossEntropy" in node.op


def _one_network(ends: list[str], meetings: Mapping[str, int], facts: _Facts) -> tuple[list[str], list[str]]:
    """Of networks that have no input in common and do not meet, the one with most layers."""
    groups: list[tuple[int, list[str]]] = []
    for name in ends:
        sources = facts.sources[name] & facts.data
        for met in meetings.values():
            sources |= met if met & sources else 0
        together = [group for group in groups if group[0] & sources]
        groups = [group for group in groups if not group[0] & sources]
        members = [member for group in together for member in group[1]]
        for group in together:
            sources |= group[0]
        groups.append((sources, [*members, name]))

    def size(group: tuple[int, list[str]]) -> int:
        layers = 0
        for name in group[1]:
            layers |= facts.layers[name]
        return layers.bit_count()

    chosen = max(groups, key=size)
    rest = [name for group in groups if group is not chosen for name in group[1]]
    notes = [f"another network ends at {name}, and has another input; --output {name} takes it" for name in rest]
    return [name for name in ends if name in chosen[1]], notes


def _followed(ends: Sequence[str], order: _Order, facts: _Facts, meetings: Collection[str]) -> list[str]:
    """The last tensors of a network: its last layers, or what follows them."""
    covered = 0
    for name in ends:
        covered |= facts.layers[name]
    behind = _behind(ends, order)
    foreign, losses = _foreign(ends, behind, order, facts)
    # A moving average's next value, and a condition that only a summary asks.
    apart = _only_for(_UPDATE, behind, order)
    summarized = _only_for(_SUMMARY, behind, order)
    apart |= {step.node.name for step in behind if step.node.op == "Switch" and step.node.name in summarized}
    # A product with a reciprocal root is a normalization, of the embedding of a face, say.
    roots = {step.node.name for step in behind if step.node.op == "Rsqrt"}
    softmaxes = [step for step in behind if step.node.op in _SOFTMAXES]
    before_softmax = {name for step in softmaxes for name in step.taken}
    reshapes = {step.node.name for step in behind if step.node.op == "Reshape"}
    region = dict.fromkeys(ends)
    reshaped: set[str] = set()
    scaled = {step.node.name for step in behind if step.node.op in _BOUNDED}
    for node, taken in behind:
        from_region = [name for name in taken if name in region]
        if not from_region or node.name in region or node.name in apart:
            continue
        others = [name for name in taken if name not in region and facts.sources.get(name, 0) & facts.data]
        if any(facts.layers[name] & ~covered for name in others):
            continue
        belongs = node.op in _OF_LAYERS or (node.op in _AFFINE and _with_variable(taken, facts))
        belongs |= node.name in meetings or (node.name in losses and _rescales(node, from_region[0], scaled, facts))
        belongs |= node.op == "Mul" and any(name in roots for name in taken)
        if node.op == "Reshape":
            belongs = node.name in before_softmax or from_region[0] in reshaped or _before_bias(node, order, facts)
        plain = node.name not in foreign and not any(name in losses for name in from_region)
        if belongs or (plain and (node.op in _ARITHMETIC or _keeps_batch(node, order))):
            region[node.name] = None
            if node.op in _SCALES and from_region[0] in scaled:
                scaled.add(node.name)
            if (node.op in _SOFTMAXES or node.op.startswith(_BATCH_NORM)) and taken[0] in reshapes:
                reshaped.add(node.name)
    # What leads to another one, on whatever way, is no end.
    leading = _leading(region, behind, order)
    return [name for name in region if name not in leading]


def _leading(to: Collection[str], behind: Sequence[_Step], order: _Order) -> set[str]:
    """The nodes whose values go into one of others, on whatever way."""
    found: set[str] = set()
    for node, _ in reversed(behind):
        if any(step.node.name in to or step.node.name in found for step in order.users.get(node.name, ())):
            found.add(node.name)
    return found


def _rescales(node: NodeDef, data: str, scaled: Collection[str], facts: _Facts) -> bool:
    """Whether a node brings what a bounded activation gives to another range, as `2 * atan(x)`, `127.5 * tanh(x)`."""
    others = [name for name in node.data_inputs if name.partition(":")[0] != data]
    constant = all(not facts.sources.get(name.partition(":")[0], 1) for name in others)
    return node.op in _SCALES and data in scaled and len(others) == 1 and constant


def _before_bias(node: NodeDef, order: _Order, facts: _Facts) -> bool:
    """Whether a bias or a BatchNorm comes next.

    A layer on more than two axes is a product of matrices between two reshapes, and so is a BatchNorm on fewer.
    """
    users = order.users.get(node.name, ())
    if any(step.node.op.startswith(_BATCH_NORM) for step in users):
        return True
    return any(step.node.op in (*_BIASES, *_AFFINE) and _with_variable(step.taken, facts) for step in users)


def _behind(ends: Sequence[str], order: _Order) -> list[_Step]:
    """The nodes that depend on the ends, in order."""
    found = set(ends)
    pending = list(ends)
    while pending:
        for step in order.users.get(pending.pop(), ()):
            if step.node.name not in found:
                found.add(step.node.name)
                pending.append(step.node.name)
    return [step for step in order.steps if step.node.name in found]


def _keeps_batch(node: NodeDef, order: _Order) -> bool:
    """Whether a node reduces axes, and the batch is none of them: what reduces it is a loss."""
    if node.op not in _REDUCTIONS:
        return False
    name = node.data_inputs[1].partition(":")[0]
    axes = next(
        (step.node.get("value") for step in order.steps if step.node.name == name and step.node.op == "Const"), None
    )
    return isinstance(axes, np.ndarray) and bool(axes.size) and 0 not in axes.ravel().tolist()


def _with_variable(taken: Sequence[str], facts: _Facts) -> bool:
    """Whether an input depends on no data at all and is no plain number: a bias, or a BatchNorm's factor."""
    return any(not facts.sources.get(name, 1) and name in facts.variable for name in taken)


def _foreign(ends: Sequence[str], behind: Sequence[_Step], order: _Order, facts: _Facts) -> tuple[set[str], set[str]]:
    """The nodes that lead to what other data go into as well, such as labels into a loss, or only to summaries.

    And those of the first kind alone: a loss begins behind them, so that only a softmax may be the network's.
    """
    sources = 0
    for name in ends:
        sources |= facts.sources[name]
    foreign: set[str] = set()
    losses: set[str] = set()
    for node, _ in reversed(behind):
        users = [step.node.name for step in order.users.get(node.name, ())]
        rest = [step.node.name for step in order.users.get(node.name, ()) if not _summarizes(step.node.op)]
        loss = node.name in order.trained or bool(facts.sources[node.name] & facts.data & ~sources)
        if loss or any(name in losses for name in rest):
            losses.add(node.name)
        if loss or (users and not rest) or any(name in foreign for name in rest):
            foreign.add(node.name)
    return foreign, losses


@cache
def _summarizes(op: str) -> bool:
    return bool(_SUMMARY.fullmatch(op))


def _only_for(ops: re.Pattern[str], behind: Sequence[_Step], order: _Order) -> set[str]:
    """The nodes that lead to nothing but these ops, and from which no gradient is made."""
    found: set[str] = set()
    for node, _ in reversed(behind):
        users = [step.node for step in order.users.get(node.name, ())]
        if users and node.name not in order.trained and all(u.name in found or ops.fullmatch(u.op) for u in users):
            found.add(node.name)
    return found


def _sinks(order: Sequence[_Step]) -> list[str]:
    """The nodes that no other uses, where there are no layers at all."""
    taken = {name for step in order for name in step.taken}
    sinks = [step.node for step in order if step.node.name not in taken and step.taken]
    return [node.name for node in sinks if not _SUMMARY.fullmatch(node.op)]
