"""PyTorch and Keras models with the weights of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.formats.models import keras_model, pytorch_model
from converters.variables import PathLike
from converters.weights.selection import EVERYTHING, Selection
from converters.weights.source import Source, open_source
from converters.weights.user_graph import BESIDE, GraphOptions
from slimport.functions import without_classes

if TYPE_CHECKING:
    from slimport.pytorch import Network


def load_pytorch(
    path: PathLike,
    scope: str | None = None,
    step: int | None = None,
    selection: Selection = EVERYTHING,
    graph: GraphOptions = BESIDE,
    **arguments: Any,
) -> Network:
    """The PyTorch model of a checkpoint or of a converted file, in eval mode.

    Args:
      path: a checkpoint or a converted file, see `open_source`.
      scope: the network's scope, if there are several networks.
      step: the checkpoint of a training run's directory; None is the newest.
      selection: the variables to use.
      graph: the user's own graph, for everything that variables cannot tell.
      arguments: of the network (`global_pool`, say), as the family's `arguments` lists them; others are the file's, or
        the defaults.

    Raises:
      InputError: it cannot be read, or contains no complete network, or PyTorch is not installed.
    """
    with open_source(path, scope, step, selection, graph) as source:
        model: Network = pytorch_model(source, **_arguments(source, arguments, "model.reset_classifier"))
        return model


def load_keras(
    path: PathLike,
    scope: str | None = None,
    step: int | None = None,
    selection: Selection = EVERYTHING,
    graph: GraphOptions = BESIDE,
    **arguments: Any,
) -> Any:
    """The Keras model of a checkpoint or of a converted file.

    Args:
      path: a checkpoint or a converted file, see `open_source`.
      scope: the network's scope, if there are several networks.
      step: the checkpoint of a training run's directory; None is the newest.
      selection: the variables to use.
      graph: the user's own graph, for everything that variables cannot tell.
      arguments: of the network (`global_pool`, say), as the family's `arguments` lists them, and `dtype`; others are
        the file's, or the defaults.

    Raises:
      InputError: it cannot be read, or contains no complete network, or Keras or its backend is not installed.
    """
    with open_source(path, scope, step, selection, graph) as source:
        instead = "a keras.layers.Dense on an end point (slimport.keras.end_points)"
        return keras_model(source, **_arguments(source, arguments, instead))


def _arguments(source: Source, given: dict[str, Any], instead: str) -> dict[str, Any]:
    return without_classes(source.network, given, str(source.path), instead, InputError)
