"""TF-Slim's end points, from TensorFlow's own graph and, where it can, TensorFlow's own checkpoint reader."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from converters import frameworks
from converters.mapping import Array
from converters.sources import Source
from slimport import spec


def weights(source: Source) -> tuple[dict[str, Array], str]:
    """The source's variables by relative name, and whose reader read them: `tensorflow` or `slimport`.

    TensorFlow reads what it can, so that a mistake of slimport's reader cannot hide on both sides of the comparison. It
    refuses some files that slimport reads, and a converted file is not one that it knows.
    """
    if source.checkpoint is not None:
        frameworks.import_nets()
        import tensorflow as tf

        try:
            reader = tf.train.load_checkpoint(str(source.checkpoint.path))
            return {name: reader.get_tensor(spec.scoped(source.scope, name)) for name in source.dtypes}, "tensorflow"
        except (tf.errors.OpError, ValueError, TypeError, RuntimeError):
            pass
    return source.arrays(), "slimport"


def record(
    network: spec.Network,
    scope: str,
    weights: Mapping[str, Array],
    inputs: Iterable[Array],
    dtype: str,
    **arguments: Any,
) -> Iterator[dict[str, Array]]:
    """Runs the TF-Slim graph on the CPU, once for each of `inputs`.

    Args:
      network: the description.
      scope: the model's variable scope.
      weights: variables by name relative to the scope.
      inputs: images [batch, height, width, in_channels].
      dtype: `float32` or `float64`, of the whole graph.
      arguments: `global_pool`, `output_stride`, `spatial_squeeze`.

    Yields:
      {slim end point name: array [batch, height, width, channels], or [batch, classes] where squeezed}, in slim's
      order.

    Raises:
      ValueError: TF-Slim refuses the arguments.
    """
    nets = frameworks.import_nets()
    import tensorflow.compat.v1 as tf
    import tf_slim as slim

    resnet_utils = import_module(f"{nets.__name__}.resnet_utils")
    builder = import_module(f"{nets.__name__}.{network.family}")
    # TensorFlow's fused BatchNorm, what TF-Slim runs in float32, has no float64 kernel.
    fused = False if dtype == "float64" else None
    with tf.Graph().as_default(), tf.device("/cpu:0"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = tf.placeholder(dtype, (None, None, None, network.in_channels))
        with slim.arg_scope(resnet_utils.resnet_arg_scope(batch_norm_fused=fused)):
            _, end_points = builder.build(network, images, is_training=False, scope=scope or "", **arguments)
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        with tf.Session(config=tf.ConfigProto(device_count={"GPU": 0})) as session:
            # A variable's initializer assigns its second input, which is fed with the weights.
            initializers = {name: variables[spec.scoped(scope, name)].initializer for name in weights}
            session.run(
                list(initializers.values()),
                {initializers[name].inputs[1]: array.astype(dtype) for name, array in weights.items()},
            )
            for value in inputs:
                values = session.run(dict(end_points), {images: value.astype(dtype)})
                # slim writes the root scope's end points as `/logits`.
                yield {name.lstrip("/"): values[name] for name in end_points}
