"""MobileNet v2. Source: `research/slim/nets/mobilenet/mobilenet_v2.py` in tensorflow/models; arXiv:1801.04381."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import ClassVar

from slimport.graph import Shape, Tensor
from slimport.networks.mobilenet import Block, Conv, Layer, MobileNet

# Table 2 of arXiv:1801.04381: expansion, depth, repetitions, and the stride of the first of them.
_ROWS = ((0, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_LAYERS: tuple[Layer, ...] = (
    Conv(3, 32, 2),
    *(
        Block(3, expansion, depth, stride)
        for expansion, depth, repetitions, first in _ROWS
        for stride in (first, *repeat(1, repetitions - 1))
    ),
    Conv(1, 1280),
)


@dataclass(frozen=True)
class MobileNetV2(MobileNet):
    """A MobileNet v2; its last layer is never narrower than at a multiplier of 1 in the fine-grained mode."""

    family: ClassVar[str] = "mobilenet_v2"
    title: ClassVar[str] = "MobileNet v2"
    signature: ClassVar[str] = "expanded_conv/project and expanded_conv_1/expand"
    layers: ClassVar[tuple[Layer, ...]] = _LAYERS
    default_scope = "MobilenetV2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth_multiplier > 1:
            object.__setattr__(self, "finegrain_classification_mode", False)

    @classmethod
    def named(cls) -> dict[str, MobileNetV2]:
        """The releases narrower than 1 are fine-grained, as slim's functions are."""
        multipliers = {"": 1.0, "_140": 1.4, "_130": 1.3, "_075": 0.75, "_050": 0.5, "_035": 0.35}
        return {
            f"mobilenet_v2{name}": cls(1001, depth_multiplier=by, finegrain_classification_mode=by < 1)
            for name, by in multipliers.items()
        }

    def define(
        self,
        images: Tensor,
        *,
        output_stride: int | None = None,
        dropout_keep_prob: float = 0.8,
        use_explicit_padding: bool = False,
    ) -> Tensor:
        """As of every MobileNet.

        Args:
          use_explicit_padding: whether a strided convolution is padded as one of stride 1 is.
        """
        return self.whole(images, output_stride, dropout_keep_prob, use_explicit_padding)

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        return scopes(names)

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> MobileNetV2:
        return cls().fitted(shapes)


def scopes(names: Iterable[str]) -> list[str]:
    """Where there are inverted residuals, the first of which is not expanded."""
    names = set(names)
    pattern = re.compile(r"^((?:.*/)?)expanded_conv_1/expand/weights$")
    found = {match[1] for name in names if (match := pattern.match(name))}
    return sorted(prefix.rstrip("/") for prefix in found if f"{prefix}expanded_conv/project/weights" in names)
