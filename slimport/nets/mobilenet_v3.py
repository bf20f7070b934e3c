"""MobileNet v3 in TF-Slim: slim's own code, `research/slim/nets/mobilenet/mobilenet_v3.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

from slimport.nets import mobilenet_v2, research

JUDGE = research.PACKAGE
Tensor = Any
slims = research.module("mobilenet.mobilenet_v3")
arg_scope = mobilenet_v2.arg_scope


def build(network: Any, inputs: Tensor, **arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The graph of a network description, as of MobileNet v2; the description has a `variant` besides."""
    defined = getattr(slims, f"V3_{network.variant.upper()}")
    spec = [layer._replace(op=_pool) if layer.op is slims.reduce_to_1x1 else layer for layer in defined["spec"]]
    function = partial(slims.mobilenet, conv_defs={**defined, "spec": spec})
    return mobilenet_v2.build(network, inputs, function=function, **arguments)


def _pool(net: Tensor, rate: int = 1, **arguments: Any) -> Tensor:
    """Slim's pool, which fails where it is given a rate, as each layer behind the output stride is."""
    del rate
    return slims.reduce_to_1x1(net, **arguments)
