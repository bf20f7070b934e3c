"""How far two recordings of end points are apart, and whether that is far enough to be a difference.

A recording is {slim end point name: NHWC array}. The truth is the TF-Slim graph in float64. Its limits for a port:

- float64: 1e-12. A correct port differs in its order of summation, by about 1e-15.
- float32: 4 times the error of the TF-Slim graph itself in float32, in one run, plus 1e-6, and never more than 1e-3.
  Two correct runs round differently: a ratio of 0.9 to 1.4 is usual, and more at an end point of few numbers. Wrong
  ports (docs/catch_rate.md) are 2e-4 off and more, but for one epsilon, which only float64 shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from converters.mapping import Array

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
    """One end point. Errors are against TF-Slim in float64; they are infinite where the port's shape is another one.

    shape: TF-Slim's.
    slim_rel_l2: TF-Slim's own in float32, which `limit` follows from in that dtype.
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
            "rel_l2": _finite(self.rel_l2),
            "max_abs": _finite(self.max_abs),
            "limit": self.limit,
            "ok": self.ok,
        }
        if self.slim_rel_l2 is not None:
            data["slim_rel_l2"] = _finite(self.slim_rel_l2)
        return data


@dataclass(frozen=True)
class RoundedWeights:
    """What the converted file's dtype costs, where that holds fewer bits than the source's; no verdict depends on it.

    dtypes: of the variables that are rounded.
    variables: rel_l2 of each of them to the source's, by name with its scope.
    end_points: rel_l2 of TF-Slim with the rounded weights to TF-Slim with the source's, both in float64.
    """

    dtypes: tuple[str, ...]
    variables: Mapping[str, float]
    end_points: Mapping[str, float]

    @property
    def worst(self) -> str:
        """The end point that moved most."""
        return max(self.end_points, key=lambda name: self.end_points[name])

    def to_json(self) -> dict[str, Any]:
        return {
            "dtypes": list(self.dtypes),
            "variables": dict(self.variables),
            "end_points": {name: _finite(error) for name, error in self.end_points.items()},
            "worst": self.worst,
        }


@dataclass(frozen=True)
class Report:
    """The comparison of every end point, in the network's order, and of the weights themselves.

    One input cannot show every difference: what a ReLU holds at 0 is equal whatever its weights are. So a variable of
    the converted file that is not the source's, bit for bit, is a difference too. Where the file's dtype holds fewer
    bits, the source's weights are rounded to it, and TF-Slim runs with the rounded ones: the verdict is about the port,
    and what rounding costs stands beside it.

    judge: whose graph code the TF-Slim graph is: `slimport.nets`, or a module of `tf_slim`.
    reader: whose reader the reference's weights came through: `tensorflow`, or `slimport` for files that TensorFlow's
      own reader does not take.
    reference: the trace that TF-Slim's side came from; None if the TF-Slim graph ran here.
    rounded: where the converted file's weights are the source's, rounded.
    other: the same comparison in the other dtype, where that was measured too; it counts for the verdict.
    notes: what a reader must know of how the port's end points came about, and of both sides' variables, where they are
      not the source's as they are.
    """

    network: str
    target: str
    dtype: str
    device: str
    judge: str
    backend: str
    reader: str
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    weights_compared: int = 0
    weights_different: tuple[str, ...] = ()
    reference: str | None = None
    rounded: RoundedWeights | None = None
    other: Report | None = None
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all that was measured is equal."""
        return all(report.equal for report in self.by_dtype.values())

    @property
    def equal(self) -> bool:
        """The verdict in this dtype alone."""
        return bool(self.rows) and all(row.ok for row in self.rows) and not self.weights_different

    @property
    def by_dtype(self) -> dict[str, Report]:
        """This report and the other, float64 first."""
        both = [self] if self.other is None else [self, self.other]
        return {report.dtype: report for report in sorted(both, key=lambda report: report.dtype, reverse=True)}

    @property
    def worst(self) -> Row:
        """The row that comes closest to its limit, or exceeds it most."""
        return max(self.rows, key=lambda row: row.fraction_of_limit)

    @property
    def first_difference(self) -> str | None:
        """The first end point, in the network's order, that exceeds a limit or has a variable that differs."""
        beyond = {row.name for report in self.by_dtype.values() for row in report.rows if not row.ok}
        return next(
            (row.name for row in self.rows if row.name in beyond or row.name in self.different_by_end_point), None
        )

    @cached_property
    def different_by_end_point(self) -> dict[str, list[str]]:
        """The different variables by the end point that they belong to: the longest name that they stand under.

        What is under none, the last BatchNorm, belongs to the last end point.
        """
        names = {row.name for row in self.rows}
        found: dict[str, list[str]] = {}
        for variable in self.weights_different:
            owner = variable
            while owner and owner not in names:
                owner = owner.rpartition("/")[0]
            found.setdefault(owner or self.rows[-1].name, []).append(variable)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is not finite is null."""
        data = {
            "ok": self.ok,
            "dtype": self.dtype,
            "device": self.device,
            "target": self.target,
            "judge": self.judge,
            "network": self.network,
            "backend": self.backend,
            "reader": self.reader,
            "reference": self.reference,
            "input_shape": list(self.input_shape),
            "end_points": [row.to_json() for row in self.rows],
            "worst": self.worst.to_json(),
            "first_difference": self.first_difference,
            "weights": {"compared": self.weights_compared, "different": list(self.weights_different)},
            "rounded": self.rounded and self.rounded.to_json(),
            "notes": list(self.notes),
        }
        if self.other is not None:
            data["other"] = self.other.to_json()
        return data


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
    """TF-Slim's own rel_l2 at every end point of a run in float32."""
    return {name: rel_l2(run[name], reference) for name, reference in truth.items()}


def seeded_images(shape: tuple[int, ...], seed: int) -> Array:
    """The input of a comparison, uniform in [-1, 1].

    float32 values, so that a float32 graph and a float64 graph see the same numbers.
    """
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
