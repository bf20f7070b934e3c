"""A folder for the Hugging Face Hub: the weights in safetensors, and descriptions of the network and its images.

Loaded by `slimport.pytorch.load(FOLDER)`. `preprocessor_config.json` is for `transformers.AutoImageProcessor`, whose
processors resize before they crop, as Pillow resizes; slim's inception preprocessing crops first, and both of slim's
resize as TensorFlow 1 did. The file describes the same geometry and the same scale of numbers, and names slim's own,
which is `slimport.preprocessing`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from converters.errors import InputError
from converters.files import atomic_folder
from converters.formats import safetensors
from converters.formats.base import LARGEST_TEXT, Format, OpenFile, Weights, read_json
from slimport.labels import BACKGROUND, imagenet_labels, imagenet_synsets
from slimport.networks import Network
from slimport.preprocessing import CENTRAL_FRACTION, MEANS, PREPROCESSINGS, RESIZE_SIDE

WEIGHTS, CONFIG, _PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
_BILINEAR = 2
"""Pillow's number for it."""


@contextmanager
def open_file(path: Path, step: int | None = None) -> Iterator[OpenFile]:
    """Opens the weights in a folder.

    Raises:
      InputError: they cannot be read, or `config.json` says something else than they do.
    """
    with (path / CONFIG).open("rb") as file:
        found = read_json(path / CONFIG, file.read(LARGEST_TEXT + 1), "it")
    with safetensors.open_file(path / WEIGHTS, step) as opened:
        _check_config(path, found, opened)
        yield opened


def write(weights: Weights, path: Path) -> None:
    """Writes the folder, which appears whole or not at all."""
    with atomic_folder(path, (WEIGHTS, CONFIG, _PREPROCESSOR)) as folder:
        safetensors.write(weights, folder / WEIGHTS)
        with safetensors.open_file(folder / WEIGHTS) as written:
            description = written.description
        _write(folder / CONFIG, {**config(weights), "slimport": description})
        if (preprocessor := preprocessor_config(weights.network)) is not None:
            _write(folder / _PREPROCESSOR, preprocessor)


def _check_config(path: Path, found: Any, opened: OpenFile) -> None:
    """Raises InputError if the folder's description is not that of its weights."""
    network = opened.network
    if not isinstance(found, dict) or network is None:
        return
    said = {
        "architecture": network.name,
        "num_classes": network.num_classes or 0,
        "num_channels": network.in_channels,
        "slimport": dict(opened.description),
    }
    for key, value in said.items():
        if found.get(key, value) != value:
            raise InputError(f"{path / CONFIG}: its {key!r} is not that of {WEIGHTS}; convert the source again")


def different_preprocessor(path: Path, network: Network) -> Iterator[str]:
    """`FILE: NAME is VALUE, not VALUE` for what a folder's `preprocessor_config.json` says that is not the network's.

    Args:
      path: the folder's weights; of any other file, nothing is said.

    Raises:
      InputError: it is no JSON.
    """
    file, wanted = path.with_name(_PREPROCESSOR), preprocessor_config(network)
    if path.name != WEIGHTS or not file.is_file() or wanted is None:
        return
    with file.open("rb") as opened:
        found = read_json(file, opened.read(LARGEST_TEXT + 1), "it")
    # As JSON, which has no tuples.
    for name, value in json.loads(json.dumps(wanted)).items():
        if found.get(name, value) != value:
            yield f"{_PREPROCESSOR}: {name} is {found[name]}, not {value}"


def config(weights: Weights) -> dict[str, Any]:
    """`config.json` without slimport's own description. Labels are ImageNet's for 1000 or 1001 classes."""
    network = weights.network
    labels = _labels(network.num_classes)
    named = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}} if labels else {}
    dtypes = {dtype.name for dtype in weights.dtypes.values()}
    return {
        "architectures": [type(network).__name__],
        "architecture": network.name,
        "num_classes": network.num_classes or 0,
        "num_channels": network.in_channels,
        "image_size": network.evaluation_size,
        **({"dtype": dtypes.pop()} if len(dtypes) == 1 else {}),
        **named,
    }


def preprocessor_config(network: Network) -> dict[str, Any] | None:
    """`preprocessor_config.json`; None if no processor does what the network's preprocessing does."""
    preprocessing, side = PREPROCESSINGS[network.preprocessing], network.evaluation_size
    slim: dict[str, Any] = {"preprocessing": preprocessing.name, "resize": "tf.compat.v1.image.resize_bilinear"}
    if preprocessing.name == "inception":
        # Whatever the aspect, a central part of the image fills the square: the centre of a larger square.
        whole = round(side / CENTRAL_FRACTION)
        size = {"height": whole, "width": whole}
        slim |= {"central_fraction": CENTRAL_FRACTION, "order": ["crop", "resize", "rescale"]}
        mean, std = (0.5,) * network.in_channels, (0.5,) * network.in_channels
    elif preprocessing.name in ("vgg", "deeplab") and network.in_channels == len(MEANS):
        size = {"shortest_edge": RESIZE_SIDE}
        slim |= {"order": ["resize", "crop", "subtract the mean"]}
        # Values keep a scale of 0 to 255: processors rescale to 1, and this undoes it.
        mean, std = preprocessing.mean, preprocessing.std
    else:
        return None
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": network.in_channels == len(MEANS),
        "do_resize": True,
        "size": size,
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
        "slimport": slim,
    }


def _labels(num_classes: int | None) -> list[str] | None:
    """ImageNet's names, with the WordNet id if two classes have the same name."""
    if not num_classes or (labels := imagenet_labels(num_classes)) is None:
        return None
    counts = Counter(labels)
    synsets = [BACKGROUND] * (num_classes - len(imagenet_synsets())) + list(imagenet_synsets())
    return [f"{name} ({synset})" if counts[name] > 1 else name for name, synset in zip(labels, synsets, strict=True)]


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


FORMAT = Format("huggingface", "huggingface", ("/",), 6, open_file, write)
