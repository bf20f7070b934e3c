"""Damages checkpoint files in thousands of ways. The reader must refuse, or read what was there; it is counted.

    python -m scripts.studies.damage [--cases N] [--seed N] [CHECKPOINT...]

Two tables. Damage: flipped bits, cut ends, zeroed ranges, in files that TensorFlow wrote and in those named. Forgery:
other bytes within blocks whose checksums are then made right again, so that nothing but the reader's own checks stands
between the bytes and the arrays; there, an array can hold other values, but only of the shape and dtype announced.
Exits with 1 if anything was silently wrong, or raised anything but CheckpointError. Needs TensorFlow, for its files.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import struct
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import crc32c
import numpy as np
from rich.console import Console
from rich.table import Table as TextTable

from converters.checkpoint import open_checkpoint
from converters.checkpoint.table import SNAPPY, Table, mask
from converters.errors import CheckpointError
from scripts.studies import forgery

REFUSED, HARMLESS, WRONG = "refused", "harmless", "silently wrong"

Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """A checkpoint, the one of its files that is damaged, and what it holds."""

    name: str
    source: Path
    file: Path
    arrays: Arrays


@dataclass
class Count:
    """What became of the cases of one sample, and how long the slowest took."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    @property
    def bad(self) -> int:
        """Cases that must not be."""
        return sum(n for outcome, n in self.outcomes.items() if outcome not in (REFUSED, HARMLESS))


@dataclass(frozen=True)
class _InMemory:
    """A table's bytes as the file that a table is read from."""

    content: bytes
    label: str = "sample"

    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, size: int) -> memoryview:
        return memoryview(self.content)[offset : offset + size]


def damaged(content: bytes, generator: np.random.Generator, count: int) -> Iterator[bytes]:
    """`count` damaged versions: of five, three with a flipped bit, one cut off, one with a range of zeros."""
    for case in range(count):
        place = int(generator.integers(len(content)))
        if case % 5 < 3:
            flipped = bytearray(content)
            flipped[place] ^= 1 << int(generator.integers(8))
            yield bytes(flipped)
        elif case % 5 == 3:
            yield content[:place]
        else:
            end = min(place + int(generator.integers(1, 200)), len(content))
            yield content[:place] + bytes(end - place) + content[end:]


def forged(content: bytes, generator: np.random.Generator, count: int) -> Iterator[bytes]:
    """`count` versions of a table with other bytes in a block, and that block's checksum made right."""
    table = Table(_InMemory(content))
    handles = [handle for _, handle in table.blocks] + [table.index]
    for _ in range(count):
        handle = handles[int(generator.integers(len(handles)))]
        out = bytearray(content)
        for _ in range(int(generator.integers(1, 4))):
            # Where the structure is, mostly: tensors fill the rest.
            place = handle.offset + int(generator.integers(min(handle.size, 2000)))
            if generator.integers(4) == 0:
                place = handle.offset + handle.size - 1 - int(generator.integers(min(handle.size, 12)))
            new = generator.choice([0, 1, 0x7F, 0x80, 0xFF, int(generator.integers(256)), out[place] ^ 1])
            out[place] = int(new)
        body = bytes(out[handle.offset : handle.end - 4])
        out[handle.end - 4 : handle.end] = struct.pack("<I", mask(crc32c.crc32c(body)))
        yield bytes(out)


def outcome(source: Path, arrays: Arrays, values: bool = True) -> str:
    """What reading all of a checkpoint comes to; without `values`, only shapes and dtypes must be as announced."""
    try:
        with open_checkpoint(source) as checkpoint:
            if not values:
                for name, variable in checkpoint.variables.items():
                    array = checkpoint[name]
                    if (array.shape, array.dtype) != (variable.shape, variable.dtype):
                        return WRONG
                return HARMLESS
            if set(checkpoint) != set(arrays):
                return WRONG
            return HARMLESS if all(same(checkpoint[name], arrays[name]) for name in arrays) else WRONG
    except CheckpointError as error:
        return REFUSED if "\n" not in str(error) else "more than one line"
    except Exception as error:
        return f"raised {type(error).__name__}"


