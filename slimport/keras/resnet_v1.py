"""ResNet v1 (the original units) in Keras 3. Images and activations are NHWC.

Equal to `slimport.nets.resnet_v1`, end point by end point. arXiv:1512.03385.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from slimport import spec
from slimport.keras import layers, resnet
from slimport.keras.layers import Tensor
from slimport.named import generator, named


def bottleneck(inputs: Tensor, unit: spec.PlacedUnit, dtype: Any = None) -> Tensor:
    """The original bottleneck unit, Fig. 5 of arXiv:1512.03385.

    [batch, height, width, depth_in] to [batch, ceil(height / stride), ceil(width / stride), depth].
    """
    scope, inner = unit.scope, unit.depth_bottleneck
    bare = {"normalized": True, "activated": False}
    if unit.projects:
        shortcut = layers.conv2d(inputs, unit.depth, 1, f"{scope}/shortcut", dtype, unit.stride, **bare)
    else:
        shortcut = layers.subsample(inputs, unit.stride, f"{scope}/shortcut", dtype)
    residual = layers.conv2d(inputs, inner, 1, f"{scope}/conv1", dtype, normalized=True)
    residual = layers.conv2d(residual, inner, 3, f"{scope}/conv2", dtype, unit.stride, unit.rate, normalized=True)
    residual = layers.conv2d(residual, unit.depth, 1, f"{scope}/conv3", dtype, **bare)
    return layers.add(shortcut, residual, scope, dtype, activated=True)


build = partial(resnet.build, bottleneck)
resnet_v1 = generator(build, spec.ResNetV1)
resnet_v1_50 = named("resnet_v1_50", resnet_v1)
resnet_v1_101 = named("resnet_v1_101", resnet_v1)
resnet_v1_152 = named("resnet_v1_152", resnet_v1)
resnet_v1_200 = named("resnet_v1_200", resnet_v1)
