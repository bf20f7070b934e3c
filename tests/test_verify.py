"""`verify` sees what is wrong, and says where it begins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.special import softmax

import slimport.pytorch
from converters import InputError, convert, load_keras, load_pytorch, verify
from converters.parity.compare import Report, Row, compare, compare_float32, max_abs, neighbours, rel_l2
from converters.parity.reference import Record, Rounding, SlimSide

GAMMA = "block3.unit_2.bottleneck_v2.conv2.BatchNorm.weight"
FIRST = "resnet_v2_50/block3/unit_2/bottleneck_v2/conv2"


def change_gamma(path: Path, channel: int) -> None:
    """Changes one gamma in a safetensors file by one part in a thousand."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    state[GAMMA][channel] *= 1.001
    save_file(state, path, metadata)


def channels(path: Path) -> tuple[int, int]:
    """A channel behind that gamma that ReLU lets through, and one that it holds at 0, for the input of `verify`."""
    images = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 97, 97, 3)).astype(np.float32))
    with torch.inference_mode():
        _, end_points = slimport.pytorch.load(path).end_points(images.permute(0, 3, 1, 2))
    highest = end_points[FIRST].amax((0, 2, 3))
    assert highest.min() == 0
    return int(highest.argmax()), int(highest.argmin())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_one_gamma_changed_by_a_thousandth_is_found_where_it_is(
    dtype: str, slimport: Any, resnet_v2_50_checkpoint: Any, tmp_path: Path
) -> None:
    checkpoint, converted = resnet_v2_50_checkpoint("v2"), tmp_path / "m.safetensors"
    arguments = ("verify", checkpoint, converted, "--dtype", dtype, "--size", "97", "--json")
    convert(checkpoint, converted)
    assert slimport(*arguments).code == 0
    live, _ = channels(converted)
    change_gamma(converted, live)
    run = slimport(*arguments)
    assert (run.code, run.err) == (1, "")
    report = json.loads(run.out)
    differing = [row["name"] for row in report["end_points"] if not row["ok"]]
    assert differing[0] == report["first_difference"] == FIRST
    assert differing[-1] == "predictions"


def test_a_gamma_that_no_end_point_shows_is_found_in_the_weights(
    slimport: Any, resnet_v2_50_checkpoint: Any, tmp_path: Path
) -> None:
    checkpoint, converted = resnet_v2_50_checkpoint("v2"), tmp_path / "m.safetensors"
    convert(checkpoint, converted)
    _, dead = channels(converted)
    change_gamma(converted, dead)
    run = slimport("verify", checkpoint, converted, "--size", "97")
    assert run.code == 1
    assert f"DIFFERS: {FIRST}/BatchNorm/gamma" in run.out
    assert "271 of 272 variables" in run.out
    assert run.out.splitlines()[-1] == f"DIFFERENT: 0 of 77 end points; it begins at {FIRST}"


def test_the_json_is_what_the_design_promises(slimport: Any, small_v2: Path, tmp_path: Path) -> None:
    convert(small_v2, tmp_path / "m.pth")
    run = slimport("verify", small_v2, tmp_path / "m.pth", "--json", "--size", "33x46", "--batch", "2")
    assert run.code == 0
    assert run.err == ""
    report = json.loads(run.out)
    assert (report["ok"], report["dtype"], report["device"], report["target"]) == (True, "float64", "cpu", "pytorch")
    assert {"name", "shape", "rel_l2", "max_abs", "ok"} <= set(report["end_points"][0])
    assert report["worst"] in report["end_points"]
    assert report["end_points"][0]["name"] == "resnet_v2/conv1"
    assert report["end_points"][0]["shape"] == [2, 17, 23, 64]


def test_arguments_reach_the_networks(slimport: Any, small_v2: Path) -> None:
    arguments = ["--output-stride", "4", "--no-global-pool", "--size", "40", "--json"]
    report = json.loads(slimport("verify", small_v2, *arguments).out)
    shapes = {row["name"]: row["shape"] for row in report["end_points"]}
    assert report["ok"]
    assert shapes["resnet_v2/logits"] == [1, 10, 10, 7]
    assert "global_pool" not in shapes


def test_rel_l2_is_over_the_whole_end_point_in_float64() -> None:
    reference = np.array([3.0, 4.0])
    assert rel_l2(np.array([3.0, 4.5]), reference) == 0.1
    assert rel_l2(np.float32([3, 4]), reference) == 0
    assert rel_l2(np.zeros(2), np.zeros(2)) == 0
    assert rel_l2(np.ones(2), np.zeros(2)) == np.inf
    assert max_abs(np.array([3.0, 4.5]), reference) == 0.5


