"""`.keras` and `.weights.h5`: the Keras 3 port with its weights, saved by Keras.

The description of the network is beside what Keras reads: a member of the `.keras` archive, a dataset of the HDF5 file.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from converters import frameworks, mapping
from converters.errors import InputError, first_line
from converters.files import atomic
from converters.formats.base import Format, OpenFile, Weights, described_network
from converters.formats.models import keras_model
from converters.variables import Array, Variable

_MEMBER, _DATASET = "slimport.json", "slimport"


@contextmanager
def open_file(path: Path, step: int | None = None) -> Iterator[OpenFile]:  # noqa: ARG001
    """Opens a file.

    Raises:
      InputError: Keras 3 did not write it, or Keras before 3.9, which kept no names.
    """
    h5py = frameworks.require("h5py")
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as weights:
                scope = json.loads(archive.read("config.json"))["config"]["name"].replace("__", "/")
                described = json.loads(archive.read(_MEMBER)) if _MEMBER in archive.namelist() else {}
                with h5py.File(weights, "r") as file:
                    yield _opened(path, "keras", file, {"scope": scope, **described})
        else:
            with h5py.File(path, "r") as file:
                described = json.loads(file[_DATASET][()]) if _DATASET in file else {}
                yield _opened(path, "weights.h5", file, described)
    except (OSError, KeyError, TypeError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a Keras 3 file: {first_line(error)}") from error


def write(weights: Weights, path: Path) -> None:
    """Saves the model, or only its weights if the name ends in `.weights.h5`."""
    model = keras_model(weights)
    description = json.dumps(weights.description())
    with atomic(path) as temporary, tempfile.TemporaryDirectory(prefix=".slimport", dir=temporary.parent) as folder:
        # `save_weights` writes the same HDF5 file that a .keras archive contains, but directly to the disk, and
        # if that is full, HDF5 ends the process. The archive's is written in memory.
        archive = Path(folder) / "model.keras"
        model.save(archive)
        if not path.name.endswith(".weights.h5"):
            with zipfile.ZipFile(archive, "a") as opened:
                opened.writestr(_MEMBER, description)
            archive.replace(temporary)
            return
        with zipfile.ZipFile(archive).open("model.weights.h5") as saved, temporary.open("wb") as file:
            shutil.copyfileobj(saved, file, 1 << 20)
        with frameworks.require("h5py").File(temporary, "r+") as file:
            file[_DATASET] = description


def _opened(path: Path, format_: str, file: Any, description: Mapping[str, Any]) -> OpenFile:
    """Keras 3 keeps a layer's weights as `layers/<class>_<n>/vars/<i>`, and its name as an attribute of `vars`."""
    network = described_network(path, description)
    shapes = {} if network is None else network.variables()
    leaves = _leaves(shapes)
    datasets: dict[str, Any] = {}
    for group in file["layers"].values():
        weights = group["vars"]
        if not len(weights):
            continue
        if "name" not in weights.attrs:
            raise InputError(f"{path}: its layers have no names; save it again with Keras 3.9 or newer")
        layer = weights.attrs["name"]
        scope = layer.replace("__", "/")
        if scope in shapes:
            # A variable by itself: its layer has its whole name.
            names = [scope]
        elif len(leaves.get(scope, ())) == len(weights):
            names = [f"{scope}/{leaf}" for leaf in leaves[scope]]
        else:
            names = [mapping.slim_name(layer, leaf) for leaf in _told_by_shape(weights)]
        datasets |= {name: weights[str(index)] for index, name in enumerate(names)}

    def read(names: Iterable[str]) -> Iterator[tuple[str, Array]]:
        for name in names:
            yield name, np.asarray(datasets[name]).reshape(variables[name].shape)

    variables = {}
    for name, dataset in datasets.items():
        known = shapes.get(name)
        # Keras may have the same values in another shape.
        shape = known if known is not None and np.prod(known) == dataset.size else dataset.shape
        variables[name] = Variable(name, shape, dataset.dtype)
    return OpenFile(path, format_, (path,), variables, read, description)


def _leaves(variables: Iterable[str]) -> dict[str, list[str]]:
    """The leaves of each layer's variables by its scope, in slim's order, which is that of Keras too."""
    found: dict[str, list[str]] = {}
    for name in variables:
        scope, _, leaf = name.rpartition("/")
        found.setdefault(scope, []).append(leaf)
    return found


def _told_by_shape(weights: Any) -> tuple[str, ...]:
    """Keras's names for a layer's weights, if no description names them."""
    if weights["0"].ndim > 1:
        return ("kernel", "bias")[: len(weights)]
    leaves = ("gamma", "beta", "moving_mean", "moving_variance")
    # By default, slim's BatchNorm has a beta and no gamma.
    return leaves[1:] if len(weights) == 3 else leaves[: len(weights)]


# A Keras layer computes in the dtype of its weights: in half precision it would be another network.
FORMAT = Format("keras", "keras", (".keras", ".weights.h5"), 4, open_file, write, dtypes=("float32", "float64"))
