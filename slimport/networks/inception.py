"""Shared by the Inception networks: tables of layers, heads, recognition.

In a table, a layer is its scope in slim, whose last part is its kernel, and its nominal depth; then `3x3` for another
kernel, `/2` for the stride, `VALID` for the padding, `~0.09` for an initializer, the truncated normal of that standard
deviation. Layers that follow each other are separated by `, `; parallel branches, which are concatenated, by ` | `.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar

from slimport import graph
from slimport.graph import (
    Initializer,
    Padding,
    Shape,
    Sides,
    Tensor,
    arg_scope,
    avg_pool2d,
    concat,
    conv2d,
    dropout,
    end_point,
    flatten,
    fully_connected,
    max_pool2d,
    scope,
    softmax,
)
from slimport.networks.network import Network, Preprocessing, depth_in, depth_out, infer_depth_multiplier

T = TypeVar("T", bound="Inception")
A = TypeVar("A", bound="InceptionWithAuxiliary")

point = partial(end_point, scoped=False)
"""Slim puts no scope before the names of Inception's end points."""


class HeadArguments(NamedTuple):
    """The arguments of a definition that are for its head."""

    global_pool: bool
    spatial_squeeze: bool
    dropout_keep_prob: float


@dataclass(frozen=True)
class Inception(Network):
    """An Inception network. `num_classes` None means no logits, and no auxiliary ones.

    Args:
      depth_multiplier: of the depths of all convolutions.
      min_depth: the least depth that it makes of one.
      batch_norm_scale: whether each BatchNorm has a gamma, as in the Object Detection API.
    """

    background: ClassVar[bool] = True
    chosen = (*Network.chosen, "depth_multiplier", "min_depth", "batch_norm_scale")
    marks: ClassVar[tuple[str, ...]]
    """Layers of which any one shows that it is this family."""

    num_classes: int | None = None
    in_channels: int = 3
    depth_multiplier: float = 1.0
    min_depth: int = 16
    batch_norm_scale: bool = False
    final_endpoint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth_multiplier <= 0:
            raise ValueError("depth_multiplier is not greater than zero")

    @property
    def preprocessing(self) -> Preprocessing:
        return "inception"

    def depth(self, nominal: int) -> int:
        """The depth of a convolution."""
        return max(int(nominal * self.depth_multiplier), self.min_depth)

    @contextmanager
    def settings(self, decay: float = 0.9997, initializer: Initializer = graph.VARIANCE_SCALING) -> Iterator[None]:
        """Slim's arg scope."""
        with (
            arg_scope([graph.batch_norm], decay=decay, epsilon=0.001, scale=self.batch_norm_scale),
            arg_scope([conv2d], normalizer=graph.batch_norm, initializer=initializer),
        ):
            yield

    def layers(self, net: Tensor, table: str, valid: Padding = "VALID") -> Tensor:
        """The layers of a table, one behind the other.

        Args:
          valid: the padding of those that the table has as VALID.
        """
        for layer in table.split(", "):
            sides = [self._layer(net, one, valid) for one in layer.split(" | ")]
            net = concat(*sides) if len(sides) > 1 else sides[0]
        return net

    def points(self, net: Tensor, table: str, valid: Padding = "VALID") -> Tensor:
        """The layers of a table, each of which is an end point."""
        for layer in table.split(", "):
            net = point(self.layers(net, layer, valid), layer.split()[0])
        return net

    def mixed(self, net: Tensor, name: str, branches: Sequence[str], valid: Padding = "VALID") -> Tensor:
        """`Mixed_5b` and its like: the branches of a table, concatenated; an end point."""
        with scope(name):
            return point(concat(*self.branches(net, branches, valid)), name)

    def branches(self, net: Tensor, branches: Sequence[str], valid: Padding = "VALID") -> Iterator[Tensor]:
        """Yields the outputs of `Branch_0`, `Branch_1`, ..."""
        for number, table in enumerate(branches):
            with scope(f"Branch_{number}"):
                yield self.layers(net, table, valid)

    def _layer(self, net: Tensor, layer: str, valid: Padding) -> Tensor:
        name, *marks = layer.split()
        sides = next((mark for mark in marks if "x" in mark), name.rpartition("_")[2])
        height, width = map(int, sides.split("x"))
        stride = 2 if "/2" in marks else 1
        padding: Padding = valid if "VALID" in marks else "SAME"
        if "Pool" in name:
            pool = max_pool2d if name.startswith("Max") else avg_pool2d
            return pool(net, (height, width), stride, padding, scope=name)  # type: ignore[arg-type]
        deviations = [float(mark[1:]) for mark in marks if mark.startswith("~")]
        given: dict[str, Any] = {"initializer": ("truncated_normal", deviations[0])} if deviations else {}
        return conv2d(net, self.depth(int(marks[0])), (height, width), stride, padding, scope=name, **given)

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        pattern = re.compile(rf"^(?:(.*)/)?(?:{'|'.join(cls.marks)})/[^/]+$")
        return sorted({match[1] or "" for name in names if (match := pattern.match(name))})

    @classmethod
    def options(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:  # noqa: ARG003
        """The fields of this family alone, from variables as of `infer`."""
        return {}

    @classmethod
    def infer(cls: type[T], shapes: Mapping[str, Shape]) -> T:
        options = cls.options(shapes)
        nominal = cls(**options).variables()
        # Where there is no BatchNorm, the depth is that of logits, or of the map to which a residual is added.
        kernels = [name for name in nominal if name.removesuffix("weights") + "BatchNorm/beta" in nominal]
        found = [(nominal[name][-1], shapes[name][-1]) for name in kernels if len(shapes.get(name, ())) == 4]
        multiplier, min_depth = infer_depth_multiplier(found, cls.min_depth)
        return cls(
            num_classes=depth_out(shapes, cls.classifier),
            in_channels=depth_in(shapes, next(iter(nominal))),
            depth_multiplier=multiplier,
            min_depth=min_depth,
            batch_norm_scale=any(name.endswith("/BatchNorm/gamma") for name in shapes),
            **options,
        )

    def convolved_logits(self, net: Tensor, window: int, head: HeadArguments, mean: str = "global_pool") -> Tensor:
        """The head of Inception v2 and v3: the last pooling, and logits by a 1x1 convolution if there are classes."""
        with scope("Logits"):
            if head.global_pool:
                net = point(graph.mean(net, scope=mean), "global_pool")
            else:
                pooled = avg_pool2d(net, window, clipped=True, scope=f"AvgPool_1a_{window}x{window}")
                net = point(pooled, "AvgPool_1a")
            if not self.num_classes:
                return net
            net = point(dropout(net, head.dropout_keep_prob, scope="Dropout_1b"), "PreLogits")
            net = conv2d(net, self.num_classes, 1, normalizer=None, activation=None, scope="Conv2d_1c_1x1")
            if head.spatial_squeeze:
                net = graph.squeeze(net, scope="SpatialSqueeze")
        point(softmax(point(net, "Logits"), scope="Predictions"), "Predictions")
        return net

    def connected_logits(self, net: Tensor, pool: str, *, dropout_keep_prob: float) -> Tensor:
        """The head of Inception v4 and Inception-ResNet v2: the whole map's mean, and a fully connected layer."""
        with scope("Logits"):
            net = point(graph.mean(net, scope=pool), "global_pool")
            if not self.num_classes:
                return net
            net = dropout(net, dropout_keep_prob, scope="Dropout")
            net = point(flatten(net, (1, 1), scope="PreLogitsFlatten"), "PreLogitsFlatten")
            net = point(fully_connected(net, self.num_classes, activation=None, scope="Logits"), "Logits")
        point(softmax(net, scope="Predictions"), "Predictions")
        return net


def checked_repeats(repeats: Sequence[int]) -> tuple[int, ...]:
    """How many of each of three blocks there are.

    Raises:
      ValueError: not three numbers of at least 1.
    """
    if len(repeats) != 3 or min(repeats) < 1:
        raise ValueError("repeats must be three numbers of blocks, each at least 1")
    return tuple(repeats)


@dataclass(frozen=True)
class InceptionWithAuxiliary(Inception):
    """An Inception with a second head in its midst, which only training uses.

    Args:
      create_aux_logits: whether the auxiliary head is there; without classes it is not.
      aux_kernel_size: of that head's last convolution, which sees a whole map: its size says that of the images in
        training, 5x5 that they were 299x299, 3x3 that they were 224x224.
    """

    chosen = (*Inception.chosen, "create_aux_logits", "aux_kernel_size")

    create_aux_logits: bool = True
    aux_kernel_size: Sides = (5, 5)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "aux_kernel_size", tuple(self.aux_kernel_size))

    @property
    def default_image_size(self) -> int:
        return 224 if self.has_auxiliary and self.aux_kernel_size == (3, 3) else 299

    @property
    def has_auxiliary(self) -> bool:
        """Whether there are auxiliary logits."""
        return bool(self.num_classes and self.create_aux_logits)

    def without_auxiliary(self: A) -> A:
        return replace(self, create_aux_logits=False)

    @classmethod
    def options(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        kernels = (s[:2] for n, s in shapes.items() if re.match("AuxLogits/Conv2d_2a[^/]*/weights$", n) and len(s) == 4)
        return {
            "create_aux_logits": any(name.startswith("AuxLogits/") for name in shapes),
            "aux_kernel_size": next(kernels, cls.aux_kernel_size),
        }

    def connected_auxiliary(self, net: Tensor, pool: str, conv: str, logits: str) -> None:
        """The second head of Inception v4 and Inception-ResNet v2, by the scopes of three of its layers."""
        with scope("AuxLogits"):
            net = avg_pool2d(net, 5, 3, scope=pool)
            net = conv2d(net, self.depth(128), 1, scope="Conv2d_1b_1x1")
            net = conv2d(net, self.depth(768), self.aux_kernel_size, padding="VALID", scope=conv)
            net = flatten(net, (1, 1), scope="Flatten")
            point(fully_connected(net, self.num_classes or 0, activation=None, scope=logits), "AuxLogits")
