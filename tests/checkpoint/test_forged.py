"""Files whose checksums are right and whose claims are not: one clear line, in bounded time and memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cramjam import snappy

from converters import CheckpointError
from converters.checkpoint import open_checkpoint, wire
from converters.checkpoint.ordered_code import slice_key
from converters.checkpoint.raw import RawFile
from converters.checkpoint.table import BLOCK_TRAILER_SIZE, Table
from scripts.studies import forgery
from scripts.studies.forgery import bundle_entry, bundle_header, message, number, v1_data, v1_metadata

ALL = [(0, -1)]


def read_all(source: Path) -> None:
    with open_checkpoint(source) as checkpoint:
        for name in checkpoint:
            checkpoint[name]


def refused(source: Path, match: str, megabytes: float = 8) -> None:
    """One line that matches, within two seconds of computing and a few megabytes."""
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(CheckpointError, match=match) as raised:
            read_all(source)
        assert time.process_time() - began < 2
        assert tracemalloc.get_traced_memory()[1] < megabytes * 2**20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_what_is_forged_here_is_read_where_it_is_right(tmp_path: Path) -> None:
    """So that what is refused below is refused for its claim, not for how it was made."""
    prefix = forgery.write_bundle(tmp_path / "v2", [(b"w", bundle_entry([2, 2], size=16, data=bytes(16)))])
    assert open_checkpoint(prefix)["w"].tolist() == [[0, 0], [0, 0]]
    meta = forgery.slice_meta("w", [3], [[(0, -1)]])
    (tmp_path / "v1").write_bytes(forgery.table([v1_metadata(meta), v1_data("w", [(0, -1)], forgery.packed_floats(3))]))
    assert open_checkpoint(tmp_path / "v1")["w"].tolist() == [0, 0, 0]


ENTRIES: dict[str, tuple[bytes, str]] = {
    "a shape of 2^60 elements": (bundle_entry([2**30, 2**30]), "4 bytes are not those of float32 of shape"),
    "a shape that overflows 64 bits": (bundle_entry([2**62, 4, 2**62]), "are not those of float32 of shape"),
    "a shape that wraps to the right size": (bundle_entry([2**62, 4, 1]), "are not those of float32 of shape"),
    "a negative side": (bundle_entry([-4]), "a side of -4"),
    "a rank of 300": (bundle_entry([1] * 300), "a shape of more than 32 sides"),
    "a rank of 33": (bundle_entry([1] * 33), "a shape of more than 32 sides"),
    "nothing, 2^62 times": (bundle_entry([0, 2**62], size=0, data=b""), "an empty shape with sides that are too large"),
    "the largest side, of nothing": (bundle_entry([2**63 - 1, 0], size=0, data=b""), "an empty shape with sides"),
    "strings of no number": (bundle_entry([0, 2**61, 2**61], dtype=7, size=4), "an empty shape with sides"),
    "an unknown rank": (number(1, 1) + message(2, number(3, 1)), "unknown rank"),
    "a size beyond the file": (
        bundle_entry([2**40], size=2**42),
        "needs 4398046511104 bytes, and the file has only 16",
    ),
    "an offset beyond the file": (bundle_entry(offset=2**62), "needs 4 bytes, and the file has only 16"),
    "a negative offset": (bundle_entry(offset=-4), "needs 4 bytes, and the file has only 16"),
    "an offset one beyond": (bundle_entry(offset=13), "needs 4 bytes, and the file has only 16"),
    "a shard that is not there": (bundle_entry(shard=1), "shard 1 of 1"),
    "a size that is not the shape's": (bundle_entry([2], size=4), "4 bytes are not those of float32 of shape"),
    "no dtype": (bundle_entry(dtype=0), "is a variant, a resource or of a newer type"),
    "a dtype that is none": (bundle_entry(dtype=2**31), "is a variant, a resource or of a newer type"),
    "more strings than bytes": (
        bundle_entry([2**40], dtype=7, size=16),
        "16 bytes are too few for 1099511627776 strings",
    ),
    "an empty tensor with bytes": (bundle_entry([0], size=4), "4 bytes are not those of float32"),
    "a number where the shape should be": (number(1, 1) + number(2, 4), "a number where bytes should be"),
    "a shape where the size should be": (number(1, 1) + message(5, b"xxxx"), "bytes where a number should be"),
    "a field that occurs twice": (bundle_entry() + number(5, 8), "field 5 occurs twice"),
    "a varint that does not end": (b"\x80" * 11, "a varint that does not end"),
    "a varint of 70 bits": (b"\x08" + b"\xff" * 9 + b"\x7f", "a varint that does not end"),
    "a message beyond the entry": (number(1, 1) + b"\x12\xff\xff\xff\xff\x0f", "claims 4294967295 bytes"),
    "a group": (number(1, 1) + b"\x0b" * 1000, "has wire type 3"),
    "a checksum of 8 bytes": (number(1, 1) + number(5, 4) + b"\x31" + bytes(8), "a checksum that is not of 4 bytes"),
    "a slice beyond the side": (bundle_entry([4], slices=[[(0, 2)], [(2, 3)]]), r"a slice \[2, 5\) in a side of 4"),
    "a slice that wraps around": (bundle_entry([4], slices=[[(2**63 - 1, 2**63 - 1)]]), "in a side of 4"),
    "a negative slice": (bundle_entry([4], slices=[[(-1, 2)]]), r"a slice \[-1, 1\)"),
    "a slice of another rank": (bundle_entry([4], slices=[[(0, 4), (0, 1)]]), "a slice of rank 2"),
    "slices that leave a gap": (bundle_entry([4], slices=[[(0, 1)], [(2, 2)]]), "do not cover the shape"),
    "a slice listed twice": (bundle_entry([4], slices=[[(0, 2)], [(0, 2)]]), "listed twice"),
    "slices that are not there": (bundle_entry([4], slices=[[(0, 2)], [(2, 2)]]), "has no entry for it"),
    "a slice of 2^60 elements": (bundle_entry([2**60], slices=[[(0, -1)]]), "has no entry for it"),
}


@pytest.mark.parametrize("claim", ENTRIES)
def test_an_entry_of_a_bundle(claim: str, tmp_path: Path) -> None:
    entry, match = ENTRIES[claim]
    refused(forgery.write_bundle(tmp_path / "m", [(b"w", entry)]), match)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (bundle_header(shards=0), "0 shards"),
        (bundle_header(shards=2**40), "1099511627776 shards"),
        (bundle_header(shards=-1), "shards"),
        (bundle_header(endianness=1), "big-endian"),
        (bundle_header(version=number(1, 9) + number(2, 2)), "for readers of version 2 or newer"),
        (bundle_header(version=number(3, 1)), "not to be read by readers of version 1"),
        (bundle_header(version=message(3, b"\x05\x01")), "not to be read by readers of version 1"),
        (b"\xff", "damaged header"),
    ],
)
def test_the_header_of_a_bundle(header: bytes, match: str, tmp_path: Path) -> None:
    refused(forgery.write_bundle(tmp_path / "m", [(b"w", bundle_entry())], header=header), match)


def test_a_bundle_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(forgery.table([(b"w", bundle_entry())]))
    refused(tmp_path / "m", "it has no header")
    (tmp_path / "e.index").write_bytes(forgery.table([]))
    refused(tmp_path / "e", "it has no header")


def test_tensors_that_overlap(tmp_path: Path) -> None:
    pairs = [(b"a", bundle_entry([2], size=8, data=bytes(8))), (b"b", bundle_entry(offset=4))]
    refused(forgery.write_bundle(tmp_path / "m", pairs), "b at offset 4 overlaps a, which ends at 8")


def test_a_name_that_is_not_unicode_or_has_a_line_end(tmp_path: Path) -> None:
    refused(forgery.write_bundle(tmp_path / "m", [(b"\xff\n", bundle_entry())]), "the name is not UTF-8")
    refused(forgery.write_bundle(tmp_path / "n", [(b"a\nb", bundle_entry([9]))]), r"'a\\nb' at offset 0")
    refused(forgery.write_bundle(tmp_path / "l", [(b"n" * 100_000, bundle_entry([9]))]), r"n\.\.\.n")


def test_slices_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    halves = [[(0, 2)], [(2, 2)]]
    keys = [slice_key(b"w", extents) for extents in halves]
    half = bundle_entry([2], size=8, data=bytes(8))
    for other, match in (
        (bundle_entry([3], offset=4, size=12, data=bytes(12)), "overlaps"),
        (bundle_entry([1], offset=8), r"a slice of shape \[1\] where \[2\] should be"),
        (bundle_entry([1], dtype=2, offset=8, size=8, data=bytes(8)), r"a slice of shape \[1\] where \[2\] should be"),
        (bundle_entry([2], dtype=3, offset=8, size=8, data=bytes(8)), "a slice of shape"),
        (bundle_entry([2], slices=[[(0, -1)]]), "a slice of shape"),
    ):
        pairs = sorted([(keys[0], half), (keys[1], other), (b"w", bundle_entry([4], slices=halves))])
        refused(forgery.write_bundle(tmp_path / "m", pairs), match)
    # As many elements as there should be, but twice in one place.
    cut = [[(0, 2), (0, 2)], [(1, 2), (0, 1)], [(2, 1), (1, 1)], [(0, 1), (2, 1)], [(1, 1), (2, 1)]]
    pairs = [(b"w", bundle_entry([3, 3], slices=cut))]
    offset = 0
    for extents in cut:
        size = 4 * extents[0][1] * extents[1][1]
        sides = [extents[0][1], extents[1][1]]
        entry = bundle_entry(sides, offset=offset, size=size, data=bytes(size))
        pairs.append((slice_key(b"w", extents), entry))
        offset += size
    refused(forgery.write_bundle(tmp_path / "m", sorted(pairs), data=bytes(offset)), "do not cover the shape")


def test_a_slice_that_only_an_index_vouches_for(tmp_path: Path) -> None:
    side = 2**60
    pairs = [
        (slice_key(b"w", ALL), bundle_entry([side], size=4 * side)),
        (b"w", bundle_entry([side], slices=[ALL])),
    ]
    prefix = forgery.write_bundle(tmp_path / "m", pairs)
    refused(prefix, "needs 4611686018427387904 bytes")
    (tmp_path / "m.data-00000-of-00001").unlink()
    refused(prefix, "m.data-00000-of-00001: cannot be read: No such file")


def test_more_slices_than_their_names_leave_room_for(tmp_path: Path) -> None:
    name = b"n" * 50_000
    entry = bundle_entry([10_000], slices=[[(i, 1)] for i in range(10_000)])
    refused(forgery.write_bundle(tmp_path / "m", [(name, entry)]), "claims 10000 slices", megabytes=16)


@pytest.mark.parametrize("claimed", [2**62, 2**32, 9, 7], ids=str)
def test_strings_that_claim_other_lengths(claimed: int, tmp_path: Path) -> None:
    data = forgery.string_tensor([b"abcdefgh"], [claimed])
    entry = bundle_entry([1], dtype=7, size=len(data.content), crc=data.crc)
    refused(forgery.write_bundle(tmp_path / "m", [(b"s", entry)], data.content), "damaged: its strings do not fill")


@pytest.mark.parametrize("content", [b"\x80" * 16, b"\x01", forgery.string_tensor([b"a"]).content[:3]])
def test_strings_that_end_early(content: bytes, tmp_path: Path) -> None:
    entry = bundle_entry([1], dtype=7, size=len(content), data=content)
    refused(forgery.write_bundle(tmp_path / "m", [(b"s", entry)], content), "damaged: ")


def index(blocks: list[tuple[bytes, bytes]], **options: bytes) -> bytes:
    return forgery.table_of_blocks(blocks, **options)


HEADER = (b"", bundle_header())
GOOD = forgery.block([HEADER, (b"w", bundle_entry())])


def growing_keys() -> bytes:
    """A key of a megabyte, then thousands that share all of it: gigabytes of keys in a small file."""
    contents = forgery.raw_entry(0, b"", bundle_header()) + forgery.raw_entry(0, b"k" * 2**20, bundle_entry())
    for i in range(20_000):
        contents += forgery.raw_entry(2**20 + i, b"a", b"")
    return contents + struct.pack("<2I", 0, 1)


def listing(handle: bytes, times: int = 1) -> bytes:
    return forgery.block([(bytes([i]), handle) for i in range(times)])


def block_of_all_and(count: int) -> bytes:
    """A table that lists one block: the whole file, and some bytes more."""
    contents = b""
    # The number of bytes of the handle is a part of the size that it says.
    for _ in range(3):
        size = len(index([(b"z", GOOD)], index_contents=contents))
        contents = listing(forgery.handle(0, size - BLOCK_TRAILER_SIZE + count))
    return index([(b"z", GOOD)], index_contents=contents)


TABLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a block without restarts": (lambda: index([(b"z", b"xy")]), "it has no restart count"),
    "restarts beyond the block": (
        lambda: index([(b"z", GOOD[:-4] + b"\xff\xff\xff\x7f")]),
        "2147483647 restarts do not fit",
    ),
    "no restarts": (lambda: index([(b"z", forgery.block([HEADER], restarts=[]))]), "restarts are not where"),
    "a restart within an entry": (
        lambda: index([(b"z", forgery.block([HEADER], restarts=[0, 1]))]),
        "restarts are not",
    ),
    "a restart that is repeated": (
        lambda: index([(b"z", forgery.block([HEADER], restarts=[0, 0]))]),
        "restarts are not",
    ),
    "a key that shares more than there is": (
        lambda: index([(b"z", forgery.raw_entry(5, b"a", b"") + struct.pack("<2I", 0, 1))]),
        "reaches beyond it",
    ),
    "a value beyond the block": (
        lambda: index([(b"z", forgery.raw_entry(0, b"", b"", 2**40) + struct.pack("<2I", 0, 1))]),
        "reaches beyond it",
    ),
    "a value that reaches into the restarts": (
        lambda: index([(b"z", forgery.raw_entry(0, b"name", b"", 2) + struct.pack("<2I", 0, 1))]),
        "reaches beyond it",
    ),
    "keys that grow": (lambda: index([(b"z", growing_keys())]), "longer than can be"),
    "a key that occurs twice": (
        lambda: index([(b"z", forgery.block([HEADER, (b"w", b""), (b"w", b"")]))]),
        "not above the one",
    ),
    "keys out of order": (
        lambda: index([(b"z", forgery.block([HEADER, (b"w", b""), (b"a", b"")]))]),
        "not above the one",
    ),
    "blocks out of order": (
        lambda: index([(b"x", forgery.block([HEADER, (b"w", bundle_entry())])), (b"z", forgery.block([(b"a", b"")]))]),
        "not above those",
    ),
    "a block listed twice": (
        lambda: index([(b"z", GOOD)], index_contents=listing(forgery.handle(0, len(GOOD)), 2)),
        "overlaps",
    ),
    "a block beyond the file": (
        lambda: index([(b"z", GOOD)], index_contents=listing(forgery.handle(0, 2**40))),
        "beyond the file",
    ),
    "a block that ends where the file does": (lambda: block_of_all_and(0), "checksum does not match"),
    "a block that ends a byte later": (lambda: block_of_all_and(1), "beyond the file"),
    "a block at 2^63": (
        lambda: index([(b"z", GOOD)], index_contents=listing(forgery.handle(2**63, 1))),
        "beyond the file",
    ),
    "a block within the footer": (
        lambda: index([(b"z", GOOD)], index_contents=listing(forgery.handle(len(GOOD) + 40, 8))),
        "checksum does not match",
    ),
    "a handle that is cut off": (
        lambda: index([(b"z", GOOD)], index_contents=listing(b"\x80")),
        "a varint that does not end",
    ),
    "no blocks at all": (lambda: index([]), "it has no header"),
    "an unknown compression": (lambda: index([(b"z", GOOD)], compression=7), "unknown compression 7"),
    "snappy that inflates a thousandfold": (
        lambda: index([(b"z", wire.encode_varint(1000 * 200) + bytes(197))], compression=1),
        "200 compressed bytes cannot be 200000",
    ),
    "snappy that claims 2^63 bytes": (
        lambda: index([(b"z", wire.encode_varint(2**63) + bytes(90))], compression=1),
        "compressed bytes cannot be",
    ),
    "snappy that is none": (lambda: index([(b"z", b"\x20" + b"\xff" * 40)], compression=1), "snappy"),
    "snappy that ends early": (lambda: index([(b"z", bytes(snappy.compress_raw(GOOD))[:-3])], compression=1), "snappy"),
    "a footer beyond the file": (
        lambda: bytes(100) + forgery.footer(forgery.handle(0, 1), forgery.handle(90, 2**50)),
        "damaged table footer",
    ),
    "a footer of varints that do not end": (lambda: bytes(100) + b"\x80" * 40 + forgery.MAGIC, "damaged table footer"),
    "a footer and nothing else": (
        lambda: forgery.footer(forgery.handle(0, 0), forgery.handle(0, 0)),
        "checksum does not match",
    ),
}


@pytest.mark.parametrize("claim", TABLES)
def test_a_table(claim: str, tmp_path: Path) -> None:
    make, match = TABLES[claim]
    forgery.write_bundle(tmp_path / "m", [])
    (tmp_path / "m.index").write_bytes(make())
    refused(tmp_path / "m", match, megabytes=32)
    (tmp_path / "v1").write_bytes(make())
    refused(tmp_path / "v1", "v1: ", megabytes=32)


def test_an_index_that_lists_itself(tmp_path: Path) -> None:
    contents = b""
    # The handle of the index block depends on its own length; two rounds settle it.
    for _ in range(3):
        offset = len(forgery.stored(GOOD)) + len(forgery.stored(forgery.block([])))
        contents = listing(forgery.handle(offset, len(contents)))
    (tmp_path / "m.index").write_bytes(index([(b"z", GOOD)], index_contents=contents))
    refused(tmp_path / "m", "m")


def v1(path: Path, *pairs: tuple[bytes, bytes]) -> Path:
    path.write_bytes(forgery.table(sorted(pairs)))
    return path


FLOATS = forgery.packed_floats(4)


def meta(*arguments: object, **options: object) -> tuple[bytes, bytes]:
    return v1_metadata(forgery.slice_meta(*arguments, **options))  # type: ignore[arg-type]


V1: dict[str, tuple[list[tuple[bytes, bytes]], str]] = {
    "no metadata": ([v1_data("w", ALL, FLOATS)], "no metadata entry"),
    "metadata of another kind": ([(b"", message(2, b""))], "it lists no tensors"),
    "metadata that ends early": ([(b"", b"\x0a\xff\x01")], "damaged metadata entry"),
    "a newer version": ([(b"", message(1, message(2, number(2, 5))))], "for readers of version 5 or newer"),
    "a shape of 2^60 elements": (
        [meta("w", [2**30, 2**30], [ALL * 2]), v1_data("w", ALL * 2, FLOATS)],
        "does not fit into",
    ),
    "a shape of 2^60 bytes of varints": ([meta("w", [2**60], [ALL], 3)], "does not fit into"),
    "nothing, 2^62 times": (
        [meta("w", [0, 2**62], [ALL * 2]), v1_data("w", ALL * 2, b"")],
        "an empty shape with sides",
    ),
    "a rank of 65": (
        [meta("w", [1] * 65, [ALL * 65]), v1_data("w", ALL * 65, FLOATS)],
        "a shape of more than 32 sides",
    ),
    "a variable that is not there": (
        [meta("w", [4], [ALL])],
        "the metadata lists it, but the file does not contain it",
    ),
    "a variable without slices": ([meta("w", [4], [])], "do not cover the shape"),
    "an entry that is another's": (
        [meta("w", [4], [ALL]), v1_data("w", ALL, FLOATS, said="v")],
        "its entry is that of 'v'",
    ),
    "fewer values": ([meta("w", [5], [ALL]), v1_data("w", ALL, FLOATS)], "16 bytes are not 5 values of float32"),
    "more values": ([meta("w", [3], [ALL]), v1_data("w", ALL, FLOATS)], "16 bytes are not 3 values of float32"),
    "a part of a value": ([meta("w", [4], [ALL]), v1_data("w", ALL, message(5, bytes(15)))], "15 bytes are not"),
    "values of another type": (
        [meta("w", [4], [ALL]), v1_data("w", ALL, message(6, bytes(32)))],
        "0 bytes are not",
    ),
    "values that are not packed": (
        [meta("w", [1], [ALL]), v1_data("w", ALL, number(5, 1))],
        "a number where bytes should be",
    ),
    "values in two fields": (
        [meta("w", [4], [ALL]), v1_data("w", ALL, message(5, bytes(8)) * 2)],
        "field 5 occurs twice",
    ),
    "fewer varints": ([meta("w", [4], [ALL], 3), v1_data("w", ALL, message(7, b"\1\2\3"))], "values where 4 should be"),
    "more varints": (
        [meta("w", [4], [ALL], 3), v1_data("w", ALL, message(7, b"\1\2\3\4\5"))],
        "5 values where 4 should be",
    ),
    "a varint that does not end": (
        [meta("w", [4], [ALL], 3), v1_data("w", ALL, message(7, b"\1\2\3\4\x80"))],
        "does not end",
    ),
    "a varint of 11 bytes": (
        [meta("w", [2], [ALL], 9), v1_data("w", ALL, message(10, b"\x80" * 10 + b"\0\0"))],
        "a varint longer than 10 bytes",
    ),
    "a megabyte of one varint": (
        [meta("w", [1], [ALL], 9), v1_data("w", ALL, message(10, b"\x80" * 2**20 + b"\0"))],
        "a varint",
    ),
    "a dtype that V1 does not have": (
        [meta("w", [4], [ALL], 24), v1_data("w", ALL, message(7, b"\1\2\3\4"))],
        "float8_e5m2, which the V1 format does not have",
    ),
    "fewer strings": ([meta("w", [2], [ALL], 7), v1_data("w", ALL, message(8, b"x"))], "1 strings where 2 should be"),
    "more strings": ([meta("w", [1], [ALL], 7), v1_data("w", ALL, message(8, b"") * 9)], "9 strings where 1 should be"),
    "slices that overlap": ([meta("w", [4], [[(0, 3)], [(1, 3)]])], "do not cover the shape"),
    "a slice listed twice": ([meta("w", [4], [[(0, 2)], [(0, 2)]])], "listed twice"),
    "the same variable twice": (
        [v1_metadata(forgery.slice_meta("w", [4], [ALL]), forgery.slice_meta("w", [5], [ALL]))],
        "another shape or dtype",
    ),
    "a name that is not Unicode": ([(b"", message(1, message(1, message(1, b"\xff"))))], "not UTF-8"),
}


@pytest.mark.parametrize("claim", V1)
def test_a_v1_file(claim: str, tmp_path: Path) -> None:
    pairs, match = V1[claim]
    refused(v1(tmp_path / "m", *pairs), match, megabytes=16)


def test_reading_many_variables_of_one_large_block_takes_a_pass_not_a_square(tmp_path: Path) -> None:
    names = [f"{i:06d}" for i in range(20_000)]
    pairs = [v1_data(name, [], message(5, bytes(4))) for name in names]
    path = v1(tmp_path / "m", v1_metadata(*(forgery.slice_meta(name, [], [()]) for name in names)), *pairs)
    began = time.process_time()
    read_all(path)
    assert time.process_time() - began < 10


def test_a_snappy_bomb_within_the_ratio_is_bounded_by_the_file(tmp_path: Path) -> None:
    contents = bytes(snappy.compress_raw(bytes(2**20)))
    assert len(contents) * 22 >= 2**20
    (tmp_path / "m.index").write_bytes(index([(b"z", contents)], compression=1))
    refused(tmp_path / "m", "not above the one before it|restarts", megabytes=24)


def test_tensorflow_reads_compressed_blocks_too(tmp_path: Path) -> None:
    """The other side of `snappy`: what is compressed as TensorFlow compresses is read as TensorFlow reads it."""
    from scripts.studies import damage

    from .conftest import assert_same, random_array, restore, save_v1, save_v2

    arrays = {f"w{i}": np.tile(random_array("float32", (20,), i), 5000) for i in range(9)}
    for path, table in (
        (save_v1(tmp_path / "v1", arrays),) * 2,
        (save_v2(tmp_path / "v2", arrays), tmp_path / "v2.index"),
    ):
        content = table.read_bytes()
        table.write_bytes(damage.compressed(content))
        assert table.read_bytes() != content
        restored = restore(path, arrays)
        checkpoint = open_checkpoint(path)
        for name, array in arrays.items():
            assert_same(checkpoint[name], array)
            assert_same(checkpoint[name], restored[name])
    assert Table(RawFile(tmp_path / "v1")).blocks
