"""TF-Slim's side of a comparison: one network with its weights, on one input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

from converters.mapping import Array
from converters.parity import tf_slim
from converters.parity.compare import ROUNDING_RUNS, Row, compare, neighbours, rel_l2, within_rounding
from slimport import spec


class Reference:
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
      arguments: of the network, as the family's `arguments` lists them.
    """

    def __init__(
        self,
        network: spec.Network,
        scope: str,
        weights: Mapping[str, Array],
        images: Array,
        *,
        seed: int = 0,
        progress: Callable[[str], None] = lambda _: None,
        **arguments: Any,
    ) -> None:
        self.network, self.scope, self.weights, self.images = network, scope, weights, images
        self._seed, self._progress, self._arguments = seed, progress, arguments
        self._known: list[dict[str, float]] = [{} for _ in range(ROUNDING_RUNS)]

    @cached_property
    def truth(self) -> dict[str, Array]:
        """TF-Slim's end points in float64, NHWC, in slim's order.

        Raises:
          ValueError: TF-Slim refuses the arguments or the images.
        """
        with self._graph("float64") as graph:
            return graph.run(self.images)

    def compare(self, port: Mapping[str, Array], dtype: str) -> tuple[Row, ...]:
        """A row for every end point, with the limit for the dtype that the port computed in.

        Args:
          port: the port's end points, NHWC.
          dtype: `float32` or `float64`.

        Raises:
          ValueError: an end point is missing or unknown.
        """
        if dtype == "float64":
            return compare(port, self.truth)
        inputs = neighbours(self.images, ROUNDING_RUNS, self._seed)
        runs = (partial(self._rounding, known, images) for known, images in zip(self._known, inputs, strict=True))
        return within_rounding(compare(port, self.truth), runs)

    def _rounding(self, known: dict[str, float], images: Array, names: list[str]) -> dict[str, float]:
        """TF-Slim's rel_l2 in float32 on one of the inputs, measured where it is not known yet."""
        if missing := [name for name in names if name not in known]:
            run = self._float32.run(images, missing)
            known |= {name: rel_l2(run[name], self.truth[name]) for name in missing}
        return {name: known[name] for name in names}

    @cached_property
    def _float32(self) -> tf_slim.SlimGraph:
        return self._graph("float32")

    def _graph(self, dtype: str) -> tf_slim.SlimGraph:
        self._progress(f"running {self.network.name} in TF-Slim, {dtype}")
        return tf_slim.SlimGraph(self.network, self.scope, self.weights, dtype, **self._arguments)

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *exception: object) -> None:
        if "_float32" in self.__dict__:
            self._float32.__exit__(*exception)
