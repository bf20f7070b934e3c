"""Tries graphs of other people's: reads and converts each as the command does without options, and judges it.

    python -m scripts.studies.public_graphs FOLDER [--only TEXT]

FOLDER has a folder for each repository, OWNER+NAME, with the `.meta`, `.pb` and SavedModel files that are to be tried
under their own paths, their variables beside them where these are known, and `what.txt`, which says what it is. Prints
docs/public_graphs.md's table. Where variables are missing, they are random, BatchNorm's statistics too. TensorFlow runs
the same graph with the same weights in float64 on random inputs; frozen graphs and SavedModels with their variables
are also run in TensorFlow as they are, untouched, in float32.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from converters import InputError, frameworks, open_checkpoint
from converters.formats import models
from converters.graph_def import UserGraph, read_network
from converters.graph_def.judge import Judge
from slimport.graph import scoped

Array = Any
Arrays = dict[str, Array]
SIZES = ((96, 128), (224, 224), (227, 227), (299, 299), (64, 64), (32, 32), (28, 28), (128, 128), (256, 256))
OTHER = 20
"""The sides of images, the first that TensorFlow takes, and of other inputs, where the graph leaves them open."""
WEIGHTED = ("conv2d", "separable_conv2d", "conv2d_transpose", "fully_connected", "matmul")
HEADER = """\
| repository, file | what it is | format | nodes | inputs -> outputs; layers | result | PyTorch | Keras | as it is | s |
|---|---|---|---|---|---|---|---|---|---|"""


@dataclass
class Trial:
    """What came of one graph.

    repository, file: where it is from.
    what: in words.
    nodes: of TensorFlow's graph, those of the evaluation.
    found: inputs, outputs, layers and parameters.
    result: `whole`, or the refusal; of the part that it advises to take are the errors then.
    pytorch, keras: the worst relative error in float64, of a layer or an output and of an output; or the first line of
      the refusal.
    untouched: that of PyTorch in float32 against TensorFlow's run of the file as it is.
    seconds: to read it and make the PyTorch model.
    """

    repository: str
    file: str
    what: str = ""
    format: str = ""
    nodes: int = 0
    found: str = ""
    result: str = ""
    pytorch: str = ""
    keras: str = ""
    untouched: str = ""
    seconds: float = 0.0
    notes: Sequence[str] = field(default=())

    def row(self) -> str:
        """The line of the table."""
        cells = [f"{self.repository}, `{self.file}`", self.what, self.format, str(self.nodes or ""), self.found]
        cells += [self.result, self.pytorch, self.keras, self.untouched, f"{self.seconds:.1f}"]
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def graph_files(folder: Path) -> Iterator[Path]:
    """The graphs below a folder; a SavedModel is its folder."""
    for path in sorted(folder.rglob("*")):
        if path.name == "saved_model.pb":
            yield path.parent
        elif path.suffix in (".meta", ".pb", ".pbtxt") and path.is_file():
            yield path


def tried(path: Path, root: Path) -> Trial:
    """Tries one graph."""
    repository, *rest = path.relative_to(root).parts
    what = root / repository / "what.txt"
    trial = Trial(repository.replace("+", "/"), "/".join(rest) or "saved_model.pb")
    trial.what = what.read_text().strip() if what.exists() else ""
    start = time.perf_counter()
    try:
        user = read_network(path)
        trial.result = "whole"
    except InputError as error:
        trial.result = refused(error, path)
        _, advised, outputs = trial.result.partition("--output ")
        trial.seconds = time.perf_counter() - start
        if not advised:
            return trial
        try:
            # What the message says is there to be pasted.
            user = read_network(path, outputs=outputs.split(","))
        except InputError as second:
            trial.pytorch = refused(second, path)
            return trial
    trial.format = {"meta": ".meta", "frozen": "frozen", "saved_model": "SavedModel"}[user.file.kind]
    trial.nodes, trial.found, trial.notes = len(user.context.memo), found(user), user.notes
    trial.seconds = time.perf_counter() - start
    judged(trial, user)
    return trial


def refused(error: InputError, path: Path) -> str:
    """What an error says, without the file's name."""
    return str(error).replace(f"{path}: ", "").replace(f"{path}/saved_model.pb: ", "")


