"""Inception-ResNet v2 in TF-Slim: slim's own `research/slim/nets/inception_resnet_v2.py`, where it is installed.

Christian Szegedy, Sergey Ioffe, Vincent Vanhoucke, Alex Alemi. Inception-v4, Inception-ResNet and the Impact of
Residual Connections on Learning. arXiv:1602.07261
"""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport.nets import research
from slimport.nets.inception import changed, normalized, replaced, with_blocks, with_depths

Tensor = Any
JUDGE = research.PACKAGE
slims = research.module("inception_resnet_v2")
arg_scope = slims.inception_resnet_v2_arg_scope


def build(
    network: Any,
    inputs: Tensor,
    *,
    is_training: bool = False,
    scope: str | None = None,
    reuse: bool | None = None,
    output_stride: int = 16,
    align_feature_maps: bool = False,
    relu6: bool = False,
    activation_scale: tuple[float, float, float] | None = None,
    dropout_keep_prob: float = 0.8,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The graph of a network description.

    Args:
      network: has `num_classes`, `create_aux_logits`, `batch_norm_scale`, `depth_multiplier`, `depth`, `repeats` and
        `final_endpoint`.
      inputs: [batch, height, width, channels]; with auxiliary logits, of a known size.
      is_training: whether BatchNorm uses the batch's statistics, and dropout drops.
      scope: the model's variable scope.
      reuse: whether to reuse the variables; needs `scope`.
      output_stride, align_feature_maps: as of `inception_resnet_v2_base`.
      relu6: whether `activation_fn` is `tf.nn.relu6`.
      activation_scale: of the residuals of `block35`, `block17` and `block8`; None is slim's.
      dropout_keep_prob: the probability that a feature is kept.
    """
    activation_fn = tf.nn.relu6 if relu6 else tf.nn.relu
    base = partial(slims.inception_resnet_v2_base, output_stride=output_stride, align_feature_maps=align_feature_maps)
    layers = with_depths(network) | with_blocks(network, activation_scale)
    with (
        normalized(network),
        slim.arg_scope([slim.conv2d], activation_fn=activation_fn),
        replaced(slims, slim=changed(slims.slim, layers), inception_resnet_v2_base=base),
    ):
        if output_stride == 8:
            # Slim's own function has what lies behind `PreAuxLogits`, which slim has at stride 16 alone.
            with slim.arg_scope([slim.batch_norm], is_training=is_training):
                trunk: tuple[Tensor, dict[str, Tensor]] = base(
                    inputs, network.final_endpoint, scope=scope, activation_fn=activation_fn
                )
                return trunk
        built: tuple[Tensor, dict[str, Tensor]] = slims.inception_resnet_v2(
            inputs,
            network.num_classes,
            is_training=is_training,
            dropout_keep_prob=dropout_keep_prob,
            reuse=reuse,
            scope=scope,
            create_aux_logits=network.create_aux_logits,
            activation_fn=activation_fn,
        )
        return built
