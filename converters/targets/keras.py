"""`.keras` and `.weights.h5`: the Keras 3 port with the weights in, saved by Keras itself."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

from converters.models import keras_model
from converters.sources import Source
from converters.targets.atomic import atomic


def write(source: Source, path: Path) -> None:
    """Saves the whole model, or its weights alone where the name ends in `.weights.h5`."""
    model = keras_model(source)
    with atomic(path) as temporary:
        if not path.name.endswith(".weights.h5"):
            model.save(temporary)
            return
        # `save_weights` writes the same HDF5 file that a .keras archive holds, but straight to the disk, and where
        # that is full, HDF5 ends the process. The archive's is made in memory.
        with tempfile.TemporaryDirectory(prefix=".slimport", dir=temporary.parent) as folder:
            archive = Path(folder) / "model.keras"
            model.save(archive)
            with zipfile.ZipFile(archive).open("model.weights.h5") as weights, temporary.open("wb") as file:
                shutil.copyfileobj(weights, file, 1 << 20)
