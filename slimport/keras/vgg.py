"""VGG in Keras 3. Images and activations are NHWC.

Equal to `slimport.nets.vgg`, end point by end point. arXiv:1409.1556.
"""

from __future__ import annotations

from typing import Any

import keras

from slimport import spec
from slimport.keras import layers
from slimport.named import generator, named


def build(
    network: spec.VGG,
    *,
    dropout_keep_prob: float = 0.5,
    spatial_squeeze: bool = True,
    fc_conv_padding: str = "VALID",
    global_pool: bool = False,
    scope: str | None = None,
    dtype: Any = None,
) -> Any:
    """A VGG from its description.

    Args:
      network: the description, a `slimport.spec.VGG`.
      dropout_keep_prob: the probability that an activation is kept, in training.
      spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map, or [batch, h, w, num_classes].
      fc_conv_padding: of `fc6`, which is 7x7: VALID makes the map of logits (side / 32) - 6, SAME side / 32.
      global_pool: whether what `fc8` takes is averaged over height and width, which VGG itself does not do.
      scope: the model's scope in the names of its end points; None for slim's.
      dtype: dtype or policy of every layer; None for Keras's global one.

    Returns:
      A functional `keras.Model` from images [batch, height, width, in_channels], of any size, to logits, or to what
      they would be computed from.
    """

    def dropout(net: layers.Tensor, scope: str) -> layers.Tensor:
        return keras.layers.Dropout(1 - dropout_keep_prob, dtype=dtype, name=scope)(net)

    images = layers.images(network.in_channels, dtype)
    net = images
    for number, (block, scopes) in enumerate(zip(network.blocks, network.convolutions, strict=True), start=1):
        for convolution in scopes:
            net = layers.conv2d(net, block.depth, 3, convolution, dtype, activated=True)
        net = keras.layers.MaxPooling2D(2, dtype=dtype, name=f"pool{number}")(net)
    fc6, fc7 = network.fc_depths
    net = layers.conv2d(net, fc6, 7, "fc6", dtype, activated=True, valid=fc_conv_padding == "VALID")
    net = layers.conv2d(dropout(net, "dropout6"), fc7, 1, "fc7", dtype, activated=True)
    if global_pool:
        net = keras.layers.GlobalAveragePooling2D(keepdims=True, dtype=dtype, name="global_pool")(net)
    if network.num_classes:
        net = layers.conv2d(dropout(net, "dropout7"), network.num_classes, 1, "fc8", dtype)
        if spatial_squeeze:
            net = keras.layers.Reshape((network.num_classes,), dtype=dtype, name="fc8__squeezed")(net)
    return layers.model(images, net, network.default_scope if scope is None else scope)


vgg = generator(build, spec.VGG)
vgg_a = named("vgg_a", vgg)
vgg_16 = named("vgg_16", vgg)
vgg_19 = named("vgg_19", vgg)
