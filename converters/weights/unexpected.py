"""`--extras`: the variables of a checkpoint's other layers, by slim's names and in TensorFlow's layouts."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from converters.errors import InputError, first_line
from converters.files import atomic, check_destination, resolved
from converters.variables import Array, PathLike
from converters.weights import training_state
from converters.weights.source import Source

SUFFIXES = (".safetensors", ".npz")
_KEPT = (training_state.HEAD, training_state.LAYERS, training_state.OTHER)


def check(path: PathLike, destination: Path) -> Path:
    """Checks that extras can be written at `path`, and returns it.

    Raises:
      InputError: they cannot, or they would be written over the destination, or into its folder.
    """
    found = Path(path)
    if found.suffix not in SUFFIXES:
        raise InputError(f"{path}: the name of the file for --extras must end in {' or '.join(SUFFIXES)}")
    found = check_destination(found)
    taken = resolved(destination)
    if taken == found or taken in found.parents:
        raise InputError(f"{path}: is the destination, or in it; choose another file for --extras")
    return found


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


@contextmanager
def written(arrays: Mapping[str, Array], path: Path) -> Iterator[None]:
    """Writes a `.safetensors` or `.npz` file, which appears at the end of the block, unless that fails.

    Raises:
      InputError: it cannot be written, or safetensors does not have the dtype of an array.
    """
    with atomic(path) as temporary:
        if path.suffix == ".npz":
            # One at a time and not by their names, which could be those of np.savez's own arguments.
            with zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
        else:
            _write_safetensors(arrays, path, temporary)
        yield


def _write_safetensors(arrays: Mapping[str, Array], path: Path, temporary: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: cannot contain these variables, but .npz can: {first_line(error)}") from error
