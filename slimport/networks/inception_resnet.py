"""Shared by the Inception-ResNets: residual blocks, and how many of them there are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from slimport import graph
from slimport.graph import Activation, Shape, Tensor, add, concat, conv2d, scope
from slimport.names import part_number
from slimport.networks.inception import Inception, checked_repeats

Scales = tuple[float, float, float]
"""Of the residuals of `block35`, `block17` and `block8`, before they are added to the map."""


@dataclass(frozen=True)
class InceptionResNet(Inception):
    """An Inception-ResNet.

    Args:
      repeats: how many of each block there are: `block35`, `block17`, and `block8` before the last, `Block8`.
    """

    prefix: ClassVar[str] = ""
    """The scope of its convolutions within the network's."""
    blocks: ClassVar[Mapping[str, Sequence[str]]]
    """The branches of `block35`, `block17` and `block8`."""

    repeats: tuple[int, int, int] = (10, 20, 9)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "repeats", checked_repeats(self.repeats))

    def repeated(self, net: Tensor, block: str, scale: float, activation: Activation) -> Tensor:
        """`slim.repeat` of a block, whose scopes are `Repeat/block35_1` and so on."""
        stage = list(self.blocks).index(block)
        for number in range(1, self.repeats[stage] + 1):
            with scope(f"Repeat_{stage}" if stage else "Repeat"), scope(f"{block}_{number}"):
                net = self.residual(net, block, scale, activation)
        return net

    def residual(self, net: Tensor, block: str, scale: float = 1.0, activation: Activation | None = None) -> Tensor:
        """A block: what its branches add to the map, made as deep as that by biased, not normalized convolution."""
        mixed = concat(*self.branches(net, self.blocks[block]), scope="concat")
        residual = conv2d(mixed, net.channels, 1, normalizer=None, activation=None, scope="Conv2d_1x1")
        if scale != 1:
            residual = graph.scale(residual, scale, scope="mul")
        if activation == "relu6":
            residual = graph.activation(residual, ("clip", -6.0, 6.0), scope="clip_by_value")
        return add(net, residual, activation=activation)

    @classmethod
    def options(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        counts = dict(zip(cls.blocks, cls.repeats, strict=True))
        pattern = re.compile(rf"{cls.prefix}Repeat(?:_[12])?/(block(?:35|17|8))_(\d+)/")
        found: dict[str, int] = {}
        for match in filter(None, map(pattern.match, shapes)):
            found[match[1]] = max(found.get(match[1], 0), part_number(match[2]))
        return {**super().options(shapes), "repeats": tuple((counts | found).values())}
