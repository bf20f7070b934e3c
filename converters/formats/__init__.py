"""The formats: each module reads and writes one, and has a `FORMAT` for the table here."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from converters.errors import InputError
from converters.formats.base import FLOATING_POINT, Format, OpenFile, Weights

__all__ = [
    "CONVERTED_SUFFIXES",
    "FLOATING_POINT",
    "FORMATS",
    "FRAMEWORKS",
    "Format",
    "OpenFile",
    "Weights",
    "format_of",
    "is_folder",
    "open_file",
    "target_of",
]


def _formats() -> Iterator[Format]:
    for module in pkgutil.iter_modules(__path__):
        found = getattr(import_module(f"{__name__}.{module.name}"), "FORMAT", None)
        if isinstance(found, Format):
            yield found


FORMATS = tuple(sorted(_formats(), key=lambda format_: format_.place))
FRAMEWORKS = tuple(dict.fromkeys(format_.framework for format_ in FORMATS))
_FOLDER = next(format_ for format_ in FORMATS if "/" in format_.suffixes)
_CHECKPOINT = next(format_ for format_ in FORMATS if format_.framework == "slim")
CONVERTED_SUFFIXES = tuple(
    suffix for format_ in FORMATS if format_ not in (_FOLDER, _CHECKPOINT) for suffix in format_.suffixes
)
"""The suffixes of converted files, as opposed to checkpoints and folders."""


@contextmanager
def open_file(path: Path, step: int | None = None) -> Iterator[OpenFile]:
    """Opens a checkpoint, or a converted file or folder, whatever its format.

    Args:
      path: the file, or a checkpoint, see `open_checkpoint`.
      step: which checkpoint of a training run's directory; None is the newest.

    Raises:
      InputError: it cannot be read.
    """
    format_ = format_of(path)
    if format_ not in (_FOLDER, _CHECKPOINT) and not path.is_file():
        raise InputError(f"{path}: no such file")
    with format_.open(path, step) as opened:
        yield opened


def format_of(path: Path) -> Format:
    """The format of a file, by its name; other files are checkpoints."""
    for format_ in FORMATS:
        if path.name.endswith(format_.suffixes) and format_ is not _CHECKPOINT:
            return format_
    return _FOLDER if (path / "model.safetensors").is_file() and (path / "config.json").is_file() else _CHECKPOINT


def target_of(path: Path, framework: str | None = None) -> Format:
    """The format that a destination's suffix names.

    Raises:
      InputError: no format has the suffix, or none of `framework`'s has.
    """
    for format_ in FORMATS:
        if path.name.endswith(format_.suffixes) and framework in (None, format_.framework):
            return format_
    # A checkpoint's prefix and a folder need no suffix.
    for format_ in (_CHECKPOINT, _FOLDER):
        if framework == format_.framework:
            return format_
    suffixes = [suffix for format_ in FORMATS if framework in (None, format_.framework) for suffix in format_.suffixes]
    one = f"one of --to {framework}" if framework else "one of"
    raise InputError(f"{path}: the name must end in {one}: {', '.join(suffixes)}")


def is_folder(destination: str, framework: str | None = None) -> bool:
    """Whether a destination is a folder for many outputs: it ends in a slash, or is a folder and no output's name.

    For `huggingface` it is one output.
    """
    if framework == _FOLDER.framework:
        return False
    suffixes = tuple(suffix for format_ in FORMATS for suffix in format_.suffixes)
    return destination.endswith(("/", os.sep)) or (Path(destination).is_dir() and not destination.endswith(suffixes))
