"""`.keras` and `.weights.h5`: the Keras 3 port with its weights, as Keras saves it.

The description of the network is beside what Keras reads: a member of the `.keras` archive, a dataset of the HDF5 file.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from converters import frameworks, mapping
from converters.errors import InputError
from converters.files import atomic
from converters.formats import keras_weights, zipped
from converters.formats.base import (
    Format,
    OpenFile,
    Weights,
    described_network,
    description_text,
    read_description,
    read_json,
)
from converters.variables import Array, Variable
from slimport.graph import Shape

_MEMBER, _DATASET = "slimport.json", "slimport"
_WEIGHTS = "model.weights.h5"
_WALK = """
import os, sys, zipfile, h5py
try:
    import resource
    with open("/proc/self/statm") as file:
        most = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
except (ImportError, OSError, ValueError):
    pass
def visit(name, found):
    dict(found.attrs)
    # Texts, which the library keeps in heaps of whatever size the file says.
    if isinstance(found, h5py.Dataset) and found.shape == () and found.dtype.kind == "O":
        found[()]
path, _, *member = sys.argv[1:]
with h5py.File(zipfile.ZipFile(path).open(*member) if member else path, "r") as file:
    file.visititems(visit)
"""
_PROBE_S, _PROBE_BYTES = 10, 256 << 20
# Keras does not compress, and weights hardly can be.
_RATIO, _UNPACKED = 50, 64 << 20


@contextmanager
def open_file(path: Path, step: int | None = None) -> Iterator[OpenFile]:  # noqa: ARG001
    """Opens a file. Only the weights and the layers' names are read: no layer is made from the file's configuration.

    Raises:
      InputError: Keras 3 did not write it, or Keras before 3.9, which kept no names.
    """
    h5py = frameworks.require("h5py")
    if path.suffix != ".keras":
        _probe(path)
        with h5py.File(path, "r") as file:
            said = _dataset(path, file, _DATASET)[()] if _DATASET in file else b""
            yield _opened(path, "weights.h5", file, read_description(path, _text(path, said)))
        return
    with zipped.opened(path, "a Keras 3 file") as archive:
        described = {"scope": _scope(path, archive)}
        if _MEMBER in archive.namelist():
            described |= read_description(path, zipped.text(archive, _MEMBER))
        zipped.check(archive, _WEIGHTS)
        _probe(path, _WEIGHTS)
        with archive.open(_WEIGHTS) as weights, h5py.File(weights, "r") as file:
            yield _opened(path, "keras", file, described)


def _probe(path: Path, *member: str) -> None:
    """Walks through an HDF5 file, or one in an archive, in another process, whose time and memory are limited.

    In some damaged files the library crashes, never ends, or allocates whatever they claim.

    Raises:
      InputError: it crashed, took too long, or could not read the file.
    """
    command = [sys.executable, "-c", _WALK, str(path.absolute()), str(_PROBE_BYTES), *member]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path}: not a Keras 3 file, or damaged: a walk through it does not end") from error
    if done.returncode:
        why = (done.stderr.decode(errors="replace").strip().splitlines() or ["it cannot be read"])[-1]
        raise InputError(f"{path}: not a Keras 3 file, or damaged: {why}; get the file again")


def _scope(path: Path, archive: zipfile.ZipFile) -> str:
    """The model's name by the configuration in an archive."""
    config = read_json(path, zipped.text(archive, "config.json"), "its configuration").get("config")
    name = config.get("name") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise InputError(f"{path}: not a Keras 3 file: its configuration has no name; save it again with Keras 3")
    return name.replace("__", "/")


def write(weights: Weights, path: Path) -> None:
    """Saves the model, or only its weights if the name ends in `.weights.h5`."""
    frameworks.require("keras")
    model = keras_weights.structure(weights)
    description = description_text(weights.description())
    with atomic(path) as temporary:
        if path.name.endswith(".weights.h5"):
            keras_weights.write(temporary, model, weights.stream(), {_DATASET: description})
            return
        with tempfile.TemporaryDirectory(prefix=".slimport", dir=temporary.parent) as folder:
            saved = Path(folder) / _WEIGHTS
            keras_weights.write(saved, model, weights.stream(), {})
            texts = {"metadata.json": model.metadata, "config.json": model.config, _MEMBER: description}
            with zipfile.ZipFile(temporary, "w") as archive:
                for name, text in texts.items():
                    archive.writestr(name, text)
                archive.write(saved, _WEIGHTS)


