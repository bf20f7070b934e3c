"""Every form of a converted network holds the same numbers; the Hugging Face folder says what they are."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import SMALL, random_images, random_weights
from PIL import Image

import slimport.pytorch
from converters import InputError, convert, frameworks, load_pytorch, verify
from converters.batch import convert_all
from converters.checkpoint import write_checkpoint
from converters.cli import cli
from converters.formats import huggingface
from converters.weights.source import open_source
from slimport import networks, preprocessing

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf

# Names of outputs, and what they are converted with.
FORMS: dict[str, dict[str, str]] = {
    "m.safetensors": {},
    "m.pth": {},
    "m.keras": {},
    "m.weights.h5": {},
    "m.ckpt": {},
    "folder": {"to": "huggingface"},
}
# These take seconds to write and to read: from slim and back alone.
PROGRAMS: dict[str, dict[str, str]] = {"m.pt2": {}, "m.onnx": {}}
PAIRS = [*itertools.product(FORMS, FORMS), *((program, "m.ckpt") for program in PROGRAMS)]
FILES = ("config.json", "model.safetensors", "preprocessor_config.json")


@pytest.fixture(scope="module")
def forms(small_v2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one checkpoint in every form."""
    folder = tmp_path_factory.mktemp("forms")
    for name, options in (FORMS | PROGRAMS).items():
        convert(small_v2, folder / name, **options)
    return folder


@pytest.mark.parametrize(("there", "back"), PAIRS)
def test_every_form_becomes_every_other_bit_for_bit(
    there: str, back: str, forms: Path, small_v2: Path, tmp_path: Path
) -> None:
    convert(forms / there, tmp_path / back, scope="resnet_v2", **FORMS[back])
    reader = tf.train.load_checkpoint(str(small_v2))
    with open_source(tmp_path / back, "resnet_v2") as source:
        arrays = source.arrays()
    assert {f"resnet_v2/{name}" for name in arrays} == set(reader.get_variable_to_shape_map())
    for name, array in arrays.items():
        expected = reader.get_tensor(f"resnet_v2/{name}")
        assert (array.dtype, array.tobytes()) == (expected.dtype, expected.tobytes())


def test_a_folder_is_loaded_verified_and_inspected(forms: Path, small_v2: Path) -> None:
    assert sorted(path.name for path in (forms / "folder").iterdir()) == sorted(FILES)
    images = torch.from_numpy(random_images((1, 3, 33, 40)))
    model = slimport.pytorch.load(forms / "folder")
    assert torch.equal(model(images), load_pytorch(small_v2)(images))
    assert verify(small_v2, forms / "folder", size=(33, 40)).ok
    inspected = CliRunner().invoke(cli, ["inspect", str(forms / "folder")]).output
    assert "resnet_v2, 7 classes" in inspected
    config = json.loads((forms / "folder" / "config.json").read_text())
    assert networks.from_json(config["slimport"]["network"]) == SMALL
    assert config["slimport"]["scope"] == "resnet_v2"
    assert (config["architecture"], config["num_classes"], config["dtype"]) == ("resnet_v2", 7, "float32")
    assert "id2label" not in config


def test_a_checkpoint_that_was_written_runs_in_tf_slim_as_the_source(
    forms: Path, small_v2: Path, tmp_path: Path
) -> None:
    report = verify(small_v2, forms / "m.ckpt", size=(33, 40))
    assert (report.ok, report.target, report.worst.rel_l2) == (True, "slim", 0)
    assert report.backend == f"TF-Slim on tensorflow {tf.__version__}"
    assert report.weights_compared == len(SMALL.variables())
    weights = {f"resnet_v2/{name}": array for name, array in random_weights(SMALL, seed=1).items()}
    write_checkpoint(tmp_path / "other", weights)
    report = verify(small_v2, tmp_path / "other.index", size=(33, 40))
    assert not report.ok
    assert report.first_difference == "resnet_v2/conv1"
    assert len(report.weights_different) == len(weights)


@pytest.mark.parametrize("num_classes", [1000, 1001])
def test_every_class_of_imagenet_has_a_name_of_its_own(num_classes: int, tmp_path: Path) -> None:
    network = SMALL.with_classes(num_classes)
    write_checkpoint(tmp_path / "c", {f"net/{name}": array for name, array in random_weights(network).items()})
    convert(tmp_path / "c", tmp_path / "folder", "huggingface")
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert len(config["id2label"]) == len(config["label2id"]) == num_classes
    assert {str(index): name for name, index in config["label2id"].items()} == config["id2label"]
    assert config["id2label"][str(num_classes - 1)] == "toilet tissue, toilet paper, bathroom tissue"
    cranes = [name for name in config["label2id"] if name.startswith("crane")]
    assert cranes == ["crane (n02012849)", "crane (n03126707)"]


