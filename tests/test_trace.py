"""A trace replaces TensorFlow: the same report, on a machine that has none; and nothing else passes for one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, SMALL, TRACE_SIZE, Run, save_small

from converters import InputError, convert, trace, verify
from converters.parity import tf_slim
from converters.parity.tracing import open_trace, weights_digest
from converters.weights.source import open_source
from scripts import make_checkpoint

WITHOUT_TENSORFLOW = """
import sys
for name in ("tensorflow", "tf_keras", "tf_slim", "keras"):
    sys.modules[name] = None
"""


def test_a_trace_holds_tf_slims_end_points_bit_for_bit(small_v2: Path, small_trace: Path) -> None:
    with open_source(small_v2) as source:
        weights, _ = tf_slim.weights(source)
    recorded = open_trace(small_trace)
    truth = tf_slim.record(SMALL, "resnet_v2", weights, recorded.images, "float64")
    assert list(recorded.truth) == list(truth)
    for name, array in truth.items():
        assert recorded.truth[name].dtype == array.dtype == np.float64
        assert recorded.truth[name].tobytes() == array.tobytes(), name
    # Neither a unit's output nor a block's, nor what squeeze gives, is stored again.
    with np.load(small_trace) as file:
        stored = sum(name.startswith("end_point_") for name in file)
    assert stored == len(truth) - sum(len(block.units) for block in SMALL.blocks) - len(SMALL.blocks) - 1


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("damaged", [False, True])
def test_the_report_with_a_trace_is_the_report_with_tensorflow(
    dtype: str, damaged: bool, small_v2: Path, small_trace: Path, tmp_path: Path
) -> None:
    import torch

    path = tmp_path / "m.pth"
    convert(small_v2, path)
    if damaged:
        state = torch.load(path, weights_only=True)
        state["block1.unit_2.bottleneck_v2.conv3.bias"] += 1e-3
        torch.save(state, path)
    live = verify(small_v2, path, dtype=dtype, size=TRACE_SIZE)
    recorded = verify(small_v2, path, dtype=dtype, reference=small_trace)
    assert recorded.reference is not None
    assert recorded.reference.name == str(small_trace)
    assert replace(recorded, reference=None, reference_versions={}) == live
    assert live.ok is not damaged


def test_the_digest_of_the_weights_is_the_same_in_every_format(small_v2: Path, tmp_path: Path) -> None:
    v1 = save_small(tmp_path / "v1.ckpt", "v1")
    paths = [small_v2, v1]
    for name in ("m.safetensors", "m.pth", "m.weights.h5", "again.ckpt"):
        convert(v1, tmp_path / name)
        paths.append(tmp_path / name)
    digests = set()
    for path in paths:
        with open_source(path) as source:
            digests.add(weights_digest(source.network, source.arrays()))
    assert len(digests) == 1
    make_checkpoint.save_without_tensorflow(SMALL, tmp_path / "other.pth", seed=1)
    with open_source(tmp_path / "other.pth") as source:
        assert weights_digest(source.network, source.arrays()) not in digests


def test_weights_from_a_seed_are_the_same_whether_tensorflow_or_slimport_writes_them(
    resnet_v2_50_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with open_source(resnet_v2_50_checkpoint("v2")) as source:
        make_checkpoint.save_without_tensorflow(source.network, tmp_path / "made.ckpt")
        made = dict(source.stream())
        digest = weights_digest(source.network, made)
    with open_source(tmp_path / "made.ckpt") as source:
        assert weights_digest(source.network, source.arrays()) == digest


def test_without_tensorflow_weights_are_made_converted_and_verified(small_trace: Path, tmp_path: Path) -> None:
    """In a process where importing TensorFlow fails: the weights of a seed, the conversion, the verdict."""
    code = f"""{WITHOUT_TENSORFLOW}
import json
from pathlib import Path
from scripts import make_checkpoint
import torch
from converters import convert, verify
from converters.parity.tracing import open_trace
from slimport import networks

