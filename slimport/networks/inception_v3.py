"""Inception v3. Source: `research/slim/nets/inception_v3.py` in tensorflow/models; arXiv:1512.00567."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from slimport import graph
from slimport.graph import Tensor, arg_scope, avg_pool2d, conv2d, scope
from slimport.networks.inception import HeadArguments, InceptionWithAuxiliary, point

_STEM = (
    "Conv2d_1a_3x3 32 /2 VALID, Conv2d_2a_3x3 32 VALID, Conv2d_2b_3x3 64, MaxPool_3a_3x3 /2 VALID, "
    "Conv2d_3b_1x1 80 VALID, Conv2d_4a_3x3 192 VALID, MaxPool_5a_3x3 /2 VALID"
)


def _35x35(first: str, second: str, pool_depth: int) -> tuple[str, ...]:
    return (
        "Conv2d_0a_1x1 64",
        f"{first} 48, {second} 64",
        "Conv2d_0a_1x1 64, Conv2d_0b_3x3 96, Conv2d_0c_3x3 96",
        f"AvgPool_0a_3x3, Conv2d_0b_1x1 {pool_depth}",
    )


def _17x17(depth: int) -> tuple[str, ...]:
    return (
        "Conv2d_0a_1x1 192",
        f"Conv2d_0a_1x1 {depth}, Conv2d_0b_1x7 {depth}, Conv2d_0c_7x1 192",
        f"Conv2d_0a_1x1 {depth}, Conv2d_0b_7x1 {depth}, Conv2d_0c_1x7 {depth}, "
        f"Conv2d_0d_7x1 {depth}, Conv2d_0e_1x7 192",
        "AvgPool_0a_3x3, Conv2d_0b_1x1 192",
    )


def _8x8(high: str) -> tuple[str, ...]:
    return (
        "Conv2d_0a_1x1 320",
        f"Conv2d_0a_1x1 384, Conv2d_0b_1x3 384 | {high} 384",
        "Conv2d_0a_1x1 448, Conv2d_0b_3x3 384, Conv2d_0c_1x3 384 | Conv2d_0d_3x1 384",
        "AvgPool_0a_3x3, Conv2d_0b_1x1 192",
    )


# The odd names are slim's own: some of Mixed_5c, one of Mixed_7b, and two 3x3 convolutions of Mixed_6a.
_BLOCKS = {
    "Mixed_5b": _35x35("Conv2d_0a_1x1", "Conv2d_0b_5x5", 32),
    "Mixed_5c": _35x35("Conv2d_0b_1x1", "Conv_1_0c_5x5", 64),
    "Mixed_5d": _35x35("Conv2d_0a_1x1", "Conv2d_0b_5x5", 64),
    "Mixed_6a": (
        "Conv2d_1a_1x1 384 3x3 /2 VALID",
        "Conv2d_0a_1x1 64, Conv2d_0b_3x3 96, Conv2d_1a_1x1 96 3x3 /2 VALID",
        "MaxPool_1a_3x3 /2 VALID",
    ),
    "Mixed_6b": _17x17(128),
    "Mixed_6c": _17x17(160),
    "Mixed_6d": _17x17(160),
    "Mixed_6e": _17x17(192),
    "Mixed_7a": (
        "Conv2d_0a_1x1 192, Conv2d_1a_3x3 320 /2 VALID",
        "Conv2d_0a_1x1 192, Conv2d_0b_1x7 192, Conv2d_0c_7x1 192, Conv2d_1a_3x3 192 /2 VALID",
        "MaxPool_1a_3x3 /2 VALID",
    ),
    "Mixed_7b": _8x8("Conv2d_0b_3x1"),
    "Mixed_7c": _8x8("Conv2d_0c_3x1"),
}


@dataclass(frozen=True)
class InceptionV3(InceptionWithAuxiliary):
    """An Inception v3, whose auxiliary head takes a part of larger maps: its kernel is 5x5 at most."""

    family: ClassVar[str] = "inception_v3"
    title: ClassVar[str] = "Inception v3"
    signature: ClassVar[str] = "Mixed_5c/Branch_1/Conv_1_0c_5x5"
    marks: ClassVar[tuple[str, ...]] = (signature, "Mixed_7b/Branch_1/Conv2d_0b_3x1")
    classifier: ClassVar[str] = "Logits/Conv2d_1c_1x1"
    name = "inception_v3"
    default_scope = "InceptionV3"

    @classmethod
    def named(cls) -> dict[str, InceptionV3]:
        return {"inception_v3": cls(1001)}

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
          global_pool: whether features of any size are averaged; otherwise the map is pooled 8x8.
          spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map.
          dropout_keep_prob: the probability that a feature is kept, in training.
        """
        with self.settings():
            net, mixed = self.points(images, _STEM), {}
            for name, branches in _BLOCKS.items():
                net = mixed[name] = self.mixed(net, name, branches)
            graph.features(net)
            if self.has_auxiliary:
                self._auxiliary(mixed["Mixed_6e"], spatial_squeeze)
            head = HeadArguments(global_pool, spatial_squeeze, dropout_keep_prob)
            return self.convolved_logits(net, 8, head, mean="GlobalPool")

    def _auxiliary(self, net: Tensor, spatial_squeeze: bool) -> None:
        with scope("AuxLogits"):
            net = avg_pool2d(net, 5, 3, scope="AvgPool_1a_5x5")
            net = conv2d(net, self.depth(128), 1, scope="Conv2d_1b_1x1")
            name = "Conv2d_2a_{}x{}".format(*self.aux_kernel_size)
            with arg_scope([conv2d], padding="VALID", initializer=("truncated_normal", 0.01)):
                net = conv2d(net, self.depth(768), self.aux_kernel_size, scope=name)
            with arg_scope([conv2d], normalizer=None, activation=None, initializer=("truncated_normal", 0.001)):
                net = conv2d(net, self.num_classes or 0, 1, scope="Conv2d_2b_1x1")
            if spatial_squeeze:
                net = graph.squeeze(net, scope="SpatialSqueeze")
        point(net, "AuxLogits")
