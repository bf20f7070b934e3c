"""Differences between the computations of two graphs. No framework is imported.

Two graphs are brought to one form first: BatchNorm and activations by themselves, padding as what it adds, nothing that
does nothing in evaluation. Then both are followed from the output back to the input, side by side.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from slimport.graph import Graph, Node, Sides
from slimport.map_sides import map_sides
from slimport.nodes import FACTORS

_KERNELS = ("conv2d", "separable_conv2d", "conv2d_transpose", "fully_connected")
_WINDOWS = ("conv2d", "separable_conv2d", "max_pool2d", "avg_pool2d")
_COMMUTATIVE = ("add", "multiply")
# What has no part in the result of an evaluation, or is compared by itself.
_IGNORED = frozenset(
    ("activation", "normalizer", "decay", "initializer", "biases_initializer", "regularized", "clipped", "source")
) | {"source_scope"}
_USUAL = {"statistics": "moving", "moving": True, "groups": 1, "rate": (1, 1)}


class Difference(NamedTuple):
    """A difference of one layer, by its scope in the first graph: `("conv1", "stride 1")`."""

    scope: str
    what: str


@dataclass(frozen=True)
class _Piece:
    """One step of a computation: a kernel, a BatchNorm, an activation, an operation."""

    kind: str
    scope: str
    inputs: tuple[int, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


def differences(known: Graph, other: Graph, image: Sides | None = None) -> tuple[Difference, ...]:
    """The differences of `other` from `known`, from the output to the input; none if both compute the same.

    The values of variables, and branches that the output does not need, are not looked at.

    Args:
      image: the height and width of the images, where both are compared for one size: a pool of the whole map is a
        mean then, and to resize to a number is to resize to a map of so many pixels. None is images of any size.
    """
    return tuple(dict.fromkeys(_compare(_Form(known, image), _Form(other, image))))


def describe(found: Sequence[Difference]) -> str:
    """Differences in words, those of one kind counted: `BatchNorm epsilon 0.001 in 53 layers, conv1 stride 1`."""
    scopes: dict[str, list[str]] = {}
    for difference in found:
        scopes.setdefault(difference.what, []).append(difference.scope)
    return ", ".join(
        f"{what} in {len(where)} layers" if len(where) > 1 else f"{where[0]} {what}".strip()
        for what, where in scopes.items()
    )


class _Form:
    """A graph as pieces; `values` has the piece that gives each node's value."""

    def __init__(self, graph: Graph, image: Sides | None) -> None:
        self.graph = graph
        self.sides = map_sides(graph, image) if image else [None] * len(graph.nodes)
        self.pieces: list[_Piece] = []
        self.values: dict[int, int] = {}
        for index in sorted(graph.needed):
            node = graph.nodes[index]
            self.values[index] = self._add_node(node, tuple(self.values[i] for i in node.inputs), self.sides[index])
        self.output = self.values[graph.output]

    def anchor(self, piece: int) -> str:
        """Where a value comes from: the scopes of the next kernels before it."""
        found = self.pieces[piece]
        if found.kind in (*_KERNELS, "BatchNorm") or not found.inputs:
            return found.scope
        return "+".join(sorted(self.anchor(i) for i in found.inputs[:2]))

    def _put(self, kind: str, scope: str, inputs: tuple[int, ...], settings: Mapping[str, Any]) -> int:
        self.pieces.append(_Piece(kind, scope, inputs, settings))
        return len(self.pieces) - 1

    def _add_node(self, node: Node, inputs: tuple[int, ...], sides: Sides | None) -> int:
        value = self._add_operation(node, inputs, sides)
        if node.op != "batch_norm" and node.normalizer is not None and node.op != "instance_norm":
            value = self._put("BatchNorm", node.scope, (value,), _settings(node.normalizer))
        if node.activation:
            value = self._put("activation", node.scope, (value,), {"activation": _activation(node)})
        return value

    def _add_operation(self, node: Node, inputs: tuple[int, ...], sides: Sides | None) -> int:
        a = node.attributes
        if node.op == "input":
            return self._put("input", node.scope, (), {"channels": node.channels})
        if node.op in ("dropout", "activation"):
            return inputs[0]
        if node.op == "batch_norm":
            return self._put("BatchNorm", node.scope, inputs, _settings(a))
        before = self.pieces[inputs[0]] if inputs else None
        if node.op == "bias_add" and before and before.kind in _KERNELS and not before.settings.get("biases"):
            self.pieces.append(replace(before, settings={**before.settings, "biases": True}))
            return len(self.pieces) - 1
        if node.op == "reduce" and a["function"] == "mean" and a["axes"] in ((1, 2), (-3, -2)):
            mean = self._put("mean", node.scope, inputs, {})
            return mean if a["keep_dims"] else self._put("squeeze", node.scope, (mean,), {})
        if node.op in ("squeeze", "flatten", "reshape") and self._is_vector(node):
            return inputs[0] if self._is_squeezed(inputs[0]) else self._put("squeeze", node.scope, inputs, {})
        if node.op == "avg_pool2d" and (pooled := self.sides[node.inputs[0]]) and a["padding"] == "VALID":
            if node.window(pooled) == pooled:
                return self._put("mean", node.scope, inputs, {})
            a = {**a, "kernel_size": node.window(pooled)}
        settings = _settings(a)
        if node.op == "resize" and sides:
            # Other maps are inputs for their sides alone.
            settings, inputs = {**settings, "size": sides, "factor": None}, inputs[:1]
        if node.op in _WINDOWS:
            settings = {**settings, "padding": _padding(a)}
            if a["padding"] == "VALID" and before and (zeros := _zeros(before)):
                settings, inputs = {**settings, "padding": zeros}, before.inputs[:1]
            if node.op == "avg_pool2d" and a["kernel_size"] == (1, 1):
                return self._put("max_pool2d", node.scope, inputs, settings)
        if node.op in _KERNELS:
            settings = {**settings, "channels": node.channels}
        return self._put(node.op, node.scope, inputs, settings)

    def _is_squeezed(self, piece: int) -> bool:
        """Whether a value has no sides any more."""
        found = self.pieces[piece]
        if found.kind in ("BatchNorm", "activation"):
            return self._is_squeezed(found.inputs[0])
        return found.kind in ("squeeze", "fully_connected")

    def _is_vector(self, node: Node) -> bool:
        """Whether a map of 1x1 loses its sides."""
        before = self.graph.nodes[node.inputs[0]]
        if node.op == "squeeze":
            return bool(node.attributes.get("axes", (1, 2)) == (1, 2))
        is_point = before.stride is None or self.sides[node.inputs[0]] == (1, 1)
        return is_point and before.channels == node.channels != 0


