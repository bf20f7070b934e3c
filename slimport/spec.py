"""The networks as data: blocks, units, depths, strides, the atrous schedule, variables and end points.

Everything that the ports, the recogniser and the tests need to agree on is derived here, once. No framework is
imported. Names are slim's, relative to the model's scope unless a function says otherwise.

A family is one class here (its entry in `FAMILIES`) and one module of the family's name in each of `slimport.nets`,
`slimport.pytorch` and `slimport.keras`.

Sources: `research/slim/nets/resnet_v2.py` and `resnet_utils.py` in tensorflow/models; arXiv:1603.05027.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

Shape = tuple[int, ...]

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_DECAY = 0.997
VARIABLE_LEAVES = ("weights", "biases", "gamma", "beta", "moving_mean", "moving_variance")


@dataclass(frozen=True)
class Unit:
    """One residual unit: output channels, channels of its 3x3 convolution, stride."""

    depth: int
    depth_bottleneck: int
    stride: int = 1


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
class ResNetV2:
    """A ResNet v2 (full preactivation), any number of blocks and units.

    `num_classes` None means no logits. With `include_root_block` False, images enter `block1` directly and
    `in_channels` is the depth of what enters.
    """

    family: ClassVar[str] = "resnet_v2"
    unit_scope: ClassVar[str] = "bottleneck_v2"
    root_depth: ClassVar[int] = 64
    default_image_size: ClassVar[int] = 224

    blocks: tuple[Block, ...]
    num_classes: int | None = None
    in_channels: int = 3
    include_root_block: bool = True
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        # slim treats 0 classes like None.
        object.__setattr__(self, "num_classes", self.num_classes or None)
        if not self.blocks or not all(block.units for block in self.blocks):
            raise ValueError("a ResNet needs at least one block, and every block at least one unit")
        known = next((name for name, blocks in RESNET_V2_BLOCKS.items() if blocks == self.blocks), self.family)
        object.__setattr__(self, "name", known)

    @property
    def depth_out(self) -> int:
        """Channels of `postnorm`, and of the features that the logits take."""
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
        depth_in = self.root_depth if self.include_root_block else self.in_channels
        for block in self.blocks:
            for number, unit in enumerate(block.units, start=1):
                dense = stride_so_far == target
                placed.append(
                    PlacedUnit(
                        scope=f"{block.scope}/unit_{number}/{self.unit_scope}",
                        depth_in=depth_in,
                        depth=unit.depth,
                        depth_bottleneck=unit.depth_bottleneck,
                        stride=1 if dense else unit.stride,
                        rate=rate if dense else 1,
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

    def variables(self) -> dict[str, Shape]:
        """Every model variable with its shape (kernels HWIO), in the order in which slim creates them."""
        return dict(self._variables())

    def _variables(self) -> Iterator[tuple[str, Shape]]:
        if self.include_root_block:
            yield from _conv("conv1", 7, self.in_channels, self.root_depth)
        for unit in self.units():
            inner = unit.depth_bottleneck
            yield from _batch_norm(f"{unit.scope}/preact", unit.depth_in)
            if unit.projects:
                yield from _conv(f"{unit.scope}/shortcut", 1, unit.depth_in, unit.depth)
            yield from _conv(f"{unit.scope}/conv1", 1, unit.depth_in, inner, normalized=True)
            yield from _conv(f"{unit.scope}/conv2", 3, inner, inner, normalized=True)
            yield from _conv(f"{unit.scope}/conv3", 1, inner, unit.depth)
        yield from _batch_norm("postnorm", self.depth_out)
        if self.num_classes:
            yield from _conv("logits", 1, self.depth_out, self.num_classes)

    def end_points(self, scope: str, *, global_pool: bool = True, spatial_squeeze: bool = True) -> list[str]:
        """The names of slim's `end_points`, in slim's order.

        `global_pool` and `predictions` carry no scope; that is slim's own doing.
        """
        names = ["conv1"] if self.include_root_block else []
        for unit in self.units():
            layers = ("shortcut", "conv1", "conv2", "conv3") if unit.projects else ("conv1", "conv2", "conv3")
            names += [f"{unit.scope}/{layer}" for layer in layers]
            names.append(unit.scope)
            if unit.ends_block:
                names.append(unit.ends_block)
        names = [scoped(scope, name) for name in names]
        if global_pool:
            names.append("global_pool")
        if self.num_classes:
            names.append(scoped(scope, "logits"))
            if spatial_squeeze:
                names.append(scoped(scope, "spatial_squeeze"))
            names.append("predictions")
        return names

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        """The scopes under which variables of this family stand, sorted."""
        pattern = re.compile(rf"^(?:(.*)/)?block\d+/unit_\d+/{cls.unit_scope}/.*/?(?:{'|'.join(VARIABLE_LEAVES)})$")
        return sorted({match[1] or "" for name in names if (match := pattern.match(name))})

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> ResNetV2:
        """The network whose variables these are (names relative to its scope, shapes HWIO).

        Strides leave no trace in variables: slim's own are taken, 2 in the last unit of every block but the last.
        A unit that is missing altogether between others gets its neighbour's depths, so that comparing with
        `variables()` names what is missing.

        Raises:
          ValueError: the shapes are not those of this family, whatever the numbers of units and depths.
        """
        pattern = re.compile(rf"^(block\d+)/unit_(\d+)/{cls.unit_scope}/conv([13])/weights$")
        depths: dict[str, dict[int, dict[int, int]]] = {}
        for name, shape in shapes.items():
            if match := pattern.match(name):
                if len(shape) != 4:
                    raise ValueError(f"{name} has shape {list(shape)}, not a convolution kernel's four sides")
                depths.setdefault(match[1], {}).setdefault(int(match[2]), {})[int(match[3])] = shape[3]
        if not depths:
            raise ValueError(f"no unit has both {cls.unit_scope}/conv1/weights and conv3/weights")
        ordered = sorted(depths, key=lambda scope: int(scope.removeprefix("block")))
        blocks = []
        for scope in ordered:
            whole = [(found[3], found[1]) for _, found in sorted(depths[scope].items()) if len(found) == 2]
            if not whole:
                raise ValueError(f"no unit of {scope} has both conv1/weights and conv3/weights")
            last_stride = 1 if scope == ordered[-1] else 2
            count = max(depths[scope])
            # Units of one block share their depths, so the first whole one speaks for those with a kernel missing.
            units = [
                Unit(
                    depth=depths[scope].get(number, {}).get(3, whole[0][0]),
                    depth_bottleneck=depths[scope].get(number, {}).get(1, whole[0][1]),
                    stride=last_stride if number == count else 1,
                )
                for number in range(1, count + 1)
            ]
            blocks.append(Block(scope, tuple(units)))
        root = shapes.get("conv1/weights")
        first = shapes.get(f"{ordered[0]}/unit_1/{cls.unit_scope}/conv1/weights")
        has_root = root is not None or "conv1/biases" in shapes
        entry = root if has_root else first
        logits = shapes.get("logits/weights") or shapes.get("logits/biases")
        return cls(
            blocks=tuple(blocks),
            num_classes=logits[-1] if logits else None,
            in_channels=entry[2] if entry is not None and len(entry) == 4 else 3,
            include_root_block=has_root,
        )

    def to_json(self) -> dict[str, Any]:
        """What is needed to build the network again, as plain JSON values."""
        return {
            "family": self.family,
            "name": self.name,
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "include_root_block": self.include_root_block,
            "blocks": [[b.scope, [[u.depth, u.depth_bottleneck, u.stride] for u in b.units]] for b in self.blocks],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ResNetV2:
        """The inverse of `to_json`."""
        return cls(
            blocks=tuple(Block(scope, tuple(Unit(*unit) for unit in units)) for scope, units in data["blocks"]),
            num_classes=data["num_classes"],
            in_channels=data["in_channels"],
            include_root_block=data["include_root_block"],
        )


def scoped(scope: str, name: str) -> str:
    """`name` under `scope`; an empty scope adds nothing."""
    return f"{scope}/{name}" if scope else name


def resnet_v2_block(scope: str, base_depth: int, num_units: int, stride: int) -> Block:
    """A block of bottleneck units of depth 4 * base_depth; its stride sits in the LAST unit, as slim has it."""
    plain, last = Unit(base_depth * 4, base_depth), Unit(base_depth * 4, base_depth, stride)
    return Block(scope, (plain,) * (num_units - 1) + (last,))


def _resnet_v2_blocks(num_units: Sequence[int]) -> tuple[Block, ...]:
    base_depths, strides = (64, 128, 256, 512), (2, 2, 2, 1)
    return tuple(
        resnet_v2_block(f"block{i}", *block)
        for i, block in enumerate(zip(base_depths, num_units, strides, strict=True), start=1)
    )


# 50, 101 and 152 are table 1 of arXiv:1512.03385; 200 is in arXiv:1603.05027.
RESNET_V2_BLOCKS: dict[str, tuple[Block, ...]] = {
    "resnet_v2_50": _resnet_v2_blocks((3, 4, 6, 3)),
    "resnet_v2_101": _resnet_v2_blocks((3, 4, 23, 3)),
    "resnet_v2_152": _resnet_v2_blocks((3, 8, 36, 3)),
    "resnet_v2_200": _resnet_v2_blocks((3, 24, 36, 3)),
}

NETWORKS = {name: ResNetV2(blocks, 1001) for name, blocks in RESNET_V2_BLOCKS.items()}

# One family so far; with the second one this becomes the union of their classes.
Network = ResNetV2
FAMILIES: dict[str, type[Network]] = {ResNetV2.family: ResNetV2}


def from_json(data: Mapping[str, Any]) -> Network:
    """The network that a `to_json` described.

    Raises:
      ValueError: an unknown family, or a description that lacks something.
    """
    family = data.get("family")
    if family not in FAMILIES:
        raise ValueError(f"unknown network family {family!r}; this version knows {', '.join(sorted(FAMILIES))}")
    try:
        return FAMILIES[family].from_json(data)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the description of the {family} network is not complete: {error!r}") from error


def _conv(
    scope: str, kernel_size: int, depth_in: int, depth: int, *, normalized: bool = False
) -> Iterator[tuple[str, Shape]]:
    yield f"{scope}/weights", (kernel_size, kernel_size, depth_in, depth)
    if normalized:
        yield from _batch_norm(f"{scope}/BatchNorm", depth)
    else:
        yield f"{scope}/biases", (depth,)


def _batch_norm(scope: str, depth: int) -> Iterator[tuple[str, Shape]]:
    for leaf in ("gamma", "beta", "moving_mean", "moving_variance"):
        yield f"{scope}/{leaf}", (depth,)
