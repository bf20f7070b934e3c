"""Inception v3 in TF-Slim: tf_slim's own code, and what `research/slim/nets/inception_v3.py` has beyond it.

Same names and arguments as there, same scopes and end points: `global_pool`, the end points `AvgPool_1a` and
`global_pool`, and features without logits. The arg scope is tf_slim's, whose arguments differ.

Christian Szegedy, Vincent Vanhoucke, Sergey Ioffe, Jonathon Shlens, Zbigniew Wojna. Rethinking the Inception
Architecture for Computer Vision. arXiv:1512.00567

    with slim.arg_scope(inception_v3.inception_v3_arg_scope()):
        logits, end_points = inception_v3.inception_v3(images, 1001, is_training=False)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow.compat.v1 as tf
import tf_slim as slim
from tf_slim.nets import inception_v3 as tf_slims

from slimport.nets.inception import arg_scope_of, normalized

Tensor = Any
JUDGE = tf_slims.__name__
"""Whose graph code this is: `slimport verify` names it."""

inception_v3_arg_scope = tf_slims.inception_v3_arg_scope
arg_scope = arg_scope_of(inception_v3_arg_scope)
inception_v3_base = tf_slims.inception_v3_base


def inception_v3(
    inputs: Tensor,
    num_classes: int | None = 1000,
    is_training: bool = True,
    dropout_keep_prob: float = 0.8,
    min_depth: int = 16,
    depth_multiplier: float = 1.0,
    prediction_fn: Callable[..., Tensor] = slim.softmax,
    spatial_squeeze: bool = True,
    reuse: bool | None = None,
    create_aux_logits: bool = True,
    scope: str | None = "InceptionV3",
    global_pool: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Inception v3.

    Args:
      inputs: [batch, height, width, channels]; 299x299 for classification. Where the height and the width are in the
        static shape, the windows of the last pooling (8x8) and of the auxiliary logits (5x5) are no larger than the
        maps that they see, and their sizes are part of the scopes' names.
      num_classes: number of classes; 0 or None returns the pooled features, and has no auxiliary logits.
      is_training: whether BatchNorm uses the batch's statistics, and dropout drops.
      dropout_keep_prob: the probability that an activation is kept.
      min_depth: the least depth of a convolution, whatever the multiplier.
      depth_multiplier: of the depths of all convolutions.
      prediction_fn: from logits to predictions.
      spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map, or [batch, h, w, num_classes].
      reuse: whether to reuse the variables; needs `scope`.
      create_aux_logits: whether to have the auxiliary logits, which start from `Mixed_6e`.
      scope: optional variable scope.
      global_pool: whether the last pooling averages over height and width, whatever the size of the images.

    Returns:
      net: logits, or the pooled features [batch, h, w, depth].
      end_points: from names of parts of the network to their activations.

    Raises:
      ValueError: `depth_multiplier` is not greater than zero.
    """
    if num_classes and not global_pool:
        before = (inputs, num_classes, is_training, dropout_keep_prob, min_depth, depth_multiplier, prediction_fn)
        logits, found = tf_slims.inception_v3(*before, spatial_squeeze, reuse, create_aux_logits, scope)
        end_points = {}
        for name, tensor in found.items():
            if name == "PreLogits":
                end_points["AvgPool_1a"] = _pooled(tensor)
            end_points[name] = tensor
        return logits, end_points

    with (
        tf.variable_scope(scope, "InceptionV3", [inputs], reuse=reuse) as sc,
        slim.arg_scope([slim.batch_norm, slim.dropout], is_training=is_training),
    ):
        net, end_points = inception_v3_base(inputs, min_depth=min_depth, depth_multiplier=depth_multiplier, scope=sc)
        if create_aux_logits and num_classes:
            depths = [max(int(depth * depth_multiplier), min_depth) for depth in (128, 768)]
            end_points["AuxLogits"] = _aux_logits(end_points["Mixed_6e"], num_classes, depths, spatial_squeeze)
        with tf.variable_scope("Logits"):
            if global_pool:
                net = tf.reduce_mean(net, [1, 2], keepdims=True, name="GlobalPool")
                end_points["global_pool"] = net
            else:
                window = _window(net, 8)
                net = slim.avg_pool2d(net, window, padding="VALID", scope=_sized("AvgPool_1a", window))
                end_points["AvgPool_1a"] = net
            if not num_classes:
                return net, end_points
            net = slim.dropout(net, keep_prob=dropout_keep_prob, scope="Dropout_1b")
            end_points["PreLogits"] = net
            net = slim.conv2d(net, num_classes, [1, 1], activation_fn=None, normalizer_fn=None, scope="Conv2d_1c_1x1")
            if spatial_squeeze:
                net = tf.squeeze(net, [1, 2], name="SpatialSqueeze")
        end_points["Logits"] = net
        end_points["Predictions"] = prediction_fn(net, scope="Predictions")
        return net, end_points


