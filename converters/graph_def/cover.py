"""Groups the values of a graph into layers: a kernel with its bias, BatchNorm and activation is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from converters.graph_def import patterns, statistics
from converters.graph_def.evaluate import Evaluator
from converters.graph_def.parameters import parameter
from converters.graph_def.patterns import Match
from converters.graph_def.values import Value

KERNELS = ("conv2d", "depthwise", "conv2d_transpose", "fully_connected")
"""The values that layers with a kernel are made of."""


@dataclass
class Layer:
    """Values that become one layer, or one word of the vocabulary.

    root: the value that it gives.
    data: what it takes.
    kernel: the value of the kernel's op, and the depthwise one before it where the layer is a separable convolution.
    """

    root: Value
    data: tuple[Value, ...]
    kernel: Value | None = None
    depthwise: Value | None = None
    bias: Value | None = None
    norm: Match | None = None
    activation: Match | None = None
    interior: set[int] = field(default_factory=set)


class Cover:
    """The layers of what some values depend on, in an order in which they can run."""

    def __init__(self, context: Evaluator, outputs: Iterable[Value]) -> None:
        self.context = context
        self.outputs = list(outputs)
        self.users = _users(self.outputs)
        self.layers: list[Layer] = []
        pending = list(self.outputs)
        done: set[int] = set()
        while pending:
            value = pending.pop()
            if value.number in done or value.static:
                continue
            done.add(value.number)
            layer = self._layer(value)
            self.layers.append(layer)
            pending.extend(layer.data)
        self.layers.sort(key=lambda layer: layer.root.number)

    def _private(self, value: Value, interior: Iterable[int]) -> bool:
        """Whether nothing outside a layer takes a value that is within it."""
        return self.users.get(value.number, set()) <= set(interior)

    def _inner(self, match: Match) -> bool:
        """Whether all that a recognised layer replaces is its own."""
        end = max(match.interior)
        return all(self.users.get(number, set()) <= match.interior for number in match.interior if number != end)

    def _layer(self, value: Value) -> Layer:
        found = patterns.activation(value)
        if found is not None and self._inner(found):
            if found.kind == "activation" and self._private(found.data, found.interior) and not found.data.static:
                before = self._normalized(found.data)
                if before is not None:
                    before.activation, before.root = found, value
                    return before
            return Layer(value, (found.data,), activation=found, interior=set(found.interior))
        scaled = patterns.l2_normalization(value)
        if scaled is not None and self._inner(scaled):
            return Layer(value, (scaled.data,), activation=scaled, interior=set(scaled.interior))
        return self._normalized(value) or Layer(value, tuple(other for other in value.inputs if not other.static))

    def _normalized(self, value: Value) -> Layer | None:
        norm = patterns.normalization(value)
        if norm is None or not self._inner(norm):
            return self._biased(value)
        norm = self._evaluated(norm)
        if norm.kind == "batch_norm" and self._private(norm.data, norm.interior):
            before = self._biased(norm.data)
            if before is not None and before.kernel is not None:
                before.norm, before.root = norm, value
                return before
        return Layer(value, (norm.data,), norm=norm)

    def _evaluated(self, norm: Match) -> Match:
        """In evaluation, the moving averages in the place of the batch's statistics, where the graph keeps them."""
        if norm.settings.get("statistics") != "batch" or "mean" not in norm.settings or self.context.mode != "eval":
            return norm
        means = [statistics.average(self.context, norm.settings[part].node) for part in ("mean", "variance")]
        found = [average for average in means if average is not None]
        if len(found) < 2:
            return norm
        self.context.notes[statistics.NOTE] = None
        for part, (variable, _) in zip(("mean", "variance"), found, strict=True):
            self.context.averages[norm.settings[part].number] = variable
        settings = {**norm.settings, "statistics": "moving", "decay": found[0][1]}
        leaves = {**norm.parameters, "moving_mean": found[0][0], "moving_variance": found[1][0]}
        return Match(norm.kind, norm.data, norm.interior, settings, leaves)

    def _biased(self, value: Value) -> Layer | None:
        """A kernel's op with or without its bias, or a bias by itself."""
        if value.op in KERNELS and parameter(value.inputs[1]) is not None:
            return self._kernel(value)
        if value.op != "elementwise" or value.attrs["function"] != "add" or len(value.inputs) != 2:
            return None
        data, bias = value.inputs if value.inputs[1].static else value.inputs[::-1]
        if data.static or not _is_bias(data, bias):
            return None
        if data.op in KERNELS and self._private(data, {value.number}) and parameter(data.inputs[1]) is not None:
            layer = self._kernel(data)
            layer.root, layer.bias = value, bias
            return layer
        return Layer(value, (data,), bias=bias)

    def _kernel(self, value: Value) -> Layer:
        data = value.inputs[0]
        if value.op == "conv2d" and data.op == "depthwise" and self._private(data, {value.number}):
            kernels = [parameter(link.inputs[1]) for link in (data, value)]
            names = [kernel.name.rpartition("/") for kernel in kernels if kernel is not None]
            plain = value.attrs["strides"] == value.attrs["rate"] == (1, 1) and value.inputs[1].shape is not None
            one = value.inputs[1].shape is not None and value.inputs[1].shape[:2] == (1, 1)
            pads = value.attrs["padding"] in ("SAME", "VALID")
            if len(names) == 2 and names[0][0] == names[1][0] and names[0][0] and plain and one and pads:
                return Layer(value, data.inputs[:1], kernel=value, depthwise=data)
        return Layer(value, (data,), kernel=value)


def _is_bias(data: Value, bias: Value) -> bool:
    """Whether a static value is one number for each channel of the data."""
    found = parameter(bias)
    if found is None or not bias.shape or not data.rank or data.rank < 2 or data.channels is None:
        return False
    return found.size == data.channels == bias.shape[-1] and len(bias.shape) <= data.rank


def _users(outputs: Sequence[Value]) -> dict[int, set[int]]:
    """The numbers of the values that take each value; an output is taken by 0 as well."""
    users: dict[int, set[int]] = {value.number: {0} for value in outputs}
    pending, seen = list(outputs), set()
    while pending:
        value = pending.pop()
        if value.number in seen:
            continue
        seen.add(value.number)
        for other in value.inputs:
            if not other.static:
                users.setdefault(other.number, set()).add(value.number)
                pending.append(other)
    return users
