"""TF-Slim graph code, drop-in for slim's own `nets/`, on TensorFlow 2.16 and newer.

Importing this package repairs tf_slim: TensorFlow's `tf.compat.v1.layers` looks for `tf_keras.legacy_tf_layers`, which
tf_keras keeps at `tf_keras.src.legacy_tf_layers`. The old names are registered in `sys.modules`, and nothing else is
changed. The graph functions need graph mode (`with tf.Graph().as_default():`).
"""

from __future__ import annotations

import importlib
import sys


def _register_legacy_tf_layers() -> None:
    old, new = "tf_keras.legacy_tf_layers", "tf_keras.src.legacy_tf_layers"
    for part in ("", ".base", ".convolutional", ".core", ".normalization", ".pooling"):
        if old + part not in sys.modules:
            sys.modules[old + part] = importlib.import_module(new + part)


_register_legacy_tf_layers()
