"""What MobileNet v2 and v3 share. Source: `research/slim/nets/mobilenet/mobilenet.py` in tensorflow/models."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import ClassVar, NamedTuple, TypeVar

from slimport import graph
from slimport.graph import Padding, Shape, Tensor, arg_scope, conv2d, end_point, scope, separable_conv2d
from slimport.networks.network import Network, depth_in, depth_out

T = TypeVar("T", bound="MobileNet")
MULTIPLIERS = (1.0, 0.75, 0.5, 0.35, 0.25, 1.4, 1.3)
"""Those of slim's releases."""


class Conv(NamedTuple):
    """A convolution: `Conv`, `Conv_1`, ...; with biases where it is not `normalized`."""

    kernel: int
    depth: int
    stride: int = 1
    activation: str = "relu6"
    normalized: bool = True


class Block(NamedTuple):
    """An inverted residual, section 3.3 of arXiv:1801.04381: `expanded_conv`, `expanded_conv_1`, ...

    expansion: of the input's depth; 0 is none.
    squeeze: whether it has squeeze and excitation, section 5.3 of arXiv:1905.02244.
    residual: whether the input is added where it has the output's shape.
    fused: whether the expansion is a convolution of the kernel, and there is no depthwise one.
    """

    kernel: int
    expansion: float
    depth: int
    stride: int = 1
    activation: str = "relu6"
    squeeze: bool = False
    residual: bool = True
    fused: bool = False


class Pool(NamedTuple):
    """Slim's `reduce_to_1x1`: the average of a square map, or those of the kernel's squares of another."""

    kernel: int
    depth: int = 0
    stride: int = 1


Layer = Conv | Block | Pool
_SCOPES = {Conv: "Conv", Block: "expanded_conv", Pool: "AvgPool2D"}


