"""VGG. Source: `research/slim/nets/vgg.py` in tensorflow/models; arXiv:1409.1556."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from slimport import graph
from slimport.graph import Shape, Tensor, arg_scope, conv2d, dropout, end_point, max_pool2d, scope, scoped
from slimport.names import part_number
from slimport.networks.network import Network, Preprocessing, depth_in, depth_out


class ConvBlock(NamedTuple):
    """The 3x3 convolutions `conv<n>/conv<n>_1`, `conv<n>/conv<n>_2`, ... before `pool<n>`."""

    depth: int
    repetitions: int


def _blocks(*counts: int) -> tuple[ConvBlock, ...]:
    return tuple(ConvBlock(*block) for block in zip((64, 128, 256, 512, 512), counts, strict=True))


# Table 1 of arXiv:1409.1556: its columns A, D and E.
VGG_BLOCKS = {
    "vgg_a": _blocks(1, 1, 2, 2, 2),
    "vgg_16": _blocks(2, 2, 3, 3, 3),
    "vgg_19": _blocks(2, 2, 4, 4, 4),
}


@dataclass(frozen=True)
class VGG(Network):
    """A VGG, any number of blocks and depths, with its fully connected layers as the convolutions `fc6` to `fc8`.

    `num_classes` None means no `fc8`.
    """

    family: ClassVar[str] = "vgg"
    title: ClassVar[str] = "VGG"
    signature: ClassVar[str] = "conv1/conv1_1 and conv2/conv2_1"
    classifier: ClassVar[str] = "fc8"
    background: ClassVar[bool] = False

    blocks: tuple[ConvBlock, ...]
    num_classes: int | None = None
    in_channels: int = 3
    fc_depths: tuple[int, int] = (4096, 4096)
    """Of `fc6` and `fc7`."""
    final_endpoint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "blocks", tuple(ConvBlock(*block) for block in self.blocks))
        object.__setattr__(self, "fc_depths", tuple(self.fc_depths))
        if not self.blocks:
            raise ValueError("a VGG needs at least one block")

    @property
    def name(self) -> str:
        return next((name for name, blocks in VGG_BLOCKS.items() if blocks == self.blocks), self.family)

    @property
    def preprocessing(self) -> Preprocessing:
        return "vgg"

    @property
    def default_image_size(self) -> int:
        """Where `fc6`, which is 7x7 and VALID, has one place."""
        return 7 << len(self.blocks)

    @classmethod
    def named(cls) -> dict[str, VGG]:
        return {name: cls(blocks, 1000) for name, blocks in VGG_BLOCKS.items()}

    def define(
        self,
        images: Tensor,
        *,
        dropout_keep_prob: float = 0.5,
        spatial_squeeze: bool = True,
        fc_conv_padding: Literal["VALID", "SAME"] = "VALID",
        global_pool: bool = False,
    ) -> Tensor:
        """The network, from images to logits.

        Args:
          dropout_keep_prob: the probability that an activation is kept, in training.
          spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map.
          fc_conv_padding: of `fc6`, which is 7x7: VALID makes the map of logits (side / 32) - 6, SAME side / 32.
          global_pool: whether what `fc8` takes is averaged over height and width, which VGG itself does not do.
        """
        net = images
        with arg_scope([conv2d, max_pool2d], collect=True):
            for number, block in enumerate(self.blocks, start=1):
                with scope(f"conv{number}"):
                    for i in range(1, block.repetitions + 1):
                        net = conv2d(net, block.depth, 3, scope=f"conv{number}_{i}")
                net = max_pool2d(net, 2, scope=f"pool{number}")
            graph.features(net)
            # The fully connected layers are convolutions, so that images may be larger.
            net = conv2d(net, self.fc_depths[0], 7, padding=fc_conv_padding, scope="fc6")
            net = dropout(net, dropout_keep_prob, scope="dropout6")
            net = conv2d(net, self.fc_depths[1], 1, scope="fc7")
        if global_pool:
            net = end_point(graph.mean(net, scope="global_pool"), "global_pool", scoped=False)
        if self.num_classes:
            net = dropout(net, dropout_keep_prob, scope="dropout7")
            net = conv2d(net, self.num_classes, 1, activation=None, scope=self.classifier)
            if spatial_squeeze:
                net = graph.squeeze(net, scope="fc8/squeezed")
            end_point(net, "fc8")
        return net

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        names = set(names)
        leaves = "|".join(graph.VARIABLE_LEAVES)
        pattern = re.compile(rf"^(?:(.*)/)?conv1/conv1_1/(?:{leaves})$")
        found = {match[1] or "" for name in names if (match := pattern.match(name))}
        return sorted(s for s in found if any(scoped(s, f"conv{n}/conv{n}_1/weights") in names for n in (2, 3, 4)))

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> VGG:
        pattern = re.compile(r"^conv(\d+)/conv\1_(\d+)/(?:weights|biases)$")
        depths: dict[int, dict[int, int]] = {}
        for name, shape in shapes.items():
            if match := pattern.match(name):
                if not shape:
                    raise ValueError(f"{name} is a scalar")
                depths.setdefault(part_number(match[1]), {})[part_number(match[2])] = shape[-1]
        blocks = []
        for number in range(1, max(depths) + 1):
            if number not in depths:
                raise ValueError(f"it has no conv{number}")
            # Convolutions of one block share their depth, so the first speaks for those that are missing.
            found = depths[number]
            blocks.append(ConvBlock(found[min(found)], max(found)))
        return cls(
            blocks=tuple(blocks),
            num_classes=depth_out(shapes, cls.classifier),
            in_channels=depth_in(shapes, "conv1/conv1_1/weights"),
            fc_depths=(depth_out(shapes, "fc6") or 4096, depth_out(shapes, "fc7") or 4096),
        )
