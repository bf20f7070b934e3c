"""The networks as data: blocks, units, depths, strides, the atrous schedule, variables and end points.

Everything that the ports, the recogniser and the tests need to agree on is derived here, once. No framework is
imported. Names are slim's, relative to the model's scope unless a function says otherwise.

A family is a `Network` here, with its entry in `FAMILIES`, and one module of the family's name in each of
`slimport.nets`, `slimport.pytorch` and `slimport.keras`; docs/add_a_network.md shows how one is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimport.spec.network import BATCH_NORM_DECAY, BATCH_NORM_EPSILON, VARIABLE_LEAVES, Network, Shape, scoped
from slimport.spec.resnet import Block, PlacedUnit, ResNet, Unit, bottleneck_block
from slimport.spec.resnet_v1 import ResNetV1, resnet_v1_block
from slimport.spec.resnet_v1_beta import ResNetV1Beta, lite_block
from slimport.spec.resnet_v2 import ResNetV2, resnet_v2_block
from slimport.spec.vgg import VGG, ConvBlock

__all__ = [
    "BATCH_NORM_DECAY",
    "BATCH_NORM_EPSILON",
    "FAMILIES",
    "NETWORKS",
    "VARIABLE_LEAVES",
    "VGG",
    "Block",
    "ConvBlock",
    "Network",
    "PlacedUnit",
    "ResNet",
    "ResNetV1",
    "ResNetV1Beta",
    "ResNetV2",
    "Shape",
    "Unit",
    "bottleneck_block",
    "from_json",
    "lite_block",
    "resnet_v1_block",
    "resnet_v2_block",
    "scoped",
]

# Where the variables of one look like those of another, the one that asks for more stands first.
FAMILIES: dict[str, type[Network]] = {family.family: family for family in (ResNetV1Beta, ResNetV1, ResNetV2, VGG)}

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
    if family not in FAMILIES:
        raise ValueError(f"unknown network family {family!r}; this version knows {', '.join(sorted(FAMILIES))}")
    try:
        return FAMILIES[family].from_json(data)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the description of the {family} network is not complete: {error!r}") from error
