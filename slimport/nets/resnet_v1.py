"""The original form of residual networks in TF-Slim.

Same names, arguments, scopes, end points and collections as `research/slim/nets/resnet_v1.py` in tensorflow/models.

[1] Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. Deep Residual Learning for Image Recognition. arXiv:1512.03385
[2] Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. Identity Mappings in Deep Residual Networks. arXiv:1603.05027

The 'v1' unit of [1] normalizes AFTER every weight layer, and activates the sum of shortcut and residual.

    with slim.arg_scope(resnet_v1.resnet_arg_scope()):
        net, end_points = resnet_v1.resnet_v1_101(images, 1000, is_training=False)
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
    use_bounded_activations: bool = False,
) -> Tensor:
    """The original bottleneck unit, Fig. 5 of [1] and Fig. 1(a) of [2].

    Between two blocks, the stride of 2 belongs in the last unit of the first block.

    Args:
      inputs: [batch, height, width, channels].
      depth: channels of the output.
      depth_bottleneck: channels of the 1x1 and 3x3 convolutions inside.
      stride: the unit's stride.
      rate: atrous rate of the 3x3 convolution.
      outputs_collections: collection to which the output is added.
      scope: optional variable scope.
      use_bounded_activations: whether the shortcut and the output are in [0, 6] and the residual in [-6, 6], which
        quantized inference wants.

    Returns:
      [batch, ceil(height / stride), ceil(width / stride), depth].
    """
    with tf.variable_scope(scope, "bottleneck_v1", [inputs]) as sc:
        depth_in = slim.utils.last_dimension(inputs.get_shape(), min_rank=4)
        if depth == depth_in:
            shortcut = resnet_utils.subsample(inputs, stride, "shortcut")
        else:
            activation_fn = tf.nn.relu6 if use_bounded_activations else None
            shortcut = slim.conv2d(inputs, depth, [1, 1], stride=stride, activation_fn=activation_fn, scope="shortcut")
        residual = slim.conv2d(inputs, depth_bottleneck, [1, 1], stride=1, scope="conv1")
        residual = resnet_utils.conv2d_same(residual, depth_bottleneck, 3, stride, rate=rate, scope="conv2")
        residual = slim.conv2d(residual, depth, [1, 1], stride=1, activation_fn=None, scope="conv3")
        if use_bounded_activations:
            output = tf.nn.relu6(shortcut + tf.clip_by_value(residual, -6.0, 6.0))
        else:
            output = tf.nn.relu(shortcut + residual)
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, output)


def resnet_v1(
    inputs: Tensor,
    blocks: Sequence[resnet_utils.Block],
    num_classes: int | None = None,
    is_training: bool | None = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    include_root_block: bool = True,
    spatial_squeeze: bool = True,
    store_non_strided_activations: bool = False,
    reuse: bool | None = None,
    scope: str | None = None,
) -> Network:
    """Generator of v1 ResNets.

    For dense prediction, sides that are multiples of 32 plus 1 (321, say) align the corners of the features with those
    of the image: the output is then [(height - 1) / output_stride + 1, (width - 1) / output_stride + 1]. Such networks
    want `global_pool=False`, and `output_stride=16` is a good choice (arXiv:1606.00915).

    Args:
      inputs: [batch, height_in, width_in, channels].
      blocks: the blocks.
      num_classes: number of classes; 0 or None returns the features before the logits.
      is_training: whether BatchNorm uses the batch's statistics; None leaves that to the arg scope.
      global_pool: whether the features are averaged over height and width before the logits.
      output_stride: ratio of input to output resolution; None for the nominal one.
      include_root_block: whether to begin with `conv1` and `pool1`.
      spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map, or [batch, 1, 1, num_classes].
      store_non_strided_activations: whether the blocks' end points are those before their subsampling, which is then
        moved to the blocks' ends.
      reuse: whether to reuse the variables; needs `scope`.
      scope: optional variable scope.

    Returns:
      net: [batch, height_out, width_out, channels_out], or the squeezed logits.
      end_points: from names of parts of the network to their activations.

    Raises:
      ValueError: the output stride is not valid.
    """

    def root(net: Tensor) -> Tensor:
        return resnet_utils.conv2d_same(net, 64, 7, stride=2, scope="conv1")

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
        default_scope="resnet_v1",
        units=[bottleneck],
        root=root if include_root_block else None,
        store_non_strided_activations=store_non_strided_activations,
    )


build = partial(resnet.build, bottleneck, resnet_v1)


def resnet_v1_block(scope: str, base_depth: int, num_units: int, stride: int) -> resnet_utils.Block:
    """A block of bottleneck units of depth 4 * base_depth whose stride sits in its last unit."""
    return resnet.bottleneck_block(bottleneck, scope, base_depth, num_units, stride)


def resnet_v1_50(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool | None = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    spatial_squeeze: bool = True,
    store_non_strided_activations: bool = False,
    min_base_depth: int = 8,
    depth_multiplier: float = 1,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_50",
) -> Network:
    """ResNet-50 of [1]. See `resnet_v1` and `resnet.four_blocks` for the arguments, `resnet_v1` for the result."""
    blocks = resnet.four_blocks(resnet_v1_block, (3, 4, 6, 3), min_base_depth, depth_multiplier)
    last = store_non_strided_activations, reuse, scope
    return resnet_v1(inputs, blocks, num_classes, is_training, global_pool, output_stride, True, spatial_squeeze, *last)


def resnet_v1_101(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool | None = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    spatial_squeeze: bool = True,
    store_non_strided_activations: bool = False,
    min_base_depth: int = 8,
    depth_multiplier: float = 1,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_101",
) -> Network:
    """ResNet-101 of [1]. See `resnet_v1` and `resnet.four_blocks` for the arguments, `resnet_v1` for the result."""
    blocks = resnet.four_blocks(resnet_v1_block, (3, 4, 23, 3), min_base_depth, depth_multiplier)
    last = store_non_strided_activations, reuse, scope
    return resnet_v1(inputs, blocks, num_classes, is_training, global_pool, output_stride, True, spatial_squeeze, *last)


# From here on, as in slim, `store_non_strided_activations` comes before `spatial_squeeze`.
def resnet_v1_152(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool | None = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    store_non_strided_activations: bool = False,
    spatial_squeeze: bool = True,
    min_base_depth: int = 8,
    depth_multiplier: float = 1,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_152",
) -> Network:
    """ResNet-152 of [1]. See `resnet_v1` and `resnet.four_blocks` for the arguments, `resnet_v1` for the result."""
    blocks = resnet.four_blocks(resnet_v1_block, (3, 8, 36, 3), min_base_depth, depth_multiplier)
    last = store_non_strided_activations, reuse, scope
    return resnet_v1(inputs, blocks, num_classes, is_training, global_pool, output_stride, True, spatial_squeeze, *last)


def resnet_v1_200(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool | None = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    store_non_strided_activations: bool = False,
    spatial_squeeze: bool = True,
    min_base_depth: int = 8,
    depth_multiplier: float = 1,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_200",
) -> Network:
    """ResNet-200 of [2]. See `resnet_v1` and `resnet.four_blocks` for the arguments, `resnet_v1` for the result."""
    blocks = resnet.four_blocks(resnet_v1_block, (3, 24, 36, 3), min_base_depth, depth_multiplier)
    last = store_non_strided_activations, reuse, scope
    return resnet_v1(inputs, blocks, num_classes, is_training, global_pool, output_stride, True, spatial_squeeze, *last)


_function: Any
for _function in (resnet_v1, resnet_v1_50, resnet_v1_101, resnet_v1_152, resnet_v1_200):
    _function.default_image_size = 224
