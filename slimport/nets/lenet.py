"""LeNet in TF-Slim: slim's own code, `research/slim/nets/lenet.py`, where it is installed."""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from slimport.nets import research

Tensor = Any
JUDGE = research.PACKAGE
STATIC_SIZE = True
"""Whether slim's code needs the height and width of the images in the static shape."""
slims = research.module("lenet")
arg_scope = slims.lenet_arg_scope


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
      arguments: the other arguments of `lenet`.
    """
    given = {"is_training": is_training, "scope": scope, **arguments}
    with research.with_depths(slims, network.layer_depths), tf.variable_scope(tf.get_variable_scope(), reuse=reuse):
        built: tuple[Tensor, dict[str, Tensor]] = slims.lenet(inputs, network.num_classes, **given)
        return built
