"""OverFeat. Source: `research/slim/nets/overfeat.py` in tensorflow/models; arXiv:1312.6229."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from slimport.graph import Padding
from slimport.networks.alexnet import AlexNetV2


@dataclass(frozen=True)
class OverFeat(AlexNetV2):
    """An OverFeat, of any depths: the layers of AlexNet v2 with other pools and a larger `fc6`.

    `num_classes` None means no `fc8`.
    """

    family: ClassVar[str] = "overfeat"
    title: ClassVar[str] = "OverFeat"
    signature: ClassVar[str] = "conv1 11x11 and conv2 to conv5, fc6 6x6"
    slims_name: ClassVar[str] = "overfeat"
    default_image_size = 231
    pool_size: ClassVar[int] = 2
    conv2_padding: ClassVar[Padding] = "VALID"
    fc6_size: ClassVar[int] = 6
    conv_biases: ClassVar[float] = 0.0

    depths: tuple[int, ...] = (64, 256, 512, 1024, 1024)
    fc_depths: tuple[int, ...] = (3072, 4096)
