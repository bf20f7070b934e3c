"""What every port in PyTorch can do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from slimport import spec

Record = Callable[[str, Tensor], None]


class Network(nn.Module):
    """A port of a network; parameters have the slim variables' names.

    Args:
      network: the description.
      scope: the model's scope in the names of its end points; None for the network's name.
    """

    def __init__(self, network: spec.Network, scope: str | None = None) -> None:
        super().__init__()
        self.network = network
        self.scope = network.name if scope is None else scope

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

    @abstractmethod
    def _run(self, images: Tensor, keep: Record | None) -> Tensor:
        """The network's output; `keep`, where there is one, is given every end point by its full name."""
