"""What the tests share: checkpoints that TensorFlow's own Saver wrote, and networks that build in a second."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if "PYTEST_XDIST_WORKER" in os.environ:
    # A process a core: more threads would wait for each other.
    for library in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(library, "1")

# TensorFlow makes a million objects in a graph, and nothing is won by looking for garbage after every 700.
gc.set_threshold(100_000, 20, 20)

import click
import numpy as np
import pytest
from click.testing import CliRunner
from filelock import FileLock

from converters import cli, frameworks, trace
from converters.formats import models
from converters.parity import tf_slim
from scripts import make_checkpoint
from scripts.studies import train_digits
from scripts.studies.small_networks import SMALL as SMALL
from scripts.studies.small_networks import SMALL_NETWORKS as SMALL_NETWORKS
from scripts.studies.small_networks import SMALL_V1 as SMALL_V1
from slimport import networks

ROOT = Path(__file__).parent.parent

MadeOnce = Callable[[str, Callable[[Path], object]], Path]
TRACE_SIZE = (33, 46)
DEPTHS = tuple(networks.ResNetV2.named())


def named(name: str, num_classes: int | None = 1001) -> networks.ResNetV2:
    """The description of `resnet_v2_50` and its like."""
    return replace(networks.ResNetV2.named()[name], num_classes=num_classes)


def random_weights(network: networks.Network, seed: int = 0) -> dict[str, Any]:
    """Float32 values for every variable of a network, by name relative to its scope."""
    return make_checkpoint.random_variables(network, seed)


def random_images(shape: tuple[int, ...], seed: int = 0) -> Any:
    """Float32 images in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


KERAS_WEIGHTS = {
    "weights": "kernel",
    "biases": "bias",
    "depthwise_weights": "depthwise_kernel",
    "pointwise_weights": "pointwise_kernel",
}


def keras_name(variable: str) -> tuple[str, str]:
    """The Keras layer of a slim variable, its scope with `__` for `/`, and the layer's name of the weight."""
    scope, _, leaf = variable.rpartition("/")
    return scope.replace("/", "__"), KERAS_WEIGHTS.get(leaf, leaf)


def pytorch_port(network: networks.Network, weights: dict[str, Any], **arguments: Any) -> Any:
    """The PyTorch port with these weights in."""
    return models.pytorch_port(network, weights.items(), **arguments)


def save_small(
    path: Path, file_format: str, network: networks.Network = SMALL, scope: str = "resnet_v2", seed: int = 0
) -> Path:
    """A checkpoint of a small network, by `slimport.nets` and TensorFlow's Saver."""
    frameworks.require("slimport.nets")
    import tf_slim as slim

    builder = tf_slim.builder_of(network)

    def build(images: Any) -> None:
        with slim.arg_scope(builder.arg_scope()):
            builder.build(network, images, is_training=False, scope=scope)

    path.parent.mkdir(parents=True, exist_ok=True)
    make_checkpoint.save(build, path, file_format, seed, network.in_channels, network.default_image_size)
    return path


def tf_session(**options: Any) -> Any:
    """A TensorFlow session that runs graphs as they are: to optimize one takes longer than to run it once."""
    frameworks.require("slimport.nets")
    import tensorflow.compat.v1 as tf

    config = tf.ConfigProto(**options)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.Session(config=config)


@pytest.fixture(scope="module")
def without_onednn() -> Iterator[None]:
    """PyTorch's own convolutions: oneDNN's gradients of narrow ones corrupt memory on some AMD processors."""
    import torch

    with torch.backends.mkldnn.flags(enabled=False):
        yield


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    """Dynamo compiles a function a few times at most, and all networks have one."""
    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """A folder of a name, filled by a function at its first use; xdist's workers share it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder = base / f"once-{name}"
        with FileLock(f"{folder}.lock"):
            if not (folder / "made").exists():
                folder.mkdir(exist_ok=True)
                make(folder)
                (folder / "made").touch()
        return folder

    return made


@pytest.fixture(scope="session", params=["v1", "v2"])
def small_checkpoint(request: pytest.FixtureRequest, made_once: MadeOnce) -> Path:
    return made_once(f"small_{request.param}", lambda to: save_small(to / "small.ckpt", request.param)) / "small.ckpt"


@pytest.fixture(scope="session")
def small_v2(made_once: MadeOnce) -> Path:
    return made_once("small_v2", lambda to: save_small(to / "small.ckpt", "v2")) / "small.ckpt"


@pytest.fixture(scope="session")
def small_trace(small_v2: Path, made_once: MadeOnce) -> Path:
    """What TF-Slim computes with `small_v2`, so that a test of what comes after need not run it."""
    return made_once("small_trace", lambda to: trace(small_v2, to / "small.npz", size=TRACE_SIZE)) / "small.npz"


@pytest.fixture(scope="session")
def digits_checkpoint(made_once: MadeOnce) -> Path:
    """Trained by slim, with Momentum slots and a global step."""

    def train(folder: Path) -> None:
        accuracy = train_digits.train(folder / "model.ckpt", steps=300)
        assert accuracy > 0.85, "the network did not learn, so its statistics are not real ones"

    return made_once("digits", train) / "model.ckpt"


@pytest.fixture(scope="session")
def full_size_checkpoint(made_once: MadeOnce) -> Callable[[str, str], Path]:
    """Full-size checkpoints by `tf_slim.nets` and TensorFlow's Saver, by network and format."""

    def checkpoint(name: str, file_format: str) -> Path:
        def save(folder: Path) -> None:
            classes = networks.NETWORKS[name].num_classes
            make_checkpoint.save_network(name, folder / f"{name}.ckpt", file_format, classes)

        return made_once(f"{name}_{file_format}", save) / f"{name}.ckpt"

    return checkpoint


@pytest.fixture(scope="session")
def resnet_v2_50_checkpoint(full_size_checkpoint: Callable[[str, str], Path]) -> Callable[[str], Path]:
    """`full_size_checkpoint` of resnet_v2_50, by format."""
    return partial(full_size_checkpoint, "resnet_v2_50")


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str


class Entry(click.Command):
    """The console script's function as the command that click's runner calls."""

    def main(self, *_: Any, **__: Any) -> Any:
        cli.main()


@pytest.fixture(scope="session")
def slimport() -> Callable[..., Run]:
    """Runs the command in this process."""

    def run(*arguments: object, **environment: str) -> Run:
        with mock.patch.object(sys, "argv", ["slimport", *map(str, arguments)]):
            done = CliRunner().invoke(Entry("slimport"), env=environment, catch_exceptions=False)
        return Run(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def slimport_process() -> Callable[..., Run]:
    """Runs the command in a process of its own, for what only a process shows: streams, imports, Keras's backend."""

    def run(*arguments: object, **environment: str) -> Run:
        done = subprocess.run(
            [sys.executable, "-c", "from converters.cli import main; main()", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        return Run(done.returncode, done.stdout, done.stderr)

    return run
