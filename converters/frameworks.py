"""Imports of heavy or optional modules, with one clear line if they are missing."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

from converters.errors import InputError

EXTRAS = {
    "aiohttp": "remote",
    "distributed": "dask",
    "filelock": "remote",
    "fsspec": "remote",
    "h5py": "keras",
    "jinja2": "report",
    "keras": "keras",
    "matplotlib.figure": "report",
    "ml_dtypes": "bfloat16",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "PIL.Image": "images",
    "platformdirs": "remote",
    "sklearn.datasets": "test",
    "slimport.nets": "tensorflow",
    "tensorflow": "tensorflow",
    "tf_slim": "tensorflow",
    "torch": "pytorch",
}
"""The extra of slimport that installs a module."""
_PRINTS = ("keras", "slimport.nets", "tensorflow", "tf_slim")


def require(module: str) -> Any:
    """Imports an optional module, a key of `EXTRAS`.

    Keras is imported on the backend that the user chose, or else on one that is installed; `slimport.nets` is
    TensorFlow 1's interface with tf_slim working.

    Raises:
      InputError: it is not installed; says which extra of slimport installs it.
    """
    if module == "keras":
        _choose_keras_backend()
    with quiet() if module in _PRINTS and module not in sys.modules else nullcontext():
        try:
            if module == "slimport.nets":
                importlib.import_module("tf_slim")
            found = importlib.import_module(module)
            if module == "keras" and found.config.backend() == "tensorflow":
                # TensorFlow prints at its own import, which Keras may put off.
                importlib.import_module("tensorflow")
        except ModuleNotFoundError as error:
            extra = EXTRAS.get(error.name or module, EXTRAS[module])
            raise InputError(f"{error.name} is not installed: pip install 'slimport[{extra}]'") from error
    return found


def versions(*packages: str) -> dict[str, str]:
    """The versions of the installed ones among these packages; none is imported."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _choose_keras_backend() -> None:
    if "keras" in sys.modules or "KERAS_BACKEND" in os.environ or _keras_config().exists():
        return
    installed = [name for name in ("tensorflow", "torch", "jax") if importlib.util.find_spec(name)]
    if not installed:
        raise InputError("Keras needs a backend: pip install 'slimport[tensorflow]' or 'slimport[pytorch]'")
    os.environ["KERAS_BACKEND"] = installed[0]


def _keras_config() -> Path:
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json"


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses output and warnings, those of C++ too, unless the block fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
