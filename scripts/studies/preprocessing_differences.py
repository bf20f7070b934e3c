"""How far other ways to decode and resize a photograph are from what slim's networks were trained on.

    python -m scripts.studies.preprocessing_differences

Prints the tables of docs/preprocessing.md, from scikit-learn's two sample photographs. Differences are of levels of
255; rel_l2 is ||other - slim|| / ||slim|| of what the network gets, in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
import torch
from PIL import Image

from converters import frameworks
from slimport import preprocessing
from slimport.pytorch.preprocessing import Inception, Vgg

SIZE = 299


def photographs() -> list[Path]:
    """The JPEG files that scikit-learn ships."""
    names = sklearn.datasets.load_sample_images().filenames
    return [next(Path(sklearn.datasets.__file__).parent.rglob(Path(name).name)) for name in names]


def slim_inception(tf: Any, pixels: Any) -> Any:
    """slim's `inception` with TensorFlow's functions."""
    image = tf.image.central_crop(tf.image.convert_image_dtype(pixels, tf.float32), 0.875)
    return (tf.compat.v1.image.resize_bilinear(image[None], [SIZE, SIZE])[0].numpy() - np.float32(0.5)) * np.float32(2)


def slim_vgg(tf: Any, pixels: Any) -> Any:
    """slim's `vgg` with TensorFlow's functions."""
    height, width = preprocessing.smallest_size_at_least(pixels.shape[:2], 256)
    image = tf.compat.v1.image.resize_bilinear(pixels[None], [height, width])[0].numpy()
    top, left = (height - 224) // 2, (width - 224) // 2
    return image[top : top + 224, left : left + 224] - np.array([123.68, 116.78, 103.94], np.float32)


def row(what: str, other: Any, slim: Any, levels: float) -> None:
    """A line of a table; `levels` is what a difference of 1 is worth."""
    difference = np.abs(other.astype(np.float64) - slim)
    rel_l2 = np.linalg.norm(difference) / np.linalg.norm(slim.astype(np.float64))
    print(f"| {what} | {difference.mean() * levels:.2f} | {difference.max() * levels:.1f} | {rel_l2:.1e} |")


def main() -> None:
    frameworks.require("slimport.nets")
    import tensorflow as tf

    resizes: dict[str, Callable[[Any], Any]] = {
        "`tf.image.resize` of TensorFlow 2": lambda x: tf.image.resize(x, [SIZE, SIZE]).numpy(),
        "`tf.image.resize`, antialias": lambda x: tf.image.resize(x, [SIZE, SIZE], antialias=True).numpy(),
        "`torch.nn.functional.interpolate`": lambda x: _interpolate(x, antialias=False),
        "`interpolate`, antialias (torchvision's default)": lambda x: _interpolate(x, antialias=True),
        "`PIL.Image.resize`, BILINEAR": lambda x: np.asarray(
            Image.fromarray(x).resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32
        ),
    }
    for path in photographs():
        pixels = np.array(Image.open(path))
        height, width = pixels.shape[:2]
        print(f"\n{path.name}, {height}x{width}:\n\n| what | mean | max | rel_l2 |\n|---|---|---|---|")
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)
        for name, slim, numpy, transform, levels in (
            ("inception", slim_inception(tf, pixels), preprocessing.inception(pixels), Inception(), 127.5),
            ("vgg", slim_vgg(tf, pixels), preprocessing.vgg(pixels), Vgg(), 1.0),
        ):
            row(f"`{name}`, NumPy", numpy, slim, levels)
            row(f"`{name}`, PyTorch", transform(tensor).permute(1, 2, 0).numpy(), slim, levels)
        slim = slim_inception(tf, pixels)
        for method in ("INTEGER_ACCURATE", "INTEGER_FAST", ""):
            decoded = tf.io.decode_jpeg(path.read_bytes(), dct_method=method).numpy()
            name = f'`decode_jpeg(dct_method="{method}")`' if method else "`decode_jpeg`, as slim calls it"
            row(f"decoded by {name}", slim_inception(tf, decoded), slim, 127.5)
        top, left = (preprocessing.crop_margin(side, 0.875) for side in (height, width))
        crop = np.ascontiguousarray(pixels[top : height - top, left : width - left])
        for what, resize in resizes.items():
            row(f"resized by {what}", resize(crop) / 127.5 - 1, slim, 127.5)


def _interpolate(pixels: Any, *, antialias: bool) -> Any:
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=antialias)
    return resized[0].permute(1, 2, 0).numpy()


if __name__ == "__main__":
    main()
