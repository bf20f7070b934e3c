"""TensorFlow checkpoint files, read and written without TensorFlow.

with open_checkpoint("resnet_v2_50.ckpt") as checkpoint:
    checkpoint.variables["resnet_v2_50/conv1/weights"].shape
    checkpoint["resnet_v2_50/conv1/weights"]
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from converters.checkpoint.bundle import BundleCheckpoint
from converters.checkpoint.locate import Located, is_archive, locate
from converters.checkpoint.messages import shown
from converters.checkpoint.object_graph import full_names, object_graph
from converters.checkpoint.reader import Checkpoint
from converters.checkpoint.v1 import V1Checkpoint
from converters.checkpoint.writer import write_checkpoint
from converters.errors import CheckpointError, InputError, reason
from converters.variables import Variable

__all__ = ["Checkpoint", "Variable", "full_names", "object_graph", "open_checkpoint", "write_checkpoint"]


def open_checkpoint(
    source: str | os.PathLike[str], step: int | None = None, *, check: Callable[[int], None] = lambda _: None
) -> Checkpoint:
    """Opens a checkpoint; reads its index, and no tensor.

    Args:
      source: a V1 file, a prefix, any file of a V2 or sharded V1 checkpoint, the `.meta` beside one, a directory with a
        `checkpoint` file or with one checkpoint, a SavedModel directory, or a `.tar` or `.tar.gz` with one in it.
      step: which checkpoint of a training run, PREFIX-STEP; None is the newest.
      check: called with the number of variables, those of a V2 checkpoint before they are looked at; may raise.

    Raises:
      CheckpointError: there is none, there are several, or it is damaged.
    """
    path = Path(source)
    try:
        return _in_archive(path, step, check) if is_archive(path) else _open(locate(path, step), check)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise CheckpointError(f"{shown(str(path))}: cannot be read: {reason(error)}") from error


def _open(located: Located, check: Callable[[int], None], archive: str | None = None) -> Checkpoint:
    def label(path: Path) -> str:
        return shown(str(path)) if archive is None else f"{archive}: {shown(path.name)}"

    checkpoint: Checkpoint
    if located.v1_files:
        checkpoint = V1Checkpoint(located.path, located.v1_files, label)
        check(len(checkpoint))
    else:
        checkpoint = BundleCheckpoint(located.path, label, check)
    checkpoint.note = located.note
    return checkpoint


def _in_archive(path: Path, step: int | None, check: Callable[[int], None]) -> Checkpoint:
    # Here, since most checkpoints are in no archive, and the modules for them take a while to import.
    from converters.checkpoint import archive

    folder, chosen = archive.unpack(path, step)
    try:
        located = locate(Path(folder.name) / PurePosixPath(chosen.prefix).name)
        checkpoint = _open(replace(located, note=chosen.note), check, shown(str(path)))
    except BaseException:
        folder.cleanup()
        raise
    checkpoint.on_close(folder.cleanup)
    return checkpoint
