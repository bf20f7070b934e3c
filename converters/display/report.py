"""The text of a report, and the files that `verify` draws."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from converters import frameworks
from converters.display import page as pages
from converters.display import plot as plots
from converters.errors import InputError
from converters.files import check_destination
from converters.parity.compare import FLOAT32_RULE, FLOAT64_LIMIT, Row
from converters.parity.report import Report
from converters.variables import PathLike


def check_outputs(plot: PathLike | None, page: PathLike | None, inputs: Iterable[Any]) -> None:
    """Checks that the files can be written, before anything is computed.

    Raises:
      InputError: they cannot, or would overwrite what is compared, or what draws them is not installed.
    """
    wanted = [(Path(path), ends) for path, ends in ((plot, plots.SUFFIXES), (page, pages.SUFFIXES)) if path is not None]
    for path, suffixes in wanted:
        if path.suffix.lower() not in suffixes:
            raise InputError(f"{path}: the name must end in {' or '.join(suffixes)}")
        check_destination(path)
        if any(isinstance(given, str | os.PathLike) and Path(given).resolve() == path.resolve() for given in inputs):
            raise InputError(f"{path}: is what is compared; write to another file")
    if wanted:
        frameworks.require("matplotlib.figure")
    if page is not None:
        frameworks.require("jinja2")


def report_text(report: Report, columns: int | None = None) -> str:
    """Every end point, what was compared, and the verdict in each dtype.

    Args:
      report: the result of `verify`.
      columns: of the terminal; in a narrow one, numbers are below the names. None is any number.
    """
    lines = list(_table(report, columns))
    lines += [
        "",
        f"{report.network} on {report.backend}, {report.device}, {' and '.join(report.by_dtype)}, {report.input_text}",
        f"judge: {report.judge}, with weights read by {report.reader}",
    ]
    if report.reference is not None:
        lines.append(f"reference: {report.reference.name}, recorded from the TF-Slim graph")
    prefixes = {dtype: f"{dtype}: " if len(report.by_dtype) > 1 else "" for dtype in report.by_dtype}
    for dtype, prefix in prefixes.items():
        worst = report.by_dtype[dtype].worst
        lines.append(f"{prefix}worst: {worst.name}: rel_l2 {worst.rel_l2:.2e}, limit {worst.limit:.2e}")
        for row in report.by_dtype[dtype].returned_beyond:
            lines.append(f"{prefix}{row.name} {_red('DIFFERS')}: rel_l2 {row.rel_l2:.2e}, limit {row.limit:.2e}")
    lines += [*_weights_text(report), *(f"note: {note}" for note in report.notes)]
    return "\n".join(lines + [prefix + _verdict_text(report, dtype) for dtype, prefix in prefixes.items()])


def _weights_text(report: Report) -> Iterator[str]:
    if report.weights_compared:
        same = report.weights_compared - len(report.weights_different)
        as_rounded = f" rounded to {' and '.join(report.rounded.dtypes)}" if report.rounded else ""
        yield f"weights: {same} of {report.weights_compared} variables are the source's{as_rounded}, bit for bit"
    if report.rounded:
        moved, output = report.rounded.end_points, report.rows[-1].name
        yield (
            f"rounding: TF-Slim ran with the rounded weights; against the source's own, that moves its end points by "
            f"rel_l2 {moved[report.rounded.worst]:.2e} at worst ({report.rounded.worst}), {output} by "
            f"{moved[output]:.2e}"
        )


def _verdict_text(report: Report, dtype: str) -> str:
    comparison = report.by_dtype[dtype]
    count = len(comparison.rows)
    if report.equal(dtype):
        limit = FLOAT32_RULE if dtype == "float32" else f"{FLOAT64_LIMIT:.0e}"
        return f"{click.style('equal', fg='green', bold=True)}: all {count} end points within {limit}"
    beyond = f"{len(comparison.beyond)} of {count} end points"
    if not comparison.beyond:
        beyond = " and ".join(row.name for row in comparison.returned_beyond) or beyond
    return f"{_red('DIFFERENT')}: {beyond}; it begins at {report.first_difference}"


def _table(report: Report, columns: int | None) -> Iterator[str]:
    """Yields the lines of the table of end points."""
    headings = ("end point", "shape", "rel_l2", "max_abs", *(("TF-Slim", "ratio") if report.dtype == "float32" else ()))
    cells = [headings, *map(_cells, report.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    below = columns is not None and sum(widths) + 2 * (len(widths) - 1) > columns
    for row, (name, shape, *numbers) in zip((None, *report.rows), cells, strict=True):
        aligned = [f"{shape:<{widths[1]}}", *(f"{n:>{w}}" for n, w in zip(numbers, widths[2:], strict=True))]
        differs = "" if row is None or row.ok else f"  {_red('DIFFERS')}"
        if below:
            yield name + differs
            yield f"    {'  '.join(aligned)}".rstrip()
        else:
            yield "  ".join([f"{name:<{widths[0]}}", *aligned]).rstrip() + differs
        for text in report.differences.get(name, []) if row else ():
            yield f"  {_red('DIFFERS')}: {text}"


def _cells(row: Row) -> tuple[str, ...]:
    found = row.name, "x".join(map(str, row.shape)), f"{row.rel_l2:.2e}", f"{row.max_abs:.2e}"
    if row.slim_rel_l2 is None:
        return found
    return *found, f"{row.slim_rel_l2:.2e}", "" if row.ratio is None else f"{row.ratio:.2f}"


def _red(text: str) -> str:
    return click.style(text, fg="red", bold=True)
