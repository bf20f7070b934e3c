"""What every port in PyTorch can do."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from slimport import spec

Record = Callable[[str, Tensor], None]

# Older versions cannot tell the two apart.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


class Network(nn.Module):
    """A port of a network; parameters have the slim variables' names.

    The arguments of the family's class are attributes of the same names.

    Args:
      network: the description.
      scope: the model's scope in the names of its end points; None for slim's.
    """

    def __init__(self, network: spec.Network, scope: str | None = None) -> None:
        super().__init__()
        self.network = network
        self.scope = network.default_scope if scope is None else scope

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or features where there are no classes.

        Args:
          images: [batch, in_channels, height, width], of the parameters' dtype.
        """
        return self._run(images, None)

    def end_points(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's output, and every end point that slim gives, by slim's name and in slim's order.

        Args:
          images: [batch, in_channels, height, width], of the parameters' dtype.
        """
        end_points: dict[str, Tensor] = {}
        return self._run(images, end_points.__setitem__), end_points

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
        found: dict[str, Tensor] = {}

        def keep(name: str, value: Tensor) -> None:
            if name in wanted:
                found[name] = value
                # The tracer of an exported program must leave every module that it entered. What nothing depends on,
                # the program's decompositions drop.
                if len(found) == len(wanted) and not _is_exporting():
                    raise _AllFoundError

        wanted = set(full_names.values())
        try:
            if wanted:
                self._run(images, keep)
        except _AllFoundError:
            pass
        return {name: found[full] for name, full in full_names.items()}

    def reset_classifier(self, num_classes: int | None) -> None:
        """Puts a new layer of the logits in, in eval mode or training mode as the model is; `network` follows.

        It starts as slim initializes it, in the dtype and on the device of the others, and can be trained. An optimizer
        that was made before does not know it.

        Args:
          num_classes: of the new layer; None or 0 takes the layer away, and the model gives features.
        """
        network = self.network.with_classes(num_classes)
        if self.network.num_classes:
            delattr(self, network.classifier)
        self.network = network
        if network.num_classes:
            like = next(self.parameters())
            self.add_module(network.classifier, self._classifier(network.num_classes).to(like).train(self.training))

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the family's class with which the model runs, those that are its defaults included."""
        return {name: getattr(self, name) for name in self.network.arguments}

    def __repr__(self) -> str:
        classes = f"{self.network.num_classes} classes" if self.network.num_classes else "no logits"
        changed = [f"{name}={value}" for name, value in self.arguments.items() if value != self.network.arguments[name]]
        like = next(self.parameters())
        heading = [self.network.name, classes, f"scope={self.scope!r}", *changed, str(like.dtype), str(like.device)]
        counts = {name: sum(p.numel() for p in child.parameters()) for name, child in self.named_children()}
        width = max(map(len, counts))
        lines = [f"  {name:<{width}}  {count:>12,}" for name, count in counts.items()]
        total = f"  {'parameters':<{width}}  {sum(counts.values()):>12,}"
        return "\n".join([f"{type(self).__name__}({', '.join(heading)}", *lines, total, ")"])

    @abstractmethod
    def _run(self, images: Tensor, keep: Record | None) -> Tensor:
        """The network's output; `keep`, where there is one, is given every end point by its full name.

        What `keep` raises ends the run.
        """

    @abstractmethod
    def _classifier(self, num_classes: int) -> nn.Module:
        """A new layer of the logits, `network.classifier`, as slim initializes it."""

    def _full_names(self, names: Collection[str]) -> Mapping[str, str]:
        """Slim's names of end points by the names that were asked for."""
        known = self.network.end_points(self.scope, **self.arguments)
        full_names = {}
        for name in names:
            scoped = spec.scoped(self.scope, name)
            if name not in known and scoped not in known:
                nearest = difflib.get_close_matches(scoped, known, cutoff=0.3) or known
                raise ValueError(f"no end point {name!r} in {self.network.name}; the nearest: {', '.join(nearest[:3])}")
            full_names[name] = name if name in known else scoped
        return full_names


class _AllFoundError(Exception):
    """Ends a run that has nothing left to find."""
