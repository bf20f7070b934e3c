"""Measures inference of the TF-Slim graph and of what replaces it, and prints a Markdown table.

    python -m scripts.benchmarks.inference [--network NAME] [--batches 1 8] [--runs 15] [--only NAME ...]

Each form runs in a process of its own, one after the other, in turns, so that each has the cores to itself and a busy
moment of the machine does not decide. Seconds are medians. The outputs of each form are compared with the TF-Slim
graph's in the same run. Weights and images are random; images have the size that the network was made for.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters import frameworks
from converters.parity.compare import rel_l2
from scripts.make_checkpoint import random_value
from slimport import networks

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "scripts.benchmarks.inference", "--worker"]
Run = Callable[[Any], Any]
"""From float32 images [batch, height, width, channels] to the output."""

LIMIT = 1e-4
"""Of rel_l2 between outputs: far above rounding, far below a mistake."""


def tf_slim(network: networks.Network, weights: dict[str, Any], images: Any) -> Run:
    """The TF-Slim graph in float32, with TensorFlow's fused BatchNorm."""
    from converters.parity.tf_slim import SlimGraph

    graph = SlimGraph(network, network.name, weights, "float32", size=images.shape[1:3])
    output = network.end_points(network.name)[-2]
    return lambda batch: graph.run(batch, [output])[output]


def keras(network: networks.Network, weights: dict[str, Any], images: Any) -> Run:
    """The Keras port on the backend of the process."""
    del images
    from converters.formats.models import keras_port

    return keras_port(network, weights.items()).predict_on_batch


def pytorch(network: networks.Network, weights: dict[str, Any], images: Any) -> Run:
    """The PyTorch port as it is."""
    del images
    return _of_torch(_port(network, weights))


def folded(network: networks.Network, weights: dict[str, Any], images: Any) -> Run:
    """With BatchNorm folded."""
    del images
    from slimport.pytorch import fold_batch_norm

    return _of_torch(fold_batch_norm(_port(network, weights)))


def channels_last(network: networks.Network, weights: dict[str, Any], images: Any) -> Run:
    """Folded, and in the memory format channels_last."""
    del images
    import torch

    from slimport.pytorch import fold_batch_norm

    model = fold_batch_norm(_port(network, weights)).to(memory_format=torch.channels_last)
    return _of_torch(lambda batch: model(batch.contiguous(memory_format=torch.channels_last)))


def compiled(network: networks.Network, weights: dict[str, Any], images: Any) -> Run:
    """`torch.compile`, with its defaults."""
    del images
    import torch

    return _of_torch(torch.compile(_port(network, weights)))


