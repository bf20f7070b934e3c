"""`verify`: the TF-Slim graph and a port, on the same input, at every end point."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters import frameworks
from converters.errors import InputError, first_line
from converters.files import sha256_of
from converters.formats import open_file
from converters.parity import ports
from converters.parity.compare import Comparison, Row, max_abs, rel_l2
from converters.parity.images import Input
from converters.parity.own_graph import run_judge
from converters.parity.ports import Port, Recording
from converters.parity.reference import SlimSide, all_arguments, in_layout
from converters.parity.report import Named, Report, RoundedWeights
from converters.parity.tracing import Trace, open_trace
from converters.variables import Array, PathLike
from converters.weights.recognize import SeveralNetworksError
from converters.weights.selection import EVERYTHING, Selection
from converters.weights.source import Source, open_source
from converters.weights.user_graph import BESIDE, GraphOptions
from slimport.graph import scoped
from slimport.networks import GraphNetwork
from slimport.preprocessing import Size

DTYPES = ("float64", "float32")
_PACKAGES = ("slimport", "numpy", "torch", "keras", "onnx", "onnxruntime", "jax", "tensorflow", "tf_keras", "tf_slim")


def verify(
    source: PathLike,
    converted: Any = None,
    *,
    target: str | None = None,
    dtype: str | None = None,
    both_dtypes: bool | None = None,
    size: Size | None = None,
    batch: int | None = None,
    device: str = "cpu",
    scope: str | None = None,
    step: int | None = None,
    selection: Selection = EVERYTHING,
    graph: GraphOptions = BESIDE,
    seed: int | None = None,
    images: PathLike | Sequence[PathLike] = (),
    reference: PathLike | None = None,
    progress: Callable[[str], None] = lambda _: None,
    **arguments: Any,
) -> Report:
    """Compares every end point of a converted model with the TF-Slim graph's.

    Args:
      source: the checkpoint, whose weights the TF-Slim graph runs with.
      converted: a file or folder, or a model in memory: a `keras.Model` with slimport's names of layers, or a
        `torch.nn.Module` with `end_points(*inputs)`, from NCHW images to its output and {slim end point name: NCHW
        tensor}, which runs in the mode that it is in. None verifies the port with the source's own weights.
      target: `pytorch`, `keras`, `onnx` or `slim`; None follows from `converted`, or is `pytorch`.
      dtype: `float64` or `float32`; None is float64 wherever the target computes in it throughout.
      both_dtypes: whether the other dtype is measured too, where the target computes in it; then both count for the
        verdict. None means where `dtype` is None.
      size, batch, seed: of the input, random numbers in the range that the network's preprocessing gives; a size of one
        number is a square. None is the only size that the model takes, or an odd height and an even width where the
        network takes both, or else the size that it was made for; 2; and 0. With a trace, they are the trace's.
      images: a file that Pillow reads, or several, preprocessed as in the network's evaluation, in place of random
        numbers; for networks of images alone.
      device: `cpu` or `cuda`, of the port; the TF-Slim graph always runs on the CPU.
      scope, step, selection, graph: which network, checkpoint of a run's directory, part and TensorFlow graph of it, as
        of `convert`. The judge is that graph where the network is its own.
      reference: a trace of the source (`trace`) in the TF-Slim graph's place; TensorFlow is then not needed.
      progress: called with what is being done.
      arguments: of the network, in place of those that the source was built with.

    Raises:
      InputError: a file cannot be read, or is of another network, or an argument is not possible.
    """
    port_type = ports.port_type(target, converted)
    port_type.check_device(device)
    dtypes = _dtypes(port_type, dtype, dtype is None if both_dtypes is None else both_dtypes)
    trace = None if reference is None else open_trace(reference)
    if trace is not None and scope is None:
        # A converted file may not remember its scope; of a checkpoint's networks, this is the recorded one.
        scope = trace.description.scope
    with _sides(source, converted, port_type, (scope, step, selection, graph), arguments) as sides:
        asked = Input.of(sides.port.image_size if size is None and trace is None else size, batch, seed, images)
        if trace is not None:
            trace.check(sides.source, sides.arguments, asked)
        slim = trace or run_judge(sides.source, sides.arguments, asked, progress)
        _check_measurable(sides.source, slim, dtypes)
        return _report(sides, slim, dtypes, device, progress)


def _check_measurable(source: Source, slim: SlimSide, dtypes: Sequence[str]) -> None:
    """Raises InputError where the judge's own numbers are none, so that nothing would be proven."""
    for name, value in slim.truth.items():
        if not np.isfinite(value).all():
            raise InputError(
                f"{source.path}: could not be measured: in the judge itself {name} is not finite in float64: there are "
                f"such values in the weights, or they are too large"
            )
    for name, error in slim.rounding.items() if "float32" in dtypes else ():
        if not np.isfinite(error):
            raise InputError(
                f"{source.path}: could not be measured in float32: in the judge itself {name} overflows there; "
                f"--dtype float64 measures it"
            )


