"""Preprocessing: bit for bit what TensorFlow's functions make of real photographs, in NumPy and in PyTorch."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
from conftest import ROOT
from PIL import Image

from converters import frameworks
from slimport import networks, preprocessing
from slimport.pytorch.preprocessing import Cifarnet, Deeplab, Facenet, Inception, Lenet, Vgg, resize_bilinear

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf

PHOTOS = {
    Path(name).stem: image
    for name, image in zip(
        sklearn.datasets.load_sample_images().filenames, sklearn.datasets.load_sample_images().images, strict=True
    )
}
# Of the 427x640 photographs: as they are, even and odd sides, wide, tall, and smaller than what is made of them.
CROPS = [(427, 640), (426, 639), (100, 77), (427, 101)]


def tf_inception(image: Any, height: int, width: int) -> Any:
    """`inception_preprocessing.preprocess_for_eval`, from the same TensorFlow functions."""
    pixels = tf.image.convert_image_dtype(image, tf.float32)
    pixels = tf.image.central_crop(pixels, 0.875)
    pixels = tf.image.resize_bilinear(pixels[None], [height, width], align_corners=False)[0]
    return tf.multiply(tf.subtract(pixels, 0.5), 2.0).numpy()


def tf_vgg(
    image: Any, height: int, width: int, resize_side: int = 256, means: tuple[float, ...] = (123.68, 116.78, 103.94)
) -> Any:
    """`vgg_preprocessing.preprocess_for_eval`, from the same TensorFlow functions."""
    old_height, old_width, _ = (tf.cast(side, tf.float32) for side in image.shape)
    scale = tf.cast(resize_side, tf.float32) / (old_width if old_height > old_width else old_height)
    new_height, new_width = (tf.cast(tf.rint(side * scale), tf.int32) for side in (old_height, old_width))
    pixels = tf.image.resize_bilinear(image[None], [new_height, new_width], align_corners=False)[0]
    top, left = (tf.cast(free / 2, tf.int32) for free in (new_height - height, new_width - width))
    return (tf.slice(pixels, [top, left, 0], [height, width, 3]) - tf.constant(means)).numpy()


@pytest.mark.parametrize("crop", CROPS, ids=str)
@pytest.mark.parametrize("photo", PHOTOS)
def test_both_are_bit_equal_to_tensorflow_in_numpy_and_in_pytorch(photo: str, crop: tuple[int, int]) -> None:
    image = PHOTOS[photo][: crop[0], : crop[1]]
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)
    for size in (299, 224, (225, 240)):
        height, width = preprocessing.sides(size)
        slim = tf_inception(image, height, width)
        np.testing.assert_array_equal(preprocessing.inception(image, size), slim)
        np.testing.assert_array_equal(Inception(size)(tensor).permute(1, 2, 0).numpy(), slim)
    for size in (224, (225, 240)):
        slim = tf_vgg(image, *preprocessing.sides(size))
        np.testing.assert_array_equal(preprocessing.vgg(image, size), slim)
        np.testing.assert_array_equal(Vgg(size)(tensor).permute(1, 2, 0).numpy(), slim)


def test_deeplabs_subtracts_its_own_means() -> None:
    image = PHOTOS["china"]
    slim = tf_vgg(image, 224, 224, means=(123.15, 115.90, 103.06))
    np.testing.assert_array_equal(preprocessing.deeplab(image), slim)
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)
    np.testing.assert_array_equal(Deeplab()(tensor).permute(1, 2, 0).numpy(), slim)
    assert networks.NETWORKS["resnet_v1_18"].preprocessing == "deeplab"
    assert networks.NETWORKS["resnet_v1_18_beta"].preprocessing == "inception"


def test_the_resize_is_bit_equal_to_tensorflow_at_every_small_size() -> None:
    image = PHOTOS["china"][:31, :37]
    for side in range(1, 80, 2):
        size = (side, 80 - side)
        slim = tf.image.resize_bilinear(image[None], size)[0].numpy()
        np.testing.assert_array_equal(preprocessing.resize_bilinear(image, size), slim)
        ported = resize_bilinear(torch.from_numpy(image.copy()).permute(2, 0, 1), size)
        np.testing.assert_array_equal(ported.permute(1, 2, 0).numpy(), slim)


def test_slims_rounding_of_the_resized_side_is_followed_at_every_aspect() -> None:
    for height in range(200, 700, 3):
        scale = tf.constant(256.0) / min(height, 500)
        slim = tuple(int(tf.rint(tf.cast(side, tf.float32) * scale)) for side in (height, 500))
        assert preprocessing.smallest_size_at_least((height, 500), 256) == slim


def test_floating_point_images_are_taken_in_the_ranges_that_slim_takes() -> None:
    image = PHOTOS["flower"]
    unit = tf.image.convert_image_dtype(image, tf.float32).numpy()
    np.testing.assert_array_equal(preprocessing.inception(unit), preprocessing.inception(image))
    np.testing.assert_array_equal(preprocessing.vgg(image.astype(np.float32)), preprocessing.vgg(image))


def test_a_transform_takes_pictures_and_batches_and_travels_to_the_workers_of_a_loader() -> None:
    image = PHOTOS["china"]
    for transform, function in ((Inception(), preprocessing.inception), (Vgg(), preprocessing.vgg)):
        expected = function(image).transpose(2, 0, 1)
        copy = pickle.loads(pickle.dumps(transform))
        np.testing.assert_array_equal(copy(Image.fromarray(image)).numpy(), expected)
        gray = np.repeat(np.asarray(Image.fromarray(image).convert("L"))[..., None], 3, axis=2)
        np.testing.assert_array_equal(
            copy(Image.fromarray(image).convert("L")).numpy(), function(gray).transpose(2, 0, 1)
        )
        batch = torch.from_numpy(np.stack([image, image[::-1]])).permute(0, 3, 1, 2)
        np.testing.assert_array_equal(copy(batch)[0].numpy(), expected)


@pytest.mark.parametrize("crop", [*CROPS, (21, 33)], ids=str)
def test_those_of_small_images_are_tensorflows(crop: tuple[int, int]) -> None:
    image = PHOTOS["china"][: crop[0], : crop[1]]
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)
    for size in (28, (32, 31)):
        cut = tf.image.resize_image_with_crop_or_pad(tf.cast(image, tf.float32), *preprocessing.sides(size))
        ones = ((cut - 128.0) / 128.0).numpy()
        np.testing.assert_array_equal(preprocessing.lenet(image, size), ones)
        np.testing.assert_array_equal(Lenet(size)(tensor).permute(1, 2, 0).numpy(), ones)
        ones = tf.image.per_image_standardization(cut).numpy()
        np.testing.assert_allclose(preprocessing.cifarnet(image, size), ones, rtol=0, atol=2e-6)
        np.testing.assert_allclose(Cifarnet(size)(tensor).permute(1, 2, 0).numpy(), ones, rtol=0, atol=2e-6)


def test_facenets_is_its_prewhiten() -> None:
    image = PHOTOS["flower"][:160, :160]
    x = image.astype(np.float64)
    prewhitened = (x - x.mean()) / max(x.std(), 1 / np.sqrt(x.size))
    np.testing.assert_allclose(preprocessing.facenet(image), prewhitened, rtol=0, atol=1e-6)
    batch = torch.from_numpy(np.stack([image, image[::-1]])).permute(0, 3, 1, 2)
    np.testing.assert_allclose(Facenet()(batch)[0].permute(1, 2, 0).numpy(), prewhitened, rtol=0, atol=1e-6)
    flat = np.full((160, 160, 3), 7, np.uint8)
    assert not preprocessing.facenet(flat).any()


def test_the_whole_image_may_be_taken() -> None:
    pixels = tf.image.convert_image_dtype(PHOTOS["china"], tf.float32)
    slim = tf.multiply(tf.subtract(tf.image.resize_bilinear(pixels[None], [224, 224])[0], 0.5), 2.0).numpy()
    np.testing.assert_array_equal(preprocessing.inception_no_crop(PHOTOS["china"], 224), slim)


def test_pillows_resize_is_another_image() -> None:
    image = PHOTOS["china"]
    slim = preprocessing.resize_bilinear(image, 224)
    pillow = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR), np.float32)
    assert np.abs(slim - pillow).mean() > 2, "of 255 levels; the docs say why it matters"


def test_pillow_decodes_a_jpeg_as_tensorflow_does_with_its_accurate_transform() -> None:
    for name in sklearn.datasets.load_sample_images().filenames:
        path = next(Path(sklearn.datasets.__file__).parent.rglob(Path(name).name))
        pillow = np.asarray(Image.open(path).convert("RGB"))
        accurate = tf.image.decode_jpeg(path.read_bytes(), dct_method="INTEGER_ACCURATE").numpy()
        np.testing.assert_array_equal(pillow, accurate)


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="a crop of 299x299 from an image resized to 256x384"):
        preprocessing.vgg(PHOTOS["china"], 299)
    with pytest.raises(ValueError, match=r"must be \[height, width, channels\]"):
        preprocessing.inception(PHOTOS["china"][..., 0])


def test_it_needs_numpy_alone() -> None:
    code = "import sys, slimport.preprocessing; print(sorted({'torch', 'PIL', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).strip() == "[]"
