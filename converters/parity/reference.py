"""TF-Slim's side of a comparison: a network with its weights, on its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any

from converters import mapping
from converters.errors import InputError, first_line
from converters.parity import tf_slim
from converters.parity.compare import Row, compare, rounding_of
from converters.parity.images import Input, make_inputs
from converters.variables import Array
from converters.weights.source import Source
from slimport.networks import GraphNetwork, Network


class SlimSide(ABC):
    """TF-Slim's end points of a network on its inputs, and its own rounding error.

    They come from a graph that runs here (`Reference`), or from a recording of one (`tracing.Trace`).

    network: the description.
    inputs: in the network's order, of float32 values, or of an input's whole numbers; images are [batch, height, width,
      channels].
    seed, files: what the inputs are from, as of `Inputs`.
    weights: the variables by name relative to the scope.
    reader: whose reader read them, as `tf_slim.weights`.
    """

    network: Network
    inputs: tuple[Array, ...]
    seed: int | None
    files: tuple[str, ...] = ()
    weights: Mapping[str, Array]
    reader: str

    @property
    def images(self) -> Array:
        """The first input, which is the only one of slim's networks."""
        return self.inputs[0]

    @property
    @abstractmethod
    def judge(self) -> str:
        """Whose graph code the TF-Slim graph is, as `tf_slim.judge`."""

    @property
    @abstractmethod
    def truth(self) -> Mapping[str, Array]:
        """TF-Slim's end points in float64, NHWC, in slim's order."""

    @property
    @abstractmethod
    def rounding(self) -> Mapping[str, float]:
        """rel_l2 of TF-Slim's end points in float32, of one run, by name."""

    @abstractmethod
    def with_weights(self, weights: Mapping[str, Array]) -> Reference:
        """The same network on the same input, with other weights.

        Raises:
          InputError: TF-Slim does not run here.
        """

    def compare(self, port: Mapping[str, Array], dtype: str, without: Collection[str] = frozenset()) -> tuple[Row, ...]:
        """A row for every end point, with the limit for the dtype that the port computed in.

        Args:
          port: the port's end points of `inputs`, NHWC.
          dtype: `float32` or `float64`.
          without: end points that the port need not have.

        Raises:
          ValueError: an end point is missing or unknown.
        """
        truth = {name: value for name, value in self.truth.items() if name in port or name not in without}
        if isinstance(self.network, GraphNetwork):
            # What runs inside a layer's module, as a PReLU may, has no end point before it. Every output must be there.
            outputs = {point.name for point in self.network.recorded.end_points if not point.scoped}
            truth = {name: value for name, value in truth.items() if name in port or name in outputs}
            port = {name: in_layout(port[name], truth[name]) for name in truth.keys() & port.keys()}
        return compare(port, truth, self.rounding if dtype == "float32" else None)


class Reference(SlimSide):
    """The TF-Slim graph, which runs once in each dtype, when that is first needed, for any number of comparisons.

    Args:
      network: the description.
      scope: the model's variable scope.
      weights: variables by name relative to the scope.
      images: [batch, height, width, in_channels], of float32 values, so that graphs of both dtypes see
        the same numbers.
      progress: called with what is being done.
      batch_norm_scale: whether BatchNorm has a gamma. Without, those among the weights, ones, are not used.
      arguments: of the network, as the family's `arguments` lists them.
    """

    def __init__(
        self,
        network: Network,
        scope: str,
        weights: Mapping[str, Array],
        images: Array,
        *,
        progress: Callable[[str], None] = lambda _: None,
        batch_norm_scale: bool = True,
        **arguments: Any,
    ) -> None:
        self._batch_norm_scale = batch_norm_scale
        self.seed, self.reader = 0, "slimport"
        self.network, self.scope, self.weights, self.inputs = network, scope, weights, (images,)
        self._progress, self._arguments = progress, arguments

    @property
    def judge(self) -> str:
        return tf_slim.judge(self.network)

    @cached_property
    def truth(self) -> dict[str, Array]:
        """TF-Slim's end points in float64, NHWC, in slim's order.

        Raises:
          ValueError: TF-Slim refuses the arguments or the images.
        """
        with self._graph("float64") as graph:
            return graph.run(self.images)

    @cached_property
    def rounding(self) -> dict[str, float]:
        try:
            with self._graph("float32") as graph:
                # Every end point at once: what TensorFlow fuses, and so its rounding, depends on what is fetched.
                return rounding_of(graph.run(self.images), self.truth)
        except ValueError as error:
            # Of the smallest maps, TensorFlow has kernels in float64 alone.
            raise InputError(f"could not be measured in float32: {first_line(error)}") from error

    def with_weights(self, weights: Mapping[str, Array]) -> Reference:
        return Reference(
            self.network,
            self.scope,
            weights,
            self.images,
            progress=self._progress,
            batch_norm_scale=self._batch_norm_scale,
            **self._arguments,
        )

    def _graph(self, dtype: str) -> tf_slim.SlimGraph:
        self._progress(f"running {self.network} in TF-Slim, {dtype}")
        scale = self._batch_norm_scale
        weights = {name: array for name, array in self.weights.items() if scale or not name.endswith("/gamma")}
        size = tf_slim.static_size(self.network, self.images, self._arguments)
        return tf_slim.SlimGraph(
            self.network, self.scope, weights, dtype, size=size, batch_norm_scale=scale, **self._arguments
        )


def all_arguments(source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a source's network: those that are given, then those that it was built with, then defaults.

    Raises:
      InputError: the network takes no such argument.
    """
    try:
        return source.network.with_defaults({**source.arguments, **given})
    except ValueError as error:
        raise InputError(f"{source.path}: {first_line(error)}") from error


def run_slim(
    source: Source,
    arguments: Mapping[str, Any],
    asked: Input,
    progress: Callable[[str], None],
) -> Reference:
    """The TF-Slim graph of a source on an input, with its truth computed.

    Args:
      source: the weights.
      arguments: of the network, all of them.
      asked: the input.
      progress: called with what is being done.

    Raises:
      InputError: TF-Slim refuses the arguments or the input, or TensorFlow is not installed.
    """
    network = source.network
    made = make_inputs(network, arguments, asked)
    progress(f"reading {source.path}")
    weights, reader = tf_slim.weights(source)
    reference = Reference(
        network,
        source.scope,
        weights,
        made.arrays[0],
        progress=progress,
        batch_norm_scale=source.recognition.scaled,
        **arguments,
    )
    reference.seed, reference.files, reference.reader = made.seed, made.files, reader
    try:
        _ = reference.truth
    except ValueError as error:
        raise InputError(f"{source.path}: {first_line(error)}") from error
    return reference


def in_layout(array: Array, truth: Array) -> Array:
    """A port's end point, NHWC, in the judge's layout: a user's graph may be in NCHW."""
    return mapping.nchw(array) if array.shape != truth.shape else array
