"""A port per framework: how it loads, builds, runs, and on what device and in what dtype it can be judged."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from converters.errors import InputError
from converters.formats import CONVERTED_SUFFIXES, format_of
from converters.parity.ports.base import Port, Recording
from converters.parity.ports.keras import KerasPort, record_keras
from converters.parity.ports.onnx import OnnxPort
from converters.parity.ports.pytorch import ProgramPort, PyTorchPort, record_pytorch
from converters.parity.ports.slim import SlimPort
from slimport.networks import Network

__all__ = ["PORTS", "Port", "Recording", "of_model", "port_type", "record_keras", "record_pytorch"]

PORTS: tuple[type[Port], ...] = (PyTorchPort, KerasPort, OnnxPort, SlimPort, ProgramPort)
TARGETS = tuple(dict.fromkeys(port.target for port in PORTS))


def port_type(target: str | None, converted: Any) -> type[Port]:
    """The class of the port that judges `converted`.

    Args:
      target: one of `TARGETS`; None follows from `converted`, or is PyTorch.
      converted: a file's path, a model in memory, or None for the port with the source's own weights.

    Raises:
      InputError: there is no such target, or `converted` is for another.
    """
    if target not in (None, *TARGETS):
        raise InputError(f"target {target!r}: must be one of {', '.join(TARGETS)}")
    if converted is None:
        return next(port for port in PORTS if port.target == (target or PyTorchPort.target))
    if not is_path(converted):
        found = type(of_model(converted, ""))
        if target not in (None, found.target):
            raise InputError(f"the model in memory is for {found.target}, not for target {target!r}")
        return found
    found = _port_type_of(Path(converted))
    if target not in (None, found.target):
        raise InputError(f"{converted}: is for {found.target}, not for --target {target}")
    return found


def of_model(model: Any, scope: str, network: Network | None = None) -> Port:
    """The port of a model in memory, which stays as it is.

    Args:
      scope: of the end points' names.
      network: that of the source.

    Raises:
      InputError: it is no `keras.Model`, and no `torch.nn.Module` with `end_points`.
    """
    # Whoever has a model has imported its framework. On its torch backend, a Keras model is a module of torch's too.
    if "keras" in sys.modules and isinstance(model, sys.modules["keras"].Model):
        return KerasPort(model, scope, network)
    if "torch" in sys.modules and isinstance(model, sys.modules["torch"].nn.Module) and hasattr(model, "end_points"):
        return PyTorchPort(model)
    raise InputError(
        f"a {type(model).__name__} cannot be verified: it must be a file's path, a keras.Model, or a torch.nn.Module "
        f"with end_points(images)"
    )


def is_path(converted: Any) -> bool:
    """Whether it is the path of a file, and not a model in memory or None."""
    return isinstance(converted, str | os.PathLike)


def _port_type_of(path: Path) -> type[Port]:
    format_ = format_of(path)
    if format_.framework == SlimPort.target and not Path(f"{os.fspath(path).removesuffix('.index')}.index").is_file():
        raise InputError(
            f"{path}: cannot tell what this is; a converted file's name ends in one of "
            f"{', '.join(CONVERTED_SUFFIXES)}, or is the prefix of a checkpoint"
        )
    return next(p for p in PORTS if format_.framework in p.frameworks and format_.program == p.program)
