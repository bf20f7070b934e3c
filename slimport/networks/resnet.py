"""The common parts of the ResNets: blocks, units, the atrous schedule, the way from images to logits, and recognition.

Sources: `research/slim/nets/resnet_utils.py` in tensorflow/models; arXiv:1512.03385, arXiv:1603.05027.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from slimport.graph import (
    VARIABLE_LEAVES,
    VARIANCE_SCALING,
    Shape,
    Tensor,
    arg_scope,
    batch_norm,
    conv2d,
    conv2d_same,
    end_point,
    features,
    max_pool2d,
    mean,
    scope,
    softmax,
    squeeze,
)
from slimport.names import part_number
from slimport.networks.network import Network, depth_in, depth_out

R = TypeVar("R", bound="ResNet")


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


UnitFn = Callable[[Tensor, Unit], Tensor]


@dataclass(frozen=True)
class ResNet(Network):
    """A ResNet, any number of blocks and units.

    `num_classes` None means no logits. With `include_root_block` False, images enter the first block directly and
    `in_channels` is the depth of what enters.
    """

    classifier: ClassVar[str] = "logits"
    unit_scopes: ClassVar[Mapping[str, str]]
    """The units that the family can have, by their scopes, with the last of their convolutions."""
    depths: ClassVar[Mapping[str, tuple[Block, ...]]]
    """The blocks of the networks that have a name."""

    blocks: tuple[Block, ...]
    num_classes: int | None = None
    in_channels: int = 3
    include_root_block: bool = True
    final_endpoint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if not self.blocks or not all(block.units for block in self.blocks):
            raise ValueError("a ResNet needs at least one block, and every block at least one unit")

    @property
    def name(self) -> str:
        return next((name for name, blocks in self.depths.items() if blocks == self.blocks), self.family)

    @classmethod
    def named(cls: type[R]) -> dict[str, R]:
        return {name: cls(blocks, 1001 if cls.background else 1000) for name, blocks in cls.depths.items()}

    @abstractmethod
    def unit(self, net: Tensor, unit: Unit) -> Tensor:
        """The family's residual unit; its stride and rate are those that the output stride leaves it."""

    def root(self, images: Tensor) -> Tensor:
        """The convolutions before `pool1`."""
        return end_point(conv2d_same(images, 64, 7, 2, scope="conv1"), "conv1")

    def postnorm(self, net: Tensor) -> Tensor:
        """The layers between the blocks and the pooling."""
        return net

    def define(
        self,
        images: Tensor,
        *,
        global_pool: bool = True,
        output_stride: int | None = None,
        spatial_squeeze: bool = True,
    ) -> Tensor:
        """The network, from images to logits.

        Args:
          global_pool: whether the features are averaged over height and width before the logits.
          output_stride: ratio of input to output resolution; None for the nominal one.
          spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map.
        """
        net = images
        with resnet_arg_scope():
            blocks_stride = output_stride
            if self.include_root_block:
                if output_stride is not None:
                    if output_stride % 4:
                        raise ValueError(f"output_stride {output_stride} is not a multiple of 4")
                    blocks_stride = output_stride // 4
                net = max_pool2d(self.root(net), 3, 2, "SAME", scope="pool1")
            try:
                net = stack_blocks_dense(net, self.blocks, self.unit, blocks_stride)
            except ValueError as error:
                reason = f"output_stride {output_stride} cannot be reached by the strides of {self.name}"
                raise ValueError(reason) from error
            net = features(self.postnorm(net))
            # `global_pool` and `predictions` have no scope before them in slim.
            if global_pool:
                net = end_point(mean(net, scope="global_pool"), "global_pool", scoped=False)
            if self.num_classes:
                net = conv2d(
                    net, self.num_classes, 1, activation=None, normalizer=None, collect=True, scope=self.classifier
                )
                if spatial_squeeze:
                    net = squeeze(net, scope="spatial_squeeze", collect=True)
                end_point(softmax(net, scope="predictions"), "predictions", scoped=False)
            return net

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        units, leaves = "|".join(cls.unit_scopes), "|".join(VARIABLE_LEAVES)
        pattern = re.compile(rf"^(?:(.*)/)?block\d+/unit_\d+/(?:{units})/.*/?(?:{leaves})$")
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
        unit_scope, last = next(iter(cls.unit_scopes.items()))
        blocks = infer_blocks(shapes, unit_scope, last)
        has_root = any(name.startswith("conv1/") for name in shapes)
        return cls(
            blocks=blocks,
            num_classes=depth_out(shapes, cls.classifier),
            in_channels=depth_in(
                shapes, "conv1/weights" if has_root else f"{blocks[0].scope}/unit_1/{unit_scope}/conv1/weights"
            ),
            include_root_block=has_root,
        )

    @classmethod
    def from_json(cls: type[R], data: Mapping[str, Any]) -> R:
        blocks = tuple(Block(scope, tuple(Unit(*unit) for unit in units)) for scope, units in data["blocks"])
        return super().from_json({**data, "blocks": blocks})


