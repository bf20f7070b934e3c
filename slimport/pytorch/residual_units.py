"""Residual units: the orders of BatchNorm, ReLU and addition, and the shortcuts, that arXiv:1603.05027 compares.

A unit is y = h(x) + F(x), x' = f(y) (Eqn. 1 and 2): x its input, h the shortcut, F the residual branch and f what
follows the addition. The five branches of Fig. 4 (`BRANCHES`) are one `ResidualUnit` with its activations at different
places; the six shortcuts of Fig. 2 (`SHORTCUTS`) are one `Shortcut` each. Any branch goes with any shortcut, as a basic
unit of two 3x3 convolutions or as a bottleneck of 1x1, 3x3 and 1x1 (Fig. 5 of arXiv:1512.03385), and `cifar_resnet`
stacks them to the networks of the papers' experiments on CIFAR-10.

The bottleneck of `FullPreactivation` is the unit of ResNet v2 itself, and that of `Original` the unit of ResNet v1.
Tensors are NCHW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimport import spec
from slimport.pytorch import layers
from slimport.pytorch.network import Record


class Shortcut(nn.Module):
    """The identity, Fig. 2(a): y = x + F(x), Eqn. 3. The other shortcuts derive from it.

    Args:
      unit: the unit on which it stands.
    """

    projects: ClassVar[bool] = False
    """Whether a 1x1 convolution stands on it even where the depths agree."""

    def __init__(self, unit: spec.PlacedUnit) -> None:  # noqa: ARG002 - the shortcuts that derive from it need it
        super().__init__()

    def forward(self, shortcut: Tensor, residual: Tensor, preact: Tensor) -> Tensor:  # noqa: ARG002 - see `gate`
        """The sum y of Eqn. 1, [batch, depth, height, width].

        Args:
          shortcut: x, brought to F's shape.
          residual: F(x).
          preact: what the unit's weight layers take, [batch, depth_in, ...]: x, or its preactivation.
        """
        return shortcut + residual


class ConstantScaling(Shortcut):
    """Fig. 2(b): y = scale * x + residual_scale * F(x), Eqn. 6.

    Both are 0.5 where table 1 says "frozen gating". Its other cases leave F as it is (`residual_scale` 1); with
    `scale` 0 that is a plain network.
    """

    def __init__(self, unit: spec.PlacedUnit, scale: float = 0.5, residual_scale: float = 0.5) -> None:
        super().__init__(unit)
        self.scale = scale
        self.residual_scale = residual_scale

    def forward(self, shortcut: Tensor, residual: Tensor, preact: Tensor) -> Tensor:  # noqa: ARG002
        return self.scale * shortcut + self.residual_scale * residual


class ShortcutOnlyGating(Shortcut):
    """Fig. 2(d): y = (1 - g(x)) * x + F(x), with g(x) = sigmoid(W_g x + b_g), section 3.1.

    W_g is a 1x1 convolution; b_g starts at `gate_bias`: at -6 the gate lets nearly all of x through, at 0 half of it.
    """

    def __init__(self, unit: spec.PlacedUnit, gate_bias: float = -6.0) -> None:
        super().__init__(unit)
        self.gate_bias = gate_bias
        self.gate = layers.Conv2d(unit.depth_in, unit.depth, 1, unit.stride)
        self.reset_gate()

    def reset_gate(self) -> None:
        """b_g as it starts, for every channel."""
        assert self.gate.bias is not None
        nn.init.constant_(self.gate.bias, self.gate_bias)

    def forward(self, shortcut: Tensor, residual: Tensor, preact: Tensor) -> Tensor:
        return (1 - torch.sigmoid(self.gate(preact))) * shortcut + residual


class ExclusiveGating(ShortcutOnlyGating):
    """Fig. 2(c): y = (1 - g(x)) * x + g(x) * F(x), the gate of highway networks; `gate_bias` as there, section 3.1."""

    def forward(self, shortcut: Tensor, residual: Tensor, preact: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(preact))
        return (1 - gate) * shortcut + gate * residual


class ConvolutionalShortcut(Shortcut):
    """Fig. 2(e): y = W_s x + F(x), a 1x1 convolution on every shortcut (option C of arXiv:1512.03385)."""

    projects = True


class DropoutShortcut(Shortcut):
    """Fig. 2(f): y = dropout(x) + F(x), section 3.1.

    What is kept is not scaled up, in training, and all of x is scaled down, in evaluation: the paper counts on a scale
    with an expectation of 1 - `ratio`. `torch.nn.Dropout` would give an expectation of 1.
    """

    def __init__(self, unit: spec.PlacedUnit, ratio: float = 0.5) -> None:
        super().__init__(unit)
        self.ratio = ratio

    def forward(self, shortcut: Tensor, residual: Tensor, preact: Tensor) -> Tensor:  # noqa: ARG002
        return (1 - self.ratio) * F.dropout(shortcut, self.ratio, self.training) + residual


class Activation(NamedTuple):
    """What stands at one of the three places of a unit: BatchNorm, ReLU, both in this order, or nothing."""

    normalized: bool
    activated: bool


NOTHING = Activation(False, False)
BN = Activation(True, False)
RELU = Activation(False, True)
BN_RELU = Activation(True, True)


class ResidualUnit(nn.Module):
    """One unit, y = h(x) + F(x), x' = f(y): Eqn. 1 and 2. The five classes that derive from it set the activations.

    [batch, depth_in, height, width] to [batch, depth, ceil(height / stride), ceil(width / stride)].

    Layers are slim's and have slim's names. In every branch, BatchNorm and ReLU follow all convolutions but the last; a
    convolution without BatchNorm has a bias. Where depths differ, a bottleneck's shortcut is a 1x1 convolution, and a
    basic unit's is x with channels of zeros appended (option A of arXiv:1512.03385, section 4.2).

    Args:
      unit: depths, stride and atrous rate. In a basic unit, `depth_bottleneck` is the depth between its convolutions.
      bottleneck: whether F is 1x1, 3x3 and 1x1 convolutions, the 3x3 with the stride; otherwise it is two 3x3 ones, the
        first with the stride.
      shortcut: makes h and the sum: one of `SHORTCUTS`, or a `functools.partial` of one.
      preactivates: False leaves the preactivation out, for a network's first unit.
    """

    preactivation: ClassVar[Activation] = NOTHING
    """Before the first convolution, on the branch alone."""
    before_addition: ClassVar[Activation] = NOTHING
    """After the last convolution."""
    after_addition: ClassVar[Activation] = NOTHING
    """The f of Eqn. 2."""

    def __init__(
        self,
        unit: spec.PlacedUnit,
        *,
        bottleneck: bool = True,
        shortcut: Callable[[spec.PlacedUnit], Shortcut] = Shortcut,
        preactivates: bool = True,
    ) -> None:
        super().__init__()
        self.scope = unit.scope
        self.stride = unit.stride
        self.depth = unit.depth
        self.skip = shortcut(unit)
        self.preacts = self.preactivation if preactivates else NOTHING
        self.preact = layers.BatchNorm(unit.depth_in) if self.preacts.normalized else None
        last_normalized, last_activated = self.before_addition
        inner = unit.depth_bottleneck
        # A weight layer like the branch's last one, so BatchNorm stands after both or after neither.
        self.shortcut = (
            layers.Conv2d(unit.depth_in, unit.depth, 1, unit.stride, normalized=last_normalized, activated=False)
            if self.skip.projects or (bottleneck and unit.projects)
            else None
        )
        last = {"normalized": last_normalized, "activated": last_activated}
        if bottleneck:
            self.conv1 = layers.Conv2d(unit.depth_in, inner, 1, normalized=True)
            self.conv2 = layers.Conv2d(inner, inner, 3, unit.stride, unit.rate, normalized=True)
            self.conv3 = layers.Conv2d(inner, unit.depth, 1, **last)
        else:
            self.conv1 = layers.Conv2d(unit.depth_in, inner, 3, unit.stride, normalized=True)
            self.conv2 = layers.Conv2d(inner, unit.depth, 3, rate=unit.rate, **last)
        self.convolutions = ("conv1", "conv2", "conv3") if bottleneck else ("conv1", "conv2")
        self.sumnorm = layers.BatchNorm(unit.depth) if self.after_addition.normalized else None

    def forward(self, inputs: Tensor, record: Record | None = None) -> Tensor:
        """x', and every layer's output under the unit's scope to `record`."""
        preact = self.preactivate(inputs)
        shortcut = self.carry(inputs, preact)
        if record and self.shortcut is not None:
            record(f"{self.scope}/shortcut", shortcut)
        residual = self.residual(preact, record)
        net: Tensor = self.skip(shortcut, residual, preact)
        output = _activate(net, self.sumnorm, self.after_addition)
        if record:
            record(self.scope, output)
        return output

    def preactivate(self, inputs: Tensor) -> Tensor:
        """What the unit's weight layers take: x, or the f^(x) of Eqn. 9."""
        return _activate(inputs, self.preact, self.preacts)

    def carry(self, inputs: Tensor, preact: Tensor) -> Tensor:
        """x in F's shape: itself, subsampled, with channels of zeros, or projected.

        A projection takes the preactivation; only the identity takes the input itself (appendix of the paper).
        """
        if self.shortcut is not None:
            projected: Tensor = self.shortcut(preact)
            return projected
        net = layers.subsample(inputs, self.stride)
        missing = self.depth - net.shape[1]
        return F.pad(net, (0, 0, 0, 0, 0, missing)) if missing else net

    def residual(self, preact: Tensor, record: Record | None = None) -> Tensor:
        """F, from what `preactivate` gives."""
        net = preact
        for name in self.convolutions:
            net = self.get_submodule(name)(net)
            if record:
                record(f"{self.scope}/{name}", net)
        return net


