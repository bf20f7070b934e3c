"""`verify --plot` and `--report`: both dtypes, one file each, written whatever the verdict is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image

from converters import InputError, convert, verify
from converters.display import page, plot
from converters.display.report import check_outputs
from converters.parity import Comparison, Report, Row

FIRST = "resnet_v2/block2/unit_1/bottleneck_v2/conv2"


class Elements(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_holds_everything_and_loads_nothing(small_v2: Path, small_trace: Path, tmp_path: Path) -> None:
    converted, path = tmp_path / "a <b> & 'c'.pth", tmp_path / "report.html"
    convert(small_v2, converted)
    report = verify(small_v2, converted, reference=small_trace)
    page.write(report, path, "slimport verify <x> & y")
    text = path.read_text()
    elements = Elements(text).found
    sources = [value for _, attributes in elements for name, value in attributes.items() if name in ("src", "href")]
    assert [source for source in sources if not (source or "").startswith("data:image/png;base64,")] == []
    assert not re.search(r"url\(|@import|https?://", text)
    assert "script" not in {tag for tag, _ in elements}
    # What was named in it stands in it as text, not as markup.
    plain = unescape(re.sub(r"<[^>]*>", "", text))
    assert str(converted) in plain
    assert "slimport verify <x> & y" in plain
    for file in (converted, small_trace, Path(f"{small_v2}.index")):
        assert f"{file.name}: SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}" in plain
    assert f"torch {torch.__version__}" in plain
    assert f"judge{report.judge}" in plain
    # The date, and what rel_l2 is, stand before its first number; a narrow screen is told that the figure scrolls.
    before = plain.partition("worst: ")[0]
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d", before)
    assert "||port - TF-Slim|| / ||TF-Slim||" in before
    assert ("p", {"class": "note scrolls"}) in elements
    assert sum(tag == "tr" for tag, _ in elements) == 1 + len(report.rows)
    for row in report.rows:
        assert row.name in plain
        assert f"{row.rel_l2:.2e}" in plain or row.rel_l2 == 0


def test_both_dtypes_are_measured_where_that_is_asked_for_and_count(
    small_v2: Path, small_trace: Path, tmp_path: Path
) -> None:
    report = verify(small_v2, both_dtypes=True, reference=small_trace)
    assert list(report.by_dtype) == ["float64", "float32"]
    for dtype in report.by_dtype:
        alone = verify(small_v2, dtype=dtype, reference=small_trace)
        assert replace(report, dtype=dtype, by_dtype={dtype: report.by_dtype[dtype]}) == alone
        assert report.to_json()["by_dtype"][dtype]["end_points"] == alone.to_json()["end_points"]
    beyond = replace(report.by_dtype["float32"].rows[3], rel_l2=1.0)
    mixed = replace(report, by_dtype={**report.by_dtype, "float32": Comparison((beyond,))})
    assert mixed.equal("float64")
    assert not mixed.ok
    assert mixed.first_difference == beyond.name
    plot.write(report, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width >= 1000


def test_a_failing_verify_writes_both_and_exits_with_1(
    slimport: Callable[..., Run], small_v2: Path, small_trace: Path, tmp_path: Path
) -> None:
    converted = tmp_path / "m.pth"
    convert(small_v2, converted)
    state = torch.load(converted, weights_only=True)
    state["block2.unit_1.bottleneck_v2.conv2.BatchNorm.weight"] *= 1.001
    torch.save(state, converted)
    files = ("--plot", tmp_path / "errors.png", "--report", tmp_path / "report.html")
    run = slimport("verify", small_v2, converted, "--reference", small_trace, *files)
    assert (run.code, run.err) == (1, "")
    begins = rf"^(float..): DIFFERENT: \d+ of 29 end points; it begins at {FIRST}$"
    assert re.findall(begins, run.out, re.MULTILINE) == ["float64", "float32"]
    text = (tmp_path / "report.html").read_text()
    assert f"The difference begins at <code>{FIRST.replace('/', '/<wbr>')}</code>" in text
    assert (tmp_path / "errors.png").stat().st_size > 10_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["errors.png", "m.pth", "report.html"]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"plot": "no/such/a.png"}, "does not exist; make it first"),
        ({"page": "folder.html"}, "is a folder"),
        ({"plot": "a.jpg"}, r"the name must end in \.png or \.svg or \.pdf"),
        ({"page": "a.txt"}, r"the name must end in \.html or \.htm"),
        ({"plot": "t.npz.png"}, "is what is compared; write to another file"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_computed(
    outputs: dict[str, str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "folder.html").mkdir()
    paths = {name: tmp_path / path for name, path in outputs.items()}
    with pytest.raises(InputError, match=message):
        check_outputs(paths.get("plot"), paths.get("page"), (tmp_path / "a.ckpt", None, tmp_path / "t.npz.png"))


def test_the_command_checks_its_outputs_first(slimport: Callable[..., Run], tmp_path: Path) -> None:
    # The source is missing, which would be said next.
    run = slimport("verify", tmp_path / "missing.ckpt", "--plot", "a.jpg")
    assert (run.code, run.out) == (2, "")
    assert "the name must end in .png or .svg or .pdf" in run.err


def report_of(errors: list[float], dtype: str = "float64") -> Report:
    names = ["n/conv1", *(f"n/block1/unit_{i}/conv" for i in range(1, len(errors) - 1)), "predictions"]
    rows = tuple(Row(name, (1,), error, error, 1e-12) for name, error in zip(names, errors, strict=True))
    return Report("n", "pytorch", dtype, "cpu", "j", "b", "r", {"images": (1, 1, 1, 1)}, {dtype: Comparison(rows)})


def test_the_plot_shows_zero_and_what_is_endless_at_places_of_their_own() -> None:
    report = report_of([0.0, 1e-16, 3e-5, np.inf, np.nan])
    (axes,) = plot.draw(report).axes
    (places,) = [line.get_ydata() for line in axes.lines if line.get_label() == "the port's error"]
    ticks = dict(zip((label.get_text() for label in axes.get_yticklabels()), axes.get_yticks(), strict=True))
    assert places[0] == ticks["0"] < places[1] == 1e-16
    assert places[3] == places[4] == ticks["inf, NaN"] > places[2] == 3e-5
    (bad,) = [line.get_xdata() for line in axes.lines if line.get_label() == "beyond its limit"]
    assert list(bad) == [2, 3, 4]
    assert [text.get_text() for text in axes.texts if "begins" in text.get_text()] == ["begins at n/block1/unit_2/conv"]


def test_a_bit_equal_port_has_a_plot() -> None:
    (axes,) = plot.draw(report_of([0.0] * 5)).axes
    assert "0" in [label.get_text() for label in axes.get_yticklabels()]
    assert not [line for line in axes.lines if line.get_label() == "beyond its limit"]
