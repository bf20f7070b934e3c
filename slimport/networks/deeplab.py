"""DeepLab v3+. Source: `research/deeplab/model.py` in tensorflow/models; arXiv:1802.02611."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from slimport import graph
from slimport.graph import (
    Shape,
    Tensor,
    arg_scope,
    batch_norm,
    concat,
    conv2d,
    embed,
    end_point,
    scope,
    scoped,
    separable_conv2d,
)
from slimport.graph_ops import resize
from slimport.networks.mobilenet_v2 import MobileNetV2
from slimport.networks.network import Network, Preprocessing, depth_out
from slimport.networks.resnet_v1_beta import ResNetV1Beta
from slimport.networks.xception import Xception
from slimport.sizes import size

BACKBONES: tuple[type[Network], ...] = (Xception, MobileNetV2, ResNetV1Beta)
_LOW_LEVEL = {
    "xception": "entry_flow/block2/unit_1/xception_module/separable_conv2_pointwise",
    "mobilenet_v2": "layer_4/depthwise_output",
    "resnet_v1_beta": "block1/unit_2/bottleneck_v1/conv3",
}
"""The end point of a backbone that the decoder takes, at output stride 4."""
_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}


@dataclass(frozen=True)
class DeepLab(Network):
    """A DeepLab v3 or v3+: a backbone, a pyramid of pools (ASPP), a decoder. `num_classes` None means no logits.

    Args:
      backbone: without logits.
      image_pooling: whether the pyramid has the mean of the whole map.
      atrous_branches: the dilated convolutions of the pyramid.
      aspp_separable, decoder_separable: whether their 3x3 convolutions are separable.
      decoder: whether there is one.
      depth: of all these layers; `decoder_depth` is that of what the decoder takes of the backbone.
    """

    family: ClassVar[str] = "deeplab"
    title: ClassVar[str] = "DeepLab v3+"
    signature: ClassVar[str] = "concat_projection beside a backbone"
    classifier: ClassVar[str] = "logits/semantic"
    background: ClassVar[bool] = False
    chosen = ("num_classes", "final_endpoint")
    default_image_size = 513
    default_scope = ""
    """DeepLab gives its layers no scope of their own; the backbone has one."""

    backbone: Network
    num_classes: int | None = None
    image_pooling: bool = True
    atrous_branches: int = 3
    aspp_separable: bool = True
    decoder: bool = True
    decoder_separable: bool = True
    depth: int = 256
    decoder_depth: int = 48
    final_endpoint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone.num_classes:
            raise ValueError("a DeepLab takes a backbone's features, not its logits")

    @property
    def in_channels(self) -> int:  # type: ignore[override]
        """The backbone's."""
        return self.backbone.in_channels

    @property
    def name(self) -> str:
        return next((name for name, like in self.named().items() if like == self.with_classes(21)), self.family)

    @property
    def preprocessing(self) -> Preprocessing:
        return self.backbone.preprocessing

    @classmethod
    def named(cls) -> dict[str, DeepLab]:
        """DeepLab's releases, with the classes of PASCAL VOC; those with MobileNet v2 are DeepLab v3."""
        backbones = {f"deeplab_{name}": network.with_classes(None) for name, network in Xception.named().items()}
        mobile = MobileNetV2(final_endpoint="layer_18")
        lite = cls(mobile, 21, atrous_branches=0, aspp_separable=False, decoder=False, decoder_separable=False)
        return {**{name: cls(backbone, 21) for name, backbone in backbones.items()}, "deeplab_mobilenet_v2": lite}

    def define(
        self,
        images: Tensor,
        *,
        output_stride: int = 16,
        atrous_rates: Sequence[int] | None = None,
        multi_grid: Sequence[int] | None = None,
        keep_prob: float = 0.9,
    ) -> Tensor:
        """The network, from images to logits [batch, height, width, num_classes].

        The logits have the decoder's map, a quarter of the images', or else the backbone's.

        Args:
          output_stride: ratio of the input's to the backbone's resolution.
          atrous_rates: of the pyramid's dilated convolutions; None is 6, 12 and 18 for an output stride of 16, and
            twice that for 8.
          multi_grid: of the backbone, where it takes that.
          keep_prob: the probability that a feature is kept, in training.
        """
        usual = _RATES.get(output_stride, ()) if self.atrous_branches else ()
        rates = usual if atrous_rates is None else tuple(atrous_rates)
        if len(rates) != self.atrous_branches:
            raise ValueError(f"atrous_rates needs {self.atrous_branches} rates for output_stride {output_stride}")
        given = {"output_stride": output_stride, "multi_grid": multi_grid, "global_pool": False}
        taken = {name: value for name, value in given.items() if name in self.backbone.arguments}
        if multi_grid is not None and "multi_grid" not in taken:
            raise ValueError(f"{self.backbone} takes no multi_grid")
        backbone = self.backbone.graph(**taken)
        values = embed(backbone, images, self.backbone.default_scope)
        points = {point.name: values[point.node] for point in backbone.end_points}
        with (
            arg_scope([conv2d, separable_conv2d], normalizer=batch_norm),
            arg_scope([batch_norm], decay=0.9997, epsilon=1e-5, scale=True),
        ):
            net = self._pyramid(values[backbone.output], rates, keep_prob)
            if self.decoder:
                low = _LOW_LEVEL[self.backbone.family]
                if low not in points:
                    raise ValueError(f"{self.backbone} has no {low}, which the decoder takes")
                with scope("decoder"):
                    net = self._decoded(net, points[low])
            net = graph.features(net)
        if self.num_classes:
            with scope("logits"), arg_scope([conv2d], initializer=("truncated_normal", 0.01)):
                net = end_point(conv2d(net, self.num_classes, 1, activation=None, scope="semantic"))
        return net

    def _pyramid(self, net: Tensor, rates: Sequence[int], keep_prob: float) -> Tensor:
        """`_extract_features`: atrous spatial pyramid pooling."""
        branches = []
        if self.image_pooling:
            pooled = conv2d(graph.mean(net, scope="image_pooling_mean"), self.depth, 1, scope="image_pooling")
            branches.append(_resized(pooled, net, "image_pooling_resize"))
        branches.append(conv2d(net, self.depth, 1, scope="aspp0"))
        for number, rate in enumerate(rates, start=1):
            branches.append(_conv3x3(net, self.depth, self.aspp_separable, f"aspp{number}", rate))
        net = concat(*branches, scope="aspp_concat") if len(branches) > 1 else branches[0]
        net = end_point(conv2d(net, self.depth, 1, scope="concat_projection"), "concat_projection")
        return graph.dropout(net, keep_prob, scope="concat_projection_dropout")

    def _decoded(self, net: Tensor, low: Tensor) -> Tensor:
        """`refine_by_decoder`."""
        projected = conv2d(low, self.decoder_depth, 1, scope="feature_projection0")
        net = concat(_resized(net, projected, "resize"), projected, scope="concat")
        # Two convolutions of one scope, by `slim.repeat`, where they are not separable.
        names = ("decoder_conv0", "decoder_conv1")
        if not self.decoder_separable:
            names = ("decoder_conv0/decoder_conv0_1", "decoder_conv0/decoder_conv0_2")
        for name in names:
            net = _conv3x3(net, self.depth, self.decoder_separable, name)
        return end_point(net)

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        names = list(names)
        pattern = re.compile(r"^(?:(.*)/)?concat_projection/weights$")
        found = {match[1] or "" for name in names if (match := pattern.match(name))}
        return sorted(where for where in found if _backbone(_inside(names, where)))

    @classmethod
    def recognised(cls, shapes: Mapping[str, Shape]) -> DeepLab:
        """As of `infer`: of a part without the pyramid, only the backbone is recognised."""
        return cls.infer(shapes)

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> DeepLab:
        found = _backbone(shapes)
        if found is None:
            raise ValueError("it has no backbone")
        family, where = found
        backbone = family.recognised({name: shapes[scoped(where, name)] for name in _inside(shapes, where)})
        if backbone.default_scope != where:
            raise ValueError(f"{backbone} is under {where} in it, and under {backbone.default_scope} in DeepLab")
        branches = {match[1] for name in shapes if (match := re.match(r"aspp([1-9])(?:_depthwise)?/", name))}
        return cls(
            backbone=backbone.with_classes(None),
            num_classes=depth_out(shapes, cls.classifier),
            image_pooling="image_pooling/weights" in shapes,
            atrous_branches=len(branches),
            aspp_separable="aspp1_depthwise/depthwise_weights" in shapes,
            decoder="decoder/feature_projection0/weights" in shapes,
            decoder_separable="decoder/decoder_conv0_depthwise/depthwise_weights" in shapes,
            depth=depth_out(shapes, "concat_projection") or cls.depth,
            decoder_depth=depth_out(shapes, "decoder/feature_projection0") or cls.decoder_depth,
        )

    def to_json(self) -> dict[str, Any]:
        described = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.final_endpoint is None:
            del described["final_endpoint"]
        return {"family": self.family, "name": self.name, **described, "backbone": self.backbone.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DeepLab:
        given = {"final_endpoint": None, **data}
        families = {family.family: family for family in BACKBONES}
        own = {field.name: given[field.name] for field in fields(cls)}
        return cls(**{**own, "backbone": families[data["backbone"]["family"]].from_json(data["backbone"])})


def _inside(names: Iterable[str], where: str) -> list[str]:
    """The names under a scope, relative to it."""
    prefix = scoped(where, "")
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _backbone(names: Iterable[str]) -> tuple[type[Network], str] | None:
    """The family of the backbone in variables, and its scope, of one component."""
    names = list(names)
    found = ((family, where) for family in BACKBONES for where in family.scopes(names))
    return next((one for one in found if one[1] and "/" not in one[1]), None)


def _resized(net: Tensor, like: Tensor, name: str) -> Tensor:
    return resize(net, (size(1, 1), size(1, 2)), align_corners=True, like=[like], scope=name)


def _conv3x3(net: Tensor, depth: int, separable: bool, name: str, rate: int = 1) -> Tensor:
    """A convolution, or `_split_separable_conv2d`."""
    if not separable:
        return conv2d(net, depth, 3, rate=rate, scope=name)
    with arg_scope([separable_conv2d], initializer=("truncated_normal", 0.33), regularized=False):
        net = separable_conv2d(net, None, 3, rate=rate, scope=f"{name}_depthwise")
    return conv2d(net, depth, 1, initializer=("truncated_normal", 0.06), scope=f"{name}_pointwise")
