"""MobileNet v2 in TF-Slim: slim's own code, `research/slim/nets/mobilenet/mobilenet_v2.py`."""

from __future__ import annotations

from typing import Any

import tf_slim as slim

from slimport.nets import research

JUDGE = research.PACKAGE
Tensor = Any
lib = research.module("mobilenet.mobilenet")
mobilenet = research.module("mobilenet.mobilenet_v2").mobilenet


def arg_scope(weight_decay: float = 0.00004, batch_norm_scale: bool = True) -> Any:
    """Slim's `training_scope`; its networks have a gamma, which is 1 where a file has none."""
    del batch_norm_scale
    return lib.training_scope(is_training=None, weight_decay=weight_decay)


def build(
    network: Any,
    inputs: Tensor,
    *,
    is_training: bool = False,
    scope: str | None = None,
    dropout_keep_prob: float = 0.8,
    function: Any = mobilenet,
    **arguments: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The graph of a network description.

    Args:
      network: a `MobileNet`; one that ends at a layer, or in it, is built up to there.
      inputs: [batch, height, width, channels].
      is_training, scope: as of `mobilenet`.
      dropout_keep_prob: the probability that a feature is kept.
      function: slim's.
      arguments: of the function: `output_stride`, `use_explicit_padding`, `reuse`.
    """
    end = (network.final_endpoint or "").partition("/")[0]
    if end.startswith("layer_"):
        arguments |= {"base_only": True, "final_endpoint": end}
    with (
        slim.arg_scope([lib.depth_multiplier], min_depth=network.min_depth, divisible_by=network.divisible_by),
        slim.arg_scope([slim.dropout], keep_prob=dropout_keep_prob),
    ):
        return function(  # type: ignore[no-any-return]
            inputs,
            network.num_classes,
            depth_multiplier=network.depth_multiplier,
            finegrain_classification_mode=network.finegrain_classification_mode,
            is_training=is_training,
            scope=network.default_scope if scope is None else scope,
            # Its own pool needs to know the size of the map.
            use_reduce_mean_for_pooling=None in inputs.shape.as_list()[1:3],
            **arguments,
        )
