"""The code on the pages runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import slimport.pytorch
from converters import convert, verify


def blocks(page: str) -> list[str]:
    """The Python code on a page."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def pretrained(digits_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with what the pages start from."""
    for suffix in (".safetensors", ".keras"):
        convert(digits_checkpoint, tmp_path / f"pretrained{suffix}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_fine_tuning_loops_learn(pretrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_pytorch, in_keras = blocks("fine_tuning.md")
    threads = torch.get_num_threads()
    # The network is so small that more threads only wait for each other.
    torch.set_num_threads(1)
    try:
        exec(compile(in_pytorch, "fine_tuning.md", "exec"), {})
    finally:
        torch.set_num_threads(threads)
    rates = re.findall(r"step \d+: loss [\d.]+, ([\d.]+)% of", capsys.readouterr().out)
    assert len(rates) == 3
    assert float(rates[-1]) > 85
    tuned = slimport.pytorch.load(pretrained / "tuned.safetensors")
    assert tuned.network.num_classes == 2
    convert(pretrained / "tuned.safetensors", pretrained / "tuned.ckpt")
    assert verify(pretrained / "tuned.ckpt", pretrained / "tuned.safetensors", size=(32, 32)).ok

    import keras

    keras.utils.set_random_seed(0)
    exec(compile(in_keras, "fine_tuning.md", "exec"), {})
    assert float(re.findall(r"'accuracy': ([\d.]+)", capsys.readouterr().out)[-1]) > 0.85
