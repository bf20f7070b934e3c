"""Sizes that depend on other sizes: the height of a crop, the shape of a reshape. No framework is imported.

A size is a number, or nested tuples, which JSON holds as they are: `("times", ("size", 0, 1), 2)` is twice the height
of a layer's first input. Axes are TensorFlow's, [batch, height, width, channels].
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

Size = int | tuple[Any, ...]
Number = int | float

OPERATIONS: dict[str, Callable[..., Any]] = {
    "plus": operator.add,
    "minus": operator.sub,
    "times": operator.mul,
    "divide": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "larger": max,
    "smaller": min,
    "truncate": math.trunc,
}


def size(index: int, axis: int) -> Size:
    """The size of an axis of a layer's input number `index`."""
    return ("size", index, axis)


def plus(a: Size, b: Size | float) -> Size:
    """Their sum, as the functions that follow are what their names say."""
    return ("plus", a, b)


def minus(a: Size, b: Size | float) -> Size:
    return ("minus", a, b)


def times(a: Size, b: Size | float) -> Size:
    return ("times", a, b)


def divide(a: Size, b: Size | float) -> Size:
    """The quotient, a floating-point number, for `truncate`."""
    return ("divide", a, b)


def floordiv(a: Size, b: Size | float) -> Size:
    return ("floordiv", a, b)


def mod(a: Size, b: Size | float) -> Size:
    return ("mod", a, b)


def larger(a: Size, b: Size | float) -> Size:
    return ("larger", a, b)


def smaller(a: Size, b: Size | float) -> Size:
    return ("smaller", a, b)


def truncate(a: Size) -> Size:
    """The whole number towards 0."""
    return ("truncate", a)


def evaluate(
    wanted: Any, axis_size: Callable[[int, int], Any], operations: Mapping[str, Callable[..., Any]] = OPERATIONS
) -> Any:
    """A size as a number.

    Args:
      wanted: the size.
      axis_size: the size of an axis of an input, by the input's number and the axis.
      operations: for numbers of another kind, such as symbols in an exported program.

    Raises:
      ValueError: no size has this form.
    """
    if not isinstance(wanted, tuple):
        return wanted
    word, *arguments = wanted
    if word == "size":
        return axis_size(*arguments)
    if word not in operations:
        raise ValueError(f"no size is made by {word!r}; there are size, {', '.join(operations)}")
    return operations[word](*(evaluate(argument, axis_size, operations) for argument in arguments))
