"""Imports of what is heavy or optional, when it is needed: one clear line where it is missing."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from converters.errors import InputError


def import_torch() -> Any:
    """PyTorch."""
    return _import("torch", "pytorch")


def import_h5py() -> Any:
    """h5py, which reads and writes Keras's weights."""
    return _import("h5py", "keras")


def import_matplotlib_figure() -> Any:
    """Matplotlib's figures, which need neither a screen nor a choice of backend."""
    return _import("matplotlib.figure", "report")


def import_sklearn_datasets() -> Any:
    """The data sets that scikit-learn ships."""
    return _import("sklearn.datasets", "test")


def import_keras() -> Any:
    """Keras 3, on the backend that the user chose, or else on one that is installed."""
    if "keras" not in sys.modules and "KERAS_BACKEND" not in os.environ and not _keras_config().exists():
        installed = [name for name in ("tensorflow", "torch", "jax") if importlib.util.find_spec(name)]
        if not installed:
            raise InputError("Keras needs a backend: pip install 'slimport[tensorflow]' or 'slimport[pytorch]'")
        os.environ["KERAS_BACKEND"] = installed[0]
    with quiet():
        keras = _import("keras", "keras")
        if keras.config.backend() == "tensorflow":
            # TensorFlow prints at its own import, which Keras may put off.
            _import("tensorflow", "tensorflow")
    return keras


def import_fsspec() -> Any:
    """fsspec, which opens URLs of many protocols."""
    return _import("fsspec", "remote")


def import_aiohttp() -> Any:
    """aiohttp, which fsspec speaks HTTP with."""
    return _import("aiohttp", "remote")


def import_distributed() -> Any:
    """Dask's `distributed`, whose clusters run work on other machines."""
    return _import("distributed", "dask")


def import_filelock() -> Any:
    """filelock: locks between processes."""
    return _import("filelock", "remote")


def import_platformdirs() -> Any:
    """platformdirs: where a system keeps a user's caches."""
    return _import("platformdirs", "remote")


def import_pillow() -> Any:
    """Pillow's module `Image`, which decodes images."""
    return _import("PIL.Image", "images")


def import_ml_dtypes() -> Any:
    """ml_dtypes: NumPy's bfloat16."""
    return _import("ml_dtypes", "bfloat16")


def import_onnx() -> Any:
    """ONNX's own package: the file format."""
    return _import("onnx", "onnx")


def import_onnxscript() -> Any:
    """ONNX Script, which PyTorch's exporter is built on."""
    return _import("onnxscript", "onnx")


def import_onnxruntime() -> Any:
    """ONNX Runtime, which runs ONNX files."""
    return _import("onnxruntime", "onnx")


def import_tensorflow() -> Any:
    """TensorFlow."""
    with quiet():
        return _import("tensorflow", "tensorflow")


def import_nets() -> Any:
    """TensorFlow 1's interface, with tf_slim working: the module `slimport.nets`."""
    with quiet():
        _import("tf_slim", "tensorflow")
        return _import("slimport.nets", "tensorflow")


def import_figure() -> Any:
    """matplotlib's module `figure`. A `Figure` draws with Agg, whatever backend the user's pyplot has."""
    return _import("matplotlib.figure", "report")


def versions(*packages: str) -> dict[str, str]:
    """The versions of those of these packages that are installed; none is imported."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _import(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'slimport[{extra}]'") from error


def _keras_config() -> Path:
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json"


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back what a framework prints and warns of, TensorFlow's C++ side too; shows it if the block fails."""
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
