"""Recognition of networks, their scopes and their classes, from names and shapes of variables.

A family's description says what a network's variables are; all that happens here is comparing.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.weights import training_state
from slimport.graph import Shape, scoped
from slimport.networks import FAMILIES, NETWORKS, GraphNetwork, Network

if TYPE_CHECKING:
    from converters.graph_def import UserGraph
    from slimport.nodes import Source

NEUTRAL = {"gamma": 1.0, "beta": 0.0, "biases": 0.0}
"""With these values, a layer computes the same as without the variable."""


_ALIKE = 1 / 3
"""The share of a network's variables, and of those of layers under its scope, that makes it worth naming."""

ASSUMED = (
    "assumed: slim's own epsilon, activations, padding, strides and rates, which variables do not say; --graph FILE "
    "reads them from the .meta of the network"
)


LISTED = "'slimport inspect' lists its variables"


@dataclass(frozen=True)
class Recognition:
    """A network found in a set of variables. Names are full ones.

    missing: variables that the network needs and the file lacks.
    mismatched: variables whose shape is not the network's, with that of the network.
    filled: variables that the file's layers were built without, with the neutral value: 1 for a `gamma`, 0 for a `beta`
      or `biases`.
    reshaped: variables with the network's values in another shape, which is given: a fully connected layer's weights
      [in, out] instead of a 1x1 convolution's.
    averaged: variables that are replaced by their moving averages; None without `--ema`.
    unexpected: variables of layers inside the network that it does not have, so that it is another one.
    extras: all other variables, in the groups of `training_state`.
    """

    network: Network
    scope: str
    missing: tuple[str, ...]
    mismatched: dict[str, Shape]
    extras: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unexpected: tuple[str, ...] = ()
    filled: dict[str, float] = field(default_factory=dict)
    reshaped: dict[str, Shape] = field(default_factory=dict)
    averaged: tuple[str, ...] | None = None
    graph: UserGraph | None = field(default=None, repr=False, compare=False)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    settled: bool = True
    assumptions: tuple[str, ...] = ()
    origins: Mapping[str, Source] = field(default_factory=dict, repr=False)

    @property
    def sources(self) -> Mapping[str, Source]:
        """The origin of each variable in the user's graph, where the network is that of one; else none."""
        return self.graph.sources if self.graph is not None and isinstance(self.network, GraphNetwork) else self.origins

    def full_name(self, name: str) -> str:
        """The name in the file of a variable of the network."""
        source = self.sources.get(name)
        return scoped(self.scope, name) if source is None else source.name

    def full_names(self) -> list[str]:
        """The names in the file of all variables of the network, in its order."""
        return [self.full_name(name) for name in self.network.variables()]

    def __str__(self) -> str:
        head = f"{self.network.num_classes} classes" if self.network.num_classes else "no logits"
        return f"{self.network}, {head}, scope {self.scope!r}"

    @property
    def complete(self) -> bool:
        """Whether every variable of the network is present in its shape, and no unexpected one."""
        return not (self.missing or self.mismatched or self.unexpected)

    @property
    def scaled(self) -> bool:
        """Whether any BatchNorm has a gamma in the file; True for a network without BatchNorm."""
        gammas = [scoped(self.scope, name) for name in self.network.variables() if name.endswith("/gamma")]
        return not gammas or any(name not in self.filled for name in gammas)

    def problems(self) -> Iterator[str]:
        """Yields the missing, mismatched and unexpected variables, in the network's order."""
        missing = set(self.missing)
        for name in self.full_names():
            if name in missing:
                yield f"{name} is missing"
            elif name in self.mismatched:
                yield f"{name} is not of shape {list(self.mismatched[name])}"
        for name in self.unexpected:
            yield f"{name} is unexpected: a {self.network} does not have it"

    def notes(self) -> Iterator[str]:
        """Yields lines about the origin of the variables, for the user."""
        yield from self.assumptions
        if not self.settled:
            yield ASSUMED
        if self.averaged is not None:
            names = self.full_names()
            others = Counter(name.rpartition("/")[2] for name in names if name not in self.averaged)
            none = ", ".join(f"{count} {leaf}" for leaf, count in others.items())
            with_average = sum(name in self.averaged for name in names)
            yield f"moving averages: {with_average} of {len(names)} variables" + (f"; none of {none}" if none else "")
        for value in sorted(set(self.filled.values()), reverse=True):
            names = [name for name, filled in self.filled.items() if filled == value]
            leaves = Counter(name.rpartition("/")[2] for name in names)
            counts = ", ".join(f"{count} {leaf}" for leaf, count in leaves.items())
            sample = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            yield f"filled with {value:g}: {counts}, without which the layers were built: {sample}"
        for name, shape in self.reshaped.items():
            yield f"reshaped: {name}, {list(shape)} in the file"


