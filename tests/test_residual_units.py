"""The residual units and shortcuts are those of arXiv:1603.05027, and gradients pass through them as it derives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from conftest import SMALL
from torch import Tensor, nn
from torch.nn import functional as F

import slimport.pytorch
from slimport import networks
from slimport.pytorch import residual_units
from slimport.pytorch.residual_units import BRANCHES, SHORTCUTS, ConstantScaling, cifar_resnet

# The branches of Fig. 4, basic and bottleneck, as one reads them there from top to bottom.
FIG_4 = {
    "original": "weight BN ReLU weight BN addition ReLU",
    "bn_after_addition": "weight BN ReLU weight addition BN ReLU",
    "relu_before_addition": "weight BN ReLU weight BN ReLU addition",
    "relu_only_preactivation": "ReLU weight BN ReLU weight BN addition",
    "full_preactivation": "BN ReLU weight BN ReLU weight addition",
}
# Those whose f is the identity, and so Eqn. 4 and 5 hold.
CLEAN = ("relu_before_addition", "relu_only_preactivation", "full_preactivation")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On layers this small, threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def unit_of(depth_in: int, depth: int, inner: int, stride: int = 1) -> networks.PlacedUnit:
    return networks.PlacedUnit("unit", depth_in, depth, inner, stride, rate=1, ends_block=None)


def shaken(module: Any, seed: int = 0) -> Any:
    """The module in float64, with no parameter or statistic at a value that hides a missing layer."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * 0.8 + 0.1
            tensor.data -= 0.5 * (tensor.ndim == 4)
    return module.double()


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def as_in_fig_4(name: str, unit: Any, inputs: Tensor, *, bottleneck: bool) -> Tensor:
    """The unit's output, by its own weights and the figure's order."""
    layers = [m for n, m in unit.named_modules() if not n.startswith("shortcut")]
    weights = iter([m for m in layers if isinstance(m, nn.Conv2d)])
    norms = iter([m for m in layers if isinstance(m, nn.BatchNorm2d)])
    order = FIG_4[name].split()
    if bottleneck:
        at = order.index("weight") + 1
        order[at:at] = ["BN", "ReLU", "weight"]
    net = inputs
    for layer in order:
        match layer:
            case "weight":
                m = next(weights)
                net = F.conv2d(net, m.weight, m.bias, padding=m.weight.shape[2] // 2)
            case "BN":
                m = next(norms)
                net = F.batch_norm(net, m.running_mean, m.running_var, m.weight, m.bias, eps=1e-5)
            case "ReLU":
                net = net.clamp(min=0)
            case "addition":
                net = inputs + net
    assert next(weights, None) is None
    assert next(norms, None) is None
    return net


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("name", BRANCHES)
def test_a_branch_has_the_order_of_its_figure(name: str, bottleneck: bool) -> None:
    unit = shaken(BRANCHES[name](unit_of(6, 6, 3 if bottleneck else 6), bottleneck=bottleneck)).eval()
    inputs = random(2, 6, 5, 7)
    torch.testing.assert_close(unit(inputs), as_in_fig_4(name, unit, inputs, bottleneck=bottleneck), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_all_branches_have_the_same_components_but_for_a_bias_or_a_batch_norm(bottleneck: bool) -> None:
    counts = set()
    for branch in BRANCHES.values():
        modules = list(branch(unit_of(6, 6, 6), bottleneck=bottleneck).modules())
        counts.add(tuple(sum(isinstance(m, kind) for m in modules) for kind in (nn.Conv2d, nn.BatchNorm2d)))
    assert counts == {(3, 3) if bottleneck else (2, 2)}


@pytest.mark.parametrize(("branch", "family"), [("full_preactivation", "resnet_v2"), ("original", "resnet_v1")])
def test_the_bottleneck_of_a_branch_is_the_unit_of_the_family_that_has_it(branch: str, family: str) -> None:
    network = getattr(slimport.pytorch, family)(SMALL.blocks, 7)
    its_units = [m for m in network.modules() if isinstance(m, residual_units.ResidualUnit)]
    assert len(its_units) == len(SMALL.units())
    for described, its_unit in zip(SMALL.units(), its_units, strict=True):
        assert type(its_unit) is BRANCHES[branch]
        its_unit = shaken(its_unit).eval()
        unit = BRANCHES[branch](described, shortcut=SHORTCUTS["identity"], bottleneck=True).double()
        unit.load_state_dict(its_unit.state_dict(), strict=True)
        inputs = random(2, described.depth_in, 9, 8)
        assert torch.equal(unit.eval()(inputs), its_unit(inputs))


def on_paths(shortcut: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """What stands on the shortcut and on F, the columns of table 1, for inputs of ones on both."""
    ones = torch.ones_like(inputs)
    both = shortcut(ones, ones, inputs)
    on_shortcut = shortcut(ones, torch.zeros_like(ones), inputs)
    return on_shortcut, both - on_shortcut


def test_the_shortcuts_do_to_both_paths_what_table_1_says() -> None:
    unit, inputs = unit_of(4, 4, 4), random(2, 4, 5, 5)
    made = {name: shaken(make(unit)) for name, make in SHORTCUTS.items()}

    def gate(name: str) -> Tensor:
        layer = made[name].gate
        return 1 / (1 + torch.exp(-F.conv2d(inputs, layer.weight, layer.bias)))

    expected: dict[str, tuple[Any, Any]] = {
        "identity": (1.0, 1.0),
        "constant_scaling": (0.5, 0.5),
        "exclusive_gating": (1 - gate("exclusive_gating"), gate("exclusive_gating")),
        "shortcut_only_gating": (1 - gate("shortcut_only_gating"), 1.0),
        "convolution": (1.0, 1.0),  # the convolution is a layer of the unit
    }
    for name, columns in expected.items():
        for found, column in zip(on_paths(made[name], inputs), columns, strict=True):
            torch.testing.assert_close(found, torch.as_tensor(column).double().expand_as(inputs), rtol=0, atol=1e-12)
    for name, ratio, expectation in (("train", 0.5, 0.5), ("train", 0.2, 0.8), ("eval", 0.2, 0.8)):
        dropout = SHORTCUTS["dropout"](unit, ratio).train(name == "train")  # type: ignore[call-arg]
        torch.manual_seed(0)
        ones = torch.ones(100_000, dtype=torch.float64)
        kept = dropout(ones, 0 * ones, inputs)
        assert set(kept.tolist()) == ({0.0, 1.0} if name == "train" else {expectation})
        assert abs(kept.mean().item() - expectation) < 0.01


@pytest.mark.parametrize(("depth_in", "depth", "stride"), [(4, 4, 1), (4, 8, 2), (4, 4, 2)])
def test_where_shapes_differ_a_basic_unit_appends_zeros_and_a_bottleneck_projects(
    depth_in: int, depth: int, stride: int
) -> None:
    inputs = random(2, depth_in, 7, 6)
    for branch in BRANCHES.values():
        basic = branch(unit_of(depth_in, depth, depth, stride), bottleneck=False).double()
        padded = torch.zeros(2, depth, -(-7 // stride), -(-6 // stride), dtype=torch.float64)
        padded[:, :depth_in] = inputs[:, :, ::stride, ::stride]
        assert torch.equal(basic.carry(inputs, basic.preactivate(inputs)), padded)
        bottleneck = branch(unit_of(depth_in, depth, 2, stride), bottleneck=True)
        assert (bottleneck.shortcut is None) == (depth_in == depth)
        for shortcut in SHORTCUTS.values():
            unit = branch(unit_of(depth_in, depth, depth, stride), bottleneck=False, shortcut=shortcut).double()
            assert unit(inputs).shape == padded.shape
            assert (unit.shortcut is not None) == (shortcut is SHORTCUTS["convolution"])


def test_a_projection_takes_the_preactivation_and_has_batch_norm_where_the_branch_ends_in_it() -> None:
    for name, branch in BRANCHES.items():
        unit = shaken(branch(unit_of(4, 8, 2, 2), bottleneck=True)).eval()
        inputs = random(2, 4, 7, 6)
        net = unit.preactivate(inputs)
        assert torch.equal(net, inputs) == ("preactivation" not in name)
        net = F.conv2d(net, unit.shortcut.weight, unit.shortcut.bias, stride=2)
        norm = getattr(unit.shortcut, "BatchNorm", None)
        assert (norm is not None) == (name in ("original", "relu_before_addition", "relu_only_preactivation"))
        torch.testing.assert_close(unit.carry(inputs, unit.preactivate(inputs)), norm(net) if norm else net)


@pytest.mark.parametrize(
    ("depth", "bottleneck", "n", "millions"), [(110, False, 18, 1.7), (164, True, 18, 1.7), (1001, True, 111, 10.2)]
)
def test_the_cifar_networks_have_the_papers_units_and_parameters(
    depth: int, bottleneck: bool, n: int, millions: float
) -> None:
    with torch.device("meta"):
        # 1001 = 9n+2 with n = 111: "333 Residual Units (111 on each feature map size)"; millions are in its table 4.
        network = cifar_resnet(depth, bottleneck=bottleneck)
        _, signals = network.signals(torch.empty(2, 3, 32, 32))
    assert len(network.units) == 3 * n
    kernels = [p for p in network.parameters() if p.ndim > 1]
    assert round(sum(p.numel() for p in kernels) / 1e6, 1) == millions
    layers = [name for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len([name for name in layers if not name.endswith("shortcut")]) == depth
    wide = 4 if bottleneck else 1
    shapes = [tuple(x.shape[1:]) for x in signals[1:]]
    assert [(shape, len(list(group))) for shape, group in itertools.groupby(shapes)] == [
        ((16 * wide, 32, 32), n),
        ((32 * wide, 16, 16), n),
        ((64 * wide, 8, 8), n),
    ]


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("branch", BRANCHES)
def test_the_first_activation_stands_before_the_paths_part_and_the_last_one_after_the_addition(
    branch: str, bottleneck: bool
) -> None:
    network = cifar_resnet(11 if bottleneck else 8, branch, bottleneck=bottleneck).double()
    torch.nn.init.constant_(network.units[-1].get_submodule("conv1").weight, 0.3)
    entering: list[Tensor] = []
    network.logits.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    with torch.no_grad():
        _, signals = network.signals(random(4, 3, 16, 16))
    assert signals[0].min() == 0
    assert torch.equal(network.units[0].preactivate(signals[0]), signals[0])
    if "preactivation" in branch:
        assert signals[-1].min() < 0
    if branch != "relu_before_addition":
        assert entering[0].min() >= 0
    assert (network.postnorm is not None) == (branch == "full_preactivation")


def test_gates_start_at_the_bias_that_the_paper_chose() -> None:
    for name in ("exclusive_gating", "shortcut_only_gating"):
        network = cifar_resnet(8, "original", name)
        gates = [m.gate for m in network.modules() if isinstance(m, residual_units.ShortcutOnlyGating)]
        assert len(gates) == 3
        assert all(gate.bias is not None and (gate.bias == -6).all() for gate in gates)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((111,), "depth 111: it is 6n\\+2, such as 110 or 116"),
        ((2,), "depth 2: it is 6n\\+2, such as 8"),
        ((-4,), "depth -4: it is 6n\\+2, such as 8"),
        ((8, "plain"), "no branch is named 'plain'; there are original, bn_after_addition"),
        ((8, "original", "none"), "no shortcut is named 'none'; there are identity, constant_scaling"),
    ],
)
def test_a_network_that_does_not_exist_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cifar_resnet(*arguments)
    with pytest.raises(ValueError, match=r"depth 100: it is 9n\+2, such as 92 or 101"):
        cifar_resnet(100, bottleneck=True)


class Stage:
    """Units of one shape in float64, in training mode, with a loss on top: everything that Eqn. 5 speaks of."""

    def __init__(self, branch: str, shortcut: Callable[..., Any], count: int = 9, *, bottleneck: bool = False) -> None:
        torch.manual_seed(3)
        unit = unit_of(6, 6, 3 if bottleneck else 6)
        made = [BRANCHES[branch](unit, bottleneck=bottleneck, shortcut=shortcut).double() for _ in range(count)]
        self.units: list[Any] = made
        self.weights = random(4, 6, 5, 5, seed=2)
        # Positive, as what a unit with f = ReLU receives.
        self.inputs = random(4, 6, 5, 5).abs()

    def loss(self, net: Tensor) -> Tensor:
        return (net.sigmoid() * self.weights).sum()

    def by_backpropagation(self) -> tuple[Tensor, Tensor]:
        """dL/dx_l and dL/dx_L, through the units as they are."""
        first = self.inputs.clone().requires_grad_()
        torch.manual_seed(4)
        net = first
        for unit in self.units:
            net = unit(net)
        at_first, at_last = torch.autograd.grad(self.loss(net), (first, net))
        return at_first, at_last

    def through_the_branches(self, at_last: Tensor, scale: float = 1.0, residual_scale: float = 1.0) -> Tensor:
        """dL/dx_L times d/dx_l of the sum of the branches (Eqn. 5), or of its scaled form F^ (Eqn. 7 and 8)."""

        def sum_of_branches(first: Tensor) -> Tensor:
            torch.manual_seed(4)
            total = torch.zeros_like(first)
            for number, unit in enumerate(self.units):
                # x_i, by Eqn. 4 or 7 again.
                net = scale**number * first + total
                total = scale * total + residual_scale * unit.residual(unit.preactivate(net))
            return total

        _, product = torch.autograd.functional.vjp(sum_of_branches, self.inputs, at_last)
        assert isinstance(product, Tensor)
        return product


def distance(a: Tensor, reference: Tensor) -> float:
    return float((a - reference).norm() / reference.norm())


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("branch", BRANCHES)
def test_the_gradient_is_the_last_ones_and_what_the_branches_add_where_nothing_follows_the_addition(
    branch: str, bottleneck: bool
) -> None:
    stage = Stage(branch, SHORTCUTS["identity"], bottleneck=bottleneck)
    at_first, at_last = stage.by_backpropagation()
    error = distance(at_last + stage.through_the_branches(at_last), at_first)
    if branch in CLEAN:
        assert error < 1e-10
        # Both terms count, so the equality says something about either.
        assert distance(at_last, at_first) > 1e-3
    else:
        assert error > 1e-3


@pytest.mark.parametrize("shortcut", [name for name in SHORTCUTS if name != "identity"])
def test_no_other_shortcut_passes_the_gradient_on_unchanged(shortcut: str) -> None:
    # Gates at -6 would be the identity to within 1%, nine times.
    gated = {"gate_bias": 0.0} if "gating" in shortcut else {}
    stage = Stage("full_preactivation", partial(SHORTCUTS[shortcut], **gated))
    at_first, at_last = stage.by_backpropagation()
    assert distance(at_last + stage.through_the_branches(at_last), at_first) > 1e-2


@pytest.mark.parametrize(("scale", "residual_scale"), [(0.5, 0.5), (0.5, 1.0), (0.9, 1.0), (1.1, 1.0), (0.0, 1.0)])
def test_a_scaled_shortcut_carries_the_scale_to_the_power_of_the_number_of_units(
    scale: float, residual_scale: float
) -> None:
    scaling = partial(ConstantScaling, scale=scale, residual_scale=residual_scale)
    stage = Stage("full_preactivation", scaling)
    at_first, at_last = stage.by_backpropagation()
    branches = stage.through_the_branches(at_last, scale, residual_scale)
    assert distance(scale**9 * at_last + branches, at_first) < 1e-10
    assert distance(at_last + branches, at_first) > 1e-3


def test_what_a_halved_shortcut_carries_vanishes_and_the_identity_carries_all() -> None:
    for scale, count in itertools.product((0.5, 1.0), (1, 9, 54)):
        stage = Stage("full_preactivation", partial(ConstantScaling, scale=scale), count)
        for unit in stage.units:
            # No gradient through the branches: what is left is the shortcuts'.
            unit.conv2.register_forward_hook(lambda _module, _inputs, output: output.detach())
        at_first, at_last = stage.by_backpropagation()
        assert torch.equal(at_first, scale**count * at_last)
    # Of a 110-layer network's 54 shortcuts of 0.5, less than float64's rounding is left.
    assert torch.finfo(torch.float64).eps > 0.5**54
