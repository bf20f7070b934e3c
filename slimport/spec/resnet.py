"""What the ResNets share: blocks, units, the atrous schedule, and their inference from variables.

Sources: `research/slim/nets/resnet_utils.py` in tensorflow/models; arXiv:1512.03385, arXiv:1603.05027.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

from slimport.spec.network import VARIABLE_LEAVES, Network, Shape, batch_norm, conv, depth_in, scoped

R = TypeVar("R", bound="ResNet")


class UnitKind(NamedTuple):
    """A residual unit's scope and its residual's convolutions, first to last."""

    scope: str
    convolutions: tuple[str, ...] = ("conv1", "conv2", "conv3")


@dataclass(frozen=True)
class Unit:
    """One residual unit: output channels, channels of its 3x3 convolution, stride, and its own atrous rate."""

    depth: int
    depth_bottleneck: int
    stride: int = 1
    rate: int = 1


@dataclass(frozen=True)
class Block:
    """A named run of residual units."""

    scope: str
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class PlacedUnit:
    """A unit at its place in the network, with the stride and atrous rate that the output stride leaves it."""

    scope: str
    depth_in: int
    depth: int
    depth_bottleneck: int
    stride: int
    rate: int
    ends_block: str | None
    """The block's scope if this is its last unit."""

    @property
    def projects(self) -> bool:
        """Whether the shortcut is a 1x1 convolution; otherwise it is the input itself, subsampled by the stride."""
        return self.depth != self.depth_in


@dataclass(frozen=True)
class RootConvolution:
    """A convolution between the images and `pool1`."""

    scope: str
    kernel_size: int
    depth_in: int
    depth: int
    stride: int


