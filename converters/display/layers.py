"""A network as a table of layers, for the terminal and as a picture on a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from converters.files import atomic
from converters.inspection import Inspection
from slimport.graph import Graph, Node

_HEADINGS = ("layer", "kernel", "stride", "channels", "parameters", "then", "scope", "from")
_ROW, _LANE, _MARGIN = 26, 16, 12
"""Of the picture, in pixels: the height of a row, the distance between lanes, and the space before the first."""


class Layer(NamedTuple):
    """A row of the table: a node of the graph in words; `origin` names its variables where the file has other names."""

    layer: str
    kernel: str
    stride: str
    channels: str
    parameters: str
    then: str
    scope: str
    origin: str


def layers(graph: Graph) -> list[Layer]:
    """The nodes of a graph, in the order in which they run."""
    return [_layer(graph, node) for node in graph.nodes]


def table(graph: Graph) -> list[tuple[str, ...]]:
    """The headings and the rows, without the last column where all variables have the layers' names."""
    found = layers(graph)
    columns = len(_HEADINGS) if any(row.origin for row in found) else len(_HEADINGS) - 1
    return [row[:columns] for row in (_HEADINGS, *found)]


def text(graph: Graph) -> Iterator[str]:
    """Yields the lines of the table."""
    rows = table(graph)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


class Edge(NamedTuple):
    """A line of the picture, from a node to one that takes its output: the nodes' numbers and lanes."""

    start: int
    start_lane: int
    end: int
    end_lane: int

    @property
    def path(self) -> str:
        """The line as an SVG path: down its own lane, then over to the other node's."""
        (x, y), (to_x, to_y) = centre(self.start, self.start_lane), centre(self.end, self.end_lane)
        return f"M{x} {y}V{to_y - _ROW}C{x} {to_y - _ROW // 2} {to_x} {to_y - _ROW // 2} {to_x} {to_y}"


def centre(row: int, lane: int) -> tuple[int, int]:
    """Where a node is in the picture, in pixels."""
    return _MARGIN + lane * _LANE, row * _ROW + _ROW // 2


def lanes(graph: Graph) -> list[int]:
    """A lane for each node, so that no line crosses a node: a lane is taken until the last node that needs it."""
    last_use = list(range(len(graph.nodes)))
    for index, node in enumerate(graph.nodes):
        for before in node.inputs:
            last_use[before] = index
    found: list[int] = []
    taken: dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        for before in node.inputs:
            if last_use[before] == index:
                taken.pop(found[before], None)
        inherited = (found[before] for before in node.inputs if found[before] not in taken)
        lane = next(inherited, None)
        lane = next(free for free in range(len(taken) + 1) if free not in taken) if lane is None else lane
        taken[lane] = index
        found.append(lane)
    return found


def edges(graph: Graph) -> list[Edge]:
    """The lines of the picture."""
    lane = lanes(graph)
    return [
        Edge(before, lane[before], index, lane[index])
        for index, node in enumerate(graph.nodes)
        for before in node.inputs
    ]


def write(found: Inspection, graph: Graph, path: Path) -> None:
    """Writes the page, which appears whole or not at all and loads nothing from anywhere.

    Raises:
      InputError: Jinja is not installed, or `path` cannot be written.
    """
    lane = lanes(graph)
    headings, *_ = table(graph)
    # With the parity check, which `inspect` can do without.
    from converters.display.page import template

    rendered = template("layers.html").render(
        found=found,
        graph=graph,
        headings=headings,
        rows=layers(graph),
        points=[centre(index, lane[index]) for index in range(len(lane))],
        edges=edges(graph),
        width=2 * _MARGIN + max(lane) * _LANE,
        row_height=_ROW,
        outputs=set(graph.output_nodes),
        details=[*ends(found), *(("note", note) for note in (found.recognition.notes() if found.recognition else ()))],
    )
    with atomic(path) as temporary:
        temporary.write_text(rendered, encoding="utf-8")


def _layer(graph: Graph, node: Node) -> Layer:
    a = node.attributes
    parameters = sum(math.prod(shape) for _, shape in graph.variables_of(node)) if "shares" not in a else 0
    name = "depthwise_conv2d" if a.get("pointwise") is False else str(a.get("function", node.op))
    return Layer(
        name + (" (shared)" if "shares" in a else ""),
        _sides(a.get("kernel_size")),
        _sides(a.get("strides")),
        str(node.channels or ""),
        f"{parameters:,}" if parameters else "",
        ", ".join(_then(node)),
        node.scope or a.get("name", "images"),
        ", ".join(_origin(graph, node)),
    )


def _origin(graph: Graph, node: Node) -> Iterator[str]:
    """The file's names of a layer's variables, those that are not the layer's own."""
    for name, _ in graph.variables_of(node) if "shares" not in node.attributes else ():
        if (source := graph.sources[name].name) != name:
            yield source


def _then(node: Node) -> Iterator[str]:
    """What else the layer does."""
    a = node.attributes
    if a.get("rate", (1, 1)) != (1, 1):
        yield f"rate {_sides(a['rate'])}"
    if a.get("padding", "SAME") != "SAME":
        yield str(a["padding"]) if isinstance(a["padding"], str) else f"padding {a['padding']}".replace("'", "")
    if a.get("groups", 1) != 1:
        yield f"{a['groups']} groups"
    if a.get("biases"):
        yield "biases"
    if (norm := node.normalizer) is not None:
        yield f"{'' if norm is a else 'BatchNorm '}epsilon {norm['epsilon']:g}"
    if node.activation:
        yield " ".join([node.activation, *(f"{number:g}" for number in node.activation_numbers)])


def _sides(sides: Sequence[int] | None) -> str:
    return "" if sides is None else "x".join(map(str, sides))


def ends(found: Inspection) -> Iterator[tuple[str, str]]:
    """Yields what the user's graph says of the network's ends: (label, text)."""
    user = found.recognition.graph if found.recognition else None
    if user is None:
        return
    for label, tensors in (("input", user.inputs), ("output", user.outputs)):
        for name, tensor in tensors.items():
            yield label, name if tensor.removesuffix(":0") == name else f"{name}, the graph's {tensor}"


def network_graph(found: Inspection) -> Graph | None:
    """The graph of the inspected network; None if there is no one network."""
    recognition = found.recognition
    if recognition is None:
        return None
    arguments: dict[str, Any] = {**found.description.get("arguments", {}), **recognition.arguments}
    return recognition.network.graph(**arguments)
