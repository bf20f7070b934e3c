"""The preactivation form of residual networks in TF-Slim.

Same names, arguments, scopes, end points and collections as `research/slim/nets/resnet_v2.py` in tensorflow/models.

[1] Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. Deep Residual Learning for Image Recognition. arXiv:1512.03385
[2] Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. Identity Mappings in Deep Residual Networks. arXiv:1603.05027

The 'v2' unit of [2] normalizes and activates BEFORE every weight layer, so that the shortcut carries its input
unchanged.

    with slim.arg_scope(resnet_v2.resnet_arg_scope()):
        net, end_points = resnet_v2.resnet_v2_101(images, 1001, is_training=False)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport.nets import resnet, resnet_utils
from slimport.nets.resnet import Network
from slimport.nets.resnet_utils import Tensor

arg_scope = resnet_arg_scope = resnet_utils.resnet_arg_scope


@slim.add_arg_scope
def bottleneck(
    inputs: Tensor,
    depth: int,
    depth_bottleneck: int,
    stride: int,
    rate: int = 1,
    outputs_collections: Any = None,
    scope: str | None = None,
) -> Tensor:
    """The full preactivation bottleneck unit, Fig. 1(b) of [2].

    Between two blocks, the stride of 2 belongs in the last unit of the first block.

    Args:
      inputs: [batch, height, width, channels].
      depth: channels of the output.
      depth_bottleneck: channels of the 1x1 and 3x3 convolutions inside.
      stride: the unit's stride.
      rate: atrous rate of the 3x3 convolution.
      outputs_collections: collection to which the output is added.
      scope: optional variable scope.

    Returns:
      [batch, ceil(height / stride), ceil(width / stride), depth].
    """
    with tf.variable_scope(scope, "bottleneck_v2", [inputs]) as sc:
        depth_in = slim.utils.last_dimension(inputs.get_shape(), min_rank=4)
        preact = slim.batch_norm(inputs, activation_fn=tf.nn.relu, scope="preact")
        if depth == depth_in:
            shortcut = resnet_utils.subsample(inputs, stride, "shortcut")
        else:
            # A projection takes the preactivation; only the identity takes the input itself.
            shortcut = slim.conv2d(
                preact, depth, [1, 1], stride=stride, normalizer_fn=None, activation_fn=None, scope="shortcut"
            )
        residual = slim.conv2d(preact, depth_bottleneck, [1, 1], stride=1, scope="conv1")
        residual = resnet_utils.conv2d_same(residual, depth_bottleneck, 3, stride, rate=rate, scope="conv2")
        residual = slim.conv2d(residual, depth, [1, 1], stride=1, normalizer_fn=None, activation_fn=None, scope="conv3")
        output = shortcut + residual
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, output)


def resnet_v2(
    inputs: Tensor,
    blocks: Sequence[resnet_utils.Block],
    num_classes: int | None = None,
    is_training: bool = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    include_root_block: bool = True,
    spatial_squeeze: bool = True,
    reuse: bool | None = None,
    scope: str | None = None,
) -> Network:
    """Generator of v2 (preactivation) ResNets.

    For dense prediction, sides that are multiples of 32 plus 1 (321, say) align the corners of the features with those
    of the image: the output is then [(height - 1) / output_stride + 1, (width - 1) / output_stride + 1]. Such networks
    want `global_pool=False`, and `output_stride=16` is a good choice (arXiv:1606.00915).

    Args:
      inputs: [batch, height_in, width_in, channels].
      blocks: the blocks.
      num_classes: number of classes; 0 or None returns the features before the logits.
      is_training: whether BatchNorm uses the batch's statistics.
      global_pool: whether the features are averaged over height and width before the logits.
      output_stride: ratio of input to output resolution; None for the nominal one.
      include_root_block: whether to begin with `conv1` and `pool1`. If not, `inputs` should come from a convolution
        without activation.
      spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map, or [batch, 1, 1, num_classes].
      reuse: whether to reuse the variables; needs `scope`.
      scope: optional variable scope.

    Returns:
      net: [batch, height_out, width_out, channels_out], or the squeezed logits.
      end_points: from names of parts of the network to their activations.

    Raises:
      ValueError: the output stride is not valid.
    """

    def root(net: Tensor) -> Tensor:
        # No normalization or activation here: the first unit's preactivation does both (appendix of [2]).
        with slim.arg_scope([slim.conv2d], activation_fn=None, normalizer_fn=None):
            return resnet_utils.conv2d_same(net, 64, 7, stride=2, scope="conv1")

    def postnorm(net: Tensor) -> Tensor:
        # The last unit's output is a bare sum, which nothing has normalized or activated yet (appendix of [2]).
        return slim.batch_norm(net, activation_fn=tf.nn.relu, scope="postnorm")

    return resnet.resnet(
        inputs,
        blocks,
        num_classes,
        is_training,
        global_pool,
        output_stride,
        spatial_squeeze,
        reuse,
        scope,
        default_scope="resnet_v2",
        units=[bottleneck],
        root=root if include_root_block else None,
        postnorm=postnorm,
    )


build = partial(resnet.build, bottleneck, resnet_v2)


def resnet_v2_block(scope: str, base_depth: int, num_units: int, stride: int) -> resnet_utils.Block:
    """A block of bottleneck units of depth 4 * base_depth whose stride sits in its last unit."""
    return resnet.bottleneck_block(bottleneck, scope, base_depth, num_units, stride)


def resnet_v2_50(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    spatial_squeeze: bool = True,
    reuse: bool | None = None,
    scope: str | None = "resnet_v2_50",
) -> Network:
    """ResNet-50 of [1]. See `resnet_v2` for the arguments and the result."""
    blocks = resnet.four_blocks(resnet_v2_block, (3, 4, 6, 3))
    return resnet_v2(
        inputs, blocks, num_classes, is_training, global_pool, output_stride, True, spatial_squeeze, reuse, scope
    )


def resnet_v2_101(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    spatial_squeeze: bool = True,
    reuse: bool | None = None,
    scope: str | None = "resnet_v2_101",
) -> Network:
    """ResNet-101 of [1]. See `resnet_v2` for the arguments and the result."""
    blocks = resnet.four_blocks(resnet_v2_block, (3, 4, 23, 3))
    return resnet_v2(
        inputs, blocks, num_classes, is_training, global_pool, output_stride, True, spatial_squeeze, reuse, scope
    )


def resnet_v2_152(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    spatial_squeeze: bool = True,
    reuse: bool | None = None,
    scope: str | None = "resnet_v2_152",
) -> Network:
    """ResNet-152 of [1]. See `resnet_v2` for the arguments and the result."""
    blocks = resnet.four_blocks(resnet_v2_block, (3, 8, 36, 3))
    return resnet_v2(
        inputs, blocks, num_classes, is_training, global_pool, output_stride, True, spatial_squeeze, reuse, scope
    )


def resnet_v2_200(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    spatial_squeeze: bool = True,
    reuse: bool | None = None,
    scope: str | None = "resnet_v2_200",
) -> Network:
    """ResNet-200 of [2]. See `resnet_v2` for the arguments and the result."""
    blocks = resnet.four_blocks(resnet_v2_block, (3, 24, 36, 3))
    return resnet_v2(
        inputs, blocks, num_classes, is_training, global_pool, output_stride, True, spatial_squeeze, reuse, scope
    )


_function: Any
for _function in (resnet_v2, resnet_v2_50, resnet_v2_101, resnet_v2_152, resnet_v2_200):
    _function.default_image_size = 224