@dataclass(frozen=True)
class ResNet(Network):
    """A ResNet, any number of blocks and units.

    `num_classes` None means no logits. With `include_root_block` False, images enter the first block directly and
    `in_channels` is the depth of what enters.
    """

    kinds: ClassVar[tuple[UnitKind, ...]]
    """The units that the family can have; a network has one kind."""
    preactivation: ClassVar[bool]
    """Whether units normalize and activate their input; the root does not then, and `postnorm` follows the blocks."""
    classifier: ClassVar[str] = "logits"
    depths: ClassVar[Mapping[str, tuple[Block, ...]]]
    """The blocks of the networks that have a name."""
    arguments: ClassVar[Mapping[str, Any]] = {"global_pool": True, "output_stride": None, "spatial_squeeze": True}

    blocks: tuple[Block, ...]
    num_classes: int | None = None
    in_channels: int = 3
    include_root_block: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        # slim treats 0 classes like None.
        object.__setattr__(self, "num_classes", self.num_classes or None)
        if not self.blocks or not all(block.units for block in self.blocks):
            raise ValueError("a ResNet needs at least one block, and every block at least one unit")

    @property
    def name(self) -> str:
        return next((name for name, blocks in self.depths.items() if blocks == self.blocks), self.family)

    @classmethod
    def named(cls: type[R]) -> dict[str, R]:
        return {name: cls(blocks, 1001 if cls.background else 1000) for name, blocks in cls.depths.items()}

    @property
    def kind(self) -> UnitKind:
        """The kind of its units."""
        return self.kinds[0]

    @property
    def root(self) -> tuple[RootConvolution, ...]:
        """The convolutions before `pool1`; none without a root block."""
        return (RootConvolution("conv1", 7, self.in_channels, 64, 2),) if self.include_root_block else ()

    @property
    def depth_out(self) -> int:
        """Channels of the features that the logits take."""
        return self.blocks[-1].units[-1].depth

    def units(self, output_stride: int | None = None) -> list[PlacedUnit]:
        """The units in order, with strides and atrous rates for an output stride.

        Once the activations have the requested stride, units stop striding and the 3x3 convolutions of later
        units are dilated by what the strides would have been (`resnet_utils.stack_blocks_dense`).

        Raises:
          ValueError: the output stride is not a product of strides from the start up to some unit (times the root's 4).
        """
        target = output_stride
        if target is not None and self.include_root_block:
            if target % 4:
                raise ValueError(f"output_stride {output_stride} is not a multiple of 4")
            target //= 4
        placed: list[PlacedUnit] = []
        stride_so_far, rate = 1, 1
        depth_in = self.root[-1].depth if self.include_root_block else self.in_channels
        for block in self.blocks:
            for number, unit in enumerate(block.units, start=1):
                dense = stride_so_far == target
                placed.append(
                    PlacedUnit(
                        scope=f"{block.scope}/unit_{number}/{self.kind.scope}",
                        depth_in=depth_in,
                        depth=unit.depth,
                        depth_bottleneck=unit.depth_bottleneck,
                        stride=1 if dense else unit.stride,
                        rate=(rate if dense else 1) * unit.rate,
                        ends_block=block.scope if number == len(block.units) else None,
                    )
                )
                # The unit that would have strided still runs at the old rate; only those after it see the new one.
                if dense:
                    rate *= unit.stride
                else:
                    stride_so_far *= unit.stride
                depth_in = unit.depth
        if target is not None and stride_so_far != target:
            raise ValueError(f"output_stride {output_stride} cannot be reached by the strides of {self.name}")
        return placed

    @abstractmethod
    def unit_variables(self, unit: PlacedUnit) -> Iterator[tuple[str, Shape]]:
        """The variables of one unit, in the order in which slim creates them."""

    def _variables(self) -> Iterator[tuple[str, Shape]]:
        for root in self.root:
            yield from conv(root.scope, root.kernel_size, root.depth_in, root.depth, normalized=not self.preactivation)
        for unit in self.units():
            yield from self.unit_variables(unit)
        if self.preactivation:
            yield from batch_norm("postnorm", self.depth_out)
        if self.num_classes:
            yield from conv(self.classifier, 1, self.depth_out, self.num_classes)

    def end_points(self, scope: str, **arguments: Any) -> list[str]:
        """The names of slim's `end_points`, in slim's order.

        `global_pool` and `predictions` carry no scope; that is slim's own doing.
        """
        settings = self.with_defaults(arguments)
        names = [root.scope for root in self.root]
        for unit in self.units():
            if unit.projects:
                names.append(f"{unit.scope}/shortcut")
            names += [f"{unit.scope}/{layer}" for layer in self.kind.convolutions]
            names.append(unit.scope)
            if unit.ends_block:
                names.append(unit.ends_block)
        names = [scoped(scope, name) for name in names]
        if settings["global_pool"]:
            names.append("global_pool")
        if self.num_classes:
            names.append(scoped(scope, "logits"))
            if settings["spatial_squeeze"]:
                names.append(scoped(scope, "spatial_squeeze"))
            names.append("predictions")
        return names

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        kinds, leaves = "|".join(kind.scope for kind in cls.kinds), "|".join(VARIABLE_LEAVES)
        pattern = re.compile(rf"^(?:(.*)/)?block\d+/unit_\d+/(?:{kinds})/.*/?(?:{leaves})$")
        return sorted({match[1] or "" for name in names if (match := pattern.match(name))})

    @classmethod
    def infer(cls: type[R], shapes: Mapping[str, Shape]) -> R:
        """The network whose variables these are (names relative to its scope, shapes HWIO).

        Strides leave no trace in variables: slim's own are taken, 2 in the last unit of every block but the last.
        A unit that is missing altogether between others gets its neighbour's depths, so that comparing with
        `variables()` names what is missing.

        Raises:
          ValueError: the shapes are not those of this family, whatever the numbers of units and depths.
        """
        blocks = cls._infer_blocks(shapes, cls.kinds[0])
        has_root = any(name.startswith("conv1/") for name in shapes)
        unit = f"{blocks[0].scope}/unit_1/{cls.kinds[0].scope}/conv1/weights"
        return cls(
            blocks=blocks,
            num_classes=cls._infer_classes(shapes),
            in_channels=depth_in(shapes, "conv1/weights" if has_root else unit),
            include_root_block=has_root,
        )

    @staticmethod
    def _infer_classes(shapes: Mapping[str, Shape]) -> int | None:
        logits = shapes.get("logits/weights") or shapes.get("logits/biases")
        return logits[-1] if logits else None

    @staticmethod
    def _infer_blocks(shapes: Mapping[str, Shape], kind: UnitKind) -> tuple[Block, ...]:
        first, last = kind.convolutions[0], kind.convolutions[-1]
        pattern = re.compile(rf"^(block\d+)/unit_(\d+)/{kind.scope}/({first}|{last})/weights$")
        depths: dict[str, dict[int, dict[str, int]]] = {}
        for name, shape in shapes.items():
            if match := pattern.match(name):
                if len(shape) != 4:
                    raise ValueError(f"{name} has shape {list(shape)}, not a convolution kernel's four sides")
                depths.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = shape[3]
        if not depths:
            raise ValueError(f"no unit has both {kind.scope}/{first}/weights and {last}/weights")
        ordered = sorted(depths, key=lambda scope: int(scope.removeprefix("block")))
        blocks = []
        for scope in ordered:
            whole = [(found[last], found[first]) for _, found in sorted(depths[scope].items()) if len(found) == 2]
            if not whole:
                raise ValueError(f"no unit of {scope} has both {first}/weights and {last}/weights")
            last_stride = 1 if scope == ordered[-1] else 2
            count = max(depths[scope])
            # Units of one block share their depths, so the first whole one speaks for those with a kernel missing.
            units = [
                Unit(
                    depth=depths[scope].get(number, {}).get(last, whole[0][0]),
                    depth_bottleneck=depths[scope].get(number, {}).get(first, whole[0][1]),
                    stride=last_stride if number == count else 1,
                )
                for number in range(1, count + 1)
            ]
            blocks.append(Block(scope, tuple(units)))
        return tuple(blocks)

    @classmethod
    def from_json(cls: type[R], data: Mapping[str, Any]) -> R:
        blocks = tuple(Block(scope, tuple(Unit(*unit) for unit in units)) for scope, units in data["blocks"])
        return super().from_json({**data, "blocks": blocks})


def bottleneck_block(scope: str, base_depth: int, num_units: int, stride: int) -> Block:
    """A block of bottleneck units of depth 4 * base_depth; its stride sits in the LAST unit, as slim has it."""
    plain, last = Unit(base_depth * 4, base_depth), Unit(base_depth * 4, base_depth, stride)
    return Block(scope, (plain,) * (num_units - 1) + (last,))


def bottleneck_blocks(num_units: Sequence[int]) -> tuple[Block, ...]:
    """The four blocks of table 1 of arXiv:1512.03385."""
    base_depths, strides = (64, 128, 256, 512), (2, 2, 2, 1)
    return tuple(
        bottleneck_block(f"block{i}", *block)
        for i, block in enumerate(zip(base_depths, num_units, strides, strict=True), start=1)
    )


# 50, 101 and 152 are table 1 of arXiv:1512.03385; 200 is in arXiv:1603.05027.
BOTTLENECK_BLOCKS = {
    50: bottleneck_blocks((3, 4, 6, 3)),
    101: bottleneck_blocks((3, 4, 23, 3)),
    152: bottleneck_blocks((3, 8, 36, 3)),
    200: bottleneck_blocks((3, 24, 36, 3)),
}
