"""Inception v3. Source: `research/slim/nets/inception_v3.py` in tensorflow/models; arXiv:1512.00567."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import ClassVar

from slimport import graph
from slimport.graph import Padding, Shape, Sides, Tensor, arg_scope, avg_pool2d, concat, conv2d, end_point, max_pool2d
from slimport.networks.network import Network, depth_in, depth_out, infer_depth_multiplier

# Branches by slim's scopes, each with its nominal depth; `|` is side by side, concatenated. Slim's names say the rest:
# the kernel is the last part; `a` is VALID, where the kernel is not 1x1, and anything else SAME; `1a` has stride 2 and
# is 3x3, in Mixed_6a too. The odd names are slim's own: some of Mixed_5c, and one of Mixed_7b.
_STEM = (
    "Conv2d_1a_3x3 32, Conv2d_2a_3x3 32, Conv2d_2b_3x3 64, MaxPool_3a_3x3, "
    "Conv2d_3b_1x1 80, Conv2d_4a_3x3 192, MaxPool_5a_3x3"
)


def _35x35(first: str, second: str, pool_depth: int) -> tuple[str, ...]:
    return (
        "Conv2d_0a_1x1 64",
        f"{first} 48, {second} 64",
        "Conv2d_0a_1x1 64, Conv2d_0b_3x3 96, Conv2d_0c_3x3 96",
        f"AvgPool_0a_3x3, Conv2d_0b_1x1 {pool_depth}",
    )


def _17x17(depth: int) -> tuple[str, ...]:
    return (
        "Conv2d_0a_1x1 192",
        f"Conv2d_0a_1x1 {depth}, Conv2d_0b_1x7 {depth}, Conv2d_0c_7x1 192",
        f"Conv2d_0a_1x1 {depth}, Conv2d_0b_7x1 {depth}, Conv2d_0c_1x7 {depth}, "
        f"Conv2d_0d_7x1 {depth}, Conv2d_0e_1x7 192",
        "AvgPool_0a_3x3, Conv2d_0b_1x1 192",
    )


def _8x8(high: str) -> tuple[str, ...]:
    return (
        "Conv2d_0a_1x1 320",
        f"Conv2d_0a_1x1 384, Conv2d_0b_1x3 384 | {high} 384",
        "Conv2d_0a_1x1 448, Conv2d_0b_3x3 384, Conv2d_0c_1x3 384 | Conv2d_0d_3x1 384",
        "AvgPool_0a_3x3, Conv2d_0b_1x1 192",
    )


_BLOCKS = {
    "Mixed_5b": _35x35("Conv2d_0a_1x1", "Conv2d_0b_5x5", 32),
    "Mixed_5c": _35x35("Conv2d_0b_1x1", "Conv_1_0c_5x5", 64),
    "Mixed_5d": _35x35("Conv2d_0a_1x1", "Conv2d_0b_5x5", 64),
    "Mixed_6a": ("Conv2d_1a_1x1 384", "Conv2d_0a_1x1 64, Conv2d_0b_3x3 96, Conv2d_1a_1x1 96", "MaxPool_1a_3x3"),
    "Mixed_6b": _17x17(128),
    "Mixed_6c": _17x17(160),
    "Mixed_6d": _17x17(160),
    "Mixed_6e": _17x17(192),
    "Mixed_7a": (
        "Conv2d_0a_1x1 192, Conv2d_1a_3x3 320",
        "Conv2d_0a_1x1 192, Conv2d_0b_1x7 192, Conv2d_0c_7x1 192, Conv2d_1a_3x3 192",
        "MaxPool_1a_3x3",
    ),
    "Mixed_7b": _8x8("Conv2d_0b_3x1"),
    "Mixed_7c": _8x8("Conv2d_0c_3x1"),
}


@dataclass(frozen=True)
class InceptionV3(Network):
    """An Inception v3. `num_classes` None means no logits, and no auxiliary ones.

    Args:
      depth_multiplier: of the depths of all convolutions.
      min_depth: the least depth that it makes of one.
      create_aux_logits: whether the auxiliary head is there, which only training uses.
      aux_kernel_size: of that head's last convolution but one, 5x5 at most: it shrinks with the images of the training.
    """

    family: ClassVar[str] = "inception_v3"
    title: ClassVar[str] = "Inception v3"
    signature: ClassVar[str] = "Mixed_5c/Branch_1/Conv_1_0c_5x5"
    classifier: ClassVar[str] = "Logits/Conv2d_1c_1x1"
    background: ClassVar[bool] = True
    chosen = (*Network.chosen, "depth_multiplier", "min_depth", "create_aux_logits", "aux_kernel_size")
    name = "inception_v3"
    preprocessing = "inception"
    default_image_size = 299
    default_scope = "InceptionV3"

    num_classes: int | None = None
    in_channels: int = 3
    depth_multiplier: float = 1.0
    min_depth: int = 16
    create_aux_logits: bool = True
    aux_kernel_size: Sides = (5, 5)
    final_endpoint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "aux_kernel_size", tuple(self.aux_kernel_size))
        if self.depth_multiplier <= 0:
            raise ValueError("depth_multiplier is not greater than zero")

    @classmethod
    def named(cls) -> dict[str, InceptionV3]:
        return {"inception_v3": cls(1001)}

    def without_auxiliary(self) -> InceptionV3:
        return replace(self, create_aux_logits=False)

    def depth(self, nominal: int) -> int:
        """The depth of a convolution."""
        return max(int(nominal * self.depth_multiplier), self.min_depth)

    def define(
        self,
        images: Tensor,
        *,
        global_pool: bool = False,
        spatial_squeeze: bool = True,
        dropout_keep_prob: float = 0.8,
    ) -> Tensor:
        """The network, from images to logits.

        Args:
          global_pool: whether features of any size are averaged; otherwise the map is pooled 8x8.
          spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map.
          dropout_keep_prob: the probability that a feature is kept, in training.
        """
        bare = {"normalizer": None, "activation": None}
        point = partial(end_point, scoped=False)
        with (
            arg_scope([graph.batch_norm], decay=0.9997, epsilon=0.001),
            arg_scope([conv2d], normalizer=graph.batch_norm, initializer=graph.VARIANCE_SCALING),
        ):
            net, aux = base(images, self.depth)
            graph.features(net)
            if self.num_classes and self.create_aux_logits:
                with graph.scope("AuxLogits"), arg_scope([conv2d], padding="VALID"):
                    aux = avg_pool2d(aux, 5, 3, scope="AvgPool_1a_5x5")
                    aux = conv2d(aux, self.depth(128), 1, scope="Conv2d_1b_1x1")
                    name = "Conv2d_2a_{}x{}".format(*self.aux_kernel_size)
                    with arg_scope([conv2d], initializer=("truncated_normal", 0.01)):
                        aux = conv2d(aux, self.depth(768), self.aux_kernel_size, scope=name)
                    with arg_scope([conv2d], initializer=("truncated_normal", 0.001), **bare):
                        aux = conv2d(aux, self.num_classes, 1, scope="Conv2d_2b_1x1")
                    if spatial_squeeze:
                        aux = graph.squeeze(aux, scope="SpatialSqueeze")
                point(aux, "AuxLogits")
            with graph.scope("Logits"):
                if global_pool:
                    net = point(graph.mean(net, scope="GlobalPool"), "global_pool")
                else:
                    net = point(avg_pool2d(net, 8, clipped=True, scope="AvgPool_1a_8x8"), "AvgPool_1a")
                if not self.num_classes:
                    return net
                net = point(graph.dropout(net, dropout_keep_prob, scope="Dropout_1b"), "PreLogits")
                with arg_scope([conv2d], **bare):
                    net = conv2d(net, self.num_classes, 1, scope="Conv2d_1c_1x1")
                if spatial_squeeze:
                    net = graph.squeeze(net, scope="SpatialSqueeze")
            point(graph.softmax(point(net, "Logits"), scope="Predictions"), "Predictions")
            return net

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        pattern = re.compile(r"^(?:(.*)/)?(?:Mixed_5c/Branch_1/Conv_1_0c_5x5|Mixed_7b/Branch_1/Conv2d_0b_3x1)/[^/]+$")
        return sorted({match[1] or "" for name in names if (match := pattern.match(name))})

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> InceptionV3:
        nominal = {name: shape[-1] for name, shape in cls().variables().items() if name.endswith("weights")}
        depths = [(depth, shapes[name][-1]) for name, depth in nominal.items() if len(shapes.get(name, ())) == 4]
        sides = (re.match(r"AuxLogits/Conv2d_2a_(\d)x(\d)/", name) for name in shapes)
        height, width = next((match.groups() for match in sides if match), ("5", "5"))
        multiplier, min_depth = infer_depth_multiplier(depths, cls.min_depth)
        return cls(
            num_classes=depth_out(shapes, cls.classifier),
            in_channels=depth_in(shapes, "Conv2d_1a_3x3/weights"),
            depth_multiplier=multiplier,
            min_depth=min_depth,
            create_aux_logits=any(name.startswith("AuxLogits/") for name in shapes),
            aux_kernel_size=(int(height), int(width)),
        )


def base(images: Tensor, depth: Callable[[int], int]) -> tuple[Tensor, Tensor]:
    """`inception_v3_base`: `Mixed_7c`, and `Mixed_6e`, which the auxiliary head takes."""

    def run(net: Tensor, layer: str) -> Tensor:
        if "|" in layer:
            return concat(*(run(net, one) for one in layer.split(" | ")))
        name, nominal = (*layer.split(), "0")[:2]
        if name.startswith("AvgPool"):
            return avg_pool2d(net, 3, 1, "SAME", scope=name)
        if name.startswith("MaxPool"):
            return max_pool2d(net, 3, 2, scope=name)
        *_, place, sides = name.split("_")
        strided = place == "1a"
        height, width = (3, 3) if strided else map(int, sides.split("x"))
        padding: Padding = "VALID" if place.endswith("a") and height > 1 else "SAME"
        return conv2d(net, depth(int(nominal)), (height, width), 2 if strided else 1, padding, scope=name)

    net, mixed = images, {}
    for layer in _STEM.split(", "):
        net = end_point(run(net, layer), layer.split()[0], scoped=False)
    for name, branches in _BLOCKS.items():
        with graph.scope(name):
            outputs = []
            for number, layers in enumerate(branches):
                with graph.scope(f"Branch_{number}"):
                    outputs.append(reduce(run, layers.split(", "), net))
            net = mixed[name] = end_point(concat(*outputs), name, scoped=False)
    return net, mixed["Mixed_6e"]
