"""Conversion: every target, bit for bit, whole or not at all, without what is heavy."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, Run
from safetensors.torch import load_file

import slimport.pytorch
from converters import InputError, convert, frameworks, load_pytorch, mapping, trace, verify
from converters.checkpoint import open_checkpoint
from converters.weights.source import open_source

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf


@pytest.mark.parametrize("file_format", ["v1", "v2"])
def test_a_full_size_checkpoint_is_what_tensorflow_reads(
    file_format: str, resnet_v2_50_checkpoint: Any, tmp_path: Path
) -> None:
    checkpoint = resnet_v2_50_checkpoint(file_format)
    convert(checkpoint, tmp_path / "model.safetensors")
    state = load_file(tmp_path / "model.safetensors")
    reader = tf.train.load_checkpoint(str(checkpoint))
    assert len(state) == len(reader.get_variable_to_shape_map()) == 272
    for name in reader.get_variable_to_shape_map():
        relative = name.removeprefix("resnet_v2_50/")
        expected = mapping.pytorch_layout(relative, reader.get_tensor(name))
        np.testing.assert_array_equal(state[mapping.pytorch_name(relative)].numpy(), expected)


def test_converting_imports_no_framework(resnet_v2_50_checkpoint: Any, tmp_path: Path) -> None:
    code = """
import sys
from converters.cli import main
sys.argv[1:] = ["convert", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"tensorflow", "torch", "keras", "jax", "tf_slim", "h5py"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
    out = tmp_path / "out.safetensors"
    printed = subprocess.check_output(
        [sys.executable, "-c", code, str(resnet_v2_50_checkpoint("v1")), str(out)], text=True, cwd=ROOT
    )
    assert printed.splitlines()[-1] == "[]"
    assert out.stat().st_size > 100_000_000


def test_the_metadata_rebuilds_the_model(digits_checkpoint: Path, tmp_path: Path) -> None:
    convert(digits_checkpoint, tmp_path / "m.safetensors")
    model = slimport.pytorch.load(tmp_path / "m.safetensors")
    assert not model.training
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(model(images), load_pytorch(digits_checkpoint)(images))
    assert model.scope == "digits/resnet_v2"
    assert slimport.pytorch.load(tmp_path / "m.safetensors", global_pool=False, spatial_squeeze=False)(images).ndim == 4


def test_the_metadata_holds_the_digests_of_the_source(digits_checkpoint: Path, tmp_path: Path) -> None:
    convert(digits_checkpoint, tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    description = json.loads(header["__metadata__"]["slimport"])
    files = [f"{digits_checkpoint}.index", f"{digits_checkpoint}.data-00000-of-00001"]
    sums = subprocess.check_output(["sha256sum", *files], text=True).split()[::2]
    assert list(description["source"].values()) == sums


def test_a_file_without_metadata_is_not_guessed_at(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="the network is not known"):
        slimport.pytorch.load(tmp_path / "m.safetensors")


@pytest.fixture(scope="module")
def digits_trace(digits_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits_trace") / "digits.npz"
    trace(digits_checkpoint, path, size=(32, 32), batch=4)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".keras", ".weights.h5"])
def test_every_target_of_a_trained_checkpoint_is_equal(
    suffix: str, digits_checkpoint: Path, digits_trace: Path, tmp_path: Path
) -> None:
    done = convert(digits_checkpoint, tmp_path / f"m{suffix}")
    assert done.recognition.scope == "digits/resnet_v2"
    assert set(done.recognition.extras) == {"Momentum", "training_state"}
    assert done.recognition.extras["training_state"] == ("global_step",)
    for dtype in ("float64", "float32"):
        report = verify(digits_checkpoint, tmp_path / f"m{suffix}", dtype=dtype, reference=digits_trace)
        assert report.ok, report.first_difference
        assert report.reader == "tensorflow"
        assert len(report.rows) == 25


def test_pth_is_a_plain_state_dict(small_v2: Path, tmp_path: Path) -> None:
    convert(small_v2, tmp_path / "m.pth")
    state = torch.load(tmp_path / "m.pth", weights_only=True)
    model = slimport.pytorch.resnet_v2(load_pytorch(small_v2).network.blocks, 7)
    model.load_state_dict(state, strict=True)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".keras", ".weights.h5"])
def test_a_converted_file_goes_back_to_slim_and_tensorflow_restores_it(
    suffix: str, small_v2: Path, tmp_path: Path
) -> None:
    convert(small_v2, tmp_path / f"m{suffix}")
    convert(tmp_path / f"m{suffix}", tmp_path / "back.ckpt", scope="resnet_v2")
    there, back = (tf.train.load_checkpoint(str(path)) for path in (small_v2, tmp_path / "back.ckpt"))
    assert back.get_variable_to_shape_map() == there.get_variable_to_shape_map()
    for name in there.get_variable_to_shape_map():
        np.testing.assert_array_equal(back.get_tensor(name), there.get_tensor(name))


