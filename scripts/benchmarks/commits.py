"""Speed and memory of the PyTorch ports here against those of another commit of this repository, in one run.

    python -m scripts.benchmarks.commits COMMIT [--networks resnet_v2_50 ...] [--batches 1 8] [--runs 20]

Both run eager, with the same weights, on the CPU, and take turns in one process; the ratio is of medians. Peak memory
is what a run adds at its peak, in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]

# Linux's high-water mark of the process, set back before the run. A first run has what the libraries keep.
MEMORY = """
import re, sys
from pathlib import Path
import torch
import slimport.pytorch
def kibibytes(key):
    return int(re.search(rf"{key}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
model = getattr(slimport.pytorch, sys.argv[1])().eval()
images = torch.rand(int(sys.argv[2]), 3, 224, 224)
with torch.inference_mode():
    model(images)
    Path("/proc/self/clear_refs").write_text("5")
    before = kibibytes("VmRSS")
    model(images)
print((kibibytes("VmHWM") - before) / 1024)
"""


def ports_of(folder: Path) -> Any:
    """`slimport.pytorch` of a checkout, beside the one that is imported already."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "slimport"]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location("slimport", folder / "slimport" / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules["slimport"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    module = importlib.import_module("slimport.pytorch")
    assert module.__file__ is not None
    assert Path(module.__file__).is_relative_to(folder)
    return module


def seconds(models: dict[str, Any], batch: int, runs: int) -> dict[str, float]:
    """The median seconds of each model, which take turns."""
    images = torch.rand(batch, 3, 224, 224)
    times: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for _ in range(runs + 2):
            for name, model in models.items():
                start = time.perf_counter()
                model(images)
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[2:]) for name, values in times.items()}


def memory(folder: Path, network: str, batch: int) -> float:
    """MiB that one run needs beside the weights."""
    command = [sys.executable, "-c", MEMORY, network, str(batch)]
    return float(subprocess.check_output(command, text=True, cwd=folder))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--networks", nargs="+", default=["resnet_v2_50", "resnet_v1_50", "vgg_16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--runs", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        archive = subprocess.check_output(["git", "archive", given.commit, "slimport"], cwd=ROOT)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        before, here = ports_of(folder), ports_of(ROOT)
        print(f"| network | batch | {given.commit} | here | ratio | MiB before | MiB here |")
        print("|---|---|---|---|---|---|---|")
        for network in given.networks:
            models = {"before": getattr(before, network)().eval(), "here": getattr(here, network)().eval()}
            models["here"].load_state_dict(models["before"].state_dict())
            for batch in given.batches:
                times = seconds(models, batch, given.runs)
                needs = [memory(path, network, batch) for path in (folder, ROOT)]
                ms = " | ".join(f"{value * 1e3:.1f} ms" for value in times.values())
                ratio = times["here"] / times["before"]
                print(f"| {network} | {batch} | {ms} | {ratio:.3f} | {needs[0]:.0f} | {needs[1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
