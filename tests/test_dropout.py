"""Dropout keeps as much as it is told, scaled so that the mean stays, in training alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import SMALL_NETWORKS

import slimport.keras
import slimport.pytorch

KEPT = 0.75
ONES = np.ones((1, 2, 2, 10_000), np.float32)


@pytest.mark.parametrize("scope", ["dropout6", "dropout7"])
def test_dropout_keeps_what_it_is_told_in_training_alone(scope: str) -> None:
    network = SMALL_NETWORKS["vgg"]
    module = slimport.pytorch.build(network, dropout_keep_prob=KEPT).get_submodule(scope)
    layer = slimport.keras.build(network, dropout_keep_prob=KEPT).get_layer(scope)
    in_pytorch = [module.train(training)(torch.from_numpy(ONES)).numpy() for training in (True, False)]
    in_keras = [np.asarray(layer(ONES, training=training)) for training in (True, False)]
    for trained, evaluated in (in_pytorch, in_keras):
        assert abs(np.count_nonzero(trained) / trained.size - KEPT) < 0.02
        assert trained.max() == pytest.approx(1 / KEPT)
        np.testing.assert_array_equal(evaluated, ONES)