def _opened(path: Path, format_: str, file: Any, description: Mapping[str, Any]) -> OpenFile:
    """The variables in an HDF5 file of weights, under the names that `_datasets` tells."""
    network = described_network(path, description)
    shapes = {} if network is None else network.variables()
    datasets = _datasets(path, file, shapes)

    def read(names: Iterable[str]) -> Iterator[tuple[str, Array]]:
        for name in names:
            yield name, np.asarray(datasets[name]).reshape(variables[name].shape)

    variables = {}
    for name, dataset in datasets.items():
        known = shapes.get(name)
        # Keras may have the same values in another shape.
        shape = known if known is not None and math.prod(known) == dataset.size else dataset.shape
        variables[name] = Variable(name, shape, dataset.dtype)
    return OpenFile(path, format_, (path,), variables, read, description)


def _datasets(path: Path, file: Any, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The datasets by slim's names.

    Keras 3 keeps a layer's weights as `layers/<class>_<n>/vars/<i>`, and its name as an attribute of `vars`.
    """
    leaves = _leaves(shapes)
    datasets: dict[str, Any] = {}
    layers = _group(path, file, "layers")
    for layer_name in layers:
        weights = _group(path, _group(path, layers, layer_name), "vars")
        if not len(weights):
            continue
        layer = weights.attrs.get("name")
        if not isinstance(layer, str):
            raise InputError(f"{path}: its layers have no names; save it again with Keras 3.9 or newer")
        scope = layer.replace("__", "/")
        arrays = [_dataset(path, weights, str(index)) for index in range(len(weights))]
        if scope in shapes:
            # A variable by itself: its layer has its whole name.
            names = [scope]
        elif len(leaves.get(scope, ())) == len(arrays):
            names = [f"{scope}/{leaf}" for leaf in leaves[scope]]
        else:
            names = [mapping.slim_name(layer, leaf) for leaf in _told_by_shape(arrays)]
        if twice := next((name for name in names if name in datasets), None):
            raise InputError(f"{path}: two layers for one variable, {twice}; leave one out")
        datasets |= dict(zip(names, arrays, strict=False))
    return datasets


def _group(path: Path, parent: Any, name: str) -> Any:
    """A group in a group, not one in another file."""
    h5py = frameworks.require("h5py")
    if name not in parent:
        raise InputError(f"{path}: not a Keras 3 file: {name} is missing; save it again with Keras 3")
    found = parent[name] if isinstance(parent.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Group):
        raise InputError(f"{path}: {name} in it is a link, or no group, as Keras never writes; refused")
    return found


def _dataset(path: Path, parent: Any, name: str) -> Any:
    """A dataset in a group, whose values are in this file."""
    h5py = frameworks.require("h5py")
    found = parent[name] if isinstance(parent.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual or found.shape is None:
        raise InputError(f"{path}: {name} in it is not an array in this file, as Keras writes; refused")
    chunk = math.prod(found.chunks or ()) * found.dtype.itemsize
    if found.chunks is not None and max(chunk, found.nbytes) > max(_UNPACKED, _RATIO * found.id.get_storage_size()):
        raise InputError(f"{path}: {name} would be more than {_RATIO} times its size once unpacked; refused")
    # HDF5 fills values that are claimed and missing with zeros. Texts are stored apart.
    stored = found.id.get_storage_size()
    if found.dtype.kind != "O" and (stored < found.nbytes if found.chunks is None else found.nbytes and not stored):
        raise InputError(f"{path}: damaged: {name} of shape {list(found.shape)} has {stored} bytes; get it again")
    return found


def _text(path: Path, value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise InputError(f"{path}: its description is damaged: it is not a text; convert it again")
    return value


def _leaves(variables: Iterable[str]) -> dict[str, list[str]]:
    """The leaves of each layer's variables by its scope, in slim's order, which is that of Keras too."""
    found: dict[str, list[str]] = {}
    for name in variables:
        scope, _, leaf = name.rpartition("/")
        found.setdefault(scope, []).append(leaf)
    return found


def _told_by_shape(weights: Sequence[Any]) -> tuple[str, ...]:
    """Keras's names for a layer's weights, if no description names them."""
    if weights[0].ndim > 1:
        return ("kernel", "bias")[: len(weights)]
    leaves = ("gamma", "beta", "moving_mean", "moving_variance")
    # By default, slim's BatchNorm has a beta and no gamma.
    return leaves[1:] if len(weights) == 3 else leaves[: len(weights)]


# A Keras layer computes in the dtype of its weights: in half precision it would be another network.
FORMAT = Format("keras", "keras", (".keras", ".weights.h5"), 4, open_file, write, dtypes=("float32", "float64"))
