"""LeNet. Source: `research/slim/nets/lenet.py` in tensorflow/models."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TypeVar

from slimport import graph
from slimport.graph import Shape, Tensor, arg_scope, conv2d, end_point, fully_connected, max_pool2d
from slimport.networks.network import Network, Preprocessing, depth_in, depth_out

T = TypeVar("T", bound="LeNet")


@dataclass(frozen=True)
class LeNet(Network):
    """A LeNet, of any depths and for images of any one size. `num_classes` None means no `fc4`.

    Args:
      depths: of `conv1`, `conv2` and `fc3`.
      map_area: the height times the width of the map that `fc3` takes, a quarter of those of the images each.
    """

    family: ClassVar[str] = "lenet"
    title: ClassVar[str] = "LeNet"
    signature: ClassVar[str] = "conv1, conv2, fc3 and fc4"
    classifier: ClassVar[str] = "fc4"
    background: ClassVar[bool] = False
    layers: ClassVar[tuple[str, ...]] = ("conv1", "conv2", "fc3")
    chosen = (*Network.chosen, "depths", "map_area")
    name = "lenet"
    preprocessing: ClassVar[Preprocessing] = "lenet"
    default_scope = "LeNet"

    num_classes: int | None = None
    in_channels: int = 1
    depths: tuple[int, ...] = (32, 64, 1024)
    map_area: int = 49
    final_endpoint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "depths", tuple(self.depths))
        if len(self.depths) != len(self.layers):
            raise ValueError(f"depths must be {len(self.layers)} numbers")

    @property
    def default_image_size(self) -> int:
        """The side of the square images that the map is made of."""
        return 4 * math.isqrt(self.map_area)

    @property
    def layer_depths(self) -> dict[str, int]:
        """The depths of the layers before the logits, by scope."""
        return dict(zip(self.layers, self.depths, strict=True))

    @classmethod
    def named(cls) -> dict[str, LeNet]:
        return {cls.name: cls(10)}

    def define(self, images: Tensor, *, dropout_keep_prob: float = 0.5) -> Tensor:
        """The network, from images to logits.

        Args:
          dropout_keep_prob: the probability that an activation is kept, in training.
        """
        depth = self.layer_depths
        point = partial(end_point, scoped=False)
        with arg_scope([conv2d, fully_connected], initializer=("truncated_normal", 0.1)):
            net = point(conv2d(images, depth["conv1"], 5, scope="conv1"), "conv1")
            net = point(max_pool2d(net, 2, scope="pool1"), "pool1")
            net = point(conv2d(net, depth["conv2"], 5, scope="conv2"), "conv2")
            net = graph.features(point(max_pool2d(net, 2, scope="pool2"), "pool2"))
            net = point(graph.flatten(net, (self.map_area, 1), scope="Flatten"), "Flatten")
            net = point(fully_connected(net, depth["fc3"], scope="fc3"), "fc3")
            if not self.num_classes:
                return net
            net = point(graph.dropout(net, dropout_keep_prob, scope="dropout3"), "dropout3")
            net = point(fully_connected(net, self.num_classes, activation=None, scope="fc4"), "Logits")
        point(graph.softmax(net, scope="Predictions"), "Predictions")
        return net

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:
        pattern = re.compile(rf"^(?:(.*)/)?({'|'.join(cls.layers)})/weights$")
        found: dict[str, set[str]] = {}
        for match in filter(None, map(pattern.match, names)):
            found.setdefault(match[1] or "", set()).add(match[2])
        return sorted(scope for scope, layers in found.items() if len(layers) == len(cls.layers))

    @classmethod
    def infer(cls: type[T], shapes: Mapping[str, Shape]) -> T:
        if any(shapes.get(f"{name}/weights", (5, 5))[:2] != (5, 5) for name in ("conv1", "conv2")):
            raise ValueError("conv1 and conv2 are not 5x5")
        slims = cls().layer_depths
        depths = {name: depth_out(shapes, name) or depth for name, depth in slims.items()}
        inputs = shapes.get("fc3/weights", (cls.map_area * depths["conv2"],))[0]
        return cls(
            num_classes=depth_out(shapes, cls.classifier),
            in_channels=depth_in(shapes, "conv1/weights"),
            depths=tuple(depths.values()),
            map_area=max(1, inputs // depths["conv2"]),
        )
