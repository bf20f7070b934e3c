"""What the tests of users' graphs share: graphs that TensorFlow writes in every form, and the comparison with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from converters import frameworks
from converters.formats import models
from converters.graph_def import UserGraph, read_network
from converters.graph_def.judge import Judge
from converters.parity.tf_slim import building_graphs
from slimport.names import pytorch_name
from slimport.pytorch.network import Network

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf

FORMS = ("meta", "frozen", "saved_model")
Build = Callable[[], "dict[str, Any]"]
LIMIT = 1e-12


@dataclass(frozen=True)
class Written:
    """A graph that TensorFlow wrote.

    path: the file or folder.
    weights: its variables' numbers by name.
    outputs: the names of its outputs' tensors.
    """

    path: Path
    weights: Mapping[str, Any]
    outputs: tuple[str, ...]


def write(build: Build, folder: Path, form: str = "meta", seed: int = 0) -> Written:
    """Writes a graph as TensorFlow does.

    Args:
      build: makes it, and gives its outputs by name; names of inputs in a SavedModel are those of its placeholders.
      form: one of `FORMS`, or `checkpoint`, which is a `.meta` with its variables beside it.
    """
    graph = tf.Graph()
    with graph.as_default(), building_graphs(), tf.Session(graph=graph) as session:
        tf.set_random_seed(seed)
        outputs = build()
        variables = tf.global_variables()
        weights = _randomized(variables, seed)
        if form != "meta":
            # All at once, in the place of what would be drawn.
            feed = {variable.initializer.inputs[1]: weights[variable.op.name] for variable in variables}
            session.run([variable.initializer for variable in variables], feed)
        names = tuple(tensor.op.name for tensor in outputs.values())
        path = _save(session, graph, folder, form, outputs)
    return Written(path, weights, names)


def _randomized(variables: Sequence[Any], seed: int) -> dict[str, Any]:
    """Numbers for variables, such that no network gives nothing but zeros."""
    rng = np.random.default_rng(seed)
    found = {}
    for variable in variables:
        shape, name = variable.shape.as_list(), variable.op.name
        leaf = name.rpartition("/")[2]
        if leaf in ("moving_variance", "variance", "gamma") or "var" in leaf.lower().split("_"):
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = rng.normal(size=shape) / np.sqrt(max(1, int(np.prod(shape[:-1]))))
        found[name] = array.astype(variable.dtype.base_dtype.as_numpy_dtype)
    return found


def _save(session: Any, graph: Any, folder: Path, form: str, outputs: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if form == "meta":
        tf.train.Saver().export_meta_graph(str(folder / "model.ckpt.meta"))
        return folder / "model.ckpt.meta"
    if form == "checkpoint":
        return Path(tf.train.Saver().save(session, str(folder / "model.ckpt")) + ".meta")
    if form == "frozen":
        names = [tensor.op.name for tensor in outputs.values()]
        frozen = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), names)
        (folder / "frozen.pb").write_bytes(frozen.SerializeToString())
        return folder / "frozen.pb"
    inputs = {
        op.name: op.outputs[0]
        for op in graph.get_operations()
        if op.type == "Placeholder" and op.outputs[0].dtype != tf.bool
    }
    tf.saved_model.simple_save(session, str(folder / "saved"), inputs, dict(outputs))
    return folder / "saved"


@contextmanager
def first_control_flow() -> Iterator[None]:
    """Loops of Enter, Switch, Merge and Exit, and conditions without functions, as TensorFlow 1 wrote them."""
    tf.disable_control_flow_v2()
    try:
        yield
    finally:
        tf.enable_control_flow_v2()


def inputs_of(user: UserGraph, batch: int, side: int = 21, seed: int = 0) -> dict[str, Any]:
    """Random inputs; open sides are `side`."""
    rng = np.random.default_rng(seed)
    nodes = [user.graph.nodes[index] for index in user.graph.inputs]
    shapes = [node.attributes["shape"] for node in nodes]
    sides = [[batch, *(side + axis if s is None else s for axis, s in enumerate(shape[1:]))] for shape in shapes]
    return {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in zip(user.inputs, sides, strict=True)}


def port(user: UserGraph, weights: Mapping[str, Any], dtype: str = "float64") -> Network:
    """The PyTorch model of a graph with its weights in."""
    model = Network(user.network).to(getattr(torch, dtype))
    state = {
        pytorch_name(name): torch.from_numpy(np.array(pytorch_layout(name, array), dtype, order="C"))
        for name, array in user.arrays(weights)
    }
    result = model.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in result.missing_keys)
    return model.eval()


def pytorch_layout(name: str, array: Any) -> Any:
    """A kernel as PyTorch has it; what is no kernel as it is."""
    leaf = name.rpartition("/")[2]
    if leaf == "depthwise_weights":
        array = array.reshape(*array.shape[:2], 1, -1)
    if leaf in ("weights", "depthwise_weights", "pointwise_weights") and array.ndim > 1:
        return array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0))
    return array


def outputs_of(model: Network, user: UserGraph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the PyTorch model gives, in TensorFlow's layout."""
    dtype = next(iter(model.parameters())).dtype
    arrays = [array.transpose(0, 3, 1, 2) if array.ndim == 4 else array for array in inputs.values()]
    with torch.no_grad():
        found = model(*(torch.from_numpy(np.ascontiguousarray(array)).to(dtype) for array in arrays))
    found = found if isinstance(found, dict) else {next(iter(user.outputs)): found}
    return {
        name: tensor.permute(0, 2, 3, 1).numpy() if tensor.dim() == 4 else tensor.numpy()
        for name, tensor in found.items()
    }


