"""Folded and optimized networks are the networks that they were made from."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, SMALL, SMALL_NETWORKS, named, pytorch_port, random_images, random_weights

import slimport.pytorch
from converters.parity import ports, tf_slim
from converters.parity.compare import compare, rounding_of
from slimport import networks
from slimport.pytorch import fold_batch_norm, layers, optimize_for_inference

# TorchInductor takes seconds for every unit.
TINY = networks.ResNetV2((networks.resnet_v2_block("block1", 4, 1, 2),), num_classes=7)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered from elsewhere."""
    monkeypatch.setenv("SLIMPORT_CACHE", str(tmp_path / "cache"))


def small(network: networks.Network = SMALL) -> Any:
    return pytorch_port(network, random_weights(network))


def small_images(*size: int) -> torch.Tensor:
    return torch.from_numpy(random_images((2, 3, *size)))


def test_folded_it_is_the_tf_slim_graph_within_float32s_rounding_and_in_float64() -> None:
    network = named("resnet_v2_50")
    weights = random_weights(network)
    images = random_images((1, 97, 120, 3))
    folded = fold_batch_norm(pytorch_port(network, weights))
    exact = fold_batch_norm(pytorch_port(network, weights).double())
    with (
        tf_slim.SlimGraph(network, network.name, weights, "float64") as truth_graph,
        tf_slim.SlimGraph(network, network.name, weights, "float32") as rounded,
    ):
        truth = truth_graph.run(images)
        rows64 = compare(ports.record_pytorch(exact, images, "float64", "cpu"), truth)
        port = ports.record_pytorch(folded, images, "float32", "cpu")
        rows32 = compare(port, truth, rounding_of(rounded.run(images), truth))
    assert [row.name for row in rows32] == network.end_points(network.name)
    assert not [row for row in rows64 + rows32 if not row.ok]


def test_folding_leaves_the_model_as_it_is_and_only_what_follows_an_addition_unfolded() -> None:
    model = small().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_batch_norm(model)
    after = model.state_dict()
    assert model.training
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert len(after) == len(before)
    assert not folded.training
    assert not [parameter for parameter in folded.parameters() if parameter.requires_grad]
    left = {name.rpartition(".")[2] for name, m in folded.named_modules() if isinstance(m, layers.BatchNorm)}
    assert left == {"preact", "postnorm"}
    twice = fold_batch_norm(folded)
    assert torch.equal(twice(small_images(40, 41)), folded(small_images(40, 41)))


# What follows an addition or a concatenation.
UNFOLDED = {
    "resnet_v2": {"preact", "postnorm"},
    "nasnet": {"final_path_bn"},
    "pnasnet": {"final_path_bn"},
}


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_a_folded_network_of_every_family_has_the_same_end_points(name: str) -> None:
    network = SMALL_NETWORKS[name]
    model = pytorch_port(network, random_weights(network)).eval().double()
    side = network.default_image_size
    images = torch.from_numpy(random_images((1, network.in_channels, side, side))).double()
    folded = fold_batch_norm(model)
    with torch.no_grad():
        expected, found = model.end_points(images)[1], folded.end_points(images)[1]
    assert list(found) == list(expected)
    for point, value in expected.items():
        assert torch.linalg.vector_norm(found[point] - value) <= 1e-12 * torch.linalg.vector_norm(value), point
    left = {name for name, module in folded.named_modules() if isinstance(module, layers.BatchNorm | layers.Scale)}
    assert {name.rpartition(".")[2] for name in left} <= UNFOLDED.get(name, set()), left


def test_a_folded_network_is_exported_and_compiled() -> None:
    folded = fold_batch_norm(small())
    images = small_images(33, 40)
    exported = torch.export.export(folded, (images,)).module()
    assert torch.equal(exported(images), folded(images))
    compiled = torch.compile(folded, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(images), folded(images))


