"""Slim's own networks of `research/slim/nets` in tensorflow/models, where they are installed.

They are a package `nets`, on the path of those who work with a clone, and part of the PyPI package
`tf-models-research-object-detection` (scripts/judge.txt has the tested version). Their code is from before TensorFlow
2.16 and NumPy 1.24; what it lacks is given back its name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

Tensor = Any
PACKAGE = "research/slim"
"""The judge's name, where `slimport verify` says whose code was the judge."""


def module(name: str) -> ModuleType:
    """A module of `nets`: `inception_v4`, `mobilenet.mobilenet_v2`.

    Raises:
      ModuleNotFoundError: slim's networks are not installed.
    """
    if "nets" not in sys.modules:
        try:
            importlib.import_module("nets.inception_v4")
        except ModuleNotFoundError:
            sys.modules.pop("nets", None)
            sys.modules["nets"] = importlib.import_module("object_detection.nets")
    if not hasattr(np, "int"):
        np.int = int  # type: ignore[attr-defined]
    if "tensorflow.contrib" not in sys.modules:
        contrib, training = ModuleType("tensorflow.contrib"), ModuleType("tensorflow.contrib.training")
        training.HParams = HParams  # type: ignore[attr-defined]
        contrib.training = training  # type: ignore[attr-defined]
        sys.modules.update({"tensorflow.contrib": contrib, "tensorflow.contrib.training": training})
    return importlib.import_module(f"nets.{name}")


@contextmanager
def with_depths(module: ModuleType, depths: Mapping[str, int]) -> Iterator[None]:
    """Gives layers of a module's networks other depths than slim's, which are written into its code.

    Args:
      module: of `nets`, as it was returned by `module`.
      depths: by the layers' scopes.
    """
    slim = module.slim

    def layer(function: Any) -> Any:
        @wraps(function)
        def with_depth(inputs: Any, depth: int, *args: Any, scope: str, **settings: Any) -> Any:
            return function(inputs, depths.get(scope, depth), *args, scope=scope, **settings)

        return with_depth

    changed = {name: layer(getattr(slim, name)) for name in ("conv2d", "fully_connected")}
    module.slim = SimpleNamespace(**{**vars(slim), **changed})  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.slim = slim  # type: ignore[attr-defined]


class HParams:
    """`tf.contrib.training.HParams` as far as NASNet's configurations need it: values by name."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    def set_hparam(self, name: str, value: Any) -> None:
        """Sets a value."""
        setattr(self, name, value)

    def values(self) -> dict[str, Any]:
        """All values."""
        return dict(vars(self))


def lrn(net: Tensor, depth_radius: int, bias: float, alpha: float, beta: float, name: str | None = None) -> Tensor:
    """`tf.nn.lrn` written out where its op has no kernel, in float64."""
    if net.dtype.base_dtype != tf.float64:
        return tf.nn.lrn(net, depth_radius, bias, alpha, beta, name)
    padded = tf.pad(tf.square(net), [*[[0, 0]] * 3, [depth_radius, depth_radius]])
    sums = tf.add_n([padded[..., i : i + net.shape[-1]] for i in range(2 * depth_radius + 1)])
    return net / (bias + alpha * sums) ** beta


def resize_bilinear(net: Tensor, size: Tensor, *, align_corners: bool, half_pixel_centers: bool = False) -> Tensor:
    """TensorFlow's op, which has no kernel that gives float64, or the same in float64.

    Args:
      net: [batch, height, width, channels], float32 or float64.
      size: height and width of the result.
    """
    if net.dtype.base_dtype != tf.float64:
        return tf.image.resize_bilinear(net, size, align_corners, half_pixel_centers=half_pixel_centers)
    for axis in (1, 2):
        old, new = tf.shape(net)[axis], size[axis - 1]
        corners = tf.logical_and(align_corners, new > 1)
        # The places of the new pixels, in float32 as in the op's kernel.
        step = tf.where(corners, (old - 1) / tf.maximum(new - 1, 1), old / new)
        at = tf.cast(tf.range(new), tf.float32)
        step = tf.cast(step, tf.float32)
        at = (at + 0.5) * step - 0.5 if half_pixel_centers else at * step
        share = tf.cast(at - tf.floor(at), net.dtype)[:, None]
        share = share[..., None] if axis == 1 else share
        low = tf.gather(net, tf.maximum(tf.cast(tf.floor(at), tf.int32), 0), axis=axis)
        high = tf.gather(net, tf.minimum(tf.cast(tf.math.ceil(at), tf.int32), old - 1), axis=axis)
        net = low * (1 - share) + high * share
    return net
