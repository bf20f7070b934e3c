"""Damages converted files of every form in thousands of ways: refused in one line, or read as they were.

    python -m scripts.studies.attack_forms [--cases N] [--seed N] [--form FORM]...

Flipped bits, cut ends, zeroed ranges, bytes put in and taken out, and JSON texts with values of other types. A process
of its own reads each file, so that a crash or a case without end is counted, too. A file is silently wrong if its
network, arguments, names, shapes or dtypes are others than before, or a value is and the format has checksums. A
flipped bit in a number of a format without checksums cannot be told: these are counted as "other values".
Exits with 1 if a case was silently wrong, raised anything but InputError, crashed or took a minute.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from converters import convert
from converters.checkpoint import write_checkpoint
from converters.errors import InputError
from converters.weights.source import open_source
from scripts import make_checkpoint
from slimport import networks

REFUSED, HARMLESS, OTHER_VALUES, WRONG, CRASHED = "refused", "harmless", "other values", "silently wrong", "crashed"
_LIMIT_S = 60

NETWORK = networks.ResNetV2(
    (networks.resnet_v2_block("block1", 4, 2, 2), networks.resnet_v2_block("block2", 8, 3, 1)), num_classes=7
)


@dataclass(frozen=True)
class Form:
    """A form: its file, the one of its files that is damaged, and whether every value has a checksum."""

    name: str
    damaged: str
    checksums: bool

    @property
    def options(self) -> dict[str, Any]:
        """Of `convert`."""
        return {"to": "huggingface"} if self.name == "folder" else {}


FORMS = (
    Form("m.safetensors", "m.safetensors", False),
    Form("folder", "folder/model.safetensors", False),
    Form("folder", "folder/config.json", True),
    Form("m.pth", "m.pth", True),
    Form("m.keras", "m.keras", True),
    Form("m.weights.h5", "m.weights.h5", False),
    Form("m.ckpt", "m.ckpt.index", True),
    Form("m.ckpt", "m.ckpt.data-00000-of-00001", True),
    Form("m.onnx", "m.onnx", False),
    Form("m.pt2", "m.pt2", True),
)


@dataclass
class Count:
    """What became of the cases of a form; the slowest in seconds, and the most memory that its reading took in MiB."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    largest: float = 0.0
    shown: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return sum(n for outcome, n in self.outcomes.items() if outcome not in (REFUSED, HARMLESS, OTHER_VALUES))


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """One damaged version of a file."""
    kind, place = int(generator.integers(9)), int(generator.integers(len(content)))
    some = int(generator.integers(1, 200))
    if kind < 4:
        # Where the structure is, as often as anywhere.
        place = place if kind < 2 else _structure(content, generator)
        return content[:place] + bytes([content[place] ^ 1 << int(generator.integers(8))]) + content[place + 1 :]
    if kind == 4:
        return content[:place]
    if kind == 5:
        return content[:place] + bytes(min(some, len(content) - place)) + content[place + some :]
    if kind == 6:
        return content[:place] + generator.bytes(some) + content[place:]
    if kind == 7:
        return content[:place] + content[place + some :]
    return _other_json(content, generator)


def _structure(content: bytes, generator: np.random.Generator) -> int:
    """A place in the first or last bytes, where headers and tables are."""
    size = min(len(content), 4000)
    place = int(generator.integers(size))
    return place if generator.integers(2) else len(content) - 1 - place


