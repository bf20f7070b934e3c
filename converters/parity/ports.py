"""A port's end points, by slim's names and in slim's layout."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from converters import frameworks, mapping, programs
from converters.errors import InputError, first_line
from converters.mapping import Array


def target_of(model: Any) -> str | None:
    """`pytorch` or `keras` for a model in memory; None for anything else."""
    # Whoever holds a model has imported its framework. On its torch backend, a Keras model is a module of torch's too.
    for target, module, of in (("keras", "keras", "Model"), ("pytorch", "torch.nn", "Module")):
        if module in sys.modules and isinstance(model, getattr(sys.modules[module], of)):
            return target
    return None


def record_pytorch(model: Any, images: Array, dtype: str, device: str) -> dict[str, Array]:
    """Runs a PyTorch port in full precision.

    Args:
      model: a module with `end_points(images)` as the networks of `slimport.pytorch` have it. It is moved to the dtype
        and the device, and runs in the mode that it is in, training or evaluation.
      images: [batch, height, width, channels].
      dtype: `float32` or `float64`.
      device: `cpu` or `cuda`.

    Returns:
      {slim end point name: NHWC array}.
    """
    torch = frameworks.import_torch()
    model = model.to(device=device, dtype=getattr(torch, dtype))
    inputs = torch.from_numpy(images.astype(dtype).transpose(0, 3, 1, 2)).to(device)
    with torch.inference_mode(), _full_precision():
        _, end_points = model.end_points(inputs)
        values = {}
        for name in list(end_points):
            values[name] = mapping.nhwc(end_points.pop(name).cpu().numpy())
    return values


def pt2_module(path: Path) -> Any:
    """The program in a `.pt2` file as a module with `end_points`, for `record_pytorch`.

    Raises:
      InputError: slimport did not write it.
    """
    torch = frameworks.import_torch()
    program, notes = programs.load_pt2(path)
    names = _end_points(path, notes)

    class Recorder(torch.fx.Interpreter):  # type: ignore[misc, name-defined]
        """Runs the program's operations one by one and keeps what is an end point."""

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

        def end_points(self, images: Any) -> tuple[Any, dict[str, Any]]:
            recorder = Recorder(self.program)
            output = recorder.run(images)
            return output, {name: recorder.values[value] for name, value in names.items()}

    return Program()