def same(ours: Any, theirs: Any) -> bool:
    """Dtype, shape and every bit."""
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return False
    return bool(ours.tolist() == theirs.tolist() if ours.dtype.kind == "O" else ours.tobytes() == theirs.tobytes())


def run(sample: Sample, versions: Iterable[bytes], values: bool = True) -> Count:
    """Puts each version in the file's place, and the file back at the end."""
    content = sample.file.read_bytes()
    count = Count()
    try:
        for version in versions:
            sample.file.write_bytes(version)
            began = time.perf_counter()
            count.outcomes[outcome(sample.source, sample.arrays, values)] += 1
            count.slowest = max(count.slowest, time.perf_counter() - began)
    finally:
        sample.file.write_bytes(content)
    return count


def samples(folder: Path) -> list[Sample]:
    """Small checkpoints of every form, by TensorFlow."""
    import tensorflow as tf

    generator = np.random.default_rng(0)
    arrays: Arrays = {
        "scope/conv1/weights": generator.normal(size=(3, 3, 2, 4)).astype(np.float32),
        "scope/conv1/BatchNorm/gamma": generator.normal(size=4),
        "scope/logits/biases": generator.integers(-1000, 1000, 7),
        "half": generator.normal(size=(5, 2)).astype(np.float16),
        "flags": generator.integers(0, 2, 6).astype(bool),
        "z": np.array(3 + 4j, np.complex64),
        "words": np.array([[b"a", b""], [b"longer" * 9, b"x"]], object),
        "empty": np.zeros((2, 0), np.float32),
        "global_step": np.array(1234567),
    }
    whole = generator.normal(size=(6, 5)).astype(np.float32)
    cuts = {"6 5 0,2:-": whole[:2], "6 5 2,4:0,3": whole[2:, :3], "6 5 2,4:3,2": whole[2:, 3:]}

    def path(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name / "m.ckpt"

    def v1(at: Path, named: Mapping[str, Any], slices: list[str] | None = None) -> Path:
        tf.raw_ops.SaveSlices(
            filename=str(at),
            tensor_names=list(named),
            shapes_and_slices=slices or [""] * len(named),
            data=[tf.constant(array) for array in named.values()],
        )
        return at

    def v2(at: Path, named: Mapping[str, Any], slices: list[str] | None = None) -> Path:
        tf.raw_ops.SaveV2(
            prefix=str(at),
            tensor_names=list(named),
            shape_and_slices=slices or [""] * len(named),
            tensors=[tf.constant(array) for array in named.values()],
        )
        return at

    found = [Sample("V1", at := v1(path("v1"), arrays), at, arrays)]
    at = v2(path("v2"), arrays)
    found.append(Sample("V2 index", at, Path(f"{at}.index"), arrays))
    found.append(Sample("V2 data", at, Path(f"{at}.data-00000-of-00001"), arrays))

    at = path("shards")
    for i, (cut, part) in enumerate(cuts.items()):
        v1(Path(f"{at}-{i:05d}-of-00003"), {"whole": part, f"beside/{i}": whole[i]}, [cut, ""])
    partitioned = {"whole": whole, **{f"beside/{i}": whole[i] for i in range(3)}}
    found.append(Sample("V1 shard, partitioned", at, Path(f"{at}-00001-of-00003"), partitioned))

    at = path("merged")
    parts = [
        str(v2(at.with_name(f"part{i}"), {"whole": part, f"beside/{i}": whole[i]}, [cut, ""]))
        for i, (cut, part) in enumerate(cuts.items())
    ]
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(at))
    found.append(Sample("V2 index, partitioned", at, Path(f"{at}.index"), partitioned))
    found.append(Sample("V2 shard, partitioned", at, Path(f"{at}.data-00001-of-00003"), partitioned))

    at = path("snappy")
    at.write_bytes(compressed(found[0].file.read_bytes()))
    found.append(Sample("V1, snappy", at, at, arrays))

    module = tf.Module()
    module.kernel = tf.Variable(whole)
    tf.saved_model.save(module, str(folder / "saved"))
    variables = folder / "saved" / "variables" / "variables"
    with open_checkpoint(variables) as checkpoint:
        held = {name: array.copy() for name, array in checkpoint.items()}
    found.append(Sample("SavedModel index", folder / "saved", Path(f"{variables}.index"), held))

    for mode, name in (("w", "tar"), ("w:gz", "tar.gz")):
        at = path(name).with_name(f"m.{name}")
        with tarfile.open(at, mode) as tar:  # type: ignore[call-overload]
            for member, content in (("eval.graph", b"graph" * 200), ("m.ckpt", found[0].file.read_bytes())):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        found.append(Sample(name, at, at, arrays))
    return found


