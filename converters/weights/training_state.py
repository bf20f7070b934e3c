"""The variables in a checkpoint that are not the network's: training state and other layers, in groups."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence

from slimport.graph import VARIABLE_LEAVES, Shape

SHADOW = "ExponentialMovingAverage"
"""The slot of `tf.train.ExponentialMovingAverage`: a variable's moving average, its shadow."""

TRAINING_STATE, QUANTIZATION, LAYERS, NETWORKS, OTHER = "training_state", "quantization", "layers", "networks", "other"
HEAD = "head"
"""The layer of the logits, if it is left out."""

DEEPEST = 50
"""Only a name that was made to be slow has more scopes."""

MEANINGS = {
    SHADOW: "moving averages of the variables; --ema takes them",
    TRAINING_STATE: "steps, rates and the like",
    QUANTIZATION: "ranges for quantization",
    LAYERS: "variables of other layers; convert --extras keeps them",
    NETWORKS: "variables of the other networks",
    HEAD: "the layer of the logits",
    OTHER: "of unknown kind",
}
"""The groups in words. Any other group is an optimizer's slot, with the optimizer's name for it."""

_SAMPLE = 3
_LEAVES = (
    *VARIABLE_LEAVES,
    "kernel",
    "bias",
    "depthwise_weights",
    "pointwise_weights",
    "depthwise_kernel",
    "embeddings",
)
# The names of the slots of TensorFlow's optimizers; `_<n>` numbers several of one variable. A slot of another name is
# recognised by the variable whose name it extends.
_SLOT = re.compile(rf"(Momentum|RMSProp|Adam|Adagrad|AdagradDA|Adadelta|Ftrl|Adamax|LARS|{SHADOW})(_\d+)?")
_STATE = re.compile(
    r"(.*_)?(step|steps|epoch|power|learning_rate|lr|learning_rate_power|decay|momentum|loss_scale|good_steps|counter|iter"
    r"|iterations)(_\d+)?"
)
# tf.contrib.quantize's `conv1/weights_quant/min` and `conv1/act_quant/max`, and the state of their moving averages.
_RANGE = re.compile(r"(^|.*/)\w*quant\w*/(.*/)?(min|max)(/(biased|local_step))?")


def grouped(
    shapes: Mapping[str, Shape], beside: Iterable[str], networks: Iterable[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Groups variables: slots by the slot's name first, and then the groups of `MEANINGS`.

    Args:
      shapes: of all variables in the file, whose names slots extend.
      beside: those to group.
      networks: the scopes of other networks.
    """
    groups: dict[str, list[str]] = {}
    prefixes = tuple(f"{scope}/" for scope in networks)
    for name in beside:
        group = _group(name, shapes)
        if group == LAYERS and name.startswith(prefixes):
            group = NETWORKS
        groups.setdefault(group, []).append(name)
    order = list(MEANINGS)[1:]
    ranked = sorted(groups, key=lambda group: (order.index(group) if group in order else -1, group))
    return {group: tuple(groups[group]) for group in ranked}


def averaged(name: str, names: Container[str]) -> str | None:
    """The variable of which `name` is the moving average, or None."""
    variable, _, slot = name.rpartition("/")
    if slot != SHADOW or not variable:
        return None
    # An average in its own scope has that scope before the variable's name.
    parts = variable.split("/", DEEPEST)
    tails = ("/".join(parts[start:]) for start in range(max(len(parts) - 1, 1)))
    return next((tail for tail in tails if tail in names), variable)


def described(extras: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each group: its number of variables, its meaning, and some names where they help."""
    lines = []
    for group, names in extras.items():
        text = f"{len(names)} {group.replace('_', ' ')} ({MEANINGS.get(group, 'slots of an optimizer')})"
        if group in (TRAINING_STATE, LAYERS, OTHER):
            text += ": " + ", ".join(names[:_SAMPLE]) + (", ..." if len(names) > _SAMPLE else "")
        lines.append(text)
    return lines


def _group(name: str, shapes: Mapping[str, Shape]) -> str:
    if _RANGE.fullmatch(name):
        return QUANTIZATION
    slot = _slot(name, shapes)
    if slot:
        return slot
    leaf = name.rpartition("/")[2]
    if shapes[name] == () and _STATE.fullmatch(leaf):
        return TRAINING_STATE
    return LAYERS if leaf in _LEAVES else OTHER


def _slot(name: str, shapes: Mapping[str, Shape]) -> str | None:
    """The slot's name, if `name` is a slot of a variable.

    It follows the variable's name, which an optimizer with its own scope puts after that scope:
    `OptimizeLoss/net/conv1/weights/Momentum`.
    """
    parts = name.split("/", DEEPEST)
    for end in range(len(parts) - 1, 0, -1):
        if any("/".join(parts[start:end]) in shapes for start in range(max(end - 1, 1))):
            return "/".join(parts[end:])
    return parts[-1] if len(parts) > 1 and _SLOT.fullmatch(parts[-1]) else None
