"""VGG in PyTorch. Images and activations are NCHW.

Equal to `slimport.nets.vgg`, end point by end point. arXiv:1409.1556.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from slimport import spec
from slimport.named import generator, named
from slimport.pytorch import layers
from slimport.pytorch.network import Network, Record


class VGG(Network):
    """A VGG from its description, a `slimport.spec.VGG`.

    Args:
      network: the description.
      dropout_keep_prob: the probability that an activation is kept, in training mode.
      spatial_squeeze: whether logits are [batch, num_classes], which needs a 1x1 map, or [batch, num_classes, h, w].
      fc_conv_padding: of `fc6`, which is 7x7: VALID makes the map of logits (side / 32) - 6, SAME side / 32.
      global_pool: whether what `fc8` takes is averaged over height and width, which VGG itself does not do.
      scope: the model's scope in the names of its end points; None for slim's.
    """

    network: spec.VGG

    def __init__(
        self,
        network: spec.VGG,
        *,
        dropout_keep_prob: float = 0.5,
        spatial_squeeze: bool = True,
        fc_conv_padding: str = "VALID",
        global_pool: bool = False,
        scope: str | None = None,
    ) -> None:
        super().__init__(network, scope)
        self.dropout_keep_prob = dropout_keep_prob
        self.spatial_squeeze = spatial_squeeze
        self.fc_conv_padding = fc_conv_padding
        self.global_pool = global_pool
        depth = network.in_channels
        for number, block in enumerate(network.blocks, start=1):
            inside = nn.ModuleDict()
            for i in range(1, block.repetitions + 1):
                inside[f"conv{number}_{i}"] = layers.Conv2d(depth, block.depth, 3, activated=True)
                depth = block.depth
            self.add_module(f"conv{number}", inside)
        fc6, fc7 = network.fc_depths
        self.fc6 = layers.Conv2d(depth, fc6, 7, activated=True, valid=fc_conv_padding == "VALID")
        self.fc7 = layers.Conv2d(fc6, fc7, 1, activated=True)
        self.dropout = nn.Dropout(1 - dropout_keep_prob)
        if network.num_classes:
            self.fc8 = self._classifier(network.num_classes)

    def _classifier(self, num_classes: int) -> nn.Module:
        logits = layers.Conv2d(self.network.fc_depths[1], num_classes, 1)
        # The initializer of a convolution to which slim is not told another.
        nn.init.xavier_uniform_(logits.weight)
        if logits.bias is not None:
            nn.init.zeros_(logits.bias)
        return logits

    def _run(self, images: Tensor, keep: Record | None) -> Tensor:
        def record(name: str, value: Tensor) -> Tensor:
            if keep:
                keep(spec.scoped(self.scope, name), value)
            return value

        net = images
        for number, scopes in enumerate(self.network.convolutions, start=1):
            for scope in scopes:
                net = record(scope, self.get_submodule(scope.replace("/", "."))(net))
            net = record(f"pool{number}", F.max_pool2d(net, 2))
        net = record("fc6", self.fc6(net))
        net = record("fc7", self.fc7(self.dropout(net)))
        if self.global_pool:
            net = layers.global_pool(net)
            # It carries no scope in slim.
            if keep:
                keep("global_pool", net)
        if self.network.num_classes:
            net = self.fc8(self.dropout(net))
            net = record("fc8", layers.spatial_squeeze(net) if self.spatial_squeeze else net)
        return net


build = VGG
vgg = generator(build, spec.VGG)
vgg_a = named("vgg_a", vgg)
vgg_16 = named("vgg_16", vgg)
vgg_19 = named("vgg_19", vgg)
