"""How far two recordings of end points are apart, and whether that is far enough to be a difference.

A recording is {slim end point name: NHWC array}. The limits are those that a correct port can be held to:

- float64: 1e-12 from the TF-Slim graph in float64. A correct port differs by its order of summation, some 1e-15.
- float32: 1.5 times TF-Slim's own float32 rounding error, both measured against the TF-Slim graph in float64, plus
1e-7.

One run of TF-Slim is one draw of its rounding error. Where an end point has few numbers that count (two logits, a
softmax with one class on top), two draws of the same size can be a factor of 3 apart by luck. TF-Slim's error is
therefore the largest of several runs, on inputs of which some pixels moved to the neighbouring float32 number: that
reshuffles every rounding in the network and adds next to nothing. Where an end point has many numbers, the draws agree
to a percent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.mapping import Array

FLOAT64_LIMIT = 1e-12
FLOAT32_RATIO = 1.5
FLOAT32_FLOOR = 1e-7


def rel_l2(array: Array, reference: Array) -> float:
    """||array - reference|| / ||reference|| over the whole end point, in float64; 0 where both are 0."""
    difference = np.linalg.norm((array.astype(np.float64) - reference.astype(np.float64)).ravel())
    if difference == 0:
        return 0.0
    with np.errstate(divide="ignore"):
        return float(difference / np.linalg.norm(reference.astype(np.float64).ravel()))


def max_abs(array: Array, reference: Array) -> float:
    """The largest absolute difference of two elements."""
    return float(np.max(np.abs(array.astype(np.float64) - reference.astype(np.float64)), initial=0.0))


@dataclass(frozen=True)
class Row:
    """One end point. Errors are against TF-Slim in float64.

    slim_rel_l2: TF-Slim's own in float32, where that is the measure.
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
    def badness(self) -> float:
        """The error as a part of its limit."""
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
class Report:
    """The comparison of every end point, in the network's order.

    reader: whose reader the reference's weights came through: `tensorflow`, or `slimport` for files that TensorFlow's
    own
      reader does not take.
    """

    network: str
    target: str
    dtype: str
    device: str
    backend: str
    reader: str
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        return bool(self.rows) and all(row.ok for row in self.rows)

    @property
    def worst(self) -> Row:
        """The row that comes closest to its limit, or exceeds it most."""
        return max(self.rows, key=lambda row: row.badness)

    @property
    def first_difference(self) -> Row | None:
        """The first end point, in the network's order, that exceeds its limit."""
        return next((row for row in self.rows if not row.ok), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is not finite is null."""
        first = self.first_difference
        return {
            "ok": self.ok,
            "dtype": self.dtype,
            "device": self.device,
            "target": self.target,
            "network": self.network,
            "backend": self.backend,
            "reader": self.reader,
            "input_shape": list(self.input_shape),
            "end_points": [row.to_json() for row in self.rows],
            "worst": self.worst.to_json(),
            "first_difference": first.name if first else None,
        }


def compare(
    port: Mapping[str, Array], truth: Mapping[str, Array], slim_errors: Mapping[str, float] | None = None
) -> tuple[Row, ...]:
    """A row for every end point of the truth.

    Args:
      port: the port's end points, NHWC.
      truth: TF-Slim's in float64.
      slim_errors: TF-Slim's own float32 rounding error by end point; None holds the port to the float64 limit.

    Raises:
      ValueError: an end point is missing, or has another shape; there is then nothing to measure.
    """
    absent = [name for name in truth if name not in port]
    added = [name for name in port if name not in truth]
    if absent or added:
        raise ValueError(f"end points differ: missing {absent[:3]}, unknown {added[:3]}")
    rows = []
    for name, reference in truth.items():
        array = port[name]
        if array.shape != reference.shape:
            raise ValueError(f"end point {name} has shape {array.shape}, TF-Slim's has {reference.shape}")
        slim_error = None if slim_errors is None else slim_errors[name]
        limit = FLOAT64_LIMIT if slim_error is None else FLOAT32_RATIO * slim_error + FLOAT32_FLOOR
        rows.append(Row(name, reference.shape, rel_l2(array, reference), max_abs(array, reference), limit, slim_error))
    return tuple(rows)


def rounding_errors(runs: Iterable[Mapping[str, Array]], truth: Mapping[str, Array]) -> dict[str, float]:
    """The largest rel_l2 of several recordings against one, by end point."""
    errors = dict.fromkeys(truth, 0.0)
    for run in runs:
        for name, reference in truth.items():
            errors[name] = max(errors[name], rel_l2(run[name], reference))
    return errors


def neighbours(images: Array, count: int, seed: int) -> Iterator[Array]:
    """`images` itself, and then copies of which one pixel value in eight moved to the next float32 up or down."""
    yield images
    generator = np.random.default_rng(seed)
    for _ in range(count - 1):
        towards = generator.choice(np.array([-np.inf, np.inf], np.float32), images.shape)
        moved = generator.integers(8, size=images.shape) == 0
        yield np.where(moved, np.nextafter(images, towards), images)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
