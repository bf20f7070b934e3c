"""`trace`: TF-Slim's end points in a file, for machines without TensorFlow.

A trace has everything that a verdict depends on: the input; TF-Slim's end points in float64, bit for bit; and its
rel_l2 in float32 at each of them. A digest of the weights says whose they are.

The file is a `.npz` of plain arrays; nothing in it is ever unpickled:

- `trace`: bytes of JSON, the fields of `Description` and, in the network's order, how to get each end point.
- `images`: float32 [batch, height, width, channels], or whatever the network's first input is; `input_1` and so on are
  the others, where there are several. Whole numbers are in the input's dtype.
- `rounding`: float64 [1, end points]. Earlier traces have several runs, of which the first is read.
- `end_point_<n>`: bytes [8, size], the end point's float64 numbers, little-endian, the first bytes of all of them
  first. Random numbers do not compress, but their exponents do, and so do the zeros that a ReLU gives.

An end point that is another one, or the sum of two (a unit's output is its shortcut's and its last convolution's), is
not stored but computed: IEEE addition gives the same bits everywhere. The numbers themselves decide on it, whatever the
network is. This saves two fifths of the file.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters import frameworks
from converters.errors import InputError, first_line
from converters.files import atomic, check_destination
from converters.parity.images import Input, check_asked
from converters.parity.own_graph import run_judge
from converters.parity.reference import Reference, SlimSide, all_arguments
from converters.variables import Array, PathLike
from converters.weights.selection import EVERYTHING, Selection
from converters.weights.source import Source, open_source
from converters.weights.user_graph import BESIDE, GraphOptions
from slimport import networks
from slimport.networks import Network
from slimport.preprocessing import Size

SUFFIX = ".npz"
_FORMAT = "slimport trace 1"
_STRIDES = (1, 2)
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Description:
    """The network, weights and input of a trace.

    network: its description, as `to_json`.
    scope: the model's scope in the end points' names.
    weights: `weights_digest`.
    arguments: of the network, all of them.
    seed: of the inputs; None where they are of files.
    reader: whose reader the weights came through.
    versions: of what computed it.
    judge: whose graph code it ran. Earlier traces do not say.
    content: `content_digest`. Earlier traces have none.
    files: the names of the images' files.
    """

    network: dict[str, Any]
    scope: str
    weights: str
    arguments: dict[str, Any]
    seed: int | None
    reader: str
    versions: dict[str, str]
    judge: str = "slimport.nets"
    content: str = ""
    files: tuple[str, ...] = ()


class Trace(SlimSide):
    """A trace in a file; it has `weights` once it was checked against their source."""

    def __init__(
        self,
        path: Path,
        description: Description,
        inputs: tuple[Array, ...],
        truth: Mapping[str, Array],
        rounding: Mapping[str, float],
    ) -> None:
        self.path, self.description, self.inputs = path, description, inputs
        self.network = networks.from_json(description.network)
        self.seed, self.files, self.reader = description.seed, tuple(description.files), description.reader
        self._truth, self._rounding = truth, rounding

    @property
    def judge(self) -> str:
        return self.description.judge

    @property
    def truth(self) -> Mapping[str, Array]:
        return self._truth

    @property
    def rounding(self) -> Mapping[str, float]:
        return self._rounding

    def with_weights(self, weights: Mapping[str, Array]) -> Reference:  # noqa: ARG002
        raise InputError(
            f"{self.path}: a trace of the source's own weights, and the converted file's are rounded: verify it where "
            f"TensorFlow is installed, without a trace"
        )

    def check(
        self,
        source: Source,
        arguments: Mapping[str, Any],
        asked: Input,
    ) -> None:
        """Checks that it is a trace of this source, run with these arguments on this input.

        Raises:
          InputError: it is not.
        """
        recorded = self.description
        if self.network != source.network:
            raise InputError(
                f"{self.path}: a trace of {self.network} with {self.network.num_classes or 'no'} classes, but "
                f"{source.path} holds {source.network} with {source.network.num_classes or 'no'} classes, or "
                f"other blocks"
            )
        if recorded.scope != source.scope:
            raise InputError(
                f"{self.path}: recorded under scope {recorded.scope!r}, but {source.path} is under {source.scope!r}"
            )
        if asked.files:
            raise InputError(f"{self.path}: a trace has its own input: --reference and --image exclude each other")
        check_asked(self.network, asked)
        size = next((array.shape[1:3] for array in self.inputs if array.ndim == 4), None)
        batch = next((len(array) for array in self.inputs if array.ndim), None)
        was = {**recorded.arguments, "size": size, "batch": batch, "seed": recorded.seed}
        given = {name: value for name, value in asked._asdict().items() if value is not None and name != "files"}
        other = {name: value for name, value in {**arguments, **given}.items() if was.get(name) != value}
        if other:
            then, now = (
                ", ".join(f"{name} {values.get(name)}" for name in other) for values in (was, {**arguments, **given})
            )
            raise InputError(f"{self.path}: recorded with {then}, not with {now}; use the same")
        self.weights = source.arrays()
        if recorded.weights != weights_digest(source.network, self.weights):
            raise InputError(
                f"{self.path}: a trace of other weights than those in {source.path}; record one of these with "
                f"'slimport trace', where TensorFlow is installed"
            )


def trace(
    source: PathLike,
    path: PathLike,
    *,
    size: Size | None = None,
    batch: int | None = None,
    scope: str | None = None,
    step: int | None = None,
    selection: Selection = EVERYTHING,
    graph: GraphOptions = BESIDE,
    seed: int | None = None,
    images: PathLike | Sequence[PathLike] = (),
    progress: Callable[[str], None] = lambda _: None,
    **arguments: Any,
) -> Description:
    """Records TF-Slim's end points of a checkpoint's network, for `verify`'s `reference`.

    Args:
      source: the checkpoint.
      path: the `.npz` to write; it appears whole or not at all.
      size, batch, seed, images: of the input, as of `verify`.
      scope: which network, where the source has several.
      step: which checkpoint of a training run's directory; None is the newest.
      selection: what to take of the source's network.
      graph: the user's own TensorFlow graph.
      progress: called with what is being done.
      arguments: of the network (`global_pool`, `output_stride`, ...), as the family's `arguments` lists them.

    Raises:
      InputError: the source cannot be read, an argument cannot be, or `path` cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: a trace's name must end in {SUFFIX}")
    check_destination(path)
    with open_source(source, scope, step, selection, graph) as opened:
        network = opened.network
        arguments = all_arguments(opened, arguments)
        reference = run_judge(opened, arguments, Input.of(size, batch, seed, images), progress)
        description = Description(
            network=network.to_json(),
            scope=opened.scope,
            weights=weights_digest(network, reference.weights),
            arguments=arguments,
            seed=reference.seed,
            reader=reference.reader,
            versions=frameworks.versions("tensorflow", "tf_slim", "numpy", "slimport"),
            judge=reference.judge,
            files=reference.files,
        )
        rounding = np.array([list(reference.rounding.values())])
        content = content_digest(reference.inputs, reference.truth, rounding[0])
        description = replace(description, content=content)
        progress(f"writing {path}")
        _write(path, description, reference, rounding)
    return description


