"""`verify`: the TF-Slim graph and a port, on the same input, at every end point."""

from __future__ import annotations

import copy
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters import frameworks, models
from converters.digests import sha256_of
from converters.errors import InputError, first_line
from converters.mapping import Array
from converters.models import Variables
from converters.parity import page as pages
from converters.parity import plot as plots
from converters.parity import ports, tf_slim
from converters.parity.compare import Report, RoundedWeights, rel_l2
from converters.parity.page import Compared
from converters.parity.reference import SlimSide, all_arguments, run_slim
from converters.parity.tracing import open_trace
from converters.sources import (
    CONVERTED_SUFFIXES,
    KERAS_SUFFIXES,
    ONNX_SUFFIXES,
    PROGRAM_SUFFIXES,
    PYTORCH_SUFFIXES,
    PathLike,
    Source,
    open_source,
    weights_file,
)
from converters.targets.atomic import check_destination
from converters.views import AS_IT_IS, View
from slimport.graph import scoped

TARGETS = ("pytorch", "keras", "onnx", "slim")
DTYPES = ("float64", "float32")
_PREDICTIONS = ("predictions", "Predictions")
_SOFTMAX = "{} are not in the file: they are the softmax of its output, computed here"
_PACKAGES = ("slimport", "numpy", "torch", "keras", "onnx", "onnxruntime", "jax", "tensorflow", "tf_keras", "tf_slim")