def _activate(net: Tensor, norm: nn.Module | None, activation: Activation) -> Tensor:
    if norm is not None:
        net = norm(net)
    return F.relu(net) if activation.activated else net


class Original(ResidualUnit):
    """Fig. 4(a): F ends in BatchNorm, and f is ReLU. Eqn. 1 and 2; the unit of arXiv:1512.03385 (its Fig. 5).

    Its bottleneck is slim's `bottleneck` of ResNet v1, scope `bottleneck_v1`.
    """

    before_addition = BN
    after_addition = RELU


class BatchNormAfterAddition(ResidualUnit):
    """Fig. 4(b): f is BatchNorm and ReLU, so that it alters what the shortcut carries. Eqn. 2; section 4.1."""

    after_addition = BN_RELU


class ReLUBeforeAddition(ResidualUnit):
    """Fig. 4(c): f is the identity (Eqn. 3), but F ends in ReLU and can only add. Section 4.1."""

    before_addition = BN_RELU


class ReLUOnlyPreactivation(ResidualUnit):
    """Fig. 4(d): F begins with ReLU and ends in BatchNorm, f is the identity. Eqn. 9; section 4.1."""

    preactivation = RELU
    before_addition = BN


class FullPreactivation(ResidualUnit):
    """Fig. 4(e) and 1(b): F begins with BatchNorm and ReLU, f is the identity. Eqn. 9; section 4.1.

    Its bottleneck is slim's `bottleneck` of ResNet v2, scope `bottleneck_v2`.
    """

    preactivation = BN_RELU


