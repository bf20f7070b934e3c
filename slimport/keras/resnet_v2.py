"""ResNet v2 (full preactivation) in Keras 3. Images and activations are NHWC.

Equal to `slimport.nets.resnet_v2`, end point by end point. arXiv:1603.05027.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from slimport import spec
from slimport.keras import layers, resnet
from slimport.keras.layers import Tensor
from slimport.named import generator, named


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
    return layers.add(shortcut, residual, scope, dtype)


build = partial(resnet.build, bottleneck)
resnet_v2 = generator(build, spec.ResNetV2)
resnet_v2_50 = named("resnet_v2_50", resnet_v2)
resnet_v2_101 = named("resnet_v2_101", resnet_v2)
resnet_v2_152 = named("resnet_v2_152", resnet_v2)
resnet_v2_200 = named("resnet_v2_200", resnet_v2)
