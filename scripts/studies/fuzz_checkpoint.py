"""A coverage-guided fuzz target over the checkpoint reader. Needs atheris (pip install atheris), which no extra brings.

    python -m scripts.studies.fuzz_checkpoint [CORPUS] [-max_total_time=300] [libFuzzer's other options]

The first byte of an input says what the others are: a file, a block, an index block, an entry, a message, strings. What
is around them is made right, checksums too, so that they are what is tried. Anything but CheckpointError is a finding,
and so is an array of another shape or dtype than announced, a second of time, or a gigabyte of memory.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["converters"]):
    from converters.checkpoint import object_graph, open_checkpoint

from cramjam import snappy

from converters.errors import CheckpointError
from scripts.studies import forgery

ALL = [(0, -1)]
DATA = bytes(range(64))
SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-"))
PATH = SCRATCH / "m"
INDEX = SCRATCH / "m.index"
SHARD = SCRATCH / "m.data-00000-of-00001"


def file(body: bytes) -> Path:
    """Any file; most are no table, so it is made to end as one."""
    return _v1(body + forgery.MAGIC if body[:1] != b"." else body)


def block(body: bytes) -> Path:
    return _bundle(forgery.table_of_blocks([(b"\xff", body)]))


def index_block(body: bytes) -> Path:
    good = forgery.block([(b"", forgery.bundle_header()), (b"w", forgery.bundle_entry(data=DATA[:4]))])
    return _bundle(forgery.table_of_blocks([(b"\xff", good)], index_contents=body))


def compressed(body: bytes) -> Path:
    return _bundle(forgery.table_of_blocks([(b"\xff", body)], compression=1))


def header(body: bytes) -> Path:
    return _bundle(forgery.table([(b"", body), (b"w", forgery.bundle_entry(data=DATA[:4]))]))


def entry(body: bytes) -> Path:
    """Of a bundle, with one slice beside it."""
    piece = forgery.bundle_entry([2], size=8, offset=8, data=DATA[8:16])
    key = forgery.slice_key(b"w", [(0, 2)])
    return _bundle(forgery.table([(b"", forgery.bundle_header()), (key, piece), (b"w", body)]))


def entry_alone(body: bytes) -> Path:
    """Of a bundle whose data is not there, so that no size can be held against it."""
    source = entry(body)
    SHARD.unlink()
    return source


def strings(body: bytes) -> Path:
    """A string tensor of three, whose lengths are 8 bytes each."""
    lengths = [int.from_bytes(body[i : i + 8], "little") for i in (0, 8, 16)]
    return _string_tensor(b"s", [3], forgery.string_tensor([body[24:]], lengths))


def metadata(body: bytes) -> Path:
    data = forgery.v1_data("w", ALL, forgery.packed_floats(3))
    return _v1(forgery.table([(b"", forgery.message(1, body)), data]))


def slice_meta(body: bytes) -> Path:
    data = forgery.v1_data("w", ALL, forgery.packed_floats(3))
    return _v1(forgery.table([forgery.v1_metadata(body), data]))


def tensor(body: bytes) -> Path:
    """TensorProto, of a dtype and number of values that its first two bytes say."""
    dtype, count = (body + b"\1\1")[:2]
    meta = forgery.slice_meta("w", [count], [ALL], dtype % 34)
    return _v1(forgery.table([forgery.v1_metadata(meta), forgery.v1_data("w", ALL, body[2:])]))


def saved_slices(body: bytes) -> Path:
    meta = forgery.slice_meta("w", [3], [ALL])
    return _v1(forgery.table([forgery.v1_metadata(meta), (forgery.slice_key(b"w", ALL), body)]))


def graph(body: bytes) -> Path:
    """The object graph, as the only variable."""
    return _string_tensor(b"_CHECKPOINTABLE_OBJECT_GRAPH", [], forgery.string_tensor([body]))


def archive(body: bytes) -> Path:
    """A tar whose first header is as it may be."""
    start = bytearray(body[:512].ljust(512, b"\0"))
    start[257:262] = b"ustar"
    start[148:156] = b" " * 8
    start[148:156] = b"%06o\0 " % sum(start)
    PATH.write_bytes(bytes(start) + body[512:])
    return PATH


TARGETS: list[Callable[[bytes], Path]] = [
    file, block, index_block, compressed, header, entry, entry_alone, strings, metadata, slice_meta, tensor,
    saved_slices, graph, archive,
]  # fmt: skip


def try_one(data: bytes) -> None:
    """Reads all of what an input stands for."""
    if not data:
        return
    for path in (PATH, INDEX, SHARD):
        path.unlink(missing_ok=True)
    source = TARGETS[data[0] % len(TARGETS)](data[1:])
    try:
        with open_checkpoint(source) as checkpoint:
            for name, variable in checkpoint.variables.items():
                try:
                    array = checkpoint[name]
                except CheckpointError as error:
                    _one_line(error)
                    continue
                assert (array.shape, array.dtype) == (variable.shape, variable.dtype), name
            object_graph(checkpoint)
    except CheckpointError as error:
        _one_line(error)


def _one_line(error: CheckpointError) -> None:
    assert "\n" not in str(error), str(error)


def _bundle(index: bytes) -> Path:
    INDEX.write_bytes(index)
    SHARD.write_bytes(DATA)
    return PATH


def _string_tensor(name: bytes, shape: list[int], data: forgery.StringTensor) -> Path:
    entry = forgery.bundle_entry(shape, dtype=7, size=len(data.content), crc=data.crc)
    INDEX.write_bytes(forgery.table([(b"", forgery.bundle_header()), (name, entry)]))
    SHARD.write_bytes(data.content)
    return PATH


def _v1(content: bytes) -> Path:
    PATH.write_bytes(content)
    return PATH


def seeds() -> list[bytes]:
    """Of each kind one that is right, so that the fuzzer starts from what is read and not from what is refused."""
    good = forgery.bundle_entry([4], size=16, data=DATA[:16])
    pairs = [(b"", forgery.bundle_header()), (b"w", good)]
    whole = forgery.table([forgery.v1_metadata(forgery.slice_meta("w", [3], [ALL])), forgery.v1_data("w", ALL, b"")])
    bodies: dict[Callable[[bytes], Path], bytes] = {
        file: whole[: -len(forgery.MAGIC)],
        block: forgery.block(pairs),
        index_block: forgery.block([(b"z", forgery.handle(0, 60))]),
        compressed: bytes(snappy.compress_raw(forgery.block(pairs))),
        header: forgery.bundle_header(2),
        entry: forgery.bundle_entry([4], slices=[[(0, 2)], [(2, 2)]]),
        entry_alone: forgery.bundle_entry([2], slices=[[(0, 2)]]),
        strings: b"".join(length.to_bytes(8, "little") for length in (1, 0, 3)) + b"accc",
        metadata: forgery.message(1, forgery.slice_meta("w", [3], [ALL])) + forgery.message(2, forgery.number(1, 1)),
        slice_meta: forgery.slice_meta("w", [3], [[(0, 1)], [(1, 2)]]),
        tensor: bytes([3, 4]) + forgery.message(7, b"\1\2\3\xff\1"),
        saved_slices: forgery.v1_data("w", ALL, forgery.packed_floats(3))[1],
        graph: forgery.message(1, forgery.message(1, forgery.number(1, 0), forgery.message(2, b"child"))),
        archive: bytes(512) + bytes(1024),
    }
    return [bytes([TARGETS.index(target)]) + body for target, body in bodies.items()]


def main() -> None:
    corpus = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    folder = Path(corpus[0] if corpus else tempfile.mkdtemp(prefix="corpus-"))
    folder.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds()):
        (folder / f"seed-{number:02d}").write_bytes(seed)
    options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    atheris.Setup([sys.argv[0], str(folder), "-timeout=1", "-rss_limit_mb=1024", "-max_len=4096", *options], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
