"""TF-Slim's side of a comparison: one network with its weights, on one input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

from converters.errors import InputError, first_line
from converters.mapping import Array
from converters.parity import tf_slim
from converters.parity.compare import (
    LUCK,
    ROUNDING_RUNS,
    TYPICAL_RUNS,
    Row,
    by_logits,
    by_typical_error,
    compare,
    is_softmax,
    neighbours,
    rel_l2,
    seeded_images,
    within_rounding,
)
from converters.sources import Source
from slimport.networks import Network

Rounding = Callable[[list[str]], Mapping[str, float]]
"""A run of TF-Slim in float32: from names of end points to its rel_l2 there."""

Record = Callable[[Array], Mapping[str, Array]]
"""A run of a port: from images to its end points, both NHWC."""


class SlimSide(ABC):
    """TF-Slim's end points of a network on an input, and the size of its own rounding error.

    They come from a graph that runs here (`Reference`), or from a file that one left behind (`tracing.Trace`).

    images: the input, [batch, height, width, in_channels], of float32 values.
    seed: of the `neighbours` of the images.
    weights: the variables by name relative to the scope.
    """

    images: Array
    seed: int
    weights: Mapping[str, Array]

    @property
    @abstractmethod
    def truth(self) -> Mapping[str, Array]:
        """TF-Slim's end points in float64, NHWC, in slim's order."""

    @abstractmethod
    def rounding(self) -> Iterator[Rounding]:
        """TF-Slim's runs in float32: on the images, and then on their `neighbours`, `ROUNDING_RUNS` in all."""

    @abstractmethod
    def with_weights(self, weights: Mapping[str, Array]) -> Reference:
        """The same network on the same input, with other weights; a context manager.

        Raises:
          InputError: TF-Slim does not run here.
        """

    def compare(self, record: Record, dtype: str) -> tuple[Row, ...]:
        """A row for every end point, with the limit for the dtype that the port computes in.

        Args:
          record: runs the port. It is called with the images, and in float32 with `neighbours` of them too if an end
            point is so little beyond its limit that it may be luck.
          dtype: `float32` or `float64`.

        Raises:
          ValueError: an end point is missing or unknown.
        """
        rows = compare(record(self.images), self.truth)
        if dtype == "float64":
            return rows
        # Before the port is run again, which takes long, and after, when its logits may have been found equal.
        return self._carried(self._typical(record, self._carried(within_rounding(rows, self.rounding()))))

    def _carried(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        """Rows with `predictions` by the logits where they are beyond the limit."""
        if not is_softmax(rows[-1].name) or rows[-1].ok:
            return rows
        # Softmax of the end point before it.
        return (*rows[:-1], by_logits(rows[-1], rows[-2], self.truth))

    def _typical(self, record: Record, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        """Rows that are beyond the limit by the size of both errors, unless one is so far beyond that it is no luck."""
        beyond = [row.name for row in rows if not row.ok]
        if not beyond or not all(row.rel_l2 <= LUCK * row.limit for row in rows):
            return rows
        runs = []
        inputs = neighbours(self.images, TYPICAL_RUNS, self.seed)
        for images, rounding in zip(inputs, self.rounding(), strict=False):
            port, slim = record(images), rounding(beyond)
            runs.append({name: (rel_l2(port[name], self.truth[name]), slim[name]) for name in beyond})
        errors = {name: list(zip(*(run[name] for run in runs), strict=True)) for name in beyond}
        return tuple(by_typical_error(row, *errors[row.name]) if row.name in errors else row for row in rows)


class Reference(SlimSide):
    """The TF-Slim graph in float64, and in float32 as often as a comparison asks for; a context manager.

    Several ports can be compared with one reference: a graph is built once, when it is first needed, and TF-Slim's
    rounding at an end point is measured once for each input.

    Args:
      network: the description.
      scope: the model's variable scope.
      weights: variables by name relative to the scope.
      images: [batch, height, width, in_channels], of float32 values, so that graphs of both dtypes see
        the same numbers.
      seed: of the `neighbours` of the images.
      progress: is told what is going on.
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
        seed: int = 0,
        progress: Callable[[str], None] = lambda _: None,
        batch_norm_scale: bool = True,
        **arguments: Any,
    ) -> None:
        self._batch_norm_scale = batch_norm_scale
        self.network, self.scope, self.weights, self.images = network, scope, weights, images
        self.seed, self._progress, self._arguments = seed, progress, arguments
        self._known: list[dict[str, float]] = [{} for _ in range(ROUNDING_RUNS)]

    @cached_property
    def truth(self) -> dict[str, Array]:
        """TF-Slim's end points in float64, NHWC, in slim's order.

        Raises:
          ValueError: TF-Slim refuses the arguments or the images.
        """
        with self._graph("float64") as graph:
            return graph.run(self.images)

    def rounding(self) -> Iterator[Rounding]:
        inputs = neighbours(self.images, ROUNDING_RUNS, self.seed)
        return (partial(self._errors, known, images) for known, images in zip(self._known, inputs, strict=True))

    def _errors(self, known: dict[str, float], images: Array, names: list[str]) -> dict[str, float]:
        """TF-Slim's rel_l2 in float32 on one of the inputs, measured where it is not known yet."""
        if not known:
            # All end points, whichever are asked for: what TensorFlow fuses, and so its rounding, depends on what is
            # fetched, and a trace holds all of them.
            known |= {name: rel_l2(value, self.truth[name]) for name, value in self._float32.run(images).items()}
        return {name: known[name] for name in names}

    def with_weights(self, weights: Mapping[str, Array]) -> Reference:
        return Reference(
            self.network,
            self.scope,
            weights,
            self.images,
            seed=self.seed,
            progress=self._progress,
            batch_norm_scale=self._batch_norm_scale,
            **self._arguments,
        )

    @cached_property
    def _float32(self) -> tf_slim.SlimGraph:
        return self._graph("float32")

    def _graph(self, dtype: str) -> tf_slim.SlimGraph:
        self._progress(f"running {self.network.name} in TF-Slim, {dtype}")
        scale = self._batch_norm_scale
        weights = {name: array for name, array in self.weights.items() if scale or not name.endswith("/gamma")}
        size = tf_slim.static_size(self.network, self.images, self._arguments)
        return tf_slim.SlimGraph(
            self.network, self.scope, weights, dtype, size=size, batch_norm_scale=scale, **self._arguments
        )

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *exception: object) -> None:
        if "_float32" in self.__dict__:
            self._float32.__exit__(*exception)


def all_arguments(source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a source's network, the defaults among them.

    Raises:
      InputError: the network takes no such argument.
    """
    try:
        return source.network.with_defaults(given)
    except ValueError as error:
        raise InputError(f"{source.path}: {first_line(error)}") from error


def run_slim(
    source: Source,
    arguments: Mapping[str, Any],
    *,
    size: tuple[int, int] | None,
    batch: int | None,
    seed: int | None,
    progress: Callable[[str], None],
) -> tuple[Reference, str]:
    """The TF-Slim graph of a source on a seeded input, with its truth computed, and whose reader read the weights.

    Args:
      source: the weights.
      arguments: of the network, all of them.
      size: height and width of the input; None is the network's default image size.
      batch: number of images; None is 1.
      seed: of the input; None is 0.
      progress: is told what is going on.

    Raises:
      InputError: TF-Slim refuses the arguments or the input, or TensorFlow is not installed.
    """
    network = source.network
    side = network.default_image_size
    images = seeded_images((batch or 1, *(size or (side, side)), network.in_channels), seed or 0)
    progress(f"reading {source.path}")
    weights, reader = tf_slim.weights(source)
    reference = Reference(
        network,
        source.scope,
        weights,
        images,
        seed=seed or 0,
        progress=progress,
        batch_norm_scale=source.recognition.scaled,
        **arguments,
    )
    try:
        _ = reference.truth
    except ValueError as error:
        raise InputError(f"{source.path}: {first_line(error)}") from error
    return reference, reader
