"""Tries an installation in a minute: makes a small checkpoint, and inspects, converts, loads, verifies and predicts.

    python -m scripts.smoke

Converts to each format that the installed packages allow, and says which it left out. The exit code is 1 if anything
else fails. `scripts/studies/lower_bounds.py` runs it with the oldest and the newest versions.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from converters import InputError, frameworks, load_keras, load_pytorch
from converters.batch import convert_all
from converters.cli import cli
from scripts.make_checkpoint import save_without_tensorflow
from scripts.studies.small_networks import SMALL

FORMATS = ("safetensors", "ckpt", "pth", "pt2", "onnx", "keras", "weights.h5")
PACKAGES = ("numpy", "torch", "tensorflow", "keras", "onnx", "onnxruntime")


def check(folder: Path) -> int:
    """Runs every step in a folder; prints a line for each, and returns the number of those that failed."""
    failures = 0

    def step(name: str, run: Callable[[], Any]) -> None:
        nonlocal failures
        print(f"--- {name}", flush=True)
        try:
            run()
        except InputError as error:
            missing = "not installed" in str(error) or "needs a backend" in str(error)
            failures += not missing
            print(f"{'left out' if missing else 'FAILED'}: {error}")
        except Exception as error:
            failures += 1
            print(f"FAILED: {type(error).__name__}: {error}")

    def command(*words: object) -> None:
        line = [str(word) for word in words]
        step(f"slimport {' '.join(line)}", lambda: cli(line, standalone_mode=False) and sys.exit("a difference"))

    source = folder / "model.ckpt"
    save_without_tensorflow(SMALL, source)
    command("inspect", source)
    for suffix in FORMATS:
        command("convert", source, folder / f"converted.{suffix}")
    command("convert", source, folder / "hub", "--to", "huggingface")
    command("convert", source, folder / "half.safetensors", "--dtype", "bfloat16")
    step("load_pytorch", lambda: load_pytorch(folder / "converted.safetensors"))
    step("load_keras", lambda: load_keras(folder / "converted.safetensors"))
    for suffix in FORMATS:
        if (converted := folder / f"converted.{suffix}").exists() or suffix == "ckpt":
            command("verify", source, converted, "--size", 33)
    command("verify", source, "--size", 33, "--plot", folder / "verify.png", "--report", folder / "verify.html")
    step("an image", lambda: _image(folder / "image.png"))
    command("predict", source, folder / "image.png", "--size", 33)
    command("zoo")
    with _server(folder) as url:
        command("fetch", f"{url}/converted.safetensors", "--cache", folder / "cache")
    step("a Dask cluster", lambda: _on_dask(source, folder / "outputs"))
    return failures


def _image(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    frameworks.require("PIL.Image").fromarray(pixels).save(path)


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """Serves a folder on this machine, and yields its URL."""
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _on_dask(source: Path, outputs: Path) -> None:
    distributed = frameworks.require("distributed")
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        (outcome,) = convert_all(source, outputs, dask=cluster.scheduler_address)
    print(f"{outcome.status}: {outcome.message}")
    if outcome.status != "converted":
        raise RuntimeError(outcome.message)


def main() -> None:
    """The command line."""
    found = ", ".join(f"{name} {version}" for name, version in frameworks.versions(*PACKAGES).items())
    with tempfile.TemporaryDirectory() as folder:
        failures = check(Path(folder))
    print(f"Python {platform.python_version()}, {found}: {failures or 'none'} failed")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