folder, recorded = Path(sys.argv[1]), sys.argv[2]
network = networks.from_json(open_trace(recorded).description.network)
make_checkpoint.save_without_tensorflow(network, folder / "made.ckpt")
convert(folder / "made.ckpt", folder / "m.pth")
state = torch.load(folder / "m.pth", weights_only=True)
state["block2.unit_1.bottleneck_v2.conv2.BatchNorm.weight"] *= 1.001
torch.save(state, folder / "damaged.pth")
for name in ("m.pth", "damaged.pth"):
    for dtype in ("float64", "float32"):
        report = verify(folder / "made.ckpt", folder / name, dtype=dtype, reference=recorded)
        print(json.dumps([report.ok, report.first_difference]))
assert not [name for name in sys.modules if name.startswith(("tensorflow.", "tf_keras.", "tf_slim."))]
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, small_trace], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[True, None]] * 2 + [
        [False, "resnet_v2/block2/unit_1/bottleneck_v2/conv2"]
    ] * 2


def with_arrays(**changes: Any) -> Callable[[Path, Path], None]:
    """Writes the trace with some arrays changed, or left out where None."""

    def write(whole: Path, to: Path) -> None:
        with np.load(whole) as file:
            arrays = {**file, **changes}
        np.savez(to, allow_pickle=True, **{name: array for name, array in arrays.items() if array is not None})

    return write


def described(**changes: Any) -> Callable[[Path, Path], None]:
    """Writes the trace with its description changed."""

    def write(whole: Path, to: Path) -> None:
        with np.load(whole) as file:
            data = {**json.loads(file["trace"].tobytes()), **changes}
        with_arrays(trace=np.frombuffer(json.dumps(data).encode(), np.uint8))(whole, to)

    return write


def bytes_of(change: Callable[[bytes], bytes]) -> Callable[[Path, Path], None]:
    """Writes the trace's bytes, changed."""

    def write(whole: Path, to: Path) -> None:
        to.write_bytes(change(whole.read_bytes()))

    return write


def one_bit_flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


NOT_ONE = "not a .npz file that 'slimport trace' wrote, or cut off"
DAMAGED = "not a trace, or a damaged one"
BAD: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "missing": (lambda *_: None, "no such file"),
    "text": (bytes_of(lambda _: b"no trace"), NOT_ONE),
    "cut off": (bytes_of(lambda data: data[:-500]), NOT_ONE),
    "one bit flipped": (bytes_of(one_bit_flipped), DAMAGED),
    "no description": (with_arrays(trace=None), "not a trace that 'slimport trace' wrote"),
    "no images": (with_arrays(images=None), DAMAGED),
    "pickled objects": (with_arrays(images=np.array([{}])), DAMAGED),
    "no run": (with_arrays(rounding=np.ones((0, 29))), DAMAGED),
    "fewer end points": (with_arrays(rounding=np.ones((1, 28))), "do not fit each other"),
    "not JSON": (with_arrays(trace=np.ones(3, np.uint8)), DAMAGED),
    "a list": (with_arrays(trace=np.frombuffer(b"[1]", np.uint8)), DAMAGED),
    "another version": (described(format="slimport trace 99"), "of another version of slimport"),
    "no end points": (described(end_points=[]), "do not fit each other"),
}


def test_an_earlier_trace_is_read_by_the_first_of_its_float32_runs(
    small_v2: Path, small_trace: Path, tmp_path: Path
) -> None:
    with np.load(small_trace) as file:
        first = file["rounding"]
        data = json.loads(file["trace"].tobytes())
    del data["judge"]
    several, path = np.concatenate([first, np.ones((63, first.shape[1]))]), tmp_path / "earlier.npz"
    with_arrays(rounding=several, trace=np.frombuffer(json.dumps(data).encode(), np.uint8))(small_trace, path)
    report = verify(small_v2, dtype="float32", reference=path)
    assert report.rows == verify(small_v2, dtype="float32", reference=small_trace).rows
    assert report.judge == "slimport.nets"


