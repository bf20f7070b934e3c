"""CifarNet. Source: `research/slim/nets/cifarnet.py` in tensorflow/models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from slimport import graph
from slimport.graph import Shape, Tensor, arg_scope, conv2d, end_point, fully_connected, max_pool2d
from slimport.graph_ops import lrn
from slimport.networks.lenet import LeNet
from slimport.networks.network import Preprocessing


@dataclass(frozen=True)
class CifarNet(LeNet):
    """A CifarNet, of any depths and for images of any one size. `num_classes` None means no `logits`.

    Args:
      depths: of `conv1`, `conv2`, `fc3` and `fc4`.
      map_area: the height times the width of the map that `fc3` takes, a quarter of those of the images each.
    """

    family: ClassVar[str] = "cifarnet"
    title: ClassVar[str] = "CifarNet"
    signature: ClassVar[str] = "conv1, conv2, fc3, fc4 and logits"
    classifier: ClassVar[str] = "logits"
    layers: ClassVar[tuple[str, ...]] = ("conv1", "conv2", "fc3", "fc4")
    name = "cifarnet"
    preprocessing: ClassVar[Preprocessing] = "cifarnet"
    default_scope = "CifarNet"

    in_channels: int = 3
    depths: tuple[int, ...] = (64, 64, 384, 192)
    map_area: int = 64

    def define(self, images: Tensor, *, dropout_keep_prob: float = 0.5) -> Tensor:
        """The network, from images to logits.

        Args:
          dropout_keep_prob: the probability that an activation is kept, in training.
        """
        depth = self.layer_depths
        point = partial(end_point, scoped=False)
        normalized = partial(lrn, depth_radius=4, bias=1.0, alpha=0.001 / 9.0, beta=0.75)
        with (
            arg_scope([conv2d], initializer=("truncated_normal", 0.05), regularized=False),
            arg_scope([fully_connected], initializer=("truncated_normal", 0.04), biases_initializer=0.1),
        ):
            net = point(conv2d(images, depth["conv1"], 5, scope="conv1"), "conv1")
            net = point(max_pool2d(net, 2, scope="pool1"), "pool1")
            net = normalized(net, scope="norm1")
            net = point(conv2d(net, depth["conv2"], 5, scope="conv2"), "conv2")
            net = normalized(net, scope="norm2")
            net = graph.features(point(max_pool2d(net, 2, scope="pool2"), "pool2"))
            net = point(graph.flatten(net, (self.map_area, 1), scope="Flatten"), "Flatten")
            net = point(fully_connected(net, depth["fc3"], scope="fc3"), "fc3")
            net = graph.dropout(net, dropout_keep_prob, scope="dropout3")
            net = point(fully_connected(net, depth["fc4"], scope="fc4"), "fc4")
        if self.num_classes:
            with arg_scope([fully_connected], initializer=("truncated_normal", 1 / 192), regularized=False):
                net = fully_connected(net, self.num_classes, activation=None, scope="logits")
            point(graph.softmax(point(net, "Logits"), scope="Predictions"), "Predictions")
        return net

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> CifarNet:
        found = super().infer(shapes)
        if not found.num_classes and found.depths != cls().depths:
            raise ValueError("without logits and slim's depths, it may be a LeNet")
        return found
