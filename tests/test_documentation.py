"""The code on the pages runs as it stands there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch
from conftest import ROOT, random_images

import slimport.pytorch
from converters import convert, verify
from scripts import api_reference
from scripts.make_checkpoint import save_without_tensorflow
from scripts.studies import grad_cam
from slimport import networks


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
    rates = re.findall(
        r"^(?:step \d+: loss [\d.]+,|moving averages computed again:) ([\d.]+)% of", capsys.readouterr().out, re.M
    )
    assert len(rates) == 4
    assert min(map(float, rates[2:])) > 85
    tuned = slimport.pytorch.load(pretrained / "tuned.safetensors")
    assert tuned.network.num_classes == 2
    convert(pretrained / "tuned.safetensors", pretrained / "tuned.ckpt")
    assert verify(pretrained / "tuned.ckpt", pretrained / "tuned.safetensors", size=(32, 32)).ok

    import keras

    keras.utils.set_random_seed(0)
    exec(compile(in_keras, "fine_tuning.md", "exec"), {})
    assert float(re.findall(r"'accuracy': ([\d.]+)", capsys.readouterr().out)[-1]) > 0.85


def test_grad_cam_finds_what_the_class_is_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four = [networks.resnet_v2_block(f"block{number}", 8, 1, stride) for number, stride in enumerate((2, 2, 2, 1), 1)]
    save_without_tensorflow(networks.ResNetV2(tuple(four), 10), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    images, labels = torch.from_numpy(random_images((2, 3, 96, 96))), torch.tensor([3, 7])
    found = {"images": images, "labels": labels}
    exec(compile(blocks("grad_cam.md")[0], "grad_cam.md", "exec"), found)
    assert found["features"].shape[2:] == (12, 12)
    heat = found["heat"][:, 0] / found["heat"].amax((1, 2, 3))[:, None, None]
    model = slimport.pytorch.load("model.safetensors", output_stride=8)
    torch.testing.assert_close(grad_cam.grad_cam(model, images, labels), heat.detach())


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """A module, its public functions and classes, and their public methods and properties, by name."""
    yield module.__name__, module
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    for name in getattr(module, "__all__", [name for name in own if not name.startswith("_")]):
        value = vars(module)[name]
        if inspect.isfunction(value) or inspect.isclass(value):
            yield f"{module.__name__}.{name}", value
        if inspect.isclass(value):
            for member, defined in vars(value).items():
                if not member.startswith("_") and isinstance(defined, (FunctionType, property, classmethod)):
                    yield f"{module.__name__}.{name}.{member}", getattr(value, member)


def test_every_public_name_has_a_docstring() -> None:
    names = {name: value for module in api_reference.modules() for name, value in public(module)}
    assert len(names) > 100
    assert [name for name, value in names.items() if not inspect.getdoc(value)] == []
