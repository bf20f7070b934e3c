"""Repairs tf_slim 1.1.0, which uses names that TensorFlow and tf_keras have moved since TensorFlow 1.15.

What tf_slim lacks are names only: what they stand for still exists, and does the same. Each is given its old name back.
A name that exists is left alone, so that with an older TensorFlow, or in a second call, nothing changes.

Two things are not repaired. `slim.learning.train` starts threads, which need `tf.compat.v1.disable_eager_execution()`:
without it, TensorFlow 2 runs a new thread eagerly. `slim.assign_from_checkpoint` of a variable in partitions indexes an
array by a list of slices, which NumPy 1.23 and newer refuse.
"""

from __future__ import annotations

import importlib
import sys

_MOVED = {
    # Whether a learning rate, a multiplier or `is_training` is a tensor, and whether a gradient is sparse.
    "framework.ops": ("Tensor", "IndexedSlices"),
    # Legacy layers of inputs with more than two dimensions, metrics, decoders of tf.Example.
    "ops.array_ops": ("stack", "unstack"),
    # Layers whose `is_training` is a tensor, metrics, losses of metric learning, decoders of images.
    "ops.control_flow_ops": ("Assert", "case", "cond", "while_loop"),
}
"""The names of `tf` that tf_slim looks for in modules of `tensorflow.python`."""


def restore_names() -> None:
    """Gives TensorFlow and tf_keras the old names that tf_slim looks for, where they are missing."""
    # `tf.compat.v1.layers` looks for `tf_keras.legacy_tf_layers`, which tf_keras keeps in `tf_keras.src`.
    old, new = "tf_keras.legacy_tf_layers", "tf_keras.src.legacy_tf_layers"
    for part in ("", ".base", ".convolutional", ".core", ".normalization", ".pooling"):
        if old + part not in sys.modules:
            sys.modules[old + part] = importlib.import_module(new + part)

    import tensorflow.compat.v1 as tf
    from tensorflow.python.framework import ops
    from tensorflow.python.ops import variable_scope

    for module_name, names in _MOVED.items():
        module = importlib.import_module(f"tensorflow.python.{module_name}")
        for name in names:
            if not hasattr(module, name):
                setattr(module, name, getattr(tf, name))
    # What `slim.local_variable` and `slim.global_variable` make; elsewhere its name is `tf.Variable`.
    if not hasattr(variable_scope, "variable"):
        variable_scope.variable = tf.Variable

    from tf_slim.layers import layers

    # The gradient of `slim.gdn`: tf_slim defines it, but only tf.contrib registered it.
    try:
        ops.gradient_registry.lookup("GDNLowerBound")
    except LookupError:
        tf.RegisterGradient("GDNLowerBound")(layers.GDN._lower_bound_grad)
