"""The formats: each module reads and writes one, and has a `FORMAT` for the table here."""

from __future__ import annotations

import os
import pkgutil
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from converters.errors import InputError, first_line
from converters.files import Unchanged
from converters.formats.base import FLOATING_POINT, Format, OpenFile, Weights
from converters.variables import Array

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
    "output_files",
    "read_of",
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
      InputError: it cannot be read; from reading, also: it was changed since it was opened.
    """
    format_ = format_of(path)
    if format_ not in (_FOLDER, _CHECKPOINT) and not path.is_file():
        raise InputError(f"{path}: no such file")
    with ExitStack() as stack:
        with _about(path, format_):
            opened = stack.enter_context(format_.open(path, step))
        unchanged = Unchanged(opened.files)

        def read(names: Iterable[str]) -> Iterator[tuple[str, Array]]:
            with _about(path, format_):
                arrays = opened.read(names)
            while True:
                with _about(path, format_):
                    found = next(arrays, None)
                if found is None:
                    break
                yield found
            unchanged.check()

        # By a name that can be shown; its own, by which it is read, is in the variable.
        variables = {
            name if name.isprintable() else ascii(name)[1:-1]: variable for name, variable in opened.variables.items()
        }
        yield replace(opened, read=read, variables=variables)


@contextmanager
def _about(path: Path, format_: Format) -> Iterator[None]:
    """Whatever a library raises of a file is an error of that file, in one line."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {first_line(error)}") from error
    except Exception as error:
        what = f"not a {format_.suffixes[0]} file, or damaged"
        raise InputError(f"{path}: {what}: {type(error).__name__}: {first_line(error)}; get the file again") from error


def format_of(path: Path) -> Format:
    """The format of a file, by its name; other files are checkpoints, and so are folders of any name."""
    if not path.is_dir():
        for format_ in FORMATS:
            if path.name.endswith(format_.suffixes) and format_ is not _CHECKPOINT:
                return format_
    return _FOLDER if (path / "model.safetensors").is_file() and (path / "config.json").is_file() else _CHECKPOINT


def target_of(path: Path, framework: str | None = None) -> Format:
    """The format that a destination's suffix names.

    Raises:
      InputError: there is no such framework, or no format has the suffix, or none of the framework's has.
    """
    if framework not in (None, *FRAMEWORKS):
        raise InputError(f"--to {framework}: must be one of {', '.join(FRAMEWORKS)}")
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


def output_files(destination: Path) -> list[Path]:
    """The existing files of an output, of any format: a conversion to this name replaces or removes them."""
    beside = re.compile(re.escape(destination.name) + r"(\.index|\.data-\d{5}-of-\d{5})?")
    try:
        if destination.is_dir():
            return sorted(path for path in destination.rglob("*") if path.is_file())
        found = [path for path in destination.parent.iterdir() if beside.fullmatch(path.name)]
    except OSError:
        return []
    return sorted(found, key=lambda path: (path.name != destination.name, path.suffix != ".index", path.name))


def read_of(source: Path, file: OpenFile) -> str:
    """Which checkpoint was read, where the source does not say it; empty where it does."""
    if file.checkpoint is None or source.name == file.checkpoint.path.name:
        return ""
    # Here, so that converted files are read where what reads TensorFlow's (crc32c) is not installed.
    from converters.checkpoint.messages import shown

    return file.checkpoint.note or shown(file.checkpoint.path.name) if source.is_dir() else file.checkpoint.note


def is_folder(destination: str, framework: str | None = None) -> bool:
    """Whether a destination is a folder for many outputs: it ends in a slash, or is a folder and no output's name.

    For `huggingface` it is one output.

    Raises:
      InputError: it is empty.
    """
    if not destination:
        raise InputError("the destination is empty; name a file, or a folder that ends in /")
    if framework == _FOLDER.framework:
        return False
    suffixes = tuple(suffix for format_ in FORMATS for suffix in format_.suffixes)
    return destination.endswith(("/", os.sep)) or (Path(destination).is_dir() and not destination.endswith(suffixes))
