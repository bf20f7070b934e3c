"""PyTorch: modules, and the programs of `.pt2` files."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from converters import frameworks, mapping
from converters.formats import programs
from converters.formats.huggingface import different_preprocessor
from converters.formats.models import Variables, pytorch_model, pytorch_variables
from converters.parity.images import as_floats
from converters.parity.ports.base import Port, Predictions, Recording, end_point_names, unused
from converters.variables import Array
from converters.weights.source import Source
from slimport.networks import Network


class PyTorchPort(Port):
    """A module with `end_points(*inputs)`, as the networks of `slimport.pytorch` have it.

    It runs in the mode that it is in, training or evaluation, and stays as it is.
    """

    target = "pytorch"
    frameworks = ("pytorch", "huggingface")

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def load(cls, file: Source, arguments: Mapping[str, Any]) -> Port:
        return cls(pytorch_model(file, **arguments))

    @classmethod
    def build(cls, source: Source, arguments: Mapping[str, Any]) -> Port:
        return cls(pytorch_model(source, **arguments))

    def variables(self) -> Variables:
        return pytorch_variables(self._model)

    def different_settings(self, file: Source) -> Iterator[str]:
        return different_preprocessor(file.path, file.network)

    def record(self, inputs: Sequence[Array], dtype: str, device: str) -> Recording:
        # Recording moves a module to the dtype and the device.
        own = isinstance(getattr(self._model, "network", None), Network)
        return run_pytorch(copy.deepcopy(self._model), as_floats(inputs) if own else inputs, dtype, device)

    @classmethod
    def backend(cls) -> str:
        return f"torch {frameworks.require('torch').__version__}"

    @classmethod
    def gpu(cls) -> str | None:
        cuda = frameworks.require("torch").cuda
        return str(cuda.get_device_name()) if cuda.is_available() else None


class ProgramPort(PyTorchPort):
    """The program in a `.pt2` file, run operation by operation."""

    program = True

    def __init__(self, program: Any, names: Mapping[str, str], predictions: Predictions) -> None:
        super().__init__(_module(program, names))
        self._program, self._predictions = program, predictions
        self.notes, self.lacking = predictions.notes, predictions.lacking

    @classmethod
    def load(cls, file: Source, arguments: Mapping[str, Any]) -> Port:
        program, notes = programs.load_pt2(file.path)
        return cls(program, end_point_names(file, notes), Predictions(file, arguments))

    def different_settings(self, file: Source) -> Iterator[str]:
        signature = self._program.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        without = {node.name for node in self._program.graph.nodes if node.op == "placeholder" and not node.users}
        return unused(file, (name for node, name in names.items() if node in without))

    def record(self, inputs: Sequence[Array], dtype: str, device: str) -> Recording:
        _cast_to(self._model.program, dtype)
        return self._predictions.added(run_pytorch(self._model, as_floats(inputs), dtype, device))


def record_pytorch(model: Any, images: Array, dtype: str, device: str) -> dict[str, Array]:
    """The end points of a module that takes images; arguments as of `run_pytorch`."""
    return run_pytorch(model, [images], dtype, device, call=False).end_points


def run_pytorch(model: Any, inputs: Sequence[Array], dtype: str, device: str, *, call: bool = True) -> Recording:
    """Runs a module in full precision; arguments and result as of `Port.record`.

    Args:
      model: has `end_points(*inputs)`; it is moved to the dtype and the device.
      call: whether it is called too, as a user does.
    """
    torch = frameworks.require("torch")
    model = model.to(device=device, dtype=getattr(torch, dtype))
    given = [array.astype(dtype) if array.dtype.kind == "f" else array for array in inputs]
    tensors = [torch.from_numpy(mapping.nchw(array)).to(device) for array in given]
    with torch.inference_mode(), full_precision():
        returned = {"the model's output": _arrays(model(*tensors))} if call else {}
        first, end_points = model.end_points(*tensors)
        returned["what end_points returns first"] = _arrays(first)
        values = {}
        for name in list(end_points):
            values[name] = mapping.nhwc(end_points.pop(name).cpu().numpy())
    return Recording(values, returned)


def _arrays(returned: Any) -> list[Array]:
    """The tensors that a module returned: one, several by name, or several in order."""
    several = returned.values() if isinstance(returned, Mapping) else returned
    tensors = several if isinstance(returned, Mapping | tuple | list) else [returned]
    return [mapping.nhwc(tensor.cpu().numpy()) for tensor in tensors if hasattr(tensor, "cpu")]


@contextmanager
def full_precision() -> Iterator[None]:
    """PyTorch with the kernels that round least: a verdict is about the port, not about a kernel's order of summation.

    On CUDA, TF32 is off. On the CPU, oneDNN is: its convolutions add a long sum up in one float32 number after the
    other, which costs up to twice the rounding error of TensorFlow's, where PyTorch's own are as good as TensorFlow's.
    """
    backends = frameworks.require("torch").backends
    flags = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.mkldnn.enabled
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = backends.mkldnn.enabled = False
    try:
        yield
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.mkldnn.enabled = flags


def _cast_to(program: Any, dtype: str) -> None:
    """Has a program cast whole numbers and bools to another dtype than the one that it was written in."""
    torch = frameworks.require("torch")
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.to.dtype and node.args[1].is_floating_point:
            data = node.args[0].meta.get("val")
            if data is not None and not data.is_floating_point():
                node.update_arg(1, getattr(torch, dtype))
    program.recompile()


def _module(program: Any, names: Mapping[str, str]) -> Any:
    """A module with `end_points` of an exported program, by the names of its values."""
    torch = frameworks.require("torch")

    class Recorder(torch.fx.Interpreter):  # type: ignore[misc, name-defined]
        """Keeps the values that are end points."""

        def __init__(self, module: Any) -> None:
            super().__init__(module)
            self.values: dict[str, Any] = {}

        def run_node(self, node: Any) -> Any:
            value = super().run_node(node)
            if node.name in names.values():
                self.values[node.name] = value
            return value

    class Program(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            # Its guards ask for the dtype that it was written in.
            self.program = program.module(check_guards=False)

        def forward(self, *inputs: Any) -> Any:
            return self.program(*inputs)

        def end_points(self, *inputs: Any) -> tuple[Any, dict[str, Any]]:
            recorder = Recorder(self.program)
            output = recorder.run(*inputs)
            return output, {name: recorder.values[value] for name, value in names.items()}

    return Program()
