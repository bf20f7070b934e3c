"""ResNet v1. Source: `research/slim/nets/resnet_v1.py` in tensorflow/models; arXiv:1512.03385."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from slimport.spec.network import Preprocessing, Shape, conv
from slimport.spec.resnet import BOTTLENECK_BLOCKS, Block, PlacedUnit, ResNet, UnitKind, bottleneck_block

resnet_v1_block = bottleneck_block


@dataclass(frozen=True)
class ResNetV1(ResNet):
    """A ResNet v1, any number of blocks and units: every convolution but the logits is normalized. See `ResNet`."""

    family: ClassVar[str] = "resnet_v1"
    title: ClassVar[str] = "ResNet v1"
    landmark: ClassVar[str] = "bottleneck_v1 units"
    background: ClassVar[bool] = False
    kinds: ClassVar[tuple[UnitKind, ...]] = (UnitKind("bottleneck_v1"),)
    preactivation: ClassVar[bool] = False
    depths: ClassVar[dict[str, tuple[Block, ...]]] = {
        f"resnet_v1_{depth}": blocks for depth, blocks in BOTTLENECK_BLOCKS.items()
    }

    @property
    def preprocessing(self) -> Preprocessing:
        return "vgg"

    def unit_variables(self, unit: PlacedUnit) -> Iterator[tuple[str, Shape]]:
        inner = unit.depth_bottleneck
        if unit.projects:
            yield from conv(f"{unit.scope}/shortcut", 1, unit.depth_in, unit.depth, normalized=True)
        yield from conv(f"{unit.scope}/conv1", 1, unit.depth_in, inner, normalized=True)
        yield from conv(f"{unit.scope}/conv2", 3, inner, inner, normalized=True)
        yield from conv(f"{unit.scope}/conv3", 1, inner, unit.depth, normalized=True)
