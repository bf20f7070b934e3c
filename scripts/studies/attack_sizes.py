"""A network of one large tensor, from form to form: how far the memory of a conversion rises above the tensor.

    python -m scripts.studies.attack_sizes [--gigabytes N] [--folder FOLDER]

Each conversion runs in a process of its own, whose peak memory is compared with that of the same conversion of a small
network, which has the same libraries. Needs 4 times the tensor's size on the disk. Exits with 1 if a conversion took
more than the tensor and 100 MiB above that, or a file's tensor is not the source's.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from converters.checkpoint import write_checkpoint
from scripts import make_checkpoint
from slimport import networks

_ROOT = Path(__file__).parents[2]
_MOST_MIB = 100
_DEPTH = 2048
_LARGE = "logits/weights"
_CONVERT = """
import re, sys
from pathlib import Path
from converters.cli import main
sys.argv = ["slimport", "convert", *sys.argv[1:]]
try:
    main()
finally:
    # Not that of getrusage, which begins with what the parent had.
    print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024, file=sys.stderr)
"""
_CHECK = """
import sys
import numpy as np
from converters.formats import open_file
row = np.random.default_rng(0).random(int(sys.argv[2]), np.float32)
from pathlib import Path
with open_file(Path(sys.argv[1])) as opened:
    (variable,) = (found for name, found in opened.variables.items() if name.endswith("logits/weights"))
    ((_, array),) = opened.read([variable.name])
    assert array.shape == (1, 1, 2048, len(row)), array.shape
    assert all(np.array_equal(line, row) for line in array[0, 0])
"""

CONVERSIONS = (
    ("m.ckpt", "m.safetensors"),
    ("m.safetensors", "n.ckpt"),
    ("m.safetensors", "m.pth"),
    ("m.ckpt", "m.weights.h5"),
    ("m.safetensors", "m.weights.h5"),
    ("m.pth", "n.safetensors"),
    ("m.weights.h5", "n.ckpt"),
    ("m.ckpt", "m.onnx"),
)
"""Sources and destinations, in this order: a destination is a source of the next."""
_REFUSED = ("m.onnx",)


class Measured(NamedTuple):
    """What a conversion cost, and the last line that it said."""

    code: int
    seconds: float
    mebibytes: int
    said: str


def variables(classes: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """A ResNet whose logits have one row of random weights for all inputs, in memory once."""
    network = networks.ResNetV2((networks.resnet_v2_block("block1", _DEPTH // 4, 1, 1),), num_classes=classes)
    small = networks.ResNetV2(network.blocks, num_classes=1)
    row = np.random.default_rng(0).random(classes, np.float32)
    large = {_LARGE: np.broadcast_to(row, (1, 1, _DEPTH, classes)), "logits/biases": row}
    for name, array in make_checkpoint.random_variables(small, 0).items():
        yield f"resnet_v2/{name}", large.get(name, array)


def converted(source: Path, destination: Path) -> Measured:
    """Converts a file in a process of its own."""
    command = [sys.executable, "-c", _CONVERT, str(source), str(destination)]
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=_ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    *said, peak = done.stderr.splitlines()
    return Measured(done.returncode, seconds, int(peak), " ".join(said[-1:]))


def has_the_tensor(path: Path, classes: int) -> bool:
    """Whether a file's large tensor is the source's."""
    done = subprocess.run([sys.executable, "-c", _CHECK, str(path), str(classes)], cwd=_ROOT, check=False)
    return done.returncode == 0


def remove(path: Path) -> None:
    """Removes a file, or the files of a checkpoint."""
    for one in path.parent.glob(f"{path.name}*"):
        one.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.5, help="of the tensor [2.5]")
    parser.add_argument("--folder", type=Path, help="where to put the files [a temporary one]")
    arguments = parser.parse_args()
    classes = int(arguments.gigabytes * 1e9 / 4 / _DEPTH)
    size = 4 * _DEPTH * classes / 2**20
    table = Table("from", "to", "exit code", "seconds", "peak", "of a small one", "above that and the tensor")
    bad = 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as there:
        large, small = Path(there) / "large", Path(there) / "small"
        for folder, count in ((large, classes), (small, 7)):
            folder.mkdir()
            write_checkpoint(folder / "m.ckpt", variables(count))
        made: list[str] = []
        for place, (source, destination) in enumerate(CONVERSIONS):
            found, least = (converted(folder / source, folder / destination) for folder in (large, small))
            above = found.mebibytes - least.mebibytes - size
            refused = destination in _REFUSED and size > 2048
            bad += above > _MOST_MIB or found.code != (2 if refused else 0)
            bad += not refused and not has_the_tensor(large / destination, classes)
            cells = f"{found.code}", f"{found.seconds:.1f}", f"{found.mebibytes} MiB", f"{least.mebibytes} MiB"
            suffixes = (re.sub(r"^.", "", name) for name in (source, destination))
            table.add_row(
                *suffixes,
                *cells,
                f"{above:.0f} MiB" if found.code == 0 else found.said.partition(f"{destination}: ")[2],
            )
            Console(stderr=True).print(source, destination, found, least)
            made.append(destination)
            later = {one for one, _ in CONVERSIONS[place + 1 :]}
            for name in {"m.ckpt", *made} - later:
                remove(large / name)
    print(f"a tensor of {size:.0f} MiB")
    Console(width=150).print(table)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
