"""A TensorFlow checkpoint (V2) with slim's names under the source's scope, for `tf.train.Saver.restore`."""

from __future__ import annotations

from pathlib import Path

from converters.checkpoint import write_checkpoint
from converters.sources import Source
from slimport.graph import scoped


def write(source: Source, path: Path) -> None:
    """Writes `path`.index and its data file, one variable at a time."""
    write_checkpoint(path, ((scoped(source.scope, name), array) for name, array in source.stream()))