BRANCHES: dict[str, type[ResidualUnit]] = {
    "original": Original,
    "bn_after_addition": BatchNormAfterAddition,
    "relu_before_addition": ReLUBeforeAddition,
    "relu_only_preactivation": ReLUOnlyPreactivation,
    "full_preactivation": FullPreactivation,
}

SHORTCUTS: dict[str, type[Shortcut]] = {
    "identity": Shortcut,
    "constant_scaling": ConstantScaling,
    "exclusive_gating": ExclusiveGating,
    "shortcut_only_gating": ShortcutOnlyGating,
    "convolution": ConvolutionalShortcut,
    "dropout": DropoutShortcut,
}


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


class CifarResNet(nn.Module):
    """The network of the experiments on CIFAR-10: see `cifar_resnet`.

    `units` holds its 3n units in order, `n` to a stage.
    """

    def __init__(
        self,
        units_per_stage: int,
        branch: type[ResidualUnit],
        shortcut: Callable[[spec.PlacedUnit], Shortcut],
        *,
        bottleneck: bool,
        num_classes: int,
        in_channels: int,
        width: int,
    ) -> None:
        super().__init__()
        # The first unit's preactivation stands here, before the two paths part (appendix of arXiv:1603.05027). With
        # the other branches BatchNorm and ReLU belong to conv1 anyway.
        self.conv1 = layers.Conv2d(in_channels, width, 3, normalized=True)
        self.units = nn.ModuleList()
        depth_in = width
        for stage in range(3):
            inner = width << stage
            depth = 4 * inner if bottleneck else inner
            for number in range(1, units_per_stage + 1):
                first = number == 1
                unit = spec.PlacedUnit(
                    scope=f"stage{stage + 1}/unit_{number}",
                    depth_in=depth_in,
                    depth=depth,
                    depth_bottleneck=inner,
                    stride=2 if first and stage else 1,
                    rate=1,
                    ends_block=None,
                )
                self.units.append(
                    branch(unit, bottleneck=bottleneck, shortcut=shortcut, preactivates=not (first and not stage))
                )
                depth_in = depth
        # The activation that the last addition would otherwise lack (the same appendix).
        self.last = branch.preactivation
        self.postnorm = layers.BatchNorm(depth_in) if self.last.normalized else None
        self.logits = nn.Linear(depth_in, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, num_classes].

        Args:
          images: [batch, in_channels, height, width], of the parameters' dtype.
        """
        return self.signals(images)[0]

    def signals(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits, and the signals of Eqn. 4: every unit's input x_l in order, and the last one's output x_L."""
        net = self.conv1(images)
        signals = [net]
        for unit in self.units:
            net = unit(net)
            signals.append(net)
        net = _activate(net, self.postnorm, self.last)
        return self.logits(layers.global_pool(net).flatten(1)), signals


