"""TF-Slim's end points, from TensorFlow's own graph and, where it can, TensorFlow's own checkpoint reader."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from converters import frameworks
from converters.variables import Array
from converters.weights.source import Source
from slimport.graph import scoped
from slimport.networks import Network

if TYPE_CHECKING:
    from converters.checkpoint import Checkpoint

T = TypeVar("T", bound="SlimGraph")

_OF_LAYERS = ("tensorflow.python.keras.utils.version_utils", "tf_keras.src.utils.version_utils")
"""The modules that choose between layers for graphs and others."""


def weights(source: Source) -> tuple[dict[str, Array], str]:
    """The source's variables by relative name, and whose reader read them: `tensorflow` or `slimport`.

    TensorFlow reads what it can, so that a mistake of slimport's reader cannot hide on both sides of the comparison. It
    refuses some files that slimport reads, and a converted file is not one that it knows.
    """
    if source.checkpoint is not None:
        frameworks.require("slimport.nets")
        import tensorflow as tf

        try:
            reader = reader_of(source.checkpoint)
            return {
                name: assignment.filled(source.dtypes[name])
                if assignment.stored is None
                else assignment.array(reader.get_tensor(assignment.stored))
                for name, assignment in source.assignments.items()
            }, "tensorflow"
        except (tf.errors.OpError, ValueError, TypeError, RuntimeError):
            pass
    return source.arrays(), "slimport"


def reader_of(checkpoint: Checkpoint) -> Any:
    """TensorFlow's own reader of a checkpoint, which raises its own errors."""
    import tensorflow as tf

    path, shards = os.fspath(checkpoint.path), f"-?????-of-{len(checkpoint.files):05d}"
    # It takes a V2 checkpoint by its prefix, and V1 shards by their pattern.
    sharded = checkpoint.files[0].name == f"{checkpoint.path.name}{shards.replace('?????', '00000', 1)}"
    return tf.train.load_checkpoint(path + shards if sharded else path)


def judge(network: Network) -> str:
    """Whose graph code `SlimGraph` runs: the builder's `JUDGE`, or else its package."""
    builder = builder_of(network)
    return str(getattr(builder, "JUDGE", builder.__package__))


def builder_of(network: Network) -> Any:
    """The family's module of `slimport.nets`; the interpreter, where there is none or slim's own code is missing."""
    nets = frameworks.require("slimport.nets").__name__
    try:
        return import_module(f"{nets}.{network.family}")
    except ModuleNotFoundError:
        return import_module(f"{nets}.interpreter")


@contextmanager
def building_graphs() -> Iterator[None]:
    """Halves the time in which TensorFlow builds a deep graph.

    In a graph, variables are equal if they are the same object. TensorFlow finds out whether it is in one at each of
    the million comparisons that its legacy layers make; without tensor equality it need not. Nor need it give a
    layer's class the bases for graphs each time that it makes such a layer.
    """
    import tensorflow.compat.v1 as tf

    enabled = tf.Tensor._USE_EQUALITY
    modules = [vars(sys.modules[name]) for name in _OF_LAYERS if name in sys.modules]
    swaps = [(names, names["swap_class"]) for names in modules if "swap_class" in names]
    tf.disable_tensor_equality()
    for names, swap in swaps:
        names["swap_class"] = cache(swap)
    try:
        yield
    finally:
        for names, swap in swaps:
            names["swap_class"] = swap
        if enabled:
            tf.enable_tensor_equality()


@contextmanager
def feeding_variables(use_resource: bool = False) -> Iterator[None]:
    """Makes variables with half as many nodes; their initial values have to be fed.

    An initial value is a placeholder, the second input of the variable's initializer.

    Args:
      use_resource: whether the variables are not TensorFlow 1's references, which take fewer nodes, but which a step of
        training might read before or after it writes them.
    """
    import tensorflow.compat.v1 as tf

    def initializer(shape: Sequence[int], dtype: Any) -> Any:
        return tf.placeholder(dtype, shape)

    def fed(getter: Callable[..., Any], name: str, shape: object = None, **arguments: Any) -> Any:
        # Without a shape, there is a tensor to start from.
        own = {} if shape is None else {"initializer": initializer}
        return getter(name, shape=shape, **{**arguments, **own})

    with tf.variable_scope(tf.get_variable_scope(), custom_getter=fed, use_resource=use_resource):
        yield