def compressed(content: bytes) -> bytes:
    """A table with its blocks compressed, as TensorFlow would write it if it were told to."""
    from cramjam import snappy

    def compress(contents: bytes) -> bytes:
        return bytes(snappy.compress_raw(contents))

    blocks = Table(_InMemory(content)).blocks
    return forgery.table_of_blocks(
        ((key, compress(content[handle.offset : handle.offset + handle.size])) for key, handle in blocks), SNAPPY
    )


def named(source: Path) -> list[Sample]:
    """A checkpoint from the command line: each of its files."""
    with open_checkpoint(source) as checkpoint:
        arrays = {name: array.copy() for name, array in checkpoint.items()}
        return [Sample(file.name, source, file, arrays) for file in checkpoint.files]


def table(title: str, counts: Mapping[str, Count]) -> TextTable:
    """A line for each sample, and their sum."""
    others = sorted({o for count in counts.values() for o in count.outcomes} - {REFUSED, HARMLESS, WRONG})
    columns = [REFUSED, HARMLESS, WRONG, *others]
    text = TextTable("file", "cases", *columns, *(["other exceptions"] if not others else []), "slowest", title=title)
    sums = Count(sum((count.outcomes for count in counts.values()), Counter()), max(c.slowest for c in counts.values()))
    for name, count in [*counts.items(), ("all", sums)]:
        cells = [str(count.outcomes[column]) for column in columns] + (["0"] if not others else [])
        text.add_row(name, str(count.outcomes.total()), *cells, f"{1000 * count.slowest:.0f} ms")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path)
    parser.add_argument("--cases", type=int, default=1000, help="damaged versions of each file [1000]")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = samples(Path(folder))
        for i, source in enumerate(arguments.checkpoints):
            found += _copies(source, Path(folder) / f"named{i}")
        return _report(found, arguments.cases, np.random.default_rng(arguments.seed))


def _copies(source: Path, folder: Path) -> list[Sample]:
    """A named checkpoint is damaged in a copy."""
    folder.mkdir()
    with open_checkpoint(source) as checkpoint:
        for file in checkpoint.files:
            (folder / file.name).write_bytes(file.read_bytes())
        return named(folder / checkpoint.path.name)


def _peak_memory() -> float:
    """Of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _report(found: list[Sample], cases: int, generator: np.random.Generator) -> int:
    before = _peak_memory()
    damage = {s.name: run(s, damaged(s.file.read_bytes(), generator, cases)) for s in found}
    tables = [s for s in found if s.name.startswith(("V1", "V2 index", "SavedModel"))]
    forgery = {s.name: run(s, forged(s.file.read_bytes(), generator, cases), values=False) for s in tables}
    # As wide as the table is, whatever it is printed to.
    console = Console(width=140)
    console.print(table("damage", damage))
    console.print(table("forgery: checksums right", forgery))
    console.print(f"peak memory grew by {_peak_memory() - before:.0f} MiB over all cases")
    return int(any(count.bad for count in [*damage.values(), *forgery.values()]))


if __name__ == "__main__":
    sys.exit(main())
