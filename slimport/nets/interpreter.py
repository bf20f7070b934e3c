"""The TF-Slim interpreter of a graph: tf_slim's own layers, under slim's scopes.

It is called as the modules of the families are, and builds any network that is recorded:

    with slim.arg_scope(interpreter.arg_scope(weight_decay=4e-5)):
        net, end_points = interpreter.build(networks.NETWORKS["inception_v3"], images, is_training=True)

Each layer gets the arguments that the graph records. All others (`weights_regularizer`, `trainable`,
`variables_collections`, ...) are those of the open arg scopes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport.graph import Graph, Node
from slimport.nets.research import lrn, resize_bilinear
from slimport.networks import Network
from slimport.sizes import evaluate

Tensor = Any
JUDGE = __name__

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "leaky_relu": lambda net, slope=0.2: tf.nn.leaky_relu(net, slope),
    "elu": tf.nn.elu,
    "selu": tf.nn.selu,
    "softplus": tf.nn.softplus,
    "softsign": tf.nn.softsign,
    "sigmoid": tf.nn.sigmoid,
    "tanh": tf.nn.tanh,
    "swish": lambda net: net * tf.nn.sigmoid(net),
    # MobileNet v3's (`research/slim/nets/mobilenet/mobilenet_v3.py`), whose 1 / 6 is a float32 in float64 too.
    "hard_sigmoid": lambda net, factor=0.16667: tf.nn.relu6(net + 3) * factor,
    "hard_swish": lambda net, factor=0.1666666716337204: net * tf.nn.relu6(net + 3) * factor,
    "relu_n": lambda net, maximum=1.0: tf.clip_by_value(net, 0, maximum),
    "clip": lambda net, low=-1.0, high=1.0: tf.clip_by_value(net, low, high),
}
INITIALIZERS: dict[str, Callable[..., Any]] = {
    "xavier": slim.xavier_initializer,
    "variance_scaling": slim.variance_scaling_initializer,
    "fan_out": partial(slim.variance_scaling_initializer, mode="FAN_OUT"),
    "he": partial(tf.variance_scaling_initializer, 2.0, distribution="untruncated_normal"),
    "truncated_normal": lambda deviation: tf.truncated_normal_initializer(stddev=deviation),
}


def arg_scope(weight_decay: float = 0.0001) -> Any:
    """The L2 regularization of the kernels, which a graph does not record; the default is slim's for its ResNets."""
    layers = [slim.conv2d, slim.separable_conv2d, slim.conv2d_transpose, slim.fully_connected]
    with slim.arg_scope(layers, weights_regularizer=slim.l2_regularizer(weight_decay)) as arg_scope:
        return arg_scope


