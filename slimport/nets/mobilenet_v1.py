"""MobileNet v1 in TF-Slim: slim's own code, `research/slim/nets/mobilenet_v1.py`."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import mock

import tf_slim as slim

from slimport.nets import research

JUDGE = research.PACKAGE
Tensor = Any
slims = research.module("mobilenet_v1")


def arg_scope(weight_decay: float = 0.00004, batch_norm_scale: bool = True) -> Any:
    """Slim's `mobilenet_v1_arg_scope`, whose BatchNorm has a gamma if not told otherwise."""
    with (
        slim.arg_scope(slims.mobilenet_v1_arg_scope(is_training=None, weight_decay=weight_decay)),
        slim.arg_scope([slim.batch_norm], scale=batch_norm_scale) as scope,
    ):
        return scope


def build(
    network: Any,
    inputs: Tensor,
    *,
    is_training: bool = False,
    scope: str | None = None,
    output_stride: int | None = None,
    use_explicit_padding: bool = False,
    **arguments: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The graph of a network description.

    Args:
      network: has `num_classes`, `depth_multiplier` and `min_depth`.
      inputs: [batch, height, width, channels].
      is_training, scope: as of `mobilenet_v1`.
      output_stride, use_explicit_padding: of `mobilenet_v1_base`, to which slim's classifier does not pass them on.
      arguments: of `mobilenet_v1`: `global_pool`, `spatial_squeeze`, `dropout_keep_prob`, `reuse`.
    """
    base = partial(slims.mobilenet_v1_base, output_stride=output_stride, use_explicit_padding=use_explicit_padding)
    with mock.patch.object(slims, "mobilenet_v1_base", base):
        return slims.mobilenet_v1(  # type: ignore[no-any-return]
            inputs,
            network.num_classes,
            is_training=is_training,
            min_depth=network.min_depth,
            depth_multiplier=network.depth_multiplier,
            scope=scope,
            **arguments,
        )
