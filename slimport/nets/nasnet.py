"""NASNet-A in TF-Slim: slim's own code, `research/slim/nets/nasnet` in tensorflow/models, where it is installed.

Slim builds the auxiliary head in training alone. Here it is in evaluation too, so that its variables can be compared;
images then have the size of the training.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport.nets import research

Tensor = Any
JUDGE = research.PACKAGE
STATIC_SIZE = True
"""Whether slim's code needs the height and width of the images in the static shape."""
slims = research.module("nasnet.nasnet")
nasnet_utils = research.module("nasnet.nasnet_utils")


def arg_scope(weight_decay: float = 4e-5, batch_norm_scale: bool = True) -> Any:
    """`nasnet_mobile_arg_scope`, and whether BatchNorm has a gamma."""
    with (
        slim.arg_scope(slims.nasnet_mobile_arg_scope(weight_decay)),
        slim.arg_scope([slim.batch_norm], scale=batch_norm_scale) as scope,
    ):
        return scope


def build(
    network: Any,
    inputs: Tensor,
    *,
    is_training: bool = False,
    scope: str | None = None,
    reuse: bool | None = None,
    **arguments: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The graph of a network description.

    Args:
      network: has a `stem`, `num_classes` and what `configured` needs.
      inputs: [batch, height, width, channels], height and width in the static shape.
      is_training: whether BatchNorm takes the batch's statistics, and dropout drops.
      scope: the model's variable scope.
      reuse: whether to reuse the variables; needs `scope`.
      arguments: values of slim's configuration by name; None is slim's own.
    """
    cifar = network.stem == "cifar"
    if cifar:
        function, config = slims.build_nasnet_cifar, slims.cifar_config()
    elif network.stem_multiplier == 3:
        function, config = slims.build_nasnet_large, slims.large_imagenet_config()
    else:
        function, config = slims.build_nasnet_mobile, slims.mobile_imagenet_config()
    config = configured(config, network, arguments)
    own = inspect.signature(slims.nasnet_cifar_arg_scope).parameters if cifar else {}
    settings = {name: own[f"batch_norm_{name}"].default for name in ("decay", "epsilon") if own}
    with opened(scope, reuse), slim.arg_scope([slim.batch_norm], **settings):
        net, end_points = function(inputs, network.num_classes, is_training=is_training, config=config)
        return net, with_auxiliary_head(network, end_points, config)


@contextmanager
def opened(scope: str | None, reuse: bool | None) -> Iterator[None]:
    """The model's variable scope. Slim's code looks for a GPU, to advise; here it need not, as TensorFlow fills it."""
    with tf.variable_scope(scope, "", reuse=reuse), mock.patch.object(tf.test, "is_gpu_available", return_value=False):
        yield


def configured(config: Any, network: Any, arguments: Mapping[str, Any]) -> Any:
    """Slim's configuration with a description's `num_cells` and its like, and without drop path."""
    for name in ("num_cells", "num_conv_filters", "stem_multiplier"):
        config.set_hparam(name, getattr(network, name))
    for name, value in {"use_aux_head": network.create_aux_logits, "drop_path_keep_prob": 1.0, **arguments}.items():
        if value is not None:
            config.set_hparam(name, value)
    return config


def with_auxiliary_head(network: Any, end_points: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
    """The end points, with those of the auxiliary head where slim has not built it."""
    if not (network.create_aux_logits and network.num_classes) or "AuxLogits" in end_points:
        return end_points
    cell = nasnet_utils.calc_reduction_layers(config.num_cells, config.num_reduction_layers)[1] - 1
    added: dict[str, Tensor] = {}
    with slim.arg_scope([slim.batch_norm], is_training=False):
        net = tf.nn.relu(end_points[f"Cell_{cell}"])
        slims._build_aux_head(net, added, network.num_classes, config, scope=f"aux_{cell}")
    found = {}
    for name, tensor in end_points.items():
        found[name] = tensor
        if name == f"Cell_{cell}":
            found |= added
    return found
