"""Residual units: the orders of BatchNorm, ReLU and addition, and the shortcuts, that arXiv:1603.05027 compares.

[1] Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. Deep Residual Learning for Image Recognition. arXiv:1512.03385
[2] Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun. Identity Mappings in Deep Residual Networks. arXiv:1603.05027

A unit is y = h(x) + F(x), x' = f(y) (Eqn. 1 and 2): x its input, h the shortcut, F the residual branch and f what
follows the addition. Any branch of Fig. 4 (`BRANCHES`) goes with any shortcut of Fig. 2 (`SHORTCUTS`), as a basic unit
of two 3x3 convolutions or as a bottleneck of 1x1, 3x3 and 1x1 (Fig. 5 of [1]), and `cifar_resnet` stacks them to the
networks of the papers' experiments on CIFAR-10. Equations, figures, tables and sections are those of [2].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, NoReturn

from slimport.graph import (
    HE,
    Shape,
    Tensor,
    activation,
    add,
    arg_scope,
    batch_norm,
    conv2d,
    conv2d_same,
    dropout,
    end_point,
    features,
    fully_connected,
    mean,
    multiply,
    pad_channels,
    scale,
    squeeze,
    subsample,
)
from slimport.networks import resnet_v1, resnet_v2
from slimport.networks.network import Network, Preprocessing, classes
from slimport.networks.resnet import Block, Unit, resnet_arg_scope, stack_blocks_dense


class Activation(NamedTuple):
    """One of the three places of a unit: BatchNorm, ReLU, both in this order, or nothing."""

    normalizer: Callable[..., Tensor] | None = None
    activation: Literal["relu"] | None = None


NOTHING = Activation()
BN = Activation(batch_norm)
RELU = Activation(None, "relu")
BN_RELU = Activation(batch_norm, "relu")


class Branch(NamedTuple):
    """The differences between the branches of Fig. 4. BatchNorm and ReLU follow every convolution but the last.

    preactivation: before the first convolution, on the branch alone.
    before_addition: after the last convolution.
    after_addition: the f of Eqn. 2.
    """

    preactivation: Activation = NOTHING
    before_addition: Activation = NOTHING
    after_addition: Activation = NOTHING


BRANCHES = {
    # Fig. 4(a), the unit of [1]: F ends in BatchNorm, and f is ReLU. Eqn. 1 and 2.
    "original": Branch(before_addition=BN, after_addition=RELU),
    # Fig. 4(b): f is BatchNorm and ReLU, so that it alters what the shortcut carries. Eqn. 2; section 4.1.
    "bn_after_addition": Branch(after_addition=BN_RELU),
    # Fig. 4(c): f is the identity (Eqn. 3), but F ends in ReLU and can only add. Section 4.1.
    "relu_before_addition": Branch(before_addition=BN_RELU),
    # Fig. 4(d): F begins with ReLU and ends in BatchNorm, f is the identity. Eqn. 9; section 4.1.
    "relu_only_preactivation": Branch(preactivation=RELU, before_addition=BN),
    # Fig. 4(e) and 1(b): F begins with BatchNorm and ReLU, f is the identity. Eqn. 9; section 4.1.
    "full_preactivation": Branch(preactivation=BN_RELU),
}


def identity(x: Tensor, residual: Tensor, *_: object) -> Tensor:
    """Fig. 2(a): y = x + F(x), Eqn. 3. Here and below, x has F's shape already."""
    return add(x, residual)


def constant_scaling(
    x: Tensor, residual: Tensor, *_: object, shortcut_scale: float = 0.5, residual_scale: float = 0.5
) -> Tensor:
    """Fig. 2(b): y = shortcut_scale * x + residual_scale * F(x), Eqn. 6.

    Both are 0.5 where table 1 says "frozen gating". Its other cases leave F as it is (`residual_scale` 1); with
    `shortcut_scale` 0 that is a plain network.
    """
    scaled = scale(x, shortcut_scale, scope="scaled_shortcut")
    return add(scaled, scale(residual, residual_scale, scope="scaled_residual"))


