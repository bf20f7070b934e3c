"""Names and layouts go over by rule, and come back."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import SMALL, keras_name, random_weights

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


def test_a_fully_connected_weight_is_transposed() -> None:
    array = np.arange(6).reshape(2, 3)
    assert mapping.pytorch_layout("fc/weights", array).tolist() == array.T.tolist()
