"""PNASNet-5 in TF-Slim: slim's own code, `research/slim/nets/nasnet` in tensorflow/models, where it is installed.

The auxiliary head is built in evaluation too, as in `slimport.nets.nasnet`.
"""

from __future__ import annotations

from typing import Any

from slimport.nets import nasnet, research

Tensor = Any
JUDGE = research.PACKAGE
STATIC_SIZE = True
"""Whether slim's code needs the height and width of the images in the static shape."""
slims = research.module("nasnet.pnasnet")
arg_scope = nasnet.arg_scope


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
      network: has `num_classes` and what `slimport.nets.nasnet.configured` needs.
      inputs: [batch, height, width, channels], height and width in the static shape.
      is_training: whether BatchNorm takes the batch's statistics, and dropout drops.
      scope: the model's variable scope.
      reuse: whether to reuse the variables; needs `scope`.
      arguments: values of slim's configuration by name.
    """
    large = network.stem_multiplier == 3
    function = slims.build_pnasnet_large if large else slims.build_pnasnet_mobile
    config = slims.large_imagenet_config() if large else slims.mobile_imagenet_config()
    config = nasnet.configured(config, network, arguments)
    with nasnet.opened(scope, reuse):
        net, end_points = function(inputs, network.num_classes, is_training=is_training, config=config)
        return net, nasnet.with_auxiliary_head(network, end_points, config)
