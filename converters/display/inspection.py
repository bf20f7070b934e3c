"""An inspection as text: the variables, and last, where a terminal stops, the file, its network, commands for it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import click

from converters.checkpoint.messages import shown
from converters.display import layers, tree
from converters.inspection import Inspection, dtype_name
from converters.weights import training_state
from converters.weights.recognize import Recognition, looked_for
from converters.weights.selection import EVERYTHING, IMAGENET_CLASSES, Selection
from converters.weights.user_graph import GRAPH_SUFFIXES

_FORMATS = {
    "v1": "TensorFlow checkpoint, V1",
    "v2": "TensorFlow checkpoint, V2",
    "frozen graph": "frozen TensorFlow graph",
    "graph": "TensorFlow graph without data",
}
_MANY = 10


def inspection_text(
    found: Inspection, depth: int | None = None, everything: bool = False, as_layers: bool = False
) -> str:
    """The variables as a tree, and then the summary.

    Args:
      found: the inspection.
      depth: of the tree; None is as deep as fits.
      everything: a line for each variable by its full name, training state included, instead of the tree.
      as_layers: a line for each layer of the network, instead of the tree. A graph is always shown so.
    """
    graph = layers.network_graph(found) if as_layers or found.path.suffix in GRAPH_SUFFIXES else None
    if everything:
        lines = list(_list(found))
    else:
        lines = list(_tree(found, depth) if graph is None else layers.text(graph))
    lines += [""] if lines else []
    what = _FORMATS.get(found.format, f"converted file, {found.format}")
    counts = f"{what}, {len(found.variables)} variables, {found.parameters:,} elements"
    counts = "TensorFlow graph" if found.unsupported else counts
    lines.append(f"{click.style(shown(str(found.path)), bold=True)}: {counts}")
    lines += [f"read: {found.read}"] if found.read else []
    return "\n".join([*lines, *_labelled(_summary(found))])


def _summary(found: Inspection) -> Iterator[tuple[str, str]]:
    recognition = found.recognition
    if recognition:
        # A converted file's variables have no scope, but its description may name the one that they had.
        model = replace(recognition, scope=found.description.get("scope", recognition.scope))
        yield "model", click.style(str(model), fg="green" if recognition.complete else "yellow")
        yield from _made_from(found.description)
        yield from layers.ends(found)
        yield from _problems(recognition)
        yield from (("", note) for note in recognition.notes())
        if recognition.network.background and recognition.network.num_classes == IMAGENET_CLASSES + 1:
            yield "classes", "the first is the background: --drop-background leaves 1000, --no-head returns features"
    elif found.networks:
        yield "model", click.style(f"{len(found.networks)} networks; choose one with --scope", fg="yellow")
        for network in found.networks:
            yield "network", str(network)
    else:
        yield from _unknown(found)
    # Without a network, all layers are in the tree.
    extras = {group: names for group, names in found.extras.items() if recognition or group != training_state.LAYERS}
    for line in training_state.described(extras):
        yield "other variables", line
    yield from _commands(found)


def _made_from(description: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "source" in description:
        # Earlier versions wrote "view".
        selection = description.get("selection", description.get("view"))
        options = f", with {Selection.from_json(selection)}" if selection else ""
        yield "made from", ", ".join(description["source"]) + options


def _unknown(found: Inspection) -> Iterator[tuple[str, str]]:
    nearest = found.nearest
    if found.unsupported:
        yield "model", click.style("none: it has ops that slimport does not support", fg="yellow")
        yield "first", str(found.doubt)
        yield from (("not supported", node) for node in found.unsupported)
        return
    if nearest is None:
        doubt = str(found.doubt).removeprefix(f"{found.path}: ")
        yield "model", click.style(f"none: {doubt}", fg="yellow")
        return
    yield "model", click.style("none that slimport knows", fg="yellow")
    yield "looked for", looked_for()
    yield "found", f"{len(found.extras.get(training_state.LAYERS, ()))} variables of layers, in the tree above"
    network, variables = nearest.network, len(nearest.network.variables())
    yield (
        "nearest",
        f"{network.name} under scope {nearest.scope!r}: {nearest.alike} of its {variables} variables by name",
    )
    yield "first difference", nearest.different


def _problems(found: Recognition) -> Iterator[tuple[str, str]]:
    problems = [("missing", name) for name in found.missing]
    problems += [("mismatched", f"{name}, which should be {list(shape)}") for name, shape in found.mismatched.items()]
    problems += [("unexpected", f"{name}, which {found.network.name} does not have") for name in found.unexpected]
    yield from problems[:_MANY]
    if len(problems) > _MANY:
        yield "", f"and {len(problems) - _MANY} more of these"


def _commands(found: Inspection) -> Iterator[tuple[str, str]]:
    """Commands for the file."""
    network = found.recognition or next(iter(found.networks), None)
    if found.unsupported:
        _, part, output = str(found.doubt).partition("--output ")
        source = shlex.quote(str(found.path))
        if part:
            yield "next", click.style(f"slimport convert {source} part.safetensors --output {output}", bold=True)
        return
    if found.format == "graph":
        yield (
            "next",
            "the weights are in a checkpoint: slimport convert CHECKPOINT DST --graph " + shlex.quote(str(found.path)),
        )
        return
    if network is None or not network.complete:
        yield "next", "--all lists every variable, and converters.open_checkpoint in Python reads them"
        return
    source = shlex.quote(str(found.path))
    options = "" if found.recognition else f" --scope {shlex.quote(network.scope)}"
    options += f" --step {found.step}" if found.step is not None else ""
    options += f" {found.selection}" if found.selection != EVERYTHING else ""
    suffix = ".keras" if found.format == "safetensors" else ".safetensors"
    converted = f"{network.network.name}{suffix}"
    yield "next", click.style(f"slimport convert {source} {converted}{options}", bold=True)
    yield "then", click.style(f"slimport verify {source} {converted}{options}", bold=True)
    if network.network.num_classes and network.network.takes_images:
        yield "or", click.style(f"slimport predict {source} IMAGE...{options}", bold=True)


def _labelled(rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    for label, text in rows:
        yield f"{label}: {text}" if label else text


def _list(found: Inspection) -> Iterator[str]:
    width = max((len(v.name) for v in found.variables), default=0)
    for v in found.variables:
        yield f"{shown(v.name):<{width}}  {dtype_name(v):<8}  {list(v.shape)}"


def _tree(found: Inspection, depth: int | None) -> Iterator[str]:
    by_name = {v.name: v for v in found.variables}
    variables = [(name, by_name[found.names[name]]) for name in _in_order(found) if name in found.names]
    lines = tree.draw(tree.grow((name, tree.Leaf(v.shape, dtype_name(v))) for name, v in variables), depth)
    width = max((len(line.guides + line.name) for line in lines), default=0)
    digits = max((len(f"{line.elements:,}") for line in lines), default=0)
    for line in lines:
        name = f"{line.name:<{width - len(line.guides)}}"
        yield f"{click.style(line.guides, dim=True)}{name}  {line.elements:>{digits},}  {line.details}".rstrip()
    if left_out := len(found.variables) - len(variables):
        yield f"({left_out} variables of the training state are not in the tree; --all lists them)"


def _in_order(found: Inspection) -> list[str]:
    """The names in the tree: the networks' variables as slim creates them, then other layers."""
    networks = (found.recognition,) if found.recognition else found.networks
    names = [name for n in networks for name in n.full_names()]
    names += [name for network in networks for name in network.unexpected]
    kept = (training_state.HEAD, training_state.LAYERS, training_state.NETWORKS, training_state.OTHER)
    names += sorted((name for group in kept for name in found.extras.get(group, ())), key=_natural)
    # A name may be in two of these; its first place counts.
    return list(dict.fromkeys(names))


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts `unit_2` before `unit_10`."""
    # Every second part that `re.split` returns is a number, whose digits can be too many to be an int.
    parts = enumerate(re.split(r"([0-9]+)", name))
    return [(len(part.lstrip("0")), part.lstrip("0")) if index % 2 else (0, part) for index, part in parts]
