"""A network that is a graph of somebody's own: read from a TensorFlow graph, or recorded by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from slimport.graph import Graph, Input, Node, Shape
from slimport.networks.network import Network, Preprocessing, classes

_PASSING = ("activation", "softmax", "log_softmax", "squeeze", "dropout", "scale", "flatten", "multiply", "add")
"""The ops that may follow the logits: they pass the number of classes on, or fail where they cannot."""


_PREPROCESSING = ("scale", "elementwise", "cast", "pad", "resize", "reshape", "reverse", "gather", "transpose")
"""The ops that may come before the first layer."""
_FEWEST = 16


@dataclass(frozen=True)
class GraphNetwork(Network):
    """A network as its graph says, whatever it is.

    recorded: the graph. Its classifier, where it names none, is the layer with variables whose output alone, perhaps
      with a softmax behind it, is the only output of the network, and is no map.
    called: its name, that of the file, say.
    scope: the scope that its variables have in the TensorFlow graph, and that is not in their names here.
    num_classes: the outputs of the classifier, None where there is none.
    """

    family: ClassVar[str] = "graph"
    title: ClassVar[str] = "network of a graph"
    signature: ClassVar[str] = "the graph itself"
    background: ClassVar[bool] = False
    chosen: ClassVar[tuple[str, ...]] = ()

    recorded: Graph
    called: str = "graph"
    scope: str = ""
    num_classes: int | None = field(init=False)
    in_channels: int = field(init=False)

    def __post_init__(self) -> None:
        graph = self.recorded
        if graph.classifier is None:
            object.__setattr__(self, "recorded", replace(graph, classifier=_find_classifier(graph)))
        found = _index(self.recorded, self.recorded.classifier)
        object.__setattr__(self, "num_classes", None if found is None else graph.nodes[found].channels)
        object.__setattr__(self, "in_channels", graph.nodes[0].channels)

    def __hash__(self) -> int:
        return hash((self.called, self.scope, len(self.recorded.nodes)))

    @property
    def name(self) -> str:
        return self.called

    @property
    def default_scope(self) -> str:
        return self.scope

    @property
    def classifier(self) -> str:  # type: ignore[override]
        """The scope of the layer that makes the logits; empty where there is none."""
        return self.recorded.classifier or ""

    @property
    def preprocessing(self) -> Preprocessing:
        """None: a graph does not say."""
        return "none"

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What it takes, in the graph's order."""
        return tuple(_input(self.recorded.nodes[index]) for index in self.recorded.inputs)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """The height and width that the graph was written with; None where any will do, or there are no images."""
        shape = next((one.shape for one in self.inputs if one.is_images), ())
        return (shape[1], shape[2]) if shape and shape[1] and shape[2] else None

    @property
    def takes_pixels(self) -> bool:
        """Whether its images are numbers from 0 to 255: it takes their means away, or divides by about as much."""
        nodes = self.recorded.nodes
        image = {index for index in self.recorded.inputs if _input(nodes[index]).is_images}
        for index, node in enumerate(nodes):
            if node.op in _PREPROCESSING and image & {*node.inputs}:
                image.add(index)
                if _is_of_pixels(node, nodes):
                    return True
        return False

    @property
    def default_image_size(self) -> int:
        """The height that the graph was written with, or slim's usual one."""
        return self.image_size[0] if self.image_size else 224

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in the graph's order; none for a single one without a name."""
        return tuple(output.name for output in self.recorded.outputs)

    @classmethod
    def named(cls) -> dict[str, GraphNetwork]:
        return {}

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:  # noqa: ARG003
        return []

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> GraphNetwork:  # noqa: ARG003
        raise ValueError("a network of a graph is not told by its variables")

    def graph(self, **arguments: Any) -> Graph:
        for name in arguments:
            raise ValueError(f"{self.name} is what its graph says; it has no {name}")
        return self.recorded

    def with_defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.graph(**arguments)
        return {}

    def with_classes(self, num_classes: int | None) -> GraphNetwork:
        """The same network with as many classes, or without the layer of the logits for None or 0.

        Raises:
          ValueError: not a number of classes, or the network has not one classifier.
        """
        num_classes, graph = classes(num_classes), self.recorded
        if (found := _index(graph, graph.classifier)) is None:
            raise ValueError(f"{self.name} has no layer of logits that could be another one")
        if num_classes is None:
            features = graph.nodes[found].inputs[0]
            return replace(self, recorded=_pruned(replace(graph, output=features, outputs=(), classifier="")))
        nodes = list(graph.nodes)
        behind = {found}
        for index in range(found, len(nodes)):
            if index == found or behind.intersection(nodes[index].inputs):
                if index != found and nodes[index].op not in _PASSING:
                    raise ValueError(f"{nodes[index].scope} ({nodes[index].op}) depends on the number of classes")
                behind.add(index)
                nodes[index] = replace(nodes[index], channels=num_classes)
        return replace(self, recorded=replace(graph, nodes=tuple(nodes)))

    def without_auxiliary(self) -> GraphNetwork:
        return replace(self, recorded=_pruned(self.recorded))

    def to_json(self) -> dict[str, Any]:
        graph = self.recorded.to_json()
        return {"family": self.family, "name": self.name, "scope": self.scope, "graph": graph}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GraphNetwork:
        return cls(Graph.from_json(data["graph"]), data["name"], data["scope"])


