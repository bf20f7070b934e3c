"""The networks as plain functional `keras.Model`s of stock layers, named by slim's scopes with `/` spelled `__`.

A saved `.keras` file loads where slimport is not installed, on every backend. Images and activations are NHWC.
"""

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
from slimport.keras.end_points import end_points
from slimport.keras.load import load
from slimport.keras.network import build

__all__ = [
    "build",
    "create_model",
    "end_points",
    "inception_v3",
    "list_models",
    "load",
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


def create_model(name: str, **arguments: Any) -> Any:
    """A `keras.Model` by its name: `create_model("resnet_v2_50", num_classes=10, in_channels=1, output_stride=16)`.

    Args:
      name: one of `list_models()`.
      arguments: of the function of that name, which `help(slimport.keras.resnet_v2_50)` explains.

    Raises:
      ValueError: no network has the name; the message has the nearest.
      TypeError: the network takes no such argument.
    """
    return functions.create_model(name, build, **arguments)


def __getattr__(name: str) -> NetworkFunction[Any]:
    """The function of a network whose signature is not written below."""
    if name not in functions.ANY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: NetworkFunction[Any] = functions.function(name, build)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *functions.ANY})


resnet_v1: AnyResNetFunction[Any] = functions.function("resnet_v1", build)
resnet_v1_50: ResNetFunction[Any] = functions.function("resnet_v1_50", build)
resnet_v1_101: ResNetFunction[Any] = functions.function("resnet_v1_101", build)
resnet_v1_152: ResNetFunction[Any] = functions.function("resnet_v1_152", build)
resnet_v1_200: ResNetFunction[Any] = functions.function("resnet_v1_200", build)
resnet_v1_beta: AnyDeepLabFunction[Any] = functions.function("resnet_v1_beta", build)
resnet_v1_18: DeepLabFunction[Any] = functions.function("resnet_v1_18", build)
resnet_v1_18_beta: DeepLabFunction[Any] = functions.function("resnet_v1_18_beta", build)
resnet_v1_50_beta: DeepLabFunction[Any] = functions.function("resnet_v1_50_beta", build)
resnet_v1_101_beta: DeepLabFunction[Any] = functions.function("resnet_v1_101_beta", build)
resnet_v2: AnyResNetFunction[Any] = functions.function("resnet_v2", build)
resnet_v2_50: ResNetFunction[Any] = functions.function("resnet_v2_50", build)
resnet_v2_101: ResNetFunction[Any] = functions.function("resnet_v2_101", build)
resnet_v2_152: ResNetFunction[Any] = functions.function("resnet_v2_152", build)
resnet_v2_200: ResNetFunction[Any] = functions.function("resnet_v2_200", build)
vgg: AnyVGGFunction[Any] = functions.function("vgg", build)
vgg_a: VGGFunction[Any] = functions.function("vgg_a", build)
vgg_16: VGGFunction[Any] = functions.function("vgg_16", build)
vgg_19: VGGFunction[Any] = functions.function("vgg_19", build)
inception_v3: InceptionV3Function[Any] = functions.function("inception_v3", build)