def test_the_dtype_of_the_file_is_kept(tmp_path: Path) -> None:
    from conftest import SMALL, random_weights

    from converters.checkpoint import write_checkpoint

    for dtype in ("float16", "bfloat16", "float64"):
        kind = tf.as_dtype(dtype).as_numpy_dtype
        weights = {f"net/{name}": array.astype(kind) for name, array in random_weights(SMALL).items()}
        write_checkpoint(tmp_path / dtype, weights)
        convert(tmp_path / dtype, tmp_path / f"{dtype}.safetensors")
        state = load_file(tmp_path / f"{dtype}.safetensors")
        assert {tensor.dtype for tensor in state.values()} == {getattr(torch, dtype)}
        expected = weights["net/logits/weights"].transpose(3, 2, 0, 1).astype(np.float64)
        np.testing.assert_array_equal(state["logits.weight"].to(torch.float64).numpy(), expected)
        assert next(load_pytorch(tmp_path / dtype).parameters()).dtype == getattr(torch, dtype)


def test_integer_weights_are_refused(tmp_path: Path) -> None:
    from conftest import SMALL, random_weights

    from converters.checkpoint import write_checkpoint

    weights = {f"net/{name}": array.astype(np.int32) for name, array in random_weights(SMALL).items()}
    write_checkpoint(tmp_path / "c", weights)
    with pytest.raises(InputError, match="of dtype int32, not floating point"):
        convert(tmp_path / "c", tmp_path / "m.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".keras", ".weights.h5"])
def test_a_conversion_that_fails_leaves_what_was_there(suffix: str, small_v2: Path, tmp_path: Path) -> None:
    data = Path(f"{small_v2}.data-00000-of-00001").read_bytes()
    (tmp_path / "c.index").write_bytes(Path(f"{small_v2}.index").read_bytes())
    (tmp_path / "c.data-00000-of-00001").write_bytes(data[: len(data) // 2])
    target = tmp_path / f"m{suffix}"
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="cut off"):
        convert(tmp_path / "c", target)
    assert sorted(tmp_path.iterdir()) == before
    target.write_text("precious")
    with pytest.raises(InputError, match="cut off"):
        convert(tmp_path / "c", target)
    assert target.read_text() == "precious"
    assert sorted(tmp_path.iterdir()) == sorted([*before, target])


def test_a_process_that_is_killed_leaves_nothing_under_the_name(resnet_v2_50_checkpoint: Any, tmp_path: Path) -> None:
    target = tmp_path / "m.safetensors"
    code = """
import os, signal, sys
from converters import convert
from converters import mapping
layout, calls = mapping.pytorch_array, []
def killing(name, array):
    calls.append(name)
    if len(calls) == 100:
        os.kill(os.getpid(), signal.SIGKILL)
    return layout(name, array)
mapping.pytorch_array = killing
convert(*sys.argv[1:])
"""
    done = subprocess.run([sys.executable, "-c", code, str(resnet_v2_50_checkpoint("v2")), str(target)], cwd=ROOT)
    assert done.returncode == -9
    assert not target.exists()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Stands in for a full disk: the system refuses the same call."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt2", ".keras", ".weights.h5", ".ckpt"])
def test_out_of_space_there_is_one_line_and_what_was_there(
    suffix: str, small_v2: Path, slimport: Callable[..., Run], tmp_path: Path
) -> None:
    target = tmp_path / f"m{suffix}"
    target.write_text("precious")
    with files_of_at_most(20_000):
        run = slimport("convert", small_v2, target)
    assert (run.code, run.out) == (2, "")
    assert run.err.count("\n") == 1
    assert f"{target}: cannot be written: " in run.err
    assert target.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [target]


def test_the_source_is_never_overwritten(small_v2: Path, tmp_path: Path) -> None:
    convert(small_v2, tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    with pytest.raises(InputError, match="is the source itself"):
        convert(tmp_path / "m.safetensors", tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").read_bytes() == content


def test_a_link_to_the_destination_stays_a_link(small_v2: Path, tmp_path: Path) -> None:
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "real.safetensors")
    convert(small_v2, tmp_path / "link.safetensors")
    assert (tmp_path / "link.safetensors").is_symlink()
    assert load_file(tmp_path / "real.safetensors")


def test_variables_come_in_the_order_of_the_file(small_checkpoint: Path) -> None:
    with open_source(small_checkpoint) as source:
        names = [name for name, _ in source.stream()]
        assert names == list(source.dtypes)
    with open_checkpoint(small_checkpoint) as checkpoint:
        assert [f"resnet_v2/{name}" for name in names] == list(checkpoint)


def test_importing_converters_is_light() -> None:
    code = "import sys, converters; print('numpy' in sys.modules or 'click' in sys.modules)"
    out = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT, env=dict(os.environ))
    assert out.strip() == "False"
