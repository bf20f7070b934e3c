"""How far two recordings of end points are apart, and whether that is far enough to be a difference.

A recording is {slim end point name: NHWC array}. The limits are those that a correct port can be held to:

- float64: 1e-12 from the TF-Slim graph in float64. A correct port differs by its order of summation, some 1e-15.
- float32: 1.5 times TF-Slim's own float32 rounding error, both measured against the TF-Slim graph in float64, plus
  1e-7.

One run of TF-Slim is one draw of its rounding error. Where an end point has few numbers that count (two logits, a
softmax with one class on top), two draws of the same size can be a factor of 3 apart by luck. TF-Slim's error is
therefore the largest of as many runs as it takes, up to a bound, on inputs of which some pixels moved to the
neighbouring float32 number: that reshuffles every rounding in the network and adds next to nothing. Where an end point
has many numbers, the draws agree to some percent, and more runs change nothing.

The port's error is one draw as well. Where it is beyond the limit by so little that it may be luck, the port runs on
such inputs too, and the sizes of both errors are compared: their root mean squares, with the same limit. At
`predictions`, luck is also the direction of the logits' error, which such inputs do not always change: see `by_logits`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from converters.mapping import Array

FLOAT64_LIMIT = 1e-12
FLOAT32_RATIO = 1.5
FLOAT32_FLOOR = 1e-7
ROUNDING_RUNS = 64
TYPICAL_RUNS = 16
LUCK = 2
"""How far beyond its limit, as a factor, one draw of an error can be whose size is within it."""


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
    slim_rel_l2: TF-Slim's own in float32, where that is the measure.
    inputs: over how many inputs `rel_l2` and `slim_rel_l2` are root mean squares; 1 is the input itself.
    of_logits: whether `slim_rel_l2` is what TF-Slim's error of the logits can become here.
    """

    name: str
    shape: tuple[int, ...]
    rel_l2: float
    max_abs: float
    limit: float
    slim_rel_l2: float | None = None
    inputs: int = 1
    of_logits: bool = False

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
        if self.inputs > 1:
            data["inputs"] = self.inputs
        if self.of_logits:
            data["of_logits"] = True
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
        return max(self.rows, key=lambda row: row.badness)

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


def compare(port: Mapping[str, Array], truth: Mapping[str, Array]) -> tuple[Row, ...]:
    """A row for every end point of the truth, with float64's limit.

    Args:
      port: the port's end points, NHWC.
      truth: TF-Slim's in float64.

    Raises:
      ValueError: an end point is missing or unknown; there is then nothing to measure.
    """
    absent = [name for name in truth if name not in port]
    added = [name for name in port if name not in truth]
    if absent or added:
        raise ValueError(f"the end points are not TF-Slim's: missing {absent[:3]}, unknown {added[:3]}")
    return tuple(
        Row(name, reference.shape, rel_l2(port[name], reference), max_abs(port[name], reference), FLOAT64_LIMIT)
        for name, reference in truth.items()
    )


def compare_float32(
    port: Mapping[str, Array],
    truth: Mapping[str, Array],
    run_slim: Callable[[Array, list[str]], Mapping[str, Array]],
    inputs: Iterable[Array],
) -> tuple[Row, ...]:
    """`compare` in float32, with as many of TF-Slim's runs as it takes for every end point to be within its limit.

    The verdict is that of all the runs together: what is within a limit is within any larger one.

    Args:
      port: the port's end points, NHWC.
      truth: TF-Slim's in float64.
      run_slim: (images, names) to TF-Slim's end points of these names, in float32.
      inputs: `neighbours` of the images; an end point that is beyond its limit after the last is a difference.

    Raises:
      ValueError: as `compare`.
    """

    def rounding(images: Array, names: list[str]) -> dict[str, float]:
        run = run_slim(images, names)
        return {name: rel_l2(run[name], truth[name]) for name in names}

    return within_rounding(compare(port, truth), (partial(rounding, images) for images in inputs))


def within_rounding(
    compared: Iterable[Row], runs: Iterable[Callable[[list[str]], Mapping[str, float]]]
) -> tuple[Row, ...]:
    """Rows with float32's limits, from as many of TF-Slim's runs as it takes.

    Args:
      compared: rows of a port that computed in float32.
      runs: each from the names of end points to TF-Slim's own rel_l2 in float32 there.
    """
    rows = {row.name: row for row in compared}
    errors = dict.fromkeys(rows, 0.0)
    beyond = list(rows)
    for rounding in runs:
        errors |= {name: max(errors[name], error) for name, error in rounding(beyond).items()}
        beyond = [name for name in beyond if not rows[name].rel_l2 <= _float32_limit(errors[name])]
        if not beyond:
            break
    return tuple(
        replace(row, limit=_float32_limit(errors[row.name]), slim_rel_l2=errors[row.name]) for row in rows.values()
    )


def by_typical_error(row: Row, errors: Sequence[float], slim_errors: Sequence[float]) -> Row:
    """A row that is beyond float32's limit, measured by the size of both errors: their root mean square over inputs.

    It stays as it is if it is beyond the limit by this measure too.

    Args:
      row: as `within_rounding` left it.
      errors: the port's rel_l2 on as many inputs as in `slim_errors`.
      slim_errors: TF-Slim's own in float32, on the same.
    """
    typical, slim = (float(np.sqrt(np.mean(np.square(each)))) for each in (errors, slim_errors))
    measured = replace(row, rel_l2=typical, limit=_float32_limit(slim), slim_rel_l2=slim, inputs=len(errors))
    return measured if measured.ok else row


def is_softmax(name: str) -> bool:
    """Whether an end point is the softmax of the logits: ResNet's `predictions`, Inception's `Predictions`."""
    return name in ("predictions", "Predictions")


def by_logits(predictions: Row, logits: Row, truth: Mapping[str, Array]) -> Row:
    """The row of `predictions` that is beyond float32's limit, measured by what TF-Slim's error of the logits can do.

    Softmax turns an error of the logits into one that depends on its direction as much as on its size: with one or two
    classes on top, one or two differences of logits decide. TF-Slim's own error there is small by luck as often as the
    port's is large. The norm of softmax's derivative, diag(p) - p p^T, is at most twice the largest p (1 - p)
    (Gershgorin), so that is what TF-Slim's error of the logits becomes in the worst direction.

    It stays as it is if it is beyond the limit by this measure too, or if the logits are.
    """
    p = truth[predictions.name].astype(np.float64)
    gain = 2 * float(np.max(p * (1 - p))) * np.linalg.norm(truth[logits.name]) / np.linalg.norm(p)
    carried = float(gain * (logits.slim_rel_l2 or 0.0))
    measured = replace(predictions, limit=_float32_limit(carried), slim_rel_l2=carried, of_logits=True)
    return measured if logits.ok and measured.ok else predictions


def _float32_limit(slim_error: float) -> float:
    return FLOAT32_RATIO * slim_error + FLOAT32_FLOOR


def seeded_images(shape: tuple[int, ...], seed: int) -> Array:
    """The input of a comparison, uniform in [-1, 1].

    float32 values, so that a float32 graph and a float64 graph see the same numbers.
    """
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


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
