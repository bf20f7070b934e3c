"""A recorded network as data: nodes, variables, end points, JSON. No framework is imported."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

Shape = tuple[int, ...]
Sides = tuple[int, int]
"""Of height and width."""
Padding = Literal["SAME", "VALID"] | tuple[Sides, Sides]
"""TensorFlow's, or the zeros before and after the height and the width."""
Initializer = tuple[str, float] | tuple[str]
Activation = str | tuple[Any, ...]
"""A key of `ACTIVATIONS`, or one and its numbers: `("leaky_relu", 0.1)`."""

XAVIER: Initializer = ("xavier",)
VARIANCE_SCALING: Initializer = ("variance_scaling",)
FAN_OUT: Initializer = ("fan_out",)
"""`VARIANCE_SCALING` by the number of outputs of an input: slim's `mode='FAN_OUT'`."""
HE: Initializer = ("he",)
"""Normal numbers of variance 2 / n, n the number of inputs of an output: arXiv:1502.01852."""
VARIABLE_LEAVES = (
    "weights",
    "depthwise_weights",
    "pointwise_weights",
    "biases",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
)
ACTIVATIONS = {
    "relu": "Relu",
    "relu6": "Relu6",
    "leaky_relu": "LeakyRelu",
    "elu": "Elu",
    "selu": "Selu",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "swish": "Swish",
    "hard_sigmoid": "HardSigmoid",
    "hard_swish": "HardSwish",
    "relu_n": "ReluN",
    "clip": "Clip",
}
"""The name that an activation has under its layer's scope, which is that of TensorFlow's op where there is one."""
FACTORS = {"hard_sigmoid": 0.16667, "hard_swish": 0.1666666716337204}
"""The number of an activation that is given none: MobileNet v3's in slim, where others have 1 / 6."""
NORMALIZERS = ("batch_norm", "instance_norm")
"""The ops that are a normalization themselves."""


@dataclass(frozen=True)
class Node:
    """One layer of a graph.

    op: the name of the function here that recorded it, or `input` for the images.
    inputs: the nodes that it takes, by their numbers in the graph.
    scope: its scope relative to the model's. What has no scope of its own (`add`, `concat`) has that in which it is.
    channels: the size of its output's last axis.
    stride: the sides of the images over those of its map; None where there is no map any more.
    attributes: everything else that decides on what it computes, as JSON values, with tuples for lists.
    """

    op: str
    inputs: tuple[int, ...]
    scope: str
    channels: int
    stride: Sides | None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def normalizer(self) -> Mapping[str, Any] | None:
        """The `epsilon`, `scale`, `center` and `decay` of the layer's BatchNorm, or of the layer that normalizes."""
        return self.attributes if self.op in NORMALIZERS else self.attributes.get("normalizer")

    @property
    def settings(self) -> dict[str, Any]:
        """The attributes without what is said of the variables: where they come from, and whose they are."""
        said = ("source", "source_scope", "shares")
        return {name: value for name, value in self.attributes.items() if name not in said}

    @property
    def activation(self) -> str | None:
        """The name of the activation behind the layer, a key of `ACTIVATIONS`."""
        found: Activation | None = self.attributes.get("activation")
        return found if found is None or isinstance(found, str) else found[0]

    def window(self, sides: Sides) -> Sides:
        """The kernel of a pooling, over a map of these sides."""
        height, width = self.attributes["kernel_size"]
        if self.attributes["clipped"] == "square":
            return sides if sides[0] == sides[1] else (height, width)
        return (min(height, sides[0]), min(width, sides[1])) if self.attributes["clipped"] else (height, width)

    @property
    def activation_numbers(self) -> tuple[float, ...]:
        """The activation's own numbers, where they are not the usual ones: a slope, a limit."""
        found: Activation | None = self.attributes.get("activation")
        return () if found is None or isinstance(found, str) else found[1:]


class Input(NamedTuple):
    """An input of a network: its name, and its shape as in TensorFlow, None where any size will do."""

    name: str
    shape: tuple[int | None, ...]

    @property
    def is_images(self) -> bool:
        """Whether it is [batch, height, width, channels]."""
        return len(self.shape) == 4


