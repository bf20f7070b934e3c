"""ResNet v2 (full preactivation) in PyTorch. Images and activations are NCHW.

Equal to `slimport.nets.resnet_v2`, end point by end point. arXiv:1603.05027.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from slimport import spec
from slimport.pytorch import layers
from slimport.pytorch.residual_units import FullPreactivation, Record


class Block(nn.Module):
    """The units of one block, as `unit_<n>.bottleneck_v2`."""

    def __init__(self, units: Sequence[spec.PlacedUnit]) -> None:
        super().__init__()
        for unit in units:
            _, number, unit_scope = unit.scope.split("/")
            self.add_module(number, nn.ModuleDict({unit_scope: FullPreactivation(unit)}))

    def forward(self, inputs: Tensor, record: Record | None = None) -> Tensor:
        net = inputs
        for unit in self.children():
            for bottleneck in unit.children():
                net = bottleneck(net, record)
        return net


class ResNetV2(nn.Module):
    """A ResNet v2 from its description.

    Args:
      network: the description, a `slimport.spec.ResNetV2`.
      global_pool: whether the features are averaged over height and width before the logits.
      output_stride: ratio of input to output resolution; None for the nominal one.
      spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map, or [batch, num_classes, h, w].
      scope: the model's scope in the names of its end points; None for the network's name.

    Raises:
      ValueError: the output stride cannot be reached.
    """

    def __init__(
        self,
        network: spec.ResNetV2,
        *,
        global_pool: bool = True,
        output_stride: int | None = None,
        spatial_squeeze: bool = True,
        scope: str | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.global_pool = global_pool
        self.output_stride = output_stride
        self.spatial_squeeze = spatial_squeeze
        self.scope = network.name if scope is None else scope
        units = network.units(output_stride)
        if network.include_root_block:
            # Neither BatchNorm nor ReLU: the first unit's preactivation does both (appendix of arXiv:1603.05027).
            self.conv1 = layers.Conv2d(network.in_channels, network.root_depth, 7, stride=2)
        for block in network.blocks:
            self.add_module(block.scope, Block([u for u in units if u.scope.startswith(f"{block.scope}/")]))
        self.postnorm = layers.BatchNorm(network.depth_out)
        if network.num_classes:
            self.logits = layers.Conv2d(network.depth_out, network.num_classes, 1)

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

    def _run(self, images: Tensor, keep: Record | None) -> Tensor:
        def record(name: str, value: Tensor) -> None:
            if keep:
                keep(spec.scoped(self.scope, name), value)

        net = images
        if self.network.include_root_block:
            net = self.conv1(net)
            record("conv1", net)
            net = layers.pool1(net)
        for block in self.network.blocks:
            net = self.get_submodule(block.scope)(net, record if keep else None)
            record(block.scope, net)
        net = F.relu(self.postnorm(net))
        # `global_pool` and `predictions` carry no scope in slim.
        if self.global_pool:
            net = layers.global_pool(net)
            if keep:
                keep("global_pool", net)
        if self.network.num_classes:
            net = self.logits(net)
            record("logits", net)
            if self.spatial_squeeze:
                net = layers.spatial_squeeze(net)
                record("spatial_squeeze", net)
            if keep:
                keep("predictions", F.softmax(net, dim=1))
        return net


def resnet_v2(
    blocks: Sequence[spec.Block],
    num_classes: int | None = None,
    global_pool: bool = True,
    output_stride: int | None = None,
    include_root_block: bool = True,
    spatial_squeeze: bool = True,
    *,
    in_channels: int = 3,
    scope: str | None = None,
) -> ResNetV2:
    """A ResNet v2 of any blocks (`slimport.spec.resnet_v2_block` makes them). See `ResNetV2` for the arguments."""
    network = spec.ResNetV2(tuple(blocks), num_classes, in_channels, include_root_block)
    return ResNetV2(
        network,
        global_pool=global_pool,
        output_stride=output_stride,
        spatial_squeeze=spatial_squeeze,
        scope=scope,
    )


build = ResNetV2


class NetworkFn(Protocol):
    """Makes a network of fixed depth, with slim's default of ImageNet's 1001 classes."""

    def __call__(
        self,
        num_classes: int | None = 1001,
        global_pool: bool = True,
        output_stride: int | None = None,
        spatial_squeeze: bool = True,
        *,
        in_channels: int = 3,
        scope: str | None = None,
    ) -> ResNetV2: ...


def _network_fn(name: str) -> NetworkFn:
    def network_fn(
        num_classes: int | None = 1001,
        global_pool: bool = True,
        output_stride: int | None = None,
        spatial_squeeze: bool = True,
        *,
        in_channels: int = 3,
        scope: str | None = None,
    ) -> ResNetV2:
        return resnet_v2(
            spec.RESNET_V2_BLOCKS[name],
            num_classes,
            global_pool,
            output_stride,
            spatial_squeeze=spatial_squeeze,
            in_channels=in_channels,
            scope=scope,
        )

    network_fn.__name__ = network_fn.__qualname__ = name
    network_fn.__doc__ = f"{name}. See `ResNetV2` for the arguments."
    return network_fn


resnet_v2_50 = _network_fn("resnet_v2_50")
resnet_v2_101 = _network_fn("resnet_v2_101")
resnet_v2_152 = _network_fn("resnet_v2_152")
resnet_v2_200 = _network_fn("resnet_v2_200")
