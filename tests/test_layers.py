"""`inspect` of a graph: a table of layers, a picture, and every node that is not supported."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tensorflow.compat.v1 as tf
from conftest import SMALL
from user_graphs import write

from converters import convert, inspect
from converters.display import layers
from converters.errors import InputError

CHROMIUM = shutil.which("chromium")


def residual() -> dict[str, Any]:
    """Two convolutions and a shortcut, under names that are no layer's."""
    images = tf.placeholder(tf.float32, (None, 8, 8, 3), "images")
    kernels = [tf.get_variable(f"Variable_{n}", (3, 3, depth, 4)) for n, depth in enumerate((3, 4))]
    net = tf.nn.relu(tf.nn.conv2d(images, kernels[0], 1, "SAME", name="conv1"))
    return {"out": tf.add(net, tf.nn.conv2d(net, kernels[1], 1, "SAME", name="conv2"), name="out")}


def test_a_graph_without_its_data_is_shown_as_layers(slimport: Any, tmp_path: Path) -> None:
    path = write(residual, tmp_path, "meta").path
    run = slimport("inspect", path)
    assert run.code == 0, run.err
    assert re.search(r"^output: out", run.out, re.MULTILINE)
    assert re.search(r"^conv2d +3x3 +1x1 +4 +108 +relu +conv1 +Variable_0$", run.out, re.MULTILINE)
    assert re.search(r"^conv2d +3x3 +1x1 +4 +144 +conv2 +Variable_1$", run.out, re.MULTILINE)
    run = slimport("convert", path, tmp_path / "m.safetensors")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "in a checkpoint" in run.err


def test_no_line_of_the_picture_crosses_a_node() -> None:
    graph = SMALL.graph()
    lane = layers.lanes(graph)
    for edge in layers.edges(graph):
        assert edge.start < edge.end
        assert edge.start_lane not in lane[edge.start + 1 : edge.end]
    assert len({(index, lane[index]) for index in range(len(lane))}) == len(graph.nodes)
    assert layers.layers(graph)[0].scope == "images"


def test_a_converted_network_has_layers_too(slimport: Any, small_v2: Path, tmp_path: Path) -> None:
    convert(small_v2, tmp_path / "m.safetensors")
    run = slimport("inspect", tmp_path / "m.safetensors", "--layers")
    assert "BatchNorm epsilon 1e-05, relu" in run.out
    assert run.out.partition("\n\n")[0].endswith("predictions")


def gamma_function() -> dict[str, Any]:
    """Two convolutions, and an op between them that no network has."""
    net = tf.placeholder(tf.float32, (None, 8, 8, 3), "images")
    for name in ("conv1", "conv2"):
        kernel = tf.get_variable(f"{name}/weights", (3, 3, 3, 3))
        net = tf.math.lgamma(tf.nn.conv2d(net, kernel, 1, "SAME", name=f"{name}/Conv2D"), name=f"{name}/Lgamma")
    return {"out": tf.identity(net, name="out")}


def test_what_is_not_supported_is_listed(slimport: Any, tmp_path: Path) -> None:
    path = write(gamma_function, tmp_path, "frozen").path
    run = slimport("inspect", path)
    assert run.code == 0
    assert "not supported: Lgamma of conv1/Lgamma" in run.out
    assert f"next: slimport convert {path} part.safetensors --output conv1/Conv2D" in run.out
    assert "without data" not in run.out
    assert inspect(path).to_json()["unsupported"][0] == "Lgamma of conv1/Lgamma"
    run = slimport("convert", path, tmp_path / "m.safetensors")
    assert (run.code, run.err.count("\n")) == (2, 1)
    output = re.search(r"--output (\S+)", run.err)
    assert output is not None
    assert slimport("convert", path, tmp_path / "m.safetensors", "--output", output[1]).code == 0


def test_the_page_escapes_what_it_shows_and_loads_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "<b>&"
    folder.mkdir()
    found = inspect(write(residual, folder, "frozen").path)
    graph = layers.network_graph(found)
    assert graph is not None
    layers.write(found, graph, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;" in text
    assert "<b>" not in text
    assert not re.search(r"(src|href)=", text)
    assert text.count("<circle") == len(graph.nodes)


def test_a_file_without_one_network_has_no_picture(slimport: Any, tmp_path: Path) -> None:
    path = write(gamma_function, tmp_path, "frozen").path
    run = slimport("inspect", path, "--report", tmp_path / "page.html")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert not (tmp_path / "page.html").exists()
    with pytest.raises(InputError):
        convert(path, tmp_path / "m.safetensors")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_draws_the_picture_beside_its_rows(tmp_path: Path) -> None:
    found = inspect(write(residual, tmp_path, "frozen").path)
    graph = layers.network_graph(found)
    assert graph is not None
    layers.write(found, graph, tmp_path / "page.html")
    script = """<script>
      const rows = [...document.querySelectorAll("tbody tr")], circles = [...document.querySelectorAll("circle")];
      const off = rows.map((row, i) => { const a = row.getBoundingClientRect(), b = circles[i].getBoundingClientRect();
        return Math.abs((a.top + a.bottom) / 2 - (b.top + b.bottom) / 2); });
      document.title = `off ${Math.max(...off)} of ${rows.length}`;
    </script>"""
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = re.sub(r"<meta http-equiv.*?>", "", page).replace("</body>", f"{script}</body>")
    (tmp_path / "measured.html").write_text(page, encoding="utf-8")
    done = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *("--dump-dom", f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path / 'measured.html'}"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    measured = re.search(r"<title>off ([\d.]+) of (\d+)</title>", done.stdout)
    assert measured is not None, done.stderr[-500:]
    assert float(measured[1]) <= 2
    assert int(measured[2]) == len(graph.nodes)
