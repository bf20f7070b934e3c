"""Which network a set of variables is, under which scope, with how many classes: from names and shapes alone.

A family's description says what a network's variables are; all that happens here is comparing.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from converters import leftovers
from converters.errors import InputError
from slimport.graph import Shape, scoped
from slimport.networks import FAMILIES, NETWORKS, Network

NEUTRAL = {"gamma": 1.0, "beta": 0.0, "biases": 0.0}
"""With these, a layer computes what it does without the variable."""


@dataclass(frozen=True)
class Recognition:
    """A network found in a set of variables. Names are full ones.

    missing: variables that the network needs and the file lacks.
    misshapen: variables whose shape is not the network's, with that of the network.
    filled: variables that the layers were built without, which the network has, with the value that changes nothing: 1
      for a `gamma`, 0 for a `beta` or `biases`.
    reshaped: variables that hold the network's numbers in another shape, which is given: a fully connected layer's
      weights [in, out] where the network has a 1x1 convolution's.
    averaged: variables in whose places their moving averages are; None where these were not asked for.
    unexpected: layers in the midst of the network that it does not have, so that it is another one.
    extras: everything else that is not the network's, in the groups of `leftovers`.
    """

    network: Network
    scope: str
    missing: tuple[str, ...]
    misshapen: dict[str, Shape]
    extras: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unexpected: tuple[str, ...] = ()
    filled: dict[str, float] = field(default_factory=dict)
    reshaped: dict[str, Shape] = field(default_factory=dict)
    averaged: tuple[str, ...] | None = None

    def __str__(self) -> str:
        head = f"{self.network.num_classes} classes" if self.network.num_classes else "no logits"
        return f"{self.network.name}, {head}, scope {self.scope!r}"

    @property
    def complete(self) -> bool:
        """Whether every variable of the network is there in its shape, and no other layer within it."""
        return not (self.missing or self.misshapen or self.unexpected)

    @property
    def scaled(self) -> bool:
        """Whether a BatchNorm has a gamma, or there is none at all: not so where all were built without."""
        gammas = [scoped(self.scope, name) for name in self.network.variables() if name.endswith("/gamma")]
        return not gammas or any(name not in self.filled for name in gammas)

    def problems(self) -> Iterator[str]:
        """What keeps it from being complete, in the network's order."""
        missing = set(self.missing)
        for name in self.network.variables():
            name = scoped(self.scope, name)
            if name in missing:
                yield f"{name} is missing"
            elif name in self.misshapen:
                yield f"{name} is not of shape {list(self.misshapen[name])}"
        for name in self.unexpected:
            yield f"{name} is in the midst of it, and a {self.network.name} has none"

    def notes(self) -> Iterator[str]:
        """What a user of the variables should know about where they come from, a line each."""
        if self.averaged is not None:
            names = [scoped(self.scope, name) for name in self.network.variables()]
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
    """The known network that variables come closest to.

    alike: how many of its variables are there, by name.
    different: what is different first.
    """

    network: Network
    scope: str
    alike: int
    different: str

    def __str__(self) -> str:
        return (
            f"nearest is {self.network.name} under scope {self.scope!r}, {self.alike} of whose "
            f"{len(self.network.variables())} variables are there by name; first difference: {self.different}"
        )


class UnknownNetworkError(InputError):
    """There is no network that slimport knows; `nearest` is what comes closest, where anything does."""

    def __init__(self, message: str, nearest: Resemblance | None) -> None:
        super().__init__(f"{message}; {nearest}" if nearest else message)
        self.nearest = nearest


def scopes(names: Mapping[str, object]) -> list[tuple[str, str]]:
    """The (family, scope) pairs under which a network's variables stand: the first family that claims a scope."""
    claimed: dict[str, str] = {}
    for name, family in FAMILIES.items():
        for scope in family.scopes(names):
            claimed.setdefault(scope, name)
    return [(name, scope) for scope, name in claimed.items()]


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
    chosen = found if scope is None else [network for network in found if network.scope == scope.strip("/")]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise InputError(
            f"{source}: {len(chosen)} networks, under the scopes {_scopes(chosen)}: choose one with --scope"
        )
    for family, at in scopes(shapes):
        if scope is None or at == scope.strip("/"):
            _recognized(shapes, family, at, source)
    where = "" if scope is None else f" under scope {scope!r}"
    there = f"; networks stand under {_scopes(found)}" if found else ""
    averages = {variable: shapes[name] for name in shapes if (variable := leftovers.averaged(name, shapes))}
    if not found and scopes(averages):
        there = "; its moving averages are those of one: take them with --ema"
    raise UnknownNetworkError(
        f"{source}: no network that slimport knows among its {len(shapes)} variables{where}: looked for "
        f"{looked_for()}{there}; 'slimport inspect' lists what the file holds",
        None if found else nearest(shapes),
    )