def _other_json(content: bytes, generator: np.random.Generator) -> bytes:
    """The file with a number, a text or a list of a JSON text in it made another, of the same length."""
    found = list(re.finditer(rb'(?<=[:\[,]) ?(\d+|"[\w./]{2,40}"|true|false|null)(?=[,\]}])', content))
    if not found:
        return content[: len(content) // 2]
    match = found[int(generator.integers(len(found)))]
    size = len(match[1])
    others: Sequence[bytes] = (b"9" * size, b"-1", b"[]", b"{}", b"null", b'"x"', b"1e9", b"0", b"true")
    other = others[int(generator.integers(len(others)))]
    other = other.ljust(size) if len(other) <= size else b"7" * size
    return content[: match.start(1)] + other + content[match.end(1) :]


@dataclass(frozen=True)
class Truth:
    """What a file holds."""

    network: networks.Network
    arguments: dict[str, Any]
    scope: str
    arrays: dict[str, Any]


def read(path: Path) -> Truth:
    """All of a file."""
    with open_source(path) as source:
        return Truth(source.network, dict(source.arguments), source.scope, source.arrays())


def outcome(path: Path, truth: Truth, checksums: bool) -> str:
    """What reading a damaged file comes to."""
    try:
        found = read(path)
    except InputError as error:
        return REFUSED if "\n" not in str(error) else "more than one line"
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"[:200].replace("\n", " ")
    if (found.network, found.arguments, found.scope) != (truth.network, truth.arguments, truth.scope):
        return WRONG
    if {n: (a.shape, a.dtype) for n, a in found.arrays.items()} != {
        n: (a.shape, a.dtype) for n, a in truth.arrays.items()
    }:
        return WRONG
    if all(found.arrays[name].tobytes() == array.tobytes() for name, array in truth.arrays.items()):
        return HARMLESS
    return WRONG if checksums else OTHER_VALUES


def files(folder: Path, names: Sequence[str]) -> None:
    """One network in every form."""
    variables = make_checkpoint.random_variables(NETWORK, 0)
    write_checkpoint(folder / "source.ckpt", {f"resnet_v2/{name}": array for name, array in variables.items()})
    for form in {form.name: form for form in FORMS if form.damaged in names}.values():
        convert(folder / "source.ckpt", folder / form.name, **form.options)


def cases(folder: Path, form: Form, numbers: range, seed: int) -> Iterator[tuple[str, float]]:
    """Yields the outcome of each case, and its seconds."""
    path = folder / form.damaged
    content, truth = path.read_bytes(), read(folder / form.name)
    try:
        for number in numbers:
            path.write_bytes(damaged(content, np.random.default_rng([seed, number])))
            began = time.perf_counter()
            yield outcome(folder / form.name, truth, form.checksums), time.perf_counter() - began
    finally:
        path.write_bytes(content)


def run(folder: Path, form: Form, count: int, seed: int) -> Count:
    """The cases of a form in processes, each of which ends at a crash and is followed by the next."""
    found, number = Count(), 0
    content = (folder / form.damaged).read_bytes()
    while number < count:
        reader, writer = os.pipe()
        if not (child := os.fork()):
            os.close(reader)
            _child(folder, form, range(number, count), seed, writer)
        os.close(writer)
        with os.fdopen(reader) as lines:
            for line in lines:
                seconds, largest, what = line.rstrip("\n").split(" ", 2)
                found.slowest = max(found.slowest, float(seconds))
                found.largest = max(found.largest, float(largest))
                _count(found, what, number)
                number += 1
        if os.waitpid(child, 0)[1]:
            _count(found, CRASHED, number)
            number += 1
            (folder / form.damaged).write_bytes(content)
    return found


def _count(found: Count, what: str, number: int) -> None:
    found.outcomes[what.partition(":")[0]] += 1
    if what not in (REFUSED, HARMLESS, OTHER_VALUES):
        found.shown.append(f"case {number}: {what}")


def _child(folder: Path, form: Form, numbers: range, seed: int, writer: int) -> None:
    """Runs cases in this process, and ends it."""
    before = _memory()
    with os.fdopen(writer, "w") as lines, Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 2)
        signal.alarm(_LIMIT_S)
        for what, seconds in cases(folder, form, numbers, seed):
            print(f"{seconds:.4f} {_memory() - before:.0f} {what}", file=lines, flush=True)
            signal.alarm(_LIMIT_S)
    os._exit(0)


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(counts: dict[str, Count]) -> Table:
    """A line for each form, and their sum."""
    sums = Count(sum((count.outcomes for count in counts.values()), Counter()))
    sums.slowest, sums.largest = (max(getattr(c, key) for c in counts.values()) for key in ("slowest", "largest"))
    columns = [REFUSED, HARMLESS, OTHER_VALUES, WRONG]
    text = Table("file", "cases", *columns, "stray exceptions, crashes", "slowest", "most memory")
    for name, count in [*counts.items(), ("all", sums)]:
        cells = [str(count.outcomes[column]) for column in columns]
        stray = str(count.bad - count.outcomes[WRONG])
        text.add_row(
            name, str(count.outcomes.total()), *cells, stray, f"{count.slowest:.2f} s", f"{count.largest:.0f} MiB"
        )
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200, help="damaged versions of each file [200]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--form", action="append", choices=[form.damaged for form in FORMS])
    arguments = parser.parse_args()
    names = arguments.form or [form.damaged for form in FORMS]
    counts: dict[str, Count] = {}
    with tempfile.TemporaryDirectory() as there:
        folder = Path(there)
        files(folder, names)
        for form in FORMS:
            if form.damaged in names:
                counts[form.damaged] = run(folder, form, arguments.cases, arguments.seed)
        shutil.rmtree(folder, ignore_errors=True)
    Console(width=150).print(table(counts))
    for name, count in counts.items():
        for line in count.shown[:20]:
            print(f"{name}: {line}")
    return int(any(count.bad for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
