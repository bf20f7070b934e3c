"""ResNet v2, the preactivation form. Source: `research/slim/nets/resnet_v2.py` in tensorflow/models.

[1] Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. Deep Residual Learning for Image Recognition. arXiv:1512.03385
[2] Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. Identity Mappings in Deep Residual Networks. arXiv:1603.05027

The unit of [2] normalizes and activates BEFORE every weight layer, so that the shortcut carries its input unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from slimport.graph import Tensor, add, arg_scope, batch_norm, conv2d, conv2d_same, end_point, scope, subsample
from slimport.networks.resnet import BOTTLENECK_BLOCKS, Block, ResNet, Unit, bottleneck_block

resnet_v2_block = bottleneck_block


def bottleneck(inputs: Tensor, unit: Unit) -> Tensor:
    """The full preactivation bottleneck unit, Fig. 1(b) of [2].

    When two blocks follow each other, the stride of 2 is in the last unit of the first.

    Args:
      inputs: [batch, height, width, channels].
      unit: its depths, stride, and the atrous rate of its 3x3 convolution.

    Returns:
      [batch, ceil(height / stride), ceil(width / stride), depth].
    """
    with scope("bottleneck_v2"):
        preact = batch_norm(inputs, activation="relu", scope="preact")
        if unit.depth == inputs.channels:
            shortcut = subsample(inputs, unit.stride, scope="shortcut")
        else:
            # A projection takes the preactivation; only the identity takes the input itself.
            with arg_scope([conv2d], normalizer=None, activation=None):
                shortcut = conv2d(preact, unit.depth, 1, unit.stride, scope="shortcut", collect=True)
        with arg_scope([conv2d], collect=True):
            residual = conv2d(preact, unit.depth_bottleneck, 1, scope="conv1")
            residual = conv2d_same(residual, unit.depth_bottleneck, 3, unit.stride, unit.rate, scope="conv2")
            residual = conv2d(residual, unit.depth, 1, normalizer=None, activation=None, scope="conv3")
        return end_point(add(shortcut, residual))


@dataclass(frozen=True)
class ResNetV2(ResNet):
    """A ResNet v2 (full preactivation), any number of blocks and units. See `ResNet`."""

    family: ClassVar[str] = "resnet_v2"
    title: ClassVar[str] = "ResNet v2"
    signature: ClassVar[str] = "bottleneck_v2 units"
    preprocessing = "inception"
    evaluation_size = 299
    background: ClassVar[bool] = True
    unit_scopes: ClassVar[dict[str, str]] = {"bottleneck_v2": "conv3"}
    depths: ClassVar[dict[str, tuple[Block, ...]]] = {
        f"resnet_v2_{depth}": blocks for depth, blocks in BOTTLENECK_BLOCKS.items()
    }

    def unit(self, net: Tensor, unit: Unit) -> Tensor:
        return bottleneck(net, unit)

    def root(self, images: Tensor) -> Tensor:
        # No normalization or activation here: the first unit's preactivation does both (appendix of [2]).
        with arg_scope([conv2d], normalizer=None):
            return end_point(conv2d_same(images, 64, 7, 2, activation=None, scope="conv1"), "conv1")

    def postnorm(self, net: Tensor) -> Tensor:
        # The last unit's output is a bare sum, which nothing has normalized or activated yet (appendix of [2]).
        return batch_norm(net, activation="relu", scope="postnorm")
