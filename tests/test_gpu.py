"""The same equality on CUDA: `pytest -m gpu`. Skipped, with the reason, where there is no CUDA device.

The truth is the TF-Slim graph in float64 where TensorFlow is installed. Where it is not, it is the PyTorch port in
float64 on the CPU, which the other tests hold to 1e-12 of that graph, and its float32 run is the measure of rounding.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from conftest import DEPTHS, named, pytorch_port, random_images, random_weights

from converters.parity import ports, tf_slim
from converters.parity.compare import ROUNDING_RUNS, compare, compare_float32, neighbours
from slimport import spec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]

SIZES = ((97, 97), (224, 224), (120, 161))


@contextmanager
def reference(network: spec.ResNetV2, weights: Any, dtype: str) -> Iterator[Callable[..., Any]]:
    """A function (images, names) to the reference's end points in a dtype."""
    if importlib.util.find_spec("tensorflow"):
        with tf_slim.SlimGraph(network, network.name, weights, dtype) as graph:
            yield graph.run
    else:
        model = pytorch_port(network, weights)
        yield lambda images, _=None: ports.record_pytorch(model, images, dtype, "cpu")


@pytest.mark.parametrize("name", DEPTHS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_pytorch_on_cuda_is_equal_at_every_end_point(name: str, size: tuple[int, int], dtype: str) -> None:
    network = named(name)
    weights = random_weights(network)
    images = random_images((1, *size, 3))
    port = ports.record_pytorch(pytorch_port(network, weights), images, dtype, "cuda")
    with reference(network, weights, "float64") as run:
        truth = run(images)
    if dtype == "float64":
        rows = compare(port, truth)
    else:
        with reference(network, weights, "float32") as run:
            rows = compare_float32(port, truth, run, neighbours(images, ROUNDING_RUNS, seed=0))
    assert not [row for row in rows if not row.ok]


def test_tf32_is_off_for_the_verdict_and_as_it_was_afterwards() -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    network = named("resnet_v2_50")
    weights = random_weights(network)
    images = random_images((1, 97, 97, 3))
    with reference(network, weights, "float64") as run:
        truth = run(images)
    port = ports.record_pytorch(pytorch_port(network, weights), images, "float32", "cuda")
    # TF32 has 10 bits of mantissa: it would cost 1e-4 and more.
    assert max(row.rel_l2 for row in compare(port, truth)) < 1e-5
    assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32
