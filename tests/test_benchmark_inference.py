"""The benchmark of inference runs, and would see a form that computes something else."""

from __future__ import annotations

import pytest
from conftest import SMALL

from scripts.benchmarks import inference as benchmark_inference


def test_it_prints_a_row_for_each_form_whose_output_is_the_tf_slim_graphs(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--batches", "2", "--runs", "1", "--only", "PyTorch, folded"]
    assert benchmark_inference.main(arguments, SMALL, 33) == 0
    rows = [line.split(" | ") for line in capfd.readouterr().out.splitlines() if line.startswith("| ")][1:]
    names = ["TF-Slim graph", "PyTorch, folded"]
    assert [row[0].removeprefix("| ") for row in rows] == names
    assert rows[0][4] == "1.00"
    assert all(float(row[5].rstrip(" |")) < 1e-5 for row in rows)


def test_an_output_that_differs_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["[[1.0, 2.0]]", "[[1.0, 2.1]]", "1", "1"])
    monkeypatch.setattr(benchmark_inference, "_answer", lambda *_, **__: next(answers))
    assert benchmark_inference.main(["--batches", "1", "--runs", "1", "--only", "PyTorch"], SMALL, 33) == 1