def judged(trial: Trial, user: UserGraph) -> None:
    """Converts a graph to each framework, and compares with TensorFlow."""
    judge = Judge(user, "float64", list(user.layers.values()), free_batch=False)
    known = stored_weights(user, judge)
    weights = random_weights(judge) if known is None else known
    by_source = {user.file.checkpoint_names.get(name, name): array for name, array in weights.items()}
    start = time.perf_counter()
    model = models.pytorch_port(user.network, doubled(user, by_source))
    trial.seconds += time.perf_counter() - start
    try:
        inputs, truth = run(judge, user, weights)
    except judge.tf.errors.InvalidArgumentError as error:
        trial.pytorch = trial.keras = f"TensorFlow takes none of the sizes: {str(error).splitlines()[-1]}"[:200]
        return
    trial.pytorch = refusal_or(lambda: by_pytorch(model, user, inputs, "float64"), truth)
    trial.keras = refusal_or(lambda: by_keras(user, by_source, inputs), truth)
    trial.result += "" if known is not None or not judge.variables else " (random weights)"

    def single() -> Arrays:
        return by_pytorch(model.float(), user, inputs, "float32")

    if user.file.kind != "meta" and (known is not None or not judge.variables):
        outputs = as_it_is(user, as_the_graph_takes(user, inputs))
        trial.untouched = outputs if isinstance(outputs, str) else refusal_or(single, outputs)


def run(judge: Judge, user: UserGraph, weights: Arrays) -> tuple[Arrays, Arrays]:
    """Inputs of the first size that TensorFlow takes, and what it makes of them."""
    # Of two numbers, one is always above their mean and the other below: no rounding error is seen but a large one.
    batch = 8 if any("statistics of the batch" in note for note in user.notes) else 2
    for size in SIZES:
        inputs = random_inputs(user, judge.batch or batch, size)
        for name, tensor in user.inputs.items():
            if judge.inputs[tensor].dtype.is_integer:
                inputs[name] = np.floor(inputs[name] * min(256, judge.inputs[tensor].dtype.max))
        try:
            return inputs, judge.run(as_the_graph_takes(user, inputs), weights)
        except judge.tf.errors.InvalidArgumentError:
            if size == SIZES[-1]:
                raise
    raise AssertionError


