"""ResNet v2. Source: `research/slim/nets/resnet_v2.py` in tensorflow/models; arXiv:1603.05027."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from slimport.spec.network import Shape, batch_norm, conv
from slimport.spec.resnet import BOTTLENECK_BLOCKS, Block, PlacedUnit, ResNet, UnitKind, bottleneck_block

resnet_v2_block = bottleneck_block


@dataclass(frozen=True)
class ResNetV2(ResNet):
    """A ResNet v2 (full preactivation), any number of blocks and units. See `ResNet`."""

    family: ClassVar[str] = "resnet_v2"
    title: ClassVar[str] = "ResNet v2"
    landmark: ClassVar[str] = "bottleneck_v2 units"
    preprocessing = "inception"
    background: ClassVar[bool] = True
    kinds: ClassVar[tuple[UnitKind, ...]] = (UnitKind("bottleneck_v2"),)
    preactivation: ClassVar[bool] = True
    depths: ClassVar[dict[str, tuple[Block, ...]]] = {
        f"resnet_v2_{depth}": blocks for depth, blocks in BOTTLENECK_BLOCKS.items()
    }

    def unit_variables(self, unit: PlacedUnit) -> Iterator[tuple[str, Shape]]:
        inner = unit.depth_bottleneck
        yield from batch_norm(f"{unit.scope}/preact", unit.depth_in)
        if unit.projects:
            yield from conv(f"{unit.scope}/shortcut", 1, unit.depth_in, unit.depth)
        yield from conv(f"{unit.scope}/conv1", 1, unit.depth_in, inner, normalized=True)
        yield from conv(f"{unit.scope}/conv2", 3, inner, inner, normalized=True)
        yield from conv(f"{unit.scope}/conv3", 1, inner, unit.depth)
