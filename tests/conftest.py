"""What the tests share: checkpoints that TensorFlow's own Saver wrote, and networks that build in a second."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import pytest

from converters import frameworks, models, trace
from slimport import networks

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import make_checkpoint
import train_digits

# Two blocks, every kind of unit: projecting, identity, identity with a stride.
SMALL = networks.ResNetV2(
    (networks.resnet_v2_block("block1", 4, 2, 2), networks.resnet_v2_block("block2", 8, 3, 1)), num_classes=7
)
TRACE_SIZE = (33, 46)
DEPTHS = tuple(networks.ResNetV2.named())
SMALL_V1 = networks.ResNetV1(
    (networks.resnet_v1_block("block1", 4, 2, 2), networks.resnet_v1_block("block2", 8, 3, 1)), 7
)
# One small network of each family at least.
SMALL_NETWORKS: dict[str, networks.Network] = {
    "resnet_v1": SMALL_V1,
    "resnet_v1_beta": networks.ResNetV1Beta(SMALL_V1.blocks, 7, root_depths=(4, 5, 6)),
    "resnet_v1_lite": networks.ResNetV1Beta(
        (networks.lite_block("block1", 8, 2, 2), networks.lite_block("block2", 12, 3, 1)),
        root_depths=(4, 5, 6),
        lite=True,
    ),
    "resnet_v2": SMALL,
    "inception_v3": networks.InceptionV3(7, depth_multiplier=0.05, min_depth=4),
    "vgg": networks.VGG((networks.ConvBlock(4, 1), networks.ConvBlock(6, 2)), 7, fc_depths=(12, 10)),
}


def named(name: str, num_classes: int | None = 1001) -> networks.ResNetV2:
    """The description of `resnet_v2_50` and its like."""
    return replace(networks.ResNetV2.named()[name], num_classes=num_classes)


def random_weights(network: networks.Network, seed: int = 0) -> dict[str, Any]:
    """Float32 values for every variable of a network, by name relative to its scope."""
    return make_checkpoint.random_variables(network, seed)


def random_images(shape: tuple[int, ...], seed: int = 0) -> Any:
    """Float32 images in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def pytorch_port(network: networks.Network, weights: dict[str, Any], **arguments: Any) -> Any:
    """The PyTorch port with these weights in."""
    return models.pytorch_port(network, weights.items(), **arguments)


def save_small(
    path: Path, file_format: str, network: networks.Network = SMALL, scope: str = "resnet_v2", seed: int = 0
) -> Path:
    """A checkpoint of a small network, by `slimport.nets` and TensorFlow's Saver."""
    nets = frameworks.import_nets()
    import tf_slim as slim

    builder = importlib.import_module(f"{nets.__name__}.{network.family}")

    def build(images: Any) -> None:
        with slim.arg_scope(builder.arg_scope()):
            builder.build(network, images, is_training=False, scope=scope)

    path.parent.mkdir(parents=True, exist_ok=True)
    make_checkpoint.save(build, path, file_format, seed, network.in_channels, network.default_image_size)
    return path


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    """Dynamo compiles a function a few times at most, and all networks have one."""
    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


@pytest.fixture(scope="session", params=["v1", "v2"])
def small_checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("small") / "small.ckpt", request.param)


@pytest.fixture(scope="session")
def small_v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("small_v2") / "small.ckpt", "v2")


@pytest.fixture(scope="session")
def small_trace(small_v2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What TF-Slim computes with `small_v2`, so that a test of what comes after need not run it."""
    path = tmp_path_factory.mktemp("trace") / "small.npz"
    trace(small_v2, path, size=TRACE_SIZE)
    return path


@pytest.fixture(scope="session")
def digits_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained by slim, with Momentum slots and a global step."""
    path = tmp_path_factory.mktemp("digits") / "model.ckpt"
    accuracy = train_digits.train(path, steps=300)
    assert accuracy > 0.85, "the network did not learn, so its statistics are not real ones"
    return path


@pytest.fixture(scope="session")
def full_size_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Full-size checkpoints by `tf_slim.nets` and TensorFlow's Saver, by network and format."""

    @cache
    def checkpoint(name: str, file_format: str) -> Path:
        path = tmp_path_factory.mktemp(f"full_{file_format}") / f"{name}.ckpt"
        make_checkpoint.save_network(name, path, file_format, networks.NETWORKS[name].num_classes)
        return path

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


@pytest.fixture(scope="session")
def slimport() -> Callable[..., Run]:
    """Runs the command in a process of its own."""

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
