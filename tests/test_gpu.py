"""The same equality on CUDA: `pytest -m gpu`. Skipped, with the reason, where there is no CUDA device.

The truth is TF-Slim in float64, from the trace in tests/data, so that TensorFlow is not needed. Its weights come from a
seed. SLIMPORT_DEVICE=cpu runs every test on the CPU, as a check of the tests themselves.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# For torch.use_deterministic_algorithms; read when CUDA starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch
from conftest import ROOT, Run, pytorch_port

from converters.parity import ports
from converters.parity.compare import compare
from converters.parity.tracing import Trace, open_trace, weights_digest
from scripts import make_checkpoint

DEVICE = os.environ.get("SLIMPORT_DEVICE", "cuda")
TRACE = ROOT / "tests" / "data" / "resnet_v2_50.npz"
RUNS = 5

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]


@pytest.fixture(scope="module")
def recorded() -> Trace:
    return open_trace(TRACE)


@pytest.fixture
def model(recorded: Trace) -> Any:
    weights = make_checkpoint.random_variables(recorded.network)
    assert weights_digest(recorded.network, weights) == recorded.description.weights
    return pytorch_port(recorded.network, weights)


@pytest.fixture
def cudnn() -> Any:
    """cuDNN's flags, as they were afterwards."""
    flags = torch.backends.cudnn
    before = flags.benchmark, flags.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield flags
    flags.benchmark, flags.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("benchmark", [False, True])
def test_pytorch_is_equal_at_every_end_point_whatever_algorithms_cudnn_chooses(
    dtype: str, benchmark: bool, recorded: Trace, model: Any, cudnn: Any
) -> None:
    cudnn.benchmark = benchmark
    for _ in range(RUNS):
        rows = recorded.compare(ports.record_pytorch(model, recorded.images, dtype, DEVICE), dtype)
        assert not [row for row in rows if not row.ok]


def test_tf32_is_off_for_the_verdict_and_as_it_was_afterwards(recorded: Trace, model: Any, cudnn: Any) -> None:
    cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    port = ports.record_pytorch(model, recorded.images, "float32", DEVICE)
    # TF32 has 10 bits of mantissa: it would cost 1e-4 and more.
    assert max(row.rel_l2 for row in compare(port, recorded.truth)) < 1e-5
    assert cudnn.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32


def test_deterministic_algorithms_give_the_same_bits_every_time(recorded: Trace, model: Any) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (ports.record_pytorch(model, recorded.images, "float32", DEVICE) for _ in range(RUNS))
    finally:
        torch.use_deterministic_algorithms(False)
    for other in others:
        assert [name for name in first if first[name].tobytes() != other[name].tobytes()] == []


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_keras_is_equal_in_float32(
    backend: str, recorded: Trace, slimport_process: Callable[..., Run], tmp_path: Path
) -> None:
    for module in ("keras", "h5py", backend):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    source = tmp_path / "weights.safetensors"
    make_checkpoint.save_without_tensorflow(recorded.network, source)
    options = ("--target", "keras", "--dtype", "float32", "--device", DEVICE, "--json")
    run = slimport_process("verify", source, *options, "--reference", TRACE, KERAS_BACKEND=backend)
    if "sees no CUDA device" in run.err:
        pytest.skip(run.err.strip())
    assert run.code == 0, run
    report = json.loads(run.out)
    assert report["ok"]
    assert report["device"] == DEVICE
    assert report["backend"].endswith(f"on {backend}")
