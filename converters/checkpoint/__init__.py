"""TensorFlow checkpoint files, read and written without TensorFlow.

with open_checkpoint("resnet_v2_50.ckpt") as checkpoint:
    checkpoint.variables["resnet_v2_50/conv1/weights"].shape
    checkpoint["resnet_v2_50/conv1/weights"]
"""

from __future__ import annotations

import os
from pathlib import Path

from converters.checkpoint.bundle import BundleCheckpoint
from converters.checkpoint.locate import locate
from converters.checkpoint.reader import Checkpoint, Variable
from converters.checkpoint.v1 import V1Checkpoint
from converters.checkpoint.writer import write_checkpoint

__all__ = ["Checkpoint", "Variable", "open_checkpoint", "write_checkpoint"]


def open_checkpoint(source: str | os.PathLike[str]) -> Checkpoint:
    """Opens a checkpoint; reads its index, and no tensor.

    Args:
      source: a V1 file, a prefix, any file of a V2 or sharded V1 checkpoint, the `.meta` beside one, a directory with a
        `checkpoint` file, or a SavedModel directory.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    path, v1_files = locate(Path(source))
    return V1Checkpoint(path, v1_files) if v1_files else BundleCheckpoint(path)
