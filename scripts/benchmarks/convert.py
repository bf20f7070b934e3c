"""Measures `slimport convert` and `inspect` as whole processes against what they replace, and prints a Markdown table.

    python -m scripts.benchmarks.convert [--runs 5] [--depths 50 152]

What is replaced: a script that reads with `tf.train.load_checkpoint`, transposes, and writes with `torch.save`. Beside
it, `cp` of the same file. All in one run, interleaved; times are medians, memory is the largest peak. slimport runs
once before, so that its modules are compiled, as those of an installed package are.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = """
import sys
import tensorflow as tf, torch
reader = tf.train.load_checkpoint(sys.argv[1])
state = {}
for name in reader.get_variable_to_shape_map():
    array = reader.get_tensor(name)
    state[name] = torch.from_numpy(array.transpose(3, 2, 0, 1).copy() if array.ndim == 4 else array)
torch.save(state, sys.argv[2])
"""
SLIMPORT = "from converters.cli import main; main()"


def measure(command: list[str]) -> tuple[float, float]:
    """(seconds, peak memory in MiB) of a process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"failed: {command}")
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--depths", type=int, nargs="+", default=[50, 152])
    arguments = parser.parse_args()
    # What a child inherits must not be what its peak is measured from.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("| checkpoint | MB | what | seconds | times `cp` | faster than the script | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for depth in arguments.depths:
            for file_format in ("v2", "v1"):
                benchmark(Path(folder), depth, file_format, arguments.runs)


def benchmark(folder: Path, depth: int, file_format: str, runs: int) -> None:
    """Prints the rows of one checkpoint."""
    name = f"resnet_v2_{depth}"
    checkpoint = folder / f"{name}_{file_format}.ckpt"
    maker = [sys.executable, "-m", "scripts.make_checkpoint", name, str(checkpoint), "--format", file_format]
    subprocess.run(maker, check=True, capture_output=True)
    data = checkpoint if file_format == "v1" else Path(f"{checkpoint}.data-00000-of-00001")
    slimport = [sys.executable, "-c", SLIMPORT]
    commands = {
        "cp": ["cp", str(data), str(folder / "copy")],
        "slimport convert": [*slimport, "convert", str(checkpoint), str(folder / "out.safetensors")],
        "slimport inspect": [*slimport, "inspect", str(checkpoint)],
        "script": [sys.executable, "-c", SCRIPT, str(checkpoint), str(folder / "out.pth")],
    }
    results: dict[str, list[tuple[float, float]]] = {what: [] for what in commands}
    measure(commands["slimport convert"])
    measure(commands["slimport inspect"])
    for _ in range(runs):
        for what, command in commands.items():
            results[what].append(measure(command))
    seconds = {what: statistics.median(s for s, _ in runs) for what, runs in results.items()}
    for what, values in results.items():
        print(
            f"| {name}, {file_format.upper()} | {data.stat().st_size / 1e6:.0f} | {what} | {seconds[what]:.2f} "
            f"| {seconds[what] / seconds['cp']:.1f} | {seconds['script'] / seconds[what]:.1f} "
            f"| {max(peak for _, peak in values):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
