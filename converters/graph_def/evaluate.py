"""Walks a TensorFlow graph back from its outputs and evaluates what can be: conditions, shapes, switches, functions.

The symbolic values that remain are in NHWC. Nothing is recursive: a graph may be as deep as it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from converters.checkpoint.messages import shown
from converters.checkpoint.wire import WireError
from converters.errors import InputError
from converters.graph_def.files import GraphFile
from converters.graph_def.proto import Array, Function, FunctionDef, NodeDef
from converters.graph_def.values import BATCH, Axis, Dim, Shape, Size, UnknownSizeError, Value

Mode = Literal["eval", "graph"]
Results = tuple[Value, ...]
Handler = Callable[["Evaluator", NodeDef, list[Value]], "Value | Results"]
HANDLERS: dict[str, Handler] = {}
"""The evaluation of each op, from its node and the values of its inputs, by TensorFlow's name."""

# A graph in which functions call functions may stand for far more nodes than it has.
_MAX_EVALUATED = 200_000
_MAX_DEPTH = 64
# The bytes of all arrays that are computed from constants, and are no views of the file.
_MOST_COMPUTED = 1 << 30
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_CONDITIONS = ("If", "StatelessIf")
_SWITCHES = ("Switch", "RefSwitch")
_MERGES = ("Merge", "RefMerge")
_ROUND = ("NextIteration", "RefNextIteration")
_QUEUES = (
    "QueueDequeue",
    "QueueDequeueV2",
    "QueueDequeueMany",
    "QueueDequeueManyV2",
    "QueueDequeueUpTo",
    "QueueDequeueUpToV2",
    "IteratorGetNext",
    "IteratorGetNextSync",
)
_MANY = ("Many", "UpTo")
_SAME_CHANNELS = ("input", "elementwise", "cast", "pad", "resize")
# The place among an op's outputs of those that functions call by name.
_OUTPUTS = {
    "batch_mean": 1,
    "batch_variance": 2,
    "output_true": 1,
    "value_index": 1,
    "indices": 1,
    "idx": 1,
    "variance": 1,
}


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Registers what evaluates some ops."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


@dataclass(eq=False)
class Frame:
    """Where names are looked up: the graph itself, or a function that is being called.

    path: what names within have before them where others have the same: the nodes that call, each with a slash.
    """

    nodes: Mapping[str, NodeDef]
    function: FunctionDef | None = None
    arguments: Mapping[str, tuple[Frame, str]] = field(default_factory=dict)
    depth: int = 0
    path: str = ""


Key = tuple[Frame, str, int]
DEAD = Value("dead")
"""The output of a Switch on the side that is not taken."""


