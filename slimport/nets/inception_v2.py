"""Inception v2 in TF-Slim: tf_slim's own layers, with the head of `research/slim/nets/inception_v2.py`.

Sergey Ioffe, Christian Szegedy. Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
Shift. arXiv:1502.03167
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import tensorflow.compat.v1 as tf
import tf_slim as slim
from tf_slim.nets import inception_v2 as tf_slims

from slimport.nets.inception import arg_scope_of, changed, normalized, replaced

Tensor = Any
JUDGE = tf_slims.__name__
arg_scope = arg_scope_of(tf_slims.inception_v2_arg_scope)


def build(
    network: Any,
    inputs: Tensor,
    *,
    is_training: bool = False,
    scope: str | None = None,
    reuse: bool | None = None,
    global_pool: bool = False,
    spatial_squeeze: bool = True,
    dropout_keep_prob: float = 0.8,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The graph of a network description.

    Args:
      network: has `num_classes`, `min_depth`, `depth_multiplier`, `batch_norm_scale`, `use_separable_conv` and
        `separable_batch_norm`.
      inputs: [batch, height, width, channels].
      is_training: whether BatchNorm uses the batch's statistics, and dropout drops.
      scope: the model's variable scope.
      reuse: whether to reuse the variables; needs `scope`.
      global_pool, spatial_squeeze, dropout_keep_prob: as of `inception_v2`.
    """
    depths = {"min_depth": network.min_depth, "depth_multiplier": network.depth_multiplier}
    with (
        tf.variable_scope(scope, "InceptionV2", [inputs], reuse=reuse) as sc,
        slim.arg_scope([slim.batch_norm, slim.dropout], is_training=is_training),
        normalized(network) as settings,
        replaced(tf_slims, layers=changed(tf_slims.layers, {"separable_conv2d": _first(network, settings)})),
    ):
        net, end_points = tf_slims.inception_v2_base(inputs, scope=sc, **depths)
        with tf.variable_scope("Logits"):
            if global_pool:
                net = end_points["global_pool"] = tf.reduce_mean(net, [1, 2], keepdims=True, name="global_pool")
            else:
                window = [7 if side is None else min(side, 7) for side in net.shape.as_list()[1:3]]
                net = slim.avg_pool2d(net, window, scope="AvgPool_1a_{}x{}".format(*window))
                end_points["AvgPool_1a"] = net
            if not network.num_classes:
                return net, end_points
            net = end_points["PreLogits"] = slim.dropout(net, dropout_keep_prob, scope="Dropout_1b")
            bare = {"activation_fn": None, "normalizer_fn": None}
            net = slim.conv2d(net, network.num_classes, [1, 1], scope="Conv2d_1c_1x1", **bare)
            if spatial_squeeze:
                net = tf.squeeze(net, [1, 2], name="SpatialSqueeze")
        end_points["Logits"] = net
        end_points["Predictions"] = slim.softmax(net, scope="Predictions")
        return net, end_points


def _first(network: Any, settings: dict[str, Any]) -> Callable[..., Tensor]:
    """The first convolution, which tf_slim has as a separable one with biases.

    Args:
      settings: of `slim.conv2d`, which the Object Detection API's arg scope has for it too.
    """

    @wraps(slim.separable_conv2d)
    def layer(inputs: Tensor, depth: int, kernel: list[int], depth_multiplier: int, **given: Any) -> Tensor:
        if not network.use_separable_conv:
            return slim.conv2d(inputs, depth, kernel, **given)
        if network.separable_batch_norm:
            names = ("normalizer_fn", "normalizer_params", "weights_regularizer")
            given |= {name: settings[name] for name in names}
        return slim.separable_conv2d(inputs, depth, kernel, depth_multiplier, **given)

    return layer