class SlimGraph:
    """The TF-Slim graph of a network with its weights in, on the CPU; a context manager.

    Args:
      network: the description.
      scope: the model's variable scope.
      weights: variables by name relative to the scope.
      dtype: `float32` or `float64`, of the whole graph.
      size: height and width of the images; None is any.
      is_training: whether BatchNorm takes the batch's statistics.
      weight_decay: of slim's L2 regularization, which is among the losses of the graph.
      batch_norm_scale: whether BatchNorm has a gamma.
      arguments: of the network (`global_pool`, say), as the family's `arguments` lists them.

    Raises:
      ValueError: TF-Slim refuses the arguments.
    """

    def __init__(
        self,
        network: Network,
        scope: str,
        weights: Mapping[str, Array],
        dtype: str,
        *,
        size: tuple[int, ...] | None = None,
        is_training: bool = False,
        weight_decay: float = 0.0,
        batch_norm_scale: bool = True,
        **arguments: Any,
    ) -> None:
        builder = builder_of(network)
        import tensorflow.compat.v1 as tf
        import tf_slim as slim

        # TensorFlow's fused BatchNorm, what TF-Slim runs in float32, has no float64 kernel.
        fused = {"fused": False} if dtype == "float64" else {}
        # The arg scopes of networks without BatchNorm do not know of it.
        scale = {} if batch_norm_scale else {"batch_norm_scale": False}
        self._dtype = dtype
        self.graph = tf.Graph()
        with self._building():
            self._images = tf.placeholder(dtype, (None, *(size or (None, None)), network.in_channels))
            with (
                slim.arg_scope(builder.arg_scope(weight_decay=weight_decay, **scale)),
                slim.arg_scope([slim.batch_norm], **fused),
                feeding_variables(use_resource=is_training),
            ):
                self._output, end_points = builder.build(
                    network, self._images, is_training=is_training, scope=scope or "", **arguments
                )
            # slim writes the root scope's end points as `/logits`.
            self._end_points = {name.lstrip("/"): tensor for name, tensor in end_points.items()}
            if network.final_endpoint is not None:
                points = network.graph(**arguments).end_point_names(scope)
                self._end_points = {name: self._end_points[name] for name in points}
                last = next(name for name, point in points.items() if point.name == network.final_endpoint)
                self._output = self._end_points[last]
            self._variables = {
                name: variable
                for variable in tf.global_variables()
                if (name := variable.op.name.removeprefix(scoped(scope, ""))) in weights
            }
        of_graph = {name: tuple(variable.shape.as_list()) for name, variable in self._variables.items()}
        if other := [name for name, array in weights.items() if of_graph.get(name) != array.shape]:
            # Slim makes Inception's auxiliary head for the size of the images.
            variable, shape = scoped(scope, other[0]), list(weights[other[0]].shape)
            raise ValueError(f"the TF-Slim graph for images of this size has no variable {variable} of shape {shape}")
        config = tf.ConfigProto(device_count={"GPU": 0})
        # To optimize a graph takes longer than to run it once. In float32, what is fused decides on the rounding.
        config.graph_options.rewrite_options.disable_meta_optimizer = dtype == "float64"
        self._session = tf.Session(graph=self.graph, config=config)
        # A variable's initializer assigns its second input.
        initializers = {name: variable.initializer for name, variable in self._variables.items()}
        self._session.run(
            list(initializers.values()),
            {initializers[name].inputs[1]: array.astype(dtype) for name, array in weights.items()},
        )

    def run(self, images: Array, names: Sequence[str] | None = None) -> dict[str, Array]:
        """{slim end point name: [batch, height, width, channels], or [batch, classes] where squeezed}, in slim's order.

        Args:
          images: [batch, height, width, in_channels].
          names: of the end points to return; None is all of them.

        Raises:
          ValueError: TensorFlow cannot run the network on them.
        """
        from tensorflow.errors import OpError

        wanted = {name: self._end_points[name] for name in (self._end_points if names is None else names)}
        try:
            values = self._session.run(wanted, {self._images: images.astype(self._dtype)})
        except OpError as error:
            # What comes before says where in the code the node was made.
            node, _, cause = error.message.rpartition("\nNode: ")[2].partition("\n")
            raise ValueError(f"TensorFlow: {node} {cause}") from error
        return {name: values[name] for name in wanted}

    @contextmanager
    def _building(self) -> Iterator[None]:
        import tensorflow.compat.v1 as tf

        with self.graph.as_default(), tf.device("/cpu:0"), building_graphs(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()


def static_size(network: Network, images: Array, arguments: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The `size` that a graph needs: slim shrinks layers to a small map only where it knows the size of the images.

    Some of its code cannot do without.
    """
    graph = network.graph(**arguments)
    shrinks = graph.branches or any(node.attributes.get("clipped") for node in graph.nodes)
    shrinks = shrinks or getattr(builder_of(network), "STATIC_SIZE", False)
    return images.shape[1:3] if shrinks else None


def record(
    network: Network, scope: str, weights: Mapping[str, Array], images: Array, dtype: str, **arguments: Any
) -> dict[str, Array]:
    """The end points of one run; arguments and result as of `SlimGraph`."""
    size = static_size(network, images, arguments)
    with SlimGraph(network, scope, weights, dtype, size=size, **arguments) as graph:
        return graph.run(images)
