"""The PyTorch interpreter of a graph: a module for every scope and every layer, which run in the graph's order."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from slimport import networks
from slimport.graph import Graph, scoped
from slimport.preprocessing import PREPROCESSINGS
from slimport.pytorch import training
from slimport.pytorch.layers import LAYERS, Layer
from slimport.pytorch.operations import OPERATIONS, Shared

Path = tuple[str, ...]
"""Of a module, from a part or from the network."""
Step = tuple[Path, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[str, ...], bool]
"""A module's path, the values that it takes and gives, the values that are not needed after it, the end points that it
gives, and whether the network's output depends on it."""
Record = Callable[[str, Tensor], None]
_FEATURES = "/features"
"""What `forward_features` gives is recorded like an end point; no end point's name begins so."""


class FeatureInfo(NamedTuple):
    """An end point that a network offers.

    stride: the sides of the images over those of its map, which a number describes where both are alike; None where
      there is no map any more.
    """

    end_point: str
    channels: int
    stride: int | tuple[int, int] | None


class Part(nn.Module):
    """The modules of the graph under one scope, which run one after the other.

    Called with the tensors that come from outside, in the order in which they are first needed, it returns what is used
    outside: a tensor, or several. A module in it can be replaced by any other that takes and returns the same. Where
    other layers of the network run in the midst of what is under the scope, its modules can be called, but not it.
    """

    def __init__(self, takes: Sequence[int], gives: Sequence[int]) -> None:
        super().__init__()
        # Values are known by the numbers of their nodes: Dynamo has no keys that are objects.
        self._takes = tuple(takes)
        self._gives = tuple(gives)
        self._steps: tuple[Step, ...] = ()

    def forward(self, *inputs: Tensor, keep: Record | None = None) -> Any:
        if not self._steps:
            raise TypeError(
                f"other layers run in the midst of these, so call them one by one: {', '.join(self._modules)}"
            )
        return self._run(inputs, keep)

    def _run(self, inputs: Sequence[Tensor], keep: Record | None) -> Any:
        values = dict(zip(self._takes, inputs, strict=True))
        for path, takes, gives, frees, end_points, needed in self._steps:
            if not needed and keep is None:
                continue
            module: nn.Module = self
            for name in path:
                module = module._modules[name]  # type: ignore[assignment]
            taken = [values[index] for index in takes]
            for index in frees:
                values.pop(index, None)
            if keep is not None and isinstance(module, Part):
                net = module(*taken, keep=keep)
            else:
                net = module(*taken)
            if len(gives) == 1:
                values[gives[0]] = net
            else:
                values.update(zip(gives, net, strict=True))
            if keep is not None:
                for end_point in end_points:
                    keep(end_point, net)
        return values[self._gives[0]] if len(self._gives) == 1 else tuple(values[index] for index in self._gives)

    def _adopt(self, other: Part, unchanged: Callable[[str], bool], path: str = "") -> None:
        """Becomes another part, with its own modules where these are `unchanged` by their path."""
        modules: dict[str, nn.Module | None] = {}
        for name, module in other._modules.items():
            where = f"{path}{name}"
            mine = self._modules.get(name)
            if mine is not None and unchanged(where):
                modules[name] = mine
            elif isinstance(mine, Part) and isinstance(module, Part):
                mine._adopt(module, unchanged, f"{where}.")
                modules[name] = mine
            else:
                modules[name] = module
        self._modules = modules
        self._takes, self._gives, self._steps = other._takes, other._gives, other._steps


