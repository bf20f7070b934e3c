"""Which network a set of variables is, under which scope, with how many classes: from names and shapes alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from converters.errors import InputError
from slimport import spec


@dataclass(frozen=True)
class Recognition:
    """A network found in a set of variables.

    missing: variables that the network needs and the file lacks (full names).
    misshapen: variables whose shape is not the network's, with that of the network.
    extras: what is not the network's, in groups: an optimizer's slots and moving averages of the network's variables
    under
      the slot's name (`Momentum`, `Adam_1`, `ExponentialMovingAverage`), everything else under `other`.
    """

    network: spec.Network
    scope: str
    missing: tuple[str, ...]
    misshapen: dict[str, spec.Shape]
    extras: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every variable of the network is there in its shape."""
        return not self.missing and not self.misshapen


def scopes(names: Mapping[str, object]) -> list[tuple[str, str]]:
    """The (family, scope) pairs under which a network's variables stand."""
    return [(name, scope) for name, family in spec.FAMILIES.items() for scope in family.scopes(names)]


def recognize(shapes: Mapping[str, spec.Shape], source: str, scope: str | None = None) -> Recognition:
    """The one network in these variables.

    Args:
      shapes: shapes by variable name, kernels HWIO.
      source: what the variables come from, for messages.
      scope: which one to take where there are several.

    Raises:
      InputError: no network, several, or one whose shapes no network of its family has.
    """
    found = scopes(shapes)
    chosen = [pair for pair in found if scope is None or pair[1] == scope.strip("/")]
    if not chosen:
        known = ", ".join(f"{family.landmark} ({family.title})" for family in spec.FAMILIES.values())
        where = "" if scope is None else f" under scope {scope!r}"
        there = f"; networks stand under {_listed(pair[1] for pair in found)}" if found else ""
        raise InputError(
            f"{source}: no network that slimport knows among its {len(shapes)} variables{where}: looked for "
            f"{known}{there}; 'slimport inspect' lists what the file holds"
        )
    if len(chosen) > 1:
        raise InputError(
            f"{source}: {len(chosen)} networks, under the scopes {_listed(pair[1] for pair in chosen)}: "
            f"choose one with --scope"
        )
    family, scope = chosen[0]
    prefix = spec.scoped(scope, "")
    inside = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    try:
        network = spec.FAMILIES[family].infer(inside)
        expected = {spec.scoped(scope, name): shape for name, shape in network.variables().items()}
    except ValueError as error:
        raise InputError(f"{source}: a {family} under scope {scope!r}, but {error}") from error
    return Recognition(
        network=network,
        scope=scope,
        missing=tuple(name for name in expected if name not in shapes),
        misshapen={name: shape for name, shape in expected.items() if shapes.get(name, shape) != shape},
        extras=_extras(shapes, expected),
    )


def _extras(shapes: Mapping[str, spec.Shape], expected: Mapping[str, spec.Shape]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    for name in shapes:
        if name not in expected:
            variable, _, slot = name.rpartition("/")
            groups.setdefault(slot if variable in expected else "other", []).append(name)
    return {group: tuple(names) for group, names in sorted(groups.items())}


def _listed(scopes: Iterable[str]) -> str:
    return ", ".join(repr(scope) for scope in scopes)
