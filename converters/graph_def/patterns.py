"""Layers that people spell out: activations, PReLU and normalizations, recognised by what they compute.

No spelling is known here. A part of the graph is run on a few numbers and compared with what each layer would give.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import numpy as np

from converters.graph_def.functions import ACTIVATIONS, COMPUTE, elu, leaky_relu, relu, relu6, selu, sigmoid
from converters.graph_def.parameters import Parameter, parameter
from converters.graph_def.proto import Array
from converters.graph_def.values import Value

_LARGEST_REGION = 16
_GRID = np.concatenate([np.linspace(-9, 9, 37), [-1e3, -0.37, 0.11, 5.99, 1e3]])
_EXACT = 1e-13
_SPELLED = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "where", "exp", "reciprocal")
_ROOTS = ("rsqrt", "sqrt", "power")
_SHAPING = ("reshape", "expand_dims", "squeeze", "transpose")


@dataclass(frozen=True)
class Match:
    """A layer that was recognised.

    data: what it takes.
    interior: the numbers of the values that it replaces, its own output's among them.
    settings: what the vocabulary needs.
    parameters: by leaf.
    """

    kind: str
    data: Value
    interior: frozenset[int]
    settings: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Value] = field(default_factory=dict)


def activation(value: Value) -> Match | None:
    """The activation that ends at a value, spelled out or not; PReLU is one of kind `prelu`."""
    if value.op != "elementwise":
        return None
    function = value.attrs["function"]
    if function in ACTIVATIONS:
        numbers = value.attrs["numbers"]
        return Match(
            "activation",
            value.inputs[0],
            frozenset({value.number}),
            {"function": (function, *numbers) if numbers else function},
        )
    if function not in _SPELLED:
        return None
    for data, interior in _regions(value):
        leaves = _static_leaves(value, interior)
        if len(leaves) > 1:
            return None
        found = _prelu(value, data, leaves[0]) if leaves else _named(value, data)
        if found is not None and leaves:
            return Match("prelu", data, interior, found, {"weights": leaves[0]})
        if found is not None:
            return Match("activation", data, interior, found)
    return None


def _regions(value: Value) -> Iterator[tuple[Value, frozenset[int]]]:
    """The parts that end at a value and take one only, from the smallest on."""
    interior = {value.number}
    frontier = {other.number: other for other in value.inputs if not other.static}
    while frontier and len(interior) < _LARGEST_REGION:
        if len(frontier) == 1:
            yield next(iter(frontier.values())), frozenset(interior)
        last = frontier.pop(max(frontier))
        if last.op != "elementwise":
            return
        interior.add(last.number)
        frontier.update((other.number, other) for other in last.inputs if not other.static)


def _static_leaves(value: Value, interior: Collection[int]) -> list[Value]:
    """The inputs of a part that are neither data nor plain numbers."""
    leaves: dict[int, Value] = {}
    pending = [value]
    while pending:
        for other in pending.pop().inputs:
            if other.number in interior:
                pending.append(other)
            elif other.static and not (other.op == "constant" and other.scalar and not other.rank):
                leaves[other.number] = other
    return list(leaves.values())


def _run(value: Value, numbers: dict[int, Array]) -> Array | None:
    """The result of a part for these inputs, whatever their shapes."""
    found = dict(numbers)
    pending = [value]
    while pending:
        top = pending[-1]
        if top.number in found:
            pending.pop()
        elif top.op == "constant" and top.data is not None and top.data.size == 1:
            found[top.number] = np.float64(top.data.item())  # type: ignore[assignment]
        elif not top.inputs or top.op not in ("elementwise", *_SHAPING):
            return None
        elif missing := [other for other in top.inputs if other.number not in found]:
            if len(found) > 8 * _LARGEST_REGION:
                return None
            pending.extend(missing)
        elif top.op in _SHAPING:
            found[top.number] = found[top.inputs[0].number]
        else:
            with np.errstate(all="ignore"):
                inputs = [found[other.number] for other in top.inputs]
                found[top.number] = COMPUTE[top.attrs["function"]](*inputs, *top.attrs["numbers"])
    return found[value.number]


def _same(found: Array | None, wanted: Array, limit: float = _EXACT) -> bool:
    return (
        found is not None
        and np.shape(found) == np.shape(wanted)
        and bool(np.all(np.abs(found - wanted) <= limit * (1 + np.abs(wanted))))
    )


_PLAIN: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "relu6": relu6,
    "elu": elu,
    "selu": selu,
    "softplus": COMPUTE["softplus"],
    "softsign": COMPUTE["softsign"],
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "swish": lambda x: x * sigmoid(x),
}


def _named(value: Value, data: Value) -> dict[str, Any] | None:
    """The activation that a part computes, as the vocabulary writes it."""
    found = _run(value, {data.number: _GRID})
    if found is None or np.shape(found) != _GRID.shape:
        return None
    found = np.asarray(found, np.float64)
    for name, function in _PLAIN.items():
        if _same(found, function(_GRID)):
            return {"function": name}
    if not np.isfinite(found).all():
        return None
    low, at_one, high = (float(found[np.flatnonzero(at == _GRID)[0]]) for at in (-1e3, -1.0, 1e3))
    gate = relu6(_GRID + 3)
    candidates: list[tuple[tuple[Any, ...], Array]] = [
        (("leaky_relu", -at_one), leaky_relu(_GRID, -at_one)),
        (("hard_sigmoid", high / 6), gate * (high / 6)),
        (("hard_swish", high / 6e3), _GRID * gate * (high / 6e3)),
    ]
    if -1e3 < low < high < 1e3:
        candidates += [(("relu_n", high), np.clip(_GRID, 0, high)), (("clip", low, high), np.clip(_GRID, low, high))]
    for wanted, numbers in candidates:
        if _same(found, numbers) and np.ptp(numbers) and (0 < abs(at_one) < 1 or wanted[0] != "leaky_relu"):
            return {"function": wanted}
    return None


def _prelu(value: Value, data: Value, weights: Value) -> dict[str, Any] | None:
    if (found := parameter(weights)) is None or found.size not in (1, data.channels):
        return None
    alpha = np.linspace(0.1, 0.6, len(_GRID))
    wanted = np.where(_GRID > 0, _GRID, alpha * _GRID)
    return (
        {"shared": found.size == 1 and data.channels != 1}
        if _same(_run(value, {data.number: _GRID, weights.number: alpha}), wanted, 1e-12)
        else None
    )


# Normalizations.


def l2_normalization(value: Value) -> Match | None:
    """`tf.nn.l2_normalize` over the channels, of kind `l2_normalize`: x / sqrt(max(sum(x ** 2), epsilon))."""
    if value.op != "elementwise" or value.attrs["function"] != "multiply" or len(value.inputs) != 2:
        return None
    for data, root in permutations(value.inputs):
        bounded = root.inputs[0] if _computes(root, "rsqrt") else value
        if not _computes(bounded, "maximum"):
            continue
        total, least = bounded.inputs if bounded.inputs[1].static else bounded.inputs[::-1]
        if least.data is None or least.data.size != 1 or total.op != "reduce" or total.attrs["function"] != "sum":
            continue
        square = total.inputs[0]
        last = data.rank is not None and total.attrs["axes"] in ((data.rank - 1,), (-1,)) and total.attrs["keep_dims"]
        if last and (_computes(square, "square") or _computes(square, "multiply")) and set(square.inputs) == {data}:
            interior = frozenset(found.number for found in (value, root, bounded, total, square))
            return Match("l2_normalize", data, interior, {"epsilon": float(least.data.reshape(()))})
    return None


def _computes(value: Value, function: str) -> bool:
    return value.op == "elementwise" and bool(value.attrs["function"] == function)


def normalization(value: Value) -> Match | None:
    """The normalization that ends at a value: of kind `batch_norm` or `instance_norm`.

    Its parameters are `gamma`, `beta`, `moving_mean` and `moving_variance`, those that it has; one whose statistics are
    the data's has settings `mean` and `variance`, the values that are.
    """
    if value.op == "batch_norm":
        data, *rest = value.inputs
        leaves = dict(zip(("gamma", "beta", "moving_mean", "moving_variance"), rest, strict=True))
        if value.attrs["statistics"] == "batch":
            del leaves["moving_mean"], leaves["moving_variance"]
        # Where a BatchNorm was built without, TensorFlow's op is given constants that change nothing.
        leaves = {leaf: found for leaf, found in leaves.items() if not _is_neutral(leaf, found)}
        return Match("batch_norm", data, frozenset({value.number}), dict(value.attrs), leaves)
    if value.op != "elementwise" or value.attrs["function"] not in ("add", "subtract", "multiply", "divide"):
        return None
    return _with_moments(value) or _with_averages(value)


def _is_neutral(leaf: str, value: Value) -> bool:
    number = {"gamma": 1, "beta": 0}.get(leaf)
    if number is None or value.op != "constant" or value.data is None or value.node.endswith(f"/{leaf}"):
        return False
    return bool(np.all(value.data == number))


def _with_averages(value: Value) -> Match | None:
    """A normalization by moving averages: `x * factor + offset` of some spelling."""
    data = value
    interior: set[int] = set()
    leaves: dict[int, Value] = {}
    roots: list[Value] = []
    for _ in range(5):
        if data.op != "elementwise" or data.attrs["function"] not in ("add", "subtract", "multiply", "divide"):
            return None
        dynamic = [other for other in data.inputs if not other.static]
        if len(dynamic) != 1 or len(data.inputs) != 2:
            return None
        static = next(other for other in data.inputs if other.static)
        interior.add(data.number)
        if not _collect(static, leaves, roots) or len(leaves) > 4:
            return None
        data = dynamic[0]
        if roots:
            for variance, epsilon in _variances(roots, leaves):
                found = _roles(value, data, list(leaves.values()), variance, epsilon)
                if found is not None:
                    settings = {"epsilon": epsilon, "statistics": "moving"}
                    return Match("batch_norm", data, frozenset(interior), settings, found)
    return None


def _collect(value: Value, leaves: dict[int, Value], roots: list[Value]) -> bool:
    """Gathers the arrays that an expression is made of, and its square roots; False where it is of another kind."""
    pending = [value]
    for _ in range(2 * _LARGEST_REGION):
        if not pending:
            return True
        value = pending.pop()
        if value.op in _SHAPING or value.op == "elementwise":
            if value.op == "elementwise" and value.attrs["function"] in _ROOTS:
                roots.append(value)
            pending.extend(value.inputs)
        elif value.op in ("variable", "constant"):
            if not (value.op == "constant" and value.scalar and not value.rank):
                leaves[value.number] = value
        else:
            return False
    return False


def _variances(roots: Sequence[Value], leaves: dict[int, Value]) -> Iterator[tuple[Value, float]]:
    """The variances that square roots are taken of, each with the epsilon that is added to it."""
    for root in roots:
        inside = root.inputs[0]
        epsilon = 0.0
        if inside.op == "elementwise" and inside.attrs["function"] in ("add", "maximum"):
            numbers = [other for other in inside.inputs if other.op == "constant" and other.scalar and not other.rank]
            rest = [other for other in inside.inputs if other not in numbers]
            if len(numbers) != 1 or len(rest) != 1 or numbers[0].data is None or inside.attrs["function"] == "maximum":
                continue
            epsilon, inside = float(numbers[0].data.item()), rest[0]
        while inside.op in _SHAPING:
            inside = inside.inputs[0]
        if inside.number in leaves:
            yield inside, epsilon


def _roles(value: Value, data: Value, leaves: list[Value], variance: Value, epsilon: float) -> dict[str, Value] | None:
    """The arrays' roles (mean, gamma, beta): an order that gives a BatchNorm's numbers."""
    random = np.random.default_rng(0)
    numbers = {leaf.number: random.uniform(0.5, 2, 5) for leaf in leaves}
    x = random.normal(size=5)
    found = _run(value, {**numbers, data.number: x})
    rest = [leaf for leaf in leaves if leaf is not variance]
    scaled = 1 / np.sqrt(numbers[variance.number] + epsilon)
    for roles in (("moving_mean", *more) for more in ((), ("beta",), ("gamma",), ("gamma", "beta"))):
        for order in permutations(rest) if len(roles) == len(rest) else ():
            role = dict(zip(roles, order, strict=True))
            gamma, beta = (
                numbers[role[name].number] if name in role else float(name == "gamma") for name in ("gamma", "beta")
            )
            if _same(found, (x - numbers[role["moving_mean"].number]) * scaled * gamma + beta, 1e-10):
                return {**role, "moving_variance": variance}
    return None


def _with_moments(value: Value) -> Match | None:
    """A normalization by the mean and the variance of the data themselves."""
    for root in _roots_before(value):
        inside = root.inputs[0]
        epsilon = 0.0
        if inside.op == "elementwise" and inside.attrs["function"] == "add":
            numbers = [other for other in inside.inputs if other.op == "constant" and other.scalar and not other.rank]
            rest = [other for other in inside.inputs if other not in numbers]
            if len(numbers) != 1 or len(rest) != 1 or numbers[0].data is None:
                continue
            epsilon, inside = float(numbers[0].data.item()), rest[0]
        while inside.op in _SHAPING:
            inside = inside.inputs[0]
        moments = _moments(inside)
        if moments is None:
            continue
        data, mean, variance, within = moments
        found = _moment_roles(value, data, mean, variance, epsilon)
        kind = {(1, 2): "instance_norm", (0, 1, 2): "batch_norm", (0,): "batch_norm"}.get(mean.attrs["axes"])
        if found is None or kind is None:
            continue
        stop = {data.number}
        settings: dict[str, Any] = {"epsilon": epsilon, "mean": mean, "variance": variance}
        if kind == "batch_norm":
            settings["statistics"] = "batch"
        inner = frozenset(_between(value, stop)) | frozenset(within)
        return Match(kind, data, inner, settings, found)
    return None


def _roots_before(value: Value) -> list[Value]:
    """The square roots among the elementwise values before a value."""
    seen: dict[int, Value] = {}
    pending = [value]
    while pending and len(seen) < 2 * _LARGEST_REGION:
        top = pending.pop()
        if top.number not in seen and not top.static and top.op in ("elementwise", *_SHAPING):
            seen[top.number] = top
            pending.extend(top.inputs)
    return [top for top in seen.values() if top.op == "elementwise" and top.attrs["function"] in _ROOTS]


def _between(value: Value, stop: set[int]) -> set[int]:
    """The values on the way from what is in `stop` to a value, that one included."""
    found: set[int] = set()
    pending = [value]
    while pending and len(found) < 4 * _LARGEST_REGION:
        top = pending.pop()
        if top.number not in found and top.number not in stop and not top.static:
            found.add(top.number)
            pending.extend(top.inputs)
    return found


def _moments(variance: Value) -> tuple[Value, Value, Value, set[int]] | None:
    """The data, their mean and their variance, where a value is such a variance."""
    if _computes(variance, "subtract"):
        return _moments_by_squares(variance)
    if variance.op != "reduce" or variance.attrs["function"] != "mean":
        return None
    square = variance.inputs[0]
    if square.op != "elementwise":
        return None
    function = square.attrs["function"]
    one, other = (square.inputs * 2)[:2]
    if (
        function in ("square", "multiply")
        and one is other
        and one.op == "elementwise"
        and one.attrs["function"] == "subtract"
    ):
        data, mean = one.inputs
    elif function == "squared_difference":
        data, mean = one, other
    else:
        return None
    if mean.op != "reduce" or mean.attrs["function"] != "mean" or mean.inputs[0] is not data:
        return None
    if mean.attrs["axes"] != variance.attrs["axes"] or not mean.attrs["keep_dims"]:
        return None
    return data, mean, variance, {variance.number, mean.number, square.number, one.number} - {data.number}


def _moments_by_squares(variance: Value) -> tuple[Value, Value, Value, set[int]] | None:
    """The same of TensorFlow's first `tf.nn.moments`: the mean of the squares, less the square of the mean."""
    squares, squared = variance.inputs if len(variance.inputs) == 2 else (variance, variance)
    if not (_computes(squared, "square") and _averages(squares) and _computes(squares.inputs[0], "square")):
        return None
    (mean,), (data,) = squared.inputs, squares.inputs[0].inputs
    same = _averages(mean) and mean.inputs[0] is data and mean.attrs["axes"] == squares.attrs["axes"]
    if not same or not mean.attrs["keep_dims"] or not squares.attrs["keep_dims"]:
        return None
    return data, mean, variance, {part.number for part in (variance, mean, squares, squared, squares.inputs[0])}


