"""`--extras`: the variables of a checkpoint's other layers, by slim's names and in TensorFlow's layouts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from converters.errors import InputError, first_line
from converters.files import atomic, check_destination
from converters.variables import Array
from converters.weights import training_state
from converters.weights.source import Source

SUFFIXES = (".safetensors", ".npz")
_KEPT = (training_state.HEAD, training_state.LAYERS, training_state.OTHER)


def check(path: Path) -> None:
    """Checks that extras can be written at `path`.

    Raises:
      InputError: they cannot.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: the name of the file for --extras must end in {' or '.join(SUFFIXES)}")
    check_destination(path)


def read(source: Source) -> dict[str, Array]:
    """Reads the variables of other layers, of a head that was left out, and of unknown kind.

    Training state is not included, nor are strings, which these files cannot contain.

    Raises:
      InputError: there is nothing of the kind, or the source is not a checkpoint.
    """
    if source.checkpoint is None:
        raise InputError(f"{source.path}: --extras is for checkpoints, and this is not one; leave it out")
    extras = source.recognition.extras
    keys = {name: source.names[name] for group in _KEPT for name in extras.get(group, ())}
    dtypes = {name: source.checkpoint.variables[key].dtype.kind for name, key in keys.items()}
    kept = {name: key for name, key in keys.items() if dtypes[name] not in "OV"}
    if not kept:
        raise InputError(f"{source.path}: no variables of other layers for --extras; leave it out")
    return {name: source.checkpoint[key] for name, key in kept.items()}


def write(arrays: Mapping[str, Array], path: Path) -> None:
    """Writes a `.safetensors` or `.npz` file, which appears whole or not at all.

    Raises:
      InputError: it cannot be written, or safetensors does not have the dtype of an array.
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
            raise InputError(f"{path}: cannot contain these variables, but .npz can: {first_line(error)}") from error
