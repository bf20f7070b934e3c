"""The interface of formats: files opened as slim's variables, and writers of a network's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from converters import mapping
from converters.errors import InputError
from converters.variables import Array, Variable
from slimport import networks
from slimport.networks import Network

if TYPE_CHECKING:
    from converters.checkpoint import Checkpoint

FLOATING_POINT = ("float16", "bfloat16", "float32", "float64")


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
    """

    name: str
    framework: str
    suffixes: tuple[str, ...]
    place: int
    open: Callable[[Path, int | None], AbstractContextManager[OpenFile]]
    write: Callable[[Weights, Path], None]
    dtypes: tuple[str, ...] = FLOATING_POINT
    program: bool = False

    def check_dtype(self, dtype: str) -> None:
        """Raises InputError if the format cannot be written in this dtype."""
        if dtype not in self.dtypes:
            raise InputError(f"--dtype {dtype}: must be one of {', '.join(self.dtypes)} for {self.suffixes[0]}")


def described_network(path: Path, description: Mapping[str, Any]) -> Network | None:
    """The network in a file's description, or None.

    Raises:
      InputError: it names one that this version does not know.
    """
    if "network" not in description:
        return None
    try:
        return networks.from_json(description["network"])
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: its description is not of a network: {error}") from error


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
