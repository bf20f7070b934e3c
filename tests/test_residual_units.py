"""The residual units and shortcuts are those of arXiv:1603.05027, and gradients pass through them as it derives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import SMALL, SMALL_V1
from torch import Tensor, nn
from torch.nn import functional as F

from slimport import graph, pytorch
from slimport.networks import ResNetV1, ResNetV2, Unit
from slimport.networks.residual_units import BRANCHES, SHORTCUTS, cifar_resnet, residual_unit
from slimport.networks.resnet import resnet_arg_scope
from slimport.pytorch.training import initialize

pytestmark = pytest.mark.usefixtures("without_onednn")

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


class Recorded:
    """A definition of any kind as a description, with what the PyTorch interpreter asks of one."""

    name = default_scope = ""

    def __init__(self, definition: Callable[[graph.Tensor], graph.Tensor], in_channels: int) -> None:
        def under_a_scope(images: graph.Tensor) -> graph.Tensor:
            with resnet_arg_scope(), graph.scope("unit"):
                return definition(images)

        self.recorded = graph.record(under_a_scope, in_channels)

    def with_defaults(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments

    def graph(self) -> graph.Graph:
        return self.recorded


def module_of(definition: Callable[[graph.Tensor], graph.Tensor], in_channels: int) -> Any:
    """The module of a definition, in float64."""
    return pytorch.Network(Recorded(definition, in_channels)).double()  # type: ignore[arg-type]


def unit_of(
    depth_in: int,
    unit: Unit,
    branch: str = "full_preactivation",
    shortcut: str = "identity",
    *,
    bottleneck: bool = True,
    **settings: float,
) -> Any:
    """The module of one residual unit, in float64."""

    def definition(images: graph.Tensor) -> graph.Tensor:
        return residual_unit(images, unit, BRANCHES[branch], shortcut, bottleneck=bottleneck, **settings)

    return module_of(definition, depth_in)


def part_of(unit: Any) -> Any:
    """The part that has a unit's layers; slim's units have a scope of their own."""
    children = dict(unit.named_children())
    return children.get("bottleneck_v1", children.get("bottleneck_v2", unit))


def residual_of(module: Any, inputs: Tensor) -> Tensor:
    """F(x): what the last convolution gives, after its BatchNorm and ReLU if it has them."""
    name = [name for name in module.graph.end_point_names("") if name.endswith(("/conv2", "/conv3"))][-1]
    found: Tensor = module.features(inputs, [name])[name]
    return found


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
    layers = list(unit.modules())
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
    unit = shaken(unit_of(6, Unit(6, 3 if bottleneck else 6), name, bottleneck=bottleneck)).eval()
    inputs = random(2, 6, 5, 7)
    torch.testing.assert_close(unit(inputs), as_in_fig_4(name, unit, inputs, bottleneck=bottleneck), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_all_branches_have_the_same_components_but_for_a_bias_or_a_batch_norm(bottleneck: bool) -> None:
    counts = set()
    for branch in BRANCHES:
        modules = list(unit_of(6, Unit(6, 6), branch, bottleneck=bottleneck).modules())
        counts.add(tuple(sum(isinstance(m, kind) for m in modules) for kind in (nn.Conv2d, nn.BatchNorm2d)))
    assert counts == {(3, 3) if bottleneck else (2, 2)}


@pytest.mark.parametrize(("branch", "network"), [("full_preactivation", SMALL), ("original", SMALL_V1)])
def test_the_bottleneck_of_a_branch_is_the_unit_of_the_family_that_has_it(
    branch: str, network: ResNetV1 | ResNetV2
) -> None:
    model = shaken(pytorch.build(network)).eval()
    depth_in = 64
    for block in network.blocks:
        for number, described in enumerate(block.units, start=1):
            its_unit = model.get_submodule(f"{block.scope}.unit_{number}")
            inputs = random(2, depth_in, 9, 8)
            unit = unit_of(depth_in, described, branch)
            unit.unit.load_state_dict(its_unit.state_dict(), strict=True)
            assert torch.equal(unit.eval()(inputs), its_unit(inputs))
            # Put together from Fig. 4, as those of other shortcuts are: Eqn. 6 with scales of 1.
            unit = unit_of(depth_in, described, branch, "constant_scaling", shortcut_scale=1, residual_scale=1)
            unit.unit.load_state_dict(part_of(its_unit).state_dict(), strict=True)
            assert torch.equal(unit.eval()(inputs), its_unit(inputs))
            depth_in = described.depth


def on_paths(name: str, inputs: Tensor) -> tuple[Tensor, Tensor, Any]:
    """What is on the shortcut and on F, the columns of table 1, where both are ones; and the module."""

    def module(residual: float) -> Any:
        def definition(images: graph.Tensor) -> graph.Tensor:
            x, f = graph.scale(images, 0, 1, scope="x"), graph.scale(images, 0, residual, scope="F")
            return SHORTCUTS[name](x, f, images, Unit(images.channels, images.channels))

        return shaken(module_of(definition, inputs.shape[1]))

    both, on_shortcut = module(residual=1), module(residual=0)(inputs)
    return on_shortcut, both(inputs) - on_shortcut, both


def test_the_shortcuts_do_to_both_paths_what_table_1_says() -> None:
    inputs = random(2, 4, 5, 5)

    def gate(module: Any) -> Tensor:
        layer = module.unit.gate
        return 1 / (1 + torch.exp(-F.conv2d(inputs, layer.weight, layer.bias)))

    expected: dict[str, Callable[[Any], tuple[Any, Any]]] = {
        "identity": lambda _: (1.0, 1.0),
        "constant_scaling": lambda _: (0.5, 0.5),
        "exclusive_gating": lambda module: (1 - gate(module), gate(module)),
        "shortcut_only_gating": lambda module: (1 - gate(module), 1.0),
        "convolution": lambda _: (1.0, 1.0),  # the convolution is a layer of the unit
    }
    for name, columns in expected.items():
        *found, module = on_paths(name, inputs)
        for path, column in zip(found, columns(module), strict=True):
            torch.testing.assert_close(path, torch.as_tensor(column).double().expand_as(inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("mode", "ratio"), [("train", 0.5), ("train", 0.2), ("eval", 0.2)])
def test_dropout_has_the_expectation_that_the_paper_counts_on(mode: str, ratio: float) -> None:
    def definition(images: graph.Tensor) -> graph.Tensor:
        return SHORTCUTS["dropout"](images, graph.scale(images, 0, scope="F"), images, Unit(1, 1), ratio=ratio)

    torch.manual_seed(0)
    kept = module_of(definition, 1).train(mode == "train")(torch.ones(1, 1, 250, 400, dtype=torch.float64))
    assert set(kept.flatten().tolist()) == ({0.0, 1.0} if mode == "train" else {1 - ratio})
    assert abs(kept.mean().item() - (1 - ratio)) < 0.01


@pytest.mark.parametrize(("depth_in", "depth", "stride"), [(4, 4, 1), (4, 8, 2), (4, 4, 2)])
def test_where_shapes_differ_a_basic_unit_appends_zeros_and_a_bottleneck_projects(
    depth_in: int, depth: int, stride: int
) -> None:
    inputs = random(2, depth_in, 7, 6)
    padded = torch.zeros(2, depth, -(-7 // stride), -(-6 // stride), dtype=torch.float64)
    padded[:, :depth_in] = inputs[:, :, ::stride, ::stride]

    def projects(module: Any) -> bool:
        return any(isinstance(m, nn.Conv2d) for n, m in module.named_modules() if n.endswith("shortcut"))

    for branch in BRANCHES:
        basic = unit_of(depth_in, Unit(depth, depth, stride), branch, bottleneck=False)
        for parameter in basic.unit.conv2.parameters():
            # F is 0, so that x' = f(x).
            nn.init.zeros_(parameter)
        after_addition = dict(basic.unit.named_children()).get("postact", nn.Identity())
        assert torch.equal(basic(inputs), after_addition(padded))
        assert projects(unit_of(depth_in, Unit(depth, 2, stride), branch)) == (depth_in != depth)
        for shortcut in SHORTCUTS:
            unit = unit_of(depth_in, Unit(depth, depth, stride), branch, shortcut, bottleneck=False)
            assert unit(inputs).shape == padded.shape
            assert projects(unit) == (shortcut == "convolution")


def test_a_projection_takes_the_preactivation_and_has_batch_norm_where_the_branch_ends_in_it() -> None:
    inputs = random(2, 4, 7, 6)
    for name, shortcut in itertools.product(BRANCHES, ("identity", "convolution")):
        unit = shaken(unit_of(4, Unit(8, 2, 2), name, shortcut)).eval()
        part = part_of(unit.unit)
        ran: list[tuple[Tensor, Tensor]] = []
        part.shortcut.register_forward_hook(lambda _, taken, given, ran=ran: ran.append((taken[0], given)))
        unit(inputs)
        [(taken, given)] = ran
        assert hasattr(part, "preact") == ("preactivation" in name)
        assert torch.equal(taken, part.preact(inputs) if "preactivation" in name else inputs)
        net = F.conv2d(taken, part.shortcut.weight, part.shortcut.bias, stride=2)
        norm = getattr(part.shortcut, "BatchNorm", None)
        assert (norm is not None) == (name in ("original", "relu_before_addition", "relu_only_preactivation"))
        torch.testing.assert_close(given, norm(net) if norm else net)


@pytest.mark.parametrize(
    ("depth", "bottleneck", "n", "millions"), [(110, False, 18, 1.7), (164, True, 18, 1.7), (1001, True, 111, 10.2)]
)
def test_the_cifar_networks_have_the_papers_units_and_parameters(
    depth: int, bottleneck: bool, n: int, millions: float
) -> None:
    with torch.device("meta"):
        # 1001 = 9n+2 with n = 111: "333 Residual Units (111 on each feature map size)"; millions are in its table 4.
        described = cifar_resnet(depth, bottleneck=bottleneck)
        network = pytorch.build(described)
        _, end_points = network.end_points(torch.empty(2, 3, 32, 32))
    assert len(described.signals) == 3 * n + 1
    kernels = [p for p in network.parameters() if p.ndim > 1]
    assert round(sum(p.numel() for p in kernels) / 1e6, 1) == millions
    layers = [name for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len([name for name in layers if not name.endswith("shortcut")]) == depth
    wide = 4 if bottleneck else 1
    shapes = [tuple(end_points[name].shape[1:]) for name in described.signals[1:]]
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
    described = cifar_resnet(11 if bottleneck else 8, branch, bottleneck=bottleneck)
    network = pytorch.build(described).double()
    nn.init.constant_(part_of(network.get_submodule("stage3.unit_1")).conv1.weight, 0.3)
    entering: list[Tensor] = []
    network.get_submodule("logits").register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    with torch.no_grad():
        _, end_points = network.end_points(random(4, 3, 16, 16))
    assert end_points[described.signals[0]].min() == 0
    first, second = (part_of(network.get_submodule(f"stage{stage}.unit_1")) for stage in (1, 2))
    assert not hasattr(first, "preact")
    assert hasattr(second, "preact") == ("preactivation" in branch)
    if "preactivation" in branch:
        assert end_points[described.signals[-1]].min() < 0
    if branch != "relu_before_addition":
        assert entering[0].min() >= 0
    last = dict(network.named_children()).get("postnorm")
    assert (last is not None) == ("preactivation" in branch)
    assert isinstance(last, nn.BatchNorm2d) == (branch == "full_preactivation")


@pytest.mark.parametrize(("settings", "start"), [({}, -6), ({"gate_bias": 0}, 0), ({"gate_bias": -7}, -7)])
def test_gates_start_at_the_bias_that_the_paper_chose(settings: dict[str, float], start: float) -> None:
    for shortcut in ("exclusive_gating", "shortcut_only_gating"):
        network = pytorch.build(cifar_resnet(8, "original", shortcut, **settings))  # type: ignore[arg-type]
        initialize(network)
        gates = [module for name, module in network.named_modules() if name.endswith("gate")]
        biases = [parameter for gate in gates for name, parameter in gate.named_parameters() if name == "bias"]
        assert len(biases) == 3
        assert all((bias == start).all() for bias in biases)


def test_kernels_start_as_in_the_paper_of_rectifiers() -> None:
    network = pytorch.build(cifar_resnet(8, "original", "convolution", width=64))
    torch.manual_seed(0)
    initialize(network)
    kernels = [(name, p) for name, p in network.named_parameters() if p.ndim > 1]
    assert len(kernels) == 1 + 3 * 3 + 1
    for name, kernel in kernels:
        # Eqn. 10 of arXiv:1502.01852: sqrt(2 / n), n the number of a response's connections.
        in_deviations = kernel * (kernel[0].numel() / 2) ** 0.5
        assert in_deviations.std().item() == pytest.approx(1, abs=0.05), name
        # And Gaussian, not cut off.
        assert in_deviations.abs().max() > 2.5, name


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
    with pytest.raises(ValueError, match="the shortcut 'identity' has no setting 'ratio'; it has no settings"):
        cifar_resnet(11, "original", bottleneck=True, ratio=0.2)
    with pytest.raises(ValueError, match="no setting 'scale'; its settings are shortcut_scale, residual_scale"):
        cifar_resnet(8, "original", "constant_scaling", scale=0.5)


class Stage:
    """Units of one shape in float64, in training mode, with a loss on top: everything that Eqn. 5 speaks of."""

    def __init__(
        self, branch: str, shortcut: str, count: int = 9, *, bottleneck: bool = False, **settings: float
    ) -> None:
        torch.manual_seed(3)
        unit = Unit(6, 3 if bottleneck else 6)
        self.units = [unit_of(6, unit, branch, shortcut, bottleneck=bottleneck, **settings) for _ in range(count)]
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
                total = scale * total + residual_scale * residual_of(unit, net)
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
    stage = Stage(branch, "identity", bottleneck=bottleneck)
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
    stage = Stage("full_preactivation", shortcut, **gated)
    at_first, at_last = stage.by_backpropagation()
    assert distance(at_last + stage.through_the_branches(at_last), at_first) > 1e-2


@pytest.mark.parametrize(("scale", "residual_scale"), [(0.5, 0.5), (0.5, 1.0), (0.9, 1.0), (1.1, 1.0), (0.0, 1.0)])
def test_a_scaled_shortcut_carries_the_scale_to_the_power_of_the_number_of_units(
    scale: float, residual_scale: float
) -> None:
    scales = {"shortcut_scale": scale, "residual_scale": residual_scale}
    stage = Stage("full_preactivation", "constant_scaling", **scales)
    at_first, at_last = stage.by_backpropagation()
    branches = stage.through_the_branches(at_last, scale, residual_scale)
    assert distance(scale**9 * at_last + branches, at_first) < 1e-10
    assert distance(at_last + branches, at_first) > 1e-3


def test_what_a_halved_shortcut_carries_vanishes_and_the_identity_carries_all() -> None:
    for scale, count in itertools.product((0.5, 1.0), (1, 9, 54)):
        stage = Stage("full_preactivation", "constant_scaling", count, shortcut_scale=scale)
        for unit in stage.units:
            # No gradient through the branches: what is left is the shortcuts'.
            unit.unit.conv2.register_forward_hook(lambda _module, _inputs, output: output.detach())
        at_first, at_last = stage.by_backpropagation()
        assert torch.equal(at_first, scale**count * at_last)
    # Of a 110-layer network's 54 shortcuts of 0.5, less than float64's rounding is left.
    assert torch.finfo(torch.float64).eps > 0.5**54
