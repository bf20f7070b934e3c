"""What an adversary may alter without touching weights or end points, and what cannot be measured at all."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, SMALL_NETWORKS, TRACE_SIZE, random_weights

from converters import convert, load_keras, load_pytorch, verify
from converters.checkpoint import write_checkpoint
from converters.errors import InputError
from converters.parity import tf_slim
from converters.parity.ports.keras import KerasPort
from converters.parity.ports.slim import SlimPort
from converters.parity.reference import all_arguments
from converters.parity.tracing import open_trace
from converters.weights.source import Source, open_source
from scripts.make_checkpoint import save_without_tensorflow
from scripts.studies.wrong_files import Altered


def other(report: Any) -> list[str]:
    """What the model returns that is not the network's output; its end points are all right."""
    rows = [row for each in report.by_dtype.values() for row in each.returned_beyond]
    assert not [row for each in report.by_dtype.values() for row in each.beyond]
    assert not report.ok
    return list(dict.fromkeys(row.name for row in rows))


@pytest.mark.parametrize(("first", "what"), [(False, "the model's output"), (True, "what end_points returns first")])
def test_a_module_that_returns_something_else_is_different(
    first: bool, what: str, small_v2: Path, small_trace: Path
) -> None:
    model = Altered(load_pytorch(small_v2), first=first)
    assert other(verify(small_v2, model, reference=small_trace)) == [what]
    report = verify(small_v2, model.network, reference=small_trace)
    assert report.ok
    assert len(report.by_dtype["float64"].returned) == 2


def test_a_keras_model_that_adds_to_its_logits_is_different(small_v2: Path, small_trace: Path) -> None:
    import keras

    model = load_keras(small_v2)
    altered = keras.Model(model.inputs, model.output + 5.0, name=model.name)
    assert other(verify(small_v2, altered, reference=small_trace)) == ["the model's output"]


