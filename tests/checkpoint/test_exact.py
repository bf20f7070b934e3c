"""Every array is, bit for bit, what TensorFlow held in memory when it wrote the file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.checkpoint import open_checkpoint

from .conftest import SAVE, THIRD_PARTY, V1_DTYPES, V2_DTYPES, assert_same, random_array, restore, save_v1, save_v2

FORMATS = ["v1", "v2"]
DTYPES = {"v1": [*V1_DTYPES, "string"], "v2": [*V2_DTYPES, "string"]}
SHAPES = [(), (1,), (7,), (0,), (3, 1), (2, 0, 3), (1, 2, 3, 4), (2, 1, 2, 1, 2), (1, 2, 1, 2, 1, 3)]


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_dtype_and_rank(file_format: str, tmp_path: Path) -> None:
    arrays = {
        f"{dtype}/{'x'.join(map(str, shape))}": random_array(dtype, shape, seed)
        for seed, (dtype, shape) in enumerate(itertools.product(DTYPES[file_format], SHAPES))
    }
    SAVE[file_format](tmp_path / "all", arrays)
    checkpoint = open_checkpoint(tmp_path / "all")
    assert checkpoint.format == file_format
    assert list(checkpoint) == sorted(arrays)
    for name, array in arrays.items():
        assert_same(checkpoint[name], array, name)
        assert checkpoint.variables[name].shape == array.shape
        assert checkpoint.variables[name].dtype == array.dtype


@pytest.mark.parametrize("dtype", [tf.qint8, tf.quint8, tf.qint32])
@pytest.mark.parametrize("file_format", FORMATS)
def test_quantized_values_are_the_integers_that_hold_them(file_format: str, dtype: Any, tmp_path: Path) -> None:
    integers = np.array([0, 1, 100, -1 if dtype.name.startswith("q") else 255]).astype(dtype.name.lstrip("q"))
    tensor = tf.bitcast(tf.constant(integers), dtype)
    if file_format == "v1":
        tf.raw_ops.SaveSlices(filename=str(tmp_path / "q"), tensor_names=["q"], shapes_and_slices=[""], data=[tensor])
    else:
        tf.raw_ops.SaveV2(prefix=str(tmp_path / "q"), tensor_names=["q"], shape_and_slices=[""], tensors=[tensor])
    assert_same(open_checkpoint(tmp_path / "q")["q"], integers)


@pytest.mark.parametrize("file_format", FORMATS)
def test_thousands_of_variables_with_names_in_common(file_format: str, tmp_path: Path) -> None:
    arrays = {
        f"scope/{'unit_' * (i % 7)}{i // 3}/{'w' * (i % 60)}": random_array("float32", (i % 5, 2), i)
        for i in range(4000)
    }
    SAVE[file_format](tmp_path / "many", arrays)
    checkpoint = open_checkpoint(tmp_path / "many")
    assert list(checkpoint) == sorted(arrays)
    for name, array in checkpoint.stream():
        assert_same(array, arrays[name], name)


@pytest.mark.parametrize("file_format", FORMATS)
def test_names_longer_than_a_block(file_format: str, tmp_path: Path) -> None:
    # TensorFlow's blocks are of 256 KiB.
    arrays = {"n" * length: random_array("int32", (3,), length) for length in (1, 300_000, 300_001, 600_000)}
    arrays |= {"n" * 300_000 + f"/{i}": random_array("int32", (3,), i) for i in range(20)}
    SAVE[file_format](tmp_path / "long", arrays)
    checkpoint = open_checkpoint(tmp_path / "long")
    assert list(checkpoint) == sorted(arrays)
    for name, array in arrays.items():
        assert_same(checkpoint[name], array)


@pytest.mark.parametrize("file_format", FORMATS)
def test_variables_of_many_blocks(file_format: str, tmp_path: Path) -> None:
    arrays = {f"w{i}": random_array("float32", (200_000 * (i % 3) + 1,), i) for i in range(12)}
    SAVE[file_format](tmp_path / "large", arrays)
    for name, array in open_checkpoint(tmp_path / "large").items():
        assert_same(array, arrays[name], name)


# Anything but lone surrogates, which no file can hold, often with a beginning in common.
LETTERS = st.characters(codec="utf-8")
PARTS = st.text(LETTERS, min_size=1, max_size=12) | st.sampled_from(["a", "a/b", "\0", "ÿ\xff", "\n"])
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
SIDES = st.lists(st.integers(0, 3), max_size=6)


@pytest.mark.parametrize("file_format", FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_variables_there_are(file_format: str, data: st.DataObject, tmp_path: Path) -> None:
    kinds = st.tuples(st.sampled_from(DTYPES[file_format]), SIDES, st.integers(0, 2**32))
    drawn = data.draw(st.dictionaries(NAMES, kinds, min_size=1, max_size=12))
    arrays = {name: random_array(*kind) for name, kind in drawn.items()}
    SAVE[file_format](tmp_path / "any", arrays)
    checkpoint = open_checkpoint(tmp_path / "any")
    assert list(checkpoint) == sorted(arrays, key=str.encode)
    restored = restore(tmp_path / "any", arrays)
    for name, array in arrays.items():
        assert_same(checkpoint[name], array, name)
        assert_same(checkpoint[name], restored[name], name)


# How a variable of 10 by 6 is cut: (shape, then start,length for each side or - for all of it).
CUTS = {
    "rows": ["10 6 0,3:-", "10 6 3,3:-", "10 6 6,4:-"],
    "columns": ["10 6 -:0,1", "10 6 -:1,5"],
    "both": ["10 6 0,4:0,3", "10 6 4,6:0,3", "10 6 0,4:3,3", "10 6 4,6:3,3"],
}


def cut(array: Any, spec: str) -> Any:
    extents = spec.split(" ")[-1].split(":")
    bounds = [None if e == "-" else tuple(map(int, e.split(","))) for e in extents]
    return array[tuple(slice(None) if b is None else slice(b[0], b[0] + b[1]) for b in bounds)]


@pytest.mark.parametrize("dtype", ["float32", "int64", "complex64", "bool"])
@pytest.mark.parametrize("how", CUTS)
def test_a_partitioned_v2_variable_is_what_tensorflow_puts_together(how: str, dtype: str, tmp_path: Path) -> None:
    whole = random_array(dtype, (10, 6))
    parts = []
    for i, spec in enumerate(CUTS[how]):
        # One bundle each, as parameter servers write them.
        parts.append(str(save_v2(tmp_path / f"part{i}", {"w": cut(whole, spec), f"b{i}": whole[0]}, [spec, ""])))
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(tmp_path / "merged"))
    checkpoint = open_checkpoint(tmp_path / "merged")
    assert list(checkpoint) == [*(f"b{i}" for i in range(len(parts))), "w"]
    assert len(checkpoint.files) == 1 + len(parts)
    assert_same(checkpoint["w"], whole)
    assert_same(checkpoint["w"], restore(tmp_path / "merged", {"w": whole})["w"])
    assert_same(checkpoint["b1"], whole[0])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "complex128"])
@pytest.mark.parametrize("how", CUTS)
def test_a_partitioned_v1_variable_in_one_file_and_in_shards(how: str, dtype: str, tmp_path: Path) -> None:
    whole = random_array(dtype, (10, 6))
    specs = CUTS[how]
    for i, spec in enumerate(specs):
        save_v1(tmp_path / f"s-{i:05d}-of-{len(specs):05d}", {"w": cut(whole, spec), f"b{i}": whole[0]}, [spec, ""])
    checkpoint = open_checkpoint(tmp_path / "s")
    assert (checkpoint.format, len(checkpoint.files)) == ("v1", len(specs))
    assert_same(checkpoint["w"], whole)
    assert_same(checkpoint["b0"], whole[0])
    # TensorFlow saves a variable once an op, so one file of several slices takes names that differ in the list only.
    tf.raw_ops.SaveSlices(
        filename=str(tmp_path / "one"),
        tensor_names=["w"] * len(specs),
        shapes_and_slices=specs,
        data=[tf.constant(cut(whole, spec)) for spec in specs],
    )
    assert_same(open_checkpoint(tmp_path / "one")["w"], whole)


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, ...], list[list[tuple[int, int]]]]:
    """A shape, and the cells that cuts across every side make, as (start, length) for each side."""
    sides = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    cuts = [sorted({0, side, *draw(st.lists(st.integers(1, side), max_size=3))}) for side in sides]
    spans = [[(start, end - start) for start, end in itertools.pairwise(at)] for at in cuts]
    return tuple(sides), draw(st.permutations([list(cell) for cell in itertools.product(*spans)]))


@pytest.mark.parametrize("file_format", FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(grid=grids(), dtype=st.sampled_from(["float32", "int16", "bool"]))
def test_a_variable_cut_in_any_way(
    file_format: str, grid: tuple[tuple[int, ...], list[list[tuple[int, int]]]], dtype: str, tmp_path: Path
) -> None:
    shape, cells = grid
    whole = random_array(dtype, shape)
    specs = [f"{' '.join(map(str, shape))} {':'.join(f'{start},{length}' for start, length in cell)}" for cell in cells]
    parts = [tf.constant(whole[tuple(slice(start, start + length) for start, length in cell)]) for cell in cells]
    names = ["w"] * len(cells)
    if file_format == "v1":
        tf.raw_ops.SaveSlices(filename=str(tmp_path / "w"), tensor_names=names, shapes_and_slices=specs, data=parts)
    else:
        tf.raw_ops.SaveV2(prefix=str(tmp_path / "w"), tensor_names=names, shape_and_slices=specs, tensors=parts)
    checkpoint = open_checkpoint(tmp_path / "w")
    assert list(checkpoint) == ["w"]
    assert_same(checkpoint["w"], whole)
    assert_same(checkpoint["w"], restore(tmp_path / "w", {"w": whole})["w"])


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("start", [63, 64, 127, 128, 8191, 8192, 2**20])
def test_a_slice_that_begins_where_its_key_takes_another_byte(file_format: str, start: int, tmp_path: Path) -> None:
    whole = random_array("int8", (start + 3,))
    parts = {f"{start + 3} 0,{start}": whole[:start], f"{start + 3} {start},3": whole[start:]}
    common = {"tensor_names": ["w", "w"]}
    if file_format == "v1":
        tf.raw_ops.SaveSlices(
            filename=str(tmp_path / "w"), shapes_and_slices=[*parts], data=[*parts.values()], **common
        )
    else:
        tf.raw_ops.SaveV2(prefix=str(tmp_path / "w"), shape_and_slices=[*parts], tensors=[*parts.values()], **common)
    assert_same(open_checkpoint(tmp_path / "w")["w"], whole)


def test_strings_of_every_length(tmp_path: Path) -> None:
    strings = np.array([[b"", b"a\x00b"], [b"x" * 70_000, "ü".encode()]], object)
    for file_format, save in SAVE.items():
        save(tmp_path / file_format, {"s": strings, "one": np.array(b"q", object)})
        checkpoint = open_checkpoint(tmp_path / file_format)
        assert_same(checkpoint["s"], strings)
        assert checkpoint["one"].shape == ()
        assert checkpoint["one"].item() == b"q"


def test_a_session_s_own_values(tmp_path: Path) -> None:
    """Not what the file should hold, but what the session held."""
    v1 = tf.compat.v1
    for version, name in ((v1.train.SaverDef.V1, "v1"), (v1.train.SaverDef.V2, "v2")):
        with tf.Graph().as_default(), v1.Session() as session:
            v1.get_variable("a/w", (5, 3), initializer=v1.random_normal_initializer(seed=1))
            v1.get_variable("step", (), tf.int64, initializer=v1.constant_initializer(7))
            v1.get_variable(
                "cut", (9, 2), initializer=v1.random_normal_initializer(seed=2),
                partitioner=v1.fixed_size_partitioner(4), use_resource=False,
            )  # fmt: skip
            session.run(v1.global_variables_initializer())
            saver = v1.train.Saver(write_version=version, sharded=True)
            saver.save(session, str(tmp_path / name), write_meta_graph=False)
            held = session.run({v.op.name: v for v in v1.global_variables()})
        checkpoint = open_checkpoint(tmp_path / name)
        assert set(checkpoint) == {"a/w", "step", "cut"}
        assert_same(checkpoint["a/w"], held["a/w"])
        assert_same(checkpoint["step"], held["step"])
        assert_same(checkpoint["cut"], np.concatenate([held[f"cut/part_{i}"] for i in range(4)]))


@pytest.mark.skipif(not THIRD_PARTY.is_dir(), reason="the third-party checkpoints are not here")
@pytest.mark.parametrize(
    "path", ["v1_safe/safe_model.ckpt", "v1_video/video_weights.ckpt", "v2_carnd/model.ckpt", "v2_lfads/model-65000"]
)
def test_checkpoints_that_other_people_s_tensorflow_wrote(path: str) -> None:
    reader = tf.train.load_checkpoint(str(THIRD_PARTY / path))
    checkpoint = open_checkpoint(THIRD_PARTY / path)
    assert list(checkpoint) == sorted(reader.get_variable_to_shape_map())
    for name, array in checkpoint.items():
        assert_same(array, reader.get_tensor(name), name)
