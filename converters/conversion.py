"""`convert`: from a source to a target file."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from converters.errors import InputError
from converters.files import same_file
from converters.formats import output_files, read_of, target_of
from converters.variables import PathLike
from converters.weights import unexpected
from converters.weights.recognize import Recognition
from converters.weights.rounding import Rounding
from converters.weights.selection import EVERYTHING, Selection
from converters.weights.source import open_source
from converters.weights.user_graph import BESIDE, GraphOptions


@dataclass(frozen=True, repr=False)
class Conversion:
    """The result of `convert`.

    recognition: the network; its `extras` are the variables that were not converted.
    rounding: the errors of another dtype.
    extras: the names of the variables that were written raw.
    read: the checkpoint, where the source is a directory or an archive with others.
    """

    source: Path
    destination: Path
    framework: str
    recognition: Recognition
    rounding: Rounding | None = None
    extras: tuple[str, ...] = ()
    read: str = ""

    def __repr__(self) -> str:
        return f"<Conversion of {self.source} to {self.destination}: {self.recognition}>"

    def notes(self) -> list[str]:
        """The facts about the result that a user should know."""
        notes = ([f"read: {self.read}"] if self.read else []) + list(self.recognition.notes())
        if self.framework == "slim" and self.rounding and self.rounding.dtype != "float32":
            dtype = self.rounding.dtype
            notes.append(f"its variables are {dtype}: a graph restores them only if its own are {dtype} too")
        return notes


def convert(
    source: PathLike,
    destination: PathLike,
    to: str | None = None,
    scope: str | None = None,
    step: int | None = None,
    selection: Selection = EVERYTHING,
    graph: GraphOptions = BESIDE,
    dtype: str | None = None,
    extras: PathLike | None = None,
) -> Conversion:
    """Converts a checkpoint, or a converted file, to the format that the destination's suffix names.

    Args:
      source: a checkpoint or a converted file, see `open_source`.
      destination: `.safetensors`, `.pth`, `.pt2`, `.onnx`, `.keras`, `.weights.h5`, `.ckpt` for a slim checkpoint's
        prefix, or a folder for `huggingface`. It appears whole or not at all.
      to: `pytorch`, `onnx`, `keras`, `slim` or `huggingface`; None follows from the suffix.
      scope: the network's scope, if the source contains several networks.
      step: the checkpoint of a training run's directory; None is the newest.
      selection: the variables to use.
      graph: the user's own graph, for everything that variables cannot tell.
      dtype: `float16`, `bfloat16`, `float32` or `float64`, of every variable; None keeps their dtypes.
      extras: a `.safetensors` or `.npz` file for the variables of other layers, raw.

    Raises:
      InputError: the source cannot be read or contains no complete network, the destination cannot be written, or the
        dtype is not one of its format, or a value overflows in it.
    """
    if not os.fspath(destination):
        raise InputError("the destination is empty; name a file")
    destination = Path(destination)
    # Before the source is read, so that a mistyped name costs nothing.
    target = target_of(destination, to)
    if dtype is not None:
        target.check_dtype(dtype)
    aside = None if extras is None else unexpected.check(extras, destination)
    with open_source(source, scope, step, selection, graph) as opened:
        for output in [*output_files(destination), *([] if aside is None else [aside])]:
            if any(same_file(output, file) for file in opened.files):
                raise InputError(f"{output}: is the source itself; choose another destination")
        target.check_size(opened, destination, dtype)
        kept = {} if aside is None else unexpected.read(opened)
        if dtype is not None:
            opened = opened.in_dtype(dtype)
        # The extras are complete before the destination is replaced, so that there are both or none.
        with nullcontext() if aside is None else unexpected.written(kept, aside):
            target.write(opened, destination)
        found, names = opened.recognition, tuple(kept)
        return Conversion(
            opened.path, destination, target.framework, found, opened.rounding, names, read_of(opened.path, opened.file)
        )