def open_trace(path: PathLike) -> Trace:
    """Reads a trace.

    Raises:
      InputError: it is not a trace, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not a .npz file that 'slimport trace' wrote, or cut off")
    try:
        with np.load(path, allow_pickle=False) as file:
            if "trace" not in file:
                raise InputError(f"{path}: not a trace that 'slimport trace' wrote")
            data = json.loads(file["trace"].tobytes())
            if data.pop("format") != _FORMAT:
                raise InputError(f"{path}: a trace of another version of slimport; record it again")
            recipes = data.pop("end_points")
            description = Description(**data)
            truth = _read_end_points(file, recipes)
            described = networks.from_json(description.network).inputs
            inputs = tuple(file[name] for name in _input_names(len(described)))
            rounding = file["rounding"][0]
        ranks = [len(one.shape) for one in described]
        if [array.ndim for array in inputs] != ranks or rounding.shape != (len(truth),):
            raise ValueError("its arrays do not fit each other")
        if description.content and description.content != content_digest(inputs, truth, rounding):
            raise ValueError("its numbers are not those that were recorded")
        return Trace(path, description, inputs, truth, dict(zip(truth, rounding.tolist(), strict=True)))
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{path}: not a trace, or a damaged one: {first_line(error)}") from error


# What numpy, zipfile, zlib and json raise on a file that is not one.
_DAMAGE = (
    OSError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


def weights_digest(network: Network, weights: Mapping[str, Array]) -> str:
    """SHA-256 over the names, dtypes, shapes and little-endian bytes of the network's variables, in slim's order.

    Names are relative to the scope and layouts are slim's, so that it is the same for a checkpoint of any format and
    for what it was converted to.
    """
    digest = hashlib.sha256()
    for name in network.variables():
        array = weights[name]
        digest.update(f"{name} {array.dtype.name} {list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def content_digest(inputs: Sequence[Array], truth: Mapping[str, Array], rounding: Array) -> str:
    """SHA-256 over the names, shapes and little-endian bytes of everything that a verdict depends on."""
    digest = hashlib.sha256()
    images, *more = inputs
    for name, array, dtype in (
        ("images", images, "<f4"),
        *((f"input_{index}", array, "<f4") for index, array in enumerate(more, 1)),
        *((name, value, "<f8") for name, value in truth.items()),
        ("rounding", rounding, "<f8"),
    ):
        digest.update(f"{name} {list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _input_names(count: int) -> list[str]:
    """The names of the inputs' arrays in the file."""
    return ["images", *(f"input_{index}" for index in range(1, count))]


