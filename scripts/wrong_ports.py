"""Ports of ResNet v2 that are wrong in the ways in which people get them wrong, each with where it begins.

Each is slimport's PyTorch port with one thing changed: its weights, its description, one of its parts, or one of the
functions that it calls. Where a difference begins follows from the network and from what was changed, never from a
comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from converters import models
from slimport import spec
from slimport.pytorch import layers
from slimport.pytorch.residual_units import RELU, FullPreactivation

Weights = dict[str, Any]
DENSE = {"global_pool": False, "spatial_squeeze": False}


@dataclass(frozen=True)
class WrongPort:
    """One mistake.

    name: what is wrong.
    how: how people get there.
    begins: (network, output stride) to the first end point that it touches, relative to the scope.
    weights: changes the variables, by slim's names and in slim's layouts.
    network: changes the description.
    change: changes the module.
    unit: stands in for the residual unit.
    functions: stand in for functions of `slimport.pytorch.layers`.
    arguments: under which it shows, of slim and of the port.
    ignored: the arguments that the port does not get.
    odd: whether it shows where every map has odd sides, as from images of a multiple of 32, plus 1.
    float32: whether it is more than TF-Slim's own rounding in float32.
    """

    name: str
    how: str
    begins: Callable[[spec.Network, int | None], str]
    weights: Callable[[Weights], Weights] = lambda weights: weights
    network: Callable[[spec.Network], spec.Network] = lambda network: network
    change: Callable[[Any], object] = lambda _: None
    unit: type[FullPreactivation] | None = None
    functions: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    odd: bool = True
    float32: bool = True

    def build(self, network: spec.Network, weights: Mapping[str, Any], scope: str) -> nn.Module:
        """The wrong port with these weights in."""
        arguments = {name: value for name, value in self.arguments.items() if name not in self.ignored}
        variables = self.weights(dict(weights))
        model = models.pytorch_port(self.network(network), variables.items(), scope=scope, **arguments)
        if self.unit:
            for unit in units_of(model):
                # A subclass without parts of its own, so that the unit keeps its weights.
                unit.__class__ = self.unit
        self.change(model)
        return Patched(model, self.functions) if self.functions else model

    def first_end_point(self, network: spec.Network, scope: str) -> str:
        """The first end point that it touches, by slim's name."""
        name = self.begins(network, self.arguments.get("output_stride"))
        return name if name == "global_pool" else spec.scoped(scope, name)


