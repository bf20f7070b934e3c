"""Tensors of a graph as symbolic values: what makes them, their shapes, and their numbers where these are known.

A side of a shape is an int, or a `Size`: an expression in sides that are known when the network runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.graph_def.proto import Array


@dataclass(frozen=True)
class Axis:
    """The size of one axis of a value; of any input, axis 0 is the batch."""

    value: int
    axis: int


@dataclass(frozen=True)
class Quotient:
    """A size over a number, rounded down."""

    size: Size
    divisor: int


@dataclass(frozen=True)
class Product:
    """The product of two sizes."""

    one: Size
    other: Size


@dataclass(frozen=True)
class Size:
    """`sum of factor * term, + constant`: whole numbers in terms that are known when the network runs."""

    terms: tuple[tuple[Term, int], ...]
    constant: int = 0

    @staticmethod
    def of(term: Term) -> Size:
        """The size that is one term."""
        return Size(((term, 1),))

    def __add__(self, other: Any) -> Any:
        other = _as_size(other)
        if other is None:
            return NotImplemented
        terms = dict(self.terms)
        for term, factor in other.terms:
            terms[term] = terms.get(term, 0) + factor
        return _simple(terms, self.constant + other.constant)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Size):
            return Size.of(Product(*sorted((self, other), key=repr)))
        if other != int(other):
            raise UnknownSizeError(f"a size times {other}")
        other = int(other)
        return _simple({term: factor * other for term, factor in self.terms}, self.constant * other)

    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, Size):
            if other == self:
                return 1
            return _quotient(self, other)
        if other != int(other) or other <= 0:
            raise UnknownSizeError(f"a size over {other}")
        other = int(other)
        if all(factor % other == 0 for _, factor in self.terms):
            return _simple({term: factor // other for term, factor in self.terms}, self.constant // other)
        return Size.of(Quotient(self, other))

    def __mod__(self, other: Any) -> Any:
        return self - (self // other) * other

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return self + -other

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__


Term = Axis | Quotient | Product
Dim = int | Size
BATCH = Size.of(Axis(0, 0))
"""The size of axis 0 of every input that has a batch."""
Shape = tuple[Dim, ...]


def _quotient(size: Size, divisor: Size) -> Dim:
    """The product without one factor."""
    if len(size.terms) == 1 and not size.constant and isinstance(term := size.terms[0][0], Product):
        factor = size.terms[0][1]
        if divisor in (term.one, term.other):
            return (term.other if divisor == term.one else term.one) * factor  # type: ignore[no-any-return]
    if len(size.terms) == len(divisor.terms) == 1 and not size.constant and not divisor.constant:
        (a, by_a), (b, by_b) = size.terms[0], divisor.terms[0]
        if a == b and by_a % by_b == 0:
            return by_a // by_b
    raise UnknownSizeError("a quotient of two sizes")


class UnknownSizeError(ValueError):
    """Arithmetic with sizes that has no expression here."""


def _as_size(value: Any) -> Size | None:
    if isinstance(value, Size):
        return value
    return Size((), int(value)) if isinstance(value, int | np.integer) else None


def _simple(terms: dict[Term, int], constant: int) -> Dim:
    left = tuple((term, factor) for term, factor in terms.items() if factor)
    return Size(tuple(sorted(left, key=repr)), constant) if left else constant


def known(shape: Sequence[Dim] | None) -> bool:
    """Whether all sides are numbers."""
    return shape is not None and all(isinstance(side, int) for side in shape)


def product(sides: Sequence[Dim]) -> Dim:
    """The product of sides."""
    result: Any = 1
    for side in sorted(sides, key=lambda side: isinstance(side, Size)):
        result = result * side
    return result  # type: ignore[no-any-return]


@dataclass(eq=False)
class Value:
    """One tensor.

    op: what makes it; `constant`, `variable` and `input` are made by nothing.
    shape: None where not even the rank is known.
    node: the name of the node in the TensorFlow graph.
    data: its elements where they are known; of sizes, an array of objects.
    number: later ones depend on earlier ones only.
    static: whether it depends on constants and variables alone.
    doubtful: whether it depends on an op that has no counterpart, so that its shape is a guess.
    """

    op: str
    inputs: tuple[Value, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)
    shape: Shape | None = None
    node: str = ""
    data: Array | None = None
    number: int = field(default=0)
    static: bool = False
    doubtful: bool = False

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    @property
    def scalar(self) -> bool:
        """Whether it has one element, whatever its rank."""
        return self.shape is not None and known(self.shape) and math.prod(self.shape) == 1

    @property
    def channels(self) -> int | None:
        """The size of the last axis where it is a number."""
        last = self.shape[-1] if self.shape else None
        return last if isinstance(last, int) else None

    def __repr__(self) -> str:
        return f"<{self.number} {self.op} {self.node} {self.shape}>"
