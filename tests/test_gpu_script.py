"""scripts/benchmarks/gpu.py, every kind of line of it, on the CPU with a small network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from converters.parity.tracing import open_trace
from scripts.benchmarks import gpu

LEFT_OUT = ("cudnn", "optimize", "channels_last", "deterministic", "Keras")


def table(text: str) -> dict[str, list[str]]:
    """The cells of each row by the setting."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}


def test_the_script_prints_one_table_and_the_verdicts(
    small_trace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--device", "cpu", "--trace", str(small_trace), "--size", "33", "--batch", "2", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options, "--without-tests", "--without", *LEFT_OUT])
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    with pytest.raises(SystemExit) as done:
        gpu.main()
    assert done.value.code == 0
    rows = table(capsys.readouterr().out)
    assert [rows[name][2] for name in ("float64", "float32")] == ["equal", "equal"]
    assert float(rows["float64"][0]) < 1e-13 < float(rows["float32"][0]) < 1e-5 < float(rows["autocast bfloat16"][0])
    assert rows["TF32"][2] == ""
    assert all(float(ms) > 0 for name in ("float64", "float32, folded", "TF32") for ms in rows[name][3:])
    assert before == (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark)


def test_a_damaged_model_is_different_in_the_table(small_trace: Path) -> None:
    trace = open_trace(small_trace)
    weights = gpu.random_variables(trace.network, 0)
    weights["block2/unit_1/bottleneck_v2/conv2/BatchNorm/gamma"] *= 1.001
    model = gpu.models.pytorch_port(trace.network, weights.items(), scope=trace.description.scope)
    for setting in (gpu.SETTINGS[0], next(s for s in gpu.SETTINGS if s.name == "float32")):
        rows = gpu.Measured(setting, model, "cpu").rows(trace)
        first = next(row.name for row in rows if not row.ok)
        assert first == "resnet_v2/block2/unit_1/bottleneck_v2/conv2"


def test_the_suite_and_the_script_need_none_of_what_a_gpu_machine_may_lack() -> None:
    code = """
import sys
for name in ("tensorflow", "tf_keras", "tf_slim", "keras", "crc32c", "rich", "matplotlib", "jinja2", "fsspec",
        "aiohttp", "PIL"):
    sys.modules[name] = None
import conftest, test_gpu
from scripts.benchmarks import gpu
trace = gpu.open_trace(gpu.TRACE)
weights = gpu.random_variables(trace.network, 0)
assert gpu.weights_digest(trace.network, weights) == trace.description.weights
"""
    # As pytest and the repository's root have them.
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
