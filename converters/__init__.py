"""Everything that moves weights: checkpoint files, recognition, mapping, targets, parity.

Each name is imported when it is first used, so that importing this package is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.checkpoint import Checkpoint, open_checkpoint
    from converters.conversion import Conversion, convert
    from converters.errors import CheckpointError, InputError
    from converters.inspection import Inspection, inspect
    from converters.loading import load_keras, load_pytorch
    from converters.parity import Report, trace, verify
    from converters.prediction import Predictions, predict
    from converters.remote import fetch
    from converters.weights.selection import Selection
    from converters.weights.user_graph import GraphOptions

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Conversion",
    "GraphOptions",
    "InputError",
    "Inspection",
    "Predictions",
    "Report",
    "Selection",
    "convert",
    "fetch",
    "inspect",
    "load_keras",
    "load_pytorch",
    "open_checkpoint",
    "predict",
    "trace",
    "verify",
]

_MODULES = {
    "Checkpoint": "checkpoint",
    "CheckpointError": "errors",
    "Conversion": "conversion",
    "GraphOptions": "weights.user_graph",
    "InputError": "errors",
    "Inspection": "inspection",
    "Predictions": "prediction",
    "Report": "parity",
    "Selection": "weights.selection",
    "convert": "conversion",
    "fetch": "remote",
    "inspect": "inspection",
    "load_keras": "loading",
    "load_pytorch": "loading",
    "open_checkpoint": "checkpoint",
    "predict": "prediction",
    "trace": "parity",
    "verify": "parity",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'converters' has no attribute {name!r}")
    return getattr(import_module(f"converters.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