def verify(
    source: PathLike,
    converted: Any = None,
    *,
    target: str | None = None,
    dtype: str | None = None,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    device: str = "cpu",
    scope: str | None = None,
    step: int | None = None,
    view: View = AS_IT_IS,
    seed: int | None = None,
    reference: PathLike | None = None,
    plot: PathLike | None = None,
    page: PathLike | None = None,
    command: str = "",
    progress: Callable[[str], None] = lambda _: None,
    **arguments: Any,
) -> Report:
    """Compares every end point of a converted model with the TF-Slim graph's.

    Args:
      source: the checkpoint, whose weights the TF-Slim graph runs with.
      converted: what to verify: a file, or a model in memory, which stays as it is. A `torch.nn.Module` needs
        `end_points(images)`, from NCHW images to its output and {slim end point name: NCHW tensor}, and runs in the
        mode that it is in, training or evaluation; a `keras.Model` needs slimport's names of layers. None verifies the
        port with the source's own weights.
      target: `pytorch`, `keras`, `onnx` or `slim`; None follows from `converted`, or is `pytorch`.
      dtype: `float64` or `float32`; None is float64 wherever the target computes in it throughout.
      size: height and width of the input; None is the network's default image size, or the trace's.
      batch: number of images; None is 1, or the trace's.
      device: `cpu` or `cuda`, of the port; the TF-Slim graph always runs on the CPU.
      scope: which network, where the source holds several.
      step: which checkpoint of a training run's directory; None is the newest.
      view: what to take of the source's network. The TF-Slim graph runs with the same variables, and is built without
        gammas where the source has none.
      seed: of the input, uniform in [-1, 1]; None is 0, or the trace's.
      reference: a trace of the source (`trace`) in the TF-Slim graph's place; TensorFlow is then not needed.
      plot: a `.png`, `.svg` or `.pdf` to draw the errors to. With it or `page`, both dtypes are measured and count for
        the verdict, where the target computes in float64 throughout. The files are written whatever the verdict is.
      page: an `.html` to write everything to.
      command: the command line, for the page.
      progress: is told what is going on.
      arguments: of the network (`global_pool`, `output_stride`, ...), as the family's `arguments` lists them.

    Raises:
      InputError: a file cannot be read, holds another network, or an argument cannot be.
    """
    _check_outputs(plot, page, (source, converted, reference))
    in_memory = converted is not None and not isinstance(converted, str | os.PathLike)
    is_program = not in_memory and str(converted).endswith(PROGRAM_SUFFIXES)
    target = _target(target, converted)
    ports.check_device(target, device)
    inexact = ports.why_not_float64(target)
    dtype = dtype or ("float32" if inexact else "float64")
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: must be float32 or float64")
    if dtype == "float64" and inexact:
        raise InputError(f"{ports.backend_of(target)} {inexact}")
    trace = None if reference is None else open_trace(reference)
    if trace is not None and scope is None:
        # A converted file may not remember its scope; of a checkpoint's networks, this is the recorded one.
        scope = trace.description.scope
    with open_source(source, scope, step, view) as opened, ExitStack() as stack:
        if is_program:
            opened = opened.without_auxiliary()
        network = opened.network
        arguments = all_arguments(opened, arguments)
        file = None
        if converted is not None and not in_memory:
            # Before TF-Slim runs, which takes longest.
            file = stack.enter_context(open_source(converted, opened.scope))
            _check_same(opened, file)
        slim: SlimSide
        if trace is not None:
            trace.check(opened, arguments, size=size, batch=batch, seed=seed)
            slim, reader = trace, trace.description.reader
        else:
            slim, reader = run_slim(opened, arguments, size=size, batch=batch, seed=seed, progress=progress)
        images, weights = slim.images, slim.weights
        if is_program and arguments != network.arguments:
            raise InputError(f"{converted}: is a program with the network's default arguments, and cannot take others")
        different: list[str] = []
        compared = 0
        dtypes: Mapping[str, np.dtype[Any]] = {}
        given: tuple[str, Mapping[str, str]] = ("", {})
        if file is not None:
            different, compared = _different(file.scope, file.stream(), weights), len(weights)
            dtypes = dict(file.dtypes)
            model = _load(file, target, arguments)
            given = os.fspath(converted), {} if page is None else file.digests()
        elif converted is None:
            model = _build(opened, target, arguments)
        else:
            variables = models.pytorch_variables if target == "pytorch" else models.keras_variables
            mine = {name: array for name, array in variables(converted) if name in weights}
            different, compared = _different(opened.scope, mine.items(), weights), len(mine)
            dtypes = {name: array.dtype for name, array in mine.items()}
            given = f"a {type(converted).__name__} in memory", {}
            # A copy, since recording moves a module to the dtype and the device.
            model = copy.deepcopy(converted) if target == "pytorch" else converted
        rounded = None
        if rounding := _rounded(weights, dtypes):
            source_truth = slim.truth
            slim = slim.with_weights({**weights, **rounding})
            rounded = RoundedWeights(
                dtypes=tuple(sorted({array.dtype.name for array in rounding.values()})),
                variables={scoped(opened.scope, n): rel_l2(array, weights[n]) for n, array in rounding.items()},
                end_points={name: rel_l2(value, source_truth[name]) for name, value in slim.truth.items()},
            )
        names = network.end_points(opened.scope, **arguments) if is_program else []
        softmax = next((name for name in names if name in _PREDICTIONS), None)
        # float64 first: its weights can be rounded to float32, but not back.
        measured = sorted(
            {dtype, *(DTYPES if not inexact and (plot is not None or page is not None) else ())}, reverse=True
        )
        rows = {}
        try:
            for one in measured:
                progress(f"running {network.name} in {ports.backend_of(target)}, {one}")
                port = _record(model, target, opened.scope, images, one, device)
                if softmax is not None:
                    port[softmax] = ports.softmax(port[list(port)[-1]])
                rows[one] = slim.compare(port, one)
        except ValueError as error:
            raise InputError(f"{opened.path}: nothing to compare: {first_line(error)}") from error
        reports = {
            one: Report(
                network=network.name,
                target=target,
                dtype=one,
                device=device,
                judge=slim.judge,
                backend=ports.backend_of(target),
                reader=reader,
                input_shape=images.shape,
                rows=rows[one],
                weights_compared=compared,
                weights_different=tuple(different),
                reference=None if trace is None else str(trace.path),
                rounded=rounded,
                notes=(*_notes(opened), *((_SOFTMAX.format(softmax),) if softmax else ())),
            )
            for one in measured
        }
        report = replace(reports[dtype], other=next((reports[one] for one in measured if one != dtype), None))
        if plot is not None:
            progress(f"writing {plot}")
            plots.write(report, Path(plot))
        if page is not None:
            progress(f"writing {page}")
            about = Compared(
                source=(os.fspath(source), opened.digests()),
                converted=given,
                reference=("", {}) if trace is None else (str(trace.path), {trace.path.name: sha256_of(trace.path)}),
                arguments={"seed": (seed or 0) if trace is None else trace.description.seed, **arguments},
                machine=ports.machine(target, device),
                versions={"python": platform.python_version(), **frameworks.versions(*_PACKAGES)},
                reference_versions={} if trace is None else trace.description.versions,
                command=command,
            )
            pages.write(report, about, Path(page))
    return report


def _check_outputs(plot: PathLike | None, page: PathLike | None, inputs: Iterable[Any]) -> None:
    """Whether the files can be written, before anything is computed.

    Raises:
      InputError: they cannot, or would overwrite what is compared, or matplotlib is not installed.
    """
    wanted = [(Path(path), ends) for path, ends in ((plot, plots.SUFFIXES), (page, pages.SUFFIXES)) if path is not None]
    for path, suffixes in wanted:
        if path.suffix.lower() not in suffixes:
            raise InputError(f"{path}: the name must end in {' or '.join(suffixes)}")
        check_destination(path)
        if any(isinstance(given, str | os.PathLike) and Path(given).resolve() == path.resolve() for given in inputs):
            raise InputError(f"{path}: is what is compared; write to another file")
    if wanted:
        frameworks.import_figure()


