"""`convert`: from a source to a target file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters import extras as beside
from converters.errors import InputError
from converters.recognize import Recognition
from converters.rounding import Rounding, in_dtype
from converters.sources import PathLike, open_source
from converters.targets import target_of
from converters.views import AS_IT_IS, View


@dataclass(frozen=True)
class Conversion:
    """What `convert` did: `recognition.extras` lists what it left out, `extras` what of that was kept aside, and
    `rounding` what another dtype lost.
    """

    source: Path
    destination: Path
    framework: str
    recognition: Recognition
    rounding: Rounding | None = None
    extras: tuple[str, ...] = ()


def convert(
    source: PathLike,
    destination: PathLike,
    to: str | None = None,
    scope: str | None = None,
    step: int | None = None,
    view: View = AS_IT_IS,
    dtype: str | None = None,
    extras: PathLike | None = None,
) -> Conversion:
    """Converts a checkpoint, or a converted file, to the format that the destination's suffix names.

    Args:
      source: what `open_source` takes.
      destination: `.safetensors`, `.pth`, `.pt2`, `.onnx`, `.keras`, `.weights.h5`, `.ckpt` for a slim checkpoint's
        prefix, or a folder for `huggingface`. It appears whole or not at all; what stood there is replaced only by what
        is whole.
      to: `pytorch`, `onnx`, `keras`, `slim` or `huggingface`; None follows from the suffix.
      scope: which network, where the source holds several.
      step: which checkpoint of a training run's directory; None is the newest.
      view: what to take of the source's network.
      dtype: `float16`, `bfloat16`, `float32` or `float64`, of every variable; None leaves each in its own.
      extras: a `.safetensors` or `.npz` file for what is beside the network and not from training, raw.

    Raises:
      InputError: the source cannot be read or holds no whole network, the destination cannot be written, or the dtype
        is not one of its format, or does not reach as far as a number.
    """
    destination = Path(destination)
    # Before the source is read, so that a mistyped name costs nothing.
    target = target_of(destination, to)
    if dtype is not None:
        target.check_dtype(dtype)
    aside = None if extras is None else Path(extras)
    if aside is not None:
        beside.check(aside)
    with open_source(source, scope, step, view) as opened:
        taken = [*opened.files, *(file.parent for file in opened.files)]
        if destination.exists() and any(destination.samefile(path) for path in taken):
            raise InputError(f"{destination}: is the source itself; choose another destination")
        kept = {} if aside is None else beside.read(opened)
        if dtype is not None:
            opened = in_dtype(opened, dtype)
        target.write(opened, destination)
        if aside is not None:
            beside.write(kept, aside)
        return Conversion(opened.path, destination, target.framework, opened.recognition, opened.rounding, tuple(kept))
