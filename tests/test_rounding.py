"""`--dtype`: the weights in another dtype, what that costs, and what `verify` says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import SMALL, Run, random_weights
from safetensors import safe_open
from safetensors.torch import load_file

from converters import InputError, convert, frameworks, trace, verify
from converters.checkpoint import write_checkpoint
from converters.cli import cli
from converters.parity import tf_slim
from converters.parity.compare import compare, rel_l2, rounding_of
from converters.parity.images import seeded_images
from converters.weights.source import open_source

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf

SIZE = (33, 40)


def save(path: Path, **changed: Any) -> dict[str, Any]:
    """A checkpoint whose logits have these numbers; returns its variables by name relative to the scope."""
    weights = random_weights(SMALL)
    weights["logits/biases"][: len(changed.get("biases", ()))] = changed.get("biases", ())
    write_checkpoint(path, {f"net/{name}": array for name, array in weights.items()})
    return weights


def rounded_by_tensorflow(array: Any, dtype: str) -> Any:
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(tf.cast(array, dtype))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".ckpt"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_variable_is_rounded_as_tensorflow_rounds_and_read_back(dtype: str, suffix: str, tmp_path: Path) -> None:
    weights = save(tmp_path / "c")
    convert(tmp_path / "c", tmp_path / f"m{suffix}", dtype=dtype)
    convert(tmp_path / f"m{suffix}", tmp_path / "back.ckpt", scope="net")
    reader = tf.train.load_checkpoint(str(tmp_path / "back.ckpt"))
    for name, array in weights.items():
        expected = rounded_by_tensorflow(array, dtype)
        back = reader.get_tensor(f"net/{name}")
        assert back.dtype == expected.dtype
        np.testing.assert_array_equal(back.astype(np.float64), expected.astype(np.float64))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_loss_is_measured_and_kept_in_the_file(dtype: str, tmp_path: Path) -> None:
    # float16 is normal from 6.1e-5, bfloat16 from 1.2e-38; below half their smallest subnormal they are 0.
    tiny = torch.finfo(getattr(torch, dtype)).tiny
    weights = save(tmp_path / "c", biases=(tiny / 2, -tiny / 3, tiny / 1e5, 0, np.inf))
    done = convert(tmp_path / "c", tmp_path / "m.safetensors", dtype=dtype)
    assert done.rounding
    for name, array in weights.items():
        exact = torch.from_numpy(array).double()
        rounded = torch.from_numpy(array).to(getattr(torch, dtype)).double()
        exact, rounded = exact[exact.isfinite()], rounded[exact.isfinite()]
        loss = done.rounding.losses[name]
        assert loss.numbers == array.size
        assert loss.rel_l2 == pytest.approx(float((rounded - exact).norm() / exact.norm()))
        normal = rounded.abs() >= tiny
        relative = ((rounded - exact).abs() / exact.abs())[normal]
        assert loss.relative == float(relative.max())
        assert loss.relative <= torch.finfo(getattr(torch, dtype)).eps / 2
    biases = done.rounding.losses["logits/biases"]
    assert (biases.subnormal, biases.zero) == (2, 1)
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        description = json.loads(file.metadata()["slimport"])
    assert description["rounding"] == done.rounding.to_json()
    assert (description["rounding"]["from"], description["rounding"]["to"]) == (["float32"], dtype)


def test_more_bits_lose_nothing_and_the_same_bits_are_left_alone(small_v2: Path, tmp_path: Path) -> None:
    wide = convert(small_v2, tmp_path / "wide.keras", dtype="float64")
    assert str(wide.rounding) == "float32 to float64: without loss"
    back = convert(tmp_path / "wide.keras", tmp_path / "m.safetensors", dtype="float32")
    assert back.rounding
    assert str(back.rounding) == "float64 to float32: without loss"
    assert convert(small_v2, tmp_path / "same.safetensors", dtype="float32").rounding is None
    there, again = (load_file(tmp_path / name) for name in ("same.safetensors", "m.safetensors"))
    assert all(torch.equal(there[name], again[name]) for name in there)


def test_a_number_that_is_too_large_is_refused_with_its_variable(tmp_path: Path) -> None:
    save(tmp_path / "c", biases=(65504, 65520, -1e6))
    with pytest.raises(InputError, match=r"2 of the 7 values of net/logits/biases are too large for float16"):
        convert(tmp_path / "c", tmp_path / "m.safetensors", dtype="float16")
    assert not (tmp_path / "m.safetensors").exists()
    convert(tmp_path / "c", tmp_path / "m.safetensors", dtype="bfloat16")


def test_a_dtype_that_the_format_has_not_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--dtype float16: must be one of float32, float64 for \.keras"):
        convert(tmp_path / "absent", tmp_path / "m.keras", dtype="float16")
    with pytest.raises(InputError, match=r"--dtype int8: must be one of float16, bfloat16, float32, float64"):
        convert(tmp_path / "absent", tmp_path / "m.pth", dtype="int8")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_verify_holds_the_port_to_the_rounded_weights_and_says_what_rounding_costs(dtype: str, tmp_path: Path) -> None:
    weights = save(tmp_path / "c")
    convert(tmp_path / "c", tmp_path / "m.safetensors", dtype=dtype)
    report = verify(tmp_path / "c", tmp_path / "m.safetensors", size=SIZE)
    assert report.ok
    assert report.worst.rel_l2 < 1e-12
    assert report.rounded

    rounded = {name: rounded_by_tensorflow(array, dtype) for name, array in weights.items()}
    with open_source(tmp_path / "c") as source:
        images = seeded_images(SMALL, (2, *SIZE), 0)
        exact, moved = (tf_slim.record(SMALL, source.scope, w, images, "float64") for w in (weights, rounded))
    costs = {name: rel_l2(moved[name], exact[name]) for name in exact}
    assert report.rounded.end_points == pytest.approx(costs, rel=1e-6)
    assert min(costs.values()) > 1e-5
    assert report.to_json()["rounded"]["dtypes"] == [dtype]
    assert report.to_json()["rounded"]["worst"] == max(costs, key=lambda name: costs[name])


def test_a_rounded_file_with_one_bit_changed_differs(tmp_path: Path) -> None:
    save(tmp_path / "c")
    convert(tmp_path / "c", tmp_path / "m.pth", dtype="bfloat16")
    state = torch.load(tmp_path / "m.pth")
    state["logits.bias"].view(torch.int16)[3] ^= 1
    torch.save(state, tmp_path / "m.pth")
    report = verify(tmp_path / "c", tmp_path / "m.pth", size=SIZE)
    assert report.weights_different == ("net/logits/biases",)
    assert not report.ok


def test_a_trace_of_other_weights_than_the_rounded_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "c")
    trace(tmp_path / "c", tmp_path / "t.npz", size=SIZE)
    convert(tmp_path / "c", tmp_path / "m.safetensors", dtype="float16")
    with pytest.raises(InputError, match="a trace of the source's own weights, and the converted file's are rounded"):
        verify(tmp_path / "c", tmp_path / "m.safetensors", reference=tmp_path / "t.npz")


def test_the_command_says_the_loss(slimport: Callable[..., Run], tmp_path: Path) -> None:
    save(tmp_path / "c")
    done = slimport("convert", tmp_path / "c", tmp_path / "m.safetensors", "--dtype", "bfloat16")
    assert done.code == 0
    assert "rounded: float32 to bfloat16: at worst rel_l2 " in done.out
    assert f"of {sum(map(np.size, random_weights(SMALL).values())):,} numbers, 0 become subnormal" in done.out
    arguments = ["verify", str(tmp_path / "c"), str(tmp_path / "m.safetensors"), "--size", "33x40"]
    checked = CliRunner().invoke(cli, arguments).output
    assert "variables are the source's rounded to bfloat16, bit for bit" in checked
    assert "rounding: TF-Slim ran with the rounded weights; against the source's own, that moves its end" in checked


def test_probabilities_that_are_right_by_chance_do_not_make_another_run_wrong() -> None:
    def softmax(logits: Any) -> Any:
        exponential = np.exp(logits - logits.max(-1, keepdims=True))
        return exponential / exponential.sum(-1, keepdims=True)

    rng = np.random.default_rng(0)
    logits, slims, ours = (rng.normal(0, scale, (1, 1001)) for scale in (6, 1e-5, 1e-5))
    truth, right, wrong = softmax(logits), softmax(logits + ours), softmax(1.001 * logits)
    # Its largest probabilities, which are nearly all of rel_l2, are right.
    slims[0, truth[0].argsort()[-20:]] = 0
    run = softmax(logits + slims)
    assert 4 * rel_l2(run, truth) + 1e-6 < rel_l2(right, truth)
    rounding = rounding_of({"predictions": run}, {"predictions": truth})
    assert rounding["predictions"] == pytest.approx(1e-5, rel=0.2)
    assert compare({"predictions": right}, {"predictions": truth}, rounding)[0].ok
    assert not compare({"predictions": wrong}, {"predictions": truth}, rounding)[0].ok
