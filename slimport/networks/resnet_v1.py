"""ResNet v1, the original form. Source: `research/slim/nets/resnet_v1.py` in tensorflow/models.

[1] Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. Deep Residual Learning for Image Recognition. arXiv:1512.03385

The unit of [1] normalizes AFTER every weight layer, and activates the sum of shortcut and residual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from slimport.graph import Tensor, add, arg_scope, conv2d, conv2d_same, end_point, scope, subsample
from slimport.networks.network import Preprocessing
from slimport.networks.resnet import BOTTLENECK_BLOCKS, Block, ResNet, Unit, bottleneck_block

resnet_v1_block = bottleneck_block


def bottleneck(inputs: Tensor, unit: Unit) -> Tensor:
    """The original bottleneck unit, Fig. 5 of [1]. Arguments and result as of `resnet_v2.bottleneck`."""
    with scope("bottleneck_v1"), arg_scope([conv2d], collect=True):
        shortcut = carry(inputs, unit)
        residual = conv2d(inputs, unit.depth_bottleneck, 1, scope="conv1")
        residual = conv2d_same(residual, unit.depth_bottleneck, 3, unit.stride, unit.rate, scope="conv2")
        residual = conv2d(residual, unit.depth, 1, activation=None, scope="conv3")
        return end_point(add(shortcut, residual, activation="relu"))


def carry(inputs: Tensor, unit: Unit) -> Tensor:
    """The shortcut: the input, subsampled by the unit's stride, or projected where the depths differ."""
    if unit.depth == inputs.channels:
        return subsample(inputs, unit.stride, scope="shortcut")
    return conv2d(inputs, unit.depth, 1, unit.stride, activation=None, scope="shortcut")


@dataclass(frozen=True)
class ResNetV1(ResNet):
    """A ResNet v1, any number of blocks and units: every convolution but the logits is normalized. See `ResNet`."""

    family: ClassVar[str] = "resnet_v1"
    title: ClassVar[str] = "ResNet v1"
    signature: ClassVar[str] = "bottleneck_v1 units"
    background: ClassVar[bool] = False
    unit_scopes: ClassVar[dict[str, str]] = {"bottleneck_v1": "conv3"}
    depths: ClassVar[dict[str, tuple[Block, ...]]] = {
        f"resnet_v1_{depth}": blocks for depth, blocks in BOTTLENECK_BLOCKS.items()
    }

    @property
    def preprocessing(self) -> Preprocessing:
        return "vgg"

    def unit(self, net: Tensor, unit: Unit) -> Tensor:
        return bottleneck(net, unit)
