"""Inception v4. Source: `research/slim/nets/inception_v4.py` in tensorflow/models; arXiv:1602.07261."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any, ClassVar

from slimport import graph
from slimport.graph import Shape, Tensor
from slimport.networks.inception import InceptionWithAuxiliary, checked_repeats

_STEM = "Conv2d_1a_3x3 32 /2 VALID, Conv2d_2a_3x3 32 VALID, Conv2d_2b_3x3 64"
_A = (
    "Conv2d_0a_1x1 96",
    "Conv2d_0a_1x1 64, Conv2d_0b_3x3 96",
    "Conv2d_0a_1x1 64, Conv2d_0b_3x3 96, Conv2d_0c_3x3 96",
    "AvgPool_0a_3x3, Conv2d_0b_1x1 96",
)
_B = (
    "Conv2d_0a_1x1 384",
    "Conv2d_0a_1x1 192, Conv2d_0b_1x7 224, Conv2d_0c_7x1 256",
    "Conv2d_0a_1x1 192, Conv2d_0b_7x1 192, Conv2d_0c_1x7 224, Conv2d_0d_7x1 224, Conv2d_0e_1x7 256",
    "AvgPool_0a_3x3, Conv2d_0b_1x1 128",
)
_C = (
    "Conv2d_0a_1x1 256",
    "Conv2d_0a_1x1 384, Conv2d_0b_1x3 256 | Conv2d_0c_3x1 256",
    "Conv2d_0a_1x1 384, Conv2d_0b_3x1 448, Conv2d_0c_1x3 512, Conv2d_0d_1x3 256 | Conv2d_0e_3x1 256",
    "AvgPool_0a_3x3, Conv2d_0b_1x1 256",
)
_REDUCTIONS = {
    "Mixed_3a": ("MaxPool_0a_3x3 /2 VALID", "Conv2d_0a_3x3 96 /2 VALID"),
    "Mixed_4a": (
        "Conv2d_0a_1x1 64, Conv2d_1a_3x3 96 VALID",
        "Conv2d_0a_1x1 64, Conv2d_0b_1x7 64, Conv2d_0c_7x1 64, Conv2d_1a_3x3 96 VALID",
    ),
    "Mixed_5a": ("Conv2d_1a_3x3 192 /2 VALID", "MaxPool_1a_3x3 /2 VALID"),
    "Mixed_6a": (
        "Conv2d_1a_3x3 384 /2 VALID",
        "Conv2d_0a_1x1 192, Conv2d_0b_3x3 224, Conv2d_1a_3x3 256 /2 VALID",
        "MaxPool_1a_3x3 /2 VALID",
    ),
    "Mixed_7a": (
        "Conv2d_0a_1x1 192, Conv2d_1a_3x3 192 /2 VALID",
        "Conv2d_0a_1x1 256, Conv2d_0b_1x7 256, Conv2d_0c_7x1 320, Conv2d_1a_3x3 320 /2 VALID",
        "MaxPool_1a_3x3 /2 VALID",
    ),
}
_REPEATED = {5: _A, 6: _B, 7: _C}


@dataclass(frozen=True)
class InceptionV4(InceptionWithAuxiliary):
    """An Inception v4. Slim has no `depth_multiplier` and no `repeats` for it: the defaults are slim's.

    Args:
      repeats: how many of each block there are, behind `Mixed_5a`, `Mixed_6a` and `Mixed_7a`.
    """

    family: ClassVar[str] = "inception_v4"
    title: ClassVar[str] = "Inception v4"
    signature: ClassVar[str] = "Mixed_4a/Branch_1/Conv2d_0b_1x7"
    marks: ClassVar[tuple[str, ...]] = (signature,)
    classifier: ClassVar[str] = "Logits/Logits"
    chosen = (*InceptionWithAuxiliary.chosen, "repeats")
    name = "inception_v4"
    default_scope = "InceptionV4"

    repeats: tuple[int, int, int] = (4, 7, 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "repeats", checked_repeats(self.repeats))

    @classmethod
    def named(cls) -> dict[str, InceptionV4]:
        return {"inception_v4": cls(1001)}

    @property
    def blocks(self) -> dict[str, tuple[str, ...]]:
        """The branches of each block, by its scope."""
        found = dict(_REDUCTIONS)
        for (number, branches), repeats in zip(_REPEATED.items(), self.repeats, strict=True):
            found |= {f"Mixed_{number}{letter}": branches for letter in ascii_lowercase[1 : 1 + repeats]}
        return dict(sorted(found.items()))

    def define(self, images: Tensor, *, dropout_keep_prob: float = 0.8) -> Tensor:
        """The network, from images to logits.

        Args:
          dropout_keep_prob: the probability that a feature is kept, in training.
        """
        with self.settings():
            net = before_7a = self.points(images, _STEM)
            for name, branches in self.blocks.items():
                before_7a = net if name == "Mixed_7a" else before_7a
                net = self.mixed(net, name, branches)
            graph.features(net)
            if self.has_auxiliary:
                self.connected_auxiliary(before_7a, "AvgPool_1a_5x5", "Conv2d_2a", "Aux_logits")
            return self.connected_logits(net, "AvgPool_1a", dropout_keep_prob=dropout_keep_prob)

    @classmethod
    def options(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        last: dict[str, str] = {}
        for match in filter(None, map(re.compile(r"Mixed_([567])([b-z])/").match, shapes)):
            last[match[1]] = max(last.get(match[1], ""), match[2])
        counts = zip("567", cls.repeats, strict=True)
        repeats = (ord(last[number]) - ord("a") if number in last else count for number, count in counts)
        return {**super().options(shapes), "repeats": tuple(repeats)}
