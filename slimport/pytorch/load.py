"""A network from its description, or from a converted file that carries one."""

from __future__ import annotations

import importlib
import json
import os
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file

from slimport import spec
from slimport.pytorch.network import Network


def build(network: spec.Network, **arguments: Any) -> Network:
    """The port of a network description; `arguments` are those of the family's class (`ResNetV2`, say)."""
    port = importlib.import_module(f"slimport.pytorch.{network.family}")
    model: Network = port.build(network, **arguments)
    return model


def load(path: str | os.PathLike[str], **arguments: Any) -> Network:
    """The model in a `.safetensors` file that slimport wrote, in eval mode.

    Args:
      path: the file.
      arguments: of the family's class, to run the same weights otherwise (`global_pool=False`, `output_stride=8`).

    Raises:
      ValueError: the file's metadata does not describe a network.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if "slimport" not in metadata:
        raise ValueError(f"{os.fspath(path)}: no 'slimport' entry in the metadata, so the network is not known")
    description = json.loads(metadata["slimport"])
    arguments.setdefault("scope", description["scope"])
    model = build(spec.from_json(description["network"]), **arguments)
    state = load_file(path)
    model.to(next(iter(state.values())).dtype)
    model.load_state_dict(state)
    return model.eval()