def record_onnx(path: Path, images: Array, device: str) -> dict[str, Array]:
    """Runs an ONNX file in ONNX Runtime, with its default optimizations.

    The output is that of the file as it is. A second session, of a copy in memory that returns them too, gives the end
    points inside.

    Args:
      path: the file; it decides on the dtype.
      images: [batch, height, width, channels].
      device: `cpu` or `cuda`.

    Returns:
      {slim end point name: NHWC array}.

    Raises:
      InputError: slimport did not write it, or ONNX Runtime cannot run it.
    """
    onnx, onnxruntime = frameworks.import_onnx(), frameworks.import_onnxruntime()
    model, notes = programs.load_onnx(path)
    names = _end_points(path, notes)
    (output,) = (value.name for value in model.graph.output)
    inside = sorted({value for value in names.values() if value != output})
    model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in inside)
    options = onnxruntime.SessionOptions()
    # Errors alone.
    options.log_severity_level = 3
    providers = ["CUDAExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
    feed = {programs.IMAGES: np.ascontiguousarray(images.transpose(0, 3, 1, 2))}
    values: dict[str, Array] = {}
    try:
        for file, wanted in ((os.fspath(path), [output]), (model.SerializeToString(), inside)):
            session = onnxruntime.InferenceSession(file, options, providers=providers)
            values |= zip(wanted, session.run(wanted, feed), strict=True)
    except Exception as error:
        raise InputError(f"{path}: ONNX Runtime: {first_line(error)}") from error
    return {name: mapping.nhwc(values[value]) for name, value in names.items()}


def softmax(logits: Array) -> Array:
    """`predictions`, over the last axis, in the logits' dtype."""
    exponential = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(exponential / exponential.sum(-1, keepdims=True))


def _end_points(path: Path, notes: Mapping[str, Any]) -> dict[str, str]:
    names = notes.get("end_points")
    if not names:
        raise InputError(f"{path}: slimport did not write it, so its end points cannot be found in it")
    return dict(names)


def record_keras(model: Any, scope: str, images: Array, dtype: str, device: str) -> dict[str, Array]:
    """Runs a Keras port on its backend.

    Args:
      model: a functional `keras.Model` of slimport's, of any dtype.
      scope: the scope in the names of the end points.
      images: [batch, height, width, channels].
      dtype: `float32` or `float64`; the model is cloned into it.
      device: `cpu` or `cuda`.

    Returns:
      {slim end point name: NHWC array}.
    """
    keras = frameworks.import_keras()
    from slimport.keras import end_points

    with keras.device("gpu:0" if device == "cuda" else "cpu"), _keras_full_precision():

        def in_dtype(layer: Any) -> Any:
            return layer.__class__.from_config({**layer.get_config(), "dtype": dtype})

        clone = keras.models.clone_model(model, clone_function=in_dtype)
        clone.set_weights(model.get_weights())
        outputs = end_points(clone, scope)(keras.ops.convert_to_tensor(images.astype(dtype)), training=False)
        return {name: np.asarray(keras.ops.convert_to_numpy(value)) for name, value in outputs.items()}


def check_device(target: str, device: str) -> None:
    """Raises InputError if there is no such device, or the target's framework does not see it."""
    if device not in ("cpu", "cuda"):
        raise InputError(f"--device {device}: must be cpu or cuda")
    if device == "cpu":
        return
    if target == "slim":
        raise InputError(f"--device {device}: the TF-Slim graph runs on the CPU; use --device cpu")
    if target == "onnx":
        seen = "CUDAExecutionProvider" in frameworks.import_onnxruntime().get_available_providers()
    elif target == "pytorch" or _keras_backend() == "torch":
        seen = frameworks.import_torch().cuda.is_available()
    elif _keras_backend() == "jax":
        import jax

        seen = jax.default_backend() == "gpu"
    else:
        import tensorflow as tf

        seen = bool(tf.config.list_physical_devices("GPU"))
    if not seen:
        raise InputError(f"--device {device}: the {target} framework sees no CUDA device here; use --device cpu")


def backend_of(target: str) -> str:
    """The framework and version that computes: `torch 2.13.0`, `keras 3.15.1 on tensorflow`."""
    if target == "pytorch":
        return f"torch {frameworks.import_torch().__version__}"
    if target == "onnx":
        return f"onnxruntime {frameworks.import_onnxruntime().__version__}"
    if target == "slim":
        return f"TF-Slim on tensorflow {frameworks.import_tensorflow().__version__}"
    return f"keras {frameworks.import_keras().__version__} on {_keras_backend()}"


def machine(target: str, device: str) -> str:
    """What the port runs on: the GPU's name, or the processor's architecture and number of cores."""
    if device == "cpu":
        return f"{platform.machine()}, {os.cpu_count()} cores"
    if target == "pytorch" or _keras_backend() == "torch":
        return str(frameworks.import_torch().cuda.get_device_name())
    if _keras_backend() == "jax":
        import jax

        return str(jax.devices("gpu")[0].device_kind)
    import tensorflow as tf

    found = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return str(found.get("device_name", "GPU"))


def why_not_float64(target: str) -> str | None:
    """What keeps the target from computing in float64 throughout; None if nothing does."""
    if target == "onnx":
        return "has no convolution in float64 on the CPU: verify it in float32"
    if target in ("pytorch", "slim") or _keras_backend() == "tensorflow":
        return None
    return "computes BatchNorm in float32 even in float64 layers: verify it in float32, or set KERAS_BACKEND=tensorflow"


def _keras_backend() -> str:
    return str(frameworks.import_keras().config.backend())


@contextmanager
def _full_precision() -> Iterator[None]:
    """PyTorch with the kernels that round least: a verdict is about the port, not about a kernel's order of summation.

    On CUDA, TF32 is off. On the CPU, oneDNN is: its convolutions add a long sum up in one float32 number after the
    other, which costs up to twice the rounding error of TensorFlow's, where PyTorch's own are as good as TensorFlow's.
    """
    backends = frameworks.import_torch().backends
    flags = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.mkldnn.enabled
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = backends.mkldnn.enabled = False
    try:
        yield
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.mkldnn.enabled = flags


@contextmanager
def _keras_full_precision() -> Iterator[None]:
    """Keras's backend without TF32, which each has on by default on CUDA, for convolutions at least."""
    backend = _keras_backend()
    if backend == "torch":
        with _full_precision():
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
