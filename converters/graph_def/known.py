"""Whether the network of a graph is one that slimport knows, and where it differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from converters.graph_def.network import UserGraph
from slimport.graph import Graph, Node
from slimport.graph_differences import Difference, describe, differences
from slimport.networks import Network

_ARGUMENTS: Mapping[str, tuple[Any, ...]] = {
    "global_pool": (True, False),
    "output_stride": (None, 16, 8),
    "spatial_squeeze": (True, False),
    "fc_conv_padding": ("VALID", "SAME"),
}
"""The arguments of definitions that leave no trace in the variables, with the values that are tried."""
_BEHIND = ("softmax", "squeeze", "reshape", "flatten")


@dataclass(frozen=True)
class Likeness:
    """A known network beside that of a graph.

    arguments: of its definition, those that come nearest.
    node: the node of the graph that is its output.
    differences: what the graph computes otherwise; none where it is the network.
    """

    network: Network
    scope: str
    arguments: Mapping[str, Any]
    node: int
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        return self.network.name + (f", but {describe(self.differences)}" if self.differences else "")


def likeness(user: UserGraph, network: Network, scope: str) -> Likeness:
    """How a graph differs from the network that its variables are recognised as.

    Args:
      network: the network; one without logits is compared up to its features.
      scope: the scope of its variables in the graph.
    """
    graph = _relative(user, scope)
    image = user.network.image_size if len(graph.inputs) == 1 else None
    best: Likeness | None = None
    for arguments in _settings(network):
        known = network.graph(**arguments)
        for node in _outputs(graph):
            found = differences(known, replace(graph, output=node, outputs=()), image)
            if best is None or len(found) < len(best.differences):
                best = Likeness(network, scope, arguments, node, found)
            if not found:
                return best
    assert best is not None
    return best


def _settings(network: Network) -> Iterator[dict[str, Any]]:
    """All arguments that are tried, the usual ones first."""
    tried = [(name, values) for name, values in _ARGUMENTS.items() if name in network.arguments]
    ordered = [
        [network.arguments[name], *(value for value in values if value != network.arguments[name])]
        for name, values in tried
    ]
    choices = [dict(zip((name for name, _ in tried), values, strict=True)) for values in product(*ordered)]
    for chosen in choices:
        try:
            network.graph(**chosen)
        except ValueError:
            continue
        yield {name: value for name, value in chosen.items() if value != network.arguments[name]}


def _relative(user: UserGraph, scope: str) -> Graph:
    """The graph with its scopes as the known network has them."""
    prefix = f"{scope}/" if scope else ""
    own = f"{user.scope}/" if user.scope else ""
    nodes = tuple(
        replace(node, scope=f"{own}{node.scope}".removeprefix(prefix), attributes=_as_written(node))
        for node in user.graph.nodes
    )
    return replace(user.graph, nodes=nodes)


def _as_written(node: Node) -> dict[str, Any]:
    """A node's settings as a definition has them: an epsilon in decimals, and images of any size."""
    if node.op == "input":
        return {}
    found = dict(node.attributes)
    if (norm := node.normalizer) is not None:
        epsilon = float(str(np.float32(norm["epsilon"])))
        if "normalizer" in found:
            found["normalizer"] = {**norm, "epsilon": epsilon}
        else:
            found["epsilon"] = epsilon
    return found


def _outputs(graph: Graph) -> list[int]:
    """The nodes that may be the known network's output: each output, and what is before a softmax."""
    found: dict[int, None] = {}
    for index in graph.output_nodes:
        while True:
            found[index] = None
            node = graph.nodes[index]
            if node.op not in _BEHIND or not node.inputs:
                break
            index = node.inputs[0]
    return list(found)