def errors(
    user: UserGraph,
    weights: Mapping[str, Any],
    batches: Sequence[int],
    dtype: str = "float64",
    side: int = 21,
    free_batch: bool = False,
    keras: bool = False,
) -> dict[tuple[str, str, int], float]:
    """The relative error of each output of the PyTorch model to TensorFlow's, and of the Keras model, at each batch."""
    judge, model = Judge(user, dtype, free_batch=free_batch), port(user, weights, dtype)
    found = {}
    for batch in batches:
        inputs = inputs_of(user, batch, side)
        truth = judge.run(_as_the_graph_takes(user, inputs), weights)
        outputs = {"pytorch": outputs_of(model, user, inputs)}
        if keras and batch == batches[0]:
            built = keras_port(user, weights, inputs, dtype)
        if keras:
            outputs["keras"] = keras_outputs(built, user, inputs)
        for framework, arrays in outputs.items():
            for name, array in arrays.items():
                found[framework, name, batch] = relative(array, _nhwc(truth[name], array))
    return found


def keras_port(user: UserGraph, weights: Mapping[str, Any], inputs: Mapping[str, Any], dtype: str) -> Any:
    """The Keras model of a graph with its weights in, for images of the inputs' size."""
    size = next((array.shape[1:3] for array in inputs.values() if array.ndim == 4), None)
    arrays = ((name, np.asarray(array, dtype)) for name, array in user.arrays(weights))
    return models.keras_port(user.network, arrays, dtype=dtype, image_size=size)


def keras_outputs(model: Any, user: UserGraph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the Keras model gives, by the outputs' names."""
    given = list(inputs.values())
    found = model(given if len(given) > 1 else given[0], training=False)
    found = found if isinstance(found, dict) else {next(iter(user.outputs)): found}
    return {name: np.asarray(output) for name, output in found.items()}


def _as_the_graph_takes(user: UserGraph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: array.transpose(0, 3, 1, 2) if name in user.channels_first else array for name, array in inputs.items()
    }


def _nhwc(truth: Any, found: Any) -> Any:
    return truth.transpose(0, 2, 3, 1) if truth.ndim == 4 and truth.shape != found.shape else truth


def relative(found: Any, truth: Any) -> float:
    """`rel_l2` of two arrays of one shape."""
    assert found.shape == truth.shape, (found.shape, truth.shape)
    return float(np.linalg.norm(np.float64(found) - truth) / np.linalg.norm(np.float64(truth)))


def assert_equal(
    written: Written,
    batches: Sequence[int] = (2, 3),
    limit: float = LIMIT,
    side: int = 21,
    keras: bool = True,
    **arguments: Any,
) -> UserGraph:
    """Asserts that the models of a graph in PyTorch and Keras give what TensorFlow does, at several batches."""
    user = read_network(written.path, **arguments)
    for where, error in errors(user, written.weights, batches, side=side, keras=keras).items():
        assert error <= limit, (where, error)
    return user