def optimized(network: networks.Network, weights: dict[str, Any], images: Any) -> Run:
    """What `optimize_for_inference` chooses."""
    import torch

    from slimport.pytorch import optimize_for_inference

    model = optimize_for_inference(_port(network, weights), torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
    print(model, file=sys.stderr)
    return _of_torch(model)


def onnx(network: networks.Network, weights: dict[str, Any], images: Any) -> Run:
    """ONNX Runtime on what `slimport convert` writes."""
    del images
    import onnxruntime

    from converters.checkpoint import write_checkpoint
    from converters.conversion import convert

    with tempfile.TemporaryDirectory() as folder:
        checkpoint, path = Path(folder) / "model.ckpt", Path(folder) / "model.onnx"
        write_checkpoint(checkpoint, {f"{network.name}/{name}": array for name, array in weights.items()})
        convert(checkpoint, path)
        session = onnxruntime.InferenceSession(path)
    return lambda batch: session.run(None, {"images": np.ascontiguousarray(batch.transpose(0, 3, 1, 2))})[0]


# By name: what makes the form, and the environment of its process.
FORMS: dict[str, tuple[Callable[..., Run], dict[str, str]]] = {
    "TF-Slim graph": (tf_slim, {}),
    "Keras on TensorFlow": (keras, {"KERAS_BACKEND": "tensorflow"}),
    "Keras on JAX": (keras, {"KERAS_BACKEND": "jax"}),
    "Keras on PyTorch": (keras, {"KERAS_BACKEND": "torch"}),
    "PyTorch": (pytorch, {}),
    "PyTorch, folded": (folded, {}),
    "PyTorch, folded, channels_last": (channels_last, {}),
    "PyTorch, torch.compile": (compiled, {}),
    "PyTorch, optimize_for_inference": (optimized, {}),
    "ONNX Runtime": (onnx, {}),
}
REFERENCE = "TF-Slim graph"


def _port(network: networks.Network, weights: dict[str, Any]) -> Any:
    from converters.formats.models import pytorch_port

    return pytorch_port(network, weights.items())


def _of_torch(model: Callable[[Any], Any]) -> Run:
    import torch

    def run(batch: Any) -> Any:
        with torch.no_grad():
            return model(torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous()).numpy()

    return run


def work(name: str, network: networks.Network, shape: Sequence[int]) -> None:
    """A form's process: a line from stdin is two runs, a line to stdout the second's time; the first is the output."""
    out = os.fdopen(os.dup(1), "w")
    # What frameworks print is not an answer.
    os.dup2(2, 1)
    generator = np.random.default_rng(0)
    weights = {n: random_value(n, s, generator) for n, s in network.variables().items()}
    images = generator.uniform(-1, 1, shape).astype(np.float32)
    run = FORMS[name][0](network, weights, images)
    run(images)
    print(json.dumps(np.asarray(run(images)).reshape(shape[0], -1).tolist()), file=out, flush=True)
    for _ in sys.stdin:
        # The other processes ran meanwhile: the first run finds its threads asleep and its caches cold.
        run(images)
        start = time.perf_counter()
        run(images)
        print(time.perf_counter() - start, file=out, flush=True)


def benchmark(network: networks.Network, batch: int, size: int, runs: int, names: Sequence[str]) -> bool:
    """Prints a row for each form; whether all outputs are the reference's."""
    shape = [batch, size, size, network.in_channels]
    work_of = {"network": network.to_json(), "shape": shape}
    workers: dict[str, subprocess.Popen[str]] = {}
    outputs: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    try:
        for name in names:
            workers[name] = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "scripts.benchmarks.inference",
                    "--worker",
                    json.dumps({"name": name, **work_of}),
                ],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **FORMS[name][1]},
            )
            # Before the next one starts, so that optimize_for_inference measures alone.
            outputs[name] = np.array(json.loads(_answer(workers[name], name, ask=False)))
        for _ in range(runs):
            for name in names:
                seconds[name].append(float(_answer(workers[name], name)))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    errors = {name: rel_l2(output, outputs[REFERENCE]) for name, output in outputs.items()}
    for name in names:
        print(
            f"| {name} | {batch} | {medians[name] * 1e3:.1f} | {min(seconds[name]) * 1e3:.1f} "
            f"| {medians[REFERENCE] / medians[name]:.2f} | {errors[name]:.1e} |",
            flush=True,
        )
    return all(error <= LIMIT for error in errors.values())


def _answer(worker: subprocess.Popen[str], name: str, ask: bool = True) -> str:
    assert worker.stdin
    assert worker.stdout
    if ask:
        worker.stdin.write("\n")
        worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"{name}: its process ended with {worker.wait()}")
    return line


def machine() -> str:
    """The processor and its cores, and the versions that run."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    packages = ("tensorflow", "tf_slim", "keras", "jax", "torch", "onnxruntime")
    versions = ", ".join(f"{name} {version}" for name, version in frameworks.versions(*packages).items())
    return f"{cpu}, {os.cpu_count()} cores; {versions}"


def main(
    arguments: Sequence[str] | None = None, network: networks.Network | None = None, size: int | None = None
) -> int:
    """The command line; 1 if an output differs. `network` and `size` are for a quick look at whether all of it runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet_v2_50", choices=list(networks.NETWORKS), metavar="NAME")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=list(FORMS), metavar="NAME", help=f"of: {'; '.join(FORMS)}")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.worker:
        job = json.loads(given.worker)
        work(job["name"], networks.from_json(job["network"]), job["shape"])
        return 0
    if network is None:
        network = networks.NETWORKS[given.network].without_auxiliary()
    size = size or network.default_image_size
    names = [name for name in FORMS if name == REFERENCE or not given.only or name in given.only]
    print(f"{network.name} at {size}x{size}, {given.runs} runs in turns; {machine()}\n")
    print("| form | batch | median ms | fastest ms | times as fast as the TF-Slim graph | rel_l2 of its output |")
    print("|---|---|---|---|---|---|")
    equal = [benchmark(network, batch, size, given.runs, names) for batch in given.batches]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
