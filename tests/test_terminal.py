"""What a terminal shows: lines that fit, the answer last, colours only where they are wanted."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import SMALL

from converters import cli, inspect
from converters.display import terminal
from converters.display.inspection import inspection_text
from converters.display.report import report_text
from converters.parity.compare import Comparison, Row
from converters.parity.report import Report
from scripts.make_checkpoint import save_without_tensorflow

WIDTHS = (80, 40)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("terminal") / "small.ckpt"
    save_without_tensorflow(SMALL, path)
    return path


def shown(text: str, width: int) -> list[str]:
    """The lines on a terminal, without styles."""
    lines = click.unstyle(terminal.fitted(text, width)).split("\n")
    assert max(map(len, lines)) <= width
    return lines


@pytest.mark.parametrize("width", WIDTHS)
def test_inspect_fits_and_its_answer_is_last(width: int, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint.parent)
    text = inspection_text(inspect("small.ckpt"))
    lines = shown(text, width)
    words = [line.strip("└├│─ ") for line in lines]
    # Nothing is lost or broken but spaces and guides: a line ends where a word, a shape or a scope in a name does.
    plain = click.unstyle(text).translate(str.maketrans("", "", "└├│─ \n"))
    assert "".join(words).replace(" ", "").replace("\\", "") == plain
    assert not [line for line in lines if line.count("[") != line.count("]")]
    assert lines[-1].endswith("IMAGE...")
    assert any(line.startswith("model: resnet_v2, 7 classes") for line in lines[-14:])


def test_a_folded_command_can_be_copied() -> None:
    text = "next: slimport convert resnet_v2_50.ckpt resnet_v2_50.safetensors --scope resnet_v2_50"
    lines = shown(text, 40)
    assert len(lines) == 4
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert " ".join(line.removesuffix("\\").strip() for line in lines) == text


def test_a_tree_goes_on_below_its_guides_and_a_name_after_its_slashes() -> None:
    assert shown("│   ├── conv1  9,472  weights [7, 7, 3, 64], biases [64]", 44) == [
        "│   ├── conv1  9,472  weights [7, 7, 3, 64],",
        "│   │                 biases [64]",
    ]
    assert shown("a/long/name/of/scopes/that/has/no/room/weights is missing", 24) == [
        "a/long/name/of/scopes/",
        "    that/has/no/room/",
        "    weights is missing",
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_table_of_verify_fits(width: int, dtype: str) -> None:
    slim = 1e-7 if dtype == "float32" else None
    name = "resnet_v2_50/block1/unit_1/bottleneck_v2/shortcut"
    row = Row(name, (2, 25, 32, 256), 2e-7, 1e-6, 1e-5, slim)
    rows = (row, replace(row, name="resnet_v2_50/logits", rel_l2=1.0))
    report = Report(
        "resnet_v2_50", "pytorch", dtype, "cpu", "j", "b", "r", {"images": (1, 9, 9, 3)}, {dtype: Comparison(rows)}
    )
    lines = shown(report_text(report, width), width)
    assert [line for line in lines if "2.00e-07  1.00e-06" in line]
    assert sum("DIFFERS" in line for line in lines) == 1
    # Without a terminal, every end point is one line.
    assert report_text(report).splitlines()[1].split()[:2] == [name, "2x25x32x256"]


def test_help_fits_and_no_sentence_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in (None, *cli.cli.commands):
        done = CliRunner().invoke(cli.cli, [*([name] if name else []), "--help"])
        assert done.exit_code == 0
        assert max(map(len, done.output.splitlines())) <= 80, name
        assert "..." not in done.output.replace("IMAGE...", "").replace("SRC...", "").replace("[ARGS]...", "")
    bare = CliRunner().invoke(cli.cli, [])
    assert (bare.exit_code, bare.output) == (0, CliRunner().invoke(cli.cli, ["--help"]).output)
    monkeypatch.setenv("COLUMNS", "40")
    assert cli._help_width() == 38


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_switched_off(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    terminal.say(click.style("equal", fg="green"))
    assert capsys.readouterr().out == "\x1b[32mequal\x1b[0m\n"
    monkeypatch.setenv(variable, value)
    terminal.say(click.style("equal", fg="green"))
    assert capsys.readouterr().out == "equal\n"


def test_json_is_a_line_on_a_terminal_too(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "width_of", lambda _: 40)
    cli.cli(["inspect", str(checkpoint), "--json"], standalone_mode=False)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["model"]["name"] == "resnet_v2"