@dataclass(frozen=True)
class Resemblance:
    """The nearest known network.

    alike: how many of its variables are present, by name, in layers whose kernels do not have other sides.
    different: the first difference.
    """

    network: Network
    scope: str
    alike: int
    different: str

    def __str__(self) -> str:
        return (
            f"nearest is {self.network} under scope {self.scope!r}, {self.alike} of whose "
            f"{len(self.network.variables())} variables are present by name; first difference: {self.different}"
        )


class UnknownNetworkError(InputError):
    """There is no network that slimport knows: `reason` says why, `nearest` is the nearest one, if any."""

    def __init__(self, reason: str, nearest: Resemblance | None) -> None:
        super().__init__(f"{reason}; {nearest or LISTED}")
        self.reason, self.nearest = reason, nearest


class SeveralNetworksError(InputError):
    """There are several networks, and none was chosen."""


def scopes(names: Mapping[str, object]) -> list[tuple[str, str]]:
    """The (family, scope) pairs of networks in variables; several families may claim a scope."""
    return [(name, scope) for name, family in FAMILIES.items() for scope in family.scopes(names)]


def recognize(shapes: Mapping[str, Shape], source: str, scope: str | None = None) -> Recognition:
    """The one network in these variables.

    Args:
      shapes: shapes by variable name, kernels HWIO.
      source: what the variables come from, for messages.
      scope: which one to take where there are several.

    Raises:
      UnknownNetworkError: no network.
      InputError: several, or one whose shapes no network of its family has.
    """
    return choose(networks(shapes), shapes, source, scope)


def choose(
    found: Sequence[Recognition], shapes: Mapping[str, Shape], source: str, scope: str | None = None
) -> Recognition:
    """The one network among those that `networks` found in the shapes; the rest as of `recognize`."""
    chosen = _outermost(found) if scope is None else [one for one in found if one.scope == scope.strip("/")]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise SeveralNetworksError(
            f"{source}: {len(chosen)} networks, under the scopes {_scopes(chosen)}: choose one with --scope"
        )
    for family, at in scopes(shapes):
        if (scope is None or at == scope.strip("/")) and _mostly_of(shapes, family, at, scope or ""):
            _recognized(shapes, family, at, source)
    where = "" if scope is None else f" under scope {scope!r}"
    there = f"; there are networks under {_scopes(found)}" if found else ""
    averages = {variable: shapes[name] for name in shapes if (variable := training_state.averaged(name, shapes))}
    if not found and scopes(averages):
        there = "; its moving averages are those of one: take them with --ema"
    raise UnknownNetworkError(
        f"{source}: no network that slimport knows among its {len(shapes)} variables{where}{there or _named(shapes)}",
        None if found else nearest(shapes),
    )


def _named(shapes: Mapping[str, Shape]) -> str:
    """The family whose name a scope has, as part of a message; empty where there is none."""
    names = {network.default_scope: type(network).title for network in NETWORKS.values()}
    for part in dict.fromkeys(part for name in shapes for part in name.split("/", training_state.DEEPEST)[:-1]):
        if part in names:
            return f"; scope {part!r} is named like {names[part]}, but its layers are other ones"
    return ""


