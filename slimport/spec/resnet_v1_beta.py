"""DeepLab's ResNets v1. Source: `research/deeplab/core/resnet_v1_beta.py` in tensorflow/models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from slimport.spec.network import Preprocessing, Shape, conv, depth_in, scoped
from slimport.spec.resnet import BOTTLENECK_BLOCKS, Block, PlacedUnit, RootConvolution, Unit, UnitKind
from slimport.spec.resnet_v1 import ResNetV1


def lite_block(scope: str, depth: int, num_units: int, stride: int) -> Block:
    """A block of units of two 3x3 convolutions (`lite_bottleneck`); its stride sits in the last unit."""
    return Block(scope, (Unit(depth, depth),) * (num_units - 1) + (Unit(depth, depth, stride),))


_LITE_BLOCKS = tuple(lite_block(f"block{i}", 32 << i, 2, 1 if i == 4 else 2) for i in (1, 2, 3, 4))


@dataclass(frozen=True)
class ResNetV1Beta(ResNetV1):
    """A ResNet v1 with the root of three 3x3 convolutions, with units of two 3x3 convolutions, or with both.

    What has neither is a `ResNetV1`. A root block is always included. See `ResNet`.
    """

    family: ClassVar[str] = "resnet_v1_beta"
    title: ClassVar[str] = "DeepLab's ResNet v1"
    landmark: ClassVar[str] = "lite_bottleneck_v1 units, or conv1_1 before bottleneck_v1 units"
    kinds: ClassVar[tuple[UnitKind, ...]] = (
        UnitKind("bottleneck_v1"),
        UnitKind("lite_bottleneck_v1", ("conv1", "conv2")),
    )
    # `multi_grid` is a rate for each unit of the last block, beside that of the output stride.
    arguments: ClassVar[Mapping[str, Any]] = {
        "global_pool": False,
        "output_stride": None,
        "spatial_squeeze": False,
        "multi_grid": None,
    }

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
        return "vgg" if len(self.root_depths) == 1 else "inception"

    @classmethod
    def named(cls) -> dict[str, ResNetV1Beta]:
        """DeepLab's own; features without logits, as it uses them."""
        return {
            "resnet_v1_18": cls(_LITE_BLOCKS, root_depths=(64,), lite=True),
            "resnet_v1_18_beta": cls(_LITE_BLOCKS, root_depths=(16, 16, 32), lite=True),
            "resnet_v1_50_beta": cls(BOTTLENECK_BLOCKS[50]),
            "resnet_v1_101_beta": cls(BOTTLENECK_BLOCKS[101]),
        }

    @property
    def kind(self) -> UnitKind:
        return self.kinds[self.lite]

    @property
    def root(self) -> tuple[RootConvolution, ...]:
        if len(self.root_depths) == 1:
            return (RootConvolution("conv1", 7, self.in_channels, self.root_depths[0], 2),)
        first, second, third = self.root_depths
        return (
            RootConvolution("conv1_1", 3, self.in_channels, first, 2),
            RootConvolution("conv1_2", 3, first, second, 1),
            RootConvolution("conv1_3", 3, second, third, 1),
        )

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

    def unit_variables(self, unit: PlacedUnit) -> Iterator[tuple[str, Shape]]:
        if not self.lite:
            yield from super().unit_variables(unit)
            return
        if unit.projects:
            yield from conv(f"{unit.scope}/shortcut", 1, unit.depth_in, unit.depth, normalized=True)
        yield from conv(f"{unit.scope}/conv1", 3, unit.depth_in, unit.depth, normalized=True)
        yield from conv(f"{unit.scope}/conv2", 3, unit.depth, unit.depth, normalized=True)

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        """Those of a ResNet v1 that has `conv1_1` or lite units."""
        names = list(names)
        marks = ("conv1_1/", "conv1_2/", "conv1_3/")

        def is_beta(scope: str) -> bool:
            inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix := scoped(scope, ""))]
            return any(name.startswith(marks) or f"/{cls.kinds[True].scope}/" in name for name in inside)

        return [scope for scope in super().scopes(names) if is_beta(scope)]

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> ResNetV1Beta:
        lite = any(f"/{cls.kinds[True].scope}/" in name for name in shapes)
        root = [shapes.get(f"conv1_{i}/weights", (3, 3, 3, depth)) for i, depth in enumerate(cls.root_depths, start=1)]
        plain = any(name.startswith("conv1/") for name in shapes)
        return cls(
            blocks=cls._infer_blocks(shapes, cls.kinds[lite]),
            num_classes=cls._infer_classes(shapes),
            in_channels=depth_in(shapes, "conv1/weights" if plain else "conv1_1/weights"),
            root_depths=(64,) if plain else tuple(kernel[-1] for kernel in root),
            lite=lite,
        )