def _averages(value: Value) -> bool:
    return value.op == "reduce" and bool(value.attrs["function"] == "mean")


def _moment_roles(value: Value, data: Value, mean: Value, variance: Value, epsilon: float) -> dict[str, Value] | None:
    leaves = _region_leaves(value, {data.number, mean.number, variance.number})
    if len(leaves) > 2:
        return None
    random = np.random.default_rng(0)
    numbers = {leaf.number: random.uniform(0.5, 2, 5) for leaf in (*leaves, data, mean, variance)}
    found = _run(value, dict(numbers))
    x, m, v = (numbers[part.number] for part in (data, mean, variance))
    for roles in ((), ("beta",), ("gamma",), ("gamma", "beta")):
        for order in permutations(leaves) if len(roles) == len(leaves) else ():
            role = dict(zip(roles, order, strict=True))
            gamma, beta = (
                numbers[role[name].number] if name in role else float(name == "gamma") for name in ("gamma", "beta")
            )
            if _same(found, (x - m) / np.sqrt(v + epsilon) * gamma + beta, 1e-10):
                return role
    return None


def _region_leaves(value: Value, stop: Collection[int]) -> list[Value]:
    """The static arrays that a part takes."""
    leaves: dict[int, Value] = {}
    pending, seen = [value], set[int]()
    while pending and len(seen) < 4 * _LARGEST_REGION:
        top = pending.pop()
        if top.number in seen or top.number in stop:
            continue
        seen.add(top.number)
        if top.op in ("elementwise", *_SHAPING):
            pending.extend(top.inputs)
        elif not (top.op == "constant" and top.scalar and not top.rank):
            leaves[top.number] = top
    return list(leaves.values())


def is_parameter(value: Value) -> Parameter | None:
    """The array of a static value that is one, of more than a plain number."""
    return parameter(value) if value.static and value.rank else None