def cifar_resnet(
    depth: int,
    branch: str = "full_preactivation",
    shortcut: str | Callable[[spec.PlacedUnit], Shortcut] = "identity",
    *,
    bottleneck: bool = False,
    num_classes: int = 10,
    in_channels: int = 3,
    width: int = 16,
) -> CifarResNet:
    """The CIFAR-10 network of 6n+2 layers (basic units) or 9n+2 layers (bottlenecks), with He initialization.

    A 3x3 convolution, three stages of n units with 16, 32 and 64 channels (four times that at a bottleneck's ends),
    the mean over height and width, and a fully connected layer: section 4.2 of arXiv:1512.03385. The first units of the
    second and third stage have stride 2. The bottlenecks, and the first and last activation of the preactivation
    branches, are in the appendix of arXiv:1603.05027.

    Args:
      depth: of 6n+2 or 9n+2; ResNet-110 and ResNet-164 in the paper.
      branch: a name of `BRANCHES`, Fig. 4.
      shortcut: a name of `SHORTCUTS`, Fig. 2, or what makes one, such as `partial(ConstantScaling, residual_scale=1)`.
      bottleneck: whether units are bottlenecks.
      num_classes: depth of the logits.
      in_channels: depth of the images.
      width: channels of the first stage, 16 in the paper.

    Raises:
      ValueError: a depth that is not 6n+2 or 9n+2, or a name that is not known.
    """
    n = units_per_stage(depth, bottleneck=bottleneck)
    network = CifarResNet(
        n,
        _named(branch, BRANCHES, "branch"),
        _named(shortcut, SHORTCUTS, "shortcut") if isinstance(shortcut, str) else shortcut,
        bottleneck=bottleneck,
        num_classes=num_classes,
        in_channels=in_channels,
        width=width,
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            # arXiv:1502.01852, which both papers start from.
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ShortcutOnlyGating):
            module.reset_gate()
    return network


def _named(name: str, known: dict[str, type], kind: str) -> type:
    if name not in known:
        raise ValueError(f"no {kind} is named {name!r}; there are {', '.join(known)}")
    return known[name]
