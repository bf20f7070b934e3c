"""VGG in TF-Slim.

Same names, arguments, scopes, end points and collections as `research/slim/nets/vgg.py` in tensorflow/models.

Karen Simonyan, Andrew Zisserman. Very Deep Convolutional Networks for Large-Scale Image Recognition. arXiv:1409.1556

    with slim.arg_scope(vgg.vgg_arg_scope()):
        logits, end_points = vgg.vgg_16(images, is_training=False)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow.compat.v1 as tf
import tf_slim as slim

Tensor = Any
Network = tuple[Tensor, dict[str, Tensor]]
"""The network's output, and its end points by name."""


def vgg_arg_scope(weight_decay: float = 0.0005) -> Any:
    """The default arg scope of the VGGs: ReLU, SAME padding, L2 regularization of the kernels."""
    with (
        slim.arg_scope(
            [slim.conv2d, slim.fully_connected],
            activation_fn=tf.nn.relu,
            weights_regularizer=slim.l2_regularizer(weight_decay),
            biases_initializer=tf.zeros_initializer(),
        ),
        slim.arg_scope([slim.conv2d], padding="SAME") as arg_scope,
    ):
        return arg_scope


arg_scope = vgg_arg_scope


def vgg(
    inputs: Tensor,
    blocks: Sequence[tuple[int, int]],
    num_classes: int | None = 1000,
    is_training: bool = True,
    dropout_keep_prob: float = 0.5,
    spatial_squeeze: bool = True,
    reuse: bool | None = None,
    scope: str | None = None,
    fc_conv_padding: str = "VALID",
    global_pool: bool = False,
    *,
    fc_depths: Sequence[int] = (4096, 4096),
    default_scope: str = "vgg",
) -> Network:
    """A VGG of any blocks, whose fully connected layers are convolutions.

    Args:
      inputs: [batch, height, width, channels]; 224x224 for classification.
      blocks: the depth and the number of the 3x3 convolutions before each pooling.
      num_classes: number of classes; 0 or None returns what the last layer, `fc8`, would take.
      is_training: whether dropout drops.
      dropout_keep_prob: the probability that an activation is kept.
      spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map, or [batch, h, w, num_classes].
      reuse: whether to reuse the variables; needs `scope`.
      scope: optional variable scope.
      fc_conv_padding: of `fc6`, which is 7x7: VALID makes the map of logits (side / 32) - 6, SAME side / 32.
      global_pool: whether what `fc8` takes is averaged over height and width, which VGG itself does not do.
      fc_depths: of `fc6` and `fc7`.
      default_scope: the scope where `scope` is None.

    Returns:
      net: logits, or what they would be computed from.
      end_points: from names of parts of the network to their activations.
    """
    with tf.variable_scope(scope, default_scope, [inputs], reuse=reuse) as sc:
        collection = sc.original_name_scope + "_end_points"
        with slim.arg_scope([slim.conv2d, slim.fully_connected, slim.max_pool2d], outputs_collections=collection):
            net = inputs
            for number, (depth, repetitions) in enumerate(blocks, start=1):
                net = slim.repeat(net, repetitions, slim.conv2d, depth, [3, 3], scope=f"conv{number}")
                net = slim.max_pool2d(net, [2, 2], scope=f"pool{number}")
            net = slim.conv2d(net, fc_depths[0], [7, 7], padding=fc_conv_padding, scope="fc6")
            net = slim.dropout(net, dropout_keep_prob, is_training=is_training, scope="dropout6")
            net = slim.conv2d(net, fc_depths[1], [1, 1], scope="fc7")
            end_points = slim.utils.convert_collection_to_dict(collection)
            if global_pool:
                net = tf.reduce_mean(net, [1, 2], keepdims=True, name="global_pool")
                end_points["global_pool"] = net
            if num_classes:
                net = slim.dropout(net, dropout_keep_prob, is_training=is_training, scope="dropout7")
                net = slim.conv2d(net, num_classes, [1, 1], activation_fn=None, normalizer_fn=None, scope="fc8")
                if spatial_squeeze:
                    net = tf.squeeze(net, [1, 2], name="fc8/squeezed")
                end_points[sc.name + "/fc8"] = net
            return net, end_points


def build(network: Any, inputs: Tensor, **arguments: Any) -> Network:
    """The graph of a network description.

    Args:
      network: has a `name`, `blocks` (each with a `depth` and `repetitions`), `fc_depths` and `num_classes`.
      inputs: [batch, height, width, channels].
      arguments: the other arguments of `vgg`.
    """
    blocks = [(block.depth, block.repetitions) for block in network.blocks]
    fixed = {"fc_depths": network.fc_depths, "default_scope": network.name}
    return vgg(inputs, blocks, network.num_classes, **fixed, **arguments)


def _column(*repetitions: int) -> list[tuple[int, int]]:
    """The blocks of a column of Table 1 of arXiv:1409.1556."""
    return list(zip((64, 128, 256, 512, 512), repetitions, strict=True))


def vgg_a(
    inputs: Tensor,
    num_classes: int | None = 1000,
    is_training: bool = True,
    dropout_keep_prob: float = 0.5,
    spatial_squeeze: bool = True,
    reuse: bool | None = None,
    scope: str | None = "vgg_a",
    fc_conv_padding: str = "VALID",
    global_pool: bool = False,
) -> Network:
    """Column A. See `vgg` for the arguments and the result."""
    blocks = _column(1, 1, 2, 2, 2)
    last = reuse, scope, fc_conv_padding, global_pool
    return vgg(
        inputs, blocks, num_classes, is_training, dropout_keep_prob, spatial_squeeze, *last, default_scope="vgg_a"
    )


def vgg_16(
    inputs: Tensor,
    num_classes: int | None = 1000,
    is_training: bool = True,
    dropout_keep_prob: float = 0.5,
    spatial_squeeze: bool = True,
    reuse: bool | None = None,
    scope: str | None = "vgg_16",
    fc_conv_padding: str = "VALID",
    global_pool: bool = False,
) -> Network:
    """Column D. See `vgg` for the arguments and the result."""
    blocks = _column(2, 2, 3, 3, 3)
    last = reuse, scope, fc_conv_padding, global_pool
    return vgg(
        inputs, blocks, num_classes, is_training, dropout_keep_prob, spatial_squeeze, *last, default_scope="vgg_16"
    )


def vgg_19(
    inputs: Tensor,
    num_classes: int | None = 1000,
    is_training: bool = True,
    dropout_keep_prob: float = 0.5,
    spatial_squeeze: bool = True,
    reuse: bool | None = None,
    scope: str | None = "vgg_19",
    fc_conv_padding: str = "VALID",
    global_pool: bool = False,
) -> Network:
    """Column E. See `vgg` for the arguments and the result."""
    blocks = _column(2, 2, 4, 4, 4)
    last = reuse, scope, fc_conv_padding, global_pool
    return vgg(
        inputs, blocks, num_classes, is_training, dropout_keep_prob, spatial_squeeze, *last, default_scope="vgg_19"
    )


vgg_d = vgg_16
vgg_e = vgg_19
_function: Any
for _function in (vgg_a, vgg_16, vgg_19):
    _function.default_image_size = 224
