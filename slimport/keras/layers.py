"""TF-Slim's layers from stock Keras layers: the same arithmetic and padding. Tensors are NHWC.

A scope `a/b` makes layers named `a__b`, `a__b__BatchNorm`, `a__b__Relu`: Keras refuses `/` in a name, and its torch
backend refuses `.`.
"""

from __future__ import annotations

from typing import Any

import keras

from slimport import spec

Tensor = Any


def layer_name(scope: str) -> str:
    """The Keras name of a slim scope."""
    return scope.replace("/", "__")


def images(in_channels: int, dtype: Any) -> Tensor:
    """A network's input [batch, height, width, in_channels], of any size."""
    return keras.Input((None, None, in_channels), dtype=dtype and keras.DTypePolicy(dtype).compute_dtype)


def model(images: Tensor, net: Tensor, scope: str) -> Any:
    """The network from `images` to `net`, named by its scope."""
    return keras.Model(images, net, name=layer_name(scope) or None)


def batch_norm(inputs: Tensor, scope: str, dtype: Any) -> Tensor:
    """`slim.batch_norm` as `resnet_arg_scope` sets it. Keras's momentum is slim's decay."""
    return keras.layers.BatchNormalization(
        momentum=spec.BATCH_NORM_DECAY, epsilon=spec.BATCH_NORM_EPSILON, dtype=dtype, name=layer_name(scope)
    )(inputs)


def relu(inputs: Tensor, scope: str, dtype: Any) -> Tensor:
    """ReLU, as the activation of the layer `scope`."""
    return keras.layers.ReLU(dtype=dtype, name=layer_name(f"{scope}/Relu"))(inputs)


def batch_norm_relu(inputs: Tensor, scope: str, dtype: Any) -> Tensor:
    """`batch_norm` and its ReLU."""
    return relu(batch_norm(inputs, scope, dtype), scope, dtype)


def conv2d(
    inputs: Tensor,
    depth: int,
    kernel_size: int,
    scope: str,
    dtype: Any,
    stride: int = 1,
    rate: int = 1,
    *,
    normalized: bool = False,
    activated: bool | None = None,
    valid: bool = False,
) -> Tensor:
    """`slim.conv2d` or `conv2d_same`: a convolution with bias, or, `normalized`, one with BatchNorm.

    A normalized one is `activated` by ReLU if not said otherwise (slim's `activation_fn=None`), another is not.
    As in `conv2d_same`, a strided kernel wider than 1 is padded explicitly, alike on both sides: SAME would pad an even
    side at its end only. With slim's VALID there is no padding.
    """
    if stride > 1 and kernel_size > 1:
        side = rate * (kernel_size - 1) // 2
        inputs = keras.layers.ZeroPadding2D(side, dtype=dtype, name=layer_name(f"{scope}/Pad"))(inputs)
        valid = True
    net = keras.layers.Conv2D(
        depth,
        kernel_size,
        strides=stride,
        padding="valid" if valid else "same",
        dilation_rate=rate,
        use_bias=not normalized,
        dtype=dtype,
        name=layer_name(scope),
    )(inputs)
    if normalized:
        net = batch_norm(net, f"{scope}/BatchNorm", dtype)
    return relu(net, scope, dtype) if activated or (activated is None and normalized) else net


def add(shortcut: Tensor, residual: Tensor, scope: str, dtype: Any, *, activated: bool = False) -> Tensor:
    """The sum of a residual unit, `activated` by ReLU where the unit is not a preactivation."""
    net = keras.layers.Add(dtype=dtype, name=layer_name(scope))([shortcut, residual])
    return relu(net, scope, dtype) if activated else net


def max_pool2d(inputs: Tensor, kernel_size: int, stride: int, scope: str, dtype: Any) -> Tensor:
    """`slim.max_pool2d` with SAME padding, which Keras pads as TensorFlow does on every backend."""
    return keras.layers.MaxPooling2D(
        kernel_size, strides=stride, padding="same", dtype=dtype, name=layer_name(f"{scope}/MaxPool")
    )(inputs)


def subsample(inputs: Tensor, factor: int, scope: str, dtype: Any) -> Tensor:
    """Every `factor`-th row and column, as slim's 1x1 max pool."""
    return inputs if factor == 1 else max_pool2d(inputs, 1, factor, scope, dtype)
