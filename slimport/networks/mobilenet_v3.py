"""MobileNet v3. Source: `research/slim/nets/mobilenet/mobilenet_v3.py` in tensorflow/models; arXiv:1905.02244."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, TypeVar

from slimport.graph import Shape
from slimport.networks.mobilenet import Block, Conv, Layer, MobileNet, Pool
from slimport.networks.mobilenet_v2 import scopes

L = TypeVar("L", bound=Layer)
Layers = tuple[Layer, ...]


def _halved(layers: Layers, first: int, last: int) -> Layers:
    """The layers of slim's detection variants, whose last blocks are half as wide."""
    narrow = (layer._replace(depth=layer.depth // 2) for layer in layers[first : last + 1])
    return (*layers[:first], *narrow, *layers[last + 1 :])


def _minimalistic(layers: Layers) -> Layers:
    """The layers without squeeze and excitation, hard swish and 5x5 kernels."""

    def plain(layer: Layer) -> Layer:
        if isinstance(layer, Block):
            return layer._replace(kernel=3, activation="relu", squeeze=False)
        return layer._replace(activation="relu") if isinstance(layer, Conv) else layer

    return tuple(map(plain, layers))


# Tables 1 and 2 of arXiv:1905.02244. Expansions are slim's, of which its multiples of 8 follow.
_relu = partial(Block, activation="relu")
_swish = partial(Block, activation="hard_swish")
_end = partial(Conv, 1, activation="hard_swish")
_LARGE: Layers = (
    Conv(3, 16, 2, "hard_swish"),
    _relu(3, 1, 16),
    _relu(3, 4, 24, 2),
    _relu(3, 3, 24),
    _relu(5, 3, 40, 2, squeeze=True),
    *[_relu(5, 3, 40, squeeze=True)] * 2,
    _swish(3, 6, 80, 2),
    _swish(3, 2.5, 80),
    *[_swish(3, 184 / 80, 80)] * 2,
    *[_swish(3, 6, 112, squeeze=True)] * 2,
    _swish(5, 6, 160, 2, squeeze=True),
    *[_swish(5, 6, 160, squeeze=True)] * 2,
    _end(960),
    Pool(7),
    _end(1280, normalized=False),
)
_SMALL: Layers = (
    Conv(3, 16, 2, "hard_swish"),
    _relu(3, 1, 16, 2, squeeze=True),
    _relu(3, 72 / 16, 24, 2),
    _relu(3, 88 / 24, 24),
    _swish(5, 4, 40, 2, squeeze=True),
    *[_swish(5, 6, 40, squeeze=True)] * 2,
    *[_swish(5, 3, 48, squeeze=True)] * 2,
    _swish(5, 6, 96, 2, squeeze=True),
    *[_swish(5, 6, 96, squeeze=True)] * 2,
    _end(576),
    Pool(7),
    _end(1024, normalized=False),
)
_fused = partial(Block, activation="relu", fused=True)
_EDGETPU: Layers = (
    Conv(3, 32, 2, "relu"),
    _fused(3, 1, 16),
    _fused(3, 8, 32, 2),
    *[_fused(3, 4, 32)] * 3,
    _fused(3, 8, 48, 2),
    *[_fused(3, 4, 48)] * 3,
    _relu(3, 8, 96, 2),
    *[_relu(3, 4, 96)] * 3,
    _relu(3, 8, 96, residual=False),
    *[_relu(3, 4, 96)] * 3,
    _relu(5, 8, 160, 2),
    *[_relu(5, 4, 160)] * 3,
    _relu(3, 8, 192),
    Conv(1, 1280, activation="relu"),
)
VARIANTS: dict[str, Layers] = {
    "large": _LARGE,
    "small": _SMALL,
    "large_minimalistic": _minimalistic(_LARGE),
    "small_minimalistic": _minimalistic(_SMALL),
    "large_detection": _halved(_LARGE, 13, 16),
    "small_detection": _halved(_SMALL, 9, 12),
    "edgetpu": _EDGETPU,
}


@dataclass(frozen=True)
class MobileNetV3(MobileNet):
    """A MobileNet v3, or a MobileNet EdgeTPU.

    Args:
      variant: a key of `VARIANTS`.
    """

    family: ClassVar[str] = "mobilenet_v3"
    title: ClassVar[str] = "MobileNet v3"
    signature: ClassVar[str] = "expanded_conv/project and expanded_conv_1/expand"

    variant: str = "large"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in VARIANTS:
            raise ValueError(f"no MobileNet v3 is named {self.variant!r}; there are {', '.join(VARIANTS)}")

    @property
    def layers(self) -> Layers:
        return VARIANTS[self.variant]

    @property
    def default_scope(self) -> str:
        return "MobilenetEdgeTPU" if self.variant == "edgetpu" else "MobilenetV3"

    @classmethod
    def named(cls) -> dict[str, MobileNetV3]:
        names = {name: "mobilenet_edgetpu" if name == "edgetpu" else f"mobilenet_v3_{name}" for name in VARIANTS}
        narrow = partial(cls, 1001, depth_multiplier=0.75, finegrain_classification_mode=True)
        return {name: cls(1001, variant=variant) for variant, name in names.items()} | {
            f"{names[variant]}_075": narrow(variant=variant) for variant in ("large", "small", "edgetpu")
        }

    def trunk(self, shapes: Mapping[str, Shape]) -> MobileNetV3 | None:
        """As of every network, but not up to the pool, whose input is what detectors and DeepLab take."""
        found = super().trunk(shapes)
        for number, layer in enumerate(self.layers):
            if isinstance(layer, Pool) and found and found.final_endpoint == f"layer_{number + 1}":
                return replace(found, final_endpoint=f"layer_{number}")
        return found

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        return scopes(names)

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> MobileNetV3:
        found = []
        for variant in VARIANTS:
            try:
                network = cls(variant=variant).fitted(shapes)
            except ValueError:
                continue
            found.append((sum(shapes.get(name) == shape for name, shape in network.variables().items()), network))
        if not found:
            raise ValueError("its depths are not those of one variant and depth multiplier")
        return max(found, key=lambda one: one[0])[1]
