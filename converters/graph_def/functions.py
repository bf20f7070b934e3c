"""Elementwise functions: TensorFlow's op, the vocabulary's name, and NumPy's computation, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from converters.graph_def.proto import Array

_erf = np.vectorize(math.erf, otypes=[float])
# What `selu` of tensorflow/core/kernels/relu_op_functor.h multiplies by.
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def relu6(x: Array) -> Array:
    return np.clip(x, 0, 6)


def elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def selu(x: Array) -> Array:
    return _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0)))


def leaky_relu(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, x * slope)


def _divide(a: Any, b: Any) -> Any:
    # Sides of shapes are divided as whole numbers, where they are such.
    return a // b if any(getattr(x, "dtype", np.dtype(float)).kind == "O" for x in (a, b)) else a / b


# TensorFlow's op: the function's name in the vocabulary, and what computes it.
FUNCTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "Add": ("add", lambda *xs: sum(xs[1:], xs[0])),
    "AddV2": ("add", lambda *xs: sum(xs[1:], xs[0])),
    "AddN": ("add", lambda *xs: sum(xs[1:], xs[0])),
    "Sub": ("subtract", lambda a, b: a - b),
    "Mul": ("multiply", lambda a, b: a * b),
    "RealDiv": ("divide", _divide),
    "Div": ("divide", _divide),
    "DivNoNan": ("divide_no_nan", lambda a, b: np.where(b == 0, 0, a / np.where(b == 0, 1, b))),
    "FloorDiv": ("floor_divide", lambda a, b: a // b),
    "FloorMod": ("floor_mod", lambda a, b: a % b),
    "TruncateDiv": ("floor_divide", lambda a, b: a // b),
    "Mod": ("floor_mod", lambda a, b: a % b),
    "Maximum": ("maximum", np.maximum),
    "Minimum": ("minimum", np.minimum),
    "Pow": ("power", np.power),
    "SquaredDifference": ("squared_difference", lambda a, b: (a - b) ** 2),
    "Abs": ("abs", np.abs),
    "Neg": ("negative", lambda a: -a),
    "Exp": ("exp", np.exp),
    "Log": ("log", np.log),
    "Log1p": ("log1p", np.log1p),
    "Sqrt": ("sqrt", np.sqrt),
    "Rsqrt": ("rsqrt", lambda a: 1 / np.sqrt(a)),
    "Square": ("square", lambda a: a * a),
    "Floor": ("floor", np.floor),
    "Ceil": ("ceil", np.ceil),
    "Round": ("round", np.round),
    "Rint": ("round", np.round),
    "Sign": ("sign", np.sign),
    "Inv": ("reciprocal", lambda a: 1 / a),
    "Reciprocal": ("reciprocal", lambda a: 1 / a),
    "Sin": ("sin", np.sin),
    "Cos": ("cos", np.cos),
    "Atan": ("atan", np.arctan),
    "Erf": ("erf", _erf),
    "Greater": ("greater", lambda a, b: a > b),
    "GreaterEqual": ("greater_equal", lambda a, b: a >= b),
    "Less": ("less", lambda a, b: a < b),
    "LessEqual": ("less_equal", lambda a, b: a <= b),
    "Equal": ("equal", lambda a, b: a == b),
    "NotEqual": ("not_equal", lambda a, b: a != b),
    "LogicalAnd": ("logical_and", np.logical_and),
    "LogicalOr": ("logical_or", np.logical_or),
    "LogicalNot": ("logical_not", np.logical_not),
    "Select": ("where", np.where),
    "SelectV2": ("where", np.where),
    "Relu": ("relu", relu),
    "Relu6": ("relu6", relu6),
    "Elu": ("elu", elu),
    "Selu": ("selu", selu),
    "LeakyRelu": ("leaky_relu", leaky_relu),
    "Softplus": ("softplus", lambda a: np.logaddexp(0, a)),
    "Softsign": ("softsign", lambda a: a / (1 + np.abs(a))),
    "Sigmoid": ("sigmoid", sigmoid),
    "Tanh": ("tanh", np.tanh),
}
COMPUTE = dict(FUNCTIONS.values())
"""The computation of each function, by its name in the vocabulary; `leaky_relu` takes its slope too."""
ACTIVATIONS = ("relu", "relu6", "elu", "selu", "leaky_relu", "softplus", "softsign", "sigmoid", "tanh")
