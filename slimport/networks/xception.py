"""DeepLab's Xception. Source: `research/deeplab/core/xception.py` in tensorflow/models; arXiv:1610.02357."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from slimport import graph
from slimport.graph import Padding, Shape, Tensor, arg_scope, batch_norm, conv2d, end_point, scope, separable_conv2d
from slimport.names import part_number
from slimport.networks.network import Network, Preprocessing, depth_in, depth_out


class Block(NamedTuple):
    """Modules of three separable convolutions, of one kind; the stride is that of the last convolution of each.

    skip: what is added to the result: a 1x1 convolution of the input, the input, or nothing.
    """

    scope: str
    depths: tuple[int, ...]
    skip: Literal["conv", "sum", "none"]
    stride: int = 1
    units: int = 1


@dataclass(frozen=True)
class Xception(Network):
    """An Xception of any depths, with strided separable convolutions for pools. `num_classes` None means no logits.

    Args:
      entry_depths: of the blocks of the entry flow. It has three strides of 2: of more than three blocks, in the odd
        ones.
      middle_units: of the middle flow, as deep as the last block before it.
      exit_depths: of the six separable convolutions of the exit flow.
      root_depths: of `conv1_1` and `conv1_2`.
      regularize_depthwise: whether a depthwise convolution and its pointwise one are one layer, with one BatchNorm.
    """

    family: ClassVar[str] = "xception"
    title: ClassVar[str] = "DeepLab's Xception"
    signature: ClassVar[str] = "entry_flow/block1/unit_1/xception_module"
    classifier: ClassVar[str] = "logits"
    background: ClassVar[bool] = True
    default_image_size = 299

    entry_depths: tuple[int, ...]
    middle_units: int
    num_classes: int | None = None
    in_channels: int = 3
    exit_depths: tuple[int, ...] = (728, 1024, 1024, 1536, 1536, 2048)
    root_depths: tuple[int, ...] = (32, 64)
    regularize_depthwise: bool = False
    final_endpoint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("entry_depths", "exit_depths", "root_depths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.entry_depths or len(self.exit_depths) != 6 or len(self.root_depths) != 2:
            raise ValueError("an Xception has one block or more, 6 exit_depths and 2 root_depths")

    @property
    def name(self) -> str:
        shape = self.entry_depths, self.middle_units
        slims = self.exit_depths == type(self).exit_depths and self.root_depths == type(self).root_depths
        return next((name for name, like in _NAMED.items() if slims and like == shape), self.family)

    @property
    def preprocessing(self) -> Preprocessing:
        return "inception"

    @classmethod
    def named(cls) -> dict[str, Xception]:
        return {name: cls(*like, 1001) for name, like in _NAMED.items()}

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of the three flows."""
        strided = [len(self.entry_depths) <= 3 or i % 2 == 0 for i in range(len(self.entry_depths))]
        entry = [
            Block(f"entry_flow/block{i}", (depth,) * 3, "conv", 2 if by else 1)
            for i, (depth, by) in enumerate(zip(self.entry_depths, strided, strict=True), start=1)
        ]
        middle = Block("middle_flow/block1", self.entry_depths[-1:] * 3, "sum", units=self.middle_units)
        first = Block("exit_flow/block1", self.exit_depths[:3], "conv", 2)
        return *entry, middle, first, Block("exit_flow/block2", self.exit_depths[3:], "none")

    def define(
        self,
        images: Tensor,
        *,
        global_pool: bool = True,
        keep_prob: float = 0.5,
        output_stride: int | None = None,
        multi_grid: Sequence[int] | None = None,
    ) -> Tensor:
        """The network, from images to logits [batch, height, width, num_classes].

        Args:
          global_pool: whether the features are averaged over height and width before the logits.
          keep_prob: the probability that a feature is kept, in training.
          output_stride: ratio of input to output resolution; None for the nominal one.
          multi_grid: a rate for each convolution of the last block, beside that of the output stride; None is 1.
        """
        if output_stride is not None and output_stride % 2:
            raise ValueError(f"output_stride {output_stride} is not a multiple of 2")
        with (
            arg_scope([batch_norm], decay=0.9997, epsilon=0.001, scale=True),
            arg_scope(
                [conv2d, separable_conv2d],
                normalizer=batch_norm,
                initializer=("truncated_normal", 0.09),
                collect=True,
            ),
        ):
            net = graph.conv2d_same(images, self.root_depths[0], 3, 2, scope="entry_flow/conv1_1")
            net = graph.conv2d_same(net, self.root_depths[1], 3, 1, scope="entry_flow/conv1_2")
            net = graph.features(self._stacked(net, output_stride, tuple(multi_grid or (1, 1, 1))))
            # `global_pool` and `predictions` have no scope before them in slim.
            if global_pool:
                net = end_point(graph.mean(net, scope="global_pool"), "global_pool", scoped=False)
            if self.num_classes:
                net = graph.dropout(net, keep_prob, scope="prelogits_dropout")
                net = conv2d(net, self.num_classes, 1, activation=None, normalizer=None, scope="logits")
                end_point(graph.softmax(net, scope="predictions"), "predictions", scoped=False)
            return net

    def _stacked(self, net: Tensor, output_stride: int | None, multi_grid: tuple[int, ...]) -> Tensor:
        """The blocks; once the map has the output stride, later convolutions are dilated for what would be a stride."""
        stride, rate = 2, 1
        for block in self.blocks:
            rates = multi_grid if block.scope == "exit_flow/block2" else (1, 1, 1)
            if len(rates) != 3:
                raise ValueError("multi_grid needs 3 rates")
            with scope(block.scope):
                for number in range(1, block.units + 1):
                    with scope(f"unit_{number}/xception_module"):
                        if stride == output_stride:
                            net = self._module(net, block._replace(stride=1), [rate * by for by in rates])
                            rate *= block.stride
                        else:
                            net = self._module(net, block, rates)
                            stride *= block.stride
                end_point(net)
        if output_stride not in (None, stride):
            raise ValueError(f"output_stride {output_stride} cannot be reached by the strides of {self.name}")
        return net

    def _module(self, net: Tensor, block: Block, rates: Sequence[int]) -> Tensor:
        """`xception_module`."""
        residual = net
        for number, (depth, rate) in enumerate(zip(block.depths, rates, strict=True), start=1):
            stride = block.stride if number == 3 else 1
            # Only the last block has its activations behind the convolutions.
            if block.skip != "none":
                residual = graph.activation(residual, "relu", scope=f"preact{number}")
            residual = self._separable(residual, depth, stride, rate, block.skip == "none", f"separable_conv{number}")
        if block.skip == "conv":
            shortcut = conv2d(net, block.depths[-1], 1, block.stride, activation=None, scope="shortcut")
            residual = graph.add(residual, shortcut)
        elif block.skip == "sum":
            residual = graph.add(residual, net)
        return end_point(residual)

    def _separable(self, net: Tensor, depth: int, stride: int, rate: int, activated: bool, name: str) -> Tensor:
        """`separable_conv2d_same`: padded alike on both sides, where SAME would pad an even side at its end only."""
        padding: Padding = "SAME" if stride == 1 else ((rate, rate), (rate, rate))
        with arg_scope([conv2d, separable_conv2d], activation="relu" if activated else None):
            if self.regularize_depthwise:
                return separable_conv2d(net, depth, 3, 1, stride, padding, rate, scope=name)
            net = separable_conv2d(net, None, 3, 1, stride, padding, rate, regularized=False, scope=f"{name}_depthwise")
            return conv2d(net, depth, 1, scope=f"{name}_pointwise")

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        pattern = re.compile(r"^(?:(.*)/)?entry_flow/block1/unit_1/xception_module/[^/]+/[^/]+$")
        return sorted({match[1] or "" for name in names if (match := pattern.match(name))})

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> Xception:
        def depth(block: str, number: int) -> int | None:
            layer = f"{block}/unit_1/xception_module/separable_conv{number}"
            return depth_out(shapes, f"{layer}_pointwise") or (shapes.get(f"{layer}/pointwise_weights") or (None,))[-1]

        def count(pattern: str, default: int) -> int:
            found = (re.match(pattern, name) for name in shapes)
            return max((part_number(match[1]) for match in found if match), default=default)

        entry = [f"entry_flow/block{i}" for i in range(1, count(r"entry_flow/block(\d+)/unit_", 3) + 1)]
        slims = _NAMED["xception_71" if len(entry) == 5 else "xception_65"][0]
        missing = [*slims, *[slims[-1]] * len(entry)]
        exits = [depth(f"exit_flow/block{block}", number) for block in (1, 2) for number in (1, 2, 3)]
        roots = [depth_out(shapes, f"entry_flow/conv1_{number}") for number in (1, 2)]
        return cls(
            entry_depths=tuple(depth(b, 1) or depth(b, 2) or other for b, other in zip(entry, missing, strict=False)),
            middle_units=count(r"middle_flow/block1/unit_(\d+)/", 16),
            num_classes=depth_out(shapes, cls.classifier),
            in_channels=depth_in(shapes, "entry_flow/conv1_1/weights"),
            exit_depths=tuple(found or other for found, other in zip(exits, cls.exit_depths, strict=True)),
            root_depths=tuple(found or other for found, other in zip(roots, cls.root_depths, strict=True)),
            regularize_depthwise=any(name.endswith("separable_conv1/depthwise_weights") for name in shapes),
        )


_NAMED: dict[str, tuple[tuple[int, ...], int]] = {
    "xception_41": ((128, 256, 728), 8),
    "xception_65": ((128, 256, 728), 16),
    "xception_71": ((128, 256, 256, 728, 728), 16),
}
"""The depths of the entry flow and the units of the middle flow."""
