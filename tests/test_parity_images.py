"""The input of a comparison shows mistakes: two images, an odd and an even side, the values that a network sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, SMALL_NETWORKS, Run, random_images, save_small
from PIL import Image

from converters import InputError, trace, verify
from converters.parity.images import Input, default_size, make_images, value_range
from converters.parity.tracing import open_trace
from slimport import networks, preprocessing
from slimport.graph import Input as GraphInput
from slimport.graph import conv2d, flatten, record, scale
from slimport.graph_ops import constant, elementwise, pad
from slimport.networks import GraphNetwork, Network


@pytest.mark.parametrize("name", [*networks.NETWORKS, *SMALL_NETWORKS])
def test_every_network_gets_two_images_of_an_odd_and_an_even_side(name: str) -> None:
    network = networks.NETWORKS.get(name) or SMALL_NETWORKS[name]
    images = make_images(network, network.with_defaults({}), Input()).array
    assert images.shape[0] == 2
    assert sum(images.shape[1:3]) % 2 == 1
    low, high = images.min((0, 1, 2)), images.max((0, 1, 2))
    expected = value_range(network)
    assert np.allclose([low, high], expected, atol=0.02 * (expected[1] - expected[0]).max())


@pytest.mark.parametrize("name", ["resnet_v1_50", "vgg_16", "resnet_v2_50", "inception_v3", "lenet"])
def test_the_values_are_those_that_the_preprocessing_gives(name: str) -> None:
    network = networks.NETWORKS[name]
    pixels = np.zeros((2, 300, 300, network.in_channels), np.uint8)
    pixels[1] = 255
    found = [preprocessing.PREPROCESSINGS[network.preprocessing].function(each, 28)[14, 14] for each in pixels]
    assert np.allclose(value_range(network), found, atol=1e-6 * np.abs(found).max())


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet_v2_50", (97, 128)), ("vgg_16", (225, 224)), ("inception_v3", (299, 300)), ("lenet", (29, 28))],
)
def test_the_size_is_small_where_layers_do_not_ask_for_another(name: str, size: tuple[int, int]) -> None:
    network = networks.NETWORKS[name]
    assert default_size(network, network.with_defaults({})) == size


@pytest.mark.parametrize("name", ["mobilenet_v1", "inception_v3"])
def test_without_classes_no_pooling_is_larger_than_its_map_which_keras_would_not_shrink(name: str) -> None:
    network = networks.NETWORKS[name].without_auxiliary().with_classes(None)
    assert min(default_size(network, network.with_defaults({}))) >= 224


def graph_network(shape: tuple[int | None, ...], area: tuple[int, int] | None = None) -> GraphNetwork:
    def define(images: Any) -> Any:
        net = conv2d(images, 4, 3, stride=2, scope="conv")
        return net if area is None else flatten(net, area, scope="flat")

    return GraphNetwork(record(define, inputs=[GraphInput("input", shape)]), "own", "own")


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (graph_network((None, 32, 48, 3)), (32, 48)),
        (graph_network((None, None, None, 3)), (97, 128)),
        (graph_network((None, None, None, 3), (112, 112)), (223, 224)),
        (graph_network((None, None, None, 3), (12, 12)), (224, 224)),
    ],
)
def test_a_graph_of_ones_own_gets_the_size_that_it_takes(network: Network, size: tuple[int, int]) -> None:
    assert default_size(network, {}) == size


@pytest.mark.parametrize(
    ("before", "pixels"),
    [
        (lambda net: net, False),
        (lambda net: scale(net, 2.0, -1.0, scope="to"), False),
        (lambda net: scale(net, 1 / 255, scope="to"), True),
        (
            lambda net: elementwise(
                net, constant((123.68, 116.78, 103.94), scope="mean"), function="subtract", scope="to"
            ),
            True,
        ),
        (
            lambda net: elementwise(
                pad(net, ((0, 0), (1, 1), (1, 1), (0, 0)), scope="pad"), 127.5, function="divide", scope="to"
            ),
            True,
        ),
        (
            lambda net: elementwise(net, constant((0.229, 0.224, 0.225), scope="std"), function="divide", scope="to"),
            False,
        ),
        (lambda net: scale(conv2d(net, 3, 1, scope="before"), 1 / 255, scope="to"), False),
    ],
)
def test_a_graph_that_takes_the_means_of_pixels_away_gets_pixels(before: Callable[[Any], Any], pixels: bool) -> None:
    def define(images: Any) -> Any:
        return conv2d(before(images), 4, 3, scope="conv")

    network = GraphNetwork(record(define, inputs=[GraphInput("input", (None, 8, 8, 3))]), "own")
    images = make_images(network, {}, Input()).array
    assert (images.max() > 200, images.min() < -0.5) == (pixels, not pixels)


def test_what_is_asked_for_is_taken() -> None:
    images = make_images(SMALL, {}, Input((5, 6), 3, 7))
    assert np.array_equal(images.array, random_images((3, 5, 6, 3), 7))
    assert images.seed == 7


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (50, 61, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_an_image_file_is_preprocessed_as_in_evaluation(photo: Path) -> None:
    images = make_images(SMALL, {}, Input((40, 33), files=(photo, photo)))
    expected = preprocessing.inception(np.asarray(Image.open(photo)), (40, 33))
    assert np.array_equal(images.array, [expected, expected])
    assert (images.seed, images.files) == (None, (str(photo),) * 2)
    assert make_images(SMALL, {}, Input(files=(photo,))).array.shape == (1, 299, 299, 3)


def test_the_command_verifies_with_an_image_and_traces_it(
    slimport: Callable[..., Run], small_v2: Path, photo: Path, tmp_path: Path
) -> None:
    run = slimport("trace", small_v2, tmp_path / "t.npz", "--image", photo, "--size", "33x46")
    assert (run.code, run.err) == (0, "")
    expected = preprocessing.inception(np.asarray(Image.open(photo)), (33, 46))
    recorded = open_trace(tmp_path / "t.npz")
    assert np.array_equal(recorded.images, [expected])
    report = verify(small_v2, reference=tmp_path / "t.npz")
    assert report.ok
    assert report.arguments["images"] == (str(photo),)
    run = slimport("verify", small_v2, "--image", photo, "--reference", tmp_path / "t.npz")
    assert (run.code, run.out) == (2, "")
    assert "--reference and --image exclude each other" in run.err
    run = slimport("verify", small_v2, "--image", photo, "--size", "33x46", "--dtype", "float64")
    assert run.code == 0
    assert "batch 1 of 33x46" in run.out


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Input(files=("no.png",)), "no.png: no such file"),
        (Input(files=("no.png",), batch=1), "--image: is the whole input"),
        (Input(files=("no.png",), seed=0), "--image: is the whole input"),
    ],
)
def test_what_is_no_image_is_refused(asked: Input, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_images(SMALL, {}, asked)


def test_a_network_that_takes_no_images_is_refused(photo: Path) -> None:
    with pytest.raises(InputError, match="resnet_v2 takes 4 channels, and images have 1 or 3"):
        make_images(replace(SMALL, in_channels=4), {}, Input(files=(photo,)))


def test_both_dtypes_are_measured_where_none_is_asked_for(small_v2: Path, small_trace: Path) -> None:
    assert list(verify(small_v2, reference=small_trace).by_dtype) == ["float64", "float32"]
    assert list(verify(small_v2, reference=small_trace, dtype="float64").by_dtype) == ["float64"]


def test_a_network_of_one_size_is_verified_as_it_is_given(tmp_path: Path) -> None:
    checkpoint = save_small(tmp_path / "vgg.ckpt", "v2", SMALL_NETWORKS["vgg"], "vgg")
    trace(checkpoint, tmp_path / "t.npz")
    report = verify(checkpoint, reference=tmp_path / "t.npz")
    assert report.ok
    assert report.input_shape == (2, 29, 28, 3)
