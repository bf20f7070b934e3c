"""What training as TF-Slim does needs beside PyTorch's own: its regularization, its initializers, its moving averages.

TF-Slim's loss is the cross entropy plus `weight_decay * sum(w ** 2) / 2` over every kernel. Biases, beta and gamma are
not regularized. The gradient of that sum is `weight_decay * w`, which is what PyTorch's optimizers of plain SGD add to
the gradient by themselves: use either `parameter_groups` or `regularization_loss`, not both.

Sources: `regularizers.py` and `initializers.py` in tf_slim; `resnet_utils.resnet_arg_scope` in tensorflow/models.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from slimport.pytorch.layers import BatchNorm

WEIGHT_DECAY = 1e-4
"""The default of slim's `resnet_arg_scope`."""


def kernels(model: nn.Module) -> list[Tensor]:
    """What slim regularizes: the weights of convolutions and fully connected layers."""
    return [module.weight for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def parameter_groups(model: nn.Module, weight_decay: float = WEIGHT_DECAY) -> list[dict[str, Any]]:
    """The parameters for an optimizer: kernels with slim's weight decay; biases, beta and gamma without.

        optimizer = torch.optim.SGD(parameter_groups(model), lr=0.01, momentum=0.9)

    Only an optimizer that adds the decay to the gradient trains as slim does: SGD and RMSprop, and Adam, but not AdamW.

    Args:
      model: a network of `slimport.pytorch`, or any other module.
      weight_decay: as of slim's `l2_regularizer`.
    """
    decayed = kernels(model)
    among = {id(parameter) for parameter in decayed}
    others = [parameter for parameter in model.parameters() if id(parameter) not in among]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def regularization_loss(model: nn.Module, weight_decay: float = WEIGHT_DECAY) -> Tensor:
    """Slim's regularization loss, `weight_decay * sum(w ** 2) / 2` over every kernel: a scalar.

    Args:
      model: a network of `slimport.pytorch`, or any other module.
      weight_decay: as of slim's `l2_regularizer`.
    """
    return weight_decay / 2 * torch.stack([kernel.square().sum() for kernel in kernels(model)]).sum()


def set_moving_variance(model: nn.Module, variance: Literal["unbiased", "biased"]) -> None:
    """Sets which variance of a batch of n numbers a channel the moving averages take, in training mode.

    Args:
      model: a network of `slimport.pytorch`.
      variance: `unbiased`, as it is from the start, divides by n - 1: TensorFlow's fused BatchNorm, which is slim's
        default, and PyTorch. `biased` divides by n: slim with `fused=False`, and Keras.

    Raises:
      ValueError: another word.
    """
    if variance not in ("unbiased", "biased"):
        raise ValueError(f"moving variance {variance!r}: must be 'unbiased' or 'biased'")
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.moving_variance = variance


@torch.no_grad()
def initialize(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Initializes a network for training from scratch, with the distributions that slim's `resnet_arg_scope` gives.

    Kernels, those of the logits too, are `slim.variance_scaling_initializer()`: normal numbers of standard deviation
    `sqrt(1.3 * 2 / n)`, drawn again beyond two standard deviations, where n is the number of inputs of an output. (The
    1.3 makes up for the truncation, a little too much: the result has 1.003 times the variance 2 / n.) Biases, beta and
    the moving mean are 0; gamma and the moving variance are 1.

    Args:
      model: a network of `slimport.pytorch`, or a part of one.
      generator: of random numbers, on the device of the parameters; None is PyTorch's own.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            deviation = math.sqrt(1.3 * 2 / module.weight[0].numel())
            nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