def build(
    network: Network,
    inputs: Tensor,
    *,
    is_training: bool | Tensor = False,
    reuse: Any = None,
    scope: str | None = None,
    **arguments: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The graph of a network description, as of `run`; `arguments` are those of the network's definition.

    Raises:
      ValueError: the network cannot be built with the arguments.
    """
    graph = network.graph(**arguments)
    return run(graph, inputs, network.default_scope, is_training=is_training, reuse=reuse, scope=scope)


def run(
    graph: Graph,
    inputs: Tensor,
    default_scope: str,
    *,
    is_training: bool | Tensor = False,
    reuse: Any = None,
    scope: str | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Adds a graph's layers to the TensorFlow graph that is open.

    Args:
      graph: the recorded network.
      inputs: [batch, height, width, in_channels], float32 or float64.
      default_scope: the variable scope where `scope` is None.
      is_training: whether BatchNorm takes the batch's statistics, and dropout drops.
      reuse: whether to reuse the variables; needs `scope`.
      scope: the model's variable scope; "" for none.

    Returns:
      net: the network's output.
      end_points: from slim's names, in slim's order, to activations.
    """
    # TensorFlow's fused BatchNorm has no float64 kernel.
    fused = {"fused": False} if inputs.dtype.base_dtype == tf.float64 else {}
    with (
        tf.variable_scope(scope, default_scope, [inputs], reuse=reuse) as sc,
        slim.arg_scope([slim.batch_norm, slim.dropout], is_training=is_training),
        slim.arg_scope([slim.batch_norm], **fused),
    ):
        nets = [inputs]
        for node in graph.nodes[1:]:
            if node.op not in _LAYERS:
                raise ValueError(f"{node.scope}: TF-Slim has no layer for {node.op}")
            nets.append(_LAYERS[node.op](node, *(nets[index] for index in node.inputs)))
    return nets[graph.output], {name: nets[point.node] for name, point in graph.end_point_names(sc.name).items()}


def _activation(node: Node) -> Callable[[Tensor], Tensor] | None:
    if node.activation is None:
        return None
    function = ACTIVATIONS[node.activation]
    return lambda net: function(net, *node.activation_numbers)


def _batch_norm(settings: Mapping[str, Any], net: Tensor, scope: str, activation: Any = None) -> Tensor:
    given = {name: settings[name] for name in ("decay", "center", "scale", "epsilon")}
    return slim.batch_norm(net, activation_fn=activation, scope=scope, **given)


def _with_kernel(layer: Callable[..., Tensor]) -> Callable[[Node, Tensor], Tensor]:
    """A convolution or a fully connected layer, with its biases, its BatchNorm and its activation."""

    def add(node: Node, net: Tensor) -> Tensor:
        activation = _activation(node)
        given = dict(node.attributes)
        del given["activation"], given["normalizer"]
        # slim has no biases where there is a `normalizer_fn`; a graph may have both, so BatchNorm comes after them.
        has_biases, first_bias = given.pop("biases"), given.pop("biases_initializer", 0.0)
        initializer, *parameters = given.pop("initializer")
        num_outputs = node.channels if given.pop("pointwise", True) else None
        if not given.pop("regularized", True):
            given["weights_regularizer"] = None
        if "strides" in given:
            given["stride"] = given.pop("strides")
        if not isinstance(given.get("padding", "VALID"), str):
            # As slim's `conv2d_same` does.
            net = tf.pad(net, [[0, 0], *given["padding"], [0, 0]])
            given["padding"] = "VALID"

        def follow(net: Tensor) -> Tensor:
            if node.normalizer is not None:
                net = _batch_norm(node.normalizer, net, "BatchNorm")
            return activation(net) if activation else net

        return layer(
            net,
            num_outputs,
            activation_fn=follow,
            normalizer_fn=None,
            weights_initializer=INITIALIZERS[initializer](*parameters),
            biases_initializer=tf.constant_initializer(first_bias) if has_biases else None,
            scope=node.scope,
            **given,
        )

    return add


def _pool(layer: Callable[..., Tensor]) -> Callable[[Node, Tensor], Tensor]:
    """A pooling, whose kernel may be clipped to the map as `_reduced_kernel_size_for_small_input` in slim does."""

    def add(node: Node, net: Tensor) -> Tensor:
        kernel_size, size = node.attributes["kernel_size"], net.shape.as_list()[1:3]
        if None not in size:
            kernel_size = node.window(size)
        return layer(net, kernel_size, node.attributes["strides"], node.attributes["padding"], scope=node.scope)

    return add


def _sliced(node: Node, net: Tensor) -> Tensor:
    slices = [slice(None) if one is None else slice(*one) for one in node.attributes["slices"]]
    shrink = node.attributes["shrink"]
    return net[tuple(one.start if axis in shrink else one for axis, one in enumerate(slices))]


def _resized(node: Node, *nets: Tensor) -> Tensor:
    """A bilinear resizing, to a size that may be another map's."""
    a = node.attributes
    if a["method"] != "bilinear":
        raise ValueError(f"{node.scope}: TF-Slim has no layer for a {a['method']} resizing")
    sides = [tf.shape(nets[0])[axis] * by for axis, by in enumerate(a["factor"] or (), 1)]
    sides = sides or [evaluate(side, lambda index, axis: tf.shape(nets[index])[axis]) for side in a["size"]]
    return resize_bilinear(
        nets[0], tf.stack(sides), align_corners=a["align_corners"], half_pixel_centers=a["half_pixel_centers"]
    )


def _operation(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An op that slim has no layer for, and its activation."""

    def add(node: Node, *nets: Tensor) -> Tensor:
        activation = _activation(node)
        with tf.name_scope(node.scope):
            net = function(node, *nets)
            return activation(net) if activation else net

    return add


_LAYERS: dict[str, Callable[..., Tensor]] = {
    "conv2d": _with_kernel(slim.conv2d),
    "separable_conv2d": _with_kernel(slim.separable_conv2d),
    "conv2d_transpose": _with_kernel(slim.conv2d_transpose),
    "fully_connected": _with_kernel(slim.fully_connected),
    "batch_norm": lambda node, net: _batch_norm(node.attributes, net, node.scope, _activation(node)),
    "max_pool2d": _pool(slim.max_pool2d),
    "avg_pool2d": _pool(slim.avg_pool2d),
    "dropout": lambda node, net: slim.dropout(net, node.attributes["keep_prob"], scope=node.scope),
    "add": _operation(lambda _, *nets: reduce(operator.add, nets)),
    "multiply": _operation(lambda _, *nets: reduce(operator.mul, nets)),
    "scale": _operation(lambda node, net: net * node.attributes["factor"] + node.attributes["offset"]),
    "concat": _operation(lambda _, *nets: tf.concat(nets, -1)),
    "pad_channels": _operation(lambda node, net: tf.pad(net, [*[[0, 0]] * 3, [0, node.channels - net.shape[-1]]])),
    "mean": _operation(lambda _, net: tf.reduce_mean(net, [1, 2], keepdims=True)),
    "squeeze": _operation(lambda _, net: tf.squeeze(net, [1, 2])),
    # The size of the map may be known only when the graph is run.
    "flatten": _operation(lambda node, net: tf.ensure_shape(slim.flatten(net), [None, node.channels])),
    "softmax": lambda node, net: slim.softmax(net, scope=node.scope),
    "l2_normalize": _operation(lambda node, net: tf.nn.l2_normalize(net, -1, node.attributes["epsilon"])),
    "activation": _operation(lambda _, net: net),
    "lrn": _operation(lambda node, net: lrn(net, **node.attributes)),
    # Of sizes that are numbers.
    "pad": _operation(lambda node, net: tf.pad(net, node.attributes["paddings"])),
    "strided_slice": _operation(_sliced),
    "resize": _operation(_resized),
}
"""The layer of a node's op: from the node and its inputs to its output."""
