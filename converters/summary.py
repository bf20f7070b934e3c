"""An inspection as text, for a person: what the file is, what can be done with it, and its variables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import click

from converters import leftovers, tree
from converters.inspection import Inspection, dtype_name
from converters.recognize import Recognition, looked_for
from converters.views import AS_IT_IS, IMAGENET_CLASSES, View
from slimport.graph import scoped

_FORMATS = {"v1": "TensorFlow checkpoint, V1", "v2": "TensorFlow checkpoint, V2"}
_MANY = 10


def inspection_text(found: Inspection, *, depth: int | None = None, everything: bool = False) -> str:
    """The summary, and then the variables as a tree.

    Args:
      found: the inspection.
      depth: of the tree; None is what fits.
      everything: a line for each variable by its full name, what training left included, in the tree's place.
    """
    what = _FORMATS.get(found.format, f"converted file, {found.format}")
    counts = f"{len(found.variables)} variables, {found.parameters:,} numbers"
    lines = [f"{click.style(str(found.path), bold=True)}: {what}, {counts}"]
    lines += _labelled(_summary(found))
    lines.append("")
    lines += list(_list(found) if everything else _tree(found, depth))
    return "\n".join(lines)


def _summary(found: Inspection) -> Iterator[tuple[str, str]]:
    recognition = found.recognition
    if recognition:
        # A converted file's variables stand under no scope, but it may remember the one that they stood under.
        model = replace(recognition, scope=found.description.get("scope", recognition.scope))
        yield "model", click.style(str(model), fg="green" if recognition.complete else "yellow")
        yield from _made_from(found.description)
        yield from _problems(recognition)
        yield from (("", note) for note in recognition.notes())
        if recognition.network.background and recognition.network.num_classes == IMAGENET_CLASSES + 1:
            yield "classes", "the first is the background: --drop-background leaves 1000, --no-head gives features"
    elif found.networks:
        yield "model", click.style(f"{len(found.networks)} networks; choose one with --scope", fg="yellow")
        for network in found.networks:
            yield "network", str(network)
    else:
        yield from _unknown(found)
    # Without a network, every layer is beside it.
    extras = {group: names for group, names in found.extras.items() if recognition or group != leftovers.LAYERS}
    for line in leftovers.described(extras):
        yield "beside it", line
    yield from _steps(found)


def _made_from(description: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "source" in description:
        taken = f", with {View.from_json(description['view'])}" if "view" in description else ""
        yield "made from", ", ".join(description["source"]) + taken


def _unknown(found: Inspection) -> Iterator[tuple[str, str]]:
    nearest = found.nearest
    if nearest is None:
        yield "model", click.style(f"none ({found.doubt})", fg="yellow")
        return
    yield "model", click.style("none that slimport knows", fg="yellow")
    yield "looked for", looked_for()
    yield "found", f"{len(found.extras.get(leftovers.LAYERS, ()))} variables of layers, in the tree below"
    network, variables = nearest.network, len(nearest.network.variables())
    yield (
        "nearest",
        f"{network.name} under scope {nearest.scope!r}: {nearest.alike} of its {variables} variables by name",
    )
    yield "first difference", nearest.different


def _problems(found: Recognition) -> Iterator[tuple[str, str]]:
    problems = [("missing", name) for name in found.missing]
    problems += [("misshapen", f"{name}, which should be {list(shape)}") for name, shape in found.misshapen.items()]
    problems += [("unexpected", f"{name}, which a {found.network.name} has not") for name in found.unexpected]
    yield from problems[:_MANY]
    if len(problems) > _MANY:
        yield "", f"and {len(problems) - _MANY} more of these"


def _steps(found: Inspection) -> Iterator[tuple[str, str]]:
    """What can be done with the file, as commands."""
    network = found.recognition or next(iter(found.networks), None)
    if network is None or not network.complete:
        yield "next", "--all lists every variable, and converters.open_checkpoint in Python reads them"
        return
    source = shlex.quote(str(found.path))
    options = "" if found.recognition else f" --scope {shlex.quote(network.scope)}"
    options += f" {found.view}" if found.view != AS_IT_IS else ""
    suffix = ".keras" if found.format == "safetensors" else ".safetensors"
    converted = f"{network.network.name}{suffix}"
    yield "next", click.style(f"slimport convert {source} {converted}{options}", bold=True)
    yield "then", click.style(f"slimport verify {source} {converted}{options}", bold=True)
    if network.network.num_classes:
        yield "or", click.style(f"slimport predict {source} IMAGE...{options}", bold=True)


def _labelled(rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    for label, text in rows:
        yield f"{label}: {text}" if label else text


def _list(found: Inspection) -> Iterator[str]:
    width = max((len(v.name) for v in found.variables), default=0)
    for v in found.variables:
        yield f"{v.name:<{width}}  {dtype_name(v):<8}  {list(v.shape)}"


def _tree(found: Inspection, depth: int | None) -> Iterator[str]:
    by_name = {v.name: v for v in found.variables}
    variables = [(name, by_name[found.names[name]]) for name in _in_order(found) if name in found.names]
    lines = tree.draw(tree.grow((name, tree.Leaf(v.shape, dtype_name(v))) for name, v in variables), depth)
    width = max((len(line.guides + line.name) for line in lines), default=0)
    digits = max((len(f"{line.numbers:,}") for line in lines), default=0)
    for line in lines:
        name = f"{line.name:<{width - len(line.guides)}}"
        yield f"{click.style(line.guides, dim=True)}{name}  {line.numbers:>{digits},}  {line.details}".rstrip()
    if left_out := len(found.variables) - len(variables):
        yield f"({left_out} variables that training left are not in the tree; --all lists them)"


def _in_order(found: Inspection) -> list[str]:
    """The networks' variables as slim creates them, and then what else is not a leftover of training."""
    networks = (found.recognition,) if found.recognition else found.networks
    names = [scoped(n.scope, name) for n in networks for name in n.network.variables()]
    names += [name for network in networks for name in network.unexpected]
    kept = (leftovers.HEAD, leftovers.LAYERS, leftovers.NETWORKS, leftovers.OTHER)
    names += sorted((name for group in kept for name in found.extras.get(group, ())), key=_natural)
    # A name may stand in two of these; the first place is its own.
    return list(dict.fromkeys(names))


def _natural(name: str) -> list[int | str]:
    """`unit_2` before `unit_10`. Of what `re.split` gives, every second part is a number."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", name))]
