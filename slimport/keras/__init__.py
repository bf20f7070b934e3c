"""The networks as plain functional `keras.Model`s of stock layers, named by slim's scopes with `/` spelled `__`.

A saved `.keras` file loads where slimport is not installed, on every backend. Images and activations are NHWC.
"""

from slimport.keras.build import build
from slimport.keras.end_points import end_points
from slimport.keras.resnet_v1 import resnet_v1, resnet_v1_50, resnet_v1_101, resnet_v1_152, resnet_v1_200
from slimport.keras.resnet_v1_beta import (
    resnet_v1_18,
    resnet_v1_18_beta,
    resnet_v1_50_beta,
    resnet_v1_101_beta,
    resnet_v1_beta,
)
from slimport.keras.resnet_v2 import resnet_v2, resnet_v2_50, resnet_v2_101, resnet_v2_152, resnet_v2_200
from slimport.keras.vgg import vgg, vgg_16, vgg_19, vgg_a

__all__ = [
    "build",
    "end_points",
    "resnet_v1",
    "resnet_v1_18",
    "resnet_v1_18_beta",
    "resnet_v1_50",
    "resnet_v1_50_beta",
    "resnet_v1_101",
    "resnet_v1_101_beta",
    "resnet_v1_152",
    "resnet_v1_200",
    "resnet_v1_beta",
    "resnet_v2",
    "resnet_v2_50",
    "resnet_v2_101",
    "resnet_v2_152",
    "resnet_v2_200",
    "vgg",
    "vgg_16",
    "vgg_19",
    "vgg_a",
]
