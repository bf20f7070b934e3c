"""DeepLab's ResNets v1. Source: `research/deeplab/core/resnet_v1_beta.py` in tensorflow/models; arXiv:1706.05587."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from slimport.graph import Shape, Tensor, add, arg_scope, conv2d, conv2d_same, end_point, scope, scoped
from slimport.networks.network import Preprocessing, depth_in, depth_out
from slimport.networks.resnet import BOTTLENECK_BLOCKS, Block, Unit, infer_blocks
from slimport.networks.resnet_v1 import ResNetV1, bottleneck, carry


def lite_bottleneck(inputs: Tensor, unit: Unit) -> Tensor:
    """The unit of two 3x3 convolutions, Fig. 5 (left) of arXiv:1512.03385; its stride is in the second."""
    with scope("lite_bottleneck_v1"), arg_scope([conv2d], collect=True):
        shortcut = carry(inputs, unit)
        residual = conv2d_same(inputs, unit.depth, 3, 1, unit.rate, scope="conv1")
        residual = conv2d_same(residual, unit.depth, 3, unit.stride, unit.rate, activation=None, scope="conv2")
        return end_point(add(shortcut, residual, activation="relu"))


def lite_block(scope: str, depth: int, num_units: int, stride: int) -> Block:
    """A block of `lite_bottleneck`s; its stride is in the last unit."""
    return Block(scope, (Unit(depth, depth),) * (num_units - 1) + (Unit(depth, depth, stride),))


_LITE_BLOCKS = tuple(lite_block(f"block{i}", 32 << i, 2, 1 if i == 4 else 2) for i in (1, 2, 3, 4))
_LITE = "lite_bottleneck_v1"


@dataclass(frozen=True)
class ResNetV1Beta(ResNetV1):
    """A ResNet v1 with the root of three 3x3 convolutions, with units of two 3x3 convolutions, or with both.

    DeepLab trains them with a decay of 0.95 of the moving averages, where slim has 0.997.

    What has neither is a `ResNetV1`. A root block is always included. See `ResNet`.
    """

    family: ClassVar[str] = "resnet_v1_beta"
    title: ClassVar[str] = "DeepLab's ResNet v1"
    signature: ClassVar[str] = "lite_bottleneck_v1 units, or conv1_1 before bottleneck_v1 units"
    unit_scopes: ClassVar[dict[str, str]] = {"bottleneck_v1": "conv3", _LITE: "conv2"}

    root_depths: tuple[int, ...] = (64, 64, 128)
    """Of `conv1_1`, `conv1_2` and `conv1_3`; a single one is that of a 7x7 `conv1`."""
    lite: bool = False
    """Whether units are `lite_bottleneck`s; `depth_bottleneck` is then their depth."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "root_depths", tuple(self.root_depths))
        if not self.include_root_block or len(self.root_depths) not in (1, 3):
            raise ValueError("DeepLab's ResNets begin with one convolution or with three")

    @property
    def name(self) -> str:
        mine = replace(self.with_multi_grid(None), num_classes=None, in_channels=3)
        return next((name for name, network in self.named().items() if network == mine), self.family)

    @property
    def default_scope(self) -> str:
        return self.name.removesuffix("_beta")

    # DeepLab's feature_extractor.py subtracts the means for its networks that begin with a 7x7 convolution.
    @property
    def preprocessing(self) -> Preprocessing:
        return "deeplab" if len(self.root_depths) == 1 else "inception"

    @classmethod
    def named(cls) -> dict[str, ResNetV1Beta]:
        """DeepLab's own; features without logits, as it uses them."""
        return {
            "resnet_v1_18": cls(_LITE_BLOCKS, root_depths=(64,), lite=True),
            "resnet_v1_18_beta": cls(_LITE_BLOCKS, root_depths=(16, 16, 32), lite=True),
            "resnet_v1_50_beta": cls(BOTTLENECK_BLOCKS[50]),
            "resnet_v1_101_beta": cls(BOTTLENECK_BLOCKS[101]),
        }

    def unit(self, net: Tensor, unit: Unit) -> Tensor:
        return lite_bottleneck(net, unit) if self.lite else bottleneck(net, unit)

    def root(self, images: Tensor) -> Tensor:
        if len(self.root_depths) == 1:
            return end_point(conv2d_same(images, self.root_depths[0], 7, 2, scope="conv1"), "conv1")
        net = images
        for number, depth in enumerate(self.root_depths, start=1):
            name = f"conv1_{number}"
            net = end_point(conv2d_same(net, depth, 3, 2 if number == 1 else 1, scope=name), name)
        return net

    def define(
        self,
        images: Tensor,
        *,
        global_pool: bool = False,
        output_stride: int | None = None,
        spatial_squeeze: bool = False,
        multi_grid: Sequence[int] | None = None,
    ) -> Tensor:
        """The network, from images to features or logits. See `ResNet.define`.

        Args:
          multi_grid: a rate for each unit of the last block, beside that of the output stride; None is a rate of 1.
        """
        network = self.with_multi_grid(multi_grid)
        settings = {"global_pool": global_pool, "output_stride": output_stride, "spatial_squeeze": spatial_squeeze}
        return super(ResNetV1Beta, network).define(images, **settings)  # type: ignore[arg-type]

    def with_multi_grid(self, multi_grid: Sequence[int] | None) -> ResNetV1Beta:
        """The network whose last block's units have these rates; None is a rate of 1.

        Raises:
          ValueError: the last block has more or fewer units.
        """
        *before, last = self.blocks
        rates = [1] * len(last.units) if multi_grid is None else multi_grid
        if len(rates) != len(last.units):
            raise ValueError(f"multi_grid needs {len(last.units)} rates, one for each unit of {last.scope}")
        units = tuple(replace(unit, rate=rate) for unit, rate in zip(last.units, rates, strict=True))
        return replace(self, blocks=(*before, Block(last.scope, units)))

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        """Those of a ResNet v1 that has `conv1_1` or lite units."""
        names = list(names)
        marks = ("conv1_1/", "conv1_2/", "conv1_3/")

        def is_beta(scope: str) -> bool:
            inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix := scoped(scope, ""))]
            return any(name.startswith(marks) or f"/{_LITE}/" in name for name in inside)

        return [scope for scope in super().scopes(names) if is_beta(scope)]

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> ResNetV1Beta:
        lite = any(f"/{_LITE}/" in name for name in shapes)
        unit_scope = _LITE if lite else "bottleneck_v1"
        root = [shapes.get(f"conv1_{i}/weights", (3, 3, 3, depth)) for i, depth in enumerate(cls.root_depths, start=1)]
        plain = any(name.startswith("conv1/") for name in shapes)
        return cls(
            blocks=infer_blocks(shapes, unit_scope, cls.unit_scopes[unit_scope]),
            num_classes=depth_out(shapes, cls.classifier),
            in_channels=depth_in(shapes, "conv1/weights" if plain else "conv1_1/weights"),
            root_depths=(64,) if plain else tuple(kernel[-1] for kernel in root),
            lite=lite,
        )