def divisible(depth: float, divisor: int, least: int) -> int:
    """The nearest multiple of `divisor`, at least `least`, and no more than 10% below the depth."""
    found = max(least, int(depth + divisor / 2) // divisor * divisor)
    return found + divisor if found < 0.9 * depth else found


def atrous(strides: Sequence[int], output_stride: int | None) -> Iterator[tuple[int, int]]:
    """The stride and the rate of each layer, where the strides' product goes up to `output_stride`."""
    reached = rate = 1
    for stride in strides:
        if reached == output_stride:
            yield 1, rate
            rate *= stride
        else:
            yield stride, 1
            reached *= stride


def fixed_padding(kernel: int, rate: int = 1) -> Padding:
    """The zeros of SAME at stride 1, for any stride."""
    total = rate * (kernel - 1)
    side = total // 2, total - total // 2
    return side, side


@dataclass(frozen=True)
class MobileNet(Network):
    """`num_classes` None means no logits.

    Args:
      depth_multiplier: of the depths of all layers.
      min_depth: the least depth that it makes of one.
      divisible_by: what depths are multiples of.
      finegrain_classification_mode: whether the last layer keeps its depth, whatever the multiplier.
    """

    classifier: ClassVar[str] = "Logits/Conv2d_1c_1x1"
    background: ClassVar[bool] = True
    chosen = (*Network.chosen, "depth_multiplier", "min_depth", "divisible_by", "finegrain_classification_mode")
    preprocessing = "inception"

    num_classes: int | None = None
    in_channels: int = 3
    depth_multiplier: float = 1.0
    min_depth: int = 8
    divisible_by: int = 8
    finegrain_classification_mode: bool = False
    final_endpoint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth_multiplier <= 0:
            raise ValueError("depth_multiplier is not greater than zero")
        if self.depth_multiplier == 1:
            object.__setattr__(self, "finegrain_classification_mode", False)

    @property
    def name(self) -> str:
        plain = replace(self, num_classes=None, in_channels=3, final_endpoint=None)
        named = (name for name, network in self.named().items() if network.with_classes(None) == plain)
        return next(named, self.family)

    @property
    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """The layers before the logits, their depths those at a multiplier of 1."""

    def depth(self, nominal: int) -> int:
        """The depth of a layer."""
        return divisible(nominal * self.depth_multiplier, self.divisible_by, self.min_depth)

    def depths(self) -> Iterator[int]:
        """The depths of the layers."""
        *before, last = (layer.depth for layer in self.layers)
        yield from map(self.depth, before)
        yield last if self.finegrain_classification_mode else self.depth(last)

    def scopes_of_layers(self) -> Iterator[str]:
        """The scopes of the layers, which slim numbers."""
        counts = dict.fromkeys(_SCOPES, 0)
        for kind in map(type, self.layers):
            yield f"{_SCOPES[kind]}_{counts[kind]}" if counts[kind] else _SCOPES[kind]
            counts[kind] += 1

    def define(
        self,
        images: Tensor,
        *,
        output_stride: int | None = None,
        dropout_keep_prob: float = 0.8,
    ) -> Tensor:
        """The network, from images to logits.

        Args:
          output_stride: the sides of the images over those of the last map, 1 or even; None is the strides' product.
          dropout_keep_prob: the probability that a feature is kept, in training.
        """
        return self.whole(images, output_stride, dropout_keep_prob)

    def whole(
        self, images: Tensor, output_stride: int | None, dropout_keep_prob: float, explicit: bool = False
    ) -> Tensor:
        """The network; `explicit`, a strided convolution is padded as one of stride 1 is."""
        if output_stride is not None and output_stride != 1 and (output_stride < 1 or output_stride % 2):
            raise ValueError(f"output_stride {output_stride}: must be None, 1 or a multiple of 2")
        point = partial(end_point, scoped=False)
        with (
            arg_scope([graph.batch_norm], decay=0.997, scale=True),
            arg_scope([conv2d, separable_conv2d], initializer=("truncated_normal", 0.09)),
            arg_scope([separable_conv2d], regularized=False),
        ):
            with arg_scope([conv2d, separable_conv2d], normalizer=graph.batch_norm):
                net = self.base(images, output_stride, explicit)
            with scope("Logits"):
                net = point(graph.mean(net, scope="global_pool"), "global_pool")
                if not self.num_classes:
                    return net
                net = graph.dropout(net, dropout_keep_prob, scope="Dropout")
                net = conv2d(net, self.num_classes, 1, activation=None, scope="Conv2d_1c_1x1")
                net = graph.squeeze(net, scope="SpatialSqueeze")
        point(graph.softmax(point(net, "Logits"), scope="Predictions"), "Predictions")
        return net

    def base(self, net: Tensor, output_stride: int | None, explicit: bool) -> Tensor:
        """`mobilenet_base`: the layers before the logits. End points within blocks come behind those of all layers."""
        within: dict[str, Tensor] = {}
        schedule = atrous([layer.stride for layer in self.layers], output_stride)
        rows = zip(self.layers, self.scopes_of_layers(), self.depths(), schedule, strict=True)
        for number, (layer, name, depth, (stride, rate)) in enumerate(rows, start=1):
            if isinstance(layer, Block):
                with scope(name):
                    outputs = block(net, layer, depth, stride, rate, explicit)
                within |= {f"layer_{number}/{output}": tensor for output, tensor in outputs.items()}
                net = outputs["output"]
            elif isinstance(layer, Conv):
                padding = fixed_padding(layer.kernel) if explicit else "SAME"
                normalizer = graph.batch_norm if layer.normalized else None
                net = conv2d(
                    net,
                    depth,
                    layer.kernel,
                    stride,
                    padding,
                    rate if layer.kernel > 1 else 1,
                    activation=layer.activation,
                    normalizer=normalizer,
                    scope=name,
                )
                if layer.normalized:
                    graph.features(net)
            else:
                net = graph.avg_pool2d(net, layer.kernel, 1, clipped="square", scope=name)
            end_point(net, f"layer_{number}", scoped=False)
        for name, tensor in within.items():
            end_point(tensor, name, scoped=False)
        return net

    def fitted(self: T, shapes: Mapping[str, Shape]) -> T:
        """The network with the classes, the multiplier and what else variables of its layers show.

        Raises:
          ValueError: no multiplier makes their depths.
        """
        network = replace(
            self, num_classes=depth_out(shapes, self.classifier), in_channels=depth_in(shapes, "Conv/weights")
        )
        kinds = zip(self.layers, self.scopes_of_layers(), strict=True)
        scopes = [f"{scope}/project" if isinstance(layer, Block) else scope for layer, scope in kinds]
        found = [depth_out(shapes, scope) for scope in scopes]
        nominal = {depth: layer.depth for layer, depth in zip(self.layers[:-1], found, strict=False) if depth}
        least = min((depth for depth in nominal), default=self.min_depth)
        for divisor, min_depth, multiplier in product(
            (8, 4, 2, 1), dict.fromkeys((self.min_depth, least)), _multipliers(nominal)
        ):
            # The file does not show this. In slim's releases, narrow networks keep the last layer's depth.
            for fine in (False, True) if found[-1] else (True,):
                fit = replace(
                    network,
                    depth_multiplier=multiplier,
                    min_depth=min_depth,
                    divisible_by=divisor,
                    finegrain_classification_mode=fine,
                )
                if all(depth in (None, 0, made) for depth, made in zip(found, fit.depths(), strict=True)):
                    return fit
        raise ValueError("its depths are not those of one depth multiplier")


def _multipliers(nominal: Mapping[int, int]) -> list[float]:
    """Multipliers that may make depths of nominal ones: slim's own, then those with fewest decimals.

    Args:
      nominal: by the depths that were found.
    """
    found = max(nominal, default=8)
    of = nominal.get(found, 8)
    more = (
        number / 10**digits
        for digits in range(4)
        for number in range(max(1, math.ceil((found - 8) / of * 10**digits)), int((found + 8) / of * 10**digits) + 1)
    )
    return list(dict.fromkeys((*MULTIPLIERS, *more)))


def block(net: Tensor, layer: Block, depth: int, stride: int, rate: int, explicit: bool) -> dict[str, Tensor]:
    """`expanded_conv`: its end points, by slim's names."""
    inputs, outputs = net, {}
    with arg_scope([conv2d, separable_conv2d], activation=layer.activation):
        expanded = divisible(net.channels * layer.expansion, 8, 8) if layer.expansion else 0
        if expanded > net.channels:
            # A fused expansion keeps its stride, whatever the output stride, and is not padded explicitly.
            shape = (layer.kernel, layer.stride) if layer.fused else (1, 1)
            net = conv2d(net, expanded, *shape, "VALID" if explicit else "SAME", scope="expand")
            outputs["expansion_output"] = net
        if not layer.fused:
            padding = fixed_padding(layer.kernel, rate) if explicit else "SAME"
            net = separable_conv2d(net, None, layer.kernel, 1, stride, padding, rate, scope="depthwise")
            outputs["depthwise_output"] = net
        if layer.squeeze:
            net = squeeze_excite(net)
        net = conv2d(net, depth, 1, activation=None, scope="project")
    if layer.residual and stride == 1 and depth == inputs.channels:
        net = graph.add(net, inputs)
    return {**outputs, "output": net}


def squeeze_excite(inputs: Tensor) -> Tensor:
    """Gates of the channels, a quarter as wide inside: section 5.3 of arXiv:1905.02244."""
    with scope("squeeze_excite"), arg_scope([conv2d], normalizer=None):
        net = graph.mean(inputs, scope="Mean")
        net = conv2d(net, divisible(inputs.channels / 4, 8, 8), 1, activation="relu", scope="Conv")
        gates = conv2d(net, inputs.channels, 1, activation="hard_sigmoid", scope="Conv_1")
        return graph.multiply(inputs, gates)