class Patched(nn.Module):
    """A port for which some functions of `slimport.pytorch.layers` are others."""

    def __init__(self, model: Any, functions: Mapping[str, Callable[..., Tensor]]) -> None:
        super().__init__()
        self.model, self.functions = model, functions

    def end_points(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with ExitStack() as stack:
            for name, function in self.functions.items():
                stack.enter_context(mock.patch.object(layers, name, function))
            return self.model.end_points(images)


# Where it begins


def root(*_: object) -> str:
    return "conv1"


def first_unit(layer: str) -> Callable[[spec.Network, int | None], str]:
    return lambda network, _: f"{network.units()[0].scope}/{layer}"


def behind_root(network: spec.Network, _: int | None) -> str:
    """What takes the first unit's preactivation first."""
    unit = network.units()[0]
    return f"{unit.scope}/{'shortcut' if unit.projects else 'conv1'}"


def first_square(network: spec.Network, _: int | None) -> str:
    """The first kernel with as many inputs as outputs."""
    shapes = ((name.rpartition("/"), shape) for name, shape in network.variables().items())
    return next(scope for (scope, _, leaf), shape in shapes if leaf == "weights" and shape[2] == shape[3])


def first_identity(network: spec.Network, _: int | None) -> str:
    """The first sum with an identity shortcut."""
    return next(unit.scope for unit in network.units() if not unit.projects)


def first_strided(layer: str) -> Callable[[spec.Network, int | None], str]:
    return lambda network, _: next(f"{unit.scope}/{layer}" for unit in network.units() if unit.stride > 1)


def first_strided_identity(network: spec.Network, _: int | None) -> str:
    return next(unit.scope for unit in network.units() if unit.stride > 1 and not unit.projects)


def first_of_strided_block(network: spec.Network, _: int | None) -> str:
    """The first unit of the first block that strides; where it projects, the shortcut strides too."""
    block = next(block for block in network.blocks if block.units[-1].stride > 1)
    unit = next(unit for unit in network.units() if unit.scope.startswith(f"{block.scope}/"))
    return f"{unit.scope}/{'shortcut' if unit.projects else 'conv2'}"


def first_unstrided_by_output_stride(network: spec.Network, output_stride: int | None) -> str:
    """The first unit that an output stride keeps from striding."""
    pairs = zip(network.units(), network.units(output_stride), strict=True)
    return next(f"{dense.scope}/conv2" for nominal, dense in pairs if nominal.stride > dense.stride)


def first_dilated(network: spec.Network, output_stride: int | None) -> str:
    return next(f"{unit.scope}/conv2" for unit in network.units(output_stride) if unit.rate > 1)


def features(*_: object) -> str:
    """`postnorm` is no end point; the pooled features are the first that it touches."""
    return "global_pool"


def logits(*_: object) -> str:
    return "logits"


# What is changed


def each(leaf: str, change: Callable[[Any], Any], where: str = "") -> Callable[[Weights], Weights]:
    """Changes every variable whose name ends in `leaf` and contains `where`."""
    return lambda weights: {
        name: change(array) if name.endswith(leaf) and where in name else array for name, array in weights.items()
    }


def swapped(one: str, other: str) -> Callable[[Weights], Weights]:
    """Two variables of each scope, the one as the other."""
    leaves = {one: other, other: one}

    def swap(weights: Weights) -> Weights:
        split = {name: name.rpartition("/") for name in weights}
        return {name: weights[f"{scope}/{leaves.get(leaf, leaf)}"] for name, (scope, _, leaf) in split.items()}

    return swap


def transposed_where_square(kernel: Any) -> Any:
    return kernel.transpose(0, 1, 3, 2) if kernel.shape[2] == kernel.shape[3] else kernel


def reshaped(kernel: Any) -> Any:
    """The bytes of an HWIO kernel read as OIHW, in HWIO."""
    return kernel.reshape(kernel.shape[::-1][:2] + kernel.shape[:2]).transpose(2, 3, 1, 0)


def stride_first(network: spec.Network) -> spec.Network:
    """Every block's stride in its first unit."""

    def moved(block: spec.Block) -> spec.Block:
        strides = [unit.stride for unit in block.units][::-1]
        units = (replace(unit, stride=stride) for unit, stride in zip(block.units, strides, strict=True))
        return replace(block, units=tuple(units))

    return replace(network, blocks=tuple(map(moved, network.blocks)))


def without_background(network: spec.Network) -> spec.Network:
    return replace(network, num_classes=(network.num_classes or 0) - 1)


def units_of(model: Any) -> list[FullPreactivation]:
    return [module for module in model.modules() if isinstance(module, FullPreactivation)]


def set_epsilon(epsilon: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = epsilon

    return change


def pad_at_end(convolution: nn.Conv2d) -> None:
    """Padding of a strided convolution as TensorFlow's SAME has it on even sides: the larger half behind."""
    stride = convolution.stride[0]

    def pad(module: Any, inputs: tuple[Tensor, ...]) -> Tensor:
        kernel_size = module.kernel_size[0]
        totals = [max((-(-side // stride) - 1) * stride + kernel_size - side, 0) for side in inputs[0].shape[2:]]
        (top, left), (height, width) = [total // 2 for total in totals], totals
        return F.pad(inputs[0], (left, width - left, top, height - top))

    convolution.padding = (0, 0)
    convolution.register_forward_pre_hook(pad)


def pad_strided_at_end(model: Any) -> None:
    for unit in units_of(model):
        if unit.stride > 1:
            pad_at_end(unit.conv2)


def stride_in_conv1(model: Any) -> None:
    for unit in units_of(model):
        unit.conv1.stride, unit.conv2.stride = unit.conv2.stride, (1, 1)


def set_rate(unit: FullPreactivation, rate: int) -> None:
    unit.conv2.dilation = unit.conv2.padding = (rate, rate)


def rates_early(model: Any) -> None:
    """Each unit at the rate of the next one."""
    units = units_of(model)
    for unit, rate in zip(units, [unit.conv2.dilation[0] for unit in units[1:]], strict=False):
        set_rate(unit, rate)


def no_rates(model: Any) -> None:
    for unit in units_of(model):
        set_rate(unit, 1)


def remove_postnorm(model: Any) -> None:
    model.postnorm = nn.Identity()


def both_signs_of_postnorm(model: Any) -> None:
    """The parts that ReLU leaves of the output and of its negative: their difference is the output."""
    model.postnorm.register_forward_hook(lambda *hooked: torch.cat([hooked[-1], -hooked[-1]]))


def pool_both_signs(inputs: Tensor) -> Tensor:
    positive, negative = inputs.chunk(2)
    return (positive - negative).mean((2, 3), keepdim=True)


def pool_before_postnorm(model: Any) -> None:
    model.postnorm.register_forward_pre_hook(lambda _, inputs: inputs[0].mean((2, 3), keepdim=True))


def relu_of_conv1(model: Any) -> None:
    model.conv1.register_forward_hook(lambda *hooked: F.relu(hooked[-1]))


def reshape_images(model: Any) -> None:
    """The bytes of NHWC images read as NCHW."""
    model.conv1.register_forward_pre_hook(lambda _, inputs: inputs[0].permute(0, 2, 3, 1).reshape(inputs[0].shape))


class ReluOfSum(FullPreactivation):
    after_addition = RELU


class IdentityOfPreactivation(FullPreactivation):
    def carry(self, inputs: Tensor, preact: Tensor) -> Tensor:
        return super().carry(inputs if self.shortcut else preact, preact)


class ProjectionOfInput(FullPreactivation):
    def carry(self, inputs: Tensor, preact: Tensor) -> Tensor:
        return super().carry(inputs, inputs if self.shortcut else preact)


def zero_padded_pool(inputs: Tensor) -> Tensor:
    height, width = inputs.shape[2:]
    return F.max_pool2d(F.pad(inputs, (width % 2, 1, height % 2, 1)), 3, 2)


WRONG_PORTS = (
    WrongPort(
        "images reshaped to NCHW, not transposed",
        "`images.reshape(n, 3, h, w)`",
        root,
        change=reshape_images,
    ),
    WrongPort(
        "RGB and BGR swapped",
        "a network that took images from OpenCV",
        root,
        weights=lambda weights: weights | {"conv1/weights": weights["conv1/weights"][:, :, ::-1]},
    ),
    WrongPort(
        "kernels reshaped to OIHW, not transposed",
        "`weights.reshape(module.weight.shape)`",
        root,
        weights=each("weights", reshaped),
    ),
    WrongPort(
        "height and width of kernels swapped",
        "`transpose()` of all axes, OIWH",
        root,
        weights=each("weights", lambda kernel: kernel.transpose(1, 0, 2, 3)),
    ),
    WrongPort(
        "kernels flipped",
        "convolution as mathematics has it, or a Theano habit",
        root,
        weights=each("weights", lambda kernel: kernel[::-1, ::-1]),
    ),
    WrongPort(
        "input and output channels swapped where both are as many",
        "a transposition found by trying until the shapes fit",
        first_square,
        weights=each("weights", transposed_where_square),
    ),
    WrongPort(
        "weights rounded to float16",
        "a file saved in half precision to make it small",
        root,
        weights=each("", lambda array: array.astype(np.float16).astype(array.dtype)),
    ),
    WrongPort(
        "conv1 padded as TensorFlow's SAME",
        "`conv2d_same` taken for SAME: pads (2, 3) on even sides",
        root,
        change=lambda model: pad_at_end(model.conv1),
        odd=False,
    ),
    WrongPort(
        "conv1 with ReLU",
        "the root of ResNet v1",
        root,
        change=relu_of_conv1,
    ),
    WrongPort(
        "pool1 padded alike on both sides",
        "`MaxPool2d(3, 2, padding=1)`, what SAME is taken for",
        behind_root,
        functions={"pool1": lambda inputs: F.max_pool2d(inputs, 3, 2, padding=1)},
        odd=False,
    ),
    WrongPort(
        "pool1 padded with zeros",
        "`ZeroPadding2D` or `F.pad` before the pool, as in keras.applications; nothing has made conv1 positive",
        behind_root,
        functions={"pool1": zero_padded_pool},
    ),
    WrongPort(
        "pool1 without padding",
        "the VALID of the code that accompanies arXiv:1512.03385",
        behind_root,
        functions={"pool1": lambda inputs: F.max_pool2d(inputs, 3, 2)},
    ),
    WrongPort(
        "stride in the first unit of a block",
        "timm, torchvision and the paper",
        first_of_strided_block,
        network=stride_first,
    ),
    WrongPort(
        "stride in the 1x1 convolution of a unit",
        "the first ResNets, in Caffe",
        first_strided("conv1"),
        change=stride_in_conv1,
    ),
    WrongPort(
        "strided conv2 padded as TensorFlow's SAME",
        "`conv2d_same` taken for SAME: pads (0, 1) on even sides",
        first_strided("conv2"),
        change=pad_strided_at_end,
        odd=False,
    ),
    WrongPort(
        "identity shortcut subsampled by an average pool",
        "ResNet-D",
        first_strided_identity,
        functions={"subsample": lambda inputs, factor: F.avg_pool2d(inputs, factor, ceil_mode=True)},
    ),
    WrongPort(
        "identity shortcut subsampled by a 2x2 max pool",
        "slim's `max_pool2d(inputs, [1, 1], stride=factor)` read in haste",
        first_strided_identity,
        functions={"subsample": lambda inputs, factor: F.max_pool2d(inputs, factor, ceil_mode=True)},
    ),
    WrongPort(
        "projection taken from the input, not from the preactivation",
        "the shortcut of ResNet v1",
        first_unit("shortcut"),
        unit=ProjectionOfInput,
    ),
    WrongPort(
        "identity shortcut taken from the preactivation",
        "one rule for both kinds of shortcut",
        first_identity,
        unit=IdentityOfPreactivation,
    ),
    WrongPort(
        "ReLU after the addition",
        "the unit of ResNet v1",
        lambda network, _: network.units()[0].scope,
        unit=ReluOfSum,
    ),
    WrongPort(
        "no bias in the projections",
        "`bias=False`, as every other ResNet has it",
        first_unit("shortcut"),
        weights=each("biases", np.zeros_like, "/shortcut/"),
    ),
    WrongPort(
        "no bias in conv3",
        "`bias=False`, as every other ResNet has it",
        first_unit("conv3"),
        weights=each("biases", np.zeros_like, "/conv3/"),
    ),
    WrongPort(
        "epsilon 1e-3",
        "the default of Keras and of slim.batch_norm",
        behind_root,
        change=set_epsilon(1e-3),
    ),
    WrongPort(
        "epsilon 1.001e-5",
        "keras.applications",
        behind_root,
        change=set_epsilon(1.001e-5),
        float32=False,
    ),
    WrongPort(
        "gamma and beta swapped",
        "both have one number for each channel",
        behind_root,
        weights=swapped("gamma", "beta"),
    ),
    WrongPort(
        "gamma left out",
        "slim.batch_norm's default `scale=False`, which `resnet_arg_scope` overrides",
        behind_root,
        weights=each("gamma", np.ones_like),
    ),
    WrongPort(
        "moving mean and moving variance swapped",
        "both have one number for each channel",
        behind_root,
        weights=swapped("moving_mean", "moving_variance"),
    ),
    WrongPort(
        "moving averages not converted",
        "`load_state_dict(strict=False)`, or only the trainable variables",
        behind_root,
        weights=lambda weights: each("moving_variance", np.ones_like)(each("moving_mean", np.zeros_like)(weights)),
    ),
    WrongPort(
        "BatchNorm in training mode",
        "no `model.eval()`",
        behind_root,
        change=lambda model: model.train(),
    ),
    WrongPort(
        "no postnorm",
        "ResNet v1 has none",
        features,
        change=remove_postnorm,
    ),
    WrongPort(
        "postnorm without ReLU",
        "`BatchNorm` alone",
        features,
        change=both_signs_of_postnorm,
        functions={"global_pool": pool_both_signs},
    ),
    WrongPort(
        "global pool before postnorm",
        "the order of ResNet v1",
        features,
        change=pool_before_postnorm,
    ),
    WrongPort(
        "global max pool",
        "slim's name of the operation is `pool5`",
        features,
        functions={"global_pool": lambda inputs: inputs.amax((2, 3), keepdim=True)},
    ),
    WrongPort(
        "background class dropped",
        "1000 classes, as others have",
        logits,
        network=without_background,
        weights=each("", lambda array: array[..., 1:], "logits/"),
    ),
    WrongPort(
        "background class moved to the end",
        "labels that begin with 0",
        logits,
        weights=each("", lambda array: np.roll(array, -1, -1), "logits/"),
    ),
    WrongPort(
        "output stride ignored",
        "a network for classification, run densely",
        first_unstrided_by_output_stride,
        arguments={"output_stride": 4, **DENSE},
        ignored=("output_stride",),
    ),
    WrongPort(
        "strides left out, and no atrous rates in their stead",
        "`stride=1`, and nothing else",
        first_dilated,
        change=no_rates,
        arguments={"output_stride": 4, **DENSE},
    ),
    WrongPort(
        "atrous rate applied one unit early",
        "the unit that would have strided, already dilated",
        first_unstrided_by_output_stride,
        change=rates_early,
        arguments={"output_stride": 4, **DENSE},
    ),
)
"""In the order in which they show in a network."""
