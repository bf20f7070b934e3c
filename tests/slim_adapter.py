"""A pytest plugin that puts `slimport.nets` in the place of `tf_slim.nets`, for tf_slim's own tests.

tf_slim's ResNets have an older signature, without `spatial_squeeze` and what came after it before `reuse`; this
is the only thing adapted.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import tensorflow.compat.v1 as tf
import tf_slim.nets

from slimport.nets import resnet_utils, resnet_v1, resnet_v2, vgg

# Halves the time in which TensorFlow builds a graph (see `converters.parity.tf_slim.building_graphs`).
tf.disable_tensor_equality()


def old_signature(generator: Callable[..., Any]) -> Callable[..., Any]:
    """A ResNet's generator with tf_slim's order of arguments, and its logits of rank 4."""

    def resnet(
        inputs: Any,
        blocks: Any,
        num_classes: int | None = None,
        is_training: bool = True,
        global_pool: bool = True,
        output_stride: int | None = None,
        include_root_block: bool = True,
        reuse: bool | None = None,
        scope: str | None = None,
    ) -> Any:
        early = (num_classes, is_training, global_pool, output_stride, include_root_block)
        return generator(inputs, blocks, *early, spatial_squeeze=False, reuse=reuse, scope=scope)

    return resnet


def replace(name: str, module: types.ModuleType, **changed: Any) -> None:
    """Makes `tf_slim.nets.<name>` a copy of the module with some names changed."""
    adapter = types.ModuleType(f"tf_slim.nets.{name}")
    adapter.__dict__.update(module.__dict__, **changed)
    setattr(tf_slim.nets, name, adapter)
    sys.modules[adapter.__name__] = adapter


replace("resnet_utils", resnet_utils)
replace("resnet_v1", resnet_v1, resnet_v1=old_signature(resnet_v1.resnet_v1))
replace("resnet_v2", resnet_v2, resnet_v2=old_signature(resnet_v2.resnet_v2))
replace("vgg", vgg)
