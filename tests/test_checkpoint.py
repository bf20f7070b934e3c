"""Arrays are bit for bit what TensorFlow reads or holds, and damage is never silent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import pytest
from conftest import ROOT

from converters import CheckpointError, frameworks, open_checkpoint
from converters.checkpoint import table, wire, write_checkpoint

frameworks.import_nets()
import tensorflow.compat.v1 as tf

THIRD_PARTY = ROOT.parent / "shared" / "checkpoints"
NUMERIC = [
    "float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
]  # fmt: skip


def assert_same(ours: Any, theirs: Any, name: str = "") -> None:
    theirs = np.asarray(theirs)
    assert ours.dtype == theirs.dtype, name
    assert ours.shape == theirs.shape, name
    assert ours.tolist() == theirs.tolist() if theirs.dtype.kind == "O" else ours.tobytes() == theirs.tobytes(), name


def values(dtype: str, shape: tuple[int, ...]) -> Any:
    """Values of all sizes and signs, so that varints of every length appear."""
    numpy_dtype = tf.as_dtype(dtype).as_numpy_dtype
    generator = np.random.default_rng(len(shape))
    count = int(np.prod(shape))
    bits = generator.integers(0, 2**63, count).astype(np.uint64) >> generator.integers(0, 64, count).astype(np.uint64)
    if dtype.startswith(("int", "uint")):
        wide = bits.astype(np.int64) * generator.choice([-1, 1], count)
        return wide.astype(numpy_dtype).reshape(shape)
    if dtype == "bool":
        return (bits % 2 == 1).reshape(shape)
    real = generator.normal(0, 10, count)
    return (real + (1j * real[::-1] if dtype.startswith("complex") else 0)).astype(numpy_dtype).reshape(shape)


def save(path: Path, variables: dict[str, Any], file_format: str = "v2", sharded: bool = False) -> None:
    """TensorFlow's own Saver."""
    version = tf.train.SaverDef.V1 if file_format == "v1" else tf.train.SaverDef.V2
    with tf.Graph().as_default(), tf.Session() as session:
        made = [tf.Variable(value, name=name, use_resource=False) for name, value in variables.items()]
        session.run([v.initializer for v in made])
        saver = tf.train.Saver(made, write_version=version, sharded=sharded)
        saver.save(session, str(path), write_meta_graph=False)


def test_every_variable_of_a_network_is_what_tensorflow_reads(small_checkpoint: Path) -> None:
    reader = tf.train.load_checkpoint(str(small_checkpoint))
    checkpoint = open_checkpoint(small_checkpoint)
    assert set(checkpoint) == set(reader.get_variable_to_shape_map())
    for name, array in checkpoint.items():
        assert_same(array, reader.get_tensor(name), name)


@pytest.mark.parametrize("file_format", ["v1", "v2"])
def test_every_dtype_and_rank_is_what_the_session_held(file_format: str, tmp_path: Path) -> None:
    shapes = [(), (1,), (0,), (3, 1), (2, 0, 3), (1, 2, 3, 4), (2, 1, 2, 1, 2)]
    # TensorFlow's own V1 writer refuses these.
    absent = {"bfloat16", "uint32", "uint64"} if file_format == "v1" else set()
    variables = {
        f"{dtype}_{len(shape)}_{i}": values(dtype, shape)
        for dtype in NUMERIC
        if dtype not in absent
        for i, shape in enumerate(shapes)
        if file_format == "v2" or 0 not in shape
    }
    save(tmp_path / "all", variables, file_format)
    checkpoint = open_checkpoint(tmp_path / "all")
    assert checkpoint.format == file_format
    assert set(checkpoint) == set(variables)
    for name, value in variables.items():
        assert_same(checkpoint[name], value, name)
        assert checkpoint.variables[name].shape == value.shape
        assert checkpoint.variables[name].dtype == value.dtype


def test_strings_are_what_tensorflow_reads(tmp_path: Path) -> None:
    save(
        tmp_path / "s",
        {"many": np.array([[b"", b"a\x00b"], [b"x" * 300, "ü".encode()]], object), "one": np.array(b"q", object)},
    )
    checkpoint = open_checkpoint(tmp_path / "s")
    reader = tf.train.load_checkpoint(str(tmp_path / "s"))
    for name in ("many", "one"):
        assert checkpoint[name].tolist() == np.asarray(reader.get_tensor(name), object).tolist()


