"""Imports of heavy or optional modules, with one clear line if they are missing."""

from __future__ import annotations

import importlib
import importlib.util
import json
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
    "distributed": "dask",
    "h5py": "keras",
    "jinja2": "report",
    "keras": "keras",
    "matplotlib": "report",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "sklearn": "test",
    "tensorflow": "tensorflow",
    "tf_keras": "tensorflow",
    "tf_slim": "tensorflow",
    "torch": "pytorch",
}
"""The extra of slimport that installs a package; others are installed with slimport, or are the user's own."""
BACKENDS = ("tensorflow", "torch", "jax")
"""The backends of Keras that slimport runs on: the first one that is installed is the default."""
_DISTRIBUTIONS = {"PIL": "pillow"}
_PRINTS = ("keras", "slimport.nets", "tensorflow", "tf_slim")


def require(module: str) -> Any:
    """Imports a module that is optional or heavy.

    Keras is imported on the backend that the user chose, or else on one that is installed; `slimport.nets` is
    TensorFlow 1's interface with tf_slim working.

    Raises:
      InputError: it is not installed; says what installs it.
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
            missing = error.name or module
            raise InputError(f"{missing} is not installed: {installation(missing.partition('.')[0])}") from error
    return found


def installation(package: str) -> str:
    """The command that installs a package with what belongs to it."""
    return _adds(EXTRAS[package]) if package in EXTRAS else f"pip install {_DISTRIBUTIONS.get(package, package)}"


def _adds(extras: str) -> str:
    # pip keeps a slimport that is installed, wherever it came from, and adds what its extra needs.
    slimport = "slimport" if versions("slimport") else os.fspath(Path(__file__).parents[1])
    return f"pip install '{slimport}[{extras}]'"


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
    if "keras" in sys.modules:
        return
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen and chosen not in BACKENDS:
        raise InputError(f"KERAS_BACKEND={chosen}: must be one of {', '.join(BACKENDS)}")
    if chosen and chosen not in installed:
        others = f"; KERAS_BACKEND={installed[0]} works" if installed else ""
        raise InputError(f"KERAS_BACKEND={chosen}: {chosen} is not installed: {installation(chosen)}{others}")
    if not installed:
        raise InputError(f"Keras needs a backend: {_adds('keras,pytorch')} or {_adds('tensorflow')}")
    # Keras's own file says "tensorflow" from its first import on, whether that is installed or not.
    if not chosen and _configured_backend() not in installed:
        os.environ["KERAS_BACKEND"] = installed[0]


def _configured_backend() -> object:
    try:
        config = json.loads((Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json").read_bytes())
    except (OSError, ValueError):
        return None
    return config.get("backend") if isinstance(config, dict) else None


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
