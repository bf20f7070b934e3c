"""ONNX files, in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from converters import frameworks, mapping
from converters.errors import InputError, first_line
from converters.formats import programs
from converters.parity.ports.base import Port, Predictions, Recording, end_point_names, unused
from converters.variables import Array
from converters.weights.source import Source
from slimport.graph import scoped


class OnnxPort(Port):
    """A file, with ONNX Runtime's default optimizations, in the dtype that it has.

    The output is that of the file as it is. A second session, of a copy in memory that returns them too, gives the end
    points inside.
    """

    target = "onnx"
    frameworks = ("onnx",)
    program = True
    kind = ".onnx file"

    def __init__(self, file: Source, arguments: Mapping[str, Any]) -> None:
        self._path = file.path
        self._model, notes = programs.load_onnx(file.path)
        self._names = end_point_names(file, notes)
        self._predictions = Predictions(file, arguments)
        self.notes, self.lacking = self._predictions.notes, self._predictions.lacking

    @classmethod
    def load(cls, file: Source, arguments: Mapping[str, Any]) -> Port:
        return cls(file, arguments)

    def different_settings(self, file: Source) -> Iterator[str]:
        torch = frameworks.require("torch")
        from slimport.pytorch import build

        with torch.device("meta"):
            port = build(file.network, **file.arguments)
        expected = _module_settings(port)
        for layer, found in _node_settings(self._model).items():
            for name, value in found.items():
                wanted = expected.get(layer, {}).get(name, value)
                if value != wanted:
                    yield f"{scoped(file.scope, layer.replace('.', '/'))}: {name} is {value}, not {wanted}"
        # Nodes may compute with copies that have other names.
        used = {name for node in self._model.graph.node for name in node.input}
        yield from unused(file, (tensor.name for tensor in self._model.graph.initializer if tensor.name not in used))

    def record(self, inputs: Sequence[Array], dtype: str, device: str) -> Recording:  # noqa: ARG002 - the file's dtype
        onnx, onnxruntime = frameworks.require("onnx"), frameworks.require("onnxruntime")
        outputs = [value.name for value in self._model.graph.output]
        inside = sorted({value for value in self._names.values() if value not in outputs})
        model = type(self._model)()
        model.CopyFrom(self._model)
        model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in inside)
        options = onnxruntime.SessionOptions()
        # Errors alone.
        options.log_severity_level = 3
        providers = ["CUDAExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
        names = [value.name for value in self._model.graph.input]
        feed = dict(
            zip(names, (np.ascontiguousarray(mapping.nchw(array), np.float32) for array in inputs), strict=True)
        )
        values: dict[str, Array] = {}
        try:
            for content, wanted in ((os.fspath(self._path), outputs), (model.SerializeToString(), inside)):
                session = onnxruntime.InferenceSession(content, options, providers=providers)
                # Without names, it would give all outputs.
                values |= zip(wanted, session.run(wanted, feed) if wanted else [], strict=True)
        except Exception as error:
            raise InputError(f"{self._path}: ONNX Runtime: {first_line(error)}") from error
        end_points = {name: mapping.nhwc(values[value]) for name, value in self._names.items()}
        returned = [mapping.nhwc(values[output]) for output in outputs]
        return self._predictions.added(Recording(end_points, {"the model's output": returned}))

    @classmethod
    def why_not_float64(cls) -> str:
        return "has no convolution in float64 on the CPU: verify it in float32"

    @classmethod
    def backend(cls) -> str:
        return f"onnxruntime {frameworks.require('onnxruntime').__version__}"

    @classmethod
    def gpu(cls) -> str | None:
        seen = "CUDAExecutionProvider" in frameworks.require("onnxruntime").get_available_providers()
        return "CUDA device of ONNX Runtime" if seen else None


# Which input of an operator has a name that is its layer's, and the attributes that are compared, with their defaults.
_OPERATORS: dict[str, tuple[int, dict[str, Any]]] = {
    "BatchNormalization": (3, {"epsilon": 1e-5}),
    "Conv": (1, {"strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0], "group": 1}),
}


def _node_settings(model: Any) -> dict[str, dict[str, Any]]:
    """The settings in an ONNX graph, by the name of the layer that has the weights."""
    from onnx.helper import get_attribute_value

    found = {}
    for node in model.graph.node:
        if node.op_type in _OPERATORS:
            place, settings = _OPERATORS[node.op_type]
            layer, _, leaf = node.input[place].rpartition(".")
            if leaf == "pointwise_weight":
                continue
            attributes = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
            found[layer] = {name: attributes.get(name, default) for name, default in settings.items()}
            if (pads := attributes.get("auto_pad", b"NOTSET")) != b"NOTSET":
                found[layer]["pads"] = pads.decode()
    return {layer: {name: _plain(value) for name, value in each.items()} for layer, each in found.items()}


def _module_settings(model: Any) -> dict[str, dict[str, Any]]:
    """The same settings of the modules of a PyTorch port."""
    nn = frameworks.require("torch").nn
    found: dict[str, dict[str, Any]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            found[name] = {"epsilon": module.eps}
        elif isinstance(module, nn.Conv2d):
            found[name] = {
                "strides": module.stride,
                "dilations": module.dilation,
                "pads": (*module.padding, *module.padding),
                "group": module.groups,
            }
    return {layer: {name: _plain(value) for name, value in each.items()} for layer, each in found.items()}


def _plain(value: Any) -> Any:
    """Lists for sequences, and the shortest number that is the same in float32, which ONNX has for its attributes."""
    if isinstance(value, float):
        return float(str(np.float32(value)))
    return list(value) if isinstance(value, tuple | list) or hasattr(value, "extend") else value
