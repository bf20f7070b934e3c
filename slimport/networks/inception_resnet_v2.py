"""Inception-ResNet v2. Source: `research/slim/nets/inception_resnet_v2.py` in tensorflow/models; arXiv:1602.07261."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from slimport import graph
from slimport.graph import Padding, Tensor, arg_scope, conv2d, scope
from slimport.networks.inception import InceptionWithAuxiliary, point
from slimport.networks.inception_resnet import InceptionResNet, Scales

_STEM = (
    "Conv2d_1a_3x3 32 /2 VALID, Conv2d_2a_3x3 32 VALID, Conv2d_2b_3x3 64, MaxPool_3a_3x3 /2 VALID, "
    "Conv2d_3b_1x1 80 VALID, Conv2d_4a_3x3 192 VALID, MaxPool_5a_3x3 /2 VALID"
)
_MIXED_5B = (
    "Conv2d_1x1 96",
    "Conv2d_0a_1x1 48, Conv2d_0b_5x5 64",
    "Conv2d_0a_1x1 64, Conv2d_0b_3x3 96, Conv2d_0c_3x3 96",
    "AvgPool_0a_3x3, Conv2d_0b_1x1 64",
)
_MIXED_6A = (
    "Conv2d_1a_3x3 384 /2 VALID",
    "Conv2d_0a_1x1 256, Conv2d_0b_3x3 256, Conv2d_1a_3x3 384 /2 VALID",
    "MaxPool_1a_3x3 /2 VALID",
)
_MIXED_7A = (
    "Conv2d_0a_1x1 256, Conv2d_1a_3x3 384 /2 VALID",
    "Conv2d_0a_1x1 256, Conv2d_1a_3x3 288 /2 VALID",
    "Conv2d_0a_1x1 256, Conv2d_0b_3x3 288, Conv2d_1a_3x3 320 /2 VALID",
    "MaxPool_1a_3x3 /2 VALID",
)
_BLOCKS = {
    "block35": (
        "Conv2d_1x1 32",
        "Conv2d_0a_1x1 32, Conv2d_0b_3x3 32",
        "Conv2d_0a_1x1 32, Conv2d_0b_3x3 48, Conv2d_0c_3x3 64",
    ),
    "block17": ("Conv2d_1x1 192", "Conv2d_0a_1x1 128, Conv2d_0b_1x7 160, Conv2d_0c_7x1 192"),
    "block8": ("Conv2d_1x1 192", "Conv2d_0a_1x1 192, Conv2d_0b_1x3 224, Conv2d_0c_3x1 256"),
}


@dataclass(frozen=True)
class InceptionResNetV2(InceptionResNet, InceptionWithAuxiliary):
    """An Inception-ResNet v2. Slim has no `depth_multiplier` and no `repeats` for it: the defaults are slim's."""

    family: ClassVar[str] = "inception_resnet_v2"
    title: ClassVar[str] = "Inception-ResNet v2"
    signature: ClassVar[str] = "Mixed_5b/Branch_0/Conv2d_1x1"
    marks: ClassVar[tuple[str, ...]] = (signature,)
    classifier: ClassVar[str] = "Logits/Logits"
    blocks = _BLOCKS
    chosen = (*InceptionWithAuxiliary.chosen, "repeats")
    name = "inception_resnet_v2"
    default_scope = "InceptionResnetV2"

    @classmethod
    def named(cls) -> dict[str, InceptionResNetV2]:
        return {"inception_resnet_v2": cls(1001)}

    def define(
        self,
        images: Tensor,
        *,
        output_stride: Literal[8, 16] = 16,
        align_feature_maps: bool = False,
        relu6: bool = False,
        activation_scale: Scales | None = None,
        dropout_keep_prob: float = 0.8,
    ) -> Tensor:
        """The network, from images to logits.

        Args:
          output_stride: the sides of the images over those of `PreAuxLogits`; 8 is for networks that end there.
          align_feature_maps: whether all padding is SAME, so that features are where they are in the images.
          relu6: whether activations are ReLU6, and residuals are clipped to [-6, 6] (slim's `activation_fn`).
          activation_scale: of the residuals of `block35`, `block17` and `block8`, in slim 0.17, 0.1 and 0.2; that of
            `Block8` is 1.
          dropout_keep_prob: the probability that a feature is kept, in training.
        """
        if output_stride not in (8, 16):
            raise ValueError(f"output_stride {output_stride}: must be 8 or 16")
        if output_stride == 8 and self.final_endpoint in (None, "Mixed_7a", "Conv2d_7b_1x1", "global_pool"):
            raise ValueError("output_stride 8 is for networks whose final_endpoint is PreAuxLogits or before it")
        valid: Padding = "SAME" if align_feature_maps else "VALID"
        scale35, scale17, scale8 = activation_scale or (0.17, 0.1, 0.2)
        activation, atrous = "relu6" if relu6 else "relu", output_stride == 8
        with self.settings(initializer=graph.XAVIER), arg_scope([conv2d], activation=activation):
            net = self.points(images, _STEM, valid)
            net = self.mixed(net, "Mixed_5b", _MIXED_5B)
            net = self.repeated(net, "block35", scale35, activation)
            reduction = [branch.replace(" /2", "") for branch in _MIXED_6A] if atrous else _MIXED_6A
            net = self.mixed(net, "Mixed_6a", reduction, valid)
            with arg_scope([conv2d], rate=2 if atrous else 1):
                net = pre_aux = point(self.repeated(net, "block17", scale17, activation), "PreAuxLogits")
            net = self.mixed(net, "Mixed_7a", _MIXED_7A, valid)
            net = self.repeated(net, "block8", scale8, activation)
            with scope("Block8"):
                net = self.residual(net, "block8")
            net = graph.features(self.points(net, "Conv2d_7b_1x1 1536"))
            if self.has_auxiliary:
                self.connected_auxiliary(pre_aux, "Conv2d_1a_3x3", "Conv2d_2a_5x5", "Logits")
            return self.connected_logits(net, "AvgPool_1a_8x8", dropout_keep_prob=dropout_keep_prob)
