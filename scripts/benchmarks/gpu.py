"""The GPU suite and a benchmark, without TensorFlow, in under 5 minutes; prints one Markdown table for docs/gpu.md.

    python -m scripts.benchmarks.gpu [--device cuda|cpu] [--trace TRACE.npz] [--weights-seed 0] [--size 224]

Needs PyTorch, NumPy, safetensors, click and pytest, and nothing else of this project's extras: the truth is a trace of
TF-Slim in float64 (`slimport trace`) of a checkpoint whose weights come from a seed (scripts/make_checkpoint.py). Keras
is measured on its JAX and PyTorch backends where it is installed.

Each setting's error is the worst rel_l2 of five runs over all end points, against the trace. The settings that
`slimport verify` measures have its verdict, of all five; the others show what they cost. Times are medians of runs that
take turns.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# For torch.use_deterministic_algorithms; read when CUDA starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch

from converters import frameworks, mapping
from converters.formats import models
from converters.parity import ports
from converters.parity.compare import Row, compare
from converters.parity.tracing import Trace, open_trace, weights_digest
from scripts.make_checkpoint import random_variables, save_without_tensorflow
from slimport.pytorch import fold_batch_norm, optimize_for_inference

ROOT = Path(__file__).parents[2]
TRACE = ROOT / "tests" / "data" / "resnet_v2_50.npz"
RUNS = 5


@dataclass(frozen=True)
class Setting:
    """A way to run the network.

    dtype: of the weights and images.
    autocast: what convolutions run in; None is `dtype`.
    form: eager, folded or optimized, as `slimport.pytorch` makes them.
    verdict: whether it is what `verify` measures.
    """

    name: str
    dtype: torch.dtype = torch.float32
    autocast: torch.dtype | None = None
    tf32: bool = False
    channels_last: bool = False
    cudnn_benchmark: bool = False
    deterministic: bool = False
    form: str = "eager"
    verdict: bool = False


SETTINGS = (
    Setting("float64", torch.float64, verdict=True),
    Setting("float64, cudnn.benchmark", torch.float64, cudnn_benchmark=True, verdict=True),
    Setting("float32", verdict=True),
    Setting("float32, cudnn.benchmark", cudnn_benchmark=True, verdict=True),
    Setting("float32, deterministic algorithms", deterministic=True, verdict=True),
    Setting("float32, channels_last", channels_last=True),
    Setting("float32, folded", form="folded"),
    Setting("float32, optimize_for_inference", form="optimized"),
    Setting("TF32", tf32=True),
    Setting("TF32, channels_last, cudnn.benchmark", tf32=True, channels_last=True, cudnn_benchmark=True),
    Setting("autocast float16, channels_last", autocast=torch.float16, channels_last=True),
    Setting("autocast bfloat16", autocast=torch.bfloat16),
    Setting("autocast bfloat16, channels_last", autocast=torch.bfloat16, channels_last=True),
    Setting("bfloat16, channels_last", torch.bfloat16, channels_last=True),
)


@contextmanager
def applied(setting: Setting, device: str) -> Iterator[None]:
    """The process's flags as the setting has them, and afterwards as they were."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    cudnn.allow_tf32 = matmul.allow_tf32 = setting.tf32
    cudnn.benchmark = setting.cudnn_benchmark
    torch.use_deterministic_algorithms(setting.deterministic)
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if setting.autocast is not None:
                stack.enter_context(torch.autocast(device, setting.autocast))
            yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, deterministic = before
        torch.use_deterministic_algorithms(deterministic)


