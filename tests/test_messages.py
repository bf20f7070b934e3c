"""What a newcomer does wrong, or meets: it works as meant, or one line says what to do."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, SMALL_V1, Run
from PIL import Image

from converters import InputError, convert, inspect, load_pytorch, open_checkpoint, predict
from converters.checkpoint import write_checkpoint
from converters.formats import pickled
from converters.parity import verification
from converters.weights.selection import EVERYTHING
from converters.weights.user_graph import BESIDE
from scripts.make_checkpoint import save_without_tensorflow

Slimport = Callable[..., Run]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with small networks of two scopes, each alone and both in one file."""
    monkeypatch.chdir(tmp_path)
    save_without_tensorflow(SMALL, Path("small.ckpt"))
    save_without_tensorflow(replace(SMALL, num_classes=5), Path("other.ckpt"), scope="a/encoder")
    write_checkpoint("both.ckpt", {**open_checkpoint("small.ckpt"), **open_checkpoint("other.ckpt")})
    return tmp_path


def error_of(run: Run) -> str:
    """The one line on stderr of a command that refused its input."""
    assert (run.code, run.out, run.err.count("\n")) == (2, "", 1), run
    return run.err


def test_a_run_without_its_checkpoint_file_is_chosen_by_its_step(slimport: Slimport) -> None:
    for step in (200, 1000):
        for path in Path().glob("small.ckpt.*"):
            Path("run").mkdir(exist_ok=True)
            shutil.copy(path, f"run/{path.name.replace('ckpt', f'ckpt-{step}')}")
    error = error_of(slimport("inspect", "run"))
    assert error.endswith("small.ckpt-1000, small.ckpt-200; name one of them, or its step, such as --step 1000\n")
    assert "read: small.ckpt-1000" in slimport("inspect", "run", "--step", "1000").out


def test_a_full_disk_is_said(slimport: Slimport, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pickled, "write", full)
    error = error_of(slimport("convert", "small.ckpt", "m.pth"))
    assert error.endswith("m.pth: cannot be written: No space left on device; make room, or choose another disk\n")
    assert not list(Path().glob("m.*"))


def test_a_folder_may_have_a_files_name(slimport: Slimport) -> None:
    Path("x.safetensors").mkdir()
    assert "x.safetensors: no checkpoint in it" in error_of(slimport("convert", "x.safetensors", "y.pth"))
    Path("x.safetensors").rmdir()
    convert("small.ckpt", "x.safetensors", to="huggingface")
    assert inspect("x.safetensors").recognition is not None


def test_an_unknown_network_is_named_by_its_scope_and_inspect_does_not_lead_to_inspect(slimport: Slimport) -> None:
    names = [f"MobilenetV2/stage_{index}/kernel" for index in range(40)]
    write_checkpoint("own.ckpt", {name: np.zeros(3, np.float32) for name in names})
    run = slimport("inspect", "own.ckpt")
    model = "\nmodel: none: no network that slimport knows among its 40 variables; scope 'MobilenetV2' is named like "
    assert f"{model}MobileNet v2, but its layers are other ones\n" in run.out
    assert "slimport inspect" not in run.out
    assert error_of(slimport("convert", "own.ckpt", "y.pth")).endswith("; 'slimport inspect' lists its variables\n")
    assert "slimport inspect" not in error_of(slimport("inspect", "own.ckpt", "--scope", "MobilenetV2"))


def test_two_names_in_common_are_no_resemblance() -> None:
    weights = {name: np.zeros(shape, np.float32) for name, shape in list(SMALL.variables().items())[:2]}
    write_checkpoint("own.ckpt", {**weights, **{f"net/{i}/weights": np.zeros(3, np.float32) for i in range(270)}})
    assert inspect("own.ckpt").nearest is None


def test_verify_takes_the_scope_that_the_converted_file_remembers() -> None:
    convert("both.ckpt", "m.safetensors", scope="a/encoder")
    which = None, None, EVERYTHING, BESIDE
    with verification._opened("both.ckpt", "m.safetensors", which) as opened:
        assert (opened.scope, opened.network.num_classes) == ("a/encoder", 5)
    # Of one network, another scope in the file is only its name there.
    convert("small.ckpt", "s.safetensors")
    convert("s.safetensors", "renamed.safetensors", scope="mine")
    with verification._opened("small.ckpt", "renamed.safetensors", which) as opened:
        assert opened.scope == "resnet_v2"
    with pytest.raises(InputError, match="choose one with --scope"), verification._opened("both.ckpt", None, which):
        pass


def test_names_of_tensors_are_names_of_variables() -> None:
    small = dict(open_checkpoint("small.ckpt"))
    write_checkpoint("tensors.ckpt", {f"{name}:0": array for name, array in small.items()})
    convert("tensors.ckpt", "m.safetensors")
    convert("small.ckpt", "expected.safetensors")
    for one, expected in zip(
        *(load_pytorch(f"{name}.safetensors").parameters() for name in ("m", "expected")), strict=True
    ):
        assert one.equal(expected)
    # A name that is there without it is another variable.
    write_checkpoint("two.ckpt", {**small, "resnet_v2/logits/biases:0": np.zeros(9, np.float32)})
    assert inspect("two.ckpt").recognition.complete


def test_a_crop_that_is_too_large_leads_to_resize_side(slimport: Slimport) -> None:
    save_without_tensorflow(SMALL_V1, Path("v1.ckpt"))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save("cat.png")
    assert "(--resize-side 299)" in error_of(slimport("predict", "v1.ckpt", "cat.png", "--size", "299"))
    run = slimport("predict", "v1.ckpt", "cat.png", "--size", "299", "--resize-side", "299", "--json")
    assert json.loads(run.out)["size"] == [299, 299]
    error = error_of(slimport("predict", "small.ckpt", "cat.png", "--resize-side", "299"))
    assert "inception preprocessing resizes to --size at once" in error


def test_a_model_in_memory_and_one_image_by_its_name_are_predicted() -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save("cat.png")
    found = predict("small.ckpt", "cat.png", size=40)
    assert repr(found) == "<Predictions of resnet_v2 for 1 image>"
    model = load_pytorch("small.ckpt")
    assert predict(model, Path("cat.png"), size=(40, 40)) == found
    assert predict(model.double(), ["cat.png"], size=40).images[0].top[0].index == found.images[0].top[0].index
    with pytest.raises(InputError, match=r"call its eval\(\) first"):
        predict(model.train(), "cat.png")
    with pytest.raises(InputError, match="predict takes a file, or a network of"):
        predict(object(), "cat.png")
