"""The sides of a graph's maps for images of one size. No framework is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from slimport.graph import Graph, Node, Sides
from slimport.sizes import evaluate

_KEPT = frozenset(
    ("activation", "add", "batch_norm", "bias_add", "cast", "concat", "dropout", "elementwise", "instance_norm")
) | {"l2_normalize", "lrn", "multiply", "pad_channels", "prelu", "scale", "softmax"}
"""The ops whose output has the sides of the largest of its inputs."""


def map_sides(graph: Graph, image: Sides) -> list[Sides | None]:
    """Height and width of the output of each node; None where it has none, or where they are not followed.

    Args:
      image: height and width of the images, which all inputs are.
    """
    found: list[Sides | None] = []
    for node in graph.nodes:
        inputs = [found[index] for index in node.inputs]
        found.append(image if node.op == "input" else _sides(node, inputs))
    return found


def pooled_whole(graph: Graph) -> frozenset[int]:
    """The nodes of clipped pools that have to give a map of 1x1, as what is squeezed is, whatever size images have."""
    found, seen = set[int](), set[int]()
    pending = [index for node in graph.nodes if node.op == "squeeze" for index in node.inputs]
    while pending:
        index = pending.pop()
        node = graph.nodes[index]
        if node.attributes.get("clipped"):
            found.add(index)
        elif node.op != "mean" and index not in seen:
            # Behind a mean of the whole map, any map will do.
            seen.add(index)
            pending += node.inputs
    return frozenset(found)


def _sides(node: Node, inputs: Sequence[Sides | None]) -> Sides | None:
    known = [sides for sides in inputs if sides is not None]
    if not known or len(known) < len(inputs):
        return None
    if node.op in _KEPT:
        return max(known)
    if node.op == "mean" or (node.op == "reduce" and _is_mean(node)):
        return 1, 1
    if node.op == "resize":
        return _resized(node, known)
    if node.op in _FOLLOWED:
        return _FOLLOWED[node.op](node, known[0])
    if "strides" in node.attributes and "padding" in node.attributes and "output_size" not in node.attributes:
        return _window(node, known[0])
    return None


def _is_mean(node: Node) -> bool:
    return node.attributes["axes"] in ((1, 2), (-3, -2)) and bool(node.attributes["keep_dims"])


def _window(node: Node, sides: Sides) -> Sides:
    a = node.attributes
    kernel = node.window(sides) if "clipped" in a else a["kernel_size"]
    padding = a["padding"]
    reached = []
    for axis, (side, size, stride) in enumerate(zip(sides, kernel, a["strides"], strict=True)):
        extent = a.get("rate", (1, 1))[axis] * (size - 1) + 1
        if padding == "SAME":
            reached.append(-(-side // stride))
        else:
            zeros = 0 if padding == "VALID" else sum(padding[axis])
            reached.append((side + zeros - extent) // stride + 1)
    return reached[0], reached[1]


def _resized(node: Node, inputs: Sequence[Sides]) -> Sides:
    size, factor = node.attributes["size"], node.attributes["factor"]
    if size is None:
        return inputs[0][0] * factor[0], inputs[0][1] * factor[1]
    # Of the images' batch and channels, no side depends.
    height, width = (int(evaluate(side, lambda index, axis: (0, *inputs[index], 0)[axis])) for side in size)
    return height, width


def _padded(node: Node, sides: Sides) -> Sides | None:
    paddings = node.attributes["paddings"]
    if len(paddings) != 4 or not all(isinstance(side, int) for pair in paddings for side in pair):
        return None
    return sides[0] + sum(paddings[1]), sides[1] + sum(paddings[2])


def _sliced(node: Node, sides: Sides) -> Sides | None:
    slices = (*node.attributes["slices"], None, None, None)[1:3]
    if node.attributes["shrink"]:
        return None
    reached = []
    for side, taken in zip(sides, slices, strict=True):
        if taken is not None and any(isinstance(bound, tuple) for bound in taken):
            return None
        reached.append(len(range(side)[slice(*taken)]) if taken is not None else side)
    return reached[0], reached[1]


_FOLLOWED: dict[str, Callable[[Node, Sides], Sides | None]] = {"pad": _padded, "strided_slice": _sliced}
