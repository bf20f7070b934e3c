"""AlexNet v2. Source: `research/slim/nets/alexnet.py` in tensorflow/models; arXiv:1404.5997."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from slimport import graph
from slimport.graph import Padding, Shape, Tensor, arg_scope, conv2d, dropout, end_point, max_pool2d
from slimport.networks.network import Network, Preprocessing, depth_in, depth_out

FC_INITIALIZER = ("truncated_normal", 0.005)


@dataclass(frozen=True)
class AlexNetV2(Network):
    """An AlexNet v2, of any depths, with its fully connected layers as the convolutions `fc6` to `fc8`.

    `num_classes` None means no `fc8`.
    """

    family: ClassVar[str] = "alexnet"
    title: ClassVar[str] = "AlexNet v2"
    signature: ClassVar[str] = "conv1 11x11 and conv2 to conv5"
    classifier: ClassVar[str] = "fc8"
    background: ClassVar[bool] = False
    slims_name: ClassVar[str] = "alexnet_v2"
    default_image_size = 224
    pool_size: ClassVar[int] = 3
    conv2_padding: ClassVar[Padding] = "SAME"
    fc6_size: ClassVar[int] = 5
    conv_biases: ClassVar[float] = 0.1
    """The initial value of the biases of `conv1` to `conv5`."""

    num_classes: int | None = None
    in_channels: int = 3
    depths: tuple[int, ...] = (64, 192, 384, 384, 256)
    """Of `conv1` to `conv5`."""
    fc_depths: tuple[int, ...] = (4096, 4096)
    """Of `fc6` and `fc7`."""
    final_endpoint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, count in (("depths", 5), ("fc_depths", 2)):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != count:
                raise ValueError(f"{name} must be {count} numbers")

    @property
    def name(self) -> str:
        slims = type(self)()
        return self.slims_name if (self.depths, self.fc_depths) == (slims.depths, slims.fc_depths) else self.family

    @property
    def preprocessing(self) -> Preprocessing:
        return "none"

    @property
    def layer_depths(self) -> dict[str, int]:
        """The depths of the layers before the logits, by scope."""
        names = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
        return dict(zip(names, (*self.depths, *self.fc_depths), strict=True))

    @classmethod
    def named(cls) -> dict[str, AlexNetV2]:
        return {cls.slims_name: cls(1000)}

    def define(
        self,
        images: Tensor,
        *,
        dropout_keep_prob: float = 0.5,
        spatial_squeeze: bool = True,
        global_pool: bool = False,
    ) -> Tensor:
        """The network, from images to logits.

        Args:
          dropout_keep_prob: the probability that an activation is kept, in training.
          spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map.
          global_pool: whether what `fc8` takes is averaged over height and width, which the network itself does not do.
        """
        depth = self.layer_depths
        with arg_scope([conv2d, max_pool2d], collect=True):
            with arg_scope([conv2d], biases_initializer=self.conv_biases):
                net = conv2d(images, depth["conv1"], 11, 4, "VALID", scope="conv1")
                net = max_pool2d(net, self.pool_size, scope="pool1")
                net = conv2d(net, depth["conv2"], 5, padding=self.conv2_padding, scope="conv2")
                net = max_pool2d(net, self.pool_size, scope="pool2")
                for name in ("conv3", "conv4", "conv5"):
                    net = conv2d(net, depth[name], 3, scope=name)
                net = graph.features(max_pool2d(net, self.pool_size, scope="pool5"))
            # The fully connected layers are convolutions, so that images may be larger.
            with arg_scope([conv2d], initializer=FC_INITIALIZER, biases_initializer=0.1):
                net = conv2d(net, depth["fc6"], self.fc6_size, padding="VALID", scope="fc6")
                net = dropout(net, dropout_keep_prob, scope="dropout6")
                net = conv2d(net, depth["fc7"], 1, scope="fc7")
        if global_pool:
            net = end_point(graph.mean(net, scope="global_pool"), "global_pool", scoped=False)
        if self.num_classes:
            net = dropout(net, dropout_keep_prob, scope="dropout7")
            net = conv2d(net, self.num_classes, 1, activation=None, initializer=FC_INITIALIZER, scope="fc8")
            if spatial_squeeze:
                net = graph.squeeze(net, scope="fc8/squeezed")
            end_point(net, "fc8")
        return net

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        pattern = re.compile(r"^(?:(.*)/)?(conv[1-5])/weights$")
        found: dict[str, set[str]] = {}
        for match in filter(None, map(pattern.match, names)):
            found.setdefault(match[1] or "", set()).add(match[2])
        return sorted(scope for scope, convs in found.items() if len(convs) == 5)

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> AlexNetV2:
        slims = cls()
        for name, shape in slims.variables().items():
            found = shapes.get(name, shape)
            if name.endswith("weights") and found[:2] != shape[:2]:
                raise ValueError(f"{name} is {list(found)}, not {shape[0]}x{shape[1]}")
        depths = [depth_out(shapes, name) or depth for name, depth in slims.layer_depths.items()]
        if "fc6/weights" not in shapes and tuple(depths[:5]) != slims.depths:
            raise ValueError("it has no fc6, and other depths than slim's")
        return cls(
            num_classes=depth_out(shapes, cls.classifier),
            in_channels=depth_in(shapes, "conv1/weights"),
            depths=tuple(depths[:5]),
            fc_depths=tuple(depths[5:]),
        )
