"""Inception v1 in TF-Slim: tf_slim's own layers, with the head of `research/slim/nets/inception_v1.py`.

Christian Szegedy, Wei Liu, Yangqing Jia, Pierre Sermanet, Scott Reed, Dragomir Anguelov, Dumitru Erhan, Vincent
Vanhoucke, Andrew Rabinovich. Going Deeper with Convolutions. arXiv:1409.4842
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf
import tf_slim as slim
from tf_slim.nets import inception_v1 as tf_slims

from slimport.nets.inception import arg_scope_of, changed, normalized, replaced, with_depths

Tensor = Any
JUDGE = tf_slims.__name__
arg_scope = arg_scope_of(tf_slims.inception_v1_arg_scope)


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
      network: has `num_classes`, `batch_norm_scale`, `depth_multiplier` and `depth`.
      inputs: [batch, height, width, channels].
      is_training: whether BatchNorm uses the batch's statistics, and dropout drops.
      scope: the model's variable scope.
      reuse: whether to reuse the variables; needs `scope`.
      global_pool, spatial_squeeze, dropout_keep_prob: as of `inception_v1`.
    """
    layers = changed(tf_slims.layers, with_depths(network))
    with (
        tf.variable_scope(scope, "InceptionV1", [inputs], reuse=reuse) as sc,
        slim.arg_scope([slim.batch_norm, slim.dropout], is_training=is_training),
        normalized(network),
        replaced(tf_slims, layers=layers),
    ):
        net, end_points = tf_slims.inception_v1_base(inputs, scope=sc)
        with tf.variable_scope("Logits"):
            if global_pool:
                net = end_points["global_pool"] = tf.reduce_mean(net, [1, 2], keepdims=True, name="global_pool")
            else:
                net = end_points["AvgPool_0a_7x7"] = slim.avg_pool2d(net, [7, 7], stride=1, scope="AvgPool_0a_7x7")
            if not network.num_classes:
                return net, end_points
            net = slim.dropout(net, dropout_keep_prob, scope="Dropout_0b")
            bare = {"activation_fn": None, "normalizer_fn": None}
            net = slim.conv2d(net, network.num_classes, [1, 1], scope="Conv2d_0c_1x1", **bare)
            if spatial_squeeze:
                net = tf.squeeze(net, [1, 2], name="SpatialSqueeze")
            end_points["Logits"] = net
            end_points["Predictions"] = slim.softmax(net, scope="Predictions")
        return net, end_points
