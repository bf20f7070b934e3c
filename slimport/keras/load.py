"""A model from a converted file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras


def load(path: str | os.PathLike[str]) -> Any:
    """The `keras.Model` in a `.keras` file, as `keras.saving.load_model` reads it.

    Args:
      path: the file. `converters.load_keras` takes any other checkpoint or converted file.

    Raises:
      ValueError: it is another file.
    """
    if Path(path).suffix != ".keras" or not Path(path).is_file():
        raise ValueError(
            f"{os.fspath(path)}: no .keras file; converters.load_keras takes checkpoints, other converted files, URLs "
            f"and names of the zoo"
        )
    return keras.saving.load_model(path)
