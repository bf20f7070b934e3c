"""ResNet v2 (full preactivation) in Keras 3. Images and activations are NHWC.

Equal to `slimport.nets.resnet_v2`, end point by end point. arXiv:1603.05027.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import keras

from slimport import spec
from slimport.keras import layers
from slimport.keras.layers import Tensor


def bottleneck(inputs: Tensor, unit: spec.PlacedUnit, dtype: Any = None) -> Tensor:
    """The full preactivation bottleneck unit, Fig. 1(b) of arXiv:1603.05027.

    [batch, height, width, depth_in] to [batch, ceil(height / stride), ceil(width / stride), depth].
    """
    scope, inner = unit.scope, unit.depth_bottleneck
    preact = layers.batch_norm_relu(inputs, f"{scope}/preact", dtype)
    # A projection takes the preactivation; only the identity takes the input itself.
    if unit.projects:
        shortcut = layers.conv2d(preact, unit.depth, 1, f"{scope}/shortcut", dtype, unit.stride)
    else:
        shortcut = layers.subsample(inputs, unit.stride, f"{scope}/shortcut", dtype)
    residual = layers.conv2d(preact, inner, 1, f"{scope}/conv1", dtype, normalized=True)
    residual = layers.conv2d(residual, inner, 3, f"{scope}/conv2", dtype, unit.stride, unit.rate, normalized=True)
    residual = layers.conv2d(residual, unit.depth, 1, f"{scope}/conv3", dtype)
    return keras.layers.Add(dtype=dtype, name=layers.layer_name(scope))([shortcut, residual])


def build(
    network: spec.ResNetV2,
    *,
    global_pool: bool = True,
    output_stride: int | None = None,
    spatial_squeeze: bool = True,
    scope: str | None = None,
    dtype: Any = None,
) -> Any:
    """A ResNet v2 from its description.

    Args:
      network: the description, a `slimport.spec.ResNetV2`.
      global_pool: whether the features are averaged over height and width before the logits.
      output_stride: ratio of input to output resolution; None for the nominal one.
      spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map, or [batch, h, w, num_classes].
      scope: the model's scope in the names of its end points; None for the network's name.
      dtype: dtype or policy of every layer; None for Keras's global one.

    Returns:
      A functional `keras.Model` from images [batch, height, width, in_channels], of any size, to logits, or to features
      where there are no classes.

    Raises:
      ValueError: the output stride cannot be reached.
    """
    images = keras.Input((None, None, network.in_channels), dtype=dtype and keras.DTypePolicy(dtype).compute_dtype)
    net = images
    if network.include_root_block:
        # Neither BatchNorm nor ReLU: the first unit's preactivation does both (appendix of arXiv:1603.05027).
        net = layers.conv2d(net, network.root_depth, 7, "conv1", dtype, 2)
        net = layers.max_pool2d(net, 3, 2, "pool1", dtype)
    for unit in network.units(output_stride):
        net = bottleneck(net, unit, dtype)
        if unit.ends_block:
            # The block's own end point; the same tensor as its last unit's.
            net = keras.layers.Identity(dtype=dtype, name=layers.layer_name(unit.ends_block))(net)
    net = layers.batch_norm_relu(net, "postnorm", dtype)
    if global_pool:
        net = keras.layers.GlobalAveragePooling2D(keepdims=True, dtype=dtype, name="global_pool")(net)
    if network.num_classes:
        net = layers.conv2d(net, network.num_classes, 1, "logits", dtype)
        if spatial_squeeze:
            net = keras.layers.Reshape((network.num_classes,), dtype=dtype, name="spatial_squeeze")(net)
    return keras.Model(images, net, name=layers.layer_name(network.name if scope is None else scope) or None)


def resnet_v2(
    blocks: Sequence[spec.Block],
    num_classes: int | None = None,
    global_pool: bool = True,
    output_stride: int | None = None,
    include_root_block: bool = True,
    spatial_squeeze: bool = True,
    *,
    in_channels: int = 3,
    scope: str | None = None,
    dtype: Any = None,
) -> Any:
    """A ResNet v2 of any blocks (`slimport.spec.resnet_v2_block` makes them). See `build` for the arguments."""
    network = spec.ResNetV2(tuple(blocks), num_classes, in_channels, include_root_block)
    return build(
        network,
        global_pool=global_pool,
        output_stride=output_stride,
        spatial_squeeze=spatial_squeeze,
        scope=scope,
        dtype=dtype,
    )


class NetworkFn(Protocol):
    """Makes a network of fixed depth, with slim's default of ImageNet's 1001 classes."""

    def __call__(
        self,
        num_classes: int | None = 1001,
        global_pool: bool = True,
        output_stride: int | None = None,
        spatial_squeeze: bool = True,
        *,
        in_channels: int = 3,
        scope: str | None = None,
        dtype: Any = None,
    ) -> Any: ...


def _network_fn(name: str) -> NetworkFn:
    def network_fn(
        num_classes: int | None = 1001,
        global_pool: bool = True,
        output_stride: int | None = None,
        spatial_squeeze: bool = True,
        *,
        in_channels: int = 3,
        scope: str | None = None,
        dtype: Any = None,
    ) -> Any:
        return resnet_v2(
            spec.RESNET_V2_BLOCKS[name],
            num_classes,
            global_pool,
            output_stride,
            spatial_squeeze=spatial_squeeze,
            in_channels=in_channels,
            scope=scope,
            dtype=dtype,
        )

    network_fn.__name__ = network_fn.__qualname__ = name
    network_fn.__doc__ = f"{name}. See `build` for the arguments."
    return network_fn


resnet_v2_50 = _network_fn("resnet_v2_50")
resnet_v2_101 = _network_fn("resnet_v2_101")
resnet_v2_152 = _network_fn("resnet_v2_152")
resnet_v2_200 = _network_fn("resnet_v2_200")
