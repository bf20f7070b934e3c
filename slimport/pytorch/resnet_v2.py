"""ResNet v2 (full preactivation) in PyTorch. Images and activations are NCHW.

Equal to `slimport.nets.resnet_v2`, end point by end point. arXiv:1603.05027.
"""

from __future__ import annotations

from slimport import spec
from slimport.named import generator, named
from slimport.pytorch.residual_units import FullPreactivation
from slimport.pytorch.resnet import ResNet


class ResNetV2(ResNet):
    """A ResNet v2 from its description, a `slimport.spec.ResNetV2`. See `ResNet` for the arguments."""

    def unit(self, unit: spec.PlacedUnit) -> FullPreactivation:
        return FullPreactivation(unit)


build = ResNetV2
resnet_v2 = generator(build, spec.ResNetV2)
resnet_v2_50 = named("resnet_v2_50", resnet_v2)
resnet_v2_101 = named("resnet_v2_101", resnet_v2)
resnet_v2_152 = named("resnet_v2_152", resnet_v2)
resnet_v2_200 = named("resnet_v2_200", resnet_v2)
