"""OverFeat in TF-Slim: slim's own code, `research/slim/nets/overfeat.py`, where it is installed."""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from slimport.nets import research

Tensor = Any
JUDGE = research.PACKAGE
slims = research.module("overfeat")
arg_scope = slims.overfeat_arg_scope


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
      inputs: [batch, height, width, channels].
      is_training: whether dropout drops.
      scope: the model's variable scope.
      reuse: whether to reuse the variables.
      arguments: the other arguments of `overfeat`.
    """
    given = {"is_training": is_training, "scope": scope, **arguments}
    with research.with_depths(slims, network.layer_depths), tf.variable_scope(tf.get_variable_scope(), reuse=reuse):
        built: tuple[Tensor, dict[str, Tensor]] = slims.overfeat(inputs, network.num_classes, **given)
        return built
