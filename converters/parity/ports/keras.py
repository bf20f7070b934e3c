"""Keras, on whichever backend it has."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from converters import frameworks
from converters.errors import InputError, first_line
from converters.formats.models import Variables, eager_copy, eagerly, keras_model, keras_variables
from converters.parity.images import shapes
from converters.parity.ports.base import Port, Recording
from converters.parity.ports.pytorch import PyTorchPort, full_precision
from converters.variables import Array
from converters.weights.source import Source
from slimport.graph import scoped
from slimport.networks import GraphNetwork, Network

_WITHOUT_FLOAT64 = "computes BatchNorm in float32 even in float64 layers"
_NO_SETTINGS = ("name", "dtype", "trainable", "_initializer", "_regularizer", "_constraint")
"""How the names end in a layer's config that do not change what it computes in inference."""


class KerasPort(Port):
    """A functional `keras.Model` of slimport's, of any dtype."""

    target = "keras"
    frameworks = ("keras",)

    def __init__(self, model: Any, scope: str, network: Network | None = None, notes: tuple[str, ...] = ()) -> None:
        self._model, self._scope, self.notes = eager_copy(model), scope, notes
        # The layers of a network of slim's tell which it is.
        self._network = network if isinstance(network, GraphNetwork) else None
        # A model that was never called has no inputs.
        shapes = [tensor.shape for tensor in getattr(self._model, "inputs", None) or ()]
        if len(shapes) == 1 and len(shapes[0]) == 4 and None not in shapes[0][1:3]:
            self.image_size = shapes[0][1:3]

    @classmethod
    @eagerly()
    def load(cls, file: Source, arguments: Mapping[str, Any]) -> Port:
        if file.path.suffix == ".keras" and arguments == {**file.network.arguments, **file.arguments}:
            try:
                model = frameworks.require("keras").saving.load_model(file.path, compile=False)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise InputError(f"{file.path}: Keras cannot load it: {first_line(error)}") from error
        else:
            model = keras_model(file, **arguments)
            if file.path.name.endswith(".weights.h5"):
                model.load_weights(file.path)
            elif file.path.suffix == ".keras":
                notes = ("the file's own graph is of other arguments: its weights run in a new one",)
                return cls(model, file.scope, file.network, notes)
        return cls(model, file.scope, file.network)

    @classmethod
    @eagerly()
    def build(cls, source: Source, arguments: Mapping[str, Any]) -> Port:
        return cls(keras_model(source, **arguments), source.scope, source.network)

    @eagerly()
    def variables(self) -> Variables:
        return list(keras_variables(self._model))

    def different_settings(self, file: Source) -> Iterator[str]:
        if file.path.suffix != ".keras":
            return
        frameworks.require("keras")
        from slimport.keras import build

        with zipfile.ZipFile(file.path) as archive:
            config = archive.read("config.json")
        found, policies = _layer_settings(config), _policies(config)
        for layer, expected in _layer_settings(build(file.network, **file.arguments).to_json()).items():
            for name, wanted in expected.items():
                value = found.get(layer, {}).get(name, wanted)
                if value != wanted:
                    yield f"{scoped(file.scope, layer.replace('__', '/'))}: {name} is {value}, not {wanted}"
        for layer, policy in policies.items():
            if policy.startswith("mixed"):
                yield f"{scoped(file.scope, layer.replace('__', '/'))}: it computes in {policy}"

    @eagerly()
    def record(self, inputs: Sequence[Array], dtype: str, device: str) -> Recording:
        keras = frameworks.require("keras")
        from slimport.keras.end_points import in_dtype

        if self.image_size not in (None, inputs[0].shape[1:3]):
            only = "{}x{}".format(*self.image_size)
            raise InputError(f"the Keras model takes images of {only} alone, not {shapes(inputs)}: give --size {only}")
        with _on(device):
            try:
                model = in_dtype(self._model, dtype)
                end_points = _end_points(model, self._scope, inputs, dtype, self._network)
            except ValueError:
                raise
            # Whatever its backend raises.
            except Exception as error:
                raise InputError(f"Keras does not run the model on {shapes(inputs)}: {first_line(error)}") from error
            returned = model(_tensors(inputs, dtype), training=False)
            # A tree of names would be in their order, and not in the network's.
            several = [returned[name] for name in self._model.output] if isinstance(returned, dict) else returned
            outputs = [np.asarray(keras.ops.convert_to_numpy(value)) for value in keras.tree.flatten(several)]
        return Recording(end_points, {"the model's output": outputs})

    @classmethod
    def why_not_float64(cls) -> str | None:
        if _backend() == "tensorflow":
            return None
        return f"{_WITHOUT_FLOAT64}: verify it in float32, or set KERAS_BACKEND=tensorflow"

    @classmethod
    def backend(cls) -> str:
        return f"keras {frameworks.require('keras').__version__} on {_backend()}"

    @classmethod
    def gpu(cls) -> str | None:
        if _backend() == "torch":
            return PyTorchPort.gpu()
        if _backend() == "jax":
            import jax

            return str(jax.devices("gpu")[0].device_kind) if jax.default_backend() == "gpu" else None
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        return str(tf.config.experimental.get_device_details(devices[0]).get("device_name", "GPU")) if devices else None


