"""Writes a slim checkpoint with tf_slim's own network and TensorFlow's own Saver, every variable random.

    python -m scripts.make_checkpoint resnet_v2_50 resnet_v2_50.ckpt [--format v1|v2] [--classes N] [--seed 0]
    python -m scripts.make_checkpoint resnet_v2_50 resnet_v2_50.ckpt --without-tensorflow [--classes N] [--seed 0]

The second needs no TensorFlow: slimport writes the same variables, as a V2 checkpoint or as whatever the path's suffix
names. So a machine with only PyTorch makes the weights that a trace was recorded with elsewhere.

Never BatchNorm's initial 0 and 1, which hide mistakes: a gamma and a moving variance swapped, say.
"""

from __future__ import annotations

import argparse
import importlib
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters import frameworks
from converters.formats import OpenFile, target_of
from converters.parity.tf_slim import building_graphs, feeding_variables
from converters.weights.recognize import Recognition
from converters.weights.source import Source
from slimport import networks

warnings.filterwarnings("ignore", message="`layer.apply` is deprecated")

# The families of which tf_slim has a module, with the module's arg scope.
ARG_SCOPES = {
    "resnet_v1": "resnet_arg_scope",
    "resnet_v2": "resnet_arg_scope",
    "vgg": "vgg_arg_scope",
    "inception_v3": "inception_v3_arg_scope",
}


def random_value(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> Any:
    """A float32 value for a slim variable, of a size that keeps activations finite through 200 layers."""
    leaf = name.rpartition("/")[2]
    if leaf.endswith("weights"):
        # A depthwise kernel has one channel to add up.
        inputs = np.prod(shape[:2] if leaf == "depthwise_weights" else shape[:-1])
        return generator.normal(0, inputs**-0.5, shape).astype(np.float32)
    if leaf in ("gamma", "moving_variance"):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    return generator.normal(0, 0.1, shape).astype(np.float32)


def save(
    build: Any, path: str | os.PathLike[str], file_format: str, seed: int = 0, in_channels: int = 3, size: int = 64
) -> None:
    """Saves a graph's variables, all random.

    Args:
      build: called with images [1, size, size, in_channels] in a new graph.
      path: the V1 file, or the V2 prefix.
      file_format: `v1` or `v2`.
      seed: of the values.
      in_channels: of the images.
      size: of the images.
    """
    frameworks.require("slimport.nets")
    import tensorflow.compat.v1 as tf

    tf.logging.set_verbosity(tf.logging.ERROR)
    generator = np.random.default_rng(seed)
    with tf.Graph().as_default(), tf.Session() as session, building_graphs(), feeding_variables():
        build(tf.placeholder(tf.float32, (1, size, size, in_channels)))
        variables = tf.global_variables()
        values = {
            v.initializer.inputs[1]: random_value(v.op.name, tuple(v.shape.as_list()), generator) for v in variables
        }
        session.run([v.initializer for v in variables], values)
        version = tf.train.SaverDef.V1 if file_format == "v1" else tf.train.SaverDef.V2
        saver = tf.train.Saver(variables, write_version=version)
        saver.save(session, os.fspath(path), write_meta_graph=False, write_state=False)


def save_network(
    name: str, path: str | os.PathLike[str], file_format: str, num_classes: int | None, seed: int = 0
) -> None:
    """Saves one of `tf_slim.nets`'s networks."""
    frameworks.require("slimport.nets")
    import tf_slim as slim

    network = networks.NETWORKS[name]
    module = importlib.import_module(f"tf_slim.nets.{network.family}")

    def build(images: Any) -> None:
        with slim.arg_scope(getattr(module, ARG_SCOPES[network.family])()):
            getattr(module, name)(images, num_classes, is_training=False)

    save(build, path, file_format, seed, size=network.default_image_size)


def random_variables(network: networks.Network, seed: int = 0) -> dict[str, Any]:
    """A value for every variable of a network, by name relative to its scope: those that `save_network` gives it."""
    generator = np.random.default_rng(seed)
    return {name: random_value(name, shape, generator) for name, shape in network.variables().items()}


def save_without_tensorflow(network: networks.Network, path: Path, seed: int = 0, scope: str | None = None) -> None:
    """Writes a network of random variables to any target of slimport's, which the path's suffix names.

    Args:
      network: the description.
      path: the file, or the prefix of a `.ckpt`.
      seed: of the values.
      scope: of the model; None is slim's.
    """
    variables = random_variables(network, seed)
    recognition = Recognition(network, network.default_scope if scope is None else scope, (), {})
    dtypes = {name: value.dtype for name, value in variables.items()}
    file = OpenFile(path, "random", (), {}, lambda _: iter(()))
    source = Source(file, recognition, dtypes, lambda: iter(variables.items()))
    target_of(path).write(source, path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name, network in networks.NETWORKS.items() if network.family in ARG_SCOPES]
    parser.add_argument("network", choices=names)
    parser.add_argument("path", type=Path)
    parser.add_argument("--format", choices=("v1", "v2"), default="v2")
    parser.add_argument("--classes", type=int, help="[as many as the ImageNet release has]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-tensorflow", action="store_true")
    arguments = parser.parse_args()
    classes = arguments.classes or networks.NETWORKS[arguments.network].num_classes
    arguments.path.parent.mkdir(parents=True, exist_ok=True)
    if arguments.without_tensorflow:
        network = replace(networks.NETWORKS[arguments.network], num_classes=classes)
        save_without_tensorflow(network, arguments.path, arguments.seed)
        print(f"{arguments.path}: {arguments.network}, {classes} classes, seed {arguments.seed}")
    else:
        save_network(arguments.network, arguments.path, arguments.format, classes, arguments.seed)
        print(f"{arguments.path}: {arguments.network}, {classes} classes, format {arguments.format}")


if __name__ == "__main__":
    main()
