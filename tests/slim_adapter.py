"""tf_slim's own tests of its networks, with `slimport.nets` in the place of `tf_slim.nets`.

tf_slim's ResNets have an older signature, without `spatial_squeeze` and what came after it before `reuse`; this
is the only thing adapted.
"""

from __future__ import annotations

import importlib
import types
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

import tf_slim.nets
from tensorflow.python.eager import context
from tensorflow.python.framework import ops

from converters.parity.tf_slim import building_graphs
from slimport.nets import resnet_utils, resnet_v1, resnet_v2, vgg


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


def changed(module: types.ModuleType, **names: Any) -> types.ModuleType:
    """A copy of a module with some names changed."""
    copy = types.ModuleType(module.__name__)
    copy.__dict__.update(module.__dict__, **names)
    return copy


MODULES = {
    "resnet_utils": resnet_utils,
    "resnet_v1": changed(resnet_v1, resnet_v1=old_signature(resnet_v1.resnet_v1)),
    "resnet_v2": changed(resnet_v2, resnet_v2=old_signature(resnet_v2.resnet_v2)),
    "vgg": vgg,
}


def tests_of(name: str) -> dict[str, unittest.TestCase]:
    """The tests of one of tf_slim's modules, by class and method, without the one that TensorFlow skips in each."""
    # `from tf_slim.nets import ...` gives the attribute.
    with mock.patch.multiple(tf_slim.nets, **MODULES):
        module = importlib.import_module(f"tf_slim.nets.{name}")
    loader = unittest.defaultTestLoader
    return {
        f"{case.__name__}.{method}": case(method)
        for case in vars(module).values()
        if isinstance(case, type) and issubclass(case, unittest.TestCase)
        for method in loader.getTestCaseNames(case)
        if method != "test_session"
    }


def run(case: unittest.TestCase) -> list[str]:
    """Runs a test; what went wrong, or was skipped."""
    result = unittest.TestResult()
    with building_graphs(), context.graph_mode():
        case.run(result)
        # The next one's graph is smaller without it.
        ops.reset_default_graph()
    wrong = [text for _, text in (*result.errors, *result.failures, *result.skipped)]
    return wrong if result.testsRun == 1 else [*wrong, "it did not run"]
