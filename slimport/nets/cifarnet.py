"""CifarNet in TF-Slim: slim's own code, `research/slim/nets/cifarnet.py`, where it is installed."""

from __future__ import annotations

from typing import Any
from unittest import mock

import tensorflow.compat.v1 as tf

from slimport.nets import research
from slimport.nets.research import lrn

Tensor = Any
JUDGE = research.PACKAGE
STATIC_SIZE = True
"""Whether slim's code needs the height and width of the images in the static shape."""
slims = research.module("cifarnet")
arg_scope = slims.cifarnet_arg_scope


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
      network: has `num_classes`, and `layer_depths` by the layers' scopes.
      inputs: [batch, height, width, channels], height and width in the static shape.
      is_training: whether dropout drops.
      scope: the model's variable scope.
      reuse: whether to reuse the variables.
      arguments: the other arguments of `cifarnet`.
    """
    given = {"is_training": is_training, "scope": scope, **arguments}
    with (
        research.with_depths(slims, network.layer_depths),
        tf.variable_scope(tf.get_variable_scope(), reuse=reuse),
        # TensorFlow's op has no float64 kernel.
        mock.patch.object(tf.nn, "lrn", lrn if inputs.dtype == tf.float64 else tf.nn.lrn),
    ):
        built: tuple[Tensor, dict[str, Tensor]] = slims.cifarnet(inputs, network.num_classes, **given)
        return built