class Measured:
    """A setting with its model on the device."""

    def __init__(self, setting: Setting, model: Any, device: str) -> None:
        self.setting, self.device = setting, device
        self._model = copy.deepcopy(model).to(device=device, dtype=setting.dtype)
        if setting.form != "eager":
            self._model = fold_batch_norm(self._model)
        if setting.channels_last:
            self._model = self._model.to(memory_format=torch.channels_last)
        self._optimized: dict[torch.Size, Any] = {}

    def images(self, images: Any) -> torch.Tensor:
        """NHWC float32 numbers as the model takes them."""
        tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(self.device, self.setting.dtype)
        return tensor.to(memory_format=torch.channels_last) if self.setting.channels_last else tensor

    def prepare(self, tensor: torch.Tensor) -> Callable[[], Any]:
        """The model's run on images, made for their size; under `applied`."""
        if self.setting.form != "optimized":
            return lambda: self._model(tensor)
        if tensor.shape not in self._optimized:
            self._optimized[tensor.shape] = optimize_for_inference(self._model, tensor)
        return lambda: self._optimized[tensor.shape](tensor)

    def rows(self, trace: Trace) -> tuple[Row, ...]:
        """Every end point against the trace, with the limits of `verify` where it has that setting."""
        setting = self.setting
        with applied(setting, self.device):
            if setting.verdict:
                dtype = str(setting.dtype).removeprefix("torch.")
                return trace.compare(ports.record_pytorch(self._model, trace.images, dtype, self.device), dtype)
            tensor = self.images(trace.images)
            if setting.form == "optimized":
                # It has an output, and no end points.
                name = [name for name in trace.truth if name != "predictions"][-1]
                output = as_nhwc(self.prepare(tensor)())
                return compare({name: output}, {name: trace.truth[name]})
            _, end_points = self._model.end_points(tensor)
            return compare({name: as_nhwc(value) for name, value in end_points.items()}, trace.truth)


def as_nhwc(value: torch.Tensor) -> Any:
    """An end point as float64 numbers in slim's layout."""
    return mapping.nhwc(value.double().cpu().numpy())


