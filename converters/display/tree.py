"""Variables as a tree of their scopes; equal scopes are drawn once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from slimport.graph import Shape

MANY_LINES = 100
"""A tree with more lines is drawn less deep."""

_DEEPEST = 50


@dataclass(frozen=True)
class Leaf:
    """A variable: its shape and its dtype's name."""

    shape: Shape
    dtype: str

    def __str__(self) -> str:
        return f"{list(self.shape)}" if self.dtype == "float32" else f"{list(self.shape)} {self.dtype}"


@dataclass
class Node:
    """A scope, or a variable, or both at once."""

    name: str
    leaf: Leaf | None = None
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def elements(self) -> int:
        """The number of elements in all variables of the scope."""
        own = math.prod(self.leaf.shape) if self.leaf else 0
        return own + sum(child.elements for child in self.children.values())

    @property
    def variables(self) -> int:
        """The number of variables in the scope."""
        return bool(self.leaf) + sum(child.variables for child in self.children.values())

    @property
    def height(self) -> int:
        """0 for a variable, 1 for a scope that contains variables only."""
        return 1 + max((child.height for child in self.children.values()), default=-1)

    @property
    def is_layer(self) -> bool:
        """Whether the scope has variables itself, and at most a normalizer's scope."""
        return self.height <= 2 and any(child.leaf for child in self.children.values())

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for scopes with the same variables, whatever their own names."""
        return self.leaf, *((name, child.signature) for name, child in self.children.items())


@dataclass(frozen=True)
class Line:
    """A line of the tree: the guides before the name, the name, its number of elements, and its content."""

    guides: str
    name: str
    elements: int
    details: str


def grow(variables: Iterable[tuple[str, Leaf]]) -> Node:
    """The nameless root of a tree, its children in the order of the variables."""
    root = Node("")
    for name, leaf in variables:
        node = root
        for part in name.split("/", _DEEPEST):
            node = node.children.setdefault(part, Node(part))
        node.leaf = leaf
    return root


def draw(root: Node, depth: int | None = None) -> list[Line]:
    """The lines of a tree.

    Args:
      root: of the tree, see `grow`.
      depth: levels of scopes; None is all, down to layers, or as many as need no more than `MANY_LINES`.
    """
    if depth is not None:
        return _draw(root, "", depth)
    for level in (None, 4, 3, 2, 1):
        lines = _draw(root, "", level)
        if len(lines) <= MANY_LINES:
            break
    return lines


def _draw(parent: Node, guides: str, depth: int | None, top: bool = True) -> list[Line]:
    if depth == 0:
        return []
    lines = []
    runs = _runs([_merged(child) for child in parent.children.values()])
    for index, run in enumerate(runs):
        last = index == len(runs) - 1
        here, below = ("", "") if top else (("└── ", "    ") if last else ("├── ", "│   "))
        node = run[0]
        elements = node.elements * len(run)
        under = [] if node.is_layer else _draw(node, guides + below, depth and depth - 1, top=False)
        details = _details(node) if not under else ""
        if len(run) > 1:
            each = f"{len(run)} alike, {node.elements:,} each"
            details = f"{each}: {details}" if details else each
        lines.append(Line(guides + here, _run_name(run), elements, details))
        lines += under
    return lines


def _merged(node: Node) -> Node:
    """Merges a scope that contains only one scope with it: `unit_1/bottleneck_v2`."""
    while node.leaf is None and len(node.children) == 1:
        (child,) = node.children.values()
        node = Node(f"{node.name}/{child.name}", child.leaf, child.children)
    return node


def _runs(nodes: Sequence[Node]) -> list[list[Node]]:
    """Groups neighbours that are alike and whose names differ in one number."""
    runs: list[list[Node]] = []
    for node in nodes:
        if runs and not node.leaf and node.signature == runs[-1][0].signature and _follows(runs[-1][-1], node):
            runs[-1].append(node)
        else:
            runs.append([node])
    return runs


_NUMBER = re.compile(r"\d+")
_MOST_DIGITS = 9


def _follows(before: Node, node: Node) -> bool:
    numbers = [_NUMBER.findall(one.name) for one in (before, node)]
    if _NUMBER.sub("#", before.name) != _NUMBER.sub("#", node.name):
        return False
    # Numbers that no layer has are other names, and not counted.
    if any(len(digits) > _MOST_DIGITS for digits in numbers[0] + numbers[1]):
        return False
    steps = [int(b) - int(a) for a, b in zip(*numbers, strict=True)]
    return sorted(steps) == [0] * (len(steps) - 1) + [1]


def _run_name(run: Sequence[Node]) -> str:
    """The names of a group in the shell's notation: `unit_{2..22}/bottleneck_v2`."""
    if len(run) == 1:
        return run[0].name
    first, last = run[0].name, run[-1].name
    for a, b in zip(_NUMBER.finditer(first), _NUMBER.finditer(last), strict=True):
        if a[0] != b[0]:
            return f"{first[: a.start()]}{{{a[0]}..{b[0]}}}{first[a.end() :]}"
    return first


def _details(node: Node) -> str:
    if node.leaf and not node.children:
        return str(node.leaf)
    if not node.is_layer:
        return f"{node.variables} variables"
    groups: dict[str, list[str]] = {}
    for child in node.children.values():
        leaves = [child.leaf, *(grandchild.leaf for grandchild in child.children.values())]
        kinds = {str(leaf) for leaf in leaves if leaf}
        groups.setdefault(kinds.pop() if len(kinds) == 1 else f"({child.variables} variables)", []).append(child.name)
    return ", ".join(f"{', '.join(names)} {kind}" for kind, names in groups.items())
