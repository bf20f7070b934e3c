"""scripts/studies/gradient_flow.py measures what it says it measures, and writes whole files or none."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from scripts.studies import gradient_flow
from slimport import pytorch
from slimport.networks.residual_units import cifar_resnet
from slimport.pytorch.training import initialize

pytestmark = pytest.mark.usefixtures("without_onednn")

SMALL = ("--depth", "8", "--width", "4", "--steps", "2", "--batch", "16", "--learning-rate", "0.01")
# Fig. 4(a-e) and 2(a-f), of which the original is in both, and two settings of table 1 besides.
VARIANTS = {
    *("original", "bn_after_addition", "relu_before_addition", "relu_only_preactivation", "full_preactivation"),
    *("constant_scaling", "exclusive_gating", "shortcut_only_gating", "convolution", "dropout"),
    *("plain", "shortcut_only_gating_at_0"),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a small study, run as a process with workers of its own."""
    out = tmp_path_factory.mktemp("study") / "made" / "by it"
    done = subprocess.run(
        [sys.executable, "-m", "scripts.studies.gradient_flow", *SMALL, "--seeds", "5", "--workers", "2", "--out", out],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_every_variant_has_a_gradient_per_unit_and_a_loss_per_step(measured: tuple[Path, str]) -> None:
    out, printed = measured
    assert sorted(path.name for path in out.iterdir()) == ["gradient_flow.json", "gradient_flow.png"]
    found = json.loads((out / "gradient_flow.json").read_text())
    assert (found["depth"], found["seeds"], found["bottleneck"]) == (8, [5], False)
    assert set(found["variants"]) == VARIANTS
    for result in found["variants"].values():
        assert [len(result[key]) for key in ("gradient_norm", "gradient_norm_trained", "loss")] == [3, 3, 2]
        assert all(value > 0 for key in ("gradient_norm", "gradient_norm_trained", "loss") for value in result[key])
    assert (out / "gradient_flow.png").read_bytes().startswith(b"\x89PNG")
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(VARIANTS)
    assert gradient_flow.table(found) == printed.rstrip("\n")


def test_the_norms_are_those_of_autograds_gradients_at_the_unit_inputs(measured: tuple[Path, str]) -> None:
    found = json.loads((measured[0] / "gradient_flow.json").read_text())
    # Without the script: the seed's network and its first batch, of images straight from scikit-learn.
    data = load_digits()
    images = torch.from_numpy((data.images[:1500] / 8 - 1).astype(np.float32))[:, None]
    batch = torch.randperm(1500, generator=torch.Generator().manual_seed(5))[:16]
    for name in ("original", "full_preactivation"):
        torch.manual_seed(5)
        network = pytorch.build(cifar_resnet(8, name, in_channels=1, width=4))
        initialize(network)
        inputs: list[Any] = []
        for stage in (1, 2, 3):
            unit = network.get_submodule(f"stage{stage}.unit_1")
            unit.register_forward_pre_hook(lambda _, arguments, inputs=inputs: inputs.append(arguments[0]))
        logits = network(images[batch])
        for x in inputs:
            x.retain_grad()
        cross_entropy(logits, torch.from_numpy(data.target)[batch]).backward()
        norms = [math.sqrt(float((x.grad.double() ** 2).sum())) for x in inputs]
        assert found["variants"][name]["gradient_norm"] == pytest.approx(norms, rel=1e-4)


def test_a_seed_gives_the_same_numbers_again(measured: tuple[Path, str]) -> None:
    found = json.loads((measured[0] / "gradient_flow.json").read_text())
    threads = torch.get_num_threads()
    try:
        again = gradient_flow.run(("dropout", 5), gradient_flow.Settings(8, False, 4, 2, 16, 0.01))
    finally:
        torch.set_num_threads(threads)
    summary = gradient_flow.summary([again])
    assert summary == found["variants"]["dropout"]


def test_numbers_that_are_not_finite_are_null_and_said_so(measured: tuple[Path, str], tmp_path: Path) -> None:
    found = json.loads((measured[0] / "gradient_flow.json").read_text())
    broken = {
        "seed": 0,
        "gradient_norm": [math.nan, 2, 3],
        "gradient_norm_trained": [1, math.inf, 0],
        "loss": [7, -math.inf],
    }
    found["variants"]["plain"] = gradient_flow.summary([broken])
    assert found["variants"]["plain"]["gradient_norm"] == [None, 2, 3]
    assert found["variants"]["plain"]["loss"] == [7, None]
    gradient_flow.draw(found, tmp_path / "picture.png")
    row = next(line for line in gradient_flow.table(found).splitlines() if "(plain)" in line)
    assert row == (
        "| no shortcut (plain) | 2(b) | not finite | 3 | not finite | 1 | 0 | not finite "
        "| not finite | not finite | fail |"
    )


def test_the_median_is_of_the_seeds() -> None:
    runs = [{"seed": seed, "gradient_norm": [value, 1.0]} for seed, value in enumerate((9.0, 2.0, 4.0))]
    assert gradient_flow.summary(runs)["gradient_norm"] == [4, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--depth", "9"), "--depth: no network of basic units has depth 9: it is 6n+2, such as 8 or 14"),
        (("--depth", "110", "--bottleneck", "--depth", "12"), "--depth: no network of bottlenecks has depth 12"),
        (("--depth", "deep"), "argument --depth: invalid int value: 'deep'"),
        (("--steps", "0"), "argument --steps: 0 is less than 1"),
        (("--batch", "1501"), "--batch: 1501 is more than the 1500 images to train on"),
        (("--redraw",), "gradient_flow.json: cannot be read: No such file or directory; run without --redraw first"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["gradient_flow.py", "--out", str(out), *arguments])
    with pytest.raises(SystemExit) as exit_:
        gradient_flow.main()
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_file_in_the_place_of_the_folder_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["gradient_flow.py", "--depth", "8", "--out", str(tmp_path / "file")])
    with pytest.raises(SystemExit) as exit_:
        gradient_flow.main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"gradient_flow.py: --out: {tmp_path / 'file'}: cannot be made: File exists\n"
    assert (tmp_path / "file").read_text() == "mine"
