"""Names and layouts go over by rule, and come back."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import torch
from conftest import SMALL, keras_name, random_images, random_weights

from converters import mapping


def test_a_name_in_pytorch_and_in_keras() -> None:
    slim = "block1/unit_1/bottleneck_v2/conv2/BatchNorm/gamma"
    assert mapping.pytorch_name(slim) == "block1.unit_1.bottleneck_v2.conv2.BatchNorm.weight"
    assert mapping.slim_name("block1__unit_1__bottleneck_v2__conv2__BatchNorm", "gamma") == slim


def test_names_come_back() -> None:
    names = list(SMALL.variables())
    pytorch = [mapping.pytorch_name(name) for name in names]
    assert [mapping.slim_names(pytorch)[name] for name in pytorch] == names
    assert [mapping.slim_name(*keras_name(name)) for name in names] == names


def test_layouts_come_back() -> None:
    for name, array in random_weights(SMALL).items():
        there = mapping.pytorch_layout(name, array)
        assert there.shape == mapping.pytorch_shape(name, array.shape)
        np.testing.assert_array_equal(mapping.pytorch_array(name, array), there)
        assert mapping.pytorch_array(name, array).flags.c_contiguous
        assert mapping.slim_shape(name, there.shape) == array.shape
        np.testing.assert_array_equal(mapping.slim_layout(name, there), array)


@pytest.mark.parametrize("shape", [(3, 3, 65, 130), (7, 7, 3, 64), (1, 1, 200, 1), (5, 1, 1, 129), (70, 131)])
def test_a_tiled_transposition_is_a_transposition(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(mapping.pytorch_array("x/weights", array), mapping.pytorch_layout("x/weights", array))


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_depthwise_kernel_computes_in_pytorch_what_it_does_in_tensorflow(multiplier: int) -> None:
    kernel, images = random_images((3, 2, 4, multiplier), 1), random_images((2, 5, 6, 4))
    layout = mapping.pytorch_array("x/depthwise_weights", kernel)
    assert layout.shape == mapping.pytorch_shape("x/depthwise_weights", kernel.shape)
    np.testing.assert_array_equal(layout, mapping.pytorch_layout("x/depthwise_weights", kernel))
    found = torch.nn.functional.conv2d(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(layout), groups=4)
    slim = tf.nn.depthwise_conv2d(images, kernel, [1, 1, 1, 1], "VALID")
    np.testing.assert_allclose(found.permute(0, 2, 3, 1), slim, rtol=1e-5, atol=1e-6)


def test_a_fully_connected_weight_is_transposed() -> None:
    array = np.arange(6).reshape(2, 3)
    assert mapping.pytorch_layout("fc/weights", array).tolist() == array.T.tolist()
