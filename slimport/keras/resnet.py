"""What the ResNets share in Keras 3: from images to logits, around a stack of units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from slimport import spec
from slimport.keras import layers
from slimport.keras.layers import Tensor

UnitFn = Callable[[Tensor, spec.PlacedUnit, Any], Tensor]


def build(
    unit_fn: UnitFn,
    network: spec.ResNet,
    *,
    global_pool: bool = True,
    output_stride: int | None = None,
    spatial_squeeze: bool = True,
    scope: str | None = None,
    dtype: Any = None,
) -> Any:
    """A ResNet from its description.

    Args:
      unit_fn: the family's residual unit, from a tensor, a placed unit and a dtype to a tensor.
      network: the description.
      global_pool: whether the features are averaged over height and width before the logits.
      output_stride: ratio of input to output resolution; None for the nominal one.
      spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map, or [batch, h, w, num_classes].
      scope: the model's scope in the names of its end points; None for slim's.
      dtype: dtype or policy of every layer; None for Keras's global one.

    Returns:
      A functional `keras.Model` from images [batch, height, width, in_channels], of any size, to logits, or to features
      where there are no classes.

    Raises:
      ValueError: the output stride cannot be reached.
    """
    images = layers.images(network.in_channels, dtype)
    net = images
    for root in network.root:
        # Before a preactivation, neither BatchNorm nor ReLU: the first unit does both (appendix of arXiv:1603.05027).
        normalized = not network.preactivation
        net = layers.conv2d(net, root.depth, root.kernel_size, root.scope, dtype, root.stride, normalized=normalized)
    if network.include_root_block:
        net = layers.max_pool2d(net, 3, 2, "pool1", dtype)
    for unit in network.units(output_stride):
        net = unit_fn(net, unit, dtype)
        if unit.ends_block:
            # The block's own end point; the same tensor as its last unit's.
            net = keras.layers.Identity(dtype=dtype, name=layers.layer_name(unit.ends_block))(net)
    if network.preactivation:
        net = layers.batch_norm_relu(net, "postnorm", dtype)
    if global_pool:
        net = keras.layers.GlobalAveragePooling2D(keepdims=True, dtype=dtype, name="global_pool")(net)
    if network.num_classes:
        net = layers.conv2d(net, network.num_classes, 1, "logits", dtype)
        if spatial_squeeze:
            net = keras.layers.Reshape((network.num_classes,), dtype=dtype, name="spatial_squeeze")(net)
    return layers.model(images, net, network.default_scope if scope is None else scope)