def _target(target: str | None, converted: Any) -> str:
    if target not in (None, *TARGETS):
        raise InputError(f"target {target!r}: must be one of {', '.join(TARGETS)}")
    if converted is None and target in ("onnx", "slim"):
        kind = ".onnx file" if target == "onnx" else "checkpoint"
        raise InputError(f"--target {target}: name the {kind} to verify, which 'slimport convert' writes")
    if converted is None:
        return target or "pytorch"
    if not isinstance(converted, str | os.PathLike):
        return _target_of_model(target, converted)
    name = weights_file(Path(converted)).name
    suffixes = {"pytorch": PYTORCH_SUFFIXES, "keras": KERAS_SUFFIXES, "onnx": ONNX_SUFFIXES}
    of_file = next((framework for framework, ends in suffixes.items() if name.endswith(ends)), None)
    if of_file is None and Path(f"{os.fspath(converted).removesuffix('.index')}.index").is_file():
        of_file = "slim"
    if of_file is None:
        known = ", ".join(CONVERTED_SUFFIXES)
        raise InputError(
            f"{converted}: cannot tell what this is; a converted file's name ends in one of {known}, or "
            f"is the prefix of a checkpoint"
        )
    if target not in (None, of_file):
        raise InputError(f"{converted}: is for {of_file}, not for --target {target}")
    return of_file


def _target_of_model(target: str | None, model: Any) -> str:
    of_model = ports.target_of(model)
    if of_model is None or (of_model == "pytorch" and not hasattr(model, "end_points")):
        raise InputError(
            f"a {type(model).__name__} cannot be verified: it must be a file's path, a keras.Model, or a "
            f"torch.nn.Module with end_points(images)"
        )
    if target not in (None, of_model):
        raise InputError(f"the model in memory is for {of_model}, not for target {target!r}")
    return of_model


def _different(scope: str, variables: Variables, weights: Mapping[str, Array]) -> list[str]:
    """The variables that are not the source's, rounded to their own dtype; with their scope."""
    return [
        scoped(scope, name)
        for name, array in variables
        if array.tobytes() != weights[name].astype(array.dtype).tobytes()
    ]


def _rounded(weights: Mapping[str, Array], dtypes: Mapping[str, np.dtype[Any]]) -> dict[str, Array]:
    """The weights that these dtypes hold with fewer bits, rounded to them."""
    return {
        name: weights[name].astype(dtype)
        for name, dtype in dtypes.items()
        if not np.can_cast(weights[name].dtype, dtype, "safe")
    }


def _record(model: Any, target: str, scope: str, images: Array, dtype: str, device: str) -> dict[str, Array]:
    if target == "pytorch":
        return ports.record_pytorch(model, images, dtype, device)
    if target == "onnx":
        return ports.record_onnx(model, images, device)
    if target == "slim":
        run: Callable[[Array, str], dict[str, Array]] = model
        return run(images, dtype)
    return ports.record_keras(model, scope, images, dtype, device)


def _load(converted: Source, target: str, arguments: dict[str, Any]) -> Any:
    """The model that a user gets from the file: in Keras's case, as Keras itself reads it; a program is the file's."""
    path = converted.path
    if target == "onnx":
        return path
    if target == "slim":
        # Read by TensorFlow itself, as TF-Slim reads it.
        weights, _ = tf_slim.weights(converted)
        return lambda images, dtype: tf_slim.record(
            converted.network, converted.scope, weights, images, dtype, **arguments
        )
    if path.suffix == ".pt2":
        return ports.pt2_module(path)
    if path.suffix == ".keras" and arguments == converted.network.arguments:
        return frameworks.import_keras().saving.load_model(path, compile=False)
    model = _build(converted, target, arguments)
    if path.name.endswith(".weights.h5"):
        model.load_weights(path)
    return model


def _build(source: Source, target: str, arguments: dict[str, Any]) -> Any:
    build = models.pytorch_model if target == "pytorch" else models.keras_model
    return build(source, **arguments)


def _notes(source: Source) -> Iterator[str]:
    if source.view not in (None, AS_IT_IS):
        yield f"{source.path.name} is taken with {source.view}, and the TF-Slim graph runs with these variables"
    yield from source.recognition.notes()
    if not source.recognition.scaled:
        yield "the TF-Slim graph is built with scale=False, without a gamma in any BatchNorm"


def _check_same(source: Source, converted: Source) -> None:
    if converted.view is not None and converted.view != (source.view or AS_IT_IS):
        given, remembered = (str(view) or "no such option" for view in (source.view or AS_IT_IS, converted.view))
        raise InputError(
            f"{converted.path}: was converted with {remembered}, but verify was called with {given}: give it the same"
        )
    if converted.network != source.network:
        raise InputError(
            f"{converted.path}: holds {_describe(converted)}, but {source.path} holds {_describe(source)}: nothing to "
            f"compare; where it was converted with --drop-background, --no-head or --exclude-scope, give verify the "
            f"same"
        )


def _describe(source: Source) -> str:
    classes = source.network.num_classes
    return f"{source.network.name} with {classes or 'no'} classes"
