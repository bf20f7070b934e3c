"""`.keras` and `.weights.h5`: the Keras 3 port with the weights in, saved by Keras itself."""

from __future__ import annotations

from pathlib import Path

from converters.models import keras_model
from converters.sources import Source
from converters.targets.atomic import atomic


def write(source: Source, path: Path) -> None:
    """Saves the whole model, or its weights alone where the name ends in `.weights.h5`."""
    model = keras_model(source)
    with atomic(path) as temporary:
        if path.name.endswith(".weights.h5"):
            model.save_weights(temporary)
        else:
            model.save(temporary)
