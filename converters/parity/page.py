"""`verify --report`: one HTML page that holds everything: verdict, what was compared, plot, every end point."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from converters.parity import plot
from converters.parity.compare import FLOAT32_RULE, FLOAT64_LIMIT, Report, Row
from converters.targets.atomic import atomic

SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class Compared:
    """What a comparison was of.

    source, converted, reference: what was given, with the SHA-256 of each file by its name; `converted` and
      `reference` are empty where there were none.
    arguments: of the input and the network.
    machine: the device's name.
    versions: by package.
    command: the command line; empty from Python.
    """

    source: tuple[str, Mapping[str, str]]
    converted: tuple[str, Mapping[str, str]]
    reference: tuple[str, Mapping[str, str]]
    arguments: Mapping[str, object]
    machine: str
    versions: Mapping[str, str]
    reference_versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def write(report: Report, compared: Compared, path: Path) -> None:
    """Writes the page, which appears whole or not at all and loads nothing from anywhere.

    Raises:
      InputError: matplotlib is not installed, or `path` cannot be written.
    """
    text = render(report, compared, plot.png(report))
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(report: Report, compared: Compared, png: bytes) -> str:
    """The page as text, with the plot in it."""
    title = f"{report.network}: {'equal' if report.ok else 'different'}"
    image = base64.b64encode(png).decode()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(report.network)} <span class="{"equal" if report.ok else "different"}">{
        "equal" if report.ok else "DIFFERENT"
    }</span></h1>
{_verdict(report)}
<h2>Error at every end point</h2>
<div class="plot"><img alt="{escape(_alternative(report))}" src="data:image/png;base64,{image}"></div>
<p class="note">rel_l2 is ||port - TF-Slim|| / ||TF-Slim|| over a whole end point, against the TF-Slim graph in float64.
In float64 the limit is {FLOAT64_LIMIT:.0e}; in float32 it is {FLOAT32_RULE}. The ratio is the port's error over that
rounding.</p>
<h2>What was compared</h2>
{_compared(report, compared)}
<h2>End points</h2>
{_table(report)}
</body>
</html>
"""


def _verdict(report: Report) -> str:
    lines = []
    for dtype, one in report.by_dtype.items():
        worst = one.worst
        count = sum(not row.ok for row in one.rows)
        said = (
            f"all {len(one.rows)} end points are within their limits"
            if not count
            else f"{count} of {len(one.rows)} end points are beyond their limits"
        )
        lines.append(
            f"<li><b>{dtype}</b>: {said}; worst: {_name(worst.name)}, rel_l2 {_number(worst.rel_l2)}, "
            f"limit {_number(worst.limit)}</li>"
        )
    if report.weights_compared:
        same = report.weights_compared - len(report.weights_different)
        lines.append(
            f"<li><b>weights</b>: {same} of {report.weights_compared} variables are the source's, bit for bit</li>"
        )
    if report.rounded:
        moved = report.rounded.end_points[report.rounded.worst]
        lines.append(
            f"<li><b>rounding</b>: the converted weights are the source's rounded to "
            f"{' and '.join(report.rounded.dtypes)}, and TF-Slim ran with these; against the source's own, that moves "
            f"its end points by rel_l2 {_number(moved)} at worst, {_name(report.rounded.worst)}</li>"
        )
    if report.first_difference is not None:
        lines.insert(0, f'<li class="bad">The difference begins at {_name(report.first_difference)}</li>')
    return f"<ul>{''.join(lines)}</ul>"


def _compared(report: Report, compared: Compared) -> str:
    batch, height, width, channels = report.input_shape
    name, digests = compared.converted
    entries = [
        ("network", escape(report.network)),
        ("source", _files(*compared.source)),
        ("converted", _files(name, digests) if name else "the port, with the source's own weights"),
    ]
    if compared.reference[0]:
        recorded = _versions(compared.reference_versions)
        entries.append(("reference", f"{_files(*compared.reference)}<br>recorded from the TF-Slim graph by {recorded}"))
    else:
        entries.append(("reference", "the TF-Slim graph, run here on the CPU"))
    entries += [
        ("judge", f"<code>{escape(report.judge)}</code>"),
        ("weights of the reference", f"read by {escape(report.reader)}"),
        ("port", f"{escape(report.backend)}, on {escape(report.device)} ({escape(compared.machine)})"),
        ("input", f"batch {batch} of {height}x{width}, {channels} channels, uniform in [-1, 1]"),
        ("arguments", ", ".join(f"{escape(name)} {escape(str(value))}" for name, value in compared.arguments.items())),
        ("versions", _versions(compared.versions)),
    ]
    if compared.command:
        entries.append(("command", f"<code>{escape(compared.command)}</code>"))
    return "<dl>" + "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in entries) + "</dl>"


def _files(name: str, digests: Mapping[str, str]) -> str:
    lines = [f"<code>{escape(name)}</code>"]
    lines += [f'<span class="digest">{escape(file)}: SHA-256 {digest}</span>' for file, digest in digests.items()]
    return "<br>".join(lines)


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{escape(package)} {escape(version)}" for package, version in versions.items())