@pytest.mark.parametrize("bad", BAD)
def test_what_is_not_a_whole_trace_is_refused_in_one_line(
    bad: str, small_v2: Path, small_trace: Path, tmp_path: Path
) -> None:
    make, message = BAD[bad]
    path = tmp_path / "bad.npz"
    make(small_trace, path)
    with pytest.raises(InputError, match=message) as error:
        verify(small_v2, reference=path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (40, 40)}, r"recorded with size \(33, 46\), not with size \(40, 40\)"),
        ({"batch": 1}, "recorded with batch 2, not with batch 1"),
        ({"seed": 1}, "recorded with seed 0, not with seed 1"),
        ({"output_stride": 4}, "recorded with output_stride None, not with output_stride 4"),
        ({"global_pool": False}, "recorded with global_pool True, not with global_pool False"),
    ],
)
def test_a_trace_of_another_run_is_refused(
    arguments: dict[str, Any], message: str, small_v2: Path, small_trace: Path
) -> None:
    with pytest.raises(InputError, match=message):
        verify(small_v2, reference=small_trace, **arguments)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"seed": 1}, "a trace of other weights than those in"),
        ({"network": replace(SMALL, num_classes=5)}, "a trace of resnet_v2 with 7 classes, but .* with 5 classes"),
        ({"scope": "other"}, "no network that slimport knows .* under scope 'resnet_v2'"),
    ],
)
def test_a_trace_of_something_else_is_refused(
    made: dict[str, Any], message: str, small_trace: Path, tmp_path: Path
) -> None:
    make_checkpoint.save_without_tensorflow(path=tmp_path / "c.ckpt", **{"network": SMALL, **made})
    with pytest.raises(InputError, match=message):
        verify(tmp_path / "c.ckpt", reference=small_trace)


def test_a_trace_of_the_same_weights_under_another_scope_is_refused(small_trace: Path, tmp_path: Path) -> None:
    make_checkpoint.save_without_tensorflow(SMALL, tmp_path / "c.ckpt", scope="other")
    with pytest.raises(InputError, match=r"recorded under scope 'resnet_v2', but .* is under 'other'"):
        verify(tmp_path / "c.ckpt", scope="other", reference=small_trace)


def test_a_trace_is_recorded_as_asked(small_v2: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    arguments: dict[str, Any] = {"output_stride": 4, "global_pool": False, "spatial_squeeze": False}
    trace(small_v2, path, size=(40, 24), batch=2, seed=3, **arguments)
    recorded = open_trace(path)
    assert recorded.images.shape == (2, 40, 24, 3)
    assert recorded.truth["resnet_v2/logits"].shape == (2, 10, 6, 7)
    assert recorded.description.seed == 3
    assert list(recorded.rounding) == list(recorded.truth)
    assert verify(small_v2, reference=path, **arguments).ok


def test_the_command_records_and_refuses(slimport: Callable[..., Run], small_v2: Path, tmp_path: Path) -> None:
    run = slimport("trace", small_v2, tmp_path / "t.npz", "--size", "33")
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith(f"{tmp_path}/t.npz: resnet_v2, scope 'resnet_v2', 0.")
    run = slimport("verify", small_v2, "--reference", tmp_path / "t.npz", "--dtype", "float32")
    assert run.code == 0
    assert f"reference: {tmp_path}/t.npz, recorded from the TF-Slim graph" in run.out
    assert "judge: slimport.nets, with weights read by tensorflow" in run.out
    limit = "within 4 times TF-Slim's own float32 rounding, plus 1e-06, at most 1e-03"
    assert run.out.splitlines()[-1] == f"equal: all 29 end points {limit}"
    for name, message in (("t.txt", "must end in .npz"), ("no/t.npz", "does not exist; make it first")):
        with pytest.raises(InputError, match=message):
            trace(small_v2, tmp_path / name)
