"""The HDF5 file of a Keras model's weights, written while no weight is in memory, but the one that is read.

Keras itself would keep the model's weights, and the file, in memory. Here the model is made without values, Keras says
what it would store where, and HDF5 makes a file that has the places of the values and not yet the values. They are
written afterwards, one variable at a time, by Python: on a full disk, HDF5 ends the process.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from converters import frameworks
from converters.errors import InputError
from converters.files import pieces
from converters.formats.base import Weights
from converters.formats.models import keras_structure
from converters.variables import Array

_PAGE = 4096


class Structure(NamedTuple):
    """A Keras model without values.

    config, metadata: the texts that a `.keras` archive has beside the weights.
    groups: what Keras stores, by the group of a layer: the layer's name, and its variables by their keys. A variable is
      the name of one of the network's, or a value.
    dtypes, shapes: of the network's variables in the model.
    """

    config: str
    metadata: str
    groups: Mapping[str, tuple[str | None, Mapping[str, str | Array]]]
    dtypes: Mapping[str, np.dtype[Any]]
    shapes: Mapping[str, tuple[int, ...]]


def structure(weights: Weights) -> Structure:
    """What Keras would store of a network's model."""
    with keras_structure(weights) as (model, current):
        variables = import_module("slimport.keras.end_points").variables(model)
        names = {id(variable): name for name, variable in variables.items()}
        saving: Any = import_module("keras.src.saving.saving_lib")
        store: Any = saving.H5IOStore
        groups: dict[str, tuple[str | None, dict[str, str | Array]]] = {}

        class Recorder(store):  # type: ignore[misc]
            """Keras's writer of HDF5 files, with no file."""

            def __init__(self) -> None:
                self.last: dict[str, str | Array] = {}

            def __bool__(self) -> bool:
                return True

            def make(self, path: str, metadata: Mapping[str, str] | None = None) -> Recorder:
                self.last = {}
                groups[path] = (metadata or {}).get("name"), self.last
                return self

            def __setitem__(self, key: str, value: Any) -> None:
                self.last[key] = names[id(value)] if id(value) in names else current(value)

        saving._save_state(model, Recorder(), None, "", set())
        config, metadata = saving._serialize_model_as_json(model)
        dtypes = {name: np.dtype(variable.dtype) for name, variable in variables.items()}
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    return Structure(config, metadata, groups, dtypes, shapes)


def write(path: Path, model: Structure, variables: Iterator[tuple[str, Array]], texts: Mapping[str, str]) -> None:
    """Writes the file.

    Args:
      path: the file.
      model: the model.
      variables: (name, array) of each of the network's.
      texts: what else is to be in the file, by the names of their datasets.
    """
    pages = _Pages()
    places = _places(pages, model, texts)
    with path.open("wb") as file:
        pages.copy(file)
        for name, array in variables:
            offset = places.pop(name)
            # A variable by itself may have more axes of 1 in Keras.
            shape, dtype = model.shapes[name], model.dtypes[name].newbyteorder("<")
            if array.size != np.prod(shape, dtype=np.int64):
                raise InputError(f"{path}: {name} of shape {list(array.shape)} does not fit Keras's {list(shape)}")
            file.seek(offset)
            for piece in pieces(array):
                file.write(np.ascontiguousarray(piece, dtype).reshape(-1).view(np.uint8).data)
    if places:
        raise InputError(f"{path}: the source has no {next(iter(places))}; convert it again")


def _places(pages: _Pages, model: Structure, texts: Mapping[str, str]) -> dict[str, int]:
    """Makes a file without the network's variables, and returns the offset of each."""
    h5py = frameworks.require("h5py")
    places: dict[str, int] = {}
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(pages, "w") as file:
        for path, (layer, stored) in model.groups.items():
            if layer is None and not stored:
                continue
            group = file.create_group(f"{path}/vars" if path else "vars")
            if layer is not None:
                group.attrs["name"] = layer
            for key, value in stored.items():
                if not isinstance(value, str):
                    group[key] = value
                    continue
                dtype = model.dtypes[value].newbyteorder("<")
                dataset = group.create_dataset(key, model.shapes[value], dtype, dcpl=early.copy())
                # None of an empty one.
                places[value] = dataset.id.get_offset() or 0
        for name, text in texts.items():
            file[name] = text
    return places


class _Pages(io.RawIOBase):
    """A file in memory, of which only the pages that were written to take any."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._position = 0
        self._size = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        return self._size

    def readinto(self, buffer: Any) -> int:
        content = memoryview(buffer).cast("B")
        size = max(0, min(len(content), self._size - self._position))
        for start, page, place, count in self._parts(size):
            content[start : start + count] = self._pages.get(page, bytes(_PAGE))[place : place + count]
        self._position += size
        return size

    def write(self, data: Any) -> int:
        content = memoryview(data).cast("B")
        for start, page, place, count in self._parts(len(content)):
            self._pages.setdefault(page, bytearray(_PAGE))[place : place + count] = content[start : start + count]
        self._position += len(content)
        self._size = max(self._size, self._position)
        return len(content)

    def _parts(self, size: int) -> Iterator[tuple[int, int, int, int]]:
        """Yields (offset in the bytes, page, offset in the page, count) for bytes from the position on."""
        done = 0
        while done < size:
            page, place = divmod(self._position + done, _PAGE)
            count = min(size - done, _PAGE - place)
            yield done, page, place, count
            done += count

    def copy(self, file: Any) -> None:
        """Writes the file to the disk, zeros where nothing was written."""
        for page, content in sorted(self._pages.items()):
            file.seek(page * _PAGE)
            file.write(content[: self._size - page * _PAGE])
        file.truncate(self._size)