def _outermost(found: Sequence[Recognition]) -> Sequence[Recognition]:
    """The networks that are no part of another one, as a DeepLab's backbone is."""
    names = [set(one.full_names()) for one in found]
    return [one for one, own in zip(found, names, strict=True) if not any(own < other for other in names)]


def check_whole(recognition: Recognition, source: str) -> None:
    """Checks that the network has all its variables, and no unexpected ones.

    Raises:
      InputError: names the first variable that is missing or mismatched, and counts the others.
    """
    if recognition.complete:
        return
    problems = list(recognition.problems())
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise InputError(
        f"{source}: not a whole {recognition.network} under scope {recognition.scope!r}: {problems[0]}{more}; {LISTED}"
    )


def looked_for() -> str:
    """The known families, in a sentence."""
    return ", ".join(family.title for family in FAMILIES.values())


def networks(shapes: Mapping[str, Shape]) -> list[Recognition]:
    """Every network in these variables, by its scope. Of families under one scope, the one that fits best."""
    best: dict[str, Recognition] = {}
    pairs = scopes(shapes)
    for family, scope in pairs:
        try:
            found = _recognized(shapes, family, scope, "", (other for _, other in pairs if other and other != scope))
        except InputError:
            continue
        if scope not in best or _rank(found) > _rank(best[scope]):
            best[scope] = found
    return [best[scope] for scope in sorted(best)]


def nearest(shapes: Mapping[str, Shape]) -> Resemblance | None:
    """The known network and scope with the most variables present, as `Resemblance` counts them.

    Of equals, the smallest network.
    None if that is no more than a third of its variables, or of those under its scope: names such as `conv1/weights`
    are in many networks.
    """
    kept = (training_state.LAYERS, training_state.OTHER, training_state.HEAD)
    groups = training_state.grouped(shapes, shapes)
    shapes = {name: shapes[name] for group in kept for name in groups.get(group, ())}
    scopes_of: dict[str, list[str]] = {}
    inside: Counter[str] = Counter()
    for name in shapes:
        parts = name.split("/", training_state.DEEPEST)
        for start in range(len(parts)):
            scope = "/".join(parts[:start])
            scopes_of.setdefault("/".join(parts[start:]), []).append(scope)
            inside[scope] += 1
    best: tuple[int, float, Network, str] | None = None
    for network in NETWORKS.values():
        counts: dict[str, int] = {}
        variables = network.variables()
        for name in variables:
            kernel = f"{name.rpartition('/')[0]}/weights"
            sides = variables.get(kernel, ())[:-2]
            for scope in scopes_of.get(name, ()):
                # `conv1` and `conv2` are in many networks, with kernels of other sides.
                if not sides or shapes.get(scoped(scope, kernel), ())[:-2] in ((), sides):
                    counts[scope] = counts.get(scope, 0) + 1
        for scope, count in counts.items():
            share = count / len(variables)
            enough = min(share, count / inside[scope]) > _ALIKE
            if enough and (best is None or (count, share) > best[:2]):
                best = count, share, network, scope
    if best is None:
        return None
    count, _, network, scope = best
    return Resemblance(network, scope, count, _first_difference(shapes, network, scope))


def _first_difference(shapes: Mapping[str, Shape], network: Network, scope: str) -> str:
    expected = {scoped(scope, name): shape for name, shape in network.variables().items()}
    for name, shape in expected.items():
        if name not in shapes:
            instead = difflib.get_close_matches(name, [other for other in shapes if other not in expected], 1)
            return f"{name} is missing" + (f", and there is {instead[0]}" if instead else "")
        if shapes[name] != shape:
            return f"{name} is {list(shapes[name])}, not {list(shape)}"
    return "none; its layers are those of no one family"


def _recognized(
    shapes: Mapping[str, Shape], family: str, scope: str, source: str, others: Iterable[str] = ()
) -> Recognition:
    prefix = scoped(scope, "")
    inside = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    try:
        network = FAMILIES[family].recognised(inside)
        network.variables()
    except ValueError as error:
        title = FAMILIES[family].title
        raise InputError(f"{source}: {title} under scope {scope!r} by its names, but {error}") from error
    return compared(network, shapes, scope, others)


