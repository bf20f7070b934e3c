"""Inception v1, GoogLeNet. Source: `research/slim/nets/inception_v1.py` in tensorflow/models; arXiv:1409.4842."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from slimport import graph
from slimport.graph import Tensor, avg_pool2d, conv2d, dropout, scope, softmax
from slimport.networks.inception import Inception, point

_STEM = "Conv2d_1a_7x7 64 /2, MaxPool_2a_3x3 /2, Conv2d_2b_1x1 64, Conv2d_2c_3x3 192, MaxPool_3a_3x3 /2"


def _mixed(one: int, three: tuple[int, int], second: tuple[int, int], pool: int, name: str = "0b") -> tuple[str, ...]:
    """The branches; slim's are 3x3 in the third too, which the paper has as 5x5."""
    return (
        f"Conv2d_0a_1x1 {one}",
        f"Conv2d_0a_1x1 {three[0]}, Conv2d_0b_3x3 {three[1]}",
        f"Conv2d_0a_1x1 {second[0]}, Conv2d_{name}_3x3 {second[1]}",
        f"MaxPool_0a_3x3, Conv2d_0b_1x1 {pool}",
    )


_BLOCKS = {
    "Mixed_3b": _mixed(64, (96, 128), (16, 32), 32),
    "Mixed_3c": _mixed(128, (128, 192), (32, 96), 64),
    "MaxPool_4a_3x3": (),
    "Mixed_4b": _mixed(192, (96, 208), (16, 48), 64),
    "Mixed_4c": _mixed(160, (112, 224), (24, 64), 64),
    "Mixed_4d": _mixed(128, (128, 256), (24, 64), 64),
    "Mixed_4e": _mixed(112, (144, 288), (32, 64), 64),
    "Mixed_4f": _mixed(256, (160, 320), (32, 128), 128),
    "MaxPool_5a_2x2": (),
    # The odd name is slim's own.
    "Mixed_5b": _mixed(256, (160, 320), (32, 128), 128, "0a"),
    "Mixed_5c": _mixed(384, (192, 384), (48, 128), 128),
}


@dataclass(frozen=True)
class InceptionV1(Inception):
    """An Inception v1. Slim has no `depth_multiplier` for it: 1 is slim's."""

    family: ClassVar[str] = "inception_v1"
    title: ClassVar[str] = "Inception v1"
    signature: ClassVar[str] = "Mixed_3b without Branch_2/Conv2d_0c_3x3"
    marks: ClassVar[tuple[str, ...]] = ("Mixed_3b/Branch_1/Conv2d_0b_3x3",)
    classifier: ClassVar[str] = "Logits/Conv2d_0c_1x1"
    name = "inception_v1"
    default_scope = "InceptionV1"

    @classmethod
    def named(cls) -> dict[str, InceptionV1]:
        return {"inception_v1": cls(1001)}

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        """Those of an Inception v1 or v2, without v2's."""
        names = list(names)
        v2 = re.compile(r"^(?:(.*)/)?Mixed_3b/Branch_2/Conv2d_0c_3x3/")
        others = {match[1] or "" for match in map(v2.match, names) if match}
        return [found for found in super().scopes(names) if found not in others]

    def define(
        self,
        images: Tensor,
        *,
        global_pool: bool = False,
        spatial_squeeze: bool = True,
        dropout_keep_prob: float = 0.8,
    ) -> Tensor:
        """The network, from images to logits.

        Args:
          global_pool: whether features of any size are averaged; otherwise the map, which must not be smaller, is
            pooled 7x7.
          spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map.
          dropout_keep_prob: the probability that a feature is kept, in training.
        """
        with self.settings(initializer=("truncated_normal", 0.01)):
            net = self.points(images, _STEM)
            for name, branches in _BLOCKS.items():
                net = self.mixed(net, name, branches) if branches else self.points(net, f"{name} /2")
            graph.features(net)
        with scope("Logits"):
            if global_pool:
                net = point(graph.mean(net, scope="global_pool"), "global_pool")
            else:
                net = point(avg_pool2d(net, 7, 1, scope="AvgPool_0a_7x7"), "AvgPool_0a_7x7")
            if not self.num_classes:
                return net
            net = dropout(net, dropout_keep_prob, scope="Dropout_0b")
            net = conv2d(
                net, self.num_classes, 1, activation=None, initializer=graph.VARIANCE_SCALING, scope="Conv2d_0c_1x1"
            )
            if spatial_squeeze:
                net = graph.squeeze(net, scope="SpatialSqueeze")
        point(softmax(point(net, "Logits"), scope="Predictions"), "Predictions")
        return net
