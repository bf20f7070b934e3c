"""A network from its description."""

from __future__ import annotations

import importlib
from typing import Any

from slimport import spec


def build(network: spec.Network, **arguments: Any) -> Any:
    """The `keras.Model` of a network description; `arguments` are those of the family's module's `build`."""
    return importlib.import_module(f"slimport.keras.{network.family}").build(network, **arguments)
