"""TF-Slim graph code, drop-in for slim's own `nets/`, on TensorFlow 2.16 and newer.

Importing this package repairs tf_slim, which was written for TensorFlow 1: see `slimport.nets.repair`. The graph
functions need graph mode (`with tf.Graph().as_default():`).
"""

from __future__ import annotations

from slimport.nets import repair

repair.restore_names()