def test_nan_is_a_difference() -> None:
    bad = np.array([1.0, np.nan])
    (row,) = compare({"x": bad}, {"x": np.ones(2)})
    assert not row.ok
    report = Report("n", "pytorch", "float64", "cpu", "b", "r", (1, 1, 1, 1), (Row("a", (1,), 0, 0, 1e-12), row))
    assert not report.ok
    assert report.worst.name == "x"
    assert json.dumps(report.to_json(), allow_nan=False)


def test_a_report_without_rows_is_not_equal() -> None:
    assert not Report("n", "pytorch", "float64", "cpu", "b", "r", (1, 1, 1, 1), ()).ok


@pytest.mark.parametrize("port", [{}, {"x": np.ones(2), "y": np.ones(1)}])
def test_end_points_that_do_not_match_cannot_be_compared(port: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="end point"):
        compare(port, {"x": np.ones(2)})


def test_an_end_point_of_another_shape_is_a_difference() -> None:
    (row,) = compare({"x": np.ones(3)}, {"x": np.ones(2)})
    assert not row.ok
    assert row.to_json()["rel_l2"] is None


def test_a_model_in_memory_is_verified_as_it_is_and_left_so(small_v2: Path) -> None:
    model = load_pytorch(small_v2)
    assert verify(small_v2, model, size=(40, 33)).ok
    report = verify(small_v2, model.train(), size=(40, 33))
    assert report.first_difference == "resnet_v2/block1/unit_1/bottleneck_v2/shortcut"
    assert not report.weights_different
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with torch.no_grad():
        model.eval().logits.bias[3] += 1e-3
    report = verify(small_v2, model, size=(40, 33), dtype="float32")
    assert report.first_difference == "resnet_v2/logits"
    assert report.weights_different == ("resnet_v2/logits/biases",)
    assert report.weights_compared == len(load_pytorch(small_v2).network.variables())


def test_a_keras_model_in_memory_is_verified(small_v2: Path) -> None:
    model = load_keras(small_v2)
    assert verify(small_v2, model, size=(40, 33)).ok
    model.get_layer("logits").bias.assign_add(np.full(7, 1e-3))
    report = verify(small_v2, model, size=(40, 33))
    assert report.first_difference == "resnet_v2/logits"
    assert report.weights_different == ("resnet_v2/logits/biases",)


@pytest.mark.parametrize(
    ("model", "target", "message"),
    [
        (torch.nn.Identity(), None, "a Identity cannot be verified"),
        (3, None, "a int cannot be verified"),
        (slimport.pytorch.resnet_v2(SMALL.blocks, 7), "keras", "is for pytorch, not for target 'keras'"),
        (slimport.pytorch.resnet_v2(SMALL.blocks, 7, scope="net"), None, "nothing to compare: .* missing"),
    ],
)
def test_what_cannot_be_verified_is_refused(small_v2: Path, model: Any, target: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        verify(small_v2, model, target=target, size=(33, 33))


def test_float32_is_measured_against_as_many_runs_as_it_takes() -> None:
    truth = {"steady": np.ones(4), "lucky": np.ones(4)}
    errors = iter([1e-6, 2.5e-6, 9e-6])
    asked = []

    def run_slim(images: Any, names: list[str]) -> dict[str, Any]:
        del images
        asked.append(names)
        error = next(errors)
        return {name: np.ones(4) + error for name in names}

    port = {"steady": np.ones(4) + 1e-6, "lucky": np.ones(4) + 3e-6}
    steady, lucky = compare_float32(port, truth, run_slim, [np.ones(1)] * 3)
    assert asked == [["steady", "lucky"], ["lucky"]]
    assert steady.ok
    assert lucky.ok
    assert (steady.slim_rel_l2, lucky.slim_rel_l2) == (pytest.approx(1e-6), pytest.approx(2.5e-6))
    assert lucky.limit == pytest.approx(1.5 * 2.5e-6 + 1e-7)


@pytest.mark.parametrize("wrong", [1e-4, np.nan])
def test_what_no_run_of_tf_slim_comes_near_is_a_difference(wrong: float) -> None:
    truth = {"x": np.ones(4)}
    (row,) = compare_float32({"x": np.ones(4) + wrong}, truth, lambda images, _: {"x": images}, [np.ones(4) + 1e-6] * 3)
    assert not row.ok


def test_neighbours_are_one_float32_apart() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, 3)).astype(np.float32)
    first, second, third = neighbours(images, 3, seed=1)
    np.testing.assert_array_equal(first, images)
    assert not np.array_equal(second, third)
    moved = second != images
    assert 0 < moved.mean() < 0.3
    np.testing.assert_array_equal(np.abs(second.view(np.int32) - images.view(np.int32))[moved], 1)