def _table(report: Report) -> str:
    """Every end point with what was measured of it in each dtype."""
    reports = report.by_dtype
    heads = ["<th>end point</th>", "<th>shape</th>"]
    for dtype in reports:
        heads += [f"<th>{dtype}<br>{column}</th>" for column in _columns(dtype)]
    lines = []
    for place, row in enumerate(report.rows):
        rows = {dtype: one.rows[place] for dtype, one in reports.items()}
        different = report.different_by_end_point.get(row.name, [])
        bad = different or not all(each.ok for each in rows.values())
        cells = [f'<td class="name">{_name(row.name)}{_notes(rows, different)}</td>']
        cells.append(f'<td data-of="shape">{"x".join(map(str, row.shape))}</td>')
        for dtype, each in rows.items():
            cells += [
                f'<td class="number{"" if each.ok else " bad"}" data-of="{dtype} {column}">{value}</td>'
                for column, value in _columns(dtype, each).items()
            ]
        lines.append(f"<tr{' class=bad-row' if bad else ''}>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{''.join(heads)}</tr></thead><tbody>\n{chr(10).join(lines)}\n</tbody></table>"


def _columns(dtype: str, row: Row | None = None) -> dict[str, str]:
    """What is said of an end point in a dtype, by column; without a row, the columns alone."""
    measured: dict[str, float | None] = {
        "rel_l2": row.rel_l2 if row else None,
        "max_abs": row.max_abs if row else None,
    }
    if dtype == "float32":
        measured["TF-Slim's"] = row.slim_rel_l2 if row else None
    columns = {column: _number(value) for column, value in measured.items()}
    if dtype == "float32":
        ratio = row.ratio if row else None
        columns["ratio"] = "" if ratio is None else f"{ratio:.2f}"
    return columns


def _notes(rows: Mapping[str, Row], different: Iterable[str]) -> str:
    beyond = [dtype for dtype, row in rows.items() if not row.ok]
    notes = [f"beyond its limit: {', '.join(beyond)}"] if beyond else []
    notes += [f"{escape(name)} is not the source's" for name in different]
    return "".join(f'<span class="note bad">{note}</span>' for note in notes)


def _name(name: str) -> str:
    """A name that breaks after its slashes."""
    return f"<code>{escape(name).replace('/', '/<wbr>')}</code>"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2e}" if value and math.isfinite(value) else str(value or 0)


def _alternative(report: Report) -> str:
    worst = ", ".join(f"{dtype} at worst {one.worst.rel_l2:.2e}" for dtype, one in report.by_dtype.items())
    return f"Plot of rel_l2 at {len(report.rows)} end points in the network's order: {worst}; the table has all numbers"


_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 75rem; margin: 0 auto;
  padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 1.6rem 0 .5rem; }
h1 span { display: inline-block; padding: 0 .5em; border-radius: .3em; color: #fff; }
.equal { background: #2e7d32; }
.different { background: #c62828; }
.bad { color: #c62828; font-weight: 600; }
.note { color: #555; font-size: .9rem; }
td .note { display: block; font-size: .9em; color: #c62828; }
code { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; margin: .5rem 0; }
.plot { overflow-x: auto; }
.plot img { display: block; width: 100%; min-width: 46rem; height: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1rem; margin: 0; }
dt { color: #555; }
dd { margin: 0; overflow-wrap: anywhere; }
.digest { font-family: ui-monospace, monospace; font-size: .8em; color: #555; }
table { border-collapse: collapse; width: 100%; font-size: .82rem; }
th, td { text-align: left; padding: .25rem .5rem; border-bottom: 1px solid #ddd; vertical-align: top; }
th { border-bottom: 2px solid #888; vertical-align: bottom; white-space: nowrap; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.bad-row { background: #fdecea; }
@media (max-width: 46rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .6rem; }
  thead { display: none; }
  table, tbody { display: block; }
  tr { display: grid; grid-template-columns: repeat(3, 1fr); gap: .1rem .5rem; padding: .5rem .25rem;
    border-bottom: 1px solid #ccc; }
  td { border: 0; padding: 0; }
  td.name { grid-column: 1 / -1; }
  td[data-of="shape"] { grid-column: 1 / -1; color: #555; }
  td.number:empty { display: none; }
  td.number::before { content: attr(data-of); display: block; font-size: .72rem; color: #666; font-weight: 400; }
}
@media print {
  @page { margin: 12mm; }
  body { font-size: 10pt; padding: 0; max-width: none; }
  h2 { break-after: avoid; }
  .plot { overflow: visible; break-inside: avoid; }
  .plot img { min-width: 0; }
  table { font-size: 7.5pt; }
  th, td { padding: 1pt 4pt; }
  thead { display: table-header-group; }
  tr { break-inside: avoid; }
  h1 span, .bad-row { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
