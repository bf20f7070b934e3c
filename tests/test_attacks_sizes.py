"""Files are written a tensor at a time, and are what PyTorch's and Keras's own writers make of the same weights."""

from __future__ import annotations

import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import SMALL, random_weights

from converters import InputError, conversion, convert, files, load_keras
from converters.checkpoint import open_checkpoint, write_checkpoint
from converters.formats import Weights, target_of
from converters.formats.keras_weights import _Pages
from scripts.studies import attack_sizes

# Of the large tensor, in bytes, and of a part of it.
LARGE, PIECE = 32 << 20, 1 << 20


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network as a V2 checkpoint."""
    path = tmp_path_factory.mktemp("sizes") / "a.ckpt"
    write_checkpoint(path, {f"resnet_v2/{name}": a for name, a in random_weights(SMALL).items()})
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a network with one large tensor, `m.ckpt`, and of a small one, `small.ckpt`."""
    folder = tmp_path_factory.mktemp("large")
    classes = LARGE // 4 // attack_sizes._DEPTH
    write_checkpoint(folder / "m.ckpt", attack_sizes.variables(classes))
    write_checkpoint(folder / "small.ckpt", attack_sizes.variables(7))
    return folder


@pytest.mark.parametrize(("source", "destination"), attack_sizes.CONVERSIONS[:3] + attack_sizes.CONVERSIONS[4:-1])
def test_a_conversion_takes_the_memory_of_its_largest_tensor(
    source: str, destination: str, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PIECE", PIECE)
    # What is imported and compiled, once.
    convert(large / "small.ckpt", large / f"other{destination[1:]}")
    tracemalloc.start()
    try:
        convert(large / source, large / destination)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert LARGE < peak < LARGE + (12 << 20), peak / 2**20
    assert attack_sizes.has_the_tensor(large / destination, LARGE // 4 // attack_sizes._DEPTH)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_a_state_dict_is_pickled_as_pytorch_does(dtype: str, checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "m.pth", dtype=dtype)
    state = torch.load(tmp_path / "m.pth", weights_only=True)
    mapped = torch.load(tmp_path / "m.pth", weights_only=True, mmap=True)
    assert all(torch.equal(tensor, mapped[name]) for name, tensor in state.items())
    (tmp_path / "torch").mkdir()
    torch.save(state, tmp_path / "torch" / "m.pth")
    with zipfile.ZipFile(tmp_path / "m.pth") as ours, zipfile.ZipFile(tmp_path / "torch" / "m.pth") as theirs:
        names = ours.namelist()
        assert len(names) == len(state) + 3
        for name in names:
            assert ours.read(name) == theirs.read(name), name
        with (tmp_path / "m.pth").open("rb") as file:
            for info in ours.infolist():
                file.seek(info.header_offset + 26)
                lengths = np.frombuffer(file.read(4), "<u2")
                assert (info.header_offset + 30 + lengths.sum()) % 64 == 0


def test_a_member_of_more_than_4_gib_has_a_header_that_says_so(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    convert(checkpoint, tmp_path / "m.pth")
    monkeypatch.undo()
    convert(checkpoint, tmp_path / "small.pth")
    state, small = (torch.load(tmp_path / name, weights_only=True) for name in ("m.pth", "small.pth"))
    assert all(torch.equal(tensor, small[name]) for name, tensor in state.items())
    assert (tmp_path / "m.pth").stat().st_size > (tmp_path / "small.pth").stat().st_size
    convert(tmp_path / "m.pth", tmp_path / "m.safetensors")


def content(file: h5py.File) -> dict[str, Any]:
    """Every group and dataset of an HDF5 file, with its attributes and its values."""
    found: dict[str, Any] = {}
    # The name of an input is a number more with each model of a process.
    inputs = "layers/input_layer/vars"

    def visit(name: str, one: Any) -> None:
        values = (one.dtype.str, one.shape, np.asarray(one[()]).tobytes()) if isinstance(one, h5py.Dataset) else None
        found[name] = dict(one.attrs) if name != inputs else list(one.attrs), values

    file.visititems(visit)
    return found


def test_weights_are_where_keras_puts_them(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "m.weights.h5", dtype="float64")
    convert(checkpoint, tmp_path / "m.keras", dtype="float64")
    model = load_keras(tmp_path / "m.weights.h5")
    model.save(tmp_path / "theirs.keras")
    with (
        h5py.File(tmp_path / "m.weights.h5") as weights,
        zipfile.ZipFile(tmp_path / "m.keras") as ours,
        zipfile.ZipFile(tmp_path / "theirs.keras") as theirs,
        h5py.File(ours.open("model.weights.h5")) as archived,
        h5py.File(theirs.open("model.weights.h5")) as expected,
    ):
        everything = content(expected)
        assert len(everything) > 50
        assert content(archived) == everything
        assert {name: one for name, one in content(weights).items() if name != "slimport"} == everything
        assert set(ours.namelist()) == {*theirs.namelist(), "slimport.json"}


def test_a_model_without_values_leaves_nothing_to_keras(checkpoint: Path, tmp_path: Path) -> None:
    from keras.src.backend.common import global_state

    convert(checkpoint, tmp_path / "m.keras")
    assert not global_state.get_global_attribute("uninitialized_variables")


def test_a_file_in_memory_is_as_on_the_disk(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pages = _Pages()
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        for _ in range(200):
            offset, some = int(generator.integers(50_000)), generator.bytes(int(generator.integers(9000)))
            assert pages.seek(offset) == file.seek(offset)
            assert pages.write(some) == file.write(some)
            offset = int(generator.integers(60_000))
            assert pages.seek(offset) == file.seek(offset)
            assert pages.read(3000) == file.read(3000)
            assert pages.tell() == file.tell()
        assert pages.seek(0, 2) == file.seek(0, 2)
        pages.truncate(40_000), file.truncate(40_000)
    with (tmp_path / "copy").open("wb") as copy:
        pages.copy(copy)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()


def test_a_file_that_cannot_be_so_large_is_refused_before_any_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(_: Weights, path: Path) -> None:
        path.write_text("written")

    with open_checkpoint(checkpoint) as opened:
        size = sum(array.nbytes for array in opened.values())
    for largest in (size - 1, size):
        target = replace(target_of(Path("m.onnx")), largest=largest, write=written)
        monkeypatch.setattr(conversion, "target_of", lambda *_, target=target: target)
        if largest == size:
            convert(checkpoint, tmp_path / "m.onnx")
            assert (tmp_path / "m.onnx").read_text() == "written"
        else:
            with pytest.raises(InputError, match=r"m\.onnx: .* GB of weights; .* at most: convert to \.pt2"):
                convert(checkpoint, tmp_path / "m.onnx", dtype="float32")
            assert not (tmp_path / "m.onnx").exists()
