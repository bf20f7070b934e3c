"""What people try in Python: it works as meant, or one line says what to do."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, random_images

import converters
import slimport.pytorch
from converters.parity.report import Report
from scripts.make_checkpoint import save_without_tensorflow
from slimport import preprocessing
from slimport.pytorch import Network
from slimport.pytorch import preprocessing as transforms
from slimport.pytorch.layers import BatchNorm
from slimport.pytorch.training import set_moving_variance

IMAGES = torch.from_numpy(random_images((2, 3, 33, 40)))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("python") / "small.safetensors"
    save_without_tensorflow(SMALL, path)
    return path


@pytest.fixture
def model(file: Path) -> Network:
    return slimport.pytorch.load(file)


def test_dir_has_the_public_names_and_each_is_there() -> None:
    assert dir(converters) == sorted(converters.__all__)
    assert {"Selection", "GraphOptions", "load_pytorch"} < set(dir(converters))
    for name in dir(converters):
        assert getattr(converters, name).__name__ == name


def test_results_have_a_line_and_models_a_class(file: Path, tmp_path: Path) -> None:
    done = converters.convert(file, tmp_path / "m.pth")
    assert repr(done) == f"<Conversion of {file} to {tmp_path}/m.pth: resnet_v2, 7 classes, scope 'resnet_v2'>"
    assert repr(converters.inspect(file)) == (
        f"<Inspection of {file}: resnet_v2, 7 classes, scope '', {len(SMALL.variables())} variables>"
    )
    from converters.parity.compare import Comparison, Row

    rows = (Row("conv1", (1,), 1.0, 1.0, 1e-12),)
    report = Report(
        "n", "pytorch", "float64", "cpu", "j", "torch", "r", {"images": (1, 1, 1, 1)}, {"float64": Comparison(rows)}
    )
    assert repr(report) == "<Report on n in torch: DIFFERENT from conv1 on, 1 end points in float64>"
    assert converters.load_pytorch.__annotations__["return"] == "Network"


@pytest.mark.parametrize("name", ["m.ckpt", "m.pth", "m.pt2", "m.keras", "zoo:resnet_v2_50", "none.safetensors"])
def test_what_load_does_not_take_leads_to_what_does(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^{name}: .*; converters\.load_pytorch takes checkpoints, other .* the zoo$"
    ):
        slimport.pytorch.load(name)


def test_the_classes_of_a_file_are_its_own(file: Path) -> None:
    assert slimport.pytorch.load(file, num_classes=7)(IMAGES).shape == (2, 7)
    for load in (slimport.pytorch.load, converters.load_pytorch):
        with pytest.raises(ValueError, match=r"has 7 classes, not 10: .* model\.reset_classifier makes a new layer"):
            load(file, num_classes=10)


def test_no_network_comes_with_weights() -> None:
    for word in ("pretrained", "weights"):
        with pytest.raises(
            TypeError, match=r"ships no weights: converters\.load_pytorch and load_keras take a checkpoint"
        ):
            slimport.pytorch.resnet_v2_50(**{word: True})  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("images", "hint"),
    [
        (IMAGES[0], r"\[3, 33, 40\]: .* images\[None\] is a batch of one"),
        (IMAGES.permute(0, 2, 3, 1), r"images\.permute\(0, 3, 1, 2\) has that order"),
        (IMAGES[0].permute(1, 2, 0), r"images\.permute\(2, 0, 1\)\[None\] is a batch of one"),
        (IMAGES[:, :2], r"takes \[batch, 3, height, width\]$"),
    ],
    ids=["unbatched", "channels last", "unbatched, channels last", "two channels"],
)
def test_images_of_other_axes_are_told_how_to_become_right(images: torch.Tensor, hint: str, model: Network) -> None:
    for run in (model, model.end_points, model.forward_features, lambda x: model.features(x, "block2")):
        with pytest.raises(ValueError, match=hint):
            run(images)


def test_a_feature_may_be_asked_for_by_its_name_alone(model: Network) -> None:
    (found,) = model.features(IMAGES, "block2").items()
    assert found[0] == "block2"
    assert torch.equal(found[1], model.features(IMAGES, ["block2"])["block2"])


WRAPPERS = {
    "compiled": torch.compile,
    "parallel": torch.nn.DataParallel,
    "averaged": torch.optim.swa_utils.AveragedModel,
    "both": lambda model: torch.nn.DataParallel(torch.compile(model)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_save_takes_a_model_out_of_what_wraps_it(wrap: Any, model: Network, tmp_path: Path) -> None:
    slimport.pytorch.save(wrap(model), tmp_path / "m.safetensors")
    assert torch.equal(slimport.pytorch.load(tmp_path / "m.safetensors")(IMAGES), model(IMAGES))
    with pytest.raises(ValueError, match=r"a Sequential, and no network of slimport\.pytorch"):
        slimport.pytorch.save(torch.nn.Sequential(), tmp_path / "s.safetensors")


def test_what_becomes_a_program_is_as_the_page_says(model: Network) -> None:
    assert torch.equal(torch.export.export(model, (IMAGES,)).module()(IMAGES), model(IMAGES))
    with pytest.raises(Exception, match="variable number of arguments"):
        torch.jit.script(model)
    with pytest.raises(torch.fx.proxy.TraceError):
        torch.fx.symbolic_trace(model)


@pytest.mark.parametrize("name", ["vgg", "deeplab", "lenet", "inception"])
def test_pixels_on_the_other_scale_are_refused(name: str) -> None:
    pixels = np.random.default_rng(0).uniform(0, 1, (40, 50, 3)).astype(np.float32)
    right, wrong = (pixels, pixels * 255) if name == "inception" else (pixels * 255, pixels)
    transform = getattr(transforms, name.capitalize())(24)
    tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in (right, wrong)]
    function = preprocessing.PREPROCESSINGS[name].function
    assert np.array_equal(transform(tensors[0]).permute(1, 2, 0).numpy(), function(right, 24))
    for run, image in ((function, wrong), (lambda image, _: transform(image), tensors[1])):
        with pytest.raises(ValueError, match=r"is meant: (divide|multiply) it by 255, or give uint8"):
            run(image, 24)
    # A black image is black on both.
    assert np.isfinite(function(np.zeros_like(right), 24)).all()


def test_transforms_refuse_what_is_channels_last_or_an_array() -> None:
    for make in (transforms.Vgg, transforms.Inception, transforms.Lenet):
        with pytest.raises(ValueError, match=r"tensor\.movedim\(-1, -3\) makes it of \[height, width, channels\]"):
            make(24)(torch.zeros(40, 50, 3))
        with pytest.raises(TypeError, match=r"slimport\.preprocessing takes NumPy's arrays"):
            make(24)(np.zeros((40, 50, 3), np.uint8))


@pytest.mark.parametrize("variance", typing.get_args(typing.Literal["unbiased", "biased"]))
def test_moving_averages_follow_a_short_run_after_update_bn(variance: Any, model: Network) -> None:
    images = IMAGES[:, :, :32, :32] * 3 + 1
    set_moving_variance(model, variance)
    model.train()
    expected = model(images)
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    assert {round(norm.momentum or 0, 6) for norm in norms} == {0.003}
    # A batch is the whole of these images, so that its statistics are theirs.
    far = (model.eval()(images) - expected).norm() / expected.norm()
    torch.optim.swa_utils.update_bn([images], model)
    near = (model.eval()(images) - expected).norm() / expected.norm()
    assert near < 0.1 < 0.5 < far
    assert {round(norm.momentum or 0, 6) for norm in norms} == {0.003}


def test_keras_loads_its_own_files_and_says_what_loads_others(file: Path, tmp_path: Path) -> None:
    import slimport.keras

    converters.convert(file, tmp_path / "m.keras")
    assert slimport.keras.load(tmp_path / "m.keras").output_shape == (None, 7)
    with pytest.raises(ValueError, match=r"small\.safetensors: no \.keras file; converters\.load_keras takes"):
        slimport.keras.load(file)
    with pytest.raises(TypeError, match=r"ships no weights"):
        slimport.keras.resnet_v2_50(pretrained=True)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"has 7 classes, not 10: .* then a keras\.layers\.Dense"):
        converters.load_keras(file, num_classes=10)
