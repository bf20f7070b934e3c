"""`--extras`: what stands beside a network in a checkpoint, kept raw, by slim's names and in TensorFlow's layouts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from converters import leftovers
from converters.errors import InputError, first_line
from converters.mapping import Array
from converters.sources import Source
from converters.targets.atomic import atomic, check_destination

SUFFIXES = (".safetensors", ".npz")
_KEPT = (leftovers.HEAD, leftovers.LAYERS, leftovers.OTHER)


def check(path: Path) -> None:
    """Whether extras can be written at `path`, before anything is read.

    Raises:
      InputError: they cannot.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: the name of what --extras keeps must end in {' or '.join(SUFFIXES)}")
    check_destination(path)


def read(source: Source) -> dict[str, Array]:
    """The layers that are not the network's, its own head where that was left out, and what is of no known kind.

    What training left is not among them, and neither are strings, which these files do not hold.

    Raises:
      InputError: there is nothing of the kind, or the source is not a checkpoint.
    """
    if source.checkpoint is None:
        raise InputError(f"{source.path}: --extras keeps what a checkpoint holds, and this is not one; leave it out")
    extras = source.recognition.extras
    keys = {name: source.names[name] for group in _KEPT for name in extras.get(group, ())}
    dtypes = {name: source.checkpoint.variables[key].dtype.kind for name, key in keys.items()}
    kept = {name: key for name, key in keys.items() if dtypes[name] not in "OV"}
    if not kept:
        raise InputError(f"{source.path}: nothing that --extras could keep stands beside the network; leave it out")
    return {name: source.checkpoint[key] for name, key in kept.items()}


def write(arrays: Mapping[str, Array], path: Path) -> None:
    """Writes a `.safetensors` or `.npz` file, which appears whole or not at all.

    Raises:
      InputError: it cannot be written, or safetensors has not the dtype of an array.
    """
    with atomic(path) as temporary:
        if path.suffix == ".npz":
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            return
        from safetensors.numpy import save_file

        try:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: cannot hold these variables, but .npz can: {first_line(error)}") from error
