"""One writer per target; the target follows from the destination's suffix."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from converters.errors import InputError
from converters.sources import FLOATING_POINT, Source


@dataclass(frozen=True)
class Target:
    """A kind of file: the framework that it is for, its suffix, and the module here whose `write` makes it.

    dtypes: in which it can be asked for.
    """

    framework: str
    suffix: str
    module: str
    dtypes: tuple[str, ...] = FLOATING_POINT

    def check_dtype(self, dtype: str) -> None:
        """Raises InputError if the target cannot be asked for in this dtype."""
        if dtype not in self.dtypes:
            raise InputError(f"--dtype {dtype}: must be one of {', '.join(self.dtypes)} for {self.suffix}")

    def write(self, source: Source, path: Path) -> None:
        """Writes the source's network to `path`, which appears whole or not at all."""
        write: Callable[[Source, Path], None] = import_module(f"converters.targets.{self.module}").write
        write(source, path)


# A Keras layer computes in the dtype of its weights: in half precision that is another network, not another file.
_KERAS_DTYPES = ("float32", "float64")

TARGETS = (
    Target("pytorch", ".safetensors", "safetensors"),
    Target("pytorch", ".pth", "pth"),
    Target("pytorch", ".pt2", "pt2"),
    Target("onnx", ".onnx", "onnx", ("float32",)),
    Target("keras", ".keras", "keras", _KERAS_DTYPES),
    Target("keras", ".weights.h5", "keras", _KERAS_DTYPES),
    Target("slim", ".ckpt", "slim"),
    Target("huggingface", "/", "huggingface"),
)


def is_folder(destination: str, framework: str | None = None) -> bool:
    """Whether a destination is a folder for many outputs: it ends in a slash, or is a folder and no output's name.

    For `huggingface` it is one output.
    """
    if framework == "huggingface":
        return False
    suffixes = tuple(target.suffix for target in TARGETS)
    return destination.endswith(("/", os.sep)) or (Path(destination).is_dir() and not destination.endswith(suffixes))


def target_of(path: Path, framework: str | None = None) -> Target:
    """The target that a destination's suffix names.

    Raises:
      InputError: no target has the suffix, or `framework`'s targets have not.
    """
    for target in TARGETS:
        if path.name.endswith(target.suffix) and framework in (None, target.framework):
            return target
    # A slim checkpoint is named by a prefix and a folder by anything: they need not end in what they can end in.
    if framework in ("slim", "huggingface"):
        return next(target for target in TARGETS if target.framework == framework)
    suffixes = [target.suffix for target in TARGETS if framework in (None, target.framework)]
    one = f"one of --to {framework}" if framework else "one of"
    raise InputError(f"{path}: the name must end in {one}: {', '.join(suffixes)}")