def _mostly_of(shapes: Mapping[str, Shape], family: str, scope: str, within: str) -> bool:
    """Whether most layers within a scope have the names that a family's have under `scope`.

    A few that are common, as `conv1` to `conv5` are, do not make a file one of a family that its shapes do not fit.
    """
    prefix, outer = scoped(scope, ""), scoped(within.strip("/"), "")
    layers = training_state.grouped(shapes, [name for name in shapes if name.startswith(outer)])
    names = {f"{prefix}{name}" for network in FAMILIES[family].named().values() for name in network.variables()}
    found = layers.get(training_state.LAYERS, ())
    return 2 * sum(name in names for name in found) >= len(found)


def compared(network: Network, shapes: Mapping[str, Shape], scope: str = "", others: Iterable[str] = ()) -> Recognition:
    """A network that is known, compared with variables.

    Args:
      network: the network.
      shapes: shapes by variable name, kernels HWIO.
      scope: the scope under which it is.
      others: the scopes of other networks.
    """
    prefix = scoped(scope, "")
    variables = network.variables()
    expected = {scoped(scope, name): shape for name, shape in variables.items()}
    beside = [name for name in shapes if name not in expected]
    # A network whose scope contains this one's cannot be told apart.
    extras = training_state.grouped(shapes, beside, [other for other in others if not prefix.startswith(f"{other}/")])
    # Every layer under the first component of a variable's name (a block, a convolution) must be the network's.
    parts = tuple({f"{scoped(scope, name.partition('/')[0])}/" for name in variables})
    unexpected = tuple(name for name in extras.get(training_state.LAYERS, ()) if name.startswith(parts))
    extras = {group: tuple(name for name in names if name not in unexpected) for group, names in extras.items()}
    missing = [name for name in expected if name not in shapes]
    filled = {name: NEUTRAL[leaf] for name in missing if (leaf := _left_out(name, shapes))}
    different = {name: shapes[name] for name, shape in expected.items() if shapes.get(name, shape) != shape}
    reshaped = {name: shape for name, shape in different.items() if _same_kernel(shape, expected[name])}
    return Recognition(
        network=network,
        scope=scope,
        missing=tuple(name for name in missing if name not in filled),
        mismatched={name: expected[name] for name in different if name not in reshaped},
        filled=filled,
        reshaped=reshaped,
        extras={group: names for group, names in extras.items() if names},
        unexpected=unexpected,
    )


def _left_out(name: str, shapes: Mapping[str, Shape]) -> str | None:
    """The last part of a missing variable's name, if its layer was built without the variable.

    Then the rest of the layer is there. `slim.batch_norm` has no gamma with `scale=False`, which is its default, and no
    beta with `center=False`; a layer has no biases with `biases_initializer=None`.
    """
    layer, _, leaf = name.rpartition("/")
    if leaf == "biases":
        there = any(f"{layer}/{weights}" in shapes for weights in ("weights", "pointwise_weights"))
    else:
        there = all(f"{layer}/{statistics}" in shapes for statistics in ("moving_mean", "moving_variance"))
    return leaf if leaf in NEUTRAL and there else None


def _same_kernel(shape: Shape, expected: Shape) -> bool:
    """Whether one is a convolution's kernel and the other the same fully connected weights."""
    return {len(shape), len(expected)} == {2, 4} and (math.prod(shape), shape[-1]) == (
        math.prod(expected),
        expected[-1],
    )


def _rank(found: Recognition) -> tuple[int, int]:
    """How well a network fits: by the variables that it explains, less its problems, and by those that are filled."""
    problems = len(found.missing) + len(found.mismatched) + len(found.unexpected)
    explained = len(found.network.variables()) - len(found.missing) - len(found.mismatched) - len(found.filled)
    return explained - problems, -len(found.filled)


def _scopes(found: Iterable[Recognition]) -> str:
    return ", ".join(repr(network.scope) for network in found)