class Output(NamedTuple):
    """An output of a network by its name."""

    name: str
    node: int


class Source(NamedTuple):
    """Where a variable comes from: `array.transpose(permutation).reshape(the variable's shape)` of another one.

    name: of TensorFlow's variable or constant.
    shape: its own, where it is not the variable's.
    permutation: of its axes, where there is one.
    """

    name: str
    shape: Shape | None = None
    permutation: tuple[int, ...] | None = None


class EndPoint(NamedTuple):
    """A name in slim's `end_points`.

    scoped: whether slim puts the model's scope before it.
    """

    name: str
    node: int
    scoped: bool


@dataclass(frozen=True)
class Graph:
    """A recorded network.

    nodes: in the order in which they were recorded, which is one in which they can run; the first is the images, or
      the first of several inputs.
    end_points: in slim's order.
    parts: the scopes that the definition opened, each before those within it.
    output: the node whose value is the network's, the first one of several.
    features: the node of the last map, which the head of the network takes; None where no one said so.
    classifier: the scope of the layer that makes the logits.
    outputs: the outputs by name, where they have one; the first is `output`.
    """

    nodes: tuple[Node, ...]
    end_points: tuple[EndPoint, ...]
    parts: tuple[str, ...]
    output: int
    features: int | None = None
    classifier: str | None = None
    outputs: tuple[Output, ...] = ()

    @property
    def inputs(self) -> tuple[int, ...]:
        """The nodes that are inputs."""
        return tuple(index for index, node in enumerate(self.nodes) if node.op == "input")

    @property
    def output_nodes(self) -> tuple[int, ...]:
        """The nodes of all outputs, each once."""
        return tuple(dict.fromkeys((self.output, *(output.node for output in self.outputs))))

    @cached_property
    def variables(self) -> dict[str, Shape]:
        """Every model variable with its shape (kernels HWIO), in the order in which slim creates them."""
        return {name: shape for node in self.nodes for name, shape in self.variables_of(node)}

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The name of each variable in the TensorFlow graph that the network comes from; slim's are as here."""
        found: dict[str, Source] = {}
        for node in self.nodes:
            given, original = node.attributes.get("source", {}), node.attributes.get("source_scope", node.scope)
            for name, _ in self.variables_of(node):
                leaf = name.removeprefix(f"{_variable_scope(node)}/")
                found.setdefault(name, Source(*given[leaf]) if leaf in given else Source(scoped(original, leaf)))
        return found

    def variables_of(self, node: Node) -> Iterator[tuple[str, Shape]]:
        """The variables of one layer: its kernel, its biases and those of its BatchNorm."""
        scope, depth = _variable_scope(node), node.channels
        for leaf, shape in self._kernels_of(node):
            yield f"{scope}/{leaf}", shape
        if node.attributes.get("biases"):
            yield f"{scope}/biases", (depth,)
        if (norm := node.normalizer) is not None:
            scope = scope if node.op in NORMALIZERS else f"{scope}/BatchNorm"
            moving = node.op != "instance_norm" and norm.get("moving", True)
            leaves = {"gamma": norm["scale"], "beta": norm["center"], "moving_mean": moving, "moving_variance": moving}
            for leaf in (leaf for leaf, there in leaves.items() if there):
                yield f"{scope}/{leaf}", (depth,)

    def _kernels_of(self, node: Node) -> Iterator[tuple[str, Shape]]:
        a, depth = node.attributes, node.channels
        depth_in = self.nodes[node.inputs[0]].channels if node.inputs else 0
        kernel = a.get("kernel_size", ())
        if node.op == "conv2d":
            yield "weights", (*kernel, depth_in // a.get("groups", 1), depth)
        elif node.op == "conv2d_transpose":
            yield "weights", (*kernel, depth, depth_in)
        elif node.op == "separable_conv2d":
            yield "depthwise_weights", (*kernel, depth_in, a["depth_multiplier"])
            if a["pointwise"]:
                yield "pointwise_weights", (1, 1, depth_in * a["depth_multiplier"], depth)
        elif node.op == "fully_connected":
            yield "weights", (depth_in, depth)
        elif node.op == "prelu":
            yield "weights", (1 if a["shared"] else depth,)
        elif node.op in ("variable", "stored_constant"):
            yield "value", a["shape"]

    def end_point_names(self, scope: str) -> dict[str, EndPoint]:
        """The end points by the names that slim gives them where the network is under `scope`."""
        return {scoped(scope, point.name) if point.scoped else point.name: point for point in self.end_points}

    def depth_in(self, scope: str) -> int:
        """The channels that the layer of a scope takes."""
        return next(self.nodes[node.inputs[0]].channels for node in self.nodes if node.scope == scope)

    def needed_by(self, index: int) -> frozenset[int]:
        """The nodes that a node's value depends on, itself included."""
        needed: set[int] = set()
        pending = [index]
        while pending:
            if (index := pending.pop()) not in needed:
                needed.add(index)
                pending.extend(self.nodes[index].inputs)
        return frozenset(needed)

    def up_to(self, name: str) -> Graph:
        """The part of the graph that ends at an end point, which is its output and its last map.

        Raises:
          ValueError: there is no such end point.
        """
        ends = {point.name: point.node for point in self.end_points}
        if name not in ends:
            nearest = difflib.get_close_matches(name, ends, 3, 0.0)
            raise ValueError(f"no end point is named {name!r}; the nearest: {', '.join(nearest)}")
        kept = sorted(self.needed_by(ends[name]))
        number = {old: new for new, old in enumerate(kept)}
        nodes = [replace(self.nodes[i], inputs=tuple(number[j] for j in self.nodes[i].inputs)) for i in kept]
        last = number[ends[name]]
        return Graph(
            nodes=tuple(nodes),
            end_points=tuple(p._replace(node=number[p.node]) for p in self.end_points if p.node in number),
            parts=tuple(part for part in self.parts if any(node.scope.startswith(f"{part}/") for node in nodes)),
            output=last,
            features=last,
        )

    @cached_property
    def needed(self) -> frozenset[int]:
        """The nodes that the outputs depend on, themselves included."""
        return frozenset().union(*map(self.needed_by, self.output_nodes))

    @cached_property
    def scopes_needed(self) -> tuple[frozenset[str], ...]:
        """For each node, the scopes of the variables that its value depends on."""
        found: list[frozenset[str]] = []
        for node in self.nodes:
            own = (name.rpartition("/")[0] for name, _ in self.variables_of(node))
            found.append(frozenset(own).union(*(found[index] for index in node.inputs)))
        return tuple(found)

    @cached_property
    def branches(self) -> tuple[int, ...]:
        """The last nodes of what has variables and the output does not need: auxiliary heads."""
        taken = {index for node in self.nodes for index in node.inputs}
        ends = (index for index in range(len(self.nodes)) if index not in taken and index not in self.needed)
        own = ((end, self.needed_by(end) - self.needed) for end in ends)
        return tuple(end for end, nodes in own if any(any(self.variables_of(self.nodes[i])) for i in nodes))

    def to_json(self) -> dict[str, Any]:
        """The graph as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Graph:
        """The inverse of `to_json`, of what a JSON file made of it too.

        Raises:
          ValueError: something is missing, or of another kind.
        """
        try:
            nodes = tuple(
                Node(**{**node, "attributes": _tuples(node["attributes"])}) for node in _tuples(data["nodes"])
            )
            end_points = tuple(EndPoint(*point) for point in data["end_points"])
            outputs = tuple(Output(*output) for output in data.get("outputs", ()))
            known = {"nodes": nodes, "end_points": end_points, "parts": tuple(data["parts"]), "outputs": outputs}
            return cls(**{**data, **known})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the graph of a network: {error!r}") from error


def scoped(scope: str, name: str) -> str:
    """`name` under `scope`; an empty scope adds nothing."""
    return f"{scope}/{name}" if scope else name


def _variable_scope(node: Node) -> str:
    """The scope of a layer's variables: that of another layer, where it shares them."""
    return str(node.attributes.get("shares", node.scope))


def _tuples(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_tuples, value))
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, dict) else value
