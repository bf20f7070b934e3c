"""Inception v2. Source: `research/slim/nets/inception_v2.py` in tensorflow/models; arXiv:1502.03167."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from slimport import graph
from slimport.graph import Shape, Tensor, arg_scope, conv2d, separable_conv2d
from slimport.networks.inception import HeadArguments, Inception, point

_STEM = "MaxPool_2a_3x3 /2, Conv2d_2b_1x1 64 ~0.1, Conv2d_2c_3x3 192, MaxPool_3a_3x3 /2"


def _mixed(one: int, three: tuple[int, int], double: tuple[int, int], pool: int, kind: str = "Avg") -> tuple[str, ...]:
    return (
        f"Conv2d_0a_1x1 {one}",
        f"Conv2d_0a_1x1 {three[0]} ~0.09, Conv2d_0b_3x3 {three[1]}",
        f"Conv2d_0a_1x1 {double[0]} ~0.09, Conv2d_0b_3x3 {double[1]}, Conv2d_0c_3x3 {double[1]}",
        f"{kind}Pool_0a_3x3, Conv2d_0b_1x1 {pool} ~0.1",
    )


def _reduction(three: tuple[int, int], double: tuple[int, int]) -> tuple[str, ...]:
    return (
        f"Conv2d_0a_1x1 {three[0]} ~0.09, Conv2d_1a_3x3 {three[1]} /2",
        f"Conv2d_0a_1x1 {double[0]} ~0.09, Conv2d_0b_3x3 {double[1]}, Conv2d_1a_3x3 {double[1]} /2",
        "MaxPool_1a_3x3 /2",
    )


_BLOCKS = {
    "Mixed_3b": _mixed(64, (64, 64), (64, 96), 32),
    "Mixed_3c": _mixed(64, (64, 96), (64, 96), 64),
    "Mixed_4a": _reduction((128, 160), (64, 96)),
    "Mixed_4b": _mixed(224, (64, 96), (96, 128), 128),
    "Mixed_4c": _mixed(192, (96, 128), (96, 128), 128),
    "Mixed_4d": _mixed(160, (128, 160), (128, 160), 96),
    "Mixed_4e": _mixed(96, (128, 192), (160, 192), 96),
    "Mixed_5a": _reduction((128, 192), (192, 256)),
    "Mixed_5b": _mixed(352, (192, 320), (160, 224), 128),
    "Mixed_5c": _mixed(352, (192, 320), (192, 224), 128, "Max"),
}


@dataclass(frozen=True)
class InceptionV2(Inception):
    """An Inception v2.

    Args:
      use_separable_conv: whether the first convolution is separable.
      separable_batch_norm: whether that has a BatchNorm, as in the Object Detection API, and not biases, as in slim.
    """

    family: ClassVar[str] = "inception_v2"
    title: ClassVar[str] = "Inception v2"
    signature: ClassVar[str] = "Mixed_3b/Branch_2/Conv2d_0c_3x3"
    marks: ClassVar[tuple[str, ...]] = (signature,)
    classifier: ClassVar[str] = "Logits/Conv2d_1c_1x1"
    chosen = (*Inception.chosen, "use_separable_conv", "separable_batch_norm")
    name = "inception_v2"
    default_scope = "InceptionV2"

    use_separable_conv: bool = True
    separable_batch_norm: bool = False

    @classmethod
    def named(cls) -> dict[str, InceptionV2]:
        return {"inception_v2": cls(1001)}

    @classmethod
    def options(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        plain = "Conv2d_1a_7x7/weights" in shapes
        normalized = any(name.startswith("Conv2d_1a_7x7/BatchNorm/") for name in shapes)
        return {"use_separable_conv": not plain, "separable_batch_norm": normalized and not plain}

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
          global_pool: whether features of any size are averaged; otherwise the map is pooled 7x7.
          spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map.
          dropout_keep_prob: the probability that a feature is kept, in training.
        """
        with self.settings():
            net = self.points(point(self._first(images), "Conv2d_1a_7x7"), _STEM)
            for name, branches in _BLOCKS.items():
                net = self.mixed(net, name, branches)
            graph.features(net)
            head = HeadArguments(global_pool, spatial_squeeze, dropout_keep_prob)
            return self.convolved_logits(net, 7, head)

    def _first(self, images: Tensor) -> Tensor:
        depth = self.depth(64)
        with arg_scope([conv2d, separable_conv2d], initializer=("truncated_normal", 1.0)):
            if not self.use_separable_conv:
                return conv2d(images, depth, 7, 2, scope="Conv2d_1a_7x7")
            # Slim's arg scope does not know of separable convolutions, that of the Object Detection API does.
            given: dict[str, Any] = (
                {"normalizer": graph.batch_norm} if self.separable_batch_norm else {"regularized": False}
            )
            # Not more channels than the pointwise convolution makes, if images have 3.
            multiplier = min(depth // 3, 8)
            return separable_conv2d(images, depth, 7, multiplier, 2, scope="Conv2d_1a_7x7", **given)
