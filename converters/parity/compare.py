"""Compares two recordings of end points, and decides what is a difference.

A recording is {slim end point name: NHWC array}. The truth is the TF-Slim graph in float64. Its limits for a port:

- float64: 1e-12. A correct port differs in its order of summation, by about 1e-15.
- float32: 4 times the error of the TF-Slim graph itself in float32, in one run, plus 1e-6, and never more than 1e-3.
  Two correct runs round differently: a ratio of 0.9 to 1.4 is usual, and more at an end point of few numbers. Wrong
  ports (docs/catch_rate.md) are 2e-4 off and more, but for one epsilon, which only float64 shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.variables import Array

FLOAT64_LIMIT = 1e-12
FLOAT32_RATIO, FLOAT32_FLOOR, FLOAT32_CAP = 4, 1e-6, 1e-3
FLOAT32_RULE = (
    f"{FLOAT32_RATIO} times TF-Slim's own float32 rounding, plus {FLOAT32_FLOOR:.0e}, at most {FLOAT32_CAP:.0e}"
)


def rel_l2(array: Array, reference: Array) -> float:
    """||array - reference|| / ||reference|| over the whole end point, in float64.

    0 where both are 0, and infinite where the shapes differ.
    """
    if array.shape != reference.shape:
        return float("inf")
    difference = np.linalg.norm((array.astype(np.float64) - reference.astype(np.float64)).ravel())
    if difference == 0:
        return 0.0
    with np.errstate(divide="ignore"):
        return float(difference / np.linalg.norm(reference.astype(np.float64).ravel()))


def max_abs(array: Array, reference: Array) -> float:
    """The largest absolute difference of two elements; infinite where the shapes differ."""
    if array.shape != reference.shape:
        return float("inf")
    return float(np.max(np.abs(array.astype(np.float64) - reference.astype(np.float64)), initial=0.0))


@dataclass(frozen=True)
class Row:
    """One end point. Errors are against TF-Slim in float64, and infinite where the port's shape is another.

    shape: TF-Slim's.
    slim_rel_l2: TF-Slim's own in float32, from which `limit` follows in that dtype.
    """

    name: str
    shape: tuple[int, ...]
    rel_l2: float
    max_abs: float
    limit: float
    slim_rel_l2: float | None = None

    @property
    def ok(self) -> bool:
        # Written so that NaN is a difference.
        return self.rel_l2 <= self.limit

    @property
    def ratio(self) -> float | None:
        """The port's error over TF-Slim's own rounding."""
        return self.rel_l2 / self.slim_rel_l2 if self.slim_rel_l2 else None

    @property
    def fraction_of_limit(self) -> float:
        """The error over its limit; infinite where it is NaN."""
        return self.rel_l2 / self.limit if self.rel_l2 == self.rel_l2 else float("inf")

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "name": self.name,
            "shape": list(self.shape),
            "rel_l2": finite(self.rel_l2),
            "max_abs": finite(self.max_abs),
            "limit": self.limit,
            "ok": self.ok,
        }
        if self.slim_rel_l2 is not None:
            data["slim_rel_l2"] = finite(self.slim_rel_l2)
        return data


@dataclass(frozen=True)
class Comparison:
    """All end points in one dtype, in the network's order, and what the model returns."""

    rows: tuple[Row, ...]
    returned: tuple[Row, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there are end points, and all are within their limits, as is what the model returns."""
        return bool(self.rows) and all(row.ok for row in (*self.rows, *self.returned))

    @property
    def beyond(self) -> tuple[Row, ...]:
        """The rows beyond their limits."""
        return tuple(row for row in self.rows if not row.ok)

    @property
    def returned_beyond(self) -> tuple[Row, ...]:
        """Of what the model returns, the rows beyond their limits."""
        return tuple(row for row in self.returned if not row.ok)

    @property
    def worst(self) -> Row:
        """The row that comes closest to its limit, or exceeds it most."""
        return max(self.rows, key=lambda row: row.fraction_of_limit)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is not finite is null."""
        return {
            "end_points": [row.to_json() for row in self.rows],
            "worst": self.worst.to_json(),
            "returned": [row.to_json() for row in self.returned],
        }


def compare(
    port: Mapping[str, Array], truth: Mapping[str, Array], rounding: Mapping[str, float] | None = None
) -> tuple[Row, ...]:
    """A row for every end point of the truth.

    Args:
      port: the port's end points, NHWC.
      truth: TF-Slim's in float64.
      rounding: TF-Slim's own rel_l2 in float32, for float32's limits; None is float64's.

    Raises:
      ValueError: an end point is missing or unknown; there is then nothing to measure.
    """
    absent = [name for name in truth if name not in port]
    added = [name for name in port if name not in truth]
    if absent or added:
        raise ValueError(f"the end points are not TF-Slim's: missing {absent[:3]}, unknown {added[:3]}")
    rows = []
    for name, reference in truth.items():
        slim = None if rounding is None else rounding[name]
        # In this order, the limit is the cap where TF-Slim's own error is NaN.
        limit = FLOAT64_LIMIT if slim is None else min(FLOAT32_CAP, FLOAT32_RATIO * slim + FLOAT32_FLOOR)
        errors = rel_l2(port[name], reference), max_abs(port[name], reference)
        rows.append(Row(name, reference.shape, *errors, limit, slim))
    return tuple(rows)


def rounding_of(run: Mapping[str, Array], truth: Mapping[str, Array]) -> dict[str, float]:
    """TF-Slim's own rounding at every end point of a run in float32: its rel_l2.

    Of probabilities, it is not less than the root mean square of their relative errors, which is the rounding of the
    logits: one or two of them make up rel_l2, and may be right by chance.
    """
    found = {name: rel_l2(run[name], reference) for name, reference in truth.items()}
    for name, reference in truth.items():
        if _are_probabilities(reference) and run[name].shape == reference.shape:
            found[name] = max(found[name], _rms_relative(run[name], reference))
    return found


def _are_probabilities(array: Array) -> bool:
    """Whether the numbers of the last axis are not negative and add up to 1."""
    several = array.ndim > 1 and array.shape[-1] > 1 and array.size > 0
    return several and bool(array.min() >= 0) and bool(np.allclose(array.sum(-1), 1, atol=1e-9, rtol=0))


def _rms_relative(array: Array, reference: Array) -> float:
    found, wanted = array.astype(np.float64), reference.astype(np.float64)
    # Smaller ones are no normal numbers in float32.
    kept = wanted > 1e-30
    errors = found[kept] / wanted[kept] - 1
    return float(np.sqrt(np.mean(errors**2))) if errors.size else 0.0


def finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if np.isfinite(value) else None
