"""The result of `verify`, with everything that its text, its plot and its page say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from converters.parity.compare import Comparison, Row, finite


@dataclass(frozen=True)
class Named:
    """A file or folder by the name that was given, or a model in memory, with the SHA-256 of each file."""

    name: str
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundedWeights:
    """The cost of the converted file's dtype, where it has fewer bits than the source's; no verdict depends on it.

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
            "end_points": {name: finite(error) for name, error in self.end_points.items()},
            "worst": self.worst,
        }


@dataclass(frozen=True, repr=False)
class Report:
    """The comparison of every end point, of the weights, and of the settings in files that carry them.

    One input cannot show every difference: behind a ReLU that gives 0, any weights give the same numbers. So a variable
    of the converted file that is not the source's, bit for bit, is a difference too, and so is one that the source's
    network does not have. Where the file's dtype has fewer bits, the source's weights are rounded to it, and TF-Slim
    runs with the rounded ones: the verdict is about the port, and `rounded` says what rounding costs.

    dtype: the one asked for, or float64 where the target computes in it throughout.
    judge: whose graph code the TF-Slim graph is: `slimport.nets`, or a module of `tf_slim`.
    backend: the framework and version that the port ran on.
    reader: whose reader read the reference's weights: `tensorflow`, or `slimport` for files that TensorFlow's does not
      read.
    inputs: the shape of each input by its name, in the network's order.
    by_dtype: the comparison in each dtype that was measured, float64 first.
    weights_compared, weights_different, weights_unexpected: how many variables were compared; those that are not the
      source's, and those that the network does not have, with their scope.
    settings_different: `SCOPE: SETTING is VALUE, not VALUE` for each setting in the file that is not the network's.
    rounded: where the converted file's weights are the source's, rounded.
    source, converted, reference: what was compared; `converted` is None for the port with the source's own weights, and
      `reference` where the TF-Slim graph ran here.
    arguments: of the input and the network.
    machine: what the port ran on.
    versions, reference_versions: by package, here and where the trace was recorded.
    notes: how the port's end points and both sides' variables came about, where that is not as usual.
    """

    network: str
    target: str
    dtype: str
    device: str
    judge: str
    backend: str
    reader: str
    inputs: Mapping[str, tuple[int, ...]]
    by_dtype: Mapping[str, Comparison]
    weights_compared: int = 0
    weights_different: tuple[str, ...] = ()
    weights_unexpected: tuple[str, ...] = ()
    settings_different: tuple[str, ...] = ()
    rounded: RoundedWeights | None = None
    source: Named = Named("")
    converted: Named | None = None
    reference: Named | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    reference_versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        verdict = "equal" if self.ok else f"DIFFERENT from {self.first_difference} on"
        dtypes = " and ".join(self.by_dtype)
        return f"<Report on {self.network} in {self.backend}: {verdict}, {len(self.rows)} end points in {dtypes}>"

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """The input's shape; None where there are several."""
        return next(iter(self.inputs.values())) if len(self.inputs) == 1 else None

    @property
    def input_text(self) -> str:
        """The inputs in words: `batch 2 of 97x128` of images alone, or else `batch 2 of image 97x128x3 and ids 20`."""
        batch = next((shape[0] for shape in self.inputs.values() if shape), 1)
        if self.input_shape is not None and len(self.input_shape) == 4:
            return f"batch {batch} of {'x'.join(map(str, self.input_shape[1:3]))}"
        each = (f"{name} {'x'.join(map(str, shape[1:]))}".rstrip() for name, shape in self.inputs.items())
        return f"batch {batch} of {' and '.join(each)}"

    @property
    def ok(self) -> bool:
        """Whether everything that was measured is equal."""
        return all(map(self.equal, self.by_dtype))

    def equal(self, dtype: str) -> bool:
        """Whether this dtype's end points, the weights and the settings are equal."""
        return self.by_dtype[dtype].ok and not any(self._apart)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The end points in `dtype`."""
        return self.by_dtype[self.dtype].rows

    @property
    def worst(self) -> Row:
        """The end point in `dtype` that comes closest to its limit, or exceeds it most."""
        return self.by_dtype[self.dtype].worst

    @property
    def first_difference(self) -> str | None:
        """The first end point, in the network's order, that is beyond a limit or has a difference of its own.

        The model's output comes last.
        """
        differing = {row.name for each in self.by_dtype.values() for row in each.beyond} | self.differences.keys()
        first = next((row.name for row in self.rows if row.name in differing), None)
        returned = (row.name for each in self.by_dtype.values() for row in each.returned_beyond)
        return first or next(returned, None)

    @cached_property
    def differences(self) -> dict[str, list[str]]:
        """The different weights and settings in words, by the end point that they belong to.

        That is the end point with the longest name that they are under; the last one for those that are under none,
        such as the last BatchNorm's.
        """
        different, unexpected, settings = self._apart
        found: dict[str, list[str]] = {}
        for names, text in (
            (different, "{} is not the source's"),
            (unexpected, "{} is not in the network"),
            (settings, "{}"),
        ):
            for name in names:
                found.setdefault(self._end_point_of(name.partition(":")[0]), []).append(text.format(name))
        return found

    @property
    def _apart(self) -> tuple[tuple[str, ...], ...]:
        return self.weights_different, self.weights_unexpected, self.settings_different

    def _end_point_of(self, name: str) -> str:
        names = {row.name for row in self.rows}
        while name and name not in names:
            name = name.rpartition("/")[0]
        return name or self.rows[-1].name

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is not finite is null."""
        return {
            "ok": self.ok,
            "dtype": self.dtype,
            "device": self.device,
            "target": self.target,
            "judge": self.judge,
            "network": self.network,
            "backend": self.backend,
            "reader": self.reader,
            "reference": self.reference and self.reference.name,
            "input_shape": None if self.input_shape is None else list(self.input_shape),
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            **self.by_dtype[self.dtype].to_json(),
            "first_difference": self.first_difference,
            "weights": {
                "compared": self.weights_compared,
                "different": list(self.weights_different),
                "unexpected": list(self.weights_unexpected),
            },
            "settings_different": list(self.settings_different),
            "rounded": self.rounded and self.rounded.to_json(),
            "notes": list(self.notes),
            "by_dtype": {dtype: {"ok": self.equal(dtype), **each.to_json()} for dtype, each in self.by_dtype.items()}
            if len(self.by_dtype) > 1
            else {},
        }