def _write(path: Path, description: Description, reference: SlimSide, rounding: Array) -> None:
    arrays: dict[str, Array] = dict(zip(_input_names(len(reference.inputs)), reference.inputs, strict=True))
    arrays["rounding"] = rounding
    recipes: list[dict[str, Any]] = []
    earlier: dict[str, Numbers] = {}
    for name, value in reference.truth.items():
        array = value.astype("<f8", copy=False)
        recipe: dict[str, Any] = {"name": name, "shape": array.shape}
        terms = _terms(array, earlier)
        if terms:
            recipe["sum"] = terms
        else:
            recipe["array"] = f"end_point_{len(recipes)}"
            arrays[recipe["array"]] = array.reshape(-1, 1).view(np.uint8).T.copy()
        recipes.append(recipe)
        earlier[name] = array
    data = {"format": _FORMAT, **asdict(description), "end_points": recipes}
    arrays["trace"] = np.frombuffer(json.dumps(data).encode(), np.uint8)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _read_end_points(file: Mapping[str, Array], recipes: list[dict[str, Any]]) -> dict[str, Numbers]:
    found: dict[str, Numbers] = {}
    for recipe in recipes:
        if "sum" in recipe:
            first, *rest = (_strided(found[name], stride) for name, stride in recipe["sum"])
            array = sum(rest, first)
        else:
            array = np.ascontiguousarray(file[recipe["array"]].T).view("<f8")
        found[recipe["name"]] = array.reshape(recipe["shape"])
    return found


def _terms(array: Numbers, earlier: Mapping[str, Numbers]) -> list[tuple[str, int]] | None:
    """The one or two end points, each with a stride, whose sum has the same bits as `array`."""
    for name, other in earlier.items():
        if _same_bits(array, other):
            return [(name, 1)]
    if not earlier:
        return None
    last, addend = list(earlier.items())[-1]
    if addend.shape != array.shape:
        return None
    for name, other in reversed(list(earlier.items())):
        for stride in _STRIDES if other.ndim == array.ndim == 4 else ():
            term = _strided(other, stride)
            if term.shape != array.shape:
                continue
            # The first pixels tell nearly all of those apart that are not it.
            first = (slice(1),) * 3
            if _same_bits(array[first], term[first] + addend[first]) and _same_bits(array, term + addend):
                return [(name, stride), (last, 1)]
    return None


def _strided(array: Numbers, stride: int) -> Numbers:
    return array if stride == 1 else array[:, ::stride, ::stride]


def _same_bits(a: Array, b: Array) -> bool:
    return a.size == b.size and a.flat[:8].tobytes() == b.flat[:8].tobytes() and a.tobytes() == b.tobytes()