def _settings(attributes: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in attributes.items() if name not in _IGNORED}
    while found.get("slices") and found["slices"][-1] is None:
        found["slices"] = found["slices"][:-1]
    return {name: value for name, value in found.items() if _USUAL.get(name) != value}


def _activation(node: Node) -> tuple[Any, ...]:
    if node.activation == "relu_n" and node.activation_numbers == (6.0,):
        return ("relu6",)
    usual = (FACTORS[node.activation],) if node.activation in FACTORS else ()
    return (node.activation, *(node.activation_numbers or usual))


def _padding(attributes: Mapping[str, Any]) -> Any:
    """The zeros before and after the sides, or SAME where that depends on them."""
    padding, extents = attributes["padding"], _extents(attributes)
    if padding == "VALID" or all(extent == 1 for extent in extents):
        return ((0, 0), (0, 0)) if isinstance(padding, str) else padding
    if padding == "SAME" and all(side == 1 for side in attributes["strides"]):
        pads = tuple(((extent - 1) // 2, extent // 2) for extent in extents)
        # A pool does not see what SAME pads, and sees the zeros of a pad before it.
        return pads if "biases" in attributes else ("SAME", *pads)
    return padding


def _extents(attributes: Mapping[str, Any]) -> list[int]:
    rates = attributes.get("rate", (1, 1))
    return [rate * (side - 1) + 1 for rate, side in zip(rates, attributes["kernel_size"], strict=True)]


def _zeros(piece: _Piece) -> Any:
    """The zeros that a pad puts around maps; None for any other piece."""
    a = piece.settings
    if piece.kind != "pad" or a["mode"] != "constant" or a["value"] != 0 or len(a["paddings"]) != 4:
        return None
    return a["paddings"][1:3] if a["paddings"][0] == a["paddings"][3] == (0, 0) else None


def _compare(known: _Form, other: _Form) -> Iterator[Difference]:
    pending, seen = [(known.output, other.output)], set()
    while pending:
        pair = pending.pop()
        if pair in seen:
            continue
        seen.add(pair)
        one, two = known.pieces[pair[0]], other.pieces[pair[1]]
        if one.kind == two.kind:
            if one.kind in (*_KERNELS, "BatchNorm") and not _alike(one.scope, two.scope):
                yield Difference(one.scope, f"taken from {two.scope}")
            yield from (Difference(one.scope, what) for what in _changed(one, two))
            if len(one.inputs) != len(two.inputs):
                yield Difference(one.scope, f"{len(two.inputs)} inputs")
            pending += _paired(known, other, one, two)
        elif one.kind in _PASSED and (two.kind not in _PASSED or _PASSED.index(one.kind) < _PASSED.index(two.kind)):
            yield Difference(one.scope, f"no {one.kind}")
            pending.append((one.inputs[0], pair[1]))
        elif two.kind in _PASSED:
            yield Difference(one.scope, _words(two))
            pending.append((pair[0], two.inputs[0]))
        else:
            yield Difference(one.scope, f"{two.kind} ({two.scope}) for {one.kind}")


_PASSED = ("softmax", "squeeze", "activation", "BatchNorm", "scale", "pad", "max_pool2d", "mean")
"""Ops that one graph may have more than the other: the comparison goes on behind them."""


def _words(piece: _Piece) -> str:
    """A piece that is there in addition."""
    if piece.kind == "activation":
        return _spelled(piece.settings["activation"])
    if piece.kind == "pad":
        return f"padded {piece.settings['paddings']}"
    return f"{piece.kind} ({piece.scope}) behind it"


def _alike(one: str, two: str) -> bool:
    return one == two or one.removesuffix("/BatchNorm") == two.removesuffix("/BatchNorm")


def _paired(known: _Form, other: _Form, one: _Piece, two: _Piece) -> list[tuple[int, int]]:
    """The inputs of two pieces, those of a sum by where they come from."""
    first, second = list(one.inputs), list(two.inputs)
    if one.kind in _COMMUTATIVE and sorted(map(known.anchor, first)) == sorted(map(other.anchor, second)):
        first, second = sorted(first, key=known.anchor), sorted(second, key=other.anchor)
    return list(zip(first, second, strict=False))


def _changed(one: _Piece, two: _Piece) -> Iterator[str]:
    """The different settings of a piece, in words."""
    for name in dict.fromkeys((*one.settings, *two.settings)):
        old, new = (piece.settings.get(name, _USUAL.get(name)) for piece in (one, two))
        if _rounded(old) != _rounded(new):
            prefix = "BatchNorm " if one.kind == "BatchNorm" else ""
            yield prefix + (_SAID[name](new) if name in _SAID else f"{name} {_spelled(new)}")


def _rounded(value: Any) -> Any:
    """A number as float32 has it, since a TensorFlow graph keeps no other."""
    if isinstance(value, tuple):
        return tuple(map(_rounded, value))
    return struct.unpack("f", struct.pack("f", value))[0] if isinstance(value, float) else value


def _spelled(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, tuple) and len(set(value)) == 1:
        return str(value[0])
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _padded(padding: Any) -> str:
    if padding == "SAME" or padding[0] == "SAME":
        return "SAME"
    if padding == ((0, 0), (0, 0)):
        return "VALID"
    return f"padded {_spelled(padding)} and VALID"


_SAID: dict[str, Any] = {
    "activation": _spelled,
    "padding": _padded,
    "strides": lambda value: f"stride {_spelled(value)}",
    "kernel_size": lambda value: f"kernel {'x'.join(map(str, value))}",
    "biases": lambda value: "biases" if value else "no biases",
    "scale": lambda value: f"{'with' if value else 'without'} gamma",
    "center": lambda value: f"{'with' if value else 'without'} beta",
    "statistics": lambda value: f"by the {'batch' if value == 'batch' else 'moving average'}'s statistics",
}
