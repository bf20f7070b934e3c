"""The user's own graph, run by TensorFlow: cut down to what the network needs, in float32 or float64.

TensorFlow's kernels compute everything. What was decided when the graph was read (conditions, moving averages for the
batch's statistics, no dropout) is the same here; what has no float64 kernel is written out in ops that have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from converters import frameworks
from converters.graph_def.evaluate import Evaluator, Key, Results
from converters.graph_def.network import UserGraph
from converters.graph_def.proto import Array, NodeDef
from converters.graph_def.values import BATCH, Value

_FLOATS, _DOUBLE = (1, 14, 19), 2
_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")


class Judge:
    """A TensorFlow graph of the same network.

    Args:
      user: the network as it was read.
      dtype: of all floating-point numbers.
      layers: nodes of the TensorFlow graph whose outputs are wanted as well.
      free_batch: whether a batch that is written into the graph is taken from the data; otherwise as much is run at
        once as the graph says.

    Attributes:
      graph: the `tf.Graph`; `graph.as_graph_def().SerializeToString()` is the cut-down file.
    """

    def __init__(
        self, user: UserGraph, dtype: str = "float64", layers: Sequence[str] = (), *, free_batch: bool = False
    ) -> None:
        frameworks.require("slimport.nets")
        import tensorflow.compat.v1 as tf

        self.tf, self.user = tf, user
        self.graph = tf.Graph()
        with self.graph.as_default():
            builder = _Builder(user, tf, dtype, free_batch)
            self.outputs = {name: _tensor(builder.tensor(name_)) for name, name_ in user.outputs.items()}
            self.layers = {name: _tensor(builder.tensor(name)) for name in layers}
        self.inputs, self.variables = builder.placeholders, builder.variables
        self.batch = None if free_batch else user.context.batch

    def run(self, inputs: Mapping[str, Array], weights: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name, and the layers that were asked for.

        Args:
          inputs: by the names that they have in the network, as the TensorFlow graph takes them.
          weights: by the variables' names in the graph.
        """
        fixed = {placeholder: weights[name] for name, placeholder in self.variables.items()}
        wanted = {**self.layers, **self.outputs}
        count = len(next(iter(inputs.values())))
        parts = []
        # As it stands: TensorFlow's optimizers turn a division into a product, say, and round otherwise.
        config = self.tf.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        config.graph_options.optimizer_options.opt_level = self.tf.OptimizerOptions.L0
        with self.tf.Session(graph=self.graph, config=config) as session:
            for start in range(0, count, self.batch or count):
                feed = {
                    self.inputs[self.user.inputs[name]]: self._batch(array, start) for name, array in inputs.items()
                }
                parts.append(session.run(wanted, {**fixed, **feed}))
        padded = len(parts) * (self.batch or count)
        whole = {name: np.concatenate([part[name] for part in parts]) for name in wanted}
        return {name: array[: len(array) * count // padded] for name, array in whole.items()}

    def _batch(self, array: Array, start: int) -> Array:
        """As many elements as the graph takes where a batch is written into it, the last one repeated."""
        batch = self.batch
        if batch is None:
            return array
        part = array[start : start + batch]
        return np.concatenate([part, np.repeat(part[-1:], batch - len(part), 0)])

    def serialized(self) -> bytes:
        """The cut-down graph as a GraphDef, its variables as placeholders."""
        serialized: bytes = self.graph.as_graph_def().SerializeToString()
        return serialized


def _tensor(value: Value) -> Any:
    return value.attrs["tensor"]


class _Builder(Evaluator):
    """Evaluates a graph to TensorFlow's tensors, with the decisions of an evaluation before."""

    def __init__(self, user: UserGraph, tf: Any, dtype: str, free_batch: bool) -> None:
        context = user.context
        super().__init__(user.file, user.mode)
        self.root, self.frames, self.context = context.root, context.frames, context
        self.tf, self.dtype = tf, tf.as_dtype(dtype)
        self.placeholders: dict[str, Any] = {}
        self.variables: dict[str, Any] = {}
        self._inputs = set(user.inputs.values())
        self._free_batch = free_batch and context.batch is not None

    def _made(self, node: NodeDef, tensor: Any) -> Value:
        return Value("tensor", attrs={"tensor": tensor}, node=node.name)

    def _process(self, key: Key) -> Any:
        frame, name, index = key
        if (frame is self.root or name not in self.root.nodes) and f"{name}:{index}" in self._inputs:
            return (yield from self._input(key, frame.nodes[name]))
        return (yield from super()._process(key))

    def _input(self, key: Key, node: NodeDef) -> Any:
        found = self.context.memo[key[:2]][key[2]]
        yield from ()
        kind = {"object": "float32"}.get(found.attrs.get("dtype", "float32"), found.attrs.get("dtype", "float32"))
        dtype = (
            self.dtype
            if kind in ("float32", "float64", "float16") or found.attrs.get("behind")
            else self.tf.as_dtype(kind)
        )
        placeholder = self.tf.placeholder(dtype, None, node.name.replace("/", "_"))
        self.placeholders[f"{key[1]}:{key[2]}"] = placeholder
        return self._made(node, placeholder)

    def queue(self, key: Key, node: NodeDef) -> Value:
        """An output of a queue that is no input of the network: the rate of a dropout that is not run."""
        return self._made(node, self.tf.ones(() if super().queue(key, node).rank == 0 else (1,), self.dtype))

    def decide(self, value: Value, node: NodeDef) -> bool | None:  # noqa: ARG002
        return None

    def _condition(self, frame: Any, text: str, node: NodeDef) -> Any:  # noqa: ARG002
        yield from ()
        return self.context.decisions.get((frame, node.name))

    def handle(self, key: Key, node: NodeDef, values: list[Value]) -> Results | Value:
        found = self.context.memo.get(key[:2], {}).get(key[2])
        tensors = [_tensor(value) for value in values]
        if found is not None and found.op == "variable" and node.op != "Identity" and node.op != "ReadVariableOp":
            return self._made(node, self._variable(found))
        if found is not None and found.number in self.context.averages and found.node == node.name:
            average = self._variable(self.context.averages[found.number])
            return self._made(node, self.tf.reshape(average, [1] * ((found.rank or 1) - 1) + [-1]))
        if found is not None and found.op == "dropout" and found.node == node.name:
            data = tensors[found.attrs["operand"]]
            return self._made(node, data if found.attrs["scaled"] is None else data.op.inputs[found.attrs["scaled"]])
        if node.op.startswith("Placeholder") and found is not None and found.data is not None:
            floating = found.data.dtype.kind == "f"
            return self._made(node, self.tf.constant(found.data, self.dtype if floating else None))
        if node.op in ("ReadVariableOp", "Identity"):
            return self._made(node, tensors[0])
        if self._free_batch and found is not None and found.shape and found.shape[0] == BATCH:
            tensors = self._with_free_batch(node, tensors)
        if node.op in _NORMS:
            return self._normalized(node, tensors, found)
        if node.op == "BatchNormWithGlobalNormalization":
            return self._made(node, self._globally_normalized(node, tensors))
        special = getattr(self, f"_in_float64_{node.op.lower()}", None) if self.dtype == self.tf.float64 else None
        if special is not None:
            return self._made(node, special(node, tensors))
        return self._operation(node, tensors)

    def _with_free_batch(self, node: NodeDef, tensors: list[Any]) -> list[Any]:
        """The inputs of a node, the batch in the shape that is one of them taken from the data."""
        tf = self.tf
        at, data = {"Reshape": (1, 0), "Conv2DBackpropInput": (0, 2)}.get(node.op, (None, 0))
        if at is not None:
            batch = tf.cast(tf.shape(tensors[data])[:1], tensors[at].dtype)
            tensors[at] = tf.concat([batch, tensors[at][1:]], 0)
        return tensors

    def _variable(self, value: Value) -> Any:
        name = value.attrs["name"]
        if name not in self.variables:
            self.variables[name] = self.tf.placeholder(self.dtype, value.shape, f"variables/{name}".replace(":", "_"))
        return self.variables[name]

    def _operation(self, node: NodeDef, tensors: Sequence[Any]) -> Results:
        """Any other op, as it is, of the floating-point dtype that is asked for."""
        from tensorflow.core.framework import attr_value_pb2
        from tensorflow.python.framework import op_def_registry

        attrs = {}
        for name, view in node.attributes.items():
            if not name.startswith("_") or name in ("_gradient_op_type",):
                attrs[name] = self._cast(attr_value_pb2.AttrValue.FromString(bytes(view)))

        definition = op_def_registry.get(node.op)
        names = {attr.name for attr in definition.attr} if definition is not None else set(attrs)
        attrs = {name: value for name, value in attrs.items() if name in names}
        if node.get("data_format") == b"NCHW":
            return (self._made(node, self._channels_first(node, list(tensors), attrs)),)
        graph = self.tf.get_default_graph()
        operation = graph.create_op(node.op, list(tensors), attrs=attrs, name=node.name)
        return tuple(self._made(node, output) for output in operation.outputs)

    def _channels_first(self, node: NodeDef, tensors: list[Any], attrs: dict[str, Any]) -> Any:
        """An op in NCHW, which has kernels for GPUs only, between transposes."""
        tf = self.tf
        at = 2 if node.op == "Conv2DBackpropInput" else 0
        tensors[at] = tf.transpose(tensors[at], (0, 2, 3, 1))
        if at:
            tensors[0] = tf.gather(tensors[0], (0, 2, 3, 1)) if tensors[0].shape[0] == 4 else tensors[0]
        attrs["data_format"].s = b"NHWC"
        for name in ("strides", "ksize", "dilations"):
            if name in attrs and len(values := list(attrs[name].list.i)) == 4:
                attrs[name].list.i[:] = [values[axis] for axis in (0, 2, 3, 1)]
        if len(pads := list(attrs["explicit_paddings"].list.i) if "explicit_paddings" in attrs else []) == 8:
            attrs["explicit_paddings"].list.i[:] = [*pads[:2], *pads[4:], *pads[2:4]]
        operation = tf.get_default_graph().create_op(node.op, tensors, attrs=attrs, name=node.name)
        return tf.transpose(operation.outputs[0], (0, 3, 1, 2))

    def _cast(self, attr: Any) -> Any:
        if self.dtype != self.tf.float64:
            return attr
        if attr.type in _FLOATS:
            attr.type = _DOUBLE
        if attr.WhichOneof("value") == "list":
            attr.list.type[:] = [_DOUBLE if kind in _FLOATS else kind for kind in attr.list.type]
        if attr.WhichOneof("value") == "tensor" and attr.tensor.dtype in _FLOATS:
            attr.tensor.CopyFrom(self.tf.make_tensor_proto(self.tf.make_ndarray(attr.tensor).astype(np.float64)))
        return attr

    def _normalized(self, node: NodeDef, tensors: Sequence[Any], found: Value | None) -> Results:
        """BatchNorm as a formula, which has float64 kernels, with the moving averages where these were taken."""
        tf = self.tf
        data, gamma, beta, mean, variance = tensors
        first = node.get("data_format") == b"NCHW"
        data = tf.transpose(data, (0, 2, 3, 1)) if first else data
        norm = found.inputs[0] if found is not None and found.op == "transpose" else found
        if node.get("is_training", True):
            if norm is not None and norm.op == "batch_norm" and norm.attrs["statistics"] == "moving":
                mean, variance = (self._variable(value) for value in norm.inputs[3:])
            else:
                mean, variance = tf.nn.moments(data, (0, 1, 2))
        epsilon = tf.constant(np.float32(node.get("epsilon", 0.0001)), self.dtype)
        net = (data - mean) * tf.rsqrt(variance + epsilon) * gamma + beta
        net = tf.transpose(net, (0, 3, 1, 2)) if first else net
        return tuple(self._made(node, net) for _ in range(6))

    def _globally_normalized(self, node: NodeDef, tensors: Sequence[Any]) -> Any:
        """An op that TensorFlow no longer has, by the function that took its place."""
        data, mean, variance, beta, gamma = tensors
        epsilon = self.tf.constant(np.float32(node.get("variance_epsilon", 0)), self.dtype)
        scale = gamma if node.get("scale_after_normalization") else None
        return self.tf.nn.batch_normalization(data, mean, variance, beta, scale, epsilon)

    def _in_float64_fakequantwithminmaxargs(self, node: NodeDef, tensors: Sequence[Any]) -> Any:
        ends = [
            self.tf.constant(np.float32(node.get(name, end)), self.dtype) for name, end in (("min", -6), ("max", 6))
        ]
        return self._in_float64_fakequantwithminmaxvars(node, [*tensors, *ends])

    def _in_float64_fakequantwithminmaxvarsperchannel(self, node: NodeDef, tensors: Sequence[Any]) -> Any:
        return self._in_float64_fakequantwithminmaxvars(node, tensors)

    def _in_float64_fakequantwithminmaxvars(self, node: NodeDef, tensors: Sequence[Any]) -> Any:
        tf = self.tf
        data, low, high = tensors
        first, last = int(node.get("narrow_range", False)), 2 ** node.get("num_bits", 8) - 1
        step = (high - low) / (last - first)
        zero = tf.clip_by_value(tf.floor(first - low / step + 0.5), first, last)
        lowest, highest = (first - zero) * step, (last - zero) * step
        net = tf.minimum(tf.maximum(data, lowest), highest) - lowest
        return tf.floor(net * (1 / step) + 0.5) * step + lowest

    def _in_float64_lrn(self, node: NodeDef, tensors: Sequence[Any]) -> Any:
        tf = self.tf
        radius = node.get("depth_radius", 5)
        squares = tf.pad(tensors[0] ** 2, ((0, 0), (0, 0), (0, 0), (radius, radius)))
        depth = tf.shape(tensors[0])[3]
        total = tf.add_n([squares[:, :, :, i : i + depth] for i in range(2 * radius + 1)])
        bias, alpha, beta = (tf.constant(node.get(name), self.dtype) for name in ("bias", "alpha", "beta"))
        return tensors[0] / (bias + alpha * total) ** beta

    def _in_float64_resizebilinear(self, node: NodeDef, tensors: Sequence[Any]) -> Any:
        from slimport.nets.research import resize_bilinear

        corners, centers = (node.get(name, False) for name in ("align_corners", "half_pixel_centers"))
        return resize_bilinear(*tensors, align_corners=corners, half_pixel_centers=centers)
