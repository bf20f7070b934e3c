"""VGG. Source: `research/slim/nets/vgg.py` in tensorflow/models; arXiv:1409.1556."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from slimport.spec.network import VARIABLE_LEAVES, Network, Preprocessing, Shape, conv, depth_in, scoped


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
    landmark: ClassVar[str] = "conv1/conv1_1 and fc6"
    arguments: ClassVar[Mapping[str, Any]] = {
        "dropout_keep_prob": 0.5,
        "spatial_squeeze": True,
        "fc_conv_padding": "VALID",
        "global_pool": False,
    }
    classifier: ClassVar[str] = "fc8"
    background: ClassVar[bool] = False

    blocks: tuple[ConvBlock, ...]
    num_classes: int | None = None
    in_channels: int = 3
    fc_depths: tuple[int, int] = (4096, 4096)
    """Of `fc6` and `fc7`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(ConvBlock(*block) for block in self.blocks))
        object.__setattr__(self, "fc_depths", tuple(self.fc_depths))
        # slim treats 0 classes like None.
        object.__setattr__(self, "num_classes", self.num_classes or None)
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
        """Where `fc6`, which is 7x7 and VALID, has one place to stand."""
        return 7 << len(self.blocks)

    @classmethod
    def named(cls) -> dict[str, VGG]:
        return {name: cls(blocks, 1000) for name, blocks in VGG_BLOCKS.items()}

    @property
    def convolutions(self) -> list[list[str]]:
        """The scopes of each block's convolutions."""
        return [
            [f"conv{n}/conv{n}_{i}" for i in range(1, block.repetitions + 1)]
            for n, block in enumerate(self.blocks, start=1)
        ]

    def _variables(self) -> Iterator[tuple[str, Shape]]:
        depth = self.in_channels
        for block, scopes in zip(self.blocks, self.convolutions, strict=True):
            for scope in scopes:
                yield from conv(scope, 3, depth, block.depth)
                depth = block.depth
        yield from conv("fc6", 7, depth, self.fc_depths[0])
        yield from conv("fc7", 1, *self.fc_depths)
        if self.num_classes:
            yield from conv("fc8", 1, self.fc_depths[1], self.num_classes)

    def end_points(self, scope: str, **arguments: Any) -> list[str]:
        """The names of slim's `end_points`, in slim's order; `global_pool` carries no scope."""
        names = []
        for number, convolutions in enumerate(self.convolutions, start=1):
            names += [*convolutions, f"pool{number}"]
        names = [scoped(scope, name) for name in [*names, "fc6", "fc7"]]
        if self.with_defaults(arguments)["global_pool"]:
            names.append("global_pool")
        if self.num_classes:
            names.append(scoped(scope, "fc8"))
        return names

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        names = set(names)
        leaves = "|".join(VARIABLE_LEAVES)
        pattern = re.compile(rf"^(?:(.*)/)?conv1/conv1_1/(?:{leaves})$")
        found = {match[1] or "" for name in names if (match := pattern.match(name))}
        return sorted(s for s in found if any(scoped(s, f"fc{n}/weights") in names for n in (6, 7, 8)))

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> VGG:
        pattern = re.compile(r"^conv(\d+)/conv\1_(\d+)/(?:weights|biases)$")
        depths: dict[int, dict[int, int]] = {}
        for name, shape in shapes.items():
            if match := pattern.match(name):
                if not shape:
                    raise ValueError(f"{name} is a scalar")
                depths.setdefault(int(match[1]), {})[int(match[2])] = shape[-1]
        blocks = []
        for number in range(1, max(depths) + 1):
            if number not in depths:
                raise ValueError(f"it has no conv{number}")
            # Convolutions of one block share their depth, so the first speaks for those that are missing.
            found = depths[number]
            blocks.append(ConvBlock(found[min(found)], max(found)))
        fc6, fc7 = (shapes.get(f"{fc}/weights") or shapes.get(f"{fc}/biases") or (4096,) for fc in ("fc6", "fc7"))
        classes = shapes.get("fc8/weights") or shapes.get("fc8/biases")
        return cls(
            blocks=tuple(blocks),
            num_classes=classes[-1] if classes else None,
            in_channels=depth_in(shapes, "conv1/conv1_1/weights"),
            fc_depths=(fc6[-1], fc7[-1]),
        )