def doubled(user: UserGraph, weights: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """The network's variables in float64."""
    for name, array in user.arrays(weights):
        yield name, np.asarray(array, np.float64)


def found(user: UserGraph) -> str:
    """Inputs, outputs, layers and parameters, in a line."""
    kinds = Counter(node.op for node in user.graph.nodes if node.op in WEIGHTED)
    layers = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    outputs = [*user.outputs][:4] + ([f"{len(user.outputs) - 4} more"] if len(user.outputs) > 4 else [])
    count = sum(int(np.prod(shape)) for shape in user.graph.variables.values())
    return f"{', '.join(user.inputs)} -> {', '.join(outputs)}; {layers}; {count / 1e6:.2f} M parameters"


def stored_weights(user: UserGraph, judge: Judge) -> Arrays | None:
    """The variables' arrays from the checkpoint beside the graph; None where its data is missing."""
    prefix = user.file.variables if user.file.kind == "saved_model" else user.file.path.with_suffix("")
    shards = [] if prefix is None else list(prefix.parent.glob(f"{prefix.name}.data-*"))
    if prefix is None or not shards or len(shards) < int(shards[0].name.rpartition("-")[2]):
        return None
    renamed = user.file.checkpoint_names
    with open_checkpoint(prefix) as checkpoint:
        if any(renamed.get(name, name) not in checkpoint for name in judge.variables):
            return None
        return {name: np.array(checkpoint[renamed.get(name, name)], np.float64) for name in judge.variables}


def random_weights(judge: Judge) -> Arrays:
    """Numbers for variables, such that no network gives nothing but zeros."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, placeholder in judge.variables.items():
        shape = placeholder.shape.as_list()
        if len(shape) == 1:
            # Any may be a variance, whatever its name.
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = rng.normal(size=shape) / np.sqrt(max(1, int(np.prod(shape[:-1]))))
        arrays[name] = np.float64(np.float32(array))
    return arrays


def random_inputs(user: UserGraph, batch: int, size: tuple[int, int] = SIZES[0]) -> Arrays:
    """Inputs by name, as the network takes them: images channels last."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, index in zip(user.inputs, user.graph.inputs, strict=True):
        shape = user.graph.nodes[index].attributes["shape"]
        usual = (*size, 3) if len(shape) == 4 else [OTHER] * len(shape)
        sides = [side if known is None else known for known, side in zip(shape[1:], usual, strict=False)]
        whole = user.graph.nodes[index].attributes.get("dtype", "float") != "float"
        high = 255 if len(shape) == 4 and user.network.takes_pixels else 1
        array = rng.integers(0, 2, [batch, *sides]) if whole else rng.uniform(0, high, [batch, *sides])
        arrays[name] = np.float64(np.float32(array))
    return arrays


def as_the_graph_takes(user: UserGraph, inputs: Arrays) -> Arrays:
    return {
        name: array.transpose(0, 3, 1, 2) if name in user.channels_first else array for name, array in inputs.items()
    }


def by_pytorch(model: Any, user: UserGraph, inputs: Arrays, dtype: str) -> Arrays:
    """The outputs of the PyTorch model, and in float64 its layers by the names of their tensors, channels last."""
    import torch

    given = [np.ascontiguousarray(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x) for x in inputs.values()]
    with torch.no_grad():
        outputs, points = model.end_points(*(torch.from_numpy(array).to(getattr(torch, dtype)) for array in given))
    outputs = outputs if isinstance(outputs, dict) else {next(iter(user.outputs)): outputs}
    layers = {tensor: points.get(scoped(user.scope, name)) for name, tensor in user.layers.items()}
    found = {**outputs, **(layers if dtype == "float64" else {})}
    return {name: (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).numpy() for name, x in found.items() if x is not None}


def by_keras(user: UserGraph, weights: Mapping[str, Array], inputs: Arrays) -> Arrays:
    """The outputs of the Keras model."""
    images = next((array for array in inputs.values() if array.ndim == 4), None)
    size = None if images is None else images.shape[1:3]
    model = models.keras_port(user.network, doubled(user, weights), dtype="float64", image_size=size)
    outputs = model(list(inputs.values()) if len(inputs) > 1 else next(iter(inputs.values())))
    outputs = outputs if isinstance(outputs, dict) else {next(iter(user.outputs)): outputs}
    return {name: np.asarray(output) for name, output in outputs.items()}


def as_it_is(user: UserGraph, inputs: Arrays) -> Arrays | str:
    """The outputs of a file that has its weights, in TensorFlow, by nothing of this project's; or why there are none.

    One element after the other where the file has a batch of 1 written into it.
    """
    import tensorflow as tf

    count = len(next(iter(inputs.values())))
    for size in (count, 1):
        batches = [{name: array[at : at + size] for name, array in inputs.items()} for at in range(0, count, size)]
        try:
            parts = [_imported(tf, user, batch) for batch in batches]
        except (tf.errors.OpError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            continue
        if all(len(part[name]) == size for part in parts for name in user.outputs):
            return {name: np.concatenate([part[name] for part in parts]) for name in user.outputs}
        reason = "the batch is not the first axis"
    return f"TensorFlow: {reason}"


def _imported(tf: Any, user: UserGraph, inputs: Arrays) -> Arrays:

    arrays = {user.inputs[name]: array for name, array in inputs.items()}
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        if user.file.kind == "frozen":
            definition = tf.compat.v1.GraphDef.FromString(user.file.path.read_bytes())
            tf.import_graph_def(definition, name="")
        else:
            tf.compat.v1.saved_model.load(session, ["serve"], str(user.file.path.parent))
        tensors = {graph.get_tensor_by_name(name): array for name, array in arrays.items()}
        feed = {tensor: array.astype(tensor.dtype.as_numpy_dtype) for tensor, array in tensors.items()}
        for operation in graph.get_operations():
            tensor = operation.outputs[0] if operation.type == "Placeholder" else None
            if tensor is None or not (tensor.dtype.is_floating or tensor.dtype == tf.bool):
                continue
            if tensor not in feed and tensor.shape.rank in (0, None):
                # Training is off, and everything is kept.
                feed[tensor] = np.ones((), tensor.dtype.as_numpy_dtype) * (tensor.dtype != tf.bool)
        outputs: Arrays = session.run(dict(user.outputs), feed)
        return outputs


def refusal_or(run: Callable[[], Arrays], truth: Mapping[str, Array]) -> str:
    """The worst relative error of an output, or why there is none."""
    from tensorflow import errors

    try:
        outputs = run()
    except (InputError, ValueError, errors.OpError) as error:
        return str(error).splitlines()[0]
    return f"{max(relative(array, truth[name]) for name, array in outputs.items()):.1e}"


def relative(array: Array, truth: Array) -> float:
    """The relative error, `||array - truth|| / ||truth||`."""
    if truth.ndim == 4 and truth.shape != array.shape:
        truth = truth.transpose(0, 2, 3, 1)
    if array.shape != truth.shape:
        raise ValueError(f"shape {array.shape}, not {truth.shape}")
    size = float(np.linalg.norm(np.float64(truth)))
    return float(np.linalg.norm(np.float64(array) - truth)) / (size or 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="graphs whose path has this in it")
    arguments = parser.parse_args()
    frameworks.require("slimport.nets")
    frameworks.require("keras")
    import slimport.pytorch  # noqa: F401  so that the first graph's seconds are its own

    print(HEADER, flush=True)
    for path in graph_files(arguments.folder):
        if arguments.only not in str(path):
            continue
        try:
            trial = tried(path, arguments.folder)
        except Exception as error:  # a fault of this project: the study goes on
            traceback.print_exc()
            trial = Trial(path.relative_to(arguments.folder).parts[0], path.name, result=f"FAULT: {error!r}"[:300])
        print(trial.row(), flush=True)
        for note in trial.notes:
            print(f"  {note}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
