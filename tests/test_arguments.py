"""What a network was built with is in every file that is made of it, and every command respects it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL

import slimport.pytorch
from converters import convert, load_keras, load_pytorch
from converters.errors import InputError
from converters.weights.source import open_source
from slimport.pytorch import training

ARGUMENTS = {"output_stride": 4, "global_pool": False, "spatial_squeeze": False}
FILES = ("m.safetensors", "m.pth", "m.pt", "m.pt2", "m.onnx", "m.keras", "m.weights.h5", "m.ckpt", "folder")


@pytest.fixture(scope="module")
def built() -> slimport.pytorch.Network:
    model = slimport.pytorch.build(SMALL, scope="net", **ARGUMENTS)
    training.initialize(model, torch.Generator().manual_seed(0))
    return model.eval()


@pytest.fixture(scope="module")
def saved(built: slimport.pytorch.Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "a.safetensors"
    slimport.pytorch.save(built, path)
    return path


@pytest.mark.parametrize("name", FILES)
def test_every_format_keeps_them(name: str, built: slimport.pytorch.Network, saved: Path, tmp_path: Path) -> None:
    convert(saved, tmp_path / name, to="huggingface" if name == "folder" else None)
    with open_source(tmp_path / name) as source:
        assert source.arguments == ARGUMENTS
        assert (source.network, source.scope) == (SMALL, "net")
    convert(tmp_path / name, tmp_path / "back.safetensors")
    model = slimport.pytorch.load(tmp_path / "back.safetensors")
    images = torch.randn((2, 3, 33, 46), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(model(images), built(images))


def test_they_are_defaults_that_a_user_can_change(saved: Path) -> None:
    images = torch.zeros(1, 3, 64, 64)
    assert load_pytorch(saved)(images).shape == (1, 7, 16, 16)
    assert load_pytorch(saved, output_stride=None)(images).shape == (1, 7, 8, 8)
    images = np.zeros((1, 64, 64, 3), np.float32)
    assert load_keras(saved)(images).shape == (1, 16, 16, 7)
    assert load_keras(saved, global_pool=True)(images).shape == (1, 1, 1, 7)


def test_a_state_dict_is_a_plain_one(built: slimport.pytorch.Network, saved: Path, tmp_path: Path) -> None:
    convert(saved, tmp_path / "m.pth")
    state = torch.load(tmp_path / "m.pth", weights_only=True)
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    slimport.pytorch.build(SMALL).load_state_dict(state)
    assert state.keys() == {n for n in built.state_dict() if not n.endswith("num_batches_tracked")}


def test_a_folder_whose_description_is_not_that_of_its_weights_is_refused(saved: Path, tmp_path: Path) -> None:
    convert(saved, tmp_path / "folder", to="huggingface")
    config = tmp_path / "folder/config.json"
    config.write_text(config.read_text().replace('"num_classes": 7', '"num_classes": 9', 1))
    with pytest.raises(InputError, match=r"its .num_classes. is not that of model\.safetensors"):
        load_pytorch(tmp_path / "folder")
