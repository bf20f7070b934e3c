"""FaceNet's Inception-ResNet v1. Source: `src/models/inception_resnet_v1.py` in davidsandberg/facenet.

It is that of arXiv:1602.07261. What FaceNet's `src/train_softmax.py` adds is here too: the embedding, arXiv:1503.03832,
and the class layer, whose scope is beside the network's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from slimport import graph
from slimport.graph import Shape, Tensor, arg_scope, dropout, flatten, fully_connected, scope
from slimport.networks.inception import point
from slimport.networks.inception_resnet import InceptionResNet
from slimport.networks.network import Preprocessing, depth_out

_STEM = (
    "Conv2d_1a_3x3 32 /2 VALID, Conv2d_2a_3x3 32 VALID, Conv2d_2b_3x3 64, MaxPool_3a_3x3 /2 VALID, "
    "Conv2d_3b_1x1 80 VALID, Conv2d_4a_3x3 192 VALID, Conv2d_4b_3x3 256 /2 VALID"
)
_MIXED_6A = (
    "Conv2d_1a_3x3 384 /2 VALID",
    "Conv2d_0a_1x1 192, Conv2d_0b_3x3 192, Conv2d_1a_3x3 256 /2 VALID",
    "MaxPool_1a_3x3 /2 VALID",
)
_MIXED_7A = (
    "Conv2d_0a_1x1 256, Conv2d_1a_3x3 384 /2 VALID",
    "Conv2d_0a_1x1 256, Conv2d_1a_3x3 256 /2 VALID",
    "Conv2d_0a_1x1 256, Conv2d_0b_3x3 256, Conv2d_1a_3x3 256 /2 VALID",
    "MaxPool_1a_3x3 /2 VALID",
)
_BLOCKS = {
    "block35": (
        "Conv2d_1x1 32",
        "Conv2d_0a_1x1 32, Conv2d_0b_3x3 32",
        "Conv2d_0a_1x1 32, Conv2d_0b_3x3 32, Conv2d_0c_3x3 32",
    ),
    "block17": ("Conv2d_1x1 128", "Conv2d_0a_1x1 128, Conv2d_0b_1x7 128, Conv2d_0c_7x1 128"),
    "block8": ("Conv2d_1x1 192", "Conv2d_0a_1x1 192, Conv2d_0b_1x3 192, Conv2d_0c_3x1 192"),
}
_SCOPE = "InceptionResnetV1"


@dataclass(frozen=True)
class InceptionResNetV1(InceptionResNet):
    """FaceNet's Inception-ResNet v1. `num_classes` None means no class layer: it gives the embedding.

    FaceNet has no `depth_multiplier` and no `repeats` for it: the defaults are FaceNet's.

    Args:
      bottleneck_layer_size: of the embedding; 128, or 512 in FaceNet's later releases.
    """

    family: ClassVar[str] = "inception_resnet_v1"
    title: ClassVar[str] = "FaceNet's Inception-ResNet v1"
    signature: ClassVar[str] = f"{_SCOPE}/Conv2d_4b_3x3"
    marks: ClassVar[tuple[str, ...]] = (signature,)
    prefix: ClassVar[str] = f"{_SCOPE}/"
    classifier: ClassVar[str] = "Logits"
    background: ClassVar[bool] = False
    blocks = _BLOCKS
    chosen = (*InceptionResNet.chosen, "repeats", "bottleneck_layer_size")
    name = "inception_resnet_v1"
    default_image_size = 160
    default_scope = ""

    repeats: tuple[int, int, int] = (5, 10, 5)
    bottleneck_layer_size: int = 128

    @property
    def preprocessing(self) -> Preprocessing:
        return "facenet"

    @classmethod
    def named(cls) -> dict[str, InceptionResNetV1]:
        return {"inception_resnet_v1": cls()}

    def define(self, images: Tensor, *, dropout_keep_prob: float = 0.8) -> Tensor:
        """The network, from images to the embedding, of length 1, or to logits.

        Args:
          dropout_keep_prob: the probability that a feature is kept, in training.
        """
        with scope(_SCOPE), self.settings(decay=0.995, initializer=graph.XAVIER):
            net = self._map(images)
            with scope("Logits"):
                net = graph.mean(graph.features(point(net, "PrePool")), scope="AvgPool_1a_8x8")
                net = dropout(net, dropout_keep_prob, scope="Dropout")
                net = point(flatten(net, (1, 1), scope="Flatten"), "PreLogitsFlatten")
            with arg_scope([fully_connected], normalizer=graph.batch_norm, activation=None):
                net = point(fully_connected(net, self.bottleneck_layer_size, scope="Bottleneck"), "Bottleneck")
        embeddings = point(graph.l2_normalize(net, 1e-10, scope="embeddings"), "embeddings")
        if not self.num_classes:
            return embeddings
        return point(fully_connected(net, self.num_classes, activation=None, scope="Logits"), "Logits")

    def _map(self, images: Tensor) -> Tensor:
        net = self.points(images, _STEM)
        net = point(self.repeated(net, "block35", 0.17, "relu"), "Mixed_5a")
        net = self.mixed(net, "Mixed_6a", _MIXED_6A)
        net = point(self.repeated(net, "block17", 0.1, "relu"), "Mixed_6b")
        net = self.mixed(net, "Mixed_7a", _MIXED_7A)
        net = point(self.repeated(net, "block8", 0.2, "relu"), "Mixed_8a")
        with scope("Block8"):
            return point(self.residual(net, "block8"), "Mixed_8b")

    @classmethod
    def options(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        size = depth_out(shapes, f"{_SCOPE}/Bottleneck") or cls.bottleneck_layer_size
        return {**super().options(shapes), "bottleneck_layer_size": size}
