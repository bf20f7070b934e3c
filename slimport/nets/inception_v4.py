"""Inception v4 in TF-Slim: slim's own `research/slim/nets/inception_v4.py`, where it is installed.

Christian Szegedy, Sergey Ioffe, Vincent Vanhoucke, Alex Alemi. Inception-v4, Inception-ResNet and the Impact of
Residual Connections on Learning. arXiv:1602.07261
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slimport.nets import research
from slimport.nets.inception import changed, normalized, replaced, with_depths

Tensor = Any
JUDGE = research.PACKAGE
slims = research.module("inception_v4")
arg_scope = slims.inception_v4_arg_scope


def build(
    network: Any,
    inputs: Tensor,
    *,
    is_training: bool = False,
    scope: str | None = None,
    reuse: bool | None = None,
    dropout_keep_prob: float = 0.8,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The graph of a network description.

    Args:
      network: has `num_classes`, `create_aux_logits`, `batch_norm_scale`, `depth_multiplier`, `depth`, and `blocks`
        by their scopes.
      inputs: [batch, height, width, channels]; with auxiliary logits, of a known size.
      is_training: whether BatchNorm uses the batch's statistics, and dropout drops.
      scope: the model's variable scope.
      reuse: whether to reuse the variables; needs `scope`.
      dropout_keep_prob: the probability that a feature is kept.
    """
    slim = changed(slims.slim, with_depths(network))
    with normalized(network), replaced(slims, slim=slim, **_blocks(network)):
        net, end_points = slims.inception_v4(
            inputs,
            network.num_classes,
            is_training=is_training,
            dropout_keep_prob=dropout_keep_prob,
            reuse=reuse,
            scope=scope,
            create_aux_logits=network.create_aux_logits,
        )
    absent = [name for name in end_points if name.startswith("Mixed_") and name not in network.blocks]
    return net, {name: end_point for name, end_point in end_points.items() if name not in absent}


def _blocks(network: Any) -> dict[str, Callable[..., Tensor]]:
    """Slim's repeated blocks, which leave out those that the network does not have."""

    def block(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda net, scope: function(net, scope) if scope in network.blocks else net

    return {
        name: block(getattr(slims, name)) for name in ("block_inception_a", "block_inception_b", "block_inception_c")
    }
