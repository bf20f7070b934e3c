"""TF-Slim's layers in PyTorch: the same arithmetic, padding and variable names. Tensors are NCHW.

A layer is made from its node in a graph and the channels of its inputs. Its BatchNorm, its activation, and what a
network puts under its scope are its children, and run behind it in their order.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimport.graph import ACTIVATIONS, NORMALIZERS, Node, Sides
from slimport.nodes import FACTORS
from slimport.pytorch import layout


class Layer(nn.Module):
    """A module whose children follow it.

    hosted: the names of those children that do not, which are at its scope but run by themselves.
    """

    hosted: frozenset[str] = frozenset()

    def _follow(self, node: Node) -> None:
        """Makes the layer's BatchNorm and activation its children, under the scopes that slim gives them."""
        self.initializer = node.attributes.get("initializer")
        self.biases_initializer = node.attributes.get("biases_initializer", 0.0)
        self.regularized = node.attributes.get("regularized", True)
        if node.op not in NORMALIZERS and (norm := node.normalizer) is not None:
            self.add_module("BatchNorm", BatchNorm(node.channels, **norm))
        if node.activation:
            self.add_module(ACTIVATIONS[node.activation], _ACTIVATIONS[node.activation](*node.activation_numbers))

    def _followed(self, net: Tensor) -> Tensor:
        for name, follower in self._modules.items():
            if name not in self.hosted:
                net = follower(net)  # type: ignore[misc]
        return net


class BatchNorm(Layer, nn.BatchNorm2d):
    """`slim.batch_norm`, of [batch, ..., channels] too. PyTorch's momentum is 1 - decay.

    moving_variance: which variance of a batch the moving average takes: `unbiased`, as TensorFlow's fused BatchNorm,
      which slim runs wherever it can, and PyTorch do; or `biased`, as TensorFlow's unfused one and Keras do. The batch
      itself is always normalized by the biased one.

    Args:
      scale: whether there is a gamma, PyTorch's `weight`.
      center: whether there is a beta, PyTorch's `bias`.
      statistics: what normalizes in evaluation: the moving averages, or the batch's own.
      moving: whether there are moving averages.
    """

    moving_variance: Literal["unbiased", "biased"] = "unbiased"

    def __init__(
        self,
        channels: int,
        decay: float,
        epsilon: float,
        scale: bool,
        center: bool,
        statistics: Literal["moving", "batch"] = "moving",
        moving: bool = True,
    ) -> None:
        super().__init__(channels, eps=epsilon, momentum=1 - decay, track_running_stats=moving)
        self.statistics = statistics if moving else "batch"
        if not scale:
            self.register_parameter("weight", None)
        if not center:
            self.register_parameter("bias", None)

    @classmethod
    def of(cls, node: Node, *_: int) -> BatchNorm:
        """The layer of a node."""
        names = ("decay", "epsilon", "scale", "center", "statistics", "moving")
        layer = cls(node.channels, **{name: node.attributes[name] for name in names if name in node.attributes})
        layer._follow(node)
        return layer

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - the name in nn.BatchNorm2d
        if input.dim() < 2:
            raise ValueError(f"BatchNorm needs a tensor of 2 axes or more, not {input.dim()}")

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.dim() not in (2, 4):
            # PyTorch has the channels behind the batch, as a map has them.
            return self._followed(self._normalized(inputs.movedim(-1, 1)).movedim(1, -1))
        return self._followed(self._normalized(inputs))

    def _normalized(self, inputs: Tensor) -> Tensor:
        if self.statistics == "batch" and not (self.training and self.track_running_stats):
            self._check_input_dim(inputs)
            return self._normalized_by_itself(inputs)
        if self.moving_variance == "unbiased" or not self.training:
            return super().forward(inputs)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # Without a momentum, an average of all batches, as `update_bn` computes.
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        # With a momentum of 1, a moving average is the batch's statistic.
        mean, unbiased = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)
        net = F.batch_norm(inputs, mean, unbiased, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps)
        count = inputs.numel() // inputs.shape[1]
        with torch.no_grad():
            self.running_mean.lerp_(mean, weight)
            self.running_var.lerp_(unbiased * ((count - 1) / count), weight)
        return net

    def _normalized_by_itself(self, inputs: Tensor) -> Tensor:
        """By the batch's statistics, of a single number a channel too."""
        axes = [axis for axis in range(inputs.dim()) if axis != 1]
        variance, mean = torch.var_mean(inputs, axes, correction=0, keepdim=True)
        net = (inputs - mean) * torch.rsqrt(variance + self.eps)
        shape = (-1, *(1,) * (inputs.dim() - 2))
        net = net if self.weight is None else net * self.weight.view(shape)
        return net if self.bias is None else net + self.bias.view(shape)