def test_a_state_dict_of_another_network_is_refused(slimport: Any, small_v2: Path, tmp_path: Path) -> None:
    convert(small_v2, tmp_path / "m.pth")
    state = torch.load(tmp_path / "m.pth", weights_only=True)
    state["logits.weight"], state["logits.bias"] = state["logits.weight"][:5], state["logits.bias"][:5]
    torch.save(state, tmp_path / "m.pth")
    run = slimport("verify", small_v2, tmp_path / "m.pth")
    assert run.code == 2
    assert "holds resnet_v2 with 5 classes, but" in run.err


class TwoNumbers(SlimSide):
    """An end point of few numbers, with TF-Slim's errors as given."""

    def __init__(self, errors: list[float]) -> None:
        self.images, self.seed, self.weights, self._errors = np.ones((1, 2, 2, 1), np.float32), 0, {}, errors

    @property
    def truth(self) -> dict[str, Any]:
        return {"steady": np.ones(2), "logits": np.ones(2)}

    def rounding(self) -> Iterator[Rounding]:
        for error in self._errors:
            yield lambda names, error=error: dict.fromkeys(names, error)

    def with_weights(self, weights: Any) -> Any:
        raise NotImplementedError


def port_with(errors: Iterable[float]) -> tuple[Record, list[Any]]:
    """A port whose logits have these errors, one run after the other, and the images that it ran on."""
    ran, left = [], iter(errors)

    def record(images: Any) -> dict[str, Any]:
        ran.append(images)
        return {"steady": np.ones(2), "logits": np.ones(2) + next(left)}

    return record, ran


def test_an_unlucky_draw_of_the_ports_error_is_measured_by_the_size_of_both() -> None:
    record, ran = port_with([2e-6, 2e-6] + [1e-6] * 15)
    steady, logits = TwoNumbers([1e-6] * 64).compare(record, "float32")
    assert len(ran) == 17
    assert not np.array_equal(ran[2], ran[3])
    assert (steady.inputs, logits.inputs) == (1, 16)
    assert logits.rel_l2 == pytest.approx(np.sqrt((4 + 15) / 16) * 1e-6)
    assert logits.slim_rel_l2 == pytest.approx(1e-6)
    assert logits.ok


def test_an_error_that_is_always_larger_is_no_bad_luck() -> None:
    record, _ = port_with([2e-6] * 17)
    _, logits = TwoNumbers([1e-6] * 64).compare(record, "float32")
    assert not logits.ok
    assert (logits.rel_l2, logits.inputs) == (pytest.approx(2e-6), 1)


def test_what_is_far_beyond_the_limit_is_not_measured_again() -> None:
    record, ran = port_with([1e-5])
    _, logits = TwoNumbers([1e-6] * 64).compare(record, "float32")
    assert not logits.ok
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("logits_off", "softmax_off", "ok"),
    [(1e-6, 0.0, (True, True)), (4e-6, 0.0, (False, False)), (1e-6, 1e-5, (True, False))],
)
def test_predictions_are_held_to_what_the_logits_error_can_become(
    logits_off: float, softmax_off: float, ok: tuple[bool, bool]
) -> None:
    logits = np.array([2.0, 2.0, -3.0])

    class Classifier(TwoNumbers):
        @property
        def truth(self) -> dict[str, Any]:
            return {"logits": logits, "predictions": softmax(logits)}

        def rounding(self) -> Iterator[Rounding]:
            # An error of the logits of this size that moves all of them alike, which softmax hardly sees.
            for _ in range(64):
                yield lambda names: {n: {"logits": 1e-6, "predictions": 2e-7}[n] for n in names}

    def record(_: Any) -> dict[str, Any]:
        # In the worst direction: from one of two equal classes to the other.
        off = logits + np.array([1, -1, 0]) / np.sqrt(2) * np.linalg.norm(logits) * logits_off
        return {"logits": off, "predictions": softmax(off) * (1 + softmax_off)}

    rows = Classifier([]).compare(record, "float32")
    assert tuple(row.ok for row in rows) == ok
    assert rows[1].of_logits is ok[1]
