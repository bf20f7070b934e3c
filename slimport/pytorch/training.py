"""Training as in TF-Slim: its regularization, its initializers, its moving averages.

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

from slimport.graph import FAN_OUT, HE, VARIANCE_SCALING, XAVIER, Initializer
from slimport.pytorch.layers import BatchNorm

_KERNELS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
WEIGHT_DECAY = 1e-4
"""The default of slim's `resnet_arg_scope`."""


def kernels(model: nn.Module) -> list[Tensor]:
    """What slim regularizes: the weights of fully connected layers and convolutions, not MobileNets' depthwise ones."""
    modules = (module for module in model.modules() if isinstance(module, _KERNELS))
    layers = [module for module in modules if getattr(module, "regularized", True)]
    return [kernel for layer in layers for kernel in layer.parameters(recurse=False) if kernel.ndim > 1]


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
    """Initializes a network for training from scratch, with the distributions that slim gives its layers.

    The kernels of the ResNets and of Inception, those of the logits too, are `slim.variance_scaling_initializer()`:
    normal numbers of standard deviation `sqrt(1.3 * 2 / n)`, drawn again beyond two standard deviations, where n is the
    number of inputs of an output. (The 1.3 makes up for the truncation, a little too much: the result has 1.003 times
    the variance 2 / n.) Those of VGG are Xavier's, uniform. Biases start at the layer's `biases_initializer`, 0 in
    slim's networks; beta and the moving mean are 0; gamma and the moving variance are 1.

    Args:
      model: a network of `slimport.pytorch`, or a part of one. Kernels of other modules are variance scaled too.
      generator: of random numbers, on the device of the parameters; None is PyTorch's own.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.reset_parameters()
        elif isinstance(module, _KERNELS):
            for kernel in module.parameters(recurse=False):
                if kernel.ndim > 1:
                    _initialize(module, kernel, generator)
            if module.bias is not None:
                nn.init.constant_(module.bias, getattr(module, "biases_initializer", 0.0))


def _initialize(layer: nn.Module, kernel: Tensor, generator: torch.Generator | None) -> None:
    initializer: Initializer = getattr(layer, "initializer", None) or VARIANCE_SCALING
    # slim counts [height, width, in, out]; a depthwise kernel is [height, width, in, multiplier], with all inputs.
    groups = getattr(layer, "groups", 1) if kernel is layer.weight else 1
    taps = kernel[0, 0].numel()
    fan_in, fan_out = kernel.shape[1] * groups * taps, kernel.shape[0] // groups * taps
    if initializer == XAVIER:
        limit = math.sqrt(6 / (fan_in + fan_out))
        nn.init.uniform_(kernel, -limit, limit, generator=generator)
        return
    if initializer == HE:
        nn.init.normal_(kernel, std=math.sqrt(2 / fan_in), generator=generator)
        return
    fan = fan_out if initializer == FAN_OUT else fan_in
    deviation = initializer[1] if len(initializer) > 1 else math.sqrt(1.3 * 2 / fan)
    nn.init.trunc_normal_(kernel, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)
