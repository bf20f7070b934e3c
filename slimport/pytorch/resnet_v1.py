"""ResNet v1 (the original units) in PyTorch. Images and activations are NCHW.

Equal to `slimport.nets.resnet_v1`, end point by end point. arXiv:1512.03385.
"""

from __future__ import annotations

from slimport import spec
from slimport.named import generator, named
from slimport.pytorch.residual_units import Original
from slimport.pytorch.resnet import ResNet


class ResNetV1(ResNet):
    """A ResNet v1 from its description, a `slimport.spec.ResNetV1`. See `ResNet` for the arguments."""

    def unit(self, unit: spec.PlacedUnit) -> Original:
        return Original(unit)


build = ResNetV1
resnet_v1 = generator(build, spec.ResNetV1)
resnet_v1_50 = named("resnet_v1_50", resnet_v1)
resnet_v1_101 = named("resnet_v1_101", resnet_v1)
resnet_v1_152 = named("resnet_v1_152", resnet_v1)
resnet_v1_200 = named("resnet_v1_200", resnet_v1)