def processed(image: Any, config: dict[str, Any]) -> Any:
    """What transformers' BitImageProcessor does, by its configuration; float, [height, width, channels]."""
    size = config["size"]
    if "shortest_edge" in size:
        scale = size["shortest_edge"] / min(image.shape[:2])
        size = {"height": round(image.shape[0] * scale), "width": round(image.shape[1] * scale)}
    resized = Image.fromarray(image).resize((size["width"], size["height"]), config["resample"])
    height, width = config["crop_size"]["height"], config["crop_size"]["width"]
    top, left = (size["height"] - height) // 2, (size["width"] - width) // 2
    pixels = np.asarray(resized)[top : top + height, left : left + width] * config["rescale_factor"]
    return (pixels - config["image_mean"]) / config["image_std"]


@pytest.mark.parametrize("name", ["inception", "vgg"])
def test_the_preprocessor_sees_what_slims_sees(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(SMALL), "preprocessing", name)
    monkeypatch.setattr(type(SMALL), "evaluation_size", preprocessing.PREPROCESSINGS[name].default_size)
    config = huggingface.preprocessor_config(SMALL)
    assert config
    rows, columns = np.mgrid[0:300, 0:420]
    # Smooth, so that how pixels are weighted hardly matters, and other than its mirror images.
    image = np.stack([rows * 0.8, columns * 0.6, (rows + columns) * 0.3], -1).astype(np.uint8)
    slims = preprocessing.PREPROCESSINGS[name].function(image)
    mine = processed(image, config)
    assert mine.shape == slims.shape
    scale = 255 * 2 / 255 if name == "inception" else 255
    assert np.abs(mine - slims).max() < 0.012 * scale


def test_what_has_no_preprocessing_of_slims_has_no_preprocessor(monkeypatch: pytest.MonkeyPatch) -> None:
    grey = replace(SMALL, in_channels=1)
    config = huggingface.preprocessor_config(grey)
    assert config
    assert (config["image_mean"], config["do_convert_rgb"]) == ((0.5,), False)
    monkeypatch.setattr(type(SMALL), "preprocessing", "vgg")
    assert huggingface.preprocessor_config(grey) is None


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_replaced_whole_or_not_at_all(
    small_v2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(small_v2, tmp_path / "folder", "huggingface")
    before = listing(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(huggingface, "preprocessor_config", full)
        for target in (tmp_path / "folder", tmp_path / "new"):
            with pytest.raises(InputError, match=rf"{target.name}: cannot be written: No space left on device"):
                convert(small_v2, target, "huggingface")
    with monkeypatch.context() as patch:
        # Where folders cannot be exchanged: the old one moves aside, the new one cannot take its place, and the old
        # one goes back.
        patch.setattr(slimport.files, "_exchanged_at_once", lambda *_: False)
        renames = iter([Path.rename, full, Path.rename])
        patch.setattr(Path, "rename", lambda *paths: next(renames)(*paths))
        with pytest.raises(InputError, match="cannot be written: No space left on device"):
            convert(small_v2, tmp_path / "folder", "huggingface", dtype="float16")
        assert not list(renames)
    assert listing(tmp_path) == before
    convert(small_v2, tmp_path / "folder", "huggingface", dtype="float16")
    assert listing(tmp_path) != before
    assert list(listing(tmp_path)) == list(before)


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_text("precious")])
def test_what_is_not_a_conversions_is_never_replaced(
    make: Callable[[Path], None], small_v2: Path, tmp_path: Path
) -> None:
    target = tmp_path / "folder"
    make(target)
    if target.is_dir():
        (target / "README.md").write_text("precious")
    before = listing(tmp_path)
    with pytest.raises(InputError, match=r"folder: (contains README\.md, which|is a file, and)"):
        convert(small_v2, target, "huggingface")
    assert listing(tmp_path) == before


def test_a_folder_is_not_written_over_itself(forms: Path) -> None:
    before = listing(forms)
    with pytest.raises(InputError, match="is the source itself"):
        convert(forms / "folder", forms / "folder", "huggingface", dtype="float16")
    assert listing(forms) == before


def test_the_command_makes_one_folder_and_a_batch_makes_many(small_v2: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["convert", str(small_v2), f"{tmp_path}/one/", "--to", "huggingface"])
    assert done.output.startswith(f"{tmp_path}/one: resnet_v2, 7 classes")
    assert sorted(listing(tmp_path / "one")) == sorted(FILES)
    [outcome] = convert_all(small_v2, tmp_path / "many", to="huggingface", workers=1)
    assert outcome.status == "converted"
    assert listing(tmp_path / "many" / "small") == listing(tmp_path / "one")
    [outcome] = convert_all(small_v2, tmp_path / "many", to="huggingface", workers=1)
    assert outcome.status == "skipped"
