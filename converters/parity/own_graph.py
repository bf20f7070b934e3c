"""The user's own graph as the judge: TensorFlow runs it, with the weights that TensorFlow reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, first_line
from converters.parity import tf_slim
from converters.parity.compare import rounding_of
from converters.parity.images import Input, make_inputs, shapes
from converters.parity.reference import Reference, SlimSide, run_slim
from converters.variables import Array
from converters.weights.source import Source
from slimport.graph import scoped
from slimport.networks import GraphNetwork

if TYPE_CHECKING:
    from converters.graph_def.judge import Judge


class OwnGraph(SlimSide):
    """The end points of a network whose graph is the user's own.

    These are the layers that have a node in TensorFlow's graph, by their scopes, and the outputs by their names.

    Args:
      source: the network, which is that of the graph.
      asked: the input.

    Raises:
      InputError: the network is a part of the graph's, or takes no such input.
    """

    def __init__(self, source: Source, asked: Input) -> None:
        graph, network = source.recognition.graph, source.network
        if graph is None or network not in (graph.network, graph.network.without_auxiliary()):
            raise InputError(
                f"{source.path}: only the whole network of a TensorFlow graph can be the source of verify: name the "
                f"checkpoint beside its .meta, or the .pb"
            )
        self.network, self._graph, self._scope, self._path = network, graph, source.scope, source.path
        self._checkpoint = source.checkpoint
        kinds = {name: self._in_float64.inputs[tensor].dtype for name, tensor in graph.inputs.items()}
        whole = {name: kind.as_numpy_dtype for name, kind in kinds.items() if kind.is_integer or kind.is_bool}
        self.inputs, self.seed, self.files = make_inputs(network, {}, asked, whole)
        self.weights, self.reader = tf_slim.weights(source)

    @property
    def judge(self) -> str:
        return f"{self._graph.file.path.name}, run by TensorFlow"

    @cached_property
    def truth(self) -> Mapping[str, Array]:
        return self._run(self._in_float64, "float64")

    @cached_property
    def rounding(self) -> Mapping[str, float]:
        return rounding_of(self._run(self._in("float32"), "float32"), self.truth)

    def with_weights(self, weights: Mapping[str, Array]) -> Reference:  # noqa: ARG002
        raise InputError(f"{self._path}: the weights of a graph of one's own cannot be rounded; verify a float32 file")

    @cached_property
    def _in_float64(self) -> Judge:
        return self._in("float64")

    def _in(self, dtype: str) -> Judge:
        """The graph in a dtype, with every layer among its results."""
        from converters.graph_def.judge import Judge

        return Judge(self._graph, dtype, list(self._graph.layers.values()))

    def _run(self, judge: Judge, dtype: str) -> dict[str, Array]:
        """The end points that TensorFlow computes, NHWC."""
        user = self._graph
        given = dict(zip(user.inputs, self.inputs, strict=True))
        for name in user.channels_first:
            given[name] = given[name].transpose(0, 3, 1, 2)
        weights = self._variables(judge, dtype)
        try:
            values = judge.run(given, weights)
        except judge.tf.errors.OpError as error:
            raise InputError(
                f"{self._path}: TensorFlow does not run its graph on {shapes(self.inputs)}: {first_line(error)}"
            ) from error
        found = {}
        for point in self.network.graph().end_points:
            tensor = user.layers.get(point.name) if point.scoped else point.name
            if tensor is not None:
                found[scoped(self._scope, point.name) if point.scoped else point.name] = values[tensor]
        return found

    def _variables(self, judge: Judge, dtype: str) -> dict[str, Array]:
        if self._checkpoint is None:
            return {}
        import tensorflow as tf

        renamed = self._graph.file.checkpoint_names
        try:
            reader = tf_slim.reader_of(self._checkpoint)
            return {name: reader.get_tensor(renamed.get(name, name)).astype(dtype) for name in judge.variables}
        except (tf.errors.OpError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"{self._path}: TensorFlow does not read it: {first_line(error)}") from error


def run_judge(source: Source, arguments: Mapping[str, Any], asked: Input, progress: Callable[[str], None]) -> SlimSide:
    """The judge of a source: the user's own graph where the network is that of one, or else TF-Slim's.

    Arguments and errors as of `run_slim`.
    """
    if not isinstance(source.network, GraphNetwork):
        return run_slim(source, arguments, asked, progress)
    progress(f"running {source.network} in TensorFlow, float64")
    own = OwnGraph(source, asked)
    _ = own.truth
    return own
