"""PNASNet-5. Source: `research/slim/nets/nasnet/pnasnet.py` in tensorflow/models; arXiv:1712.00559."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from slimport.graph import Shape, Tensor
from slimport.networks.nasnet_cells import Cell, CellNetwork, point, run, slims_arg_scope
from slimport.networks.network import Preprocessing

# Figure 1 of the paper.
CELL = Cell(
    (
        "1 separable_5x5 + 1 max_3x3",
        "0 separable_7x7 + 0 max_3x3",
        "0 separable_5x5 + 0 separable_3x3",
        "4 separable_3x3 + 0 max_3x3",
        "1 separable_3x3 + 0 none",
    ),
    first=2,
)


@dataclass(frozen=True)
class PNASNet(CellNetwork):
    __doc__ = CellNetwork.__doc__

    family: ClassVar[str] = "pnasnet"
    title: ClassVar[str] = "PNASNet-5"
    signature: ClassVar[str] = "cell_0/comb_iter_1/left/separable_7x7_1"
    stem_cell: ClassVar[Cell] = CELL

    @property
    def name(self) -> str:
        shape = self.num_cells, self.num_conv_filters, self.stem_multiplier
        return {(9, 54, 1.0): "pnasnet_mobile", (12, 216, 3.0): "pnasnet_large"}.get(shape, self.family)

    @property
    def preprocessing(self) -> Preprocessing:
        return "inception"

    @classmethod
    def named(cls) -> dict[str, PNASNet]:
        return {
            "pnasnet_mobile": cls(9, 54, 1001),
            "pnasnet_large": cls(12, 216, 1001, stem_multiplier=3.0, aux_kernel_size=(6, 6)),
        }

    def define(self, images: Tensor, *, dense_dropout_keep_prob: float = 0.5) -> Tensor:
        """The network, from images to logits.

        Args:
          dense_dropout_keep_prob: the probability that a feature is kept, in training.
        """
        with slims_arg_scope():
            layers = self.imagenet_stem(images)
            net, scaling = layers[-1], 1
            assert net is not None
            point(net, "Stem")
            for number in range(self.num_cells):
                stride = 2 if number in self.reductions else 1
                scaling *= stride
                net = point(run(CELL, layers, self.depth(scaling), stride, f"cell_{number}"), f"Cell_{number}")
                layers.append(net)
                if number == self.reductions[1] - 1:
                    self.auxiliary_head(net, f"aux_{number}")
            return self.head(net, dense_dropout_keep_prob)

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        pattern = re.compile(r"^(?:(.*)/)?cell_(?:stem_)?0/comb_iter_1/left/separable_7x7_1/[^/]+$")
        return sorted({match[1] or "" for name in names if (match := pattern.match(name))})

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> PNASNet:
        return cls(**cls.inferred_fields(shapes))
