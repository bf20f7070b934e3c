"""TF-Slim's layers in PyTorch: the same arithmetic, padding and variable names. Tensors are NCHW."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimport import spec


class BatchNorm(nn.BatchNorm2d):
    """`slim.batch_norm` as `resnet_arg_scope` sets it. PyTorch's momentum is 1 - decay.

    moving_variance: which variance of a batch the moving average takes: `unbiased`, as TensorFlow's fused BatchNorm,
      which slim runs wherever it can, and PyTorch do; or `biased`, as TensorFlow's unfused one and Keras do. The batch
      itself is always normalized by the biased one.
    """

    moving_variance: Literal["unbiased", "biased"] = "unbiased"

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=spec.BATCH_NORM_EPSILON, momentum=1 - spec.BATCH_NORM_DECAY)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.moving_variance == "unbiased" or not self.training:
            return super().forward(inputs)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        # With a momentum of 1, a moving average is the batch's statistic.
        mean, unbiased = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)
        net = F.batch_norm(inputs, mean, unbiased, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps)
        count = inputs.numel() // inputs.shape[1]
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased * ((count - 1) / count), self.momentum)
        return net


class Conv2d(nn.Conv2d):
    """`slim.conv2d` or `conv2d_same`: a convolution with bias, or, `normalized`, one with BatchNorm.

    A normalized one is `activated` by ReLU if not said otherwise (slim's `activation_fn=None`), another is not.
    `conv2d_same` pads alike on both sides at every stride, and slim's SAME at stride 1 does so for odd kernels: both
    are this one padding. With slim's VALID there is none.
    """

    def __init__(
        self,
        depth_in: int,
        depth: int,
        kernel_size: int,
        stride: int = 1,
        rate: int = 1,
        *,
        normalized: bool = False,
        activated: bool | None = None,
        valid: bool = False,
    ) -> None:
        padding = 0 if valid else rate * (kernel_size - 1) // 2
        super().__init__(depth_in, depth, kernel_size, stride, padding, dilation=rate, bias=not normalized)
        if normalized:
            # The scope that slim gives a convolution's normalizer.
            self.BatchNorm = BatchNorm(depth)
        self.normalized = normalized
        self.activated = normalized if activated is None else activated

    def forward(self, inputs: Tensor) -> Tensor:
        net = super().forward(inputs)
        if self.normalized:
            net = self.BatchNorm(net)
        return F.relu(net) if self.activated else net


def subsample(inputs: Tensor, factor: int) -> Tensor:
    """Every `factor`-th row and column: [batch, channels, ceil(height / factor), ceil(width / factor)]."""
    return inputs if factor == 1 else inputs[:, :, ::factor, ::factor]


def pool1(inputs: Tensor) -> Tensor:
    """TensorFlow's 3x3 max pool of stride 2 with SAME padding.

    TensorFlow pads an even side by (0, 1) and an odd one by (1, 1), with minus infinity: a window that hangs over the
    end (`ceil_mode`) is the trailing 1, and the leading one is the side's parity.
    """
    height, width = inputs.shape[2:]
    if not (type(height) is type(width) is int):
        # A program that is exported for any height and width: its sides are symbols, and max_pool2d takes a padding of
        # numbers alone. Its own padding costs no copy.
        padded = F.pad(inputs, (width % 2, 0, height % 2, 0), value=-math.inf)
        return F.max_pool2d(padded, 3, 2, ceil_mode=True)
    return F.max_pool2d(inputs, 3, 2, padding=(height % 2, width % 2), ceil_mode=True)


def global_pool(inputs: Tensor) -> Tensor:
    """The mean over height and width: [batch, channels, 1, 1]."""
    return inputs.mean((2, 3), keepdim=True)


def spatial_squeeze(logits: Tensor) -> Tensor:
    """[batch, classes, 1, 1] to [batch, classes].

    Raises:
      ValueError: the map is not 1x1, as `tf.squeeze` would.
    """
    height, width = logits.shape[2:]
    if height != 1 or width != 1:
        raise ValueError(f"spatial_squeeze needs logits of 1x1, not {height}x{width}: pass spatial_squeeze=False")
    return logits.flatten(1)