def exclusive_gating(x: Tensor, residual: Tensor, preact: Tensor, unit: Unit, *, gate_bias: float = -6.0) -> Tensor:
    """Fig. 2(c): y = (1 - g(x)) * x + g(x) * F(x), the gate of highway networks; section 3.1."""
    g = gate(preact, unit, gate_bias)
    gated = multiply(scale(g, -1, 1, scope="carry_gate"), x, scope="gated_shortcut")
    return add(gated, multiply(g, residual, scope="gated_residual"))


def shortcut_only_gating(x: Tensor, residual: Tensor, preact: Tensor, unit: Unit, *, gate_bias: float = -6.0) -> Tensor:
    """Fig. 2(d): y = (1 - g(x)) * x + F(x), section 3.1."""
    g = gate(preact, unit, gate_bias)
    return add(multiply(scale(g, -1, 1, scope="carry_gate"), x, scope="gated_shortcut"), residual)


def gate(preact: Tensor, unit: Unit, gate_bias: float) -> Tensor:
    """g(x) = sigmoid(W_g x + b_g), section 3.1. W_g is a 1x1 convolution of what the branch's first one takes.

    b_g starts at `gate_bias`: at -6 the gate lets nearly all of x through, at 0 half of it.
    """
    with arg_scope([conv2d], normalizer=None, biases_initializer=gate_bias):
        return conv2d(preact, unit.depth, 1, unit.stride, activation="sigmoid", scope="gate")


def dropout_shortcut(x: Tensor, residual: Tensor, *_: object, ratio: float = 0.5) -> Tensor:
    """Fig. 2(f): y = dropout(x) + F(x), section 3.1.

    In training, the values that are kept are not scaled up; in evaluation, all of x is scaled down: the paper takes a
    scale with an expectation of 1 - `ratio`. Slim's own dropout has an expectation of 1.
    """
    dropped = dropout(x, 1 - ratio, scope="dropout")
    return add(scale(dropped, 1 - ratio, scope="scaled_shortcut"), residual)


SHORTCUTS: dict[str, Callable[..., Tensor]] = {
    "identity": identity,
    "constant_scaling": constant_scaling,
    "exclusive_gating": exclusive_gating,
    "shortcut_only_gating": shortcut_only_gating,
    # Fig. 2(e): y = W_s x + F(x), option C of [1]. The 1x1 convolution is made by `residual_unit`, as every projection.
    "convolution": identity,
    "dropout": dropout_shortcut,
}

_SLIM = {
    BRANCHES["original"]: resnet_v1.bottleneck,
    BRANCHES["full_preactivation"]: resnet_v2.bottleneck,
}


def residual_unit(
    inputs: Tensor, unit: Unit, branch: Branch, shortcut: str = "identity", *, bottleneck: bool, **settings: float
) -> Tensor:
    """One unit, y = h(x) + F(x), x' = f(y): Eqn. 1 and 2. A unit that slim has is slim's own function.

    Args:
      inputs: [batch, height, width, channels].
      unit: its depths, stride and atrous rate. In a basic unit, `depth_bottleneck` is between the two convolutions.
      branch: one of `BRANCHES`, Fig. 4.
      shortcut: a name of `SHORTCUTS`, Fig. 2.
      bottleneck: whether F is a 1x1, a 3x3 and a 1x1 convolution, the 3x3 with the stride; otherwise it is two of 3x3,
        the first with the stride.
      settings: of the shortcut.

    Returns:
      [batch, ceil(height / stride), ceil(width / stride), depth].
    """
    if bottleneck and shortcut == "identity" and branch in _SLIM:
        return _SLIM[branch](inputs, unit)
    preact = activated(inputs, branch.preactivation, scope="preact")
    if shortcut == "convolution" or (bottleneck and unit.depth != inputs.channels):
        # A projection takes the preactivation; only the identity takes the input itself (appendix of [2]). It is a
        # weight layer like the branch's last one: BatchNorm is behind both or neither.
        with arg_scope([conv2d], normalizer=branch.before_addition.normalizer, activation=None, collect=True):
            x = conv2d(preact, unit.depth, 1, unit.stride, scope="shortcut")
    else:
        x = carry(inputs, unit)
    residual = residual_branch(preact, unit, branch.before_addition, bottleneck=bottleneck)
    y = SHORTCUTS[shortcut](x, residual, preact, unit, **settings)
    return activated(y, branch.after_addition, scope="postact")