def record_keras(
    model: Any, scope: str, images: Array, dtype: str, device: str, network: Network | None = None
) -> dict[str, Array]:
    """The end points of a Keras model that takes images; arguments as of `Port.record`.

    Args:
      model: a functional `keras.Model` of slimport's, of any dtype.
      scope: the scope in the names of the end points.
    """
    frameworks.require("keras")
    from slimport.keras.end_points import in_dtype

    with _on(device):
        return _end_points(in_dtype(model, dtype), scope, [images], dtype, network)


def _end_points(
    model: Any, scope: str, inputs: Sequence[Array], dtype: str, network: Network | None
) -> dict[str, Array]:
    """Runs a Keras model of this dtype on its backend; arguments as of `record_keras`."""
    keras = frameworks.require("keras")
    from slimport.keras.end_points import end_points

    run: Any = partial(end_points(model, scope, network), training=False)
    if _backend() == "jax":
        import jax

        # Each layer by itself would be compiled by itself, which takes longer.
        run = jax.jit(run)
    outputs = run(_tensors(inputs, dtype))
    return {name: np.asarray(keras.ops.convert_to_numpy(value)) for name, value in outputs.items()}


def _tensors(inputs: Sequence[Array], dtype: str) -> Any:
    """The inputs as a model takes them: one by itself, or a list."""
    convert = frameworks.require("keras").ops.convert_to_tensor
    tensors = [convert(array.astype(dtype)) for array in inputs]
    return tensors if len(tensors) > 1 else tensors[0]


def _layer_settings(config: str | bytes) -> dict[str, dict[str, Any]]:
    """The settings of each layer in a model's JSON, by the layer's name."""
    layers = [layer for layer in json.loads(config)["config"]["layers"] if layer["class_name"] != "InputLayer"]
    return {
        layer["name"]: {name: value for name, value in layer["config"].items() if not name.endswith(_NO_SETTINGS)}
        for layer in layers
        # Operations that are no layers are named as they come.
        if layer["module"] == "keras.layers"
    }


def _policies(config: str | bytes) -> dict[str, str]:
    """The dtype policy of each layer in a model's JSON, by the layer's name."""
    layers = json.loads(config)["config"]["layers"]
    policies = {layer["name"]: layer["config"].get("dtype") for layer in layers}
    named = {layer: p["config"].get("name", "") if isinstance(p, dict) else str(p) for layer, p in policies.items()}
    return {layer: str(name) for layer, name in named.items()}


def _backend() -> str:
    return str(frameworks.require("keras").config.backend())


@contextmanager
def _on(device: str) -> Iterator[None]:
    """Keras on `cpu` or `cuda`, without TF32."""
    with frameworks.require("keras").device("gpu:0" if device == "cuda" else "cpu:0"), _full_precision():
        yield


@contextmanager
def _full_precision() -> Iterator[None]:
    """Keras's backend without TF32, which each has on by default on CUDA, for convolutions at least."""
    backend = _backend()
    if backend == "torch":
        with full_precision():
            yield
    elif backend == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    else:
        import tensorflow as tf

        enabled = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(enabled)
