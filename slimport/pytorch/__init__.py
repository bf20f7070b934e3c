"""The networks as `torch.nn.Module`s. Parameters have the slim variables' names, with `/` as `.` and leaves renamed."""

from slimport.pytorch.inference import Optimized, Trial, fold_batch_norm, optimize_for_inference
from slimport.pytorch.load import build, load, save
from slimport.pytorch.network import Network
from slimport.pytorch.resnet_v1 import ResNetV1, resnet_v1, resnet_v1_50, resnet_v1_101, resnet_v1_152, resnet_v1_200
from slimport.pytorch.resnet_v1_beta import (
    ResNetV1Beta,
    resnet_v1_18,
    resnet_v1_18_beta,
    resnet_v1_50_beta,
    resnet_v1_101_beta,
    resnet_v1_beta,
)
from slimport.pytorch.resnet_v2 import ResNetV2, resnet_v2, resnet_v2_50, resnet_v2_101, resnet_v2_152, resnet_v2_200
from slimport.pytorch.vgg import VGG, vgg, vgg_16, vgg_19, vgg_a

__all__ = [
    "VGG",
    "Network",
    "Optimized",
    "ResNetV1",
    "ResNetV1Beta",
    "ResNetV2",
    "Trial",
    "build",
    "fold_batch_norm",
    "load",
    "optimize_for_inference",
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
    "save",
    "vgg",
    "vgg_16",
    "vgg_19",
    "vgg_a",
]
