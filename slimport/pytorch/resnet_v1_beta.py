"""DeepLab's ResNets v1 in PyTorch. Images and activations are NCHW.

Equal to `slimport.nets.resnet_v1_beta`, end point by end point. arXiv:1512.03385, arXiv:1706.05587.
"""

from __future__ import annotations

from collections.abc import Sequence

from slimport import spec
from slimport.named import generator, named
from slimport.pytorch import layers
from slimport.pytorch.residual_units import Original
from slimport.pytorch.resnet import ResNet


class LiteBottleneck(Original):
    """The unit of two 3x3 convolutions, Fig. 5 (left) of arXiv:1512.03385, as DeepLab has it.

    The stride sits in the second convolution, both have the atrous rate, and a shortcut between depths is projected.
    """

    def __init__(self, unit: spec.PlacedUnit) -> None:
        super().__init__(unit, bottleneck=False)
        bare = {"normalized": True, "activated": False}
        if unit.projects:
            self.shortcut = layers.Conv2d(unit.depth_in, unit.depth, 1, unit.stride, **bare)
        self.conv1 = layers.Conv2d(unit.depth_in, unit.depth, 3, rate=unit.rate, normalized=True)
        self.conv2 = layers.Conv2d(unit.depth, unit.depth, 3, unit.stride, unit.rate, **bare)


class ResNetV1Beta(ResNet):
    """One of DeepLab's ResNets v1 from its description, a `slimport.spec.ResNetV1Beta`.

    See `ResNet` for the other arguments.

    Args:
      multi_grid: a rate for each unit of the last block, beside that of the output stride; None is a rate of 1.

    Raises:
      ValueError: the rates are not as many as the units, or the output stride cannot be reached.
    """

    network: spec.ResNetV1Beta

    def __init__(
        self,
        network: spec.ResNetV1Beta,
        *,
        global_pool: bool = False,
        output_stride: int | None = None,
        spatial_squeeze: bool = False,
        multi_grid: Sequence[int] | None = None,
        scope: str | None = None,
    ) -> None:
        super().__init__(
            network.with_multi_grid(multi_grid),
            global_pool=global_pool,
            output_stride=output_stride,
            spatial_squeeze=spatial_squeeze,
            scope=scope,
        )
        self.multi_grid = multi_grid

    def unit(self, unit: spec.PlacedUnit) -> Original:
        return LiteBottleneck(unit) if self.network.lite else Original(unit)


build = ResNetV1Beta
resnet_v1_beta = generator(build, spec.ResNetV1Beta)
resnet_v1_18 = named("resnet_v1_18", resnet_v1_beta)
resnet_v1_18_beta = named("resnet_v1_18_beta", resnet_v1_beta)
resnet_v1_50_beta = named("resnet_v1_50_beta", resnet_v1_beta)
resnet_v1_101_beta = named("resnet_v1_101_beta", resnet_v1_beta)
