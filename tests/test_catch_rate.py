"""`verify` catches ports and files that are wrong as people get them wrong, and says where the difference begins."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, SMALL, TRACE_SIZE, named, pytorch_port, random_images, random_weights

from converters import verify
from converters.parity import ports
from converters.parity.compare import Row
from converters.parity.reference import Reference
from converters.weights.source import open_source
from scripts.studies.wrong_files import WRONG_FILES, Files, WrongFile
from scripts.studies.wrong_ports import WRONG_PORTS, WrongPort

SCOPE = "resnet_v2"
WEIGHTS = random_weights(SMALL)
# On every map of the even images a side is even; on every map of the odd ones, none is.
SIZES = {"even": (64, 32), "odd": (65, 33)}
CONDITIONS = [("even", "float64"), ("even", "float32"), ("odd", "float64")]
ARGUMENTS = list({str(port.arguments): port.arguments for port in WRONG_PORTS}.values())

Compare = Callable[[Any, str, dict[str, Any], str], tuple[Row, ...]]


@pytest.fixture(scope="module")
def compare() -> Compare:
    """(model, sides, arguments, dtype) to rows; TF-Slim runs once for all ports."""

    @lru_cache
    def reference(sides: str, arguments: tuple[tuple[str, Any], ...]) -> Reference:
        return Reference(SMALL, SCOPE, WEIGHTS, random_images((2, *SIZES[sides], 3)), **dict(arguments))

    def rows(model: Any, sides: str, arguments: dict[str, Any], dtype: str) -> tuple[Row, ...]:
        against = reference(sides, tuple(arguments.items()))
        return against.compare(ports.record_pytorch(model, against.images, dtype, "cpu"), dtype)

    return rows


def begins_at(rows: tuple[Row, ...]) -> str | None:
    return next((row.name for row in rows if not row.ok), None)


@pytest.mark.parametrize(("sides", "dtype"), CONDITIONS)
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_the_right_port_passes(compare: Compare, sides: str, arguments: dict[str, Any], dtype: str) -> None:
    assert begins_at(compare(pytorch_port(SMALL, WEIGHTS, **arguments), sides, arguments, dtype)) is None


@pytest.mark.parametrize(("sides", "dtype"), CONDITIONS)
@pytest.mark.parametrize("wrong", WRONG_PORTS, ids=lambda wrong: wrong.name)
def test_a_wrong_port_is_caught_where_it_begins(compare: Compare, wrong: WrongPort, sides: str, dtype: str) -> None:
    shows = (wrong.odd or sides == "even") and (wrong.float32 or dtype == "float64")
    found = begins_at(compare(wrong.build(SMALL, WEIGHTS, SCOPE), sides, dict(wrong.arguments), dtype))
    assert found == (wrong.first_end_point(SMALL, WEIGHTS, SCOPE) if shows else None)


@pytest.mark.parametrize("name", ["pool1 padded with zeros", "atrous rate applied one unit early"])
def test_verify_catches_it_in_a_model_in_memory(small_v2: Path, name: str) -> None:
    wrong = next(wrong for wrong in WRONG_PORTS if wrong.name == name)
    with open_source(small_v2) as source:
        model = wrong.build(source.network, source.arrays(), source.scope)
    report = verify(small_v2, model, size=(40, 33), **wrong.arguments)
    assert not report.ok
    assert report.first_difference == wrong.first_end_point(SMALL, WEIGHTS, SCOPE)


def test_every_mistake_is_another_one() -> None:
    assert len({wrong.name for wrong in WRONG_PORTS}) == len(WRONG_PORTS) >= 30
    inputs = torch.from_numpy(random_images((2, 3, 64, 32)))
    seen: list[dict[str, Any]] = []
    for wrong in WRONG_PORTS:
        with torch.inference_mode():
            _, end_points = wrong.build(SMALL, WEIGHTS, SCOPE).end_points(inputs)
        for other in seen:
            assert any(not torch.equal(end_points[name], other.get(name, inputs)) for name in end_points), wrong.name
        seen.append(end_points)


def test_the_page_says_where_each_begins() -> None:
    network = named("resnet_v2_50")
    weights = random_weights(network)
    lines = (ROOT / "docs" / "catch_rate.md").read_text().splitlines()
    page = {cells[0]: cells[2] for line in lines if len(cells := line.strip("| ").split(" | ")) > 4}
    for wrong in WRONG_PORTS:
        begins = wrong.first_end_point(network, weights, network.name).removeprefix(f"{network.name}/")
        assert page[wrong.name] == f"`{begins}`"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(SMALL, tmp_path_factory.mktemp("files"), TRACE_SIZE)


def dtype_of(file: str) -> str:
    """The dtype that shows most."""
    return "float32" if file == "m.onnx" else "float64"


@pytest.mark.parametrize("file", dict.fromkeys(wrong.file for wrong in WRONG_FILES))
def test_the_right_file_passes(files: Files, file: str) -> None:
    assert files.verify(file, dtype=dtype_of(file)) == ("equal", "")


@pytest.mark.parametrize("wrong", WRONG_FILES, ids=lambda wrong: f"{wrong.file}: {wrong.name}")
def test_a_wrong_file_is_caught(files: Files, wrong: WrongFile) -> None:
    found, why = files.verify(wrong.file, wrong.change, dtype_of(wrong.file))
    assert found == wrong.caught
    assert wrong.words in why


def test_another_epsilon_is_caught_where_float32_does_not_show_it(files: Files) -> None:
    wrong = next(wrong for wrong in WRONG_FILES if (wrong.file, "epsilon" in wrong.name) == ("m.keras", True))
    found, why = files.verify(wrong.file, wrong.change, dtype="float32")
    assert found == "different"
    assert "beyond its limit" not in why