@dataclass(frozen=True)
class _Sides:
    """The source, and the port that is compared with it.

    file: the port's file, where it has one.
    named: the port's files; None for the port with the source's own weights.
    arguments: of the network, all of them.
    """

    source: Source
    file: Source | None
    port: Port
    named: Named | None
    arguments: dict[str, Any]


@contextmanager
def _sides(
    source: PathLike,
    converted: Any,
    port_type: type[Port],
    which: tuple[str | None, int | None, Selection, GraphOptions],
    given: Mapping[str, Any],
) -> Iterator[_Sides]:
    """Opens the source and loads or builds the port; the arguments are those of `verify`."""
    with _opened(source, converted, which) as opened:
        if port_type.program:
            opened = opened.without_auxiliary()
        arguments = all_arguments(opened, given)
        if not ports.is_path(converted):
            in_memory = converted is not None
            port = (
                ports.of_model(converted, opened.scope, opened.network)
                if in_memory
                else port_type.build(opened, arguments)
            )
            named = Named(f"a {type(converted).__name__} in memory") if in_memory else None
            yield _Sides(opened, None, port, named, arguments)
            return
        with open_source(converted, opened.scope) as file:
            _check_same(opened, file)
            _check_arguments(opened, file, arguments, given)
            named = Named(os.fspath(converted), file.digests())
            yield _Sides(opened, file, port_type.load(file, arguments), named, arguments)


@contextmanager
def _opened(
    source: PathLike, converted: Any, which: tuple[str | None, int | None, Selection, GraphOptions]
) -> Iterator[Source]:
    """Opens the source; of several networks, the one whose scope the converted file has in its description."""
    scope, step, selection, graph = which
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open_source(source, *which))
        except SeveralNetworksError:
            if scope is not None or not ports.is_path(converted):
                raise
            with open_file(Path(converted)) as file:
                remembered = file.description.get("scope")
            opened = stack.enter_context(open_source(source, remembered, step, selection, graph))
        yield opened


def _report(
    sides: _Sides, slim: SlimSide, dtypes: Sequence[str], device: str, progress: Callable[[str], None]
) -> Report:
    source, port = sides.source, sides.port
    weights = _compare_weights(sides, slim.weights)
    judge, rounded = _rounded(slim, weights.dtypes, source.scope)
    by_dtype = {}
    try:
        for dtype in sorted(dtypes, reverse=True):
            progress(f"running {source.network} in {port.backend()}, {dtype}")
            recording = port.record(judge.inputs, dtype, device)
            rows = judge.compare(recording.end_points, dtype, port.lacking)
            by_dtype[dtype] = Comparison(rows, tuple(_returned_rows(sides, recording, judge, rows)))
    except ValueError as error:
        raise InputError(f"{source.path}: nothing to compare: {first_line(error)}") from error
    trace = slim if isinstance(slim, Trace) else None
    return Report(
        network=str(source.network),
        target=port.target,
        dtype=dtypes[0],
        device=device,
        judge=slim.judge,
        backend=port.backend(),
        reader=slim.reader,
        inputs={one.name: array.shape for one, array in zip(slim.network.inputs, slim.inputs, strict=True)},
        by_dtype=by_dtype,
        weights_compared=weights.compared,
        weights_different=weights.different,
        weights_unexpected=weights.unexpected,
        settings_different=() if sides.file is None else tuple(port.different_settings(sides.file)),
        rounded=rounded,
        source=Named(os.fspath(source.path), source.digests()),
        converted=sides.named,
        reference=None if trace is None else Named(str(trace.path), {trace.path.name: sha256_of(trace.path)}),
        arguments={**({"images": slim.files} if slim.files else {"seed": slim.seed}), **sides.arguments},
        machine=port.machine(device),
        versions={"python": platform.python_version(), **frameworks.versions(*_PACKAGES)},
        reference_versions={} if trace is None else trace.description.versions,
        notes=(*_notes(source, sides.file), *port.notes),
    )


def _returned_rows(sides: _Sides, recording: Recording, judge: SlimSide, rows: Sequence[Row]) -> Iterator[Row]:
    """Yields rows for what the model returns: its outputs, each of which is an end point, and then auxiliary ones."""
    graph = sides.source.network.graph(**sides.arguments)
    names = {point.node: name for name, point in graph.end_point_names(sides.source.scope).items()}
    found = {row.name: row for row in rows}
    expected = [names.get(node) for node in (*graph.output_nodes, *graph.branches)]
    for label, arrays in recording.returned.items():
        for name, array in zip(expected, arrays, strict=False):
            if name is not None and (row := found.get(name)) is not None:
                truth = judge.truth[name]
                array = in_layout(array, truth) if isinstance(judge.network, GraphNetwork) else array
                shown = f"{label}, {name}" if len(arrays) > 1 else label
                yield replace(row, name=shown, rel_l2=rel_l2(array, truth), max_abs=max_abs(array, truth))