@pytest.mark.parametrize("file_format", ["v1", "v2"])
@pytest.mark.parametrize("sharded", [False, True])
def test_partitioned_variables_are_put_together(file_format: str, sharded: bool, tmp_path: Path) -> None:
    whole = {"rows": values("float32", (130, 5)), "columns": values("float64", (3, 200))}
    version = tf.train.SaverDef.V1 if file_format == "v1" else tf.train.SaverDef.V2
    with tf.Graph().as_default(), tf.Session() as session:
        for name, axis in (("rows", 0), ("columns", 1)):
            tf.get_variable(
                name,
                initializer=tf.constant(whole[name]),
                partitioner=tf.fixed_size_partitioner(3, axis=axis),
                use_resource=False,
            )
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(write_version=version, sharded=sharded)
        saver.save(session, str(tmp_path / "p"), write_meta_graph=False)
    checkpoint = open_checkpoint(tmp_path / "p")
    assert set(checkpoint) == {"rows", "columns"}
    for name, value in whole.items():
        assert_same(checkpoint[name], value, name)


def test_a_bundle_of_several_shards(tmp_path: Path) -> None:
    variables = {f"v{i}": values("float32", (i + 1, 3)) for i in range(6)}
    parts = [dict(list(variables.items())[i::3]) for i in range(3)]
    for i, part in enumerate(parts):
        save(tmp_path / f"part{i}", part)
    with tf.Graph().as_default(), tf.Session() as session:
        prefixes = [str(tmp_path / f"part{i}") for i in range(3)]
        session.run(
            tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=prefixes, destination_prefix=str(tmp_path / "merged"))
        )
    checkpoint = open_checkpoint(tmp_path / "merged")
    assert len(checkpoint.files) == 4
    for name, value in variables.items():
        assert_same(checkpoint[name], value, name)


