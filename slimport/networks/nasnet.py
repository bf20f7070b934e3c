"""NASNet-A. Source: `research/slim/nets/nasnet/nasnet.py` in tensorflow/models; arXiv:1707.07012."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from slimport.graph import Shape, Tensor, batch_norm, conv2d
from slimport.networks.nasnet_cells import Cell, CellNetwork, point, run, slims_arg_scope
from slimport.networks.network import Preprocessing, depth_in, depth_out

# Figure 4 of the paper.
NORMAL = Cell(
    (
        "0 separable_5x5 + 1 separable_3x3",
        "1 separable_5x5 + 1 separable_3x3",
        "0 avg_3x3 + 1 none",
        "1 avg_3x3 + 1 avg_3x3",
        "0 separable_3x3 + 0 none",
    ),
    first=1,
)
REDUCTION = Cell(
    (
        "0 separable_5x5 + 1 separable_7x7",
        "0 max_3x3 + 1 separable_7x7",
        "0 avg_3x3 + 1 separable_5x5",
        "3 none + 2 avg_3x3",
        "2 separable_3x3 + 0 max_3x3",
    ),
    first=3,
)


@dataclass(frozen=True)
class NASNet(CellNetwork):
    __doc__ = CellNetwork.__doc__

    family: ClassVar[str] = "nasnet"
    title: ClassVar[str] = "NASNet-A"
    signature: ClassVar[str] = "cell_0/comb_iter_0/right/separable_3x3_1"
    stem_cell: ClassVar[Cell] = REDUCTION

    stem: Literal["imagenet", "cifar"] = "imagenet"
    """The layers before the cells: two reduction cells, or a convolution alone."""

    @property
    def name(self) -> str:
        shape = self.num_cells, self.num_conv_filters, self.stem_multiplier, self.stem
        return next((name for name, like in _NAMED.items() if like == shape), self.family)

    @property
    def preprocessing(self) -> Preprocessing:
        return "inception" if self.stem == "imagenet" else "none"

    @property
    def default_image_size(self) -> int:
        # Two times the largest map whose average pool, 5x5 and strided by 3, the auxiliary head's kernel covers.
        return 2 * (3 * self.aux_kernel_size[0] + 4) if self.stem == "cifar" else super().default_image_size

    @classmethod
    def named(cls) -> dict[str, NASNet]:
        kernels = {"nasnet_large": (6, 6)}
        return {
            name: cls(
                cells,
                filters,
                10 if stem == "cifar" else 1001,
                stem_multiplier=multiplier,
                stem=stem,
                aux_kernel_size=kernels.get(name, (4, 4)),
            )
            for name, (cells, filters, multiplier, stem) in _NAMED.items()
        }

    def define(
        self,
        images: Tensor,
        *,
        dense_dropout_keep_prob: float | None = None,
        skip_reduction_layer_input: bool | None = None,
    ) -> Tensor:
        """The network, from images to logits.

        Args:
          dense_dropout_keep_prob: the probability that a feature is kept, in training; None is slim's, 0.5, and 1 for
            CIFAR.
          skip_reduction_layer_input: whether the cell behind a reduction cell takes the layer two before that, instead
            of the one before; None is slim's, true for `nasnet_large` and what has its stem.
        """
        imagenet = self.stem == "imagenet"
        skip, keep_prob = skip_reduction_layer_input, dense_dropout_keep_prob
        skip = imagenet and self.stem_multiplier == 3 if skip is None else skip
        keep_prob = (0.5 if imagenet else 1.0) if keep_prob is None else keep_prob
        with slims_arg_scope() if imagenet else slims_arg_scope(decay=0.9, epsilon=1e-5):
            layers = self.imagenet_stem(images) if imagenet else self._cifar_stem(images)
            net, scaling = layers[-1], 1
            assert net is not None
            point(net, "Stem")
            for number in range(self.num_cells):
                before = layers[-2]
                if number in self.reductions:
                    scaling *= 2
                    index = self.reductions.index(number)
                    net = run(REDUCTION, layers, self.depth(scaling), 2, f"reduction_cell_{index}")
                    layers.append(point(net, f"Reduction_Cell_{index}"))
                taken = [before if skip else layers[-2], layers[-1]]
                net = point(run(NORMAL, taken, self.depth(scaling), 1, f"cell_{number}"), f"Cell_{number}")
                layers.append(net)
                if number == self.reductions[1] - 1:
                    self.auxiliary_head(net, f"aux_{number}")
            return self.head(net, keep_prob)

    def _cifar_stem(self, images: Tensor) -> list[Tensor | None]:
        net = conv2d(images, int(self.num_conv_filters * self.stem_multiplier), 3, scope="l1_stem_3x3")
        return [None, batch_norm(net, scope="l1_stem_bn")]

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        layers = "cell_0/comb_iter_0/right/separable_3x3_1|cell_stem_0/comb_iter_0/right/separable_7x7_1"
        pattern = re.compile(rf"^(?:(.*)/)?(?:{layers})/[^/]+$")
        return sorted({match[1] or "" for name in names if (match := pattern.match(name))})

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> NASNet:
        given = cls.inferred_fields(shapes)
        if any(name.startswith("l1_stem_") for name in shapes):
            depth = depth_out(shapes, "l1_stem_3x3") or 3 * given["num_conv_filters"]
            given |= {"stem_multiplier": depth / given["num_conv_filters"], "stem": "cifar"}
            given["in_channels"] = depth_in(shapes, "l1_stem_3x3/weights")
        return cls(**given)


_NAMED: dict[str, tuple[int, int, float, Literal["imagenet", "cifar"]]] = {
    "nasnet_cifar": (18, 32, 3.0, "cifar"),
    "nasnet_mobile": (12, 44, 1.0, "imagenet"),
    "nasnet_large": (18, 168, 3.0, "imagenet"),
}
"""Cells, filters, stem multiplier and stem of slim's configurations."""
