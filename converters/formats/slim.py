"""TensorFlow checkpoints with slim's names: read in every format, written in V2 for `tf.train.Saver.restore`.

A checkpoint holds variables and nothing else. Where these do not say which network it is, because some of its arguments
are not the defaults, the description is in a variable of its own, a string that no graph asks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from converters.formats.base import Format, OpenFile, Weights, check_count, description_text, read_description
from converters.variables import Array
from slimport.graph import scoped
from slimport.networks import FAMILIES, GraphNetwork

if TYPE_CHECKING:
    from converters.checkpoint import Checkpoint

DESCRIPTION = "slimport/description"


@contextmanager
def open_file(path: Path, step: int | None = None) -> Iterator[OpenFile]:
    """Opens a checkpoint, whatever `open_checkpoint` takes."""
    # Here, so that converted files are read where what reads checkpoints (crc32c) is not installed.
    from converters.checkpoint import open_checkpoint

    with open_checkpoint(path, step, check=partial(check_count, path)) as checkpoint:
        description = _description(path, checkpoint)
        variables = {
            name: checkpoint.variables[key]
            for name, key in checkpoint_names(checkpoint).items()
            if not (description and key == DESCRIPTION)
        }

        def read(names: Iterable[str]) -> Iterator[tuple[str, Array]]:
            return checkpoint.stream(names)

        yield OpenFile(path, checkpoint.format, checkpoint.files, variables, read, description, checkpoint)


def checkpoint_names(checkpoint: Checkpoint) -> dict[str, str]:
    """The keys of a checkpoint's variables, by the names that slim gave them.

    An object-based checkpoint has a variable under its object path, and remembers its name. Where two have the same,
    the object paths tell them apart.
    """
    from converters.checkpoint import full_names

    paths = {key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): key for key in checkpoint.variables}
    remembered = full_names(checkpoint)
    found = {remembered.get(key, path): key for path, key in paths.items()}
    return found if len(found) == len(paths) else paths


def write(weights: Weights, path: Path) -> None:
    """Writes `path`.index and its data file, one variable at a time."""
    from converters.checkpoint import write_checkpoint

    def variables() -> Iterator[tuple[str, Array]]:
        yield from _each_once(weights, path)
        if weights.arguments or weights.network.family not in FAMILIES:
            yield DESCRIPTION, np.array(description_text(weights.description()), dtype=object)

    write_checkpoint(path, variables())


def _each_once(weights: Weights, path: Path) -> Iterator[tuple[str, Array]]:
    """Yields TensorFlow's variables; of those that several layers take, the array that all of them must have.

    Raises:
      InputError: two have other values.
    """
    sources = weights.network.recorded.sources if isinstance(weights.network, GraphNetwork) else {}
    counts = Counter(source.name for source in sources.values())
    written: dict[str, tuple[str, Array]] = {}
    for name, array in weights.stream():
        own, value = _as_in_tensorflow(weights, name, array)
        if name in sources and counts[sources[name].name] > 1:
            first, other = written.setdefault(own, (name, value.copy()))
            if other.shape != value.shape or other.tobytes() != value.tobytes():
                raise InputError(
                    f"{path}: {own} is one variable in TensorFlow, and {first} and {name}, which shared it, were "
                    f"trained apart: give both the same values"
                )
            if first != name:
                continue
        yield own, value


def _as_in_tensorflow(weights: Weights, name: str, array: Array) -> tuple[str, Array]:
    """A variable's name and array in TensorFlow's graph, which differ from the network's for a user's own graph."""
    sources = weights.network.recorded.sources if isinstance(weights.network, GraphNetwork) else {}
    if name not in sources:
        return scoped(weights.scope, name), array
    source = sources[name]
    axes = source.permutation or tuple(range(len(source.shape or array.shape)))
    shape = source.shape or array.shape
    permuted = array.reshape([shape[axis] for axis in axes])
    return scoped(weights.scope, source.name), permuted.transpose(np.argsort(axes))


def _description(path: Path, checkpoint: Checkpoint) -> Mapping[str, Any]:
    variable = checkpoint.variables.get(DESCRIPTION)
    if variable is None or variable.shape or variable.dtype.kind != "O":
        return {}
    return read_description(path, checkpoint[DESCRIPTION].item())


FORMAT = Format("slim", "slim", (".ckpt",), 5, open_file, write)