def test_optimized_it_is_the_model_and_the_fastest_form_runs() -> None:
    model = small(TINY)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimized = optimize_for_inference(model, small_images(33, 40))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert not torch._inductor.config.freezing
    assert [trial.problem for trial in optimized.trials] == [None] * 6
    assert optimized.choice == next(iter(optimized.timings))
    assert f"{optimized.choice}: " in repr(optimized).partition(" <- runs")[0].splitlines()[-1]
    # Another size than the example's, and inside the user's own inference mode.
    torch.testing.assert_close(optimized(small_images(46, 33)), model(small_images(46, 33)), rtol=0, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(optimized(small_images(33, 40)), model(small_images(33, 40)), rtol=0, atol=1e-5)


FAULTS = """
import resource
import torch
from slimport.pytorch import inference

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults(), inference._keep_freed_memory(), sum(faults() for _ in range(2)) and faults())
"""


def test_memory_that_is_freed_is_kept_where_glibc_is_there() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], cwd=ROOT, capture_output=True, text=True, check=True)
    before, kept, after = done.stdout.split()
    assert kept == str(platform.libc_ver()[0] == "glibc")
    if kept == "True":
        # 64 MiB are 16,384 pages.
        assert int(after) < 1000 < int(before)


def test_without_a_compiler_the_other_forms_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    torch._dynamo.reset()
    optimized = optimize_for_inference(small(TINY), small_images(33, 40))
    assert {trial.name for trial in optimized.trials if trial.problem} == {
        "folded, compiled",
        "folded, channels_last, compiled",
        "folded, channels_last, compiled, image by image",
    }
    assert "not usable" in repr(optimized)
    assert optimized(small_images(33, 40)).shape == (2, 7)


def test_a_form_that_is_not_the_model_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: torch.nn.Module) -> Any:
        folded = fold_batch_norm(model)
        folded.logits.bias += 1
        return folded

    monkeypatch.setattr(torch, "compile", lambda model: model)
    monkeypatch.setattr(slimport.pytorch.inference, "fold_batch_norm", wrong)
    optimized = optimize_for_inference(small(), small_images(33, 40))
    assert optimized.choice == "as given"
    assert all("differs from the model's" in str(trial.problem) for trial in optimized.trials[1:])


def test_the_choice_is_remembered_and_progress_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    images = small_images(33, 40)
    told: list[str] = []
    first = optimize_for_inference(small(), images, progress=told.append)
    assert told == [*(f"trying {trial.name} ({n} of 6)" for n, trial in enumerate(first.trials, 1)), "measuring"]
    told.clear()
    again = optimize_for_inference(small(), images, progress=told.append)
    assert told == [f"making the form that was fastest before: {first.choice}"]
    assert (again.choice, again.trials) == (first.choice, first.trials)
    torch.testing.assert_close(again(images), small()(images), rtol=0, atol=1e-5)
    # Of another model, other images, or on request, all are measured.
    for arguments in ((small(TINY), images), (small(), small_images(34, 40))):
        told.clear()
        optimize_for_inference(*arguments, progress=told.append)
        assert told[-1] == "measuring"
    told.clear()
    optimize_for_inference(small(), images, remember=False, progress=told.append)
    assert told[-1] == "measuring"
    # Nor what a version with other forms chose.
    file = tmp_path / "cache" / "inference.json"
    file.write_text(json.dumps({key: trials[:-1] for key, trials in json.loads(file.read_text()).items()}))
    told.clear()
    optimize_for_inference(small(), images, progress=told.append)
    assert told[-1] == "measuring"
    file.write_text('{"damaged')
    told.clear()
    optimize_for_inference(small(), images, progress=told.append)
    assert told[-1] == "measuring"


def test_the_example_is_one_image_of_the_networks_size_and_a_stranger_needs_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    assert "measured on images of 1x3x224x224" in repr(optimize_for_inference(small()))
    with pytest.raises(ValueError, match="needs example_images"):
        optimize_for_inference(torch.nn.Sequential(torch.nn.ReLU()))
