"""DeepLab's ResNets v1 in Keras 3. Images and activations are NHWC.

Equal to `slimport.nets.resnet_v1_beta`, end point by end point. arXiv:1512.03385, arXiv:1706.05587.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slimport import spec
from slimport.keras import layers, resnet
from slimport.keras.layers import Tensor
from slimport.keras.resnet_v1 import bottleneck
from slimport.named import generator, named


def lite_bottleneck(inputs: Tensor, unit: spec.PlacedUnit, dtype: Any = None) -> Tensor:
    """The unit of two 3x3 convolutions, Fig. 5 (left) of arXiv:1512.03385; its stride sits in the second.

    [batch, height, width, depth_in] to [batch, ceil(height / stride), ceil(width / stride), depth].
    """
    scope, depth, rate = unit.scope, unit.depth, unit.rate
    bare = {"normalized": True, "activated": False}
    if unit.projects:
        shortcut = layers.conv2d(inputs, depth, 1, f"{scope}/shortcut", dtype, unit.stride, **bare)
    else:
        shortcut = layers.subsample(inputs, unit.stride, f"{scope}/shortcut", dtype)
    residual = layers.conv2d(inputs, depth, 3, f"{scope}/conv1", dtype, 1, rate, normalized=True)
    residual = layers.conv2d(residual, depth, 3, f"{scope}/conv2", dtype, unit.stride, rate, **bare)
    return layers.add(shortcut, residual, scope, dtype, activated=True)


def build(
    network: spec.ResNetV1Beta,
    *,
    global_pool: bool = False,
    output_stride: int | None = None,
    spatial_squeeze: bool = False,
    multi_grid: Sequence[int] | None = None,
    scope: str | None = None,
    dtype: Any = None,
) -> Any:
    """One of DeepLab's ResNets v1 from its description. See `resnet.build` for the other arguments.

    Args:
      multi_grid: a rate for each unit of the last block, beside that of the output stride; None is a rate of 1.

    Raises:
      ValueError: the rates are not as many as the units, or the output stride cannot be reached.
    """
    return resnet.build(
        lite_bottleneck if network.lite else bottleneck,
        network.with_multi_grid(multi_grid),
        global_pool=global_pool,
        output_stride=output_stride,
        spatial_squeeze=spatial_squeeze,
        scope=scope,
        dtype=dtype,
    )


resnet_v1_beta = generator(build, spec.ResNetV1Beta)
resnet_v1_18 = named("resnet_v1_18", resnet_v1_beta)
resnet_v1_18_beta = named("resnet_v1_18_beta", resnet_v1_beta)
resnet_v1_50_beta = named("resnet_v1_50_beta", resnet_v1_beta)
resnet_v1_101_beta = named("resnet_v1_101_beta", resnet_v1_beta)
