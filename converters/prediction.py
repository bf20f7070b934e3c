"""`predict`: the most probable classes of images."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters import frameworks
from converters.errors import InputError, first_line
from converters.formats import models
from converters.variables import PathLike, listed
from converters.weights.selection import EVERYTHING, Selection
from converters.weights.source import Source, open_source
from converters.weights.user_graph import BESIDE, GraphOptions
from slimport.labels import imagenet_labels, read_labels
from slimport.networks import Network
from slimport.preprocessing import PREPROCESSINGS, Preprocessing, Size, sides

_BATCH = 16
# Pillow's modes by the network's number of channels.
_MODES = {1: "L", 3: "RGB"}
Run = Callable[[NDArray[np.float32]], NDArray[Any]]
"""A network as a function from [batch, height, width, channels] to logits, [batch, classes]."""
# Pillow's modes of more than 8 bits a channel, whose conversion to RGB cuts values off.
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Guess:
    """A class, its name if it is known, and its probability."""

    index: int
    name: str | None
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, in descending order."""

    image: Path
    top: tuple[Guess, ...]


@dataclass(frozen=True, repr=False)
class Predictions:
    """The result of `predict`: the network, its preprocessing, its input's height and width, the images' classes."""

    network: str
    preprocessing: str
    size: tuple[int, int]
    images: tuple[Prediction, ...]

    def __repr__(self) -> str:
        return f"<Predictions of {self.network} for {len(self.images)} image{'s' * (len(self.images) != 1)}>"

    def to_json(self) -> dict[str, Any]:
        """What `slimport predict --json` prints."""
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
    source: Any,
    images: PathLike | Sequence[PathLike],
    *,
    top: int = 5,
    labels: PathLike | None = None,
    preprocessing: str | None = None,
    size: Size | None = None,
    resize_side: int | None = None,
    scope: str | None = None,
    step: int | None = None,
    selection: Selection = EVERYTHING,
    graph: GraphOptions = BESIDE,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Predictions:
    """Finds the most probable classes of images, with PyTorch, or with Keras for its own files or without PyTorch.

    Args:
      source: a checkpoint or a converted file, see `open_source`, or a network of `slimport.pytorch` in memory, in eval
        mode.
      images: a file that Pillow reads, or several. Files that are not images are refused before the network is loaded.
      top: the number of classes for each image.
      labels: a file with the classes' names; None is ImageNet's, for a network of 1000 or 1001 classes.
      preprocessing: a name of `PREPROCESSINGS`; None is that of the network's ImageNet release.
      size: height and width, or one number for both; None is that of the network's releases, or of another
        preprocessing.
      resize_side: the short side of the whole image before a crop of `size`, in `vgg` and `deeplab`; None is 256.
      scope, step, selection, graph: of a file, as `convert` takes them.
      progress: is called with the number of images that are done, and of all images.

    Raises:
      InputError: an image or the source cannot be read, the network has no logits, or the labels are for another number
        of classes.
    """
    paths = [Path(image) for image in listed(images)]
    for path in paths:
        with _opened(path):
            pass
    with _network(source, scope, step, selection, graph) as (network, where, runner):
        mode, num_classes = _takes_and_gives(network, where)
        names = _names(num_classes, labels)
        chosen = _preprocessing(preprocessing or network.preprocessing, resize_side)
        height, width = sides(size or _side(network, chosen))
        run = runner()
    found: list[Prediction] = []
    progress(0, len(paths))
    for batch in _batches(paths):
        images_of_batch = np.stack([_pixels(path, mode, chosen, (height, width)) for path in batch])
        try:
            logits = run(images_of_batch)
        # Images can be too small for a network such as VGG.
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"{where}: {network.name} does not run on images of {height}x{width}: {first_line(error)}; "
                f"choose another --size"
            ) from error
        for path, row in zip(batch, logits, strict=True):
            found.append(Prediction(path, _guesses(row, names, top)))
        progress(len(found), len(paths))
    return Predictions(network.name, chosen.name, (height, width), tuple(found))