class Evaluator:
    """The values of a graph's tensors.

    mode: `eval` runs the network as after training, whatever `is_training` says in the graph; `graph` as it stands.
    cut: tensors that are inputs, instead of what makes them.
    inputs: the placeholders, queues and iterators that were met.
    notes: what was decided, a sentence each.
    batch: the one that is written into the graph, if any.
    decisions: which side each condition takes, by its node.
    averages: the moving averages that are taken for statistics of the batch, by the numbers of their values.
    """

    def __init__(self, file: GraphFile, mode: Mode, cut: Sequence[str] = ()) -> None:
        self.file, self.mode = file, mode
        self.root = Frame(file.graph.nodes)
        self.inputs: list[Value] = []
        self.notes: dict[str, None] = {}
        self.batch: int | None = None
        self.decisions: dict[tuple[Frame, str], bool | None] = {}
        self.averages: dict[int, Value] = {}
        self._cut = {canonical(name) for name in cut}
        self.memo: dict[tuple[Frame, str], dict[int, Value]] = {}
        self.frames: dict[tuple[Frame, str, str], Frame] = {}
        self._count = 0
        self._frame = self.root
        self._made_in: dict[int, Frame] = {}
        self._evaluated = self._computed = 0
        self._consumers: dict[str, list[NodeDef]] | None = None

    # Values.

    def new(
        self, op: str, inputs: Sequence[Value], shape: Sequence[Dim | None] | None, node: NodeDef, **attrs: Any
    ) -> Value:
        """A value; open sides become sizes of it."""
        self._count += 1
        self._made_in[self._count] = self._frame
        sides = (
            None
            if shape is None
            else tuple(Size.of(Axis(self._count, axis)) if side is None else side for axis, side in enumerate(shape))
        )
        static = bool(inputs) and all(value.static for value in inputs)
        doubtful = op == "unsupported" or any(value.doubtful for value in inputs)
        return Value(op, tuple(inputs), attrs, sides, node.name, None, self._count, static, doubtful)

    def constant(self, data: Any, node: NodeDef) -> Value:
        """A value that is known."""
        array: Array = data if isinstance(data, np.ndarray) else np.asarray(data)
        self._computed += array.nbytes if array.base is None else 0
        if self._computed > _MOST_COMPUTED:
            raise InputError(f"{shown(str(self.file.path))}: its constants are more than {_MOST_COMPUTED} bytes")
        value = self.new("constant", (), array.shape, node)
        value.data, value.static = array, True
        return value

    def input(self, shape: Sequence[int | None] | None, node: NodeDef, index: int = 0, dtype: str = "float32") -> Value:
        """A value that comes from outside; its first side is the batch."""
        value = self.new("input", (), shape, node, index=index, dtype=dtype)
        if value.shape and not _is_image(value.shape):
            if isinstance(value.shape[0], int):
                self.batch = value.shape[0]
            value.shape = (BATCH, *value.shape[1:])
        self.inputs.append(value)
        return value

    def require_rank(self, value: Value, rank: int, channels: int | None = None) -> None:
        """Gives a value whose rank the graph leaves open the rank that an op needs, and those that it is made from."""
        pending = [value]
        while pending:
            value = pending.pop()
            if value.shape is None:
                # Means that are subtracted say how many channels there are.
                means = (other.channels for other in value.inputs if other.static and other.rank == 1)
                channels = channels or next((number for number in means if number and number > 1), None)
                sides = [Size.of(Axis(value.number, axis)) for axis in range(rank)]
                value.shape = (BATCH, *sides[1:-1], channels or sides[-1]) if rank > 1 else (BATCH,)
                pending.extend(other for other in value.inputs if not other.static)

    def require_channels(self, value: Value, channels: int) -> None:
        """Gives a map of open channels those that a kernel takes, and those that it is made from."""
        pending = [value]
        while pending:
            value = pending.pop()
            if value.rank == 4 and value.shape and isinstance(value.shape[-1], Size) and value.op in _SAME_CHANNELS:
                value.shape = (*value.shape[:-1], channels)
                pending.extend(other for other in value.inputs if not other.static)

    def promote(self, value: Value) -> bool:
        """Puts a batch before the axes of an image that has none, and of all that it is made from."""
        chain = []
        while value.op not in ("input", "unsupported"):
            dynamic = [other for other in value.inputs if not other.static]
            if len(set(map(id, dynamic))) != 1 or value.op not in ("elementwise", "cast") or value.rank != 3:
                return False
            chain.append(value)
            value = dynamic[0]
        if value.rank != 3 or value.shape is None or value.shape[0] == BATCH:
            return False
        for link in [*chain, value]:
            link.shape = (BATCH, *(link.shape or ()))
        return True

    # Evaluation.

    def tensor(self, name: str) -> Value:
        """The value of a tensor of the graph.

        Raises:
          InputError: there is none of this name, or the graph is too large, or damaged.
        """
        node, colon, index = name.partition(":")
        frame, node = self._frame_of(node)
        key = self._find(frame, f"{node}{colon}{index}")
        self._run(key)
        return self.memo[key[:2]][key[2]]

    def _frame_of(self, node: str) -> tuple[Frame, str]:
        """Where a node is, and its name there: in a function that has been called, where the graph has none."""
        frames = [] if node in self.root.nodes else [*self.frames.values()]
        for frame in frames:
            if node.startswith(frame.path) and node.removeprefix(frame.path) in frame.nodes:
                return frame, node.removeprefix(frame.path)
        return next((frame for frame in frames if node in frame.nodes), self.root), node

    def name_of(self, value: Value) -> str:
        """The name by which `tensor` finds a value: its node's, with the path to it where others have that name."""
        node = str(value.attrs.get("result", value.node))
        frame = self._made_in.get(value.number, self.root)
        other = node in frame.nodes and self._frame_of(node)[0] is not frame
        return f"{frame.path if other else ''}{node}:{value.attrs.get('index', 0)}"

    def _run(self, key: Key) -> None:
        stack: list[tuple[Key, Generator[Key, Value, Results | Value]]] = []
        running: set[Key] = set()
        value: Value | None = None
        self._push(key, stack, running)
        while stack:
            key, process = stack[-1]
            try:
                needed = process.send(value) if value is not None else next(process)
            except StopIteration as done:
                stack.pop()
                running.discard(key)
                value = self._store(key, done.value)
                continue
            except (WireError, ValueError, TypeError, IndexError, AttributeError, KeyError, OverflowError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{shown(str(self.file.path))}: node {shown(key[1])}: damaged: {error}") from error
            value = self.memo.get(needed[:2], {}).get(needed[2])
            if value is None:
                if needed in running:
                    # A loop: what goes round in it is no feed-forward network.
                    value = self.unsupported(needed[0].nodes[needed[1]], ())
                else:
                    self._push(needed, stack, running)

    def _push(self, key: Key, stack: list[Any], running: set[Key]) -> None:
        self._evaluated += 1
        if self._evaluated > _MAX_EVALUATED:
            raise InputError(f"{shown(str(self.file.path))}: its functions make more than {_MAX_EVALUATED} nodes")
        running.add(key)
        stack.append((key, self._process(key)))

    def _store(self, key: Key, result: Results | Value) -> Value:
        found = self.memo.setdefault(key[:2], {})
        if isinstance(result, Value):
            found[key[2]] = result
        else:
            found.update(enumerate(result))
            if key[2] not in found:
                found[key[2]] = self.unsupported(key[0].nodes[key[1]], ())
        return found[key[2]]

    def _process(self, key: Key) -> Generator[Key, Value, Results | Value]:
        """Evaluates one node: yields the tensors that it needs, and is sent their values."""
        frame, name, index = key
        node = frame.nodes[name]
        if self._cut and (frame is self.root or name not in self.root.nodes) and f"{name}:{index}" in self._cut:
            return self.cut(key, node)
        if node.op in _SWITCHES:
            return (yield from self._switch(frame, node))
        if node.op in _MERGES:
            return (yield from self._merge(frame, node))
        if node.op in _CALLS or node.op in _CONDITIONS:
            return (yield from self._call(key, node))
        if node.op in _QUEUES:
            return self.queue(key, node)
        values = []
        for text in node.data_inputs:
            value = yield self._find(frame, text)
            if value is DEAD:
                return DEAD
            values.append(value)
        if not values and (yield from self._is_dead(frame, node)):
            return DEAD
        self._frame = frame
        return self.handle(key, node, values)

    def handle(self, key: Key, node: NodeDef, values: list[Value]) -> Results | Value:  # noqa: ARG002
        """The outputs of a node, from the values of its inputs."""
        handler = HANDLERS.get(node.op)
        if handler is None:
            return self.unsupported(node, values)
        try:
            return handler(self, node, values)
        except UnknownSizeError:
            return self.unsupported(node, values)
        except (WireError, ValueError, TypeError, IndexError) as error:
            # A guess that was wrong is no damage.
            if isinstance(error, InputError) or not any(value.doubtful for value in values):
                raise
            return self.unsupported(node, values)

    def unsupported(self, node: NodeDef, values: Sequence[Value]) -> Value:
        """The value of a node that has no counterpart; an error only where an output depends on it."""
        value = self.new("unsupported", values, _shape_of_source(node), node, tf_op=node.op)
        value.static = False
        return value

    def _find(self, frame: Frame, text: str) -> Key:
        """The tensor of a name as nodes write it: `node`, `node:1`, in functions `argument` and `node:output:0`."""
        while True:
            name, *rest = text.split(":")
            if frame.function is None or name in frame.nodes or name not in frame.arguments:
                break
            frame, text = frame.arguments[name]
        if name not in frame.nodes:
            where = f"function {shown(frame.function.name)}" if frame.function else "the graph"
            raise InputError(f"{shown(str(self.file.path))}: no node {shown(name)} in {where}")
        index = int(rest[-1]) if rest and rest[-1].isdigit() and len(rest[-1]) < 8 else 0
        return frame, name, index + _OUTPUTS.get(rest[0], 0) if len(rest) == 2 else index

    def _switch(self, frame: Frame, node: NodeDef) -> Generator[Key, Value, Results | Value]:
        chosen = yield from self._condition(frame, node.data_inputs[1], node)
        if chosen is None:
            undecided = []
            for text in node.data_inputs:
                undecided.append((yield self._find(frame, text)))
            return self.unsupported(node, undecided)
        data = yield self._find(frame, node.data_inputs[0])
        return (DEAD, data) if chosen else (data, DEAD)

    def _condition(self, frame: Frame, text: str, node: NodeDef) -> Generator[Key, Value, bool | None]:
        """The side that a condition takes; in doubt, one that the data do not decide is `is_training`."""
        value = yield self._find(frame, text)
        chosen = None if _is_loop(value) else self.decide(value, node)
        self.decisions[frame, node.name] = chosen
        return chosen

    def decide(self, value: Value, node: NodeDef) -> bool | None:
        """Whether a condition holds; None where the data decide it."""
        if value.data is not None and value.data.size == 1 and not isinstance(value.data.item(), Size):
            return bool(value.data.item())
        if value is DEAD or any(source.rank not in (0, None) for source in _sources(value)):
            return None
        self.notes[f"{value.node} is taken to be false, as in evaluation ({node.name} depends on it)"] = None
        return False

    def _merge(self, frame: Frame, node: NodeDef) -> Generator[Key, Value, Results | Value]:
        names = [text.partition(":")[0] for text in node.data_inputs]
        if any(frame.nodes[name].op in _ROUND for name in names if name in frame.nodes):
            # What goes round in a loop; the first input is what goes into it.
            return self.unsupported(node, [(yield self._find(frame, node.data_inputs[0]))])
        for index, text in enumerate(node.data_inputs):
            value = yield self._find(frame, text)
            if value is not DEAD:
                return value, self.constant(np.int32(index), node)
        return DEAD

    def _is_dead(self, frame: Frame, node: NodeDef) -> Generator[Key, Value, bool]:
        """Whether a node without inputs is on the side of a cond that is not taken, as its control inputs tell."""
        for text in node.inputs:
            name = text.lstrip("^")
            pivot = frame.nodes.get(name)
            for _ in range(4):
                if pivot is None or pivot.op != "Identity" or not pivot.data_inputs:
                    break
                text = pivot.data_inputs[0]
                pivot = frame.nodes.get(text.partition(":")[0])
            if pivot is not None and pivot.op in _SWITCHES:
                value = yield self._find(frame, name)
                if value is DEAD:
                    return True
        return False

    def _call(self, key: Key, node: NodeDef) -> Generator[Key, Value, Results | Value]:
        frame, _, index = key
        attribute, arguments = "f", node.data_inputs
        if node.op in _CONDITIONS:
            chosen = yield from self._condition(frame, arguments[0], node)
            if chosen is None:
                return self.unsupported(node, ())
            attribute, arguments = "then_branch" if chosen else "else_branch", arguments[1:]
        called = node.get(attribute)
        if not isinstance(called, Function):
            raise WireError(f"a {node.op} of no function")
        function = self.file.graph.function(called.name)
        if len(arguments) != len(function.arguments) or index >= len(function.results):
            raise WireError(f"a call of {shown(called.name)} with other arguments than it has")
        inner = self.frames.get((frame, node.name, called.name))
        if inner is None:
            if frame.depth >= _MAX_DEPTH:
                raise WireError(f"functions that call each other {_MAX_DEPTH} deep")
            bound = {name: (frame, text) for name, text in zip(function.arguments, arguments, strict=True)}
            inner = Frame(function.nodes, function, bound, frame.depth + 1, f"{frame.path}{node.name}/")
            self.frames[frame, node.name, called.name] = inner
        return (yield self._find(inner, function.results[index]))

    def cut(self, key: Key, node: NodeDef) -> Value:
        """An input that was chosen."""
        declared = node.get("shape") if node.op.startswith("Placeholder") else None
        dtype = node.get("dtype") if node.op.startswith("Placeholder") else None
        return self.input(_declared(node, key[2]) or declared, node, key[2], "float32" if dtype is None else dtype.name)

    def queue(self, key: Key, node: NodeDef) -> Value:
        """A component of what a queue or an iterator gives."""
        frame, _, index = key
        shapes = node.get("output_shapes")
        types = node.get("output_types") or node.get("component_types") or []
        if shapes is None:
            queue = frame.nodes.get(node.data_inputs[0].partition(":")[0])
            shapes = (queue.get("shapes") if queue is not None else None) or []
            if any(many in node.op for many in _MANY):
                shapes = [None if shape is None else (None, *shape) for shape in shapes]
        shape = shapes[index] if index < len(shapes) else _declared(node, index)
        dtype = types[index].name if index < len(types) else "float32"
        return self.input(shape, node, index, dtype)

    # What follows a node.

    @property
    def consumers(self) -> Mapping[str, Sequence[NodeDef]]:
        """The nodes that take any output of a node, by its name."""
        if self._consumers is None:
            self._consumers = {}
            for node in self.file.graph.nodes.values():
                # Nothing that is looked for follows a gradient.
                for text in node.inputs if "gradients/" not in node.name else ():
                    if text[0] != "^":
                        self._consumers.setdefault(text.partition(":")[0], []).append(node)
        return self._consumers


def canonical(name: str) -> str:
    """A tensor's name with its output: `a` is `a:0`."""
    name = name.removeprefix("^")
    return name if name.rpartition(":")[2].isdigit() and ":" in name else f"{name}:0"


def _shape_of_source(node: NodeDef) -> Any:
    """The shape of what is decoded, or gathered one by one; None where nothing is known."""
    if node.op.startswith("Decode"):
        # One image, with no batch yet.
        return (None, None, node.get("channels") or 3)
    element = node.get("element_shape") if node.op in ("TensorArrayGatherV3", "TensorListStack") else None
    return (None, *element) if isinstance(element, tuple) else None


def _declared(node: NodeDef, index: int) -> Any:
    """The shape that the graph's writer noted for an output, if any."""
    shapes = node.get("_output_shapes")
    return shapes[index] if isinstance(shapes, list) and index < len(shapes) else None


def _is_loop(value: Value) -> bool:
    """Whether a value is the condition of a loop."""
    return value.op == "unsupported" and value.attrs["tf_op"] == "LoopCond"


def _is_image(shape: Shape) -> bool:
    """Whether a shape is that of one image, with no batch before it."""
    return len(shape) == 3 and shape[-1] in (1, 3, 4)


def _sources(value: Value) -> list[Value]:
    """The inputs that a value depends on."""
    found, pending, seen = [], [value], set()
    while pending:
        value = pending.pop()
        if id(value) not in seen:
            seen.add(id(value))
            pending.extend(value.inputs)
            if value.op == "input":
                found.append(value)
    return found
