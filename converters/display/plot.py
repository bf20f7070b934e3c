"""`verify --plot`: the error at every end point, in the network's order, against what it has to stay under."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any

from converters import frameworks
from converters.files import atomic
from converters.parity.compare import FLOAT32_CAP, FLOAT32_FLOOR, FLOAT32_RATIO, FLOAT64_LIMIT, Row
from converters.parity.report import Report

SUFFIXES = (".png", ".svg", ".pdf")

_PORT, _SLIM, _LIMIT, _BAD = "#1f5fa8", "#8a8a8a", "#e6edf5", "#c62828"
# Labels closer than this would overlap.
_LABEL_INCHES = 0.13


def write(report: Report, path: Path) -> None:
    """Draws a report to a `.png`, `.svg` or `.pdf`, which appears whole or not at all.

    Raises:
      InputError: matplotlib is not installed, or `path` cannot be written.
    """
    with atomic(path) as temporary:
        draw(report).savefig(temporary)


def png(report: Report) -> bytes:
    """The plot as the bytes of a PNG."""
    buffer = BytesIO()
    draw(report).savefig(buffer, format="png")
    return buffer.getvalue()


def draw(report: Report) -> Any:
    """A `matplotlib.figure.Figure`: a panel for each dtype that was measured, float64 above."""
    figure_of = frameworks.require("matplotlib.figure").Figure
    count = len(report.rows)
    width = min(max(10.0, 0.06 * count), 16.0)
    figure = figure_of(figsize=(width, 0.9 + 2.9 * len(report.by_dtype)), dpi=120, layout="constrained")
    title = f"{report.network}: {report.backend}, {report.device}, against TF-Slim in float64"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    panels = figure.subplots(len(report.by_dtype), sharex=True, squeeze=False)[:, 0]
    for axes, dtype in zip(panels, report.by_dtype, strict=True):
        _panel(axes, report.by_dtype[dtype].rows, dtype, report.equal(dtype))
    _mark_places(panels, [row.name for row in report.rows], width)
    first = report.first_difference
    if first is not None:
        _mark_first(panels, [row.name for row in report.rows].index(first), first, count)
    return figure


def _panel(axes: Any, rows: Sequence[Row], dtype: str, equal: bool) -> None:
    scale = _Scale.of(rows)
    places = range(len(rows))
    errors = [scale(row.rel_l2) for row in rows]
    limits = [scale(row.limit) for row in rows]
    axes.set_yscale("log")
    axes.set_ylim(scale.floor / 1.8, scale.ceiling * 1.8)
    axes.set_xlim(-1, len(rows))
    limit = f"limit: {FLOAT64_LIMIT:.0e}"
    if dtype == "float32":
        slim = [scale(row.slim_rel_l2 or 0.0) for row in rows]
        axes.plot(places, slim, color=_SLIM, linewidth=1.2, label="TF-Slim's own rounding")
        limit = f"limit: {FLOAT32_RATIO} times that + {FLOAT32_FLOOR:.0e}, at most {FLOAT32_CAP:.0e}"
    axes.fill_between(places, scale.floor / 1.8, limits, color=_LIMIT, linewidth=0, zorder=0.5, label=limit)
    size = 4.5 if len(rows) < 120 else 2.8
    axes.plot(places, errors, "o", color=_PORT, markersize=size, label="the port's error")
    bad = [place for place, row in enumerate(rows) if not row.ok]
    if bad:
        beyond = [errors[place] for place in bad]
        axes.plot(bad, beyond, "X", color=_BAD, markersize=size + 2.5, label="beyond its limit")
    axes.set_ylabel("rel_l2", fontsize=9)
    axes.tick_params(axis="y", labelsize=9)
    scale.label(axes)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    title = f"{dtype}: {'equal' if equal else 'DIFFERENT'}"
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color="black" if equal else _BAD)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=8, frameon=False, borderaxespad=0.2)


@dataclass(frozen=True)
class _Scale:
    """A log axis on which 0, infinity and NaN have places too."""

    floor: float
    ceiling: float
    zero: bool
    endless: bool

    @classmethod
    def of(cls, rows: Sequence[Row]) -> _Scale:
        errors = [error for row in rows for error in (row.rel_l2, row.limit, row.slim_rel_l2) if error is not None]
        shown = [error for error in errors if error > 0 and math.isfinite(error)]
        zero, endless = 0.0 in errors, not all(map(math.isfinite, errors))
        lowest, highest = math.log10(min(shown)), math.log10(max(shown))
        # 0 is a decade below everything else, and below what rounding in the dtype can leave.
        floor = min(math.floor(lowest) - zero, math.floor(math.log10(rows[0].limit)) - (4 if zero else 1))
        return cls(10.0**floor, 10.0 ** (math.ceil(highest) + endless), zero, endless)

    def __call__(self, error: float) -> float:
        if not math.isfinite(error):
            return self.ceiling
        return max(error, self.floor)

    def label(self, axes: Any) -> None:
        low, high = round(math.log10(self.floor)), round(math.log10(self.ceiling))
        step = max(1, (high - low) // 6)
        named = {tick: f"$10^{{{tick}}}$" for tick in range(low, high + 1, step)}
        if self.zero:
            named[low] = "0"
        if self.endless:
            named[high] = "inf, NaN"
        axes.set_yticks([10.0**tick for tick in named], list(named.values()))
        axes.minorticks_off()


def _mark_places(panels: Sequence[Any], names: Sequence[str], width: float) -> None:
    """Where blocks begin and units end; layers outside of blocks by their names."""
    below_scope = _below_scope(names)
    paths = [below_scope(name) for name in names]
    labels: dict[int, str] = {}
    for block, run in groupby(enumerate(paths), key=lambda item: item[1][0]):
        places = list(run)
        first, last = places[0][0], places[-1][0]
        if len(places) == 1:
            labels[first] = block
            continue
        for axes in panels:
            for edge in (first - 0.5, last + 0.5):
                axes.axvline(edge, color="#b0b0b0", linewidth=0.8, zorder=0.8)
        panels[-1].annotate(
            block,
            ((first + last) / 2, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -24),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9,
            fontweight="bold",
        )
        for _, unit in groupby(places, key=lambda item: item[1][1:2]):
            end, path = list(unit)[-1]
            if len(path) > 1:
                labels[end] = path[1].rpartition("_")[2]
    # From the last one, so that where there is no room for all the network's output has its name.
    shown: list[int] = []
    for place in sorted(labels, reverse=True):
        if not shown or (shown[-1] - place) * width * 0.9 / len(names) > _LABEL_INCHES:
            shown.append(place)
    panels[-1].set_xticks(shown, [labels[place] for place in shown], fontsize=8)
    for label in panels[-1].get_xticklabels():
        if not label.get_text().isdigit():
            label.set_rotation(90)


def _below_scope(names: Sequence[str]) -> Callable[[str], list[str]]:
    """A function that splits a name below the model's scope, which all names have but a few without any scope."""
    scope = os.path.commonpath([name for name in names if "/" in name] or [""])
    return lambda name: name.removeprefix(f"{scope}/").split("/")


def _mark_first(panels: Sequence[Any], place: int, name: str, count: int) -> None:
    for axes in panels:
        axes.axvline(place, color=_BAD, linewidth=1.2, linestyle="--")
    left = place < count / 2
    panels[0].annotate(
        f"begins at {name}",
        (place, 0.04),
        xycoords=("data", "axes fraction"),
        xytext=(5 if left else -5, 0),
        textcoords="offset points",
        ha="left" if left else "right",
        color=_BAD,
        fontsize=9,
        fontweight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )
