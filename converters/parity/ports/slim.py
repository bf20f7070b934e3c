"""TF-Slim itself, with the weights of a checkpoint that slimport wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from converters import frameworks
from converters.errors import InputError
from converters.parity import tf_slim
from converters.parity.ports.base import Port, Recording
from converters.variables import Array
from converters.weights.source import Source
from slimport.networks import GraphNetwork


class SlimPort(Port):
    """The TF-Slim graph with a checkpoint's weights, read by TensorFlow, as TF-Slim reads it."""

    target = "slim"
    frameworks = ("slim",)
    kind = "checkpoint"

    def __init__(self, file: Source, arguments: Mapping[str, Any]) -> None:
        if isinstance(file.network, GraphNetwork):
            raise InputError(
                f"{file.path}: TF-Slim has no code of this network, which is a graph of its own: verify it as a "
                f".safetensors, .pth, .keras, .pt2 or .onnx file"
            )
        self._file, self._arguments = file, arguments
        self._weights, reader = tf_slim.weights(file)
        if reader != "tensorflow":
            raise InputError(f"{file.path}: TensorFlow does not read this checkpoint, so TF-Slim cannot restore it")

    @classmethod
    def load(cls, file: Source, arguments: Mapping[str, Any]) -> Port:
        return cls(file, arguments)

    def record(self, inputs: Sequence[Array], dtype: str, device: str) -> Recording:  # noqa: ARG002 - on the CPU
        network, scope, (images,) = self._file.network, self._file.scope, inputs
        return Recording(tf_slim.record(network, scope, self._weights, images, dtype, **self._arguments))

    @classmethod
    def check_device(cls, device: str) -> None:
        if device == "cuda":
            raise InputError(f"--device {device}: the TF-Slim graph runs on the CPU; use --device cpu")
        super().check_device(device)

    @classmethod
    def backend(cls) -> str:
        return f"TF-Slim on tensorflow {frameworks.require('tensorflow').__version__}"

    @classmethod
    def gpu(cls) -> None:
        return None
