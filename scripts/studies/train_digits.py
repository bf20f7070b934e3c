"""Trains a small ResNet v2 with slim on scikit-learn's digits, and saves it as slim training does.

    python -m scripts.studies.train_digits digits/model.ckpt [--steps 300] [--format v1|v2]

The checkpoint has real statistics, and an optimizer's slots and the global step beside the weights.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from converters import frameworks

warnings.filterwarnings("ignore", message="`layer.apply` is deprecated")

SCOPE = "digits/resnet_v2"
NUM_CLASSES = 10


def digits(side: int = 32) -> tuple[Any, Any]:
    """1797 images [n, side, side, 1] of float32 in [-1, 1], and their classes.

    Args:
      side: a multiple of 8, the side of what scikit-learn ships.

    Raises:
      InputError: scikit-learn is not installed.
    """
    data = frameworks.require("sklearn.datasets").load_digits()
    images = data.images.repeat(side // 8, axis=1).repeat(side // 8, axis=2)[..., np.newaxis]
    return (images / 8 - 1).astype(np.float32), data.target


def train(path: str | os.PathLike[str], steps: int = 300, file_format: str = "v2", seed: int = 0) -> float:
    """Trains for some steps of momentum SGD and saves all variables; returns the accuracy of the saved network.

    The accuracy is measured with the moving averages, on the images that training did not see.
    """
    frameworks.require("slimport.nets")
    import tensorflow.compat.v1 as tf
    import tf_slim as slim
    from tf_slim.nets import resnet_v2

    tf.logging.set_verbosity(tf.logging.ERROR)
    images, classes = digits()
    held_out = slice(1500, None)
    blocks = [
        resnet_v2.resnet_v2_block("block1", base_depth=8, num_units=2, stride=2),
        resnet_v2.resnet_v2_block("block2", base_depth=16, num_units=2, stride=1),
    ]

    def network(inputs: Any, is_training: bool, reuse: bool | None = None) -> Any:
        # A decay that a few hundred steps can follow; it leaves no trace in the network's function.
        with slim.arg_scope(resnet_v2.resnet_arg_scope(batch_norm_decay=0.9)):
            net, _ = resnet_v2.resnet_v2(inputs, blocks, NUM_CLASSES, is_training, reuse=reuse, scope=SCOPE)
        return tf.squeeze(net, [1, 2])

    generator = np.random.default_rng(seed)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(seed)
        inputs = tf.placeholder(tf.float32, (None, 32, 32, 1))
        labels = tf.placeholder(tf.int64, (None,))
        tf.losses.sparse_softmax_cross_entropy(labels, network(inputs, is_training=True))
        tf.train.get_or_create_global_step()
        optimizer = tf.train.MomentumOptimizer(0.05, 0.9)
        train_op = slim.learning.create_train_op(tf.losses.get_total_loss(), optimizer)
        predicted = tf.argmax(network(inputs, is_training=False, reuse=True), 1)
        session.run(tf.global_variables_initializer())
        for _ in range(steps):
            batch = generator.integers(held_out.start, size=64)
            session.run(train_op, {inputs: images[batch], labels: classes[batch]})
        version = tf.train.SaverDef.V1 if file_format == "v1" else tf.train.SaverDef.V2
        tf.train.Saver(write_version=version).save(session, os.fspath(path), write_meta_graph=False)
        return float(np.mean(session.run(predicted, {inputs: images[held_out]}) == classes[held_out]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--format", choices=("v1", "v2"), default="v2")
    arguments = parser.parse_args()
    arguments.path.parent.mkdir(parents=True, exist_ok=True)
    accuracy = train(arguments.path, arguments.steps, arguments.format)
    print(f"{arguments.path}: {arguments.steps} steps, {accuracy:.1%} of the held-out digits right")


if __name__ == "__main__":
    main()
