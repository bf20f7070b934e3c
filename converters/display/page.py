"""`verify --report`: one HTML page that has everything: verdict, what was compared, plot, every end point."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from converters import frameworks
from converters.display import plot
from converters.files import atomic
from converters.parity.compare import FLOAT32_RULE, FLOAT64_LIMIT, Row
from converters.parity.report import Report

SUFFIXES = (".html", ".htm")


def write(report: Report, path: Path, command: str = "") -> None:
    """Writes the page, which appears whole or not at all and loads nothing from anywhere.

    Args:
      report: the result of `verify`.
      path: the file.
      command: the command line, to be shown; empty where there was none.

    Raises:
      InputError: matplotlib or Jinja is not installed, or `path` cannot be written.
    """
    text = render(report, plot.png(report), command, datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"))
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(report: Report, png: bytes, command: str, date: str) -> str:
    """The page as text, with the plot in it."""
    page: str = template("report.html").render(
        report=report,
        image=base64.b64encode(png).decode(),
        lines=[
            dict(zip(report.by_dtype, rows, strict=True))
            for rows in zip(*(each.rows for each in report.by_dtype.values()), strict=True)
        ],
        columns={dtype: _columns(dtype) for dtype in report.by_dtype},
        float64_limit=FLOAT64_LIMIT,
        float32_rule=FLOAT32_RULE,
        command=command,
        date=date,
    )
    return page


def template(name: str) -> Any:
    """A template of this package, whose values are escaped.

    Raises:
      InputError: Jinja is not installed.
    """
    jinja2 = frameworks.require("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("converters.display"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = _number
    return environment.get_template(name)


def _columns(dtype: str) -> Mapping[str, Callable[[Row], str]]:
    """The columns of an end point in a dtype, with how their text is made from its row."""
    columns: dict[str, Callable[[Row], str]] = {
        "rel_l2": lambda row: _number(row.rel_l2),
        "max_abs": lambda row: _number(row.max_abs),
    }
    if dtype == "float32":
        columns["TF-Slim's"] = lambda row: _number(row.slim_rel_l2)
        columns["ratio"] = lambda row: "" if row.ratio is None else f"{row.ratio:.2f}"
    return columns


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2e}" if value and math.isfinite(value) else str(value or 0)
