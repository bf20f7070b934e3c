"""MobileNet v1. Source: `research/slim/nets/mobilenet_v1.py` in tensorflow/models; arXiv:1704.04861."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from slimport import graph
from slimport.graph import Padding, Shape, Tensor, arg_scope, conv2d, end_point, scope, separable_conv2d
from slimport.networks.mobilenet import atrous, fixed_padding
from slimport.networks.network import Network, depth_in, depth_out, infer_depth_multiplier

# Table 1 of arXiv:1704.04861: the depth and the stride of `Conv2d_0`, and of each depthwise separable convolution.
_LAYERS = ((32, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
_MULTIPLIERS = {"mobilenet_v1": 1.0, "mobilenet_v1_075": 0.75, "mobilenet_v1_050": 0.5, "mobilenet_v1_025": 0.25}


@dataclass(frozen=True)
class MobileNetV1(Network):
    """A MobileNet v1. `num_classes` None means no logits.

    Args:
      depth_multiplier: of the depths of all layers.
      min_depth: the least depth that it makes of one.
    """

    family: ClassVar[str] = "mobilenet_v1"
    title: ClassVar[str] = "MobileNet v1"
    signature: ClassVar[str] = "Conv2d_1_depthwise and Conv2d_1_pointwise"
    classifier: ClassVar[str] = "Logits/Conv2d_1c_1x1"
    background: ClassVar[bool] = True
    chosen = (*Network.chosen, "depth_multiplier", "min_depth")
    preprocessing = "inception"
    default_scope = "MobilenetV1"

    num_classes: int | None = None
    in_channels: int = 3
    depth_multiplier: float = 1.0
    min_depth: int = 8
    final_endpoint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth_multiplier <= 0:
            raise ValueError("depth_multiplier is not greater than zero")

    @property
    def name(self) -> str:
        named = (name for name, by in _MULTIPLIERS.items() if (by, 8) == (self.depth_multiplier, self.min_depth))
        return next(named, self.family)

    @classmethod
    def named(cls) -> dict[str, MobileNetV1]:
        return {name: cls(1001, depth_multiplier=by) for name, by in _MULTIPLIERS.items()}

    def define(
        self,
        images: Tensor,
        *,
        global_pool: bool = False,
        spatial_squeeze: bool = True,
        dropout_keep_prob: float = 0.999,
        output_stride: int | None = None,
        use_explicit_padding: bool = False,
    ) -> Tensor:
        """The network, from images to logits.

        Args:
          global_pool: whether features of any size are averaged; otherwise the map is pooled 7x7.
          spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map.
          dropout_keep_prob: the probability that a feature is kept, in training.
          output_stride: the sides of the images over those of the last map, 8, 16 or 32; None is 32.
          use_explicit_padding: whether a strided convolution is padded as one of stride 1 is.
        """
        if output_stride not in (None, 8, 16, 32):
            raise ValueError(f"output_stride {output_stride}: must be 8, 16, 32 or None")
        point = partial(end_point, scoped=False)
        with (
            arg_scope([graph.batch_norm], decay=0.9997, scale=True),
            arg_scope([conv2d, separable_conv2d], initializer=("truncated_normal", 0.09)),
            arg_scope([separable_conv2d], regularized=False),
        ):
            with arg_scope([conv2d, separable_conv2d], activation="relu6", normalizer=graph.batch_norm):
                net = graph.features(self.base(images, output_stride, use_explicit_padding))
            with scope("Logits"):
                if global_pool:
                    net = point(graph.mean(net, scope="global_pool"), "global_pool")
                else:
                    net = point(graph.avg_pool2d(net, 7, clipped=True, scope="AvgPool_1a"), "AvgPool_1a")
                if not self.num_classes:
                    return net
                net = graph.dropout(net, dropout_keep_prob, scope="Dropout_1b")
                net = conv2d(net, self.num_classes, 1, activation=None, scope="Conv2d_1c_1x1")
                if spatial_squeeze:
                    net = graph.squeeze(net, scope="SpatialSqueeze")
        point(graph.softmax(point(net, "Logits"), scope="Predictions"), "Predictions")
        return net

    def base(self, net: Tensor, output_stride: int | None, explicit: bool) -> Tensor:
        """`mobilenet_v1_base`: the layers before the logits."""
        schedule = atrous([stride for _, stride in _LAYERS], output_stride)
        for number, ((nominal, _), (stride, rate)) in enumerate(zip(_LAYERS, schedule, strict=True)):
            name, depth = f"Conv2d_{number}", max(int(nominal * self.depth_multiplier), self.min_depth)
            padding: Padding = fixed_padding(3, rate) if explicit else "SAME"
            if number == 0:
                net = conv2d(net, depth, 3, stride, padding, scope=name)
            else:
                net = separable_conv2d(net, None, 3, 1, stride, padding, rate, scope=f"{name}_depthwise")
                end_point(net, f"{name}_depthwise", scoped=False)
                name = f"{name}_pointwise"
                net = conv2d(net, depth, 1, scope=name)
            end_point(net, name, scoped=False)
        return net

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        names = set(names)
        pattern = re.compile(r"^((?:.*/)?)Conv2d_1_depthwise/depthwise_weights$")
        found = {match[1] for name in names if (match := pattern.match(name))}
        return sorted(prefix.rstrip("/") for prefix in found if f"{prefix}Conv2d_1_pointwise/weights" in names)

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> MobileNetV1:
        scopes = ("Conv2d_0", *(f"Conv2d_{number}_pointwise" for number in range(1, len(_LAYERS))))
        found = [(nominal, depth_out(shapes, name)) for (nominal, _), name in zip(_LAYERS, scopes, strict=True)]
        multiplier, min_depth = infer_depth_multiplier([(of, depth) for of, depth in found if depth], cls.min_depth)
        return cls(depth_out(shapes, cls.classifier), depth_in(shapes, "Conv2d_0/weights"), multiplier, min_depth)