@contextmanager
def resnet_arg_scope() -> Iterator[None]:
    """Slim's `resnet_arg_scope`: every convolution is normalized and activated."""
    with (
        arg_scope([batch_norm], decay=0.997, epsilon=1e-5, scale=True),
        arg_scope([conv2d], normalizer=batch_norm, initializer=VARIANCE_SCALING),
    ):
        yield


def stack_blocks_dense(net: Tensor, blocks: Sequence[Block], unit_fn: UnitFn, output_stride: int | None) -> Tensor:
    """Stacks blocks under `<block scope>/unit_<n>`, each block's output an end point.

    Once the activations have the requested stride, units stop striding and the 3x3 convolutions of later units are
    dilated by what the strides would have been (`resnet_utils.stack_blocks_dense`).

    Raises:
      ValueError: the output stride is not a product of strides from the start up to some unit.
    """
    stride, rate = 1, 1
    for block in blocks:
        with scope(block.scope):
            for number, unit in enumerate(block.units, start=1):
                with scope(f"unit_{number}"):
                    if stride == output_stride:
                        # The unit that would have strided still runs at the old rate; only those after it see the new.
                        net = unit_fn(net, replace(unit, stride=1, rate=rate * unit.rate))
                        rate *= unit.stride
                    else:
                        net = unit_fn(net, unit)
                        stride *= unit.stride
            end_point(net)
    if output_stride not in (None, stride):
        raise ValueError("the output stride cannot be reached")
    return net


def bottleneck_block(scope: str, base_depth: int, num_units: int, stride: int) -> Block:
    """A block of bottleneck units of depth 4 * base_depth; its stride is in the LAST unit, as slim has it."""
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


def infer_blocks(shapes: Mapping[str, Shape], unit_scope: str, last: str) -> tuple[Block, ...]:
    """The blocks of units of one scope, whose last convolution is `last`, from their kernels' shapes."""
    pattern = re.compile(rf"^(block\d+)/unit_(\d+)/{unit_scope}/(conv1|{last})/weights$")
    depths: dict[str, dict[int, dict[str, int]]] = {}
    for name, shape in shapes.items():
        if match := pattern.match(name):
            if len(shape) != 4:
                raise ValueError(f"{name} has shape {list(shape)}, not a convolution kernel's four sides")
            depths.setdefault(match[1], {}).setdefault(part_number(match[2]), {})[match[3]] = shape[3]
    if not depths:
        raise ValueError(f"no unit has both {unit_scope}/conv1/weights and {last}/weights")
    ordered = sorted(depths, key=lambda scope: part_number(scope.removeprefix("block")))
    blocks = []
    for block in ordered:
        units = depths[block]
        whole = [(found[last], found["conv1"]) for _, found in sorted(units.items()) if len(found) == 2]
        if not whole:
            raise ValueError(f"no unit of {block} has both conv1/weights and {last}/weights")
        last_stride = 1 if block == ordered[-1] else 2
        count = max(units)
        # Units of one block share their depths, so the first whole one speaks for those with a kernel missing.
        placed = [
            Unit(
                depth=units.get(number, {}).get(last, whole[0][0]),
                depth_bottleneck=units.get(number, {}).get("conv1", whole[0][1]),
                stride=last_stride if number == count else 1,
            )
            for number in range(1, count + 1)
        ]
        blocks.append(Block(block, tuple(placed)))
    return tuple(blocks)
