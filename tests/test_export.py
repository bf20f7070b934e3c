"""The PyTorch ports under `torch.export` and `torch.compile`: one program for every height and width."""

from __future__ import annotations

import itertools

import numpy as np
import tensorflow as tf
import torch
from conftest import SMALL, pytorch_port, random_images, random_weights

from slimport.pytorch import layers

ANY_SIDES = (({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},),)


POOL1 = SMALL.graph().nodes[2]


def pools(program: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if "pool" in str(node.target) or "pad" in str(node.target)}


def test_pool1_is_tensorflows_at_every_parity_with_and_without_known_sides() -> None:
    assert POOL1.scope == "pool1"
    exported = torch.export.export(
        layers.MaxPool2d(POOL1), (torch.rand(1, 2, 8, 8),), dynamic_shapes=ANY_SIDES
    ).module()
    for height, width in itertools.product((6, 7, 12, 13), repeat=2):
        # Negative, so that a padding of zeros would win.
        images = random_images((1, height, width, 2)) - 2
        expected = tf.nn.max_pool2d(images, 3, 2, "SAME").numpy()
        for pool in (layers.MaxPool2d(POOL1), exported):
            pooled = pool(torch.from_numpy(images.transpose(0, 3, 1, 2)))
            np.testing.assert_array_equal(pooled.numpy().transpose(0, 2, 3, 1), expected)


def test_pool1_copies_nothing_where_the_sides_are_known() -> None:
    example = (torch.rand(1, 2, 9, 8),)
    assert pools(torch.export.export(layers.MaxPool2d(POOL1), example)) == {"aten.max_pool2d.default"}
    assert len(pools(torch.export.export(layers.MaxPool2d(POOL1), example, dynamic_shapes=ANY_SIDES))) == 2


def test_the_model_compiles_whole_at_known_and_unknown_sides() -> None:
    model = pytorch_port(SMALL, random_weights(SMALL))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    # The second size makes the sides symbols.
    for size in ((33, 40), (46, 33)):
        images = torch.from_numpy(random_images((1, 3, *size)))
        with torch.inference_mode():
            torch.testing.assert_close(compiled(images), model(images), rtol=0, atol=0)
