"""The networks as `torch.nn.Module`s. Parameters have the slim variables' names, with `/` as `.` and leaves renamed."""

from typing import Any

from slimport import functions
from slimport.functions import (
    AnyDeepLabFunction,
    AnyResNetFunction,
    AnyVGGFunction,
    DeepLabFunction,
    InceptionV3Function,
    NetworkFunction,
    ResNetFunction,
    VGGFunction,
    list_models,
)
from slimport.pytorch.inference import Optimized, Trial, fold_batch_norm, optimize_for_inference
from slimport.pytorch.load import build, load, save
from slimport.pytorch.network import FeatureInfo, Network, Part

__all__ = [
    "FeatureInfo",
    "Network",
    "Optimized",
    "Part",
    "Trial",
    "build",
    "create_model",
    "fold_batch_norm",
    "inception_v3",
    "list_models",
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


def create_model(name: str, **arguments: Any) -> Network:
    """A network by its name: `create_model("resnet_v2_50", num_classes=10, in_channels=1, output_stride=16)`.

    Args:
      name: one of `list_models()`.
      arguments: of the function of that name, which `help(slimport.pytorch.resnet_v2_50)` explains.

    Raises:
      ValueError: no network has the name; the message has the nearest.
      TypeError: the network takes no such argument.
    """
    model: Network = functions.create_model(name, build, **arguments)
    return model


def __getattr__(name: str) -> NetworkFunction[Network]:
    """The function of a network whose signature is not written below."""
    if name not in functions.ANY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: NetworkFunction[Network] = functions.function(name, build)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *functions.ANY})


resnet_v1: AnyResNetFunction[Network] = functions.function("resnet_v1", build)
resnet_v1_50: ResNetFunction[Network] = functions.function("resnet_v1_50", build)
resnet_v1_101: ResNetFunction[Network] = functions.function("resnet_v1_101", build)
resnet_v1_152: ResNetFunction[Network] = functions.function("resnet_v1_152", build)
resnet_v1_200: ResNetFunction[Network] = functions.function("resnet_v1_200", build)
resnet_v1_beta: AnyDeepLabFunction[Network] = functions.function("resnet_v1_beta", build)
resnet_v1_18: DeepLabFunction[Network] = functions.function("resnet_v1_18", build)
resnet_v1_18_beta: DeepLabFunction[Network] = functions.function("resnet_v1_18_beta", build)
resnet_v1_50_beta: DeepLabFunction[Network] = functions.function("resnet_v1_50_beta", build)
resnet_v1_101_beta: DeepLabFunction[Network] = functions.function("resnet_v1_101_beta", build)
resnet_v2: AnyResNetFunction[Network] = functions.function("resnet_v2", build)
resnet_v2_50: ResNetFunction[Network] = functions.function("resnet_v2_50", build)
resnet_v2_101: ResNetFunction[Network] = functions.function("resnet_v2_101", build)
resnet_v2_152: ResNetFunction[Network] = functions.function("resnet_v2_152", build)
resnet_v2_200: ResNetFunction[Network] = functions.function("resnet_v2_200", build)
vgg: AnyVGGFunction[Network] = functions.function("vgg", build)
vgg_a: VGGFunction[Network] = functions.function("vgg_a", build)
vgg_16: VGGFunction[Network] = functions.function("vgg_16", build)
vgg_19: VGGFunction[Network] = functions.function("vgg_19", build)
inception_v3: InceptionV3Function[Network] = functions.function("inception_v3", build)
