"""Small files that claim much, and names that are commands to a terminal: an error or an answer, at once.

    python -m scripts.studies.attack_names

Each file is inspected by a process of its own, whose seconds and peak memory are measured. Exits with 1 if one took
the processor more than 2 seconds beyond what the smallest takes, or more than 300 MiB, or was called a bug.
"""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from rich.console import Console
from rich.table import Table

from converters.checkpoint import write_checkpoint
from scripts import make_checkpoint
from scripts.studies.attack_forms import NETWORK
from slimport.networks import NETWORKS

_ROOT = Path(__file__).parents[2]
_MOST_S, _MOST_MIB = 2.0, 300
_INSPECT = """
import re, sys
from pathlib import Path
from converters.cli import main
sys.argv = ["slimport", "inspect", sys.argv[1]]
try:
    main()
finally:
    # Not that of getrusage, which begins with what the parent had.
    print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024, file=sys.stderr)
"""

HOSTILE = (
    "resnet_v2/\x1b[2J\x1b]0;title\x07/weights",
    "resnet_v2/a\nslimport: equal/weights",
    "resnet_v2/\u202etxt.exe\u2066/weights",
    "resnet_v2/[/]/[bold red]x/weights",
    "resnet_v2/\r\x08\x9b31m/weights",
)
"""Variables' names with an escape sequence, a line break, marks of direction, rich's markup, control characters."""


class Measured(NamedTuple):
    """What one file cost, and what was said of it; seconds by the clock, and those of the processor."""

    seconds: float
    processor: float
    mebibytes: int
    code: int
    message: str


def measured(path: Path) -> Measured:
    """Inspects a file in a process."""
    began, before = time.perf_counter(), _processor()
    done = subprocess.run(
        [sys.executable, "-c", _INSPECT, str(path)], capture_output=True, text=True, cwd=_ROOT, check=False
    )
    *message, mebibytes = done.stderr.strip().splitlines()
    seconds, processor = time.perf_counter() - began, _processor() - before
    return Measured(seconds, processor, int(mebibytes), done.returncode, " ".join(message))


