"""Programs of TensorFlow 1, which disable eager execution, get Keras models with their weights, and verify them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

PROGRAM = """
import sys

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_eager_execution()

from converters import convert, load_keras, open_checkpoint, verify

path, trace, folder = sys.argv[1:]
given = {"reference": trace, "dtype": "float64"}
model = load_keras(path)
variables = {v.path: v.value for layer in model.layers for v in layer.weights}
images = tf.placeholder(tf.float32, (None, 33, 46, 3))
logits = model(images)
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    kernel, _ = session.run([variables["logits/kernel"], logits], {images: np.zeros((1, 33, 46, 3))})
    np.testing.assert_array_equal(kernel, open_checkpoint(path)["resnet_v2/logits/weights"])
    assert verify(path, model, **given).ok
    variables["logits/bias"].load(np.ones(7), session)
    assert verify(path, model, **given).weights_different == ("resnet_v2/logits/biases",)
# Without a session, the initializers' values are the model's.
assert verify(path, model, **given).ok
convert(path, f"{folder}/m.keras")
assert verify(path, f"{folder}/m.keras", **given).ok
assert verify(path, target="keras", **given).ok
assert not tf.executing_eagerly()
print("all as it must be")
"""


def test_after_disabling_eager_execution_a_keras_model_has_its_weights_and_is_verified(
    small_v2: Path, small_trace: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, small_v2, small_trace, tmp_path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        check=False,
    )
    assert done.stdout.strip() == "all as it must be", done.stderr