def activated(net: Tensor, layers: Activation, *, scope: str) -> Tensor:
    """A tensor after the layers of one place."""
    if layers.normalizer:
        return batch_norm(net, activation=layers.activation, scope=scope)
    return activation(net, layers.activation, scope=scope) if layers.activation else net


def carry(inputs: Tensor, unit: Unit) -> Tensor:
    """x in F's shape: subsampled, with channels of zeros behind its own (option A of [1], section 4.2)."""
    x = subsample(inputs, unit.stride, scope="shortcut")
    return x if unit.depth == x.channels else pad_channels(x, unit.depth, scope="zeros")


def residual_branch(preact: Tensor, unit: Unit, before_addition: Activation, *, bottleneck: bool) -> Tensor:
    """F(x), from what its first convolution takes. Every layer's output is an end point."""
    last = before_addition._asdict()
    with arg_scope([conv2d], collect=True):
        if bottleneck:
            residual = conv2d(preact, unit.depth_bottleneck, 1, scope="conv1")
            residual = conv2d_same(residual, unit.depth_bottleneck, 3, unit.stride, unit.rate, scope="conv2")
            return conv2d(residual, unit.depth, 1, **last, scope="conv3")
        residual = conv2d_same(preact, unit.depth_bottleneck, 3, unit.stride, scope="conv1")
        return conv2d(residual, unit.depth, 3, rate=unit.rate, **last, scope="conv2")


def units_per_stage(depth: int, *, bottleneck: bool = False) -> int:
    """The n of a CIFAR network's depth, 6n+2 with basic units and 9n+2 with bottlenecks.

    Raises:
      ValueError: there is no such n.
    """
    per_unit = 9 if bottleneck else 6
    n, rest = divmod(depth - 2, per_unit)
    if rest or n < 1:
        kind = "bottlenecks" if bottleneck else "basic units"
        near = [per_unit * k + 2 for k in sorted({max(n, 1), max(n + 1, 1)})]
        raise ValueError(
            f"no network of {kind} has depth {depth}: it is {per_unit}n+2, such as {' or '.join(map(str, near))}"
        )
    return n