def synchronize(device: str) -> None:
    """Waits for what was given to the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def times(measured: list[Measured], images: Any, rounds: int) -> dict[str, float]:
    """Milliseconds of each setting, the median of runs that take turns."""
    seconds: dict[str, list[float]] = {each.setting.name: [] for each in measured}
    runs = {}
    for each in measured:
        with applied(each.setting, each.device):
            runs[each.setting.name] = each.prepare(each.images(images))
            runs[each.setting.name]()
    for _ in range(rounds):
        for each in measured:
            with applied(each.setting, each.device):
                synchronize(each.device)
                start = time.perf_counter()
                runs[each.setting.name]()
                synchronize(each.device)
                seconds[each.setting.name].append(time.perf_counter() - start)
    return {name: statistics.median(found) * 1e3 for name, found in seconds.items()}


def keras_rows(trace_path: Path, trace: Trace, seed: int, device: str, without: Sequence[str]) -> list[str]:
    """Keras on JAX and on PyTorch, through `slimport verify`; a process each, since a process has one backend."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "weights.safetensors"
        save_without_tensorflow(trace.network, source, seed, trace.description.scope)
        for backend in ("jax", "torch"):
            name = f"Keras on {backend}, float32"
            if any(word in name for word in without):
                continue
            missing = [module for module in ("keras", "h5py", backend) if not importlib.util.find_spec(module)]
            if missing:
                lines.append(f"| {name} | | | not run: no {missing[0]} here | | |")
                continue
            command = ["verify", str(source), "--target", "keras", "--dtype", "float32", "--device", device, "--json"]
            done = subprocess.run(
                [
                    *(sys.executable, "-c", "from converters.cli import main; main()", *command),
                    *("--reference", str(trace_path)),
                ],
                cwd=ROOT,
                env={**os.environ, "KERAS_BACKEND": backend},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 2:
                reason = done.stderr.strip().splitlines()[-1].removeprefix("slimport: ")
                lines.append(f"| {name} | | | not run: {reason} | | |")
                continue
            report = json.loads(done.stdout)
            worst = max(report["end_points"], key=lambda row: row["rel_l2"] or float("inf"))
            verdict = "equal" if report["ok"] else f"DIFFERENT at {report['first_difference']}"
            lines.append(f"| {name} | {worst['rel_l2']:.1e} | `{worst['name']}` | {verdict} | | |")
    return lines


def suite(device: str) -> str:
    """Runs `pytest -m gpu` and returns its last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/test_gpu.py"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "SLIMPORT_DEVICE": device}, capture_output=True, text=True, check=False
    )
    print(done.stdout, done.stderr, file=sys.stderr)
    return (done.stdout.strip().splitlines() or ["no output"])[-1].strip("= ")


def heading(device: str) -> str:
    """The device and the versions."""
    parts = [f"torch {torch.__version__}", f"Python {platform.python_version()}", f"NumPy {np.__version__}"]
    parts += [f"{package} {version}" for package, version in frameworks.versions("jax", "keras").items()]
    if device == "cuda":
        name = torch.cuda.get_device_name()
        parts += [f"CUDA {torch.version.cuda}", f"cuDNN {torch.backends.cudnn.version()}"]
    else:
        name = f"{platform.machine()}, {os.cpu_count()} cores"
    return f"**{name}**: {', '.join(parts)}"


def main() -> None:
    """The command line; exits with 1 if a verdict or a test fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--trace", type=Path, default=TRACE)
    parser.add_argument("--weights-seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--without", nargs="*", default=(), metavar="WORD", help="leave out settings with these words")
    parser.add_argument("--without-tests", action="store_true")
    arguments = parser.parse_args()
    device = arguments.device
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no CUDA device here; --device cpu runs the same on the CPU")
    start = time.perf_counter()
    trace = open_trace(arguments.trace)
    weights = random_variables(trace.network, arguments.weights_seed)
    if weights_digest(trace.network, weights) != trace.description.weights:
        raise SystemExit(f"{arguments.trace}: not of the weights of seed {arguments.weights_seed} with this NumPy")
    recorded = trace.description
    model = models.pytorch_port(trace.network, weights.items(), scope=recorded.scope, **recorded.arguments)
    settings = [s for s in SETTINGS if not any(word in s.name for word in arguments.without)]
    failed = False
    measured, found = [], {}
    for setting in settings:
        print(f"{time.perf_counter() - start:4.0f} s: {setting.name}", file=sys.stderr)
        try:
            each = Measured(setting, model, device)
            runs = [each.rows(trace) for _ in range(RUNS)]
        except RuntimeError as error:
            found[setting.name] = f"| | not run: {str(error).splitlines()[0][:80]}"
            continue
        worst = max((row for rows in runs for row in rows), key=lambda row: row.rel_l2)
        equal = all(row.ok for rows in runs for row in rows)
        verdict = ("equal" if equal else "DIFFERENT") if setting.verdict else ""
        failed |= setting.verdict and not equal
        found[setting.name] = f"{worst.rel_l2:.1e} | `{worst.name}` | {verdict}"
        measured.append(each)
    shape = (arguments.size, arguments.size, trace.network.in_channels)
    images = np.random.default_rng(0).uniform(-1, 1, (arguments.batch, *shape)).astype(np.float32)
    print(f"{time.perf_counter() - start:4.0f} s: times", file=sys.stderr)
    one, many = times(measured, images[:1], arguments.rounds), times(measured, images, arguments.rounds)
    height, width = trace.images.shape[1:3]
    print(heading(device))
    print()
    print(
        f"{trace.network.name}; errors at {height}x{width} against TF-Slim in float64, the worst of {RUNS} runs; "
        f"times at {arguments.size}x{arguments.size}"
    )
    print()
    print(f"| setting | worst rel_l2 | at | verdict | batch 1, ms | batch {arguments.batch}, ms |")
    print("|---|---|---|---|---|---|")
    for name, text in found.items():
        spent = f"{one[name]:.2f} | {many[name]:.1f}" if name in one else "|"
        print(f"| {name} | {text} | {spent} |")
    for line in keras_rows(arguments.trace, trace, arguments.weights_seed, device, arguments.without):
        failed |= "DIFFERENT" in line
        print(line)
    if not arguments.without_tests:
        last = suite(device)
        failed |= "failed" in last or "error" in last
        print(f"| `pytest -m gpu` | | | {last} | | |")
    print(f"{time.perf_counter() - start:4.0f} s: done", file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