def _input(node: Node) -> Input:
    a = node.attributes
    shape = a.get("shape", (None, None, None, node.channels))
    return Input(a.get("name", "images"), tuple(shape))


def _index(graph: Graph, scope: str | None) -> int | None:
    """The node of a layer's scope."""
    return next((i for i, node in enumerate(graph.nodes) if scope and node.scope == scope), None)


def _find_classifier(graph: Graph) -> str | None:
    if len(graph.output_nodes) > 1:
        return None
    index = graph.output
    while (node := graph.nodes[index]).op in _PASSING and len(node.inputs) == 1:
        index = node.inputs[0]
    return node.scope if _makes_logits(graph, node) else None


def _makes_logits(graph: Graph, node: Node) -> bool:
    """Whether a layer is fully connected, as a convolution of what is no map any more is, and has no BatchNorm."""
    if node.op not in ("fully_connected", "conv2d") or node.normalizer is not None or "shares" in node.attributes:
        return False
    return graph.nodes[node.inputs[0]].stride is None


def _pruned(graph: Graph) -> Graph:
    """The graph without what its outputs do not need; its inputs stay."""
    kept = [i for i, node in enumerate(graph.nodes) if i in graph.needed or node.op == "input"]
    new = {index: number for number, index in enumerate(kept)}
    nodes = tuple(
        replace(node, inputs=tuple(new[i] for i in node.inputs)) for node in map(graph.nodes.__getitem__, kept)
    )
    scopes = [node.scope for node in nodes]
    return replace(
        graph,
        nodes=nodes,
        end_points=tuple(point._replace(node=new[point.node]) for point in graph.end_points if point.node in new),
        parts=tuple(part for part in graph.parts if any(f"{scope}/".startswith(f"{part}/") for scope in scopes)),
        output=new[graph.output],
        outputs=tuple(output._replace(node=new[output.node]) for output in graph.outputs),
        features=new.get(graph.features) if graph.features is not None else None,
        classifier=graph.classifier if graph.classifier in (None, *scopes) else "",
    )


def _is_of_pixels(node: Node, nodes: Sequence[Node]) -> bool:
    """Whether a node takes numbers of the size of pixels away, or divides by such."""
    if node.op == "scale":
        return bool(abs(node.attributes["offset"]) > _FEWEST or 0 < abs(node.attributes["factor"]) < 1 / _FEWEST)
    constants = [nodes[index].attributes["value"] for index in node.inputs if nodes[index].op == "constant"]
    numbers = [one for one in node.attributes.get("numbers", ()) if one is not None]
    largest: float = max((abs(number) for number in _flat([*constants, *numbers])), default=1)
    function: str = node.attributes.get("function", "")
    return largest > _FEWEST if function in ("subtract", "divide") else function == "multiply" and largest < 1 / _FEWEST


def _flat(value: Any) -> list[float]:
    return [one for part in value for one in _flat(part)] if isinstance(value, list | tuple) else [value]