@contextmanager
def _network(source: Any, *which: Any) -> Iterator[tuple[Network, str, Callable[[], Run]]]:
    """The network of a file or a model, what messages call it, and what makes the function that runs it."""
    if isinstance(source, str | os.PathLike):
        with open_source(source, *which) as opened:
            yield opened.network, str(opened.path), lambda: _runner(opened)
        return
    what = f"a {type(source).__name__} in memory"
    network = getattr(source, "network", None)
    if not isinstance(network, Network):
        raise InputError(f"{what}: predict takes a file, or a network of slimport.pytorch")
    if source.training:
        raise InputError(f"{what}: is in training mode; call its eval() first")
    yield network, what, lambda: _pytorch_runner(source)


def preprocessed(
    network: Network, images: Sequence[PathLike], size: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Images as the network's evaluation takes them, [batch, height, width, channels].

    Args:
      images: files that Pillow reads.
      size: height and width; None is that of the network's releases.

    Raises:
      InputError: a file is no image, or the network does not take images.
    """
    if network.in_channels not in _MODES:
        raise InputError(f"{network.name} takes {network.in_channels} channels, and images have 1 or 3")
    chosen = _preprocessing(network.preprocessing)
    mode, size = _MODES[network.in_channels], size or sides(_side(network, chosen))
    return np.stack([_pixels(Path(path), mode, chosen, size) for path in images])


def _side(network: Network, preprocessing: Preprocessing) -> int:
    own = preprocessing.name == network.preprocessing
    return network.evaluation_size if own else preprocessing.default_size


def _preprocessing(name: str, resize_side: int | None = None) -> Preprocessing:
    if name not in PREPROCESSINGS:
        raise InputError(f"preprocessing {name!r}: must be one of {', '.join(PREPROCESSINGS)}")
    found = PREPROCESSINGS[name]
    if resize_side is None:
        return found
    if "resize_side" not in signature(found.function).parameters:
        raise InputError(f"--resize-side {resize_side}: {name} preprocessing resizes to --size at once; leave it out")
    return replace(found, function=partial(found.function, resize_side=resize_side))


def _takes_and_gives(network: Network, where: str) -> tuple[str, int]:
    """Pillow's mode of the images, and the number of classes.

    Raises:
      InputError: the network is not one that classifies images.
    """
    if network.num_classes is None:
        raise InputError(f"{where}: {network.name} without logits has no classes to predict")
    if not network.takes_images:
        raise InputError(f"{where}: {network.name} has other inputs than images: run the converted model on these")
    if network.in_channels not in _MODES:
        raise InputError(f"{where}: {network.name} takes {network.in_channels} channels, and images have 1 or 3")
    return _MODES[network.in_channels], network.num_classes


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


def _runner(source: Source) -> Run:
    # One logit for each class, whatever the size of the images.
    wanted = {"global_pool": True, "spatial_squeeze": True}
    arguments = {name: value for name, value in wanted.items() if name in source.network.arguments}
    source = source.without_auxiliary()
    of_keras = source.format.framework == "keras"
    if of_keras or importlib.util.find_spec("torch") is None:
        with models.eagerly():
            keras_model = models.keras_model(source, **arguments)
        return models.eagerly()(lambda images: np.asarray(keras_model.predict_on_batch(images)))
    torch = frameworks.require("torch")
    # Half precision is for storage only: on a CPU, many of its operations are missing or slow.
    model = models.pytorch_model(source, **arguments)
    dtype = torch.float64 if next(model.parameters()).dtype == torch.float64 else torch.float32
    return _pytorch_runner(model.to(dtype))


def _pytorch_runner(model: Any) -> Run:
    torch = frameworks.require("torch")
    like = next(model.parameters())

    def run(images: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode():
            logits = model(torch.from_numpy(images.transpose(0, 3, 1, 2)).to(like))
            found: NDArray[Any] = logits.reshape(len(images), -1).double().cpu().numpy()
            if found.shape[1] != model.network.num_classes:
                raise ValueError(f"its output is {list(logits.shape)}, not one vector of logits for each image")
            return found

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
    """The image, of which only the header is read."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    pillow = frameworks.require("PIL.Image")
    try:
        image = pillow.open(path)
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
        # Pillow's decoders raise exceptions of many types.
        except Exception as error:
            raise InputError(f"{path}: damaged or cut off: {first_line(error)}") from error
    try:
        return preprocessing.function(pixels, size)
    except ValueError as error:
        raise InputError(f"{path}: {preprocessing.name} preprocessing: {first_line(error)}") from error
