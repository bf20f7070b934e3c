"""`verify` sees what is wrong, and says where it begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import slimport.pytorch
from converters import InputError, convert, load_keras, load_pytorch, verify
from converters.parity import Comparison, Report, Row
from converters.parity.compare import compare, max_abs, rel_l2

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
    images = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (2, 97, 97, 3)).astype(np.float32))
    with torch.inference_mode():
        _, end_points = slimport.pytorch.load(path).end_points(images.permute(0, 3, 1, 2))
    highest = end_points[FIRST].amax((0, 2, 3))
    assert highest.min() == 0
    return int(highest.argmax()), int(highest.argmin())


def test_one_gamma_changed_by_a_thousandth_is_found_where_it_is(
    slimport: Any, resnet_v2_50_checkpoint: Any, tmp_path: Path
) -> None:
    checkpoint, converted = resnet_v2_50_checkpoint("v2"), tmp_path / "m.safetensors"
    arguments = ("verify", checkpoint, converted, "--dtype", "float32", "--size", "97", "--json")
    convert(checkpoint, converted)
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
    run = slimport("verify", checkpoint, converted, "--size", "97", "--dtype", "float64")
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
    promised = {"ok": True, "dtype": "float64", "device": "cpu", "target": "pytorch", "judge": "slimport.nets"}
    assert {name: report[name] for name in promised} == promised
    assert {"name", "shape", "rel_l2", "max_abs", "ok"} <= set(report["end_points"][0])
    assert report["worst"] in report["end_points"]
    assert report["end_points"][0]["name"] == "resnet_v2/conv1"
    assert report["end_points"][0]["shape"] == [2, 17, 23, 64]


def test_arguments_reach_the_networks(slimport: Any, small_v2: Path) -> None:
    arguments = [
        "--output-stride",
        "4",
        "--no-global-pool",
        "--size",
        "40",
        "--batch",
        "1",
        "--dtype",
        "float64",
        "--json",
    ]
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


def report_of(*rows: Row) -> Report:
    by_dtype = {"float64": Comparison(rows)}
    return Report("n", "pytorch", "float64", "cpu", "j", "b", "r", {"images": (1, 1, 1, 1)}, by_dtype)


def test_nan_is_a_difference() -> None:
    bad = np.array([1.0, np.nan])
    (row,) = compare({"x": bad}, {"x": np.ones(2)})
    assert not row.ok
    report = report_of(Row("a", (1,), 0, 0, 1e-12), row)
    assert not report.ok
    assert report.worst.name == "x"
    assert json.dumps(report.to_json(), allow_nan=False)


def test_a_report_without_rows_is_not_equal() -> None:
    assert not report_of().ok


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
    assert verify(small_v2, model, size=(40, 33), dtype="float64").ok
    report = verify(small_v2, model.train(), size=(40, 33), dtype="float64")
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
    assert verify(small_v2, model, size=(40, 33), dtype="float64").ok
    model.get_layer("logits").bias.assign_add(np.full(7, 1e-3))
    report = verify(small_v2, model, size=(40, 33), dtype="float64")
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


@pytest.mark.parametrize(
    ("rounding", "limit"), [(0.0, 1e-6), (1e-6, 5e-6), (1e-3, 1e-3), (np.inf, 1e-3), (np.nan, 1e-3)]
)
def test_float32s_limit_is_four_times_tf_slims_own_rounding_plus_1e_6_and_at_most_1e_3(
    rounding: float, limit: float
) -> None:
    truth = {"x": np.ones(4)}
    rows = [compare({"x": np.ones(4) + limit * off}, truth, {"x": rounding})[0] for off in (0.99, 1.01, np.nan)]
    assert [row.limit for row in rows] == [pytest.approx(limit)] * 3
    assert [row.ok for row in rows] == [True, False, False]


def test_float64s_limit_is_1e_12() -> None:
    truth = {"x": np.ones(4)}
    rows = [compare({"x": np.ones(4) + 1e-12 * off}, truth)[0] for off in (0.99, 1.01)]
    assert [(row.limit, row.ok) for row in rows] == [(1e-12, True), (1e-12, False)]


def test_the_ratio_is_the_ports_error_over_tf_slims_own() -> None:
    (row,) = compare({"x": np.ones(4) + 3e-6}, {"x": np.ones(4)}, {"x": 2e-6})
    assert row.ratio == pytest.approx(1.5)
    assert row.slim_rel_l2 == 2e-6


def test_a_state_dict_of_another_network_is_refused(slimport: Any, small_v2: Path, tmp_path: Path) -> None:
    convert(small_v2, tmp_path / "m.pth")
    # A dict without the description of the network that it is from.
    state = dict(torch.load(tmp_path / "m.pth", weights_only=True))
    state["logits.weight"], state["logits.bias"] = state["logits.weight"][:5], state["logits.bias"][:5]
    torch.save(state, tmp_path / "m.pth")
    run = slimport("verify", small_v2, tmp_path / "m.pth")
    assert run.code == 2
    assert "holds resnet_v2 with 5 classes, but" in run.err


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was saved with arguments that are not the defaults."""
    path = tmp_path_factory.mktemp("dense") / "dense.safetensors"
    arguments = {"output_stride": 4, "global_pool": False, "spatial_squeeze": False}
    slimport.pytorch.save(slimport.pytorch.resnet_v2(SMALL.blocks, 7, **arguments), path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".keras"])
def test_the_arguments_are_those_that_the_network_was_built_with(suffix: str, dense: Path, tmp_path: Path) -> None:
    convert(dense, tmp_path / f"m{suffix}")
    report = verify(dense, tmp_path / f"m{suffix}", size=(40, 33))
    assert report.ok
    shapes = {row.name: row.shape for row in report.rows}
    assert shapes["resnet_v2/logits"] == (2, 10, 9, 7)
    assert report.arguments["output_stride"] == 4


def test_a_file_that_was_built_with_other_arguments_is_refused(dense: Path, small_v2: Path) -> None:
    with pytest.raises(InputError, match=r"was built with .*output_stride 4, .* but .* with .*output_stride None, "):
        verify(small_v2, dense, size=(40, 33))
    given = {"output_stride": 8, "global_pool": False, "spatial_squeeze": False}
    assert verify(small_v2, dense, size=(40, 33), **given).arguments["output_stride"] == 8
