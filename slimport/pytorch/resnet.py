"""What the ResNets share in PyTorch: from images to logits, around a stack of blocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from slimport import spec
from slimport.pytorch import layers, training
from slimport.pytorch.network import Network, Record


class Block(nn.Module):
    """The units of one block, as `unit_<n>.<unit scope>`."""

    def __init__(self, units: Sequence[spec.PlacedUnit], unit_fn: Callable[[spec.PlacedUnit], nn.Module]) -> None:
        super().__init__()
        for unit in units:
            _, number, unit_scope = unit.scope.split("/")
            self.add_module(number, nn.ModuleDict({unit_scope: unit_fn(unit)}))

    def forward(self, inputs: Tensor, record: Record | None = None) -> Tensor:
        net = inputs
        for unit in self.children():
            for bottleneck in unit.children():
                net = bottleneck(net, record)
        return net


class ResNet(Network):
    """A ResNet from its description.

    Args:
      network: the description.
      global_pool: whether the features are averaged over height and width before the logits.
      output_stride: ratio of input to output resolution; None for the nominal one.
      spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map, or [batch, num_classes, h, w].
      scope: the model's scope in the names of its end points; None for the network's name.

    Raises:
      ValueError: the output stride cannot be reached.
    """

    network: spec.ResNet

    def __init__(
        self,
        network: spec.ResNet,
        *,
        global_pool: bool = True,
        output_stride: int | None = None,
        spatial_squeeze: bool = True,
        scope: str | None = None,
    ) -> None:
        super().__init__(network, scope)
        self.global_pool = global_pool
        self.output_stride = output_stride
        self.spatial_squeeze = spatial_squeeze
        units = network.units(output_stride)
        for root in network.root:
            # Before a preactivation, neither BatchNorm nor ReLU: the first unit does both (appendix of
            # arXiv:1603.05027).
            normalized = not network.preactivation
            self.add_module(
                root.scope,
                layers.Conv2d(root.depth_in, root.depth, root.kernel_size, root.stride, normalized=normalized),
            )
        for block in network.blocks:
            inside = [unit for unit in units if unit.scope.startswith(f"{block.scope}/")]
            self.add_module(block.scope, Block(inside, self.unit))
        self.postnorm = layers.BatchNorm(network.depth_out) if network.preactivation else None
        if network.num_classes:
            self.add_module(network.classifier, self._classifier(network.num_classes))

    def _classifier(self, num_classes: int) -> nn.Module:
        logits = layers.Conv2d(self.network.depth_out, num_classes, 1)
        training.initialize(logits)
        return logits

    @abstractmethod
    def unit(self, unit: spec.PlacedUnit) -> nn.Module:
        """The family's residual unit; its forward takes a tensor and a `Record` or None."""

    def _run(self, images: Tensor, keep: Record | None) -> Tensor:
        def record(name: str, value: Tensor) -> None:
            if keep:
                keep(spec.scoped(self.scope, name), value)

        net = images
        for root in self.network.root:
            net = self.get_submodule(root.scope)(net)
            record(root.scope, net)
        if self.network.include_root_block:
            net = layers.pool1(net)
        for block in self.network.blocks:
            net = self.get_submodule(block.scope)(net, record if keep else None)
            record(block.scope, net)
        if self.postnorm is not None:
            net = F.relu(self.postnorm(net))
        # `global_pool` and `predictions` carry no scope in slim.
        if self.global_pool:
            net = layers.global_pool(net)
            if keep:
                keep("global_pool", net)
        if self.network.num_classes:
            net = self.get_submodule(self.network.classifier)(net)
            record(self.network.classifier, net)
            if self.spatial_squeeze:
                net = layers.spatial_squeeze(net)
                record("spatial_squeeze", net)
            if keep:
                keep("predictions", F.softmax(net, dim=1))
        return net