@dataclass(frozen=True)
class CifarResNet(Network):
    """The network of the experiments on CIFAR-10: see `cifar_resnet`, which has its fields as arguments."""

    family: ClassVar[str] = "cifar_resnet"
    title: ClassVar[str] = "ResNet for CIFAR-10"
    classifier: ClassVar[str] = "logits"
    name = family
    default_scope = ""

    depth: int
    branch: str = "full_preactivation"
    shortcut: str = "identity"
    bottleneck: bool = False
    num_classes: int | None = 10
    in_channels: int = 3
    width: int = 16
    settings: tuple[tuple[str, float], ...] = ()
    """Of the shortcut, by name."""

    def __post_init__(self) -> None:
        units_per_stage(self.depth, bottleneck=self.bottleneck)
        for kind, name, known in (("branch", self.branch, BRANCHES), ("shortcut", self.shortcut, SHORTCUTS)):
            if name not in known:
                raise ValueError(f"no {kind} is named {name!r}; there are {', '.join(known)}")
        known_settings = SHORTCUTS[self.shortcut].__kwdefaults__ or {}
        if unknown := dict(self.settings).keys() - known_settings.keys():
            settings = f"its settings are {', '.join(known_settings)}" if known_settings else "it has no settings"
            raise ValueError(f"the shortcut {self.shortcut!r} has no setting {sorted(unknown)[0]!r}; {settings}")
        object.__setattr__(self, "settings", tuple(dict(self.settings).items()))
        object.__setattr__(self, "num_classes", classes(self.num_classes))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The three stages of n units; the first units of the second and third have stride 2."""
        n = units_per_stage(self.depth, bottleneck=self.bottleneck)
        blocks = []
        for stage, stride in enumerate((1, 2, 2)):
            inner = self.width << stage
            depth = 4 * inner if self.bottleneck else inner
            units = (Unit(depth, inner, stride), *(Unit(depth, inner),) * (n - 1))
            blocks.append(Block(f"stage{stage + 1}", units))
        return tuple(blocks)

    @property
    def signals(self) -> tuple[str, ...]:
        """The end points that are the signals of Eqn. 4: the input x_l of every unit and the output x_L of the last."""
        units = (f"{block.scope}/unit_{n}" for block in self.blocks for n in range(1, len(block.units) + 1))
        return ("conv1", *units)

    def define(self, images: Tensor) -> Tensor:
        """The network, from images to logits."""
        branch = BRANCHES[self.branch]

        def unit_fn(net: Tensor, unit: Unit) -> Tensor:
            # The first unit's preactivation is that of conv1, before the two paths part (appendix of [2]). With the
            # other branches BatchNorm and ReLU belong to conv1 anyway.
            placed = branch._replace(preactivation=NOTHING) if net is stem else branch
            settings = dict(self.settings)
            return end_point(residual_unit(net, unit, placed, self.shortcut, bottleneck=self.bottleneck, **settings))

        with resnet_arg_scope(), arg_scope([conv2d, fully_connected], initializer=HE):
            stem = conv2d(images, self.width, 3, collect=True, scope="conv1")
            net = stack_blocks_dense(stem, self.blocks, unit_fn, None)
            # The activation that the last addition would otherwise lack (the same appendix).
            net = features(activated(net, branch.preactivation, scope="postnorm"))
            net = squeeze(mean(net, scope="global_pool"), scope="spatial_squeeze")
            if self.num_classes:
                net = fully_connected(net, self.num_classes, activation=None, scope=self.classifier)
            return net

    @property
    def preprocessing(self) -> Preprocessing:
        """Images scaled to [-1, 1]."""
        return "inception"

    @classmethod
    def named(cls) -> dict[str, CifarResNet]:
        return {}

    @classmethod
    def scopes(cls, names: Iterable[str]) -> list[str]:  # noqa: ARG003
        return []

    @classmethod
    def infer(cls, shapes: Mapping[str, Shape]) -> NoReturn:  # noqa: ARG003
        raise ValueError("networks of the study are not recognised")


def cifar_resnet(
    depth: int,
    branch: str = "full_preactivation",
    shortcut: str = "identity",
    *,
    bottleneck: bool = False,
    num_classes: int | None = 10,
    in_channels: int = 3,
    width: int = 16,
    **settings: float,
) -> CifarResNet:
    """The CIFAR-10 network of 6n+2 layers (basic units) or 9n+2 layers (bottlenecks), with He initialization.

    A 3x3 convolution, three stages of n units with 16, 32 and 64 channels (four times that at a bottleneck's ends),
    the mean over height and width, and a fully connected layer: section 4.2 of [1]. The first units of the second and
    third stage have stride 2. The bottlenecks, and the first and last activation of the preactivation branches, are in
    the appendix of [2].

        model = slimport.pytorch.build(cifar_resnet(110, "original", "constant_scaling", residual_scale=1))
        slimport.pytorch.training.initialize(model)

    Args:
      depth: of 6n+2 or 9n+2; ResNet-110 and ResNet-164 in the paper.
      branch: a name of `BRANCHES`, Fig. 4.
      shortcut: a name of `SHORTCUTS`, Fig. 2.
      bottleneck: whether units are bottlenecks.
      num_classes: depth of the logits.
      in_channels: depth of the images.
      width: channels of the first stage, 16 in the paper.
      settings: of the shortcut: `shortcut_scale` and `residual_scale`, `gate_bias`, or `ratio`.

    Raises:
      ValueError: a depth that is not 6n+2 or 9n+2, or a name or a setting that is not known.
    """
    return CifarResNet(
        depth, branch, shortcut, bottleneck, num_classes, in_channels, width, settings=tuple(settings.items())
    )
