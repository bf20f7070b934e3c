"""DeepLab v3+ in TF-Slim: the layers behind the backbone, as `research/deeplab/model.py` in tensorflow/models has them.

The backbone is the code of its own family. Sizes follow from the images, where DeepLab's code takes a `crop_size`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import Any

import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport.nets.research import resize_bilinear

Tensor = Any
_DECAY = 4e-5
_LOW_LEVEL = {
    "xception": "{}/entry_flow/block2/unit_1/xception_module/separable_conv2_pointwise",
    "mobilenet_v2": "layer_4/depthwise_output",
    "resnet_v1_beta": "{}/block1/unit_2/bottleneck_v1/conv3",
}


def arg_scope(weight_decay: float = _DECAY, batch_norm_scale: bool = True) -> Any:
    """The layers behind the backbone, and the regularization of all kernels."""
    layers = [slim.conv2d, slim.separable_conv2d]
    regularizer = slim.l2_regularizer(weight_decay)
    with (
        slim.arg_scope(layers, weights_regularizer=regularizer, padding="SAME", normalizer_fn=slim.batch_norm),
        slim.arg_scope([slim.batch_norm], decay=0.9997, epsilon=1e-5, scale=batch_norm_scale) as scope,
    ):
        return scope


def build(
    network: Any,
    inputs: Tensor,
    *,
    is_training: bool = False,
    reuse: bool | None = None,
    scope: str | None = None,
    output_stride: int = 16,
    atrous_rates: Sequence[int] | None = None,
    multi_grid: Sequence[int] | None = None,
    keep_prob: float = 0.9,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The graph of a network description.

    Args:
      network: a `DeepLab`.
      inputs: [batch, height, width, channels].
      is_training: whether BatchNorm takes the batch's statistics, and dropout drops.
      reuse: whether to reuse the variables; needs `scope`.
      scope: the variable scope of all; None or "" is none.
      output_stride, atrous_rates, multi_grid, keep_prob: as of the description's definition.
    """
    opened = tf.variable_scope(scope, reuse=reuse) if scope else nullcontext()
    with opened, slim.arg_scope([slim.batch_norm, slim.dropout], is_training=is_training):
        where = tf.get_variable_scope().name
        net, end_points = _backbone(network, inputs, is_training, output_stride, multi_grid)
        low = end_points.get(_LOW_LEVEL[network.backbone.family].format(_joined(where, network.backbone.default_scope)))
        if network.atrous_branches and atrous_rates is None:
            atrous_rates = [number * 96 // output_stride for number in (1, 2, 3)]
        net = _pyramid(network, net, atrous_rates or ())
        end_points[_joined(where, "concat_projection")] = net
        net = slim.dropout(net, keep_prob=keep_prob, scope="concat_projection_dropout")
        if network.decoder:
            with tf.variable_scope("decoder"):
                net = _decoded(network, net, low)
            end_points[_joined(where, "decoder")] = net
        if network.num_classes:
            plain = {"activation_fn": None, "normalizer_fn": None}
            initializer = tf.truncated_normal_initializer(stddev=0.01)
            net = slim.conv2d(
                net, network.num_classes, 1, weights_initializer=initializer, scope="logits/semantic", **plain
            )
            end_points[_joined(where, "logits")] = net
    return net, end_points


def _joined(*names: str) -> str:
    return "/".join(name for name in names if name)


def _backbone(
    network: Any, inputs: Tensor, is_training: bool, output_stride: int, multi_grid: Sequence[int] | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """`extract_features`: the last map and the end points, of which those of the whole network are left out."""
    backbone = network.backbone
    try:
        builder = import_module(f"slimport.nets.{backbone.family}")
    except ModuleNotFoundError:
        builder = import_module("slimport.nets.interpreter")
    wanted = {"output_stride": output_stride, "multi_grid": multi_grid, "global_pool": False}
    given = {name: value for name, value in wanted.items() if name in backbone.arguments}
    fused = {"fused": False} if inputs.dtype.base_dtype == tf.float64 else {}
    # An empty arg scope closes those that are open, of which the backbone's would take the epsilon.
    with slim.arg_scope({}), slim.arg_scope(builder.arg_scope()), slim.arg_scope([slim.batch_norm], **fused):
        net, end_points = builder.build(
            backbone, inputs, is_training=is_training, scope=backbone.default_scope, **given
        )
    return net, dict(end_points)


def _pyramid(network: Any, net: Tensor, rates: Sequence[int]) -> Tensor:
    branches = []
    if network.image_pooling:
        pooled = slim.conv2d(tf.reduce_mean(net, [1, 2], keepdims=True), network.depth, 1, scope="image_pooling")
        branches.append(resize_bilinear(pooled, tf.shape(net)[1:3], align_corners=True))
    branches.append(slim.conv2d(net, network.depth, 1, scope="aspp0"))
    for number, rate in enumerate(rates, 1):
        if network.aspp_separable:
            branches.append(_split_separable_conv2d(net, network.depth, f"aspp{number}", rate))
        else:
            branches.append(slim.conv2d(net, network.depth, 3, rate=rate, scope=f"aspp{number}"))
    return slim.conv2d(tf.concat(branches, 3), network.depth, 1, scope="concat_projection")


def _decoded(network: Any, net: Tensor, low: Tensor) -> Tensor:
    low = slim.conv2d(low, network.decoder_depth, 1, scope="feature_projection0")
    net = tf.concat([resize_bilinear(net, tf.shape(low)[1:3], align_corners=True), low], 3)
    if not network.decoder_separable:
        return slim.repeat(net, 2, slim.conv2d, network.depth, 3, scope="decoder_conv0")
    net = _split_separable_conv2d(net, network.depth, "decoder_conv0")
    return _split_separable_conv2d(net, network.depth, "decoder_conv1")


def _split_separable_conv2d(net: Tensor, depth: int, scope: str, rate: int = 1) -> Tensor:
    net = slim.separable_conv2d(
        net,
        None,
        3,
        1,
        rate=rate,
        weights_initializer=tf.truncated_normal_initializer(stddev=0.33),
        weights_regularizer=None,
        scope=f"{scope}_depthwise",
    )
    initializer = tf.truncated_normal_initializer(stddev=0.06)
    return slim.conv2d(net, depth, 1, weights_initializer=initializer, scope=f"{scope}_pointwise")
