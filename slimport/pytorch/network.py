"""The PyTorch interpreter of a graph: a module for every scope and every layer, which run in the graph's order."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from slimport import networks
from slimport.graph import Graph, Node, scoped
from slimport.preprocessing import PREPROCESSINGS
from slimport.pytorch import training
from slimport.pytorch.layers import LAYERS

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
    """What the graph has under one scope: modules that run one after the other.

    Called with the tensors that come from outside, in the order in which they are first needed, it returns what is used
    outside: a tensor, or several. A module in it can be replaced by any other that takes and returns the same.
    """

    def __init__(self, takes: Sequence[int], gives: Sequence[int]) -> None:
        super().__init__()
        # Values are known by the numbers of their nodes: Dynamo has no keys that are objects.
        self._takes = tuple(takes)
        self._gives = tuple(gives)
        # For each child: its name, the values that it takes and gives, the values that are not needed after it, the end
        # points that it gives, and whether the network's output depends on it.
        self._steps: tuple[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[str, ...], bool], ...]
        self._steps = ()

    def forward(self, *inputs: Tensor, keep: Record | None = None) -> Any:
        return self._run(inputs, keep)

    def _run(self, inputs: Sequence[Tensor], keep: Record | None) -> Any:
        values = dict(zip(self._takes, inputs, strict=True))
        for name, takes, gives, frees, end_points, needed in self._steps:
            if not needed and keep is None:
                continue
            module = self._modules[name]
            taken = [values[index] for index in takes]
            for index in frees:
                values.pop(index, None)
            if keep is not None and isinstance(module, Part):
                net = module(*taken, keep=keep)
            else:
                net = module(*taken)  # type: ignore[misc]
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
        super().__init__((0,), (self.graph.output,))
        _Builder(self.graph, self.scope).fill(self, range(1, len(self.graph.nodes)), 0)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits, or features where there are no classes.

        Args:
          images: [batch, in_channels, height, width], of the parameters' dtype.
        """
        net: Tensor = self._run((images,), None)
        return net

    def end_points(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's output, and every end point that slim gives, by slim's name and in slim's order.

        Args:
          images: [batch, in_channels, height, width], of the parameters' dtype.
        """
        found: dict[str, Tensor] = {}
        net = self._run((images,), found.__setitem__)
        return net, {name: found[name] for name in self.graph.end_point_names(self.scope) if name in found}

    def features(self, images: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Some end points, by the names and in the order in which they are asked for.

        Nothing is computed after the last of them.

        Args:
          images: [batch, in_channels, height, width], of the parameters' dtype.
          names: of end points, as slim has them (`resnet_v2_50/block2`) or without the model's scope (`block2`).

        Raises:
          ValueError: the network has no such end point; the message has the nearest.
        """
        full_names = self._full_names(names)
        found = self._find(images, set(full_names.values()))
        return {name: found[full] for name, full in full_names.items()}

    def forward_features(self, images: Tensor) -> Tensor:
        """The last map, which the head of the network takes: [batch, channels, height, width]."""
        return self._find(images, {_FEATURES})[_FEATURES]

    def _find(self, images: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
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
                self._run((images,), keep)
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
        return PREPROCESSINGS[self.network.preprocessing].numbers(self.network.in_channels)

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
        names = [step[0] for step in self._steps]
        last = (self.graph.classifier or "").partition("/")[0]
        behind = names[names.index(last) + 1 :] if last else []
        for name, module in super().named_children():
            # PyTorch moves and sets by the children: what someone put there, with parameters, is one.
            if name not in behind or any(True for _ in module.parameters()):
                yield name, module

    def __repr__(self) -> str:
        classes = f"{self.network.num_classes} classes" if self.network.num_classes else "no logits"
        changed = [f"{name}={value}" for name, value in self.arguments.items() if value != self.network.arguments[name]]
        like = next(self.parameters())
        heading = [self.network.name, classes, f"scope={self.scope!r}", *changed, str(like.dtype), str(like.device)]
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


def _places(graph: Graph) -> list[tuple[str, ...]]:
    """The path of each node's module.

    A layer is at its scope. What has no scope of its own is in the part that is open, by the name of its op. What is
    under a layer's scope follows that layer, in the layer's own module.
    """
    parts = set(graph.parts)
    layers = {node.scope for node in graph.nodes[1:]} - parts
    places = []
    for node in graph.nodes:
        path = node.scope.split("/")
        if node.scope in parts:
            path.append(node.op)
        owner = next((end for end in range(1, len(path)) if "/".join(path[:end]) in layers), len(path))
        places.append(tuple(path[:owner]))
    return places


def _by_path(graph: Graph) -> dict[str, list[Any]]:
    """What each module computes, by its path: everything about its nodes but their numbers."""
    found: dict[str, list[Any]] = {}
    for node, place in zip(graph.nodes[1:], _places(graph)[1:], strict=True):
        what = node.op, node.scope, node.channels, node.attributes, [graph.nodes[i].channels for i in node.inputs]
        for end in range(1, len(place) + 1):
            found.setdefault(".".join(place[:end]), []).append(what)
    return found


class _Builder:
    """Makes the modules of a graph."""

    def __init__(self, graph: Graph, scope: str) -> None:
        self.graph = graph
        self.places = _places(graph)
        self.modules = {place[:end] for place in self.places for end in range(1, len(place) + 1)}
        self.points: list[tuple[str, tuple[str, ...], int]] = [
            (name, tuple(point.name.split("/")), point.node) for name, point in graph.end_point_names(scope).items()
        ]
        if graph.features is not None:
            self.points.append((_FEATURES, (), graph.features))
        self.users: dict[int, list[int]] = {}
        for index, node in enumerate(graph.nodes):
            for taken in node.inputs:
                self.users.setdefault(taken, []).append(index)

    def fill(self, part: Part, indices: Sequence[int], depth: int) -> None:
        """Makes the children of a part, whose nodes have these numbers and whose path has `depth` components."""
        groups: dict[str, list[int]] = {}
        for index in indices:
            groups.setdefault(self.places[index][depth], []).append(index)
        inside = {name: self._takes(members) for name, members in groups.items()}
        last_use = {index: name for name, takes in inside.items() for index in takes}
        ready = set(part._takes)
        steps = []
        for name, members in groups.items():
            if not ready.issuperset(inside[name]):
                # A scope that is left and entered again, with layers of others between.
                raise ValueError(f"the layers under {'/'.join(self.places[members[0]][: depth + 1])} are not one part")
            gives = self._gives(members)
            ready.update(gives)
            frees = tuple(i for i in inside[name] if last_use[i] == name and i not in part._gives)
            needed = not self.graph.needed.isdisjoint(gives)
            end_points = self._end_points(self.places[members[0]][: depth + 1], gives)
            steps.append((name, inside[name], gives, frees, end_points, needed))
            part.add_module(name, self._module(members, depth, inside[name], gives))
        part._steps = tuple(steps)

    def _module(self, members: list[int], depth: int, takes: Sequence[int], gives: Sequence[int]) -> nn.Module:
        if len(self.places[members[0]]) > depth + 1:
            part = Part(takes, gives)
            self.fill(part, members, depth + 1)
            return part
        layer = self._layer(self.graph.nodes[members[0]])
        for before, index in pairwise(members):
            node = self.graph.nodes[index]
            if node.inputs != (before,) or self.users[before] != [index]:
                raise ValueError(f"{node.scope} does not follow {self.graph.nodes[before].scope} alone")
            layer.add_module(node.scope.rpartition("/")[2], self._layer(node))
        return layer

    def _layer(self, node: Node) -> nn.Module:
        return LAYERS[node.op](node, *(self.graph.nodes[index].channels for index in node.inputs))

    def _takes(self, members: Collection[int]) -> tuple[int, ...]:
        """The nodes outside whose values these take, in the order of their first use."""
        taken = (index for member in members for index in self.graph.nodes[member].inputs if index not in members)
        return tuple(dict.fromkeys(taken))

    def _gives(self, members: Sequence[int]) -> tuple[int, ...]:
        """Those whose values are used outside, or the last where none is."""
        among = set(members)
        outside = (i for i in members if i == self.graph.output or not among.issuperset(self.users.get(i, ())))
        return tuple(outside) or (members[-1],)

    def _end_points(self, path: tuple[str, ...], gives: Sequence[int]) -> tuple[str, ...]:
        """The end points that a module gives: that of its scope, and, from the outermost, those without a module."""
        if len(gives) > 1:
            return ()
        found = []
        for name, scope, node in self.points:
            if node == gives[0] and (scope == path or (scope not in self.modules and path == self._outermost(node))):
                found.append(name)
        return tuple(found)

    def _outermost(self, index: int) -> tuple[str, ...]:
        """The path of the outermost module whose only output is a node's value."""
        place = self.places[index]
        for end in range(1, len(place)):
            members = [i for i, other in enumerate(self.places) if i and other[:end] == place[:end]]
            if self._gives(members) == (index,):
                return place[:end]
        return place
