"""A folder as the Hugging Face Hub has them: the weights in safetensors, what the network is, and what images it takes.

Loaded by `slimport.pytorch.load(FOLDER)`. `preprocessor_config.json` is for `transformers.AutoImageProcessor`, whose
processors resize before they crop, as Pillow resizes; slim's inception preprocessing crops first, and both of slim's
resize as TensorFlow 1 did. The file describes the same geometry and the same scale of numbers, and names slim's own,
which is `slimport.preprocessing`.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from converters.sources import FOLDER_CONFIG, FOLDER_WEIGHTS, Source
from converters.targets import safetensors
from converters.targets.atomic import atomic_folder
from slimport.labels import BACKGROUND, imagenet_labels, imagenet_synsets
from slimport.networks import Network
from slimport.preprocessing import CENTRAL_FRACTION, MEANS, PREPROCESSINGS, RESIZE_SIDE

_PREPROCESSOR = "preprocessor_config.json"
_BILINEAR = 2
"""Pillow's number of it."""


def write(source: Source, path: Path) -> None:
    """Writes the folder, which appears whole or not at all."""
    with atomic_folder(path, (FOLDER_WEIGHTS, FOLDER_CONFIG, _PREPROCESSOR)) as folder:
        safetensors.write(source, folder / FOLDER_WEIGHTS)
        description = safetensors.metadata(folder / FOLDER_WEIGHTS)["slimport"]
        _write(folder / FOLDER_CONFIG, {**config(source), "slimport": json.loads(description)})
        if (preprocessor := preprocessor_config(source.network)) is not None:
            _write(folder / _PREPROCESSOR, preprocessor)


def config(source: Source) -> dict[str, Any]:
    """`config.json` but for slimport's own description. ImageNet's labels are taken for 1000 or 1001 classes."""
    network = source.network
    labels = _labels(network.num_classes)
    named = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}} if labels else {}
    dtypes = {dtype.name for dtype in source.dtypes.values()}
    return {
        "architectures": [type(network).__name__],
        "architecture": network.name,
        "num_classes": network.num_classes or 0,
        "num_channels": network.in_channels,
        "image_size": PREPROCESSINGS[network.preprocessing].default_size,
        **({"dtype": dtypes.pop()} if len(dtypes) == 1 else {}),
        **named,
    }


def preprocessor_config(network: Network) -> dict[str, Any] | None:
    """`preprocessor_config.json`; None where slim's preprocessing is not for images of the network's channels."""
    preprocessing = PREPROCESSINGS[network.preprocessing]
    side = preprocessing.default_size
    slim: dict[str, Any] = {"preprocessing": preprocessing.name, "resize": "tf.compat.v1.image.resize_bilinear"}
    if preprocessing.name == "inception":
        # Whatever the aspect, a central part of the image fills the square: the centre of a larger square.
        whole = round(side / CENTRAL_FRACTION)
        size = {"height": whole, "width": whole}
        slim |= {"central_fraction": CENTRAL_FRACTION, "order": ["crop", "resize", "rescale"]}
        mean, std = (0.5,) * network.in_channels, (0.5,) * network.in_channels
    elif network.in_channels == len(MEANS):
        size = {"shortest_edge": RESIZE_SIDE}
        slim |= {"order": ["resize", "crop", "subtract the mean"]}
        # Numbers stay on a scale of 0 to 255: processors rescale to 1, and this takes it back.
        mean, std = tuple(value / 255 for value in MEANS), (1 / 255,) * len(MEANS)
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
    """ImageNet's names, with the WordNet id where two classes have one name, so that a name has one class."""
    if not num_classes or (labels := imagenet_labels(num_classes)) is None:
        return None
    counts = Counter(labels)
    synsets = [BACKGROUND] * (num_classes - len(imagenet_synsets())) + list(imagenet_synsets())
    return [f"{name} ({synset})" if counts[name] > 1 else name for name, synset in zip(labels, synsets, strict=True)]


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
