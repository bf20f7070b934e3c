"""What NASNet-A and PNASNet-5 share: cells, stem and heads.

Sources: `research/slim/nets/nasnet/nasnet_utils.py` and `nasnet.py` in tensorflow/models; arXiv:1707.07012.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar

from slimport import graph
from slimport.graph import Shape, Sides, Tensor, add, arg_scope, batch_norm, concat, conv2d, scope, separable_conv2d
from slimport.graph_ops import pad, strided_slice
from slimport.names import part_number
from slimport.networks.network import Network, depth_in, depth_out

T = TypeVar("T", bound="CellNetwork")
point = partial(graph.end_point, scoped=False)


class Cell(NamedTuple):
    """A cell, from the layer before and the one before that.

    sums: five, each a new hidden state; of each of two states, its number and what is done with it. States 0 and 1 are
      the two layers.
    first: the state from which on all states are concatenated.
    """

    sums: tuple[str, ...]
    first: int


@dataclass(frozen=True)
class CellNetwork(Network):
    """A network of cells of any number and depth. `num_classes` None means no logits, and no auxiliary ones.

    Drop path, which is the identity in evaluation, is not in it.

    Args:
      num_cells: without those of the stem and the reduction cells.
      num_conv_filters: the depth of the first cells, which is doubled twice.
      stem_multiplier: of the depth of the stem's convolution.
      create_aux_logits: whether the auxiliary head is there, which only training uses.
      aux_kernel_size: of that head's last convolution, its whole map, so that it follows from the training's images.
    """

    classifier: ClassVar[str] = "final_layer/FC"
    background: ClassVar[bool] = True
    stem_cell: ClassVar[Cell]
    chosen = (*Network.chosen, "create_aux_logits", "aux_kernel_size")
    default_scope = ""
    """Slim gives them no scope of their own."""

    num_cells: int
    num_conv_filters: int
    num_classes: int | None = None
    in_channels: int = 3
    stem_multiplier: float = 1.0
    create_aux_logits: bool = True
    aux_kernel_size: Sides = (4, 4)
    final_endpoint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "aux_kernel_size", tuple(self.aux_kernel_size))
        if self.num_cells < 3:
            raise ValueError(f"num_cells {self.num_cells}: must be 3 or more, as there are two reductions")

    @property
    def default_image_size(self) -> int:
        """Slim's for the size of the auxiliary head, which no other size fits."""
        side = self.aux_kernel_size[0] if self.create_aux_logits else 6 if self.stem_multiplier == 3 else 4
        return {4: 224, 5: 299, 6: 331}.get(side, 16 * (3 * side + 2))

    @property
    def reductions(self) -> tuple[int, int]:
        """The cells at which the map is halved (`calc_reduction_layers`)."""
        return int(1 / 3 * self.num_cells), int(2 / 3 * self.num_cells)

    def without_auxiliary(self: T) -> T:
        return replace(self, create_aux_logits=False)

    def depth(self, scaling: float) -> int:
        """Of a cell, each of whose concatenated states has it."""
        return int(self.num_conv_filters * scaling)

    def imagenet_stem(self, images: Tensor) -> list[Tensor | None]:
        """The layers that the first cell takes, the last one first: a convolution, and two cells that halve the map."""
        net = conv2d(images, int(32 * self.stem_multiplier), 3, 2, "VALID", scope="conv0")
        layers: list[Tensor | None] = [None, batch_norm(net, scope="conv0_bn")]
        for number, scaling in enumerate((1 / 4, 1 / 2)):
            layers.append(run(self.stem_cell, layers, self.depth(scaling), 2, f"cell_stem_{number}"))
        return layers

    def auxiliary_head(self, net: Tensor, name: str) -> None:
        """The logits that help to train the cells before, where there are some."""
        if not (self.num_classes and self.create_aux_logits):
            return
        with scope(name):
            net = graph.activation(net, "relu", scope="preact")
            with scope("aux_logits"):
                net = graph.avg_pool2d(net, 5, 3, scope="AvgPool2D")
                net = batch_norm(conv2d(net, 128, 1, scope="proj"), activation="relu", scope="aux_bn0")
                net = conv2d(net, 768, self.aux_kernel_size, padding="VALID", scope="Conv")
                net = graph.flatten(batch_norm(net, activation="relu", scope="aux_bn1"), (1, 1), scope="Flatten")
                point(graph.fully_connected(net, self.num_classes, scope="FC"), "AuxLogits")

    def head(self, net: Tensor, keep_prob: float) -> Tensor:
        """The logits, from the last cell."""
        with scope("final_layer"):
            net = graph.features(graph.activation(net, "relu", scope="preact"))
            net = point(graph.squeeze(graph.mean(net, scope="Mean"), scope="Squeeze"), "global_pool")
            if self.num_classes:
                net = graph.dropout(net, keep_prob, scope="dropout")
                net = point(graph.fully_connected(net, self.num_classes, scope="FC"), "Logits")
                point(graph.softmax(net, scope="predictions"), "Predictions")
        return net

    @classmethod
    def inferred_fields(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """The fields that both families have, from variables."""
        filters = depth_out(shapes, "cell_0/1x1") or 2 * (depth_out(shapes, "cell_stem_1/1x1") or 0)
        if not filters:
            raise ValueError("it has neither cell_0/1x1 nor cell_stem_1/1x1")
        numbers = {part_number(match[1]) for match in (re.match(r"cell_(\d+)/", name) for name in shapes) if match}
        count = max(numbers, default=0) + 1
        # Of a part of a network, the first cell that is deeper than the first ones tells how many there are in all.
        deeper = [n for n in sorted(numbers) if (depth_out(shapes, f"cell_{n}/1x1") or 0) > filters]
        slims = (network.num_cells for network in cls.named().values() if network.num_conv_filters == filters)
        kernel = next((s for name, s in shapes.items() if re.match(r"aux_\d+/aux_logits/Conv/weights$", name)), ())
        return {
            "num_cells": max(count, 3 * deeper[0] if deeper else next(slims, 3)),
            "num_conv_filters": filters,
            "num_classes": depth_out(shapes, cls.classifier),
            "in_channels": depth_in(shapes, "conv0/weights"),
            "stem_multiplier": (depth_out(shapes, "conv0") or 32) / 32,
            "create_aux_logits": any(name.startswith("aux_") for name in shapes),
            "aux_kernel_size": kernel[:2] if len(kernel) == 4 else cls.aux_kernel_size,
        }


@contextmanager
def slims_arg_scope(decay: float = 0.9997, epsilon: float = 0.001) -> Iterator[None]:
    """`nasnet_mobile_arg_scope`: BatchNorms are layers of their own, and nothing has an activation."""
    with (
        arg_scope([conv2d, separable_conv2d], activation=None, biases=False, initializer=graph.FAN_OUT),
        arg_scope([graph.fully_connected], activation=None, initializer=graph.FAN_OUT),
        arg_scope([batch_norm], decay=decay, epsilon=epsilon, scale=True),
    ):
        yield


def run(cell: Cell, layers: list[Tensor | None], depth: int, stride: int, name: str) -> Tensor:
    """A cell behind the last two layers."""
    before, last = layers[-2:]
    assert last is not None
    with scope(name):
        previous = last if before is None else _matched(before, last, depth)
        net = conv2d(graph.activation(last, "relu", scope="preact"), depth, 1, scope="1x1")
        states = [batch_norm(net, scope="beginning_bn"), previous]
        for number, operands in enumerate(cell.sums):
            with scope(f"comb_iter_{number}"):
                pair = []
                for side, operand in zip(("left", "right"), operands.split(" + "), strict=True):
                    state, operation = operand.split()
                    with scope(side):
                        # Only what comes from outside the cell is as large as before.
                        by = stride if int(state) < 2 else 1
                        pair.append(_operation(states[int(state)], operation, depth, by))
                with scope("combine"):
                    states.append(add(*pair))
        with scope("cell_output"):
            return concat(*(_like_last(states, number) for number in range(cell.first, len(states))))


def _like_last(states: list[Tensor], number: int) -> Tensor:
    """A state in the size and depth of the last one."""
    state, last = states[number], states[-1]
    smaller = state.node.stride != last.node.stride
    if not smaller and state.channels == last.channels:
        return state
    with scope(f"reduction_{number}"):
        return _factorized_reduction(state, last.channels, 2 if smaller else 1)


def _matched(previous: Tensor, net: Tensor, depth: int) -> Tensor:
    """The layer before the last in the last one's size, and in the depth of the cell."""
    if previous.node.stride != net.node.stride:
        return _factorized_reduction(graph.activation(previous, "relu", scope="prev_preact"), depth, 2)
    if previous.channels != depth:
        previous = conv2d(graph.activation(previous, "relu", scope="prev_preact"), depth, 1, scope="prev_1x1")
        return batch_norm(previous, scope="prev_bn")
    return previous


def _factorized_reduction(net: Tensor, depth: int, stride: int) -> Tensor:
    """Half of the channels from the pixels in even rows and columns, half from those in odd ones."""
    if stride == 1:
        return batch_norm(conv2d(net, depth, 1, scope="path_conv"), scope="path_bn")
    # Where a side is odd, there is a row of zeros behind the last one.
    odd = pad(net, [(0, 0), (0, 1), (0, 1), (0, 0)], scope="path2_pad")
    odd = strided_slice(odd, [None, (1, None, 1), (1, None, 1)], scope="path2_shift")
    first = conv2d(graph.subsample(net, 2, scope="path1_pool"), depth // 2, 1, scope="path1_conv")
    second = conv2d(graph.subsample(odd, 2, scope="path2_pool"), depth - depth // 2, 1, scope="path2_conv")
    return batch_norm(concat(first, second, scope="paths"), scope="final_path_bn")


def _operation(net: Tensor, operation: str, depth: int, stride: int) -> Tensor:
    """The operation on a state: `none`, a pool, or two separable convolutions."""
    kind, _, size = operation.partition("_")
    if kind == "separable":
        for number in (1, 2):
            net = graph.activation(net, "relu", scope=f"preact_{number}")
            net = separable_conv2d(net, depth, int(size[0]), stride=stride, scope=f"separable_{size}_{number}")
            net, stride = batch_norm(net, scope=f"bn_sep_{size}_{number}"), 1
        return net
    if kind == "none":
        if stride == 1 and net.channels == depth:
            return net
        net = graph.activation(net, "relu", scope="preact")
    else:
        pool = graph.avg_pool2d if kind == "avg" else graph.max_pool2d
        net, stride = pool(net, int(size[0]), stride, "SAME", scope=f"{kind.title()}Pool2D"), 1
        if net.channels == depth:
            return net
    return batch_norm(conv2d(net, depth, 1, stride, scope="1x1"), scope="bn_1")
