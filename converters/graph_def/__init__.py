"""TensorFlow graphs read without TensorFlow: `.meta`, frozen `.pb` and SavedModel, as networks of slim's layers."""

from __future__ import annotations

from converters.graph_def.files import GraphFile, open_graph
from converters.graph_def.network import UserGraph, read_network, unsupported_nodes

__all__ = ["GraphFile", "UserGraph", "open_graph", "read_network", "unsupported_nodes"]
