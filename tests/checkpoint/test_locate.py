"""What a user points at is found, and what could mean two things is not guessed."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

from converters import CheckpointError, inspect
from converters.checkpoint import full_names, object_graph, open_checkpoint, write_checkpoint

from .conftest import assert_same, random_array, save_v1, save_v2

W = random_array("float32", (3, 2))


def holds(source: Path | str, value: object = W, step: int | None = None) -> bool:
    with open_checkpoint(source, step) as checkpoint:
        assert_same(checkpoint["w"], value)
    return True


def test_any_file_of_a_v2_checkpoint_and_the_graph_beside_it(tmp_path: Path) -> None:
    prefix = save_v2(tmp_path / "model.ckpt-7", {"w": W})
    Path(f"{prefix}.meta").write_bytes(b"a graph")
    for suffix in ("", ".index", ".meta", ".data-00000-of-00001"):
        assert holds(f"{prefix}{suffix}")
    checkpoint = open_checkpoint(f"{prefix}.meta")
    assert checkpoint.path == prefix
    assert checkpoint.files == (Path(f"{prefix}.index"), Path(f"{prefix}.data-00000-of-00001"))


def test_a_v1_file_its_graph_and_any_of_its_shards(tmp_path: Path) -> None:
    one = save_v1(tmp_path / "one.ckpt", {"w": W})
    Path(f"{one}.meta").write_bytes(b"a graph")
    assert holds(one)
    assert holds(f"{one}.meta")
    shards = [save_v1(tmp_path / f"s-{i:05d}-of-00002", {"wv"[i]: W}) for i in range(2)]
    Path(tmp_path / "s.meta").write_bytes(b"a graph")
    for source in (tmp_path / "s", tmp_path / "s-?????-of-?????", tmp_path / "s.meta", *shards):
        assert holds(source)
        assert open_checkpoint(source).files == tuple(shards)


def test_a_training_run_that_saved_v1_in_shards(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        made = v1.get_variable("w", initializer=W)
        session.run(made.initializer)
        saver = v1.train.Saver(write_version=v1.train.SaverDef.V1, sharded=True)
        named = saver.save(session, str(tmp_path / "m"), global_step=5)
    assert named.endswith("m-5-?????-of-00001")
    assert holds(named)
    assert holds(tmp_path)
    assert holds(tmp_path, step=5)
    with pytest.raises(CheckpointError, match="no such file"):
        open_checkpoint(tmp_path / "m-6-?????-of-00001")


def test_shards_of_two_saves_under_one_name_are_not_mixed(tmp_path: Path) -> None:
    save_v1(tmp_path / "s-00000-of-00001", {"w": -W})
    for i in range(2):
        save_v1(tmp_path / f"s-{i:05d}-of-00002", {"wv"[i]: W})
    with pytest.raises(CheckpointError, match=r"2 checkpoints: s-\?{5}-of-00001, s-\?{5}-of-00002; name one"):
        open_checkpoint(tmp_path / "s")
    assert holds(tmp_path / "s-?????-of-00002")
    assert holds(tmp_path / "s-00001-of-00002")
    assert holds(tmp_path / "s-00000-of-00001", -W)


def test_the_newest_of_a_directory_or_the_step_asked_for(tmp_path: Path) -> None:
    model = tf.train.Checkpoint(v=tf.Variable(1.0))
    manager = tf.train.CheckpointManager(model, str(tmp_path), max_to_keep=3)
    for step in (10, 20, 30):
        model.v.assign(step)
        manager.save(step)
    key = "v/.ATTRIBUTES/VARIABLE_VALUE"
    assert open_checkpoint(tmp_path)[key] == 30
    assert open_checkpoint(tmp_path / "checkpoint")[key] == 30
    assert open_checkpoint(tmp_path, step=20)[key] == 20
    assert open_checkpoint(tmp_path / "ckpt", step=10)[key] == 10
    with pytest.raises(CheckpointError, match="no checkpoint of step 40; there are: ckpt-10, ckpt-20, ckpt-30"):
        open_checkpoint(tmp_path, step=40)
    with pytest.raises(CheckpointError, match="no such file, and no checkpoint of this prefix; there are: ckpt-10"):
        open_checkpoint(tmp_path / "ckpt")


@pytest.mark.parametrize(
    "named", ["m-1", "/gone/run/m-1", "./m-1"], ids=["relative", "of another machine", "with a dot"]
)
def test_a_checkpoint_file_wherever_it_was_written(named: str, tmp_path: Path) -> None:
    save_v2(tmp_path / "m-1", {"w": W})
    save_v2(tmp_path / "m-2", {"w": -W})
    (tmp_path / "checkpoint").write_text(
        f'model_checkpoint_path: "{named}"\nall_model_checkpoint_paths: "m-2"\nall_model_checkpoint_paths: "{named}"\n'
    )
    assert holds(tmp_path)


@pytest.mark.parametrize("as_utf8", [True, False])
def test_a_checkpoint_file_that_protobuf_escaped(as_utf8: bool, tmp_path: Path) -> None:
    prefix = save_v2(tmp_path / 'größe "x"\\n', {"w": W})
    save_v2(tmp_path / "other", {"w": -W})
    state = CheckpointState(model_checkpoint_path=prefix.name)
    text = text_format.MessageToString(state, as_utf8=as_utf8)
    assert ("\\303" in text) != as_utf8
    (tmp_path / "checkpoint").write_text(text)
    assert holds(tmp_path)


def test_a_checkpoint_file_that_names_what_is_gone(tmp_path: Path) -> None:
    save_v2(tmp_path / "m-1", {"w": W})
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "m-2"\n')
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.path.name == "m-1"
        assert checkpoint.note == "its 'checkpoint' file names m-2, which is not there: m-1 was read"
    save_v2(tmp_path / "m-3", {"w": W})
    with pytest.raises(CheckpointError, match="names m-2, which is not there; there are: m-1, m-3"):
        open_checkpoint(tmp_path)
    (tmp_path / "checkpoint").write_text("nothing\n")
    with pytest.raises(CheckpointError, match="names no checkpoint"):
        open_checkpoint(tmp_path)


def test_a_directory_without_a_checkpoint_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in it"):
        open_checkpoint(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(CheckpointError, match="a directory without a checkpoint"):
        open_checkpoint(tmp_path)
    save_v1(tmp_path / "resnet.ckpt", {"w": W})
    assert holds(tmp_path)
    (tmp_path / "resnet.ckpt").rename(tmp_path / "resnet.ckpt-00000-of-00001")
    assert holds(tmp_path)
    save_v2(tmp_path / "other", {"w": W})
    with pytest.raises(CheckpointError, match=r"2 checkpoints: other, resnet\.ckpt; name one of them"):
        open_checkpoint(tmp_path)


def test_both_formats_under_one_name_are_not_guessed_between(tmp_path: Path) -> None:
    save_v1(tmp_path / "m", {"w": -W})
    save_v2(tmp_path / "m", {"w": W})
    with pytest.raises(CheckpointError, match=r"2 checkpoints: m, m\.index; name m\.index for the V2 one"):
        open_checkpoint(tmp_path / "m")
    assert holds(tmp_path / "m.index")


def test_a_saved_model_and_its_object_graph(tmp_path: Path) -> None:
    module = tf.Module()
    module.layer = tf.Module()
    module.layer.kernel = tf.Variable(W, name="resnet/kernel")
    tf.saved_model.save(module, str(tmp_path / "model"))
    assert set(open_checkpoint(tmp_path / "model" / "saved_model.pb")) == set(open_checkpoint(tmp_path / "model"))
    checkpoint = open_checkpoint(tmp_path / "model")
    key = "layer/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    assert_same(checkpoint[key], W)
    assert full_names(checkpoint)[key] == "resnet/kernel"
    graph = object_graph(checkpoint)
    kernel = graph[graph[graph[0].children["layer"]].children["kernel"]]
    assert [attribute.checkpoint_key for attribute in kernel.attributes] == [key]


def test_names_in_the_attributes_of_a_hub_module_are_known_without_the_data(tmp_path: Path) -> None:
    names = ("MobilenetV2/Conv/weights:0", "a.S/b..c:0")
    module = tf.Module()
    module.layer = tf.Module()
    for name in names:
        setattr(module.layer, name, tf.Variable(W))
    prefix = tf.train.Checkpoint(layer=module.layer).write(str(tmp_path / "hub"))
    keys = {
        "layer/MobilenetV2.SConv.Sweights:0/.ATTRIBUTES/VARIABLE_VALUE": "MobilenetV2/Conv/weights",
        "layer/a..S.Sb....c:0/.ATTRIBUTES/VARIABLE_VALUE": "a.S/b..c",
    }
    assert full_names(open_checkpoint(prefix)).items() >= keys.items()
    (tmp_path / "hub.data-00000-of-00001").unlink()
    checkpoint = open_checkpoint(f"{prefix}.index")
    assert full_names(checkpoint) == keys
    assert object_graph(checkpoint) == ()
    assert set(inspect(f"{prefix}.index").names) >= set(keys.values())


def test_slots_of_an_optimizer_in_the_object_graph(tmp_path: Path) -> None:
    variable = tf.Variable(W, name="w")
    optimizer = tf.compat.v1.train.MomentumOptimizer(0.1, 0.9)
    optimizer.apply_gradients([(tf.ones_like(variable), variable)])
    path = tf.train.Checkpoint(v=variable, opt=optimizer).save(str(tmp_path / "c"))
    checkpoint = open_checkpoint(path)
    ((variable_node, slot_name, slot_node),) = (slot for node in object_graph(checkpoint) for slot in node.slots)
    assert slot_name == "momentum"
    graph = object_graph(checkpoint)
    assert graph[variable_node].attributes[0].full_name == "w"
    assert_same(checkpoint[graph[slot_node].attributes[0].checkpoint_key], optimizer.get_slot(variable, "momentum"))


def test_an_object_graph_that_is_none(tmp_path: Path) -> None:
    key = "_CHECKPOINTABLE_OBJECT_GRAPH"
    assert object_graph(open_checkpoint(save_v2(tmp_path / "m", {"w": W}))) == ()
    for array, message in (
        (W, "not one string"),
        (np.array(b"\x0a\xff", object), "damaged: "),
        (np.array(b"\x0a\x04\x0a\x02\x08\x05", object), "damaged: object 5 of 1"),
    ):
        write_checkpoint(tmp_path / "g", {key: array})
        with pytest.raises(CheckpointError, match=message):
            object_graph(open_checkpoint(tmp_path / "g"))


def test_a_variable_that_no_array_holds_leaves_the_others_readable(tmp_path: Path) -> None:
    iterator = iter(tf.data.Dataset.range(5))
    path = tf.train.Checkpoint(iterator=iterator, v=tf.Variable(W)).save(str(tmp_path / "c"))
    checkpoint = open_checkpoint(path)
    assert_same(checkpoint["v/.ATTRIBUTES/VARIABLE_VALUE"], W)
    (state,) = (variable for variable in checkpoint.variables.values() if variable.dtype.kind == "V")
    with pytest.raises(CheckpointError, match=r"ITERATOR.* is a variant"):
        checkpoint[state.name]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    prefix = save_v2(tmp_path / "m", {"w": W})
    with pytest.raises(CheckpointError, match="no such file"):
        open_checkpoint(tmp_path / "nothing")
    data = Path(f"{prefix}.data-00000-of-00001")
    shutil.move(data, tmp_path / "kept")
    # What it holds is known without the data.
    checkpoint = open_checkpoint(prefix)
    assert checkpoint.variables["w"].shape == (3, 2)
    with pytest.raises(CheckpointError, match=r"m\.data-00000-of-00001: cannot be read: No such file"):
        checkpoint["w"]
    shutil.move(tmp_path / "kept", data)
    Path(f"{prefix}.index").unlink()
    with pytest.raises(CheckpointError, match=r"m\.index is not beside it"):
        open_checkpoint(data)
    save_v1(tmp_path / "s-00000-of-00002", {"w": W})
    with pytest.raises(CheckpointError, match="its shards are not all there: found 1 of 2"):
        open_checkpoint(tmp_path / "s")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not end in a table's footer"),
        (b"just text\n" * 20, "does not end in a table's footer"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(100), "a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"<!DOCTYPE html><html>" + bytes(100), "a web page"),
        (np.random.default_rng(0).bytes(9000), "look random, as encrypted"),
    ],
)
def test_what_a_file_is_instead_is_said(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "f.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "f.ckpt")


@pytest.mark.parametrize("source", ["\0", "x" * 5000, "a\nb", "", "/dev/null", "/dev/zero"])
def test_any_other_path_is_one_line_of_error(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as raised:
        open_checkpoint(source)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("filler", ["\n", " ", 'model_checkpoint_path: "', "\\", "model_checkpoint_path:\n"])
def test_a_checkpoint_file_of_a_megabyte_takes_no_time(filler: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text(filler * (2**20 // len(filler)))
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match=r"names no checkpoint|which is not there"):
        open_checkpoint(tmp_path)
    assert time.perf_counter() - began < 2