def same_padding(side: Any, kernel_size: int, stride: int, rate: int = 1) -> tuple[Any, Any]:
    """The padding of TensorFlow's SAME before and after a side: the odd one after.

    Args:
      side: a number, or a symbol in a program that is exported for any height and width.
    """
    extent = rate * (kernel_size - 1) + 1
    total = ((side + stride - 1) // stride - 1) * stride + extent - side
    # Only a kernel that is smaller than its stride can have a negative one, which is none.
    total = total if extent >= stride else torch.sym_max(total, 0)  # type: ignore[no-untyped-call]
    return total // 2, total - total // 2


def _is_number(*sides: Any) -> bool:
    return all(type(side) is int for side in sides)


class _Convolution(Layer, nn.Conv2d):
    """A convolution with TensorFlow's padding: PyTorch's where it is alike on both sides at any size."""

    def __init__(self, node: Node, depth_in: int, depth: int, groups: int = 1, *, bias: bool) -> None:
        kernel_size, strides, rate = (node.attributes[name] for name in ("kernel_size", "strides", "rate"))
        padding = node.attributes["padding"]
        extents = [by * (side - 1) + 1 for by, side in zip(rate, kernel_size, strict=True)]
        self_padding: tuple[int, int] = (0, 0)
        self.pads: Literal["SAME"] | tuple[Sides, Sides] | None = None
        if padding == "SAME":
            if all(extent == 1 or (extent % 2 and by == 1) for extent, by in zip(extents, strides, strict=True)):
                self_padding = extents[0] // 2, extents[1] // 2
            else:
                self.pads = "SAME"
        elif padding != "VALID":
            if all(before == after for before, after in padding):
                self_padding = padding[0][0], padding[1][0]
            else:
                self.pads = padding
        super().__init__(depth_in, depth, kernel_size, strides, self_padding, rate, groups, bias)

    def _padded(self, inputs: Tensor) -> Tensor:
        if self.pads is None:
            return inputs
        sizes = zip(inputs.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True)
        pads = [same_padding(*size) for size in sizes] if self.pads == "SAME" else self.pads
        (top, bottom), (left, right) = pads
        return F.pad(inputs, (left, right, top, bottom))


class Conv2d(_Convolution):
    """`slim.conv2d`."""

    def __init__(self, node: Node, depth_in: int) -> None:
        groups = node.attributes.get("groups", 1)
        super().__init__(node, depth_in, node.channels, groups, bias=node.attributes["biases"])
        self._follow(node)

    def forward(self, inputs: Tensor) -> Tensor:
        return self._followed(self._conv_forward(self._padded(inputs), self.weight, self.bias))


class SeparableConv2d(_Convolution):
    """`slim.separable_conv2d`: `weight` is the depthwise kernel, `pointwise_weight` the pointwise one, if any."""

    def __init__(self, node: Node, depth_in: int) -> None:
        depth = depth_in * node.attributes["depth_multiplier"]
        super().__init__(node, depth_in, depth, depth_in, bias=False)
        self.pointwise_weight: nn.Parameter | None = None
        if node.attributes["pointwise"]:
            self.pointwise_weight = nn.Parameter(torch.empty(node.channels, depth, 1, 1))
            nn.init.kaiming_uniform_(self.pointwise_weight, a=math.sqrt(5))
        if node.attributes["biases"]:
            self.bias = nn.Parameter(torch.zeros(node.channels))
        self._follow(node)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = self._padded(inputs)
        if self.pointwise_weight is None:
            return self._followed(self._conv_forward(inputs, self.weight, self.bias))
        net = self._conv_forward(inputs, self.weight, None)
        return self._followed(F.conv2d(net, self.pointwise_weight, self.bias))


class Conv2dTranspose(Layer, nn.ConvTranspose2d):
    """`slim.conv2d_transpose`: the gradient of a convolution, with TensorFlow's padding of that convolution."""

    def __init__(self, node: Node, depth_in: int, *_: int) -> None:
        a = node.attributes
        rate = a.get("rate", (1, 1))
        super().__init__(depth_in, node.channels, a["kernel_size"], a["strides"], bias=a["biases"], dilation=rate)
        self.pads: Literal["SAME", "VALID"] | tuple[Sides, Sides] = a["padding"]
        self.output_size = a.get("output_size")
        """The sides of the result, which may depend on the inputs; None for slim's."""
        self._follow(node)

    def forward(self, inputs: Tensor, *like: Tensor) -> Tensor:  # type: ignore[override]
        net = F.conv_transpose2d(inputs, self.weight, None, self.stride, dilation=self.dilation)
        pads = [self._pads(axis, net, (inputs, *like)) for axis in (0, 1)]
        if any(pad != (0, 0) for pad in pads):
            net = F.pad(net, (*pads[1], *pads[0]))
        return self._followed(net if self.bias is None else net + self.bias[:, None, None])

    def _pads(self, axis: int, whole: Tensor, inputs: Sequence[Tensor]) -> tuple[Any, Any]:
        """The padding around the whole gradient: the padding of the convolution is cut off."""
        extent = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        if self.output_size is None:
            more = extent - self.stride[axis]
            # Of the whole gradient, SAME keeps `stride` times the input's side; a small kernel leaves zeros at the end.
            before = more // 2 if self.pads == "SAME" and more > 0 else 0
            return -before, before - more if self.pads == "SAME" or more < 0 else 0
        side = layout.number(self.output_size[axis], inputs)
        before = 0
        if self.pads == "SAME":
            before = same_padding(side, self.kernel_size[axis], self.stride[axis], self.dilation[axis])[0]
        elif self.pads != "VALID":
            before = self.pads[axis][0]
        return -before, side + before - whole.shape[2 + axis]


class FullyConnected(Layer, nn.Linear):
    """`slim.fully_connected`, of the channels of [batch, channels], of a map, or of what has other axes."""

    def __init__(self, node: Node, depth_in: int) -> None:
        super().__init__(depth_in, node.channels, bias=node.attributes["biases"])
        self._follow(node)

    def forward(self, inputs: Tensor) -> Tensor:
        return self._followed(layout.from_tf(super().forward(layout.to_tf(inputs))))


class Operation(Layer):
    """A layer without variables; `node` stays, for its attributes."""

    def __init__(self, node: Node, *_: int) -> None:
        super().__init__()
        self.node = node
        self._follow(node)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._followed(self._compute(*inputs))

    def _compute(self, *inputs: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.node.attributes.items() if value)


class _Pool(Operation):
    def __init__(self, node: Node, *_: int) -> None:
        super().__init__(node)
        self.kernel_size: Sides = node.attributes["kernel_size"]
        self.strides: Sides = node.attributes["strides"]
        self.same = node.attributes["padding"] == "SAME"
        self.clipped: bool | Literal["square"] = node.attributes["clipped"]

    def _pads(self, inputs: Tensor) -> list[tuple[Any, Any]]:
        sizes = zip(inputs.shape[2:], self.kernel_size, self.strides, strict=True)
        return [same_padding(*size) if self.same else (0, 0) for size in sizes]


class MaxPool2d(_Pool):
    """`slim.max_pool2d`; SAME pads with minus infinity."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        if self.kernel_size == (1, 1):
            # Slim's subsample, without a copy.
            return inputs[:, :, :: self.strides[0], :: self.strides[1]]
        (top, bottom), (left, right) = self._pads(inputs)
        if _is_number(top, left):
            # A window that hangs over the end (`ceil_mode`) is the trailing padding, where it is one more than the
            # leading one. PyTorch's own padding costs no copy.
            hangs = (top, left) != (bottom, right)
            if not (hangs and 1 in self.strides):
                return F.max_pool2d(inputs, self.kernel_size, self.strides, padding=(top, left), ceil_mode=hangs)
        padded = F.pad(inputs, (left, right, top, bottom), value=-math.inf)
        return F.max_pool2d(padded, self.kernel_size, self.strides)


class AvgPool2d(_Pool):
    """`slim.avg_pool2d`: what SAME pads is not averaged; `clipped`, the kernel depends on the map's size."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        height: Any
        width: Any
        height, width = inputs.shape[2:]
        if self.clipped:
            if isinstance(height, Tensor):
                # torch.jit.trace, which takes sizes for tensors.
                height, width = int(height), int(width)
            if not _is_number(height, width):
                return self._clipped_to_symbols(inputs)
            return F.avg_pool2d(inputs, self.node.window((height, width)), self.strides)
        if self.same and self.strides == (1, 1) and all(side % 2 for side in self.kernel_size):
            # Alike on both sides at any size.
            pads = self.kernel_size[0] // 2, self.kernel_size[1] // 2
            return F.avg_pool2d(inputs, self.kernel_size, self.strides, pads, count_include_pad=False)
        if not self.same:
            return F.avg_pool2d(inputs, self.kernel_size, self.strides)
        (top, bottom), (left, right) = self._pads(inputs)
        pad = (left, right, top, bottom)
        ones = F.pad(torch.ones_like(inputs[:1, :1]), pad)
        sums, counts = (F.avg_pool2d(net, self.kernel_size, self.strides) for net in (F.pad(inputs, pad), ones))
        return sums / counts

    def _clipped_to_symbols(self, inputs: Tensor) -> Tensor:
        """The same in a program for any height and width: PyTorch's pooling takes a kernel of numbers alone."""
        means: list[Tensor] = []
        height, width = inputs.shape[2:]
        low, high = torch.sym_min(height, width), torch.sym_max(height, width)  # type: ignore[no-untyped-call]
        oblong = torch.sym_min(high - low, 1)  # type: ignore[no-untyped-call]
        for axis, kernel_size, stride in zip((2, 3), self.kernel_size, self.strides, strict=True):
            side = inputs.shape[axis]
            extent = torch.sym_min(side, kernel_size)  # type: ignore[no-untyped-call]
            if self.clipped == "square":
                extent = side + (kernel_size - side) * oblong
            starts = torch.arange(0, side - extent + 1, stride, device=inputs.device)[:, None]
            offsets = torch.arange(side, device=inputs.device)[None] - starts
            # In the dtype of the images that the program is given.
            ones = torch.ones_like(inputs.select(5 - axis, 0)[:1, :1])[0]
            means.append(torch.where((offsets >= 0) & (offsets < extent), ones, 0) / extent)
        # Of a matrix product, the program would take only as many windows, one or more, as it was exported with.
        net = (inputs[:, :, None] * means[0][:, :, None]).sum(3)
        return (net[:, :, :, None] * means[1]).sum(4)


class Mean(Operation):
    """The mean over height and width, [batch, channels, 1, 1]."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return inputs.mean((2, 3), keepdim=True)


class Squeeze(Operation):
    """[batch, channels, 1, 1] to [batch, channels]; or other axes of 1 fall away.

    Raises:
      ValueError: the map is not 1x1, as `tf.squeeze` would.
    """

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        if inputs.dim() != 4 or "axes" in self.node.attributes:
            axes = (axis % inputs.dim() for axis in self.node.attributes.get("axes", (1, 2)))
            return layout.from_tf(layout.to_tf(inputs).squeeze(tuple(axes)))
        height, width = inputs.shape[2:]
        # An exporter cannot solve every equation for the sides of the images, but it can every inequality.
        if height > 1 or width > 1:
            raise ValueError(f"spatial_squeeze needs logits of 1x1, not {height}x{width}: pass spatial_squeeze=False")
        return inputs[:, :, 0, 0]


class Flatten(Operation):
    """[batch, channels, height, width] to [batch, height * width * channels], as TensorFlow flattens channels last."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return layout.to_tf(inputs).flatten(1)


class Softmax(Operation):
    """Over the channels, or another axis."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return F.softmax(inputs, layout.axis_of(inputs, self.node.attributes.get("axis", -1)))


class L2Normalize(Operation):
    """To length 1, over the channels."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        squares = inputs.square().sum(layout.axis_of(inputs, -1), keepdim=True)
        return inputs * torch.rsqrt(squares.clamp(min=self.node.attributes["epsilon"]))


class Dropout(Operation):
    """`slim.dropout`: in training, what is kept is divided by `keep_prob`."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        # The tensor itself, which is then one value in a program.
        return F.dropout(inputs, 1 - self.node.attributes["keep_prob"], True) if self.training else inputs


class Add(Operation):
    """The sum of its inputs."""

    def _compute(self, *inputs: Tensor) -> Tensor:
        return reduce(operator.add, layout.aligned(inputs))


class Multiply(Operation):
    """The product of its inputs."""

    def _compute(self, *inputs: Tensor) -> Tensor:
        return reduce(operator.mul, layout.aligned(inputs))


class Scale(Operation):
    """`inputs * factor + offset`."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        net: Tensor = inputs * self.node.attributes["factor"]
        return net + self.node.attributes["offset"] if self.node.attributes["offset"] else net


class Concat(Operation):
    """Its inputs' channels, one after the other; or another axis of theirs."""

    def _compute(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, layout.axis_of(inputs[0], self.node.attributes.get("axis", -1)))


class PadChannels(Operation):
    """Channels of zeros behind the input's."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return F.pad(inputs, (0, 0, 0, 0, 0, self.node.channels - inputs.shape[1]))


class Activation(Operation):
    """An activation that is a layer of its own: it follows its input."""

    def _compute(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return inputs


class HardSigmoid(nn.Module):
    """MobileNet v3's gate, `relu6(x + 3) * 0.16667` (`research/slim/nets/mobilenet/mobilenet_v3.py`)."""

    def __init__(self, factor: float = FACTORS["hard_sigmoid"]) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.relu6(inputs + 3) * self.factor


class HardSwish(nn.Module):
    """MobileNet v3's `x * relu6(x + 3) / 6`, with TensorFlow's float32 of 1 / 6."""

    def __init__(self, factor: float = FACTORS["hard_swish"]) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * (F.relu6(inputs + 3) * self.factor)


_ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "relu_n": lambda maximum=1.0: nn.Hardtanh(0.0, maximum),
    "clip": nn.Hardtanh,
    # TensorFlow's op has its slope as a float32, in float64 too.
    "leaky_relu": lambda slope=0.20000000298023224: nn.LeakyReLU(slope),
    "elu": nn.ELU,
    "selu": nn.SELU,
    # From PyTorch's own threshold of 20 on, the result would be the input, which is 2e-9 less.
    "softplus": lambda: nn.Softplus(threshold=40),
    "softsign": nn.Softsign,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "swish": nn.SiLU,
    "hard_sigmoid": HardSigmoid,
    "hard_swish": HardSwish,
}

LAYERS: dict[str, Callable[..., nn.Module]] = {
    "conv2d": Conv2d,
    "separable_conv2d": SeparableConv2d,
    "conv2d_transpose": Conv2dTranspose,
    "fully_connected": FullyConnected,
    "batch_norm": BatchNorm.of,
    "max_pool2d": MaxPool2d,
    "avg_pool2d": AvgPool2d,
    "dropout": Dropout,
    "add": Add,
    "multiply": Multiply,
    "scale": Scale,
    "concat": Concat,
    "pad_channels": PadChannels,
    "mean": Mean,
    "squeeze": Squeeze,
    "flatten": Flatten,
    "softmax": Softmax,
    "l2_normalize": L2Normalize,
    "activation": Activation,
}
"""The layer of a node's op, made from the node and the channels of its inputs."""