class Network(Part):
    """A network, from images [batch, channels, height, width] to its output; parameters have the slim variables' names.

    Every scope of slim's is a module of its own (`model.block2.unit_1.bottleneck_v2.conv1`), which can be called,
    hooked and replaced; where it is an end point, its output is the end point.

    Args:
      network: the description.
      scope: the model's scope in the names of its end points; None for slim's.
      arguments: of the network's definition; `network.arguments` lists them.

    Raises:
      ValueError: the network cannot be built with the arguments.
    """

    def __init__(self, network: networks.Network, scope: str | None = None, **arguments: Any) -> None:
        self.network = network
        self.scope = network.default_scope if scope is None else scope
        self.arguments = network.with_defaults(arguments)
        """The arguments of the definition, those that are its defaults included."""
        self.graph = network.graph(**arguments)
        super().__init__(self.graph.inputs, self.graph.output_nodes)
        _Builder(self.graph, self.scope).build(self)

    def forward(self, images: Tensor, *more: Tensor) -> Any:  # type: ignore[override]
        """Logits, or features where there are no classes; of a network with several outputs, a dict by their names.

        Args:
          images: [batch, in_channels, height, width], of the parameters' dtype; what has not 4 axes has those of the
            graph.
          more: the other inputs, in the graph's order, where it has several.

        Raises:
          ValueError: the images have other axes; the message says what gives them these.
        """
        self._check(images)
        return self._named(self._run((images, *more), None))

    def end_points(self, images: Tensor, *more: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """The network's output, and every end point that slim gives, by slim's name and in slim's order.

        Args:
          images: [batch, in_channels, height, width], of the parameters' dtype.
          more: the other inputs, where there are several.
        """
        self._check(images)
        found: dict[str, Tensor] = {}
        net = self._named(self._run((images, *more), found.__setitem__))
        return net, {name: found[name] for name in self.graph.end_point_names(self.scope) if name in found}

    def _named(self, values: Any) -> Any:
        """The outputs by their names, where there are several."""
        if len(self.graph.outputs) < 2:
            return values
        by_node = dict(zip(self._gives, values if len(self._gives) > 1 else (values,), strict=True))
        return {name: by_node[node] for name, node in self.graph.outputs}

    def _check(self, images: Any) -> None:
        """Raises ValueError unless images have the network's axes, which a convolution would say in other words."""
        first = self.graph.nodes[0]
        if torch.compiler.is_compiling() or not isinstance(images, Tensor):
            return
        # Not where they are traced, and sizes are no numbers.
        if not all(isinstance(side, int) for side in images.shape):
            return
        shape, channels = tuple(images.shape), first.channels
        if first.op != "input" or first.stride is None or (len(shape) == 4 and channels in (0, shape[1])):
            return
        hint = ""
        if len(shape) == 3 and shape[0] == channels:
            hint = "; images[None] is a batch of one"
        elif len(shape) == 3 and shape[-1] == channels:
            hint = "; images.permute(2, 0, 1)[None] is a batch of one"
        elif len(shape) == 4 and shape[-1] == channels:
            hint = "; images.permute(0, 3, 1, 2) has that order"
        raise ValueError(
            f"images of shape {list(shape)}: {self.network.name} takes [batch, {channels}, height, width]{hint}"
        )

    def features(self, images: Tensor | Sequence[Tensor], names: str | Collection[str]) -> dict[str, Tensor]:
        """Some end points, by the names and in the order in which they are asked for.

        Nothing is computed after the last of them.

        Args:
          images: [batch, in_channels, height, width], of the parameters' dtype; several where there are several inputs.
          names: of end points, as slim has them (`resnet_v2_50/block2`) or without the model's scope (`block2`); a
            string is one name.

        Raises:
          ValueError: the network has no such end point; the message has the nearest.
        """
        names = [names] if isinstance(names, str) else names
        full_names = self._full_names(names)
        found = self._find(images, set(full_names.values()))
        return {name: found[full] for name, full in full_names.items()}

    def forward_features(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """The last map, which the head of the network takes: [batch, channels, height, width]."""
        return self._find(images, {_FEATURES})[_FEATURES]

    def _find(self, images: Tensor | Sequence[Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
        self._check(images)
        found: dict[str, Tensor] = {}

        def keep(name: str, value: Tensor) -> None:
            if name in wanted:
                found[name] = value
                # The tracer of an exported program must leave every module that it entered. What nothing depends on,
                # the program's decompositions drop.
                if len(found) == len(wanted) and not torch.compiler.is_exporting():
                    raise _AllFoundError

        try:
            if wanted:
                self._run((images,) if isinstance(images, Tensor) else images, keep)
        except _AllFoundError:
            pass
        return found

    @property
    def feature_info(self) -> list[FeatureInfo]:
        """The end points, by slim's names, with their channels and strides."""
        info = []
        for name, point in self.graph.end_point_names(self.scope).items():
            node = self.graph.nodes[point.node]
            alike = node.stride is not None and node.stride[0] == node.stride[1]
            info.append(FeatureInfo(name, node.channels, node.stride[0] if alike and node.stride else node.stride))
        return info

    @property
    def num_features(self) -> int:
        """The channels that the layer of the logits takes, or that the network gives without one."""
        graph = self.graph
        return graph.depth_in(graph.classifier) if graph.classifier else graph.nodes[graph.output].channels

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What images are before they enter the network, by timm's names; `pretrained_cfg` is the same."""
        return PREPROCESSINGS[self.network.preprocessing].numbers(
            self.network.in_channels, self.network.evaluation_size
        )

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """Where `timm.data.resolve_data_config(model=model)` looks."""
        return self.preprocessing

    def reset_classifier(self, num_classes: int | None) -> None:
        """Puts a new layer of the logits in, in eval mode or training mode as the model is; `network` follows.

        It starts as slim initializes it, in the dtype and on the device of the others, and can be trained. An optimizer
        that was made before does not know it. So do other layers that depend on the number of classes (`AuxLogits`).

        Args:
          num_classes: of the new layer; None or 0 takes the layer away, and the model gives features.

        Raises:
          ValueError: not a number of classes; the model is as it was.
        """
        network = self.network.with_classes(num_classes)
        with torch.device("meta"):
            new = Network(network, self.scope, **self.arguments)
        before, after = _by_path(self.graph), _by_path(new.graph)
        like = next(self.parameters())
        self._adopt(new, lambda path: before.get(path) == after[path])
        self.network, self.graph = network, new.graph
        for module in self.modules():
            if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
                module.to_empty(device=like.device).to(like.dtype).train(self.training)
                training.initialize(module)

    def named_children(self) -> Any:
        """The children that make the logits, the layer of the logits last, as in torchvision's and timm's networks.

        What comes behind that layer (`spatial_squeeze`, `predictions`) is among the modules, but is no child.
        """
        names = [step[0][0] for step in self._steps]
        last = (self.graph.classifier or "").partition("/")[0]
        behind = names[names.index(last) + 1 :] if last else []
        for name, module in super().named_children():
            # PyTorch moves and sets by the children: what someone put there, with parameters, is one.
            if name not in behind or any(True for _ in module.parameters()):
                yield name, module

    def __repr__(self) -> str:
        classes = f"{self.network.num_classes} classes" if self.network.num_classes else "no logits"
        changed = [f"{name}={value}" for name, value in self.arguments.items() if value != self.network.arguments[name]]
        like = [f"{like.dtype}, {like.device}" for _, like in zip(range(1), self.parameters(), strict=False)]
        heading = [self.network.name, classes, f"scope={self.scope!r}", *changed, *like]
        counts = {name: sum(p.numel() for p in child.parameters()) for name, child in self.named_children()}
        counts = {name: count for name, count in counts.items() if count}
        width = max(map(len, [*counts, "parameters"]))
        lines = [f"  {name:<{width}}  {count:>12,}" for name, count in counts.items()]
        total = f"  {'parameters':<{width}}  {sum(counts.values()):>12,}"
        return "\n".join([f"{type(self).__name__}({', '.join(heading)}", *lines, total, ")"])

    def _full_names(self, names: Collection[str]) -> Mapping[str, str]:
        """Slim's names of end points by the names that were asked for."""
        known = self.graph.end_point_names(self.scope)
        full_names = {}
        for name in names:
            full = scoped(self.scope, name)
            if name not in known and full not in known:
                nearest = difflib.get_close_matches(full, known, cutoff=0.3) or list(known)
                raise ValueError(f"no end point {name!r} in {self.network.name}; the nearest: {', '.join(nearest[:3])}")
            full_names[name] = name if name in known else full
        return full_names


class _AllFoundError(Exception):
    """Ends a run that has nothing left to find."""


def _users(graph: Graph) -> dict[int, list[int]]:
    """The nodes that take each node's value."""
    users: dict[int, list[int]] = {}
    for index, node in enumerate(graph.nodes):
        for taken in node.inputs:
            users.setdefault(taken, []).append(index)
    return users


def _places(graph: Graph) -> list[Path]:
    """The path of each node's module.

    A layer is at its scope. A node without a scope of its own is in the part that is open, by the name of its op. A
    node under a layer's scope that follows that layer alone is in the layer's own module.
    """
    parts = set(graph.parts)
    places = [
        (*node.scope.split("/"), node.op) if node.scope in parts else tuple(node.scope.split("/"))
        for node in graph.nodes
    ]
    layers = {place: index for index, place in enumerate(places) if index not in graph.inputs}
    under: dict[Path, list[int]] = {}
    for index, place in enumerate(places):
        owner = next((place[:end] for end in range(1, len(place)) if place[:end] in layers), None)
        if owner is not None:
            under.setdefault(owner, []).append(index)
    users = _users(graph)
    for owner, followers in under.items():
        if _is_chain(graph, users, [layers[owner], *followers]):
            for index in followers:
                places[index] = owner
    return places


def _is_chain(graph: Graph, users: Mapping[int, Sequence[int]], members: Sequence[int]) -> bool:
    """Whether each layer takes the value of the one before, which no other takes."""
    first = graph.nodes[members[0]]
    return "shares" not in first.attributes and all(
        graph.nodes[index].inputs == (before,)
        and list(users[before]) == [index]
        and before not in graph.output_nodes
        and graph.nodes[index].scope.rpartition("/")[0] == first.scope
        and "shares" not in graph.nodes[index].attributes
        for before, index in pairwise(members)
    )


def _by_path(graph: Graph) -> dict[str, list[Any]]:
    """What each module computes, by its path: everything about its nodes but their numbers."""
    found: dict[str, list[Any]] = {}
    for node, place in zip(graph.nodes[1:], _places(graph)[1:], strict=True):
        what = node.op, node.scope, node.channels, node.attributes, [graph.nodes[i].channels for i in node.inputs]
        for end in range(1, len(place) + 1):
            found.setdefault(".".join(place[:end]), []).append(what)
    return found


def _as_put(paths: Collection[Path]) -> list[Path]:
    """The paths in their order, but each behind that which is above it."""
    above = {path: next(path[:end] for end in range(1, len(path) + 1) if path[:end] in paths) for path in paths}
    first = {top: number for number, top in reversed(list(enumerate(above[path] for path in paths)))}
    return sorted(paths, key=lambda path: (first[above[path]], len(path)))


class _Builder:
    """Makes the modules of a graph."""

    def __init__(self, graph: Graph, scope: str) -> None:
        self.graph = graph
        self.places = _places(graph)
        self.users = _users(graph)
        # The nodes of every path: those of a layer, or all that are in a part.
        self.members: dict[Path, list[int]] = {}
        exact = {self.places[index] for index in self._layers()}
        for index in self._layers():
            place = self.places[index]
            for end in range(1, len(place) + 1):
                if end == len(place) or place[:end] not in exact:
                    self.members.setdefault(place[:end], []).append(index)
        self.points: dict[int, list[tuple[str, Path]]] = {}
        for name, point in graph.end_point_names(scope).items():
            self.points.setdefault(point.node, []).append((name, tuple(point.name.split("/"))))
        if graph.features is not None:
            self.points.setdefault(graph.features, []).append((_FEATURES, ()))
        self.scattered: set[Path] = set()
        self.modules: dict[int, nn.Module] = {}

    def build(self, network: Network) -> None:
        """Makes all modules of a network."""
        self.fill(network, list(self._layers()), 0)
        owners = {node.scope: index for index, node in enumerate(self.graph.nodes)}
        for index, module in self.modules.items():
            if isinstance(module, Shared):
                owner = owners[self.graph.nodes[index].attributes["shares"]]
                chained = len(self.members[self.places[owner]]) > 1
                alike = self.graph.nodes[index].settings == self.graph.nodes[owner].settings
                module.share(self.modules[owner], alike and not chained)

    def fill(self, part: Part, indices: Sequence[int], depth: int) -> None:
        """Makes the modules of a part, whose nodes have these numbers and whose path has `depth` components."""
        groups = self._scheduled(self._grouped(indices, depth), set(part._takes))
        self.scattered.update(path[:end] for path in groups for end in range(depth + 1, len(path)))
        inside = {path: self._takes(members) for path, members in groups.items()}
        last_use = {index: path for path, takes in inside.items() for index in takes}
        steps = []
        for path, members in groups.items():
            gives = self._gives(members)
            frees = tuple(i for i in inside[path] if last_use[i] == path and i not in part._gives)
            needed = not self.graph.needed.isdisjoint(gives)
            # A layer may take one value twice.
            takes = self.graph.nodes[members[0]].inputs if self.places[members[0]] == path else inside[path]
            steps.append((path[depth:], takes, gives, frees, self._end_points(path, gives), needed))
        part._steps = tuple(steps)
        for path in _as_put(groups):
            self._put(part, path[depth:], self._module(path, groups[path], inside[path]))

    def _layers(self) -> Iterator[int]:
        return (index for index, node in enumerate(self.graph.nodes) if node.op != "input")

    def _grouped(self, indices: Sequence[int], depth: int) -> dict[Path, list[int]]:
        """The nodes by the paths of the modules that they make, which have `depth + 1` components.

        Where a layer is at such a path, and others under it do not just follow it, these have paths of their own.
        """
        groups: dict[Path, list[int]] = {}
        for index in indices:
            groups.setdefault(self.places[index][: depth + 1], []).append(index)
        found: dict[Path, list[int]] = {}
        for path, members in groups.items():
            own = [index for index in members if self.places[index] == path]
            if own and len(own) < len(members):
                found[path] = own
                found |= self._grouped([index for index in members if index not in own], depth + 1)
            else:
                found[path] = members
        return found

    def _scheduled(self, groups: Mapping[Path, list[int]], ready: set[int]) -> dict[Path, list[int]]:
        """The groups in an order in which they can run; one that others must run in the midst of is taken apart."""
        pending, order = dict(groups), {}
        while pending:
            path = next((p for p, members in pending.items() if ready.issuperset(self._takes(members))), None)
            if path is None:
                path = self._in_a_cycle(pending)
                pending |= self._grouped(pending.pop(path), len(path))
                pending = dict(sorted(pending.items(), key=lambda item: item[1][0]))
                continue
            order[path] = pending.pop(path)
            ready.update(order[path])
        return order

    def _in_a_cycle(self, groups: Mapping[Path, list[int]]) -> Path:
        """The first group that can be taken apart, of those that need each other."""
        of_node = {index: path for path, members in groups.items() for index in members}
        needs = {path: {of_node[i] for i in self._takes(m) if i in of_node} for path, m in groups.items()}
        left = set(groups)
        while True:
            used = set().union(*(needs[path] for path in left))
            ends = {path for path in left if path not in used or not needs[path] & left}
            if not ends:
                return next(p for p in groups if p in left and any(self.places[i] != p for i in groups[p]))
            left -= ends

    def _put(self, part: nn.Module, path: Path, module: nn.Module) -> None:
        for name in path[:-1]:
            if name not in part._modules:
                self._add(part, name, Part((), ()))
            part = part.get_submodule(name)
        self._add(part, path[-1], module)

    def _add(self, part: nn.Module, name: str, module: nn.Module) -> None:
        if isinstance(part, Layer):
            part.hosted |= {name}
        part.add_module(name, module)

    def _module(self, path: Path, members: list[int], takes: Sequence[int]) -> nn.Module:
        if self.places[members[0]] != path:
            part = Part(takes, self._gives(members))
            self.fill(part, members, len(path))
            return part
        layer = self._layer(members[0])
        for index in members[1:]:
            layer.add_module(self.graph.nodes[index].scope.rpartition("/")[2], self._layer(index))
        return layer

    def _layer(self, index: int) -> nn.Module:
        node = self.graph.nodes[index]
        make = LAYERS.get(node.op) or OPERATIONS.get(node.op)
        if make is None:
            raise ValueError(f"{node.scope}: PyTorch has no layer for {node.op}")
        layer = make(node, *(self.graph.nodes[taken].channels for taken in node.inputs))
        self.modules[index] = Shared(layer) if "shares" in node.attributes else layer
        return self.modules[index]

    def _takes(self, members: Sequence[int]) -> tuple[int, ...]:
        """The nodes outside whose values these take, in the order of their first use."""
        among = set(members)
        taken = (index for member in members for index in self.graph.nodes[member].inputs if index not in among)
        return tuple(dict.fromkeys(taken))

    def _gives(self, members: Sequence[int]) -> tuple[int, ...]:
        """Those whose values are used outside, or the last where none is."""
        among = set(members)
        outputs = self.graph.output_nodes
        outside = (i for i in members if i in outputs or not among.issuperset(self.users.get(i, ())))
        return tuple(outside) or (members[-1],)

    def _end_points(self, path: Path, gives: Sequence[int]) -> tuple[str, ...]:
        """The end points that a module gives: that of its scope, and, from the outermost, those without a module."""
        if len(gives) > 1:
            return ()
        return tuple(name for name, scope in self.points.get(gives[0], ()) if path == self._giving(scope, gives[0]))

    def _giving(self, scope: Path, index: int) -> Path:
        """The path of the module that gives an end point: that of its scope, or else the outermost."""
        place = self.places[index]
        outermost = (place[:end] for end in range(1, len(place)))
        return next((path for path in (scope, *outermost) if self._gives_alone(path, index)), place)

    def _gives_alone(self, path: Path, index: int) -> bool:
        """Whether there is a module at a path whose only value is a node's."""
        return path in self.members and path not in self.scattered and self._gives(self.members[path]) == (index,)