def _processor() -> float:
    """The seconds that the processor worked for the processes of this one that ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _with(*names: str) -> Callable[[Path], Path]:
    """A checkpoint of a network, and of variables of these names."""

    def make(folder: Path) -> Path:
        variables = {f"resnet_v2/{name}": a for name, a in make_checkpoint.random_variables(NETWORK, 0).items()}
        more = {name: np.zeros((1, 1, 16, 4), np.float32) for name in names}
        write_checkpoint(folder / "names.ckpt", {**variables, **more})
        return folder / "names.ckpt"

    return make


def _tensors(count: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        entry: dict[str, Any] = {"dtype": "F32", "shape": [1]}
        header = {f"l{i}.weight": {**entry, "data_offsets": [4 * i, 4 * i + 4]} for i in range(count)}
        text = json.dumps(header).encode()
        (folder / "m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4 * count))
        return folder / "m.safetensors"

    return make


def _variables(folder: Path) -> Path:
    write_checkpoint(folder / "many.ckpt", ((f"a/b{i:06d}/weights", np.zeros(1, np.float32)) for i in range(100_000)))
    return folder / "many.ckpt"


def _state(folder: Path) -> Path:
    (folder / "checkpoint").write_text('model_checkpoint_path: "' + "a" * (16 << 20) + '"')
    return folder


def _configuration(folder: Path) -> Path:
    path = folder / "m.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("config.json", "w") as member:
        for _ in range(600):
            member.write(b" " * (1 << 20))
    return folder / "m.keras"


class _Zeros(io.RawIOBase):
    def __init__(self, size: int) -> None:
        self._left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        size = min(size, self._left)
        self._left -= size
        return bytes(size)


def _archive(size: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with tarfile.open(folder / "m.tar.gz", "w:gz", compresslevel=1) as tar:
            info = tarfile.TarInfo("m.ckpt")
            info.size = size
            tar.addfile(info, _Zeros(size))
        return folder / "m.tar.gz"

    return make


def _description(folder: Path) -> Path:
    network = {**NETWORKS["nasnet_mobile"].to_json(), "num_cells": 3 * 10**8}
    header = json.dumps({"__metadata__": {"slimport": json.dumps({"network": network})}}).encode()
    (folder / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder / "m.safetensors"


def _memo(folder: Path) -> Path:
    """A pickle whose memo would have two thousand million entries."""
    with zipfile.ZipFile(folder / "m.pth", "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02}r" + struct.pack("<I", (1 << 31) - 1) + b".")
    return folder / "m.pth"


def _heap(name: str) -> Callable[[Path], Path]:
    """An HDF5 file whose heap of texts would have 2.5 GB."""

    def make(folder: Path) -> Path:
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            file["slimport"] = "{}"
            file.create_group("layers/conv/vars").attrs["name"] = "conv1"
        place = content.getvalue().index(b"GCOL") + 8
        content.seek(place)
        content.write(struct.pack("<Q", 5 << 29))
        if name.endswith(".h5"):
            (folder / name).write_bytes(content.getvalue())
            return folder / name
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("config.json", '{"config": {"name": "net"}}')
            archive.writestr("model.weights.h5", content.getvalue())
        return folder / name

    return make


def _chunk(folder: Path) -> Path:
    """An HDF5 file with a compressed array that would have 2.5 GB."""
    with h5py.File(folder / "m.weights.h5", "w") as file:
        group = file.create_group("layers/conv/vars")
        group.attrs["name"] = "conv1"
        array = group.create_dataset("0", (5 << 27,), "f4", chunks=(5 << 27,), compression="gzip")
        array.id.write_direct_chunk((0,), zlib.compress(bytes(1000)))
    return folder / "m.weights.h5"


_UNIT = "resnet_v2/block1/unit_{}/bottleneck_v2/conv1/weights"
SMALL_FILES: Mapping[str, Callable[[Path], Path]] = {
    "nothing of the kind": _with("other"),
    "unit_1000000000": _with(_UNIT.format(10**9)),
    "a unit's number of 5,000 digits": _with(_UNIT.format("9" * 5000)),
    "block1000000000": _with("resnet_v2/block1000000000/unit_1/bottleneck_v2/conv1/weights"),
    "conv1_99999999999": _with("vgg_16/conv1/conv1_99999999999/weights", "vgg_16/conv1/conv1_1/weights"),
    "other families' numbers": _with(
        f"cell_{10**11}/beginning_bn/beta", f"InceptionV3/Mixed_{'9' * 5000}/x", f"x/entry_flow/block{10**9}/unit_1/w"
    ),
    "40 names of 20 kB with quant": _with(*(f"{'quant' * 4000}{i}/act_quant/min" for i in range(40))),
    "a checkpoint file of one line of 16 MB": _state,
    ".safetensors with 100,000 tensors": _tensors(100_000),
    "V2 with 100,000 variables": _variables,
    ".keras with a configuration of 600 MB": _configuration,
    "a .weights.h5 with a heap of 2.5 GB": _heap("m.weights.h5"),
    "a .weights.h5 with an array of 2.5 GB, compressed": _chunk,
    "a .keras with a heap of 2.5 GB": _heap("m.keras"),
    "1 GiB of zeros in a .tar.gz": _archive(1 << 30),
    "a description of 300,000,000 cells": _description,
    "a pickle with a memo of 2,000,000,000": _memo,
}
LARGE_FILES: Mapping[str, Callable[[Path], Path]] = {
    "V2 with 25,000 variables": _with(*(f"other/block{i // 1000}/unit_{i % 1000}/weights" for i in range(25_000))),
}
"""Files that are as large as they claim: an answer, in a time that grows with them and no faster."""


def main() -> int:
    table = Table("file", "size", "exit code", "seconds", "of the processor", "MiB", "said")
    bad, least = [], None
    for name, make in {**SMALL_FILES, **LARGE_FILES}.items():
        with tempfile.TemporaryDirectory() as folder:
            path = make(Path(folder))
            size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
            found = measured(path)
            said = found.message.replace(f"{folder}{os.sep}", "").replace(folder, "run")[:120]
        least = found.processor if least is None else least
        seconds = f"{found.seconds:.1f}", f"{found.processor:.1f}"
        table.add_row(name, f"{size / 1e6:.1f} MB", str(found.code), *seconds, str(found.mebibytes), said)
        late = name in SMALL_FILES and found.processor - least > _MOST_S
        if late or found.mebibytes > _MOST_MIB or "bug" in found.message:
            bad.append(name)
    Console(width=180).print(table)
    print(*bad, sep="\n")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
