"""The networks, a file per family: its definition, its named networks, and how it is recognised.

A definition is written in slim's words (`slimport.graph`) and run once, by a recorder. The graph that this makes
contains everything that the ports, the judge and the recogniser must agree on. No framework is imported. Names are
slim's, relative to the model's scope unless a function says otherwise. docs/add_a_network.md shows how a family is
added.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

from slimport.networks.graph_network import GraphNetwork
from slimport.networks.inception_v3 import InceptionV3
from slimport.networks.network import Network
from slimport.networks.resnet import Block, ResNet, Unit, bottleneck_block
from slimport.networks.resnet_v1 import ResNetV1, resnet_v1_block
from slimport.networks.resnet_v1_beta import ResNetV1Beta, lite_block
from slimport.networks.resnet_v2 import ResNetV2, resnet_v2_block
from slimport.networks.vgg import VGG, ConvBlock

__all__ = [
    "FAMILIES",
    "NETWORKS",
    "VGG",
    "Block",
    "ConvBlock",
    "GraphNetwork",
    "InceptionV3",
    "Network",
    "ResNet",
    "ResNetV1",
    "ResNetV1Beta",
    "ResNetV2",
    "Unit",
    "bottleneck_block",
    "from_json",
    "lite_block",
    "resnet_v1_block",
    "resnet_v2_block",
]


def _families() -> Iterator[type[Network]]:
    """The families: of each module here, the class that has named networks."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for described in vars(importlib.import_module(module.name)).values():
            own = isinstance(described, type) and described.__module__ == module.name
            if own and issubclass(described, Network) and not inspect.isabstract(described) and described.named():
                yield described


FAMILIES: dict[str, type[Network]] = {family.family: family for family in _families()}

NETWORKS: dict[str, Network] = {
    name: network for family in FAMILIES.values() for name, network in family.named().items()
}
"""The networks that have a name in slim, by that name, with as many classes as their ImageNet releases."""


def from_json(data: Mapping[str, Any]) -> Network:
    """The network that a `to_json` described.

    Raises:
      ValueError: an unknown family, or a description that lacks something.
    """
    family = data.get("family")
    known: dict[str, type[Network]] = {**FAMILIES, GraphNetwork.family: GraphNetwork}
    if not isinstance(family, str) or family not in known:
        raise ValueError(f"unknown network family {family!r}; this version knows {', '.join(sorted(known))}")
    try:
        return known[family].from_json(data)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the description of the {family} network is not complete: {error!r}") from error
