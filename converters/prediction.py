"""`predict`: what a network sees in images."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters import frameworks, models
from converters.errors import InputError, first_line
from converters.sources import KERAS_SUFFIXES, PathLike, Source, open_source
from converters.views import AS_IT_IS, View
from slimport.labels import imagenet_labels, read_labels
from slimport.preprocessing import PREPROCESSINGS, Preprocessing

_BATCH = 16
# Pillow's modes by the network's number of channels.
_MODES = {1: "L", 3: "RGB"}
# Pillow's modes of more than 8 bits a channel, whose conversion to RGB cuts values off.
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Guess:
    """A class, its name where there is one, and its probability."""

    index: int
    name: str | None
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image, the likeliest first."""

    image: Path
    top: tuple[Guess, ...]


@dataclass(frozen=True)
class Predictions:
    """What `predict` found, and how: the network, its preprocessing, and the height and width that images got."""

    network: str
    preprocessing: str
    size: tuple[int, int]
    images: tuple[Prediction, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "preprocessing": self.preprocessing,
            "size": list(self.size),
            "images": [
                {"image": str(prediction.image), "top": [guess.__dict__ for guess in prediction.top]}
                for prediction in self.images
            ],
        }


def predict(
    source: PathLike,
    images: Sequence[PathLike],
    *,
    top: int = 5,
    labels: PathLike | None = None,
    preprocessing: str | None = None,
    size: tuple[int, int] | None = None,
    scope: str | None = None,
    step: int | None = None,
    view: View = AS_IT_IS,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Predictions:
    """The likeliest classes of images, by PyTorch, or by Keras for its own files and where there is no PyTorch.

    Args:
      source: what `open_source` takes.
      images: files that Pillow reads. Whether each is an image is known before the network runs.
      top: how many classes of each image.
      labels: a file with the names of the classes; None is ImageNet's, where the network has 1000 or 1001 classes.
      preprocessing: `inception` or `vgg`; None is that of the network's ImageNet release.
      size: height and width; None is 299x299 for inception and 224x224 for vgg, as the releases were evaluated.
      scope: which network, where the source holds several.
      step: which checkpoint of a training run's directory; None is the newest.
      view: what to take of the source's network.
      progress: is told how many images are done, and how many there are.

    Raises:
      InputError: an image or the source cannot be read, the network has no logits, or the labels are not as many.
    """
    paths = [Path(image) for image in images]
    for path in paths:
        with _opened(path):
            pass
    with open_source(source, scope, step, view) as opened:
        network = opened.network
        if network.num_classes is None:
            raise InputError(f"{opened.path}: {network.name} without logits: there are no classes to predict")
        if network.in_channels not in _MODES:
            raise InputError(
                f"{opened.path}: {network.name} takes {network.in_channels} channels, and images have 1 or 3"
            )
        mode = _MODES[network.in_channels]
        names = _names(network.num_classes, labels)
        chosen = _preprocessing(preprocessing or network.preprocessing)
        height, width = size or (chosen.default_size, chosen.default_size)
        run = _runner(opened)
    found: list[Prediction] = []
    progress(0, len(paths))
    for batch in _batches(paths):
        images_of_batch = np.stack([_pixels(path, mode, chosen, (height, width)) for path in batch])
        try:
            logits = run(images_of_batch)
        # What a framework raises where images are too small, as they can be for VGG.
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"{os.fspath(source)}: {network.name} does not run on images of {height}x{width}: {first_line(error)}; "
                f"choose another --size"
            ) from error
        for path, row in zip(batch, logits, strict=True):
            found.append(Prediction(path, _guesses(row, names, top)))
        progress(len(found), len(paths))
    return Predictions(network.name, chosen.name, (height, width), tuple(found))


def _preprocessing(name: str) -> Preprocessing:
    if name not in PREPROCESSINGS:
        raise InputError(f"preprocessing {name!r}: must be one of {', '.join(PREPROCESSINGS)}")
    return PREPROCESSINGS[name]


def _names(num_classes: int, labels: PathLike | None) -> list[str] | None:
    if labels is None:
        return imagenet_labels(num_classes)
    where = os.fspath(labels)
    try:
        names = read_labels(labels)
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: cannot be read: {getattr(error, 'strerror', None) or first_line(error)}") from error
    if len(names) != num_classes:
        hint = ": slim's class 0 may be the background, which needs a line too" if len(names) + 1 == num_classes else ""
        raise InputError(f"{where}: {len(names)} names for {num_classes} classes{hint}")
    return names


def _runner(source: Source) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """The network as a function from [batch, height, width, channels] to logits, [batch, classes]."""
    # Logits of a class each, whatever the size of the images.
    arguments = {"global_pool": True, "spatial_squeeze": True}
    source = source.without_auxiliary()
    of_keras = source.path.name.endswith(KERAS_SUFFIXES)
    if of_keras or importlib.util.find_spec("torch") is None:
        keras_model = models.keras_model(source, **arguments)
        return lambda images: np.asarray(keras_model.predict_on_batch(images))
    torch = frameworks.import_torch()
    # Half precision is for storage here: many of its operations are missing, or slow, on a CPU.
    model = models.pytorch_model(source, **arguments)
    dtype = torch.float64 if next(model.parameters()).dtype == torch.float64 else torch.float32
    model = model.to(dtype)

    def run(images: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode():
            logits: NDArray[Any] = model(torch.from_numpy(images.transpose(0, 3, 1, 2)).to(dtype)).numpy()
            return logits

    return run


def _guesses(logits: NDArray[Any], names: list[str] | None, top: int) -> tuple[Guess, ...]:
    exponents = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = exponents / exponents.sum()
    order = np.argsort(-probabilities, kind="stable")[:top]
    return tuple(Guess(int(index), names[index] if names else None, float(probabilities[index])) for index in order)


def _batches(paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    for start in range(0, len(paths), _BATCH):
        yield paths[start : start + _BATCH]


def _opened(path: Path) -> Any:
    """The image, whose header is read and whose pixels are not."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        image = frameworks.import_pillow().open(path)
    except Exception as error:
        raise InputError(f"{path}: not an image that Pillow reads: {first_line(error)}") from error
    if image.mode in _DEEP_MODES:
        image.close()
        raise InputError(f"{path}: an image of more than 8 bits a channel ({image.mode}): convert it to 8 bits")
    return image


def _pixels(path: Path, mode: str, preprocessing: Preprocessing, size: tuple[int, int]) -> NDArray[np.float32]:
    with _opened(path) as image:
        try:
            pixels = np.atleast_3d(np.asarray(image.convert(mode)))
        # Pillow's decoders raise all sorts of things, and all are about these bytes.
        except Exception as error:
            raise InputError(f"{path}: damaged or cut off: {first_line(error)}") from error
    try:
        return preprocessing.function(pixels, size)
    except ValueError as error:
        raise InputError(f"{path}: {preprocessing.name} preprocessing: {first_line(error)}") from error
