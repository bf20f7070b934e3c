"""Moving averages of BatchNorm's statistics, and partitioned variables, in a training graph."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from converters.graph_def.evaluate import Evaluator
from converters.graph_def.values import Value

NOTE = "BatchNorm is in training mode in the graph; the moving averages are taken, as in evaluation"
_ASSIGNS = ("Assign", "AssignSub", "AssignAdd", "AssignSubVariableOp", "AssignVariableOp", "AssignAddVariableOp")
_FARTHEST = 8
_PARTITION = re.compile(r"(.+)/part_\d+")


def moving(context: Evaluator, node: str, outputs: Sequence[int]) -> tuple[Value, Value, float | None] | None:
    """The moving mean and variance that the outputs of a node go into, and their decay; None where there are none."""
    found = [average(context, f"{node}:{output}") for output in outputs]
    if any(average is None for average in found):
        return None
    (mean, decay), (variance, _) = found  # type: ignore[misc]
    return mean, variance, decay


def average(context: Evaluator, tensor: str) -> tuple[Value, float | None] | None:
    """The variable that a statistic is assigned to, and the decay of its average."""
    pending, seen = [(tensor, 0)], {tensor}
    subtracted = False
    decay = None
    while pending:
        name, depth = pending.pop(0)
        node_name, _, output = name.partition(":")
        for consumer in context.consumers.get(node_name, ()):
            taken = [text for text in consumer.data_inputs if text.partition(":")[0] == node_name]
            if not any((text.partition(":")[2] or "0") == (output or "0") for text in taken):
                continue
            if consumer.op in _ASSIGNS:
                variable = context.tensor(consumer.data_inputs[0])
                if variable.op == "variable" and consumer.data_inputs[0] not in taken:
                    return variable, decay
                continue
            subtracted = subtracted or consumer.op == "Sub"
            if subtracted and consumer.op == "Mul":
                decay = _decay(context, consumer.data_inputs) or decay
            if depth < _FARTHEST and consumer.name not in seen:
                seen.add(consumer.name)
                pending.append((f"{consumer.name}:0", depth + 1))
    return None


def _decay(context: Evaluator, inputs: Sequence[str]) -> float | None:
    for text in inputs:
        node = context.file.graph.nodes.get(text.partition(":")[0])
        if node is not None and node.op == "Const":
            rate = node.get("value")
            if isinstance(rate, np.ndarray) and rate.size == 1:
                return round(1 - float(rate.item()), 7)
    return None


def partitioned(values: Sequence[Value]) -> str | None:
    """The name of the variable whose partitions these are, all of them."""
    names = [_PARTITION.fullmatch(value.attrs["name"]) if value.op == "variable" else None for value in values]
    found = {match[1] for match in names if match is not None}
    return found.pop() if all(names) and len(found) == 1 else None
