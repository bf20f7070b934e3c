"""Base class of the ports, and what the processor is."""

from __future__ import annotations

import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from converters import mapping
from converters.errors import InputError
from converters.formats.models import Variables
from converters.variables import Array
from converters.weights.source import Source
from slimport.graph import Sides, scoped


class Recording(NamedTuple):
    """One run of a model, as NHWC arrays.

    end_points: by slim's names.
    returned: what a user gets who calls the model, in the order of the network's outputs, by what returned it.
    """

    end_points: dict[str, Array]
    returned: Mapping[str, Sequence[Array]] = {}


class Port(ABC):
    """A model of one framework that `verify` judges."""

    target: ClassVar[str]
    frameworks: ClassVar[tuple[str, ...]]
    """Of the formats whose files this port loads."""
    program: ClassVar[bool] = False
    """Whether the files carry the computation, with arguments that are fixed and the network's output alone."""
    kind: ClassVar[str] = "file"
    """The word for its files in a message."""
    notes: tuple[str, ...] = ()
    """How the end points came about, where that is not as usual."""
    lacking: frozenset[str] = frozenset()
    """The end points that the model does not compute, as its output does not need them."""
    image_size: Sides | None = None
    """The only height and width of the images that the model takes; None is others too."""

    @classmethod
    @abstractmethod
    def load(cls, file: Source, arguments: Mapping[str, Any]) -> Port:
        """The model that a user gets from a converted file, run with all of these arguments.

        Raises:
          InputError: the framework cannot load it.
        """

    @classmethod
    def build(cls, source: Source, arguments: Mapping[str, Any]) -> Port:  # noqa: ARG003
        """The model with a source's own weights.

        Raises:
          InputError: there is none but in files.
        """
        raise InputError(f"--target {cls.target}: name the {cls.kind} to verify, which 'slimport convert' writes")

    def variables(self) -> Variables:
        """The variables of a model in memory, by slim's name relative to the scope."""
        return ()

    def different_settings(self, file: Source) -> Iterator[str]:  # noqa: ARG002
        """The settings in the loaded file that are not its network's, as `Report.settings_different`."""
        return iter(())

    @abstractmethod
    def record(self, inputs: Sequence[Array], dtype: str, device: str) -> Recording:
        """Runs the model with the kernels that round least.

        Args:
          inputs: as of `SlimSide`.
          dtype: `float32` or `float64`.
          device: `cpu` or `cuda`.

        Raises:
          InputError: the framework cannot run it.
        """

    @classmethod
    def why_not_float64(cls) -> str | None:
        """The reason why it does not compute in float64 throughout; None if it does."""
        return None

    @classmethod
    @abstractmethod
    def backend(cls) -> str:
        """The framework and version that computes: `torch 2.13.0`, `keras 3.15.1 on tensorflow`."""

    @classmethod
    def check_device(cls, device: str) -> None:
        """Raises InputError if there is no such device, or the framework does not see it."""
        if device not in ("cpu", "cuda"):
            raise InputError(f"--device {device}: must be cpu or cuda")
        if device == "cuda" and cls.gpu() is None:
            raise InputError(
                f"--device {device}: the {cls.target} framework sees no CUDA device here; use --device cpu"
            )

    @classmethod
    @abstractmethod
    def gpu(cls) -> str | None:
        """The name of the GPU that the framework sees; None if it sees none."""

    @classmethod
    def machine(cls, device: str) -> str:
        """The GPU's name, or the processor's architecture and number of cores."""
        return f"{platform.machine()}, {os.cpu_count()} cores" if device == "cpu" else cls.gpu() or "GPU"


def end_point_names(file: Source, notes: Mapping[str, Any]) -> dict[str, str]:
    """The names of a program's values by slim's names of the end points, from its notes.

    Raises:
      InputError: there are none.
    """
    names = notes.get("end_points")
    if not names:
        raise InputError(f"{file.path}: slimport did not write it, so its end points cannot be found in it")
    return dict(names)


def unused(file: Source, names: Iterable[str]) -> Iterator[str]:
    """What `different_settings` says of weights that a program does not compute with, by PyTorch's names."""
    weights = {mapping.pytorch_name(name) for name in file.network.variables()}
    for name in names:
        if name in weights:
            yield f"{scoped(file.scope, name.replace('.', '/'))}: the program does not compute with it"


class Predictions:
    """The end points that a program leaves out, as its output does not need them.

    lacking: their names, but for the softmax of the output, which is computed here.
    """

    NAMES = ("predictions", "Predictions")

    def __init__(self, file: Source, arguments: Mapping[str, Any]) -> None:
        graph = file.network.graph(**arguments)
        points = graph.end_point_names(file.scope)
        left_out = [name for name, point in points.items() if point.node not in graph.needed]
        self._name = next((name for name in left_out if name in self.NAMES), None)
        self.lacking = frozenset(left_out) - {self._name}

    @property
    def notes(self) -> tuple[str, ...]:
        """The report's notes on them."""
        notes = [f"not in the file, whose output does not need it: {name}" for name in sorted(self.lacking)]
        if self._name is not None:
            notes.append(f"{self._name} are not in the file: they are the softmax of its output, computed here")
        return tuple(notes)

    def added(self, recording: Recording) -> Recording:
        """The recording with this end point, in the logits' dtype, behind the others."""
        values, (returned, *_) = recording.end_points, next(iter(recording.returned.values()))
        if self._name is not None:
            exponential = np.exp(returned - returned.max(-1, keepdims=True))
            values[self._name] = np.asarray(exponential / exponential.sum(-1, keepdims=True))
        return recording