def test_an_onnx_file_with_a_negation_behind_the_logits_is_different(
    small_v2: Path, small_trace: Path, tmp_path: Path
) -> None:
    import onnx

    convert(small_v2, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    (output,) = model.graph.output
    model.graph.node.append(onnx.helper.make_node("Neg", [output.name], ["negated"]))
    output.name = "negated"
    onnx.save(model, tmp_path / "m.onnx")
    report = verify(small_v2, tmp_path / "m.onnx", reference=small_trace)
    assert list(report.by_dtype) == ["float32"]
    assert not report.ok
    assert [row.name for row in report.by_dtype["float32"].returned_beyond] == ["the model's output"]


def test_a_keras_file_that_computes_in_half_precision_is_different(
    small_v2: Path, small_trace: Path, tmp_path: Path
) -> None:
    convert(small_v2, tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "Conv2D":
            layer["config"]["dtype"]["config"]["name"] = "mixed_float16"
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    report = verify(small_v2, tmp_path / "m.keras", reference=small_trace)
    assert not report.ok
    assert "it computes in mixed_float16" in report.settings_different[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_where_the_judge_has_no_numbers_nothing_is_proven(value: float, tmp_path: Path, slimport: Any) -> None:
    weights = random_weights(SMALL)
    weights["logits/biases"][0] = value
    write_checkpoint(tmp_path / "c", {f"net/{name}": array for name, array in weights.items()})
    run = slimport("verify", tmp_path / "c", "--size", "33", "--json")
    assert (run.code, run.out, run.err.count("\n")) == (2, "", 1)
    assert "could not be measured: in the judge itself net/logits is not finite" in run.err


def test_what_overflows_in_float32_alone_is_measured_in_float64(tmp_path: Path) -> None:
    weights = random_weights(SMALL)
    weights["logits/weights"] = weights["logits/weights"].astype(np.float64) * 1e300
    write_checkpoint(tmp_path / "c", {f"net/{name}": array.astype(np.float64) for name, array in weights.items()})
    with pytest.raises(InputError, match=r"could not be measured in float32.*--dtype float64"):
        verify(tmp_path / "c", size=(33, 33), dtype="float32")


def test_a_trace_with_another_number_is_refused(small_trace: Path, tmp_path: Path) -> None:
    with np.load(small_trace) as file:
        arrays = dict(file)
    assert open_trace(small_trace).images.shape[1:3] == TRACE_SIZE
    for name in ("images", "rounding", "end_point_3"):
        altered = {**arrays, name: arrays[name].copy()}
        altered[name].flat[0] += 1
        np.savez(tmp_path / "t.npz", **altered)
        with pytest.raises(InputError, match="not those that were recorded"):
            open_trace(tmp_path / "t.npz")


def test_a_file_that_was_made_from_another_source_says_so(small_v2: Path, small_trace: Path, tmp_path: Path) -> None:
    weights = {f"resnet_v2/{name}": array for name, array in random_weights(SMALL, 1).items()}
    folder = tmp_path / "other"
    folder.mkdir()
    write_checkpoint(folder / small_v2.name, weights)
    convert(folder / small_v2.name, tmp_path / "m.safetensors")
    report = verify(small_v2, tmp_path / "m.safetensors", reference=small_trace)
    assert not report.ok
    assert any("was made from another" in note for note in report.notes)


def not_slimports(source: Any) -> Any:
    pytest.fail(f"slimport's own reader read {source.path}")


def saved_in_v1_shards(prefix: Path, variables: dict[str, Any]) -> None:
    """By the op of a Saver with `write_version=V1, sharded=True`, the variables of two devices."""
    import tensorflow as tf

    for shard in range(2):
        names = list(variables)[shard::2]
        arrays = [tf.constant(variables[name]) for name in names]
        tf.raw_ops.Save(filename=f"{prefix}-{shard:05d}-of-00002", tensor_names=names, data=arrays)


def test_tensorflows_own_reader_reads_v1_shards_and_what_is_converted_to_slim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = random_weights(SMALL)
    saved_in_v1_shards(tmp_path / "run", {f"net/{name}": array for name, array in weights.items()})
    convert(tmp_path / "run", tmp_path / "to.ckpt")
    monkeypatch.setattr(Source, "arrays", not_slimports)
    for path in ("run", "to.ckpt"):
        with open_source(tmp_path / path) as source:
            read, reader = tf_slim.weights(source)
            assert reader == "tensorflow"
            assert {name: array.tobytes() for name, array in read.items()} == {
                name: weights[name].tobytes() for name in read
            }
            assert len(read) == len(weights)
    with open_source(tmp_path / "to.ckpt") as source:
        SlimPort(source, {})


def test_a_checkpoint_that_tensorflow_does_not_read_is_refused_as_target(
    small_v2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> Any:
        raise ValueError("not a checkpoint")

    monkeypatch.setattr(tf_slim, "reader_of", refuse)
    with open_source(small_v2) as source:
        assert tf_slim.weights(source)[1] == "slimport"
        with pytest.raises(InputError, match="TensorFlow does not read this checkpoint"):
            SlimPort(source, {})


def test_a_keras_file_whose_own_graph_is_of_other_arguments_says_so(small_v2: Path, tmp_path: Path) -> None:
    convert(small_v2, tmp_path / "m.keras")
    dense = {"output_stride": 4, "global_pool": False, "spatial_squeeze": False}
    report = verify(small_v2, tmp_path / "m.keras", size=(33, 46), dtype="float64", **dense)
    assert report.ok
    assert "the file's own graph is of other arguments: its weights run in a new one" in report.notes


def test_what_keras_cannot_run_is_refused_in_one_line(tmp_path: Path) -> None:
    network = SMALL_NETWORKS["inception_v3"].without_auxiliary().with_classes(None)
    save_without_tensorflow(network, tmp_path / "c.ckpt")
    with open_source(tmp_path / "c.ckpt") as source:
        port = KerasPort.build(source, all_arguments(source, {}))
    images = np.zeros((2, 97, 128, 3), np.float32)
    # Slim's last pooling is as small as the map; Keras's is not, where a model takes images of any size.
    with pytest.raises(InputError, match="Keras does not run the model on images of 97x128") as error:
        port.record([images], "float32", "cpu")
    assert "\n" not in str(error.value)