def test_object_based_checkpoints_and_saved_models(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("w", initializer=tf.constant(values("float32", (2, 3))), use_resource=True)
        session.run(variable.initializer)
        tf.saved_model.simple_save(
            session, str(tmp_path / "model"), {"x": tf.placeholder(tf.float32)}, {"y": variable * 1}
        )
    checkpoint = open_checkpoint(tmp_path / "model")
    assert_same(checkpoint["w"], values("float32", (2, 3)))


@pytest.mark.skipif(not THIRD_PARTY.is_dir(), reason="the third-party checkpoints are not here")
@pytest.mark.parametrize(
    "path", ["v1_safe/safe_model.ckpt", "v1_video/video_weights.ckpt", "v2_carnd/model.ckpt", "v2_lfads/model-65000"]
)
def test_checkpoints_that_other_peoples_tensorflow_wrote(path: str) -> None:
    reader = tf.train.load_checkpoint(str(THIRD_PARTY / path))
    checkpoint = open_checkpoint(THIRD_PARTY / path)
    assert set(checkpoint) == set(reader.get_variable_to_shape_map())
    for name, array in checkpoint.items():
        assert_same(array, reader.get_tensor(name), name)


def test_what_a_user_points_at(small_v2: Path) -> None:
    names = set(open_checkpoint(small_v2))
    for source in (f"{small_v2}.index", f"{small_v2}.meta", f"{small_v2}.data-00000-of-00001"):
        assert set(open_checkpoint(source)) == names
    directory = small_v2.parent
    (directory / "checkpoint").write_text(
        'model_checkpoint_path: "small.ckpt"\nall_model_checkpoint_paths: "small.ckpt"\n'
    )
    assert set(open_checkpoint(directory)) == names
    # The path that training wrote is absolute, and of another machine.
    (directory / "checkpoint").write_text('model_checkpoint_path: "/gone/run/small.ckpt"\n')
    assert set(open_checkpoint(directory)) == names
    (directory / "checkpoint").unlink()


def test_arrays_are_read_only_views_that_outlive_the_checkpoint(small_checkpoint: Path) -> None:
    with open_checkpoint(small_checkpoint) as checkpoint:
        array = checkpoint["resnet_v2/conv1/weights"]
        copy = array.copy()
    assert not array.flags.writeable
    assert not array.flags.owndata
    np.testing.assert_array_equal(array, copy)
    with pytest.raises(KeyError):
        open_checkpoint(small_checkpoint)["nothing"]


def test_a_stream_gives_what_access_by_name_gives(small_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(small_checkpoint)
    for name, array in checkpoint.stream():
        assert_same(array, checkpoint[name], name)


def test_tensorflow_restores_what_is_written(tmp_path: Path) -> None:
    variables = {
        f"{dtype}/{len(shape)}": values(dtype, shape) for dtype in NUMERIC for shape in [(), (4,), (2, 3, 4), (0, 2)]
    }
    # Prefixes of each other, and enough of them for several blocks.
    variables |= {f"many/{'x' * (i % 50)}{i}": values("float32", (i % 7,)) for i in range(500)}
    write_checkpoint(tmp_path / "ours", variables)
    with tf.Graph().as_default(), tf.Session() as session:
        made = {
            name: tf.Variable(np.zeros_like(value), name="v", use_resource=False) for name, value in variables.items()
        }
        tf.train.Saver(made).restore(session, str(tmp_path / "ours"))
        restored = session.run(made)
    checkpoint = open_checkpoint(tmp_path / "ours")
    for name, value in variables.items():
        assert_same(restored[name], value, name)
        assert_same(checkpoint[name], value, name)


def damaged(content: bytes, generator: np.random.Generator) -> Iterator[bytes]:
    for place in generator.integers(len(content), size=120):
        flipped = bytearray(content)
        flipped[place] ^= 1 << generator.integers(8)
        yield bytes(flipped)
    for place in generator.integers(len(content), size=30):
        yield content[:place]
        yield content[:place] + bytes(min(64, len(content) - place)) + content[place + 64 :]


@pytest.mark.parametrize(("file_format", "suffix"), [("v1", ""), ("v2", ".index"), ("v2", ".data-00000-of-00001")])
def test_no_damage_is_silent(file_format: str, suffix: str, tmp_path: Path) -> None:
    variables = {
        "a/weights": values("float32", (3, 3, 2, 4)),
        "a/biases": values("float32", (4,)),
        "step": values("int64", ()),
    }
    path = tmp_path / "c"
    save(path, variables, file_format)
    file = Path(f"{path}{suffix}")
    content = file.read_bytes()
    messages = []
    for bad in damaged(content, np.random.default_rng(0)):
        file.write_bytes(bad)
        try:
            checkpoint = open_checkpoint(path)
            for name in checkpoint:
                assert_same(checkpoint[name], variables[name], name)
            assert set(checkpoint) == set(variables)
        except CheckpointError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all("\n" not in message and str(path) in message for message in messages)


def forge(prefix: Path, header: bytes, entry: bytes) -> None:
    """An index of one variable `w` whose checksums are right."""
    Path(f"{prefix}.index").write_bytes(table.build_table([(b"", header), (b"w", entry)]))


def bundle_entry(shape: int, offset: int = 0, size: int = 16, shard: int = 0) -> bytes:
    return (
        wire.encode_number(1, 1)
        + wire.encode_message(2, wire.encode_message(2, wire.encode_number(1, shape)))
        + wire.encode_number(3, shard)
        + wire.encode_number(4, offset)
        + wire.encode_number(5, size)
        + wire.encode_fixed32(6, table.mask(crc32c.crc32c(bytes(16))))
    )


ONE_SHARD = wire.encode_number(1, 1)


@pytest.mark.parametrize(
    ("header", "entry", "message"),
    [
        (ONE_SHARD, bundle_entry(2**60), "do not hold float32 of shape"),
        (ONE_SHARD, bundle_entry(2**62, size=2**64 - 1), "needs 18446744073709551615 bytes"),
        (ONE_SHARD, bundle_entry(4, offset=2**63), "needs 16 bytes, and the file has only 16"),
        (ONE_SHARD, bundle_entry(4, shard=1), "shard 1 of 1"),
        (ONE_SHARD, bundle_entry(2**64 - 4), "a side of -4"),
        (ONE_SHARD + wire.encode_number(2, 1), bundle_entry(4), "big-endian"),
        (wire.encode_number(1, 2**40), bundle_entry(4), "1099511627776 shards"),
        (ONE_SHARD, b"\x80" * 11, "damaged entry of w"),
    ],
)
def test_forged_bundles_whose_checksums_are_right_are_refused(
    header: bytes, entry: bytes, message: str, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "c", {"w": np.zeros(4, np.float32)})
    forge(tmp_path / "c", ONE_SHARD, bundle_entry(4))
    assert open_checkpoint(tmp_path / "c")["w"].tolist() == [0, 0, 0, 0]
    forge(tmp_path / "c", header, entry)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "c")["w"]


def test_a_missing_shard_is_named(small_v2: Path, tmp_path: Path) -> None:
    (tmp_path / "c.index").write_bytes(Path(f"{small_v2}.index").read_bytes())
    checkpoint = open_checkpoint(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"c\.data-00000-of-00001: cannot be read"):
        checkpoint["resnet_v2/conv1/weights"]