inception_v3.default_image_size = 299  # type: ignore[attr-defined]


def _pooled(net: Tensor) -> Tensor:
    """The output of the average pooling that dropout made `net` from."""
    ops = [net.op]
    for op in ops:
        if op.type == "AvgPool":
            return op.outputs[0]
        ops.extend(tensor.op for tensor in op.inputs)
    raise AssertionError(f"{net.name} does not come from an average pooling")


def _aux_logits(net: Tensor, num_classes: int, depths: list[int], spatial_squeeze: bool) -> Tensor:
    """The logits that help to train the lower layers, section 4 of the paper."""
    with (
        tf.variable_scope("AuxLogits"),
        slim.arg_scope([slim.conv2d, slim.max_pool2d, slim.avg_pool2d], stride=1, padding="SAME"),
    ):
        net = slim.avg_pool2d(net, [5, 5], stride=3, padding="VALID", scope="AvgPool_1a_5x5")
        net = slim.conv2d(net, depths[0], [1, 1], scope="Conv2d_1b_1x1")
        window, initializer = _window(net, 5), tf.truncated_normal_initializer(stddev=0.01)
        scope = _sized("Conv2d_2a", window)
        net = slim.conv2d(net, depths[1], window, padding="VALID", weights_initializer=initializer, scope=scope)
        net = slim.conv2d(
            net,
            num_classes,
            [1, 1],
            activation_fn=None,
            normalizer_fn=None,
            weights_initializer=tf.truncated_normal_initializer(stddev=0.001),
            scope="Conv2d_2b_1x1",
        )
        return tf.squeeze(net, [1, 2], name="SpatialSqueeze") if spatial_squeeze else net


def _window(net: Tensor, side: int) -> list[int]:
    """The height and width of a window that is no larger than the map, where the map's size is known."""
    size = net.shape.as_list()[1:3]
    return [side, side] if None in size else [min(length, side) for length in size]


def _sized(scope: str, window: list[int]) -> str:
    return f"{scope}_{window[0]}x{window[1]}"


def build(
    network: Any,
    inputs: Tensor,
    *,
    is_training: bool = False,
    scope: str | None = None,
    global_pool: bool = False,
    spatial_squeeze: bool = True,
    dropout_keep_prob: float = 0.8,
    reuse: bool | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The graph of a network description.

    Args:
      network: has `num_classes`, `depth_multiplier`, `min_depth`, `batch_norm_scale` and `create_aux_logits`.
      inputs: [batch, height, width, channels].
      is_training, scope, global_pool, spatial_squeeze, dropout_keep_prob, reuse: as of `inception_v3`.
    """
    with normalized(network):
        return inception_v3(
            inputs,
            network.num_classes,
            is_training=is_training,
            dropout_keep_prob=dropout_keep_prob,
            min_depth=network.min_depth,
            depth_multiplier=network.depth_multiplier,
            spatial_squeeze=spatial_squeeze,
            reuse=reuse,
            create_aux_logits=network.create_aux_logits,
            scope=scope,
            global_pool=global_pool,
        )