def _dtypes(port_type: type[Port], dtype: str | None, both: bool) -> tuple[str, ...]:
    """The dtype of the verdict, and then the other where both are measured."""
    inexact = port_type.why_not_float64()
    dtype = dtype or ("float32" if inexact else "float64")
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: must be float32 or float64")
    if dtype == "float64" and inexact:
        raise InputError(f"{port_type.backend()} {inexact}")
    return (dtype, *(other for other in DTYPES if other != dtype)) if both and not inexact else (dtype,)


@dataclass(frozen=True)
class _Weights:
    """The comparison of the port's variables with the source's; names are with their scope, but in `dtypes`."""

    compared: int
    different: tuple[str, ...]
    unexpected: tuple[str, ...]
    dtypes: Mapping[str, np.dtype[Any]]


def _compare_weights(sides: _Sides, weights: Mapping[str, Array]) -> _Weights:
    """Compares bit for bit, with the source's weights rounded to the other variable's dtype."""
    scope, file = sides.source.scope, sides.file
    different, dtypes = [], {}
    for name, array in sides.port.variables() if file is None else file.stream():
        # A model in memory may have more.
        if name in weights:
            dtypes[name] = array.dtype
            if array.tobytes() != weights[name].astype(array.dtype).tobytes():
                different.append(scoped(scope, name))
    # A checkpoint has more than the network's variables: it is from training.
    extras = {} if file is None or file.checkpoint is not None else file.recognition.extras
    unexpected = tuple(scoped(scope, name) for names in extras.values() for name in names)
    return _Weights(len(dtypes), tuple(different), unexpected, dtypes)


def _rounded(slim: SlimSide, dtypes: Mapping[str, np.dtype[Any]], scope: str) -> tuple[SlimSide, RoundedWeights | None]:
    """TF-Slim's side with the weights rounded to these dtypes, where they have fewer bits, and what that costs."""
    weights = slim.weights
    rounding = {
        name: weights[name].astype(dtype)
        for name, dtype in dtypes.items()
        if not np.can_cast(weights[name].dtype, dtype, "safe")
    }
    if not rounding:
        return slim, None
    judge = slim.with_weights({**weights, **rounding})
    return judge, RoundedWeights(
        dtypes=tuple(sorted({array.dtype.name for array in rounding.values()})),
        variables={scoped(scope, name): rel_l2(array, weights[name]) for name, array in rounding.items()},
        end_points={name: rel_l2(value, slim.truth[name]) for name, value in judge.truth.items()},
    )


def _notes(source: Source, file: Source | None) -> Iterator[str]:
    recorded = {} if file is None else file.file.description.get("source", {})
    digests = source.digests()
    for name in digests.keys() & recorded.keys():
        if digests[name] != recorded[name]:
            yield f"the converted file was made from another {name}, of SHA-256 {recorded[name]}"
    if source.selection not in (None, EVERYTHING):
        yield f"{source.path.name} is taken with {source.selection}, and the TF-Slim graph runs with these variables"
    yield from source.recognition.notes()
    if not source.recognition.scaled:
        yield "the TF-Slim graph is built with scale=False, without a gamma in any BatchNorm"


def _check_same(source: Source, converted: Source) -> None:
    """Raises InputError unless the file is of the source's network, as it was selected."""
    if converted.selection is not None and converted.selection != (source.selection or EVERYTHING):
        given, remembered = (
            str(selection) or "no such option" for selection in (source.selection or EVERYTHING, converted.selection)
        )
        raise InputError(
            f"{converted.path}: was converted with {remembered}, but verify was called with {given}: give it the same"
        )
    if converted.network != source.network:
        raise InputError(
            f"{converted.path}: holds {_describe(converted)}, but {source.path} holds {_describe(source)}: nothing to "
            f"compare; where it was converted with --drop-background, --no-head or --exclude-scope, give verify the "
            f"same"
        )


def _check_arguments(source: Source, converted: Source, arguments: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises InputError unless the file was built with these arguments; only programs cannot be given others."""
    built = all_arguments(converted, {})
    program = converted.format.program
    other = [name for name in arguments if arguments[name] != built[name] and (program or name not in given)]
    if other:
        was, asked = (", ".join(f"{name} {values[name]}" for name in other) for values in (built, arguments))
        raise InputError(
            f"{converted.path}: is a program with {was}, and cannot take others: {asked}"
            if program
            else f"{converted.path}: was built with {was}, but {source.path} with {asked}: give verify what both are "
            f"to run with"
        )


def _describe(source: Source) -> str:
    classes = source.network.num_classes
    return f"{source.network} with {classes or 'no'} classes"
