"""The interface of formats: files opened as slim's variables, and writers of a network's weights."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from converters import files, mapping
from converters.errors import InputError, first_line
from converters.variables import Array, Variable
from slimport import networks
from slimport.networks import Network

if TYPE_CHECKING:
    from converters.checkpoint import Checkpoint

FLOATING_POINT = ("float16", "bfloat16", "float32", "float64")
LARGEST_TEXT = 64 << 20
"""Bytes of JSON that are read of a file: the largest graph's description has less than a tenth of that."""
_MOST_VARIABLES = 30_000
"""More than any network of thousands of layers has with its training state; `inspect` takes 5 s and 90 MiB for them."""
_CHECKSUM = "checksum"
_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("network", "source", "arguments", "rounding", "selection", "view", "filled", "end_points"), dict),
    "scope": str,
}
"""The types of what a description has."""


class Weights(Protocol):
    """A network's variables on their way into a file."""

    @property
    def network(self) -> Network:
        """The network."""

    @property
    def scope(self) -> str:
        """The model's scope."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments of the network's definition that are not the defaults."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the variables come from."""

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """The variables' dtypes by slim's name relative to the scope, in the order of the stream."""

    @property
    def stream(self) -> Callable[[], Iterator[tuple[str, Array]]]:
        """Yields (slim's name relative to the scope, array); an array is valid until the next one."""

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file, in hex, by the file's name."""

    def description(self, digests: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The description of the network and its source, as plain JSON values."""

    def without_auxiliary(self) -> Weights:
        """The weights without the branches that the network's output does not need."""


@dataclass(frozen=True)
class OpenFile:
    """An opened file, as slim's variables; tensors are read on request.

    Attributes:
      path: the file.
      format: the format's name.
      files: all its files.
      variables: by slim's name, shapes in slim's layout. In a checkpoint, names begin with the model's scope, and a
        `Variable.name` is the key in the file; a converted file's are relative to the scope.
      read: yields (`Variable.name`, array) for some of these; an array is valid until the next one.
      description: a converted file's description of its network and its source.
      checkpoint: the checkpoint, if it is one.
    """

    path: Path
    format: str
    files: tuple[Path, ...]
    variables: Mapping[str, Variable]
    read: Callable[[Iterable[str]], Iterator[tuple[str, Array]]] = field(repr=False)
    description: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None

    @property
    def network(self) -> Network | None:
        """The network in the description, or None."""
        return described_network(self.path, self.description)


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
      name: for `inspect`.
      framework: the framework that reads it, for `--to` and `--target`.
      suffixes: of its files' names; `/` is a folder.
      place: in the list of formats; the first of a framework is its default.
      open: opens a file; the number is the step of a training run.
      write: writes a file, which appears whole or not at all.
      dtypes: in which it can be written.
      program: whether its files contain the computation too, with fixed arguments.
      largest: bytes of weights in a file; None is any number.
    """

    name: str
    framework: str
    suffixes: tuple[str, ...]
    place: int
    open: Callable[[Path, int | None], AbstractContextManager[OpenFile]]
    write: Callable[[Weights, Path], None]
    dtypes: tuple[str, ...] = FLOATING_POINT
    program: bool = False
    largest: int | None = None

    def check_dtype(self, dtype: str) -> None:
        """Raises InputError if the format cannot be written in this dtype."""
        if dtype not in self.dtypes:
            raise InputError(f"--dtype {dtype}: must be one of {', '.join(self.dtypes)} for {self.suffixes[0]}")

    def check_size(self, weights: Weights, path: Path, dtype: str | None = None) -> None:
        """Raises InputError if the weights, in this dtype or their own, are more than a file can have."""
        if self.largest is None:
            return
        shapes, dtypes = weights.network.without_auxiliary().variables(), weights.dtypes
        size = sum(math.prod(shape) * np.dtype(dtype or dtypes[name]).itemsize for name, shape in shapes.items())
        if size > self.largest:
            limit = f"a {self.suffixes[0]} file has {self.largest / 1e9:.1f} GB at most"
            raise InputError(f"{path}: {size / 1e9:.1f} GB of weights; {limit}: convert to .pt2")


def described_network(path: Path, description: Mapping[str, Any]) -> Network | None:
    """The network in a file's description, or None.

    Raises:
      InputError: it names one that this version does not know.
    """
    if "network" not in description:
        return None
    try:
        return networks.from_json(description["network"])
    # Whatever is raised, it is about this text.
    except Exception as error:
        raise InputError(f"{path}: its description is not of a network: {first_line(error)}") from error


def description_text(description: Mapping[str, Any]) -> str:
    """A description as JSON with its checksum, for a file."""
    return json.dumps({**description, _CHECKSUM: _checksum(description)})


def read_description(path: Path, text: str | bytes) -> dict[str, Any]:
    """The description in a file, from its JSON; empty if there is none.

    Raises:
      InputError: it is damaged, or no description of slimport's.
    """
    found = read_json(path, text or "{}", "its description")
    for name, type_ in _TYPES.items():
        if not isinstance(found.get(name, type_()), type_):
            raise InputError(f"{path}: its description is damaged: {name!r} is not of its type; convert it again")
    for said in (found.get("selection"), found.get("view")):
        _check_selection(path, said)
    # Files of earlier versions have none.
    checksum = found.pop(_CHECKSUM, None)
    if checksum is not None and checksum != _checksum(found):
        raise InputError(f"{path}: its description is damaged: its checksum does not match; convert it again")
    return found


def read_json(path: Path, text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object in a file.

    Raises:
      InputError: it is damaged, or too long to be true.
    """
    if len(text) > LARGEST_TEXT:
        raise InputError(f"{path}: {what} is longer than {LARGEST_TEXT} bytes; it is no file of slimport's")
    try:
        found = json.loads(text, object_pairs_hook=_once)
    # Of deep nesting too, which is RecursionError.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {what} is not JSON: {first_line(error)}; get the file again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: {what} is not a JSON object; get the file again")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is in it twice")
    return found


def _checksum(description: Mapping[str, Any]) -> str:
    # Always as long, whatever it is.
    return f"{zlib.crc32(json.dumps(description, sort_keys=True).encode()):08x}"


def _check_selection(path: Path, said: Mapping[str, Any] | None) -> None:
    scopes = () if said is None else said.get("exclude_scopes")
    kinds = {"ema": bool, "drop_background": bool, "head": bool, "exclude_scopes": list}
    right = said is None or (
        set(said) <= set(kinds)
        and isinstance(scopes, list)
        and all(isinstance(scope, str) for scope in scopes)
        and all(isinstance(value, kinds[name]) for name, value in said.items())
    )
    if not right:
        raise InputError(f"{path}: its description is damaged: no selection of slimport's; convert it again")


def check_count(path: Path, count: int) -> None:
    """Raises InputError if a file has more variables than any network with all its training state."""
    if count > _MOST_VARIABLES:
        raise InputError(
            f"{path}: {count} variables, and no network has more than {_MOST_VARIABLES}; name another file, or read it "
            "with open_checkpoint in Python"
        )


def pytorch_names(names: Iterable[str]) -> dict[str, str]:
    """PyTorch's names by slim's.

    Raises:
      InputError: two variables would have one name.
    """
    found: dict[str, str] = {}
    slim: dict[str, str] = {}
    for name in names:
        found[name] = mapping.pytorch_name(name)
        if (other := slim.setdefault(found[name], name)) != name:
            raise InputError(f"{other} and {name}: both would be {found[name]} in PyTorch; leave one out")
    return found


def pytorch_pieces(name: str, array: Array) -> Iterator[memoryview]:
    """Yields the bytes of slim's variable `name` in PyTorch's layout, of a large one in parts.

    A part is along the first axis, which is slim's last.
    """
    kernel = name.rpartition("/")[2] in ("weights", "pointwise_weights") and array.ndim in (2, 4)
    step = max(1, files.PIECE * array.shape[-1] // array.nbytes) if kernel and array.nbytes > 2 * files.PIECE else 0
    parts = (array[..., start : start + step] for start in range(0, array.shape[-1], step)) if step else [array]
    for part in parts:
        yield mapping.pytorch_array(name, part).reshape(-1).view(np.uint8).data


def pytorch_file(
    path: Path,
    format_: str,
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    tensor: Callable[[str], Array],
    description: Mapping[str, Any],
) -> OpenFile:
    """A file of tensors by PyTorch's names.

    Args:
      path: the file.
      format_: the format's name.
      tensors: shape and dtype by PyTorch's name.
      tensor: reads one.
      description: the file's. If it has no network, the rule for names tells slim's.
    """
    check_count(path, len(tensors))
    network = described_network(path, description)
    shapes = {} if network is None else network.variables()
    described = {mapping.pytorch_name(name): name for name in shapes}
    slim_names = {**mapping.slim_names(tensors), **{name: slim for name, slim in described.items() if name in tensors}}
    names = {slim: name for name, slim in slim_names.items()}
    if twice := next((slim for name, slim in slim_names.items() if names[slim] != name), None):
        raise InputError(f"{path}: two tensors for one variable, {twice}: {names[twice]} and another; leave one out")
    variables = {}
    for slim, name in names.items():
        shape, dtype = tensors[name]
        known = shapes.get(slim)
        shape = known if known and mapping.pytorch_shape(slim, known) == shape else mapping.slim_shape(slim, shape)
        variables[slim] = Variable(slim, shape, dtype)

    def read(wanted: Iterable[str]) -> Iterator[tuple[str, Array]]:
        for slim in wanted:
            yield slim, mapping.slim_layout(slim, tensor(names[slim])).reshape(variables[slim].shape)

    return OpenFile(path, format_, (path,), variables, read, description)