def check_whole(recognition: Recognition, source: str) -> None:
    """Checks that the network's variables are all there, and no other layers among them.

    Raises:
      InputError: names the first variable that is missing or misshapen, and counts the others.
    """
    if recognition.complete:
        return
    problems = list(recognition.problems())
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise InputError(
        f"{source}: not a whole {recognition.network.name} under scope {recognition.scope!r}: "
        f"{problems[0]}{more}; 'slimport inspect' lists what is there"
    )


def looked_for() -> str:
    """What the known families are recognised by."""
    return ", ".join(f"{family.signature} ({family.title})" for family in FAMILIES.values())


def networks(shapes: Mapping[str, Shape]) -> list[Recognition]:
    """Every network in these variables, by its scope. Of two families under one scope, the one with fewer problems."""
    best: dict[str, Recognition] = {}
    pairs = scopes(shapes)
    for family, scope in pairs:
        try:
            found = _recognized(shapes, family, scope, "", (other for _, other in pairs if other and other != scope))
        except InputError:
            continue
        if scope not in best or _count(found) < _count(best[scope]):
            best[scope] = found
    return [best[scope] for scope in sorted(best)]


def nearest(shapes: Mapping[str, Shape]) -> Resemblance | None:
    """The known network, and the scope, of which most variables are there by name; of equals, the smallest network."""
    scopes_of: dict[str, list[str]] = {}
    for name in shapes:
        parts = name.split("/", leftovers.DEEPEST)
        for start in range(len(parts)):
            scopes_of.setdefault("/".join(parts[start:]), []).append("/".join(parts[:start]))
    best: tuple[int, float, Network, str] | None = None
    for network in NETWORKS.values():
        counts: dict[str, int] = {}
        variables = network.variables()
        for name in variables:
            for scope in scopes_of.get(name, ()):
                counts[scope] = counts.get(scope, 0) + 1
        for scope, count in counts.items():
            share = count / len(variables)
            if best is None or (count, share) > best[:2]:
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
        network = FAMILIES[family].infer(inside)
        variables = network.variables()
    except ValueError as error:
        raise InputError(f"{source}: a {family} under scope {scope!r}, but {error}") from error
    expected = {scoped(scope, name): shape for name, shape in variables.items()}
    beside = [name for name in shapes if name not in expected]
    # Of another network that this one's scope is a part of, nothing can be told apart here.
    extras = leftovers.grouped(shapes, beside, [other for other in others if not prefix.startswith(f"{other}/")])
    # Under the first component of a variable's name (a block, a convolution) stands nothing but the network itself.
    parts = tuple({f"{scoped(scope, name.partition('/')[0])}/" for name in variables})
    unexpected = tuple(name for name in extras.get(leftovers.LAYERS, ()) if name.startswith(parts))
    extras = {group: tuple(name for name in names if name not in unexpected) for group, names in extras.items()}
    missing = [name for name in expected if name not in shapes]
    filled = {name: NEUTRAL[leaf] for name in missing if (leaf := _left_out(name, shapes))}
    different = {name: shapes[name] for name, shape in expected.items() if shapes.get(name, shape) != shape}
    reshaped = {name: shape for name, shape in different.items() if _same_kernel(shape, expected[name])}
    return Recognition(
        network=network,
        scope=scope,
        missing=tuple(name for name in missing if name not in filled),
        misshapen={name: expected[name] for name in different if name not in reshaped},
        filled=filled,
        reshaped=reshaped,
        extras={group: names for group, names in extras.items() if names},
        unexpected=unexpected,
    )


def _left_out(name: str, shapes: Mapping[str, Shape]) -> str | None:
    """The last part of a name that is missing because its layer was built without it, and not because it was lost.

    Then the rest of the layer is there. `slim.batch_norm` has no gamma with `scale=False`, which is its default, and no
    beta with `center=False`; a layer has no biases with `biases_initializer=None`.
    """
    layer, _, leaf = name.rpartition("/")
    rest = ("weights",) if leaf == "biases" else ("moving_mean", "moving_variance")
    return leaf if leaf in NEUTRAL and all(f"{layer}/{other}" in shapes for other in rest) else None


def _same_kernel(shape: Shape, expected: Shape) -> bool:
    """Whether one is a convolution's kernel and one a fully connected layer's weights of the same numbers in order."""
    return {len(shape), len(expected)} == {2, 4} and (math.prod(shape), shape[-1]) == (
        math.prod(expected),
        expected[-1],
    )


def _count(found: Recognition) -> int:
    return len(found.missing) + len(found.misshapen) + len(found.unexpected) + len(found.filled)


def _scopes(found: Iterable[Recognition]) -> str:
    return ", ".join(repr(network.scope) for network in found)
