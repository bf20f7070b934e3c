"""Draws where a network from a TF-Slim checkpoint looks: Grad-CAM (arXiv:1610.02391) on `block4`, in PyTorch.

    python -m scripts.studies.grad_cam FOLDER [--steps 600]

Trains a narrow ResNet v2 of four blocks with slim to name a digit that lies somewhere on a photograph, converts the
checkpoint, draws FOLDER/grad_cam.png, and prints how much of the heat lies on the digits. scikit-learn ships the
digits and the photographs; what is drawn has digits and parts of the photographs that training did not use. A
checkpoint that FOLDER already has is not trained again.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

import slimport.pytorch
from converters import convert, frameworks

warnings.filterwarnings("ignore", message="`layer.apply` is deprecated")

SIDE, DIGIT = 96, 32
"""Pixels of an image's side, and of the digit's on it."""
HELD_OUT = 1500
"""The first of scikit-learn's 1797 digits that training does not use."""
PICTURES = 128

Pixels = NDArray[np.uint8]


def scaled(pixels: Pixels) -> NDArray[np.float32]:
    """The values from 0 to 255 as values from -1 to 1, which slim's ResNet v2 takes."""
    return pixels.astype(np.float32) / 127.5 - 1


class Pictures:
    """Digits on photographs, at random places.

    seed: of the places.
    held_out: whether the digits and the part of the photograph are those that training does not use.
    """

    def __init__(self, seed: int, held_out: bool = False) -> None:
        datasets = frameworks.require("sklearn.datasets")
        digits = datasets.load_digits()
        chosen = slice(HELD_OUT, None) if held_out else slice(HELD_OUT)
        self._digits, self._classes = digits.images[chosen] / 16, digits.target[chosen]
        # The left two thirds of each photograph are for training.
        third = slice(430, None) if held_out else slice(430)
        self._photographs = [photograph[:, third] for photograph in datasets.load_sample_images().images]
        self._generator = np.random.default_rng(seed)

    def draw(self) -> tuple[Pixels, int, tuple[int, int]]:
        """An image [SIDE, SIDE, 3], the digit's class, and its top left pixel."""
        generator = self._generator
        photograph = self._photographs[generator.integers(len(self._photographs))]
        top, left = (generator.integers(side - SIDE) for side in photograph.shape[:2])
        image = photograph[top : top + SIDE, left : left + SIDE] * 0.6
        number = generator.integers(len(self._classes))
        ink = np.kron(self._digits[number], np.ones((DIGIT // 8, DIGIT // 8)))[..., None]
        row, column = (int(place) for place in generator.integers(SIDE - DIGIT, size=2))
        under = image[row : row + DIGIT, column : column + DIGIT]
        image[row : row + DIGIT, column : column + DIGIT] = under * (1 - ink) + 255 * ink
        return image.astype(np.uint8), int(self._classes[number]), (row, column)

    def batch(self, size: int) -> tuple[Pixels, NDArray[np.int64], list[tuple[int, int]]]:
        """Images [size, SIDE, SIDE, 3], the digits' classes, and their top left pixels."""
        images, classes, places = zip(*(self.draw() for _ in range(size)), strict=True)
        return np.stack(images), np.asarray(classes, np.int64), list(places)


def train(path: Path, steps: int) -> None:
    """Trains with slim, and saves the network and its graph."""
    frameworks.require("slimport.nets")
    import tensorflow.compat.v1 as tf
    import tf_slim as slim
    from tf_slim.nets import resnet_v2

    tf.logging.set_verbosity(tf.logging.ERROR)
    strides = {"block1": 2, "block2": 2, "block3": 2, "block4": 1}
    depths = (8, 16, 32, 64)
    pictures = Pictures(seed=0)

    def network(images: Any, is_training: bool) -> Any:
        blocks = [
            resnet_v2.resnet_v2_block(name, base_depth=depth, num_units=2, stride=strides[name])
            for name, depth in zip(strides, depths, strict=True)
        ]
        # A decay that a few hundred steps can follow; it leaves no trace in the network's function.
        with slim.arg_scope(resnet_v2.resnet_arg_scope(batch_norm_decay=0.95)):
            return resnet_v2.resnet_v2(images, blocks, 10, is_training)[0]

    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(0)
        images = tf.placeholder(tf.float32, (None, SIDE, SIDE, 3))
        labels = tf.placeholder(tf.int64, (None,))
        tf.losses.sparse_softmax_cross_entropy(labels, tf.squeeze(network(images, is_training=True), [1, 2]))
        step = tf.train.get_or_create_global_step()
        rate = tf.train.cosine_decay(0.1, step, steps)
        optimizer = tf.train.MomentumOptimizer(rate, 0.9)
        train_op = slim.learning.create_train_op(tf.losses.get_total_loss(), optimizer)
        session.run(tf.global_variables_initializer())
        for number in range(steps):
            pixels, classes, _ = pictures.batch(64)
            loss = session.run(train_op, {images: scaled(pixels), labels: classes})
            if number % 50 == 49:
                print(f"step {number + 1}: loss {loss:.3f}", flush=True)
        tf.train.Saver().save(session, str(path), write_meta_graph=False)


def grad_cam(model: Any, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Where in each image the logit of a class comes from.

    Args:
      model: a ResNet from `slimport.pytorch.load`.
      images: [batch, channels, height, width].
      labels: [batch], a class for each.

    Returns:
      [batch, height, width], from 0 to 1.
    """
    logits, end_points = model.end_points(images)
    features = end_points[f"{model.scope}/block4"]
    (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), features)
    heat = F.relu((features * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True))
    heat = F.interpolate(heat, images.shape[2:], mode="bilinear")[:, 0].detach()
    return heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-12)


def on_digit(heat: torch.Tensor, place: tuple[int, int]) -> tuple[float, bool]:
    """The fraction of the heat that lies on the digit's square, and whether its hottest pixel does."""
    row, column = place
    inside = heat[row : row + DIGIT, column : column + DIGIT]
    return float(inside.sum() / heat.sum()), bool(inside.max() == heat.max())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    checkpoint, converted = arguments.folder / "model.ckpt", arguments.folder / "model.safetensors"
    if not checkpoint.with_name("model.ckpt.index").exists():
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        train(checkpoint, arguments.steps)
    convert(checkpoint, converted)
    model = slimport.pytorch.load(converted, output_stride=8)
    pictures, classes, places = Pictures(seed=1, held_out=True).batch(PICTURES)
    images, labels = torch.from_numpy(scaled(pictures)).permute(0, 3, 1, 2), torch.from_numpy(classes)
    with torch.inference_mode():
        right = (model(images).argmax(1) == labels).double().mean()
    print(f"{right:.1%} of {PICTURES} digits named rightly")
    heats = grad_cam(model, images, labels)
    shares, hits = zip(*map(on_digit, heats, places), strict=True)
    print(f"the digit's square, {(DIGIT / SIDE) ** 2:.0%} of the picture, has {np.mean(shares):.0%} of the heat")
    print(f"and the hottest pixel in {np.mean(hits):.0%} of the pictures")
    titles = [f"{number}: {part:.0%}" for number, part in zip(classes, shares, strict=True)]
    _plot(arguments.folder / "grad_cam.png", pictures[:6], heats[:6], titles[:6])


def _plot(path: Path, pictures: Pixels, heats: torch.Tensor, titles: list[str]) -> None:
    figure = frameworks.require("matplotlib.figure").Figure(figsize=(1.3 * len(pictures), 3), layout="constrained")
    rows = figure.subplots(2, len(pictures))
    for image, heat, title, above, below in zip(pictures, heats, titles, *rows, strict=False):
        above.imshow(image)
        above.set_title(title, fontsize=9)
        below.imshow(image)
        below.imshow(heat, cmap="inferno", alpha=0.65, vmin=0, vmax=1)
        for axis in (above, below):
            axis.set_axis_off()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
