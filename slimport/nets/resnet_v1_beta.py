"""DeepLab's variants of ResNet v1 in TF-Slim.

Same names, arguments, scopes and end points as `research/deeplab/core/resnet_v1_beta.py` in tensorflow/models, without
`sync_batch_norm_method` and weight standardization. `spatial_squeeze` and the end point `global_pool` are those of
`slimport.nets.resnet_v1`.

The 'beta' networks begin with three 3x3 convolutions in the place of one 7x7, and `multi_grid` gives each unit of the
last block an atrous rate of its own (arXiv:1706.05587). It is a ValueError if it has more or fewer rates than that
block has units. `pool1` is SAME whatever the arg scope says. DeepLab's own arg scope is this one with a
`batch_norm_decay` of 0.95. The other arguments of the networks that have a name are those of `resnet_v1_beta`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport.nets import resnet, resnet_utils, resnet_v1
from slimport.nets.resnet import Network
from slimport.nets.resnet_utils import Tensor

arg_scope = resnet_arg_scope = resnet_utils.resnet_arg_scope


@slim.add_arg_scope
def bottleneck(
    inputs: Tensor,
    depth: int,
    depth_bottleneck: int,
    stride: int,
    unit_rate: int = 1,
    rate: int = 1,
    outputs_collections: Any = None,
    scope: str | None = None,
) -> Tensor:
    """`resnet_v1.bottleneck` with an atrous rate of its own, `unit_rate`, beside that of the output stride."""
    return resnet_v1.bottleneck(
        inputs, depth, depth_bottleneck, stride, rate * unit_rate, outputs_collections, scope=scope
    )


@slim.add_arg_scope
def lite_bottleneck(
    inputs: Tensor,
    depth: int,
    stride: int,
    unit_rate: int = 1,
    rate: int = 1,
    outputs_collections: Any = None,
    scope: str | None = None,
) -> Tensor:
    """The unit of two 3x3 convolutions, Fig. 5 (left) of arXiv:1512.03385; its stride sits in the second.

    Args:
      inputs: [batch, height, width, channels].
      depth: channels of the convolutions and of the output.
      stride: the unit's stride.
      unit_rate: the unit's own atrous rate.
      rate: atrous rate of the output stride.
      outputs_collections: collection to which the output is added.
      scope: optional variable scope.

    Returns:
      [batch, ceil(height / stride), ceil(width / stride), depth].
    """
    with tf.variable_scope(scope, "lite_bottleneck_v1", [inputs]) as sc:
        if depth == slim.utils.last_dimension(inputs.get_shape(), min_rank=4):
            shortcut = resnet_utils.subsample(inputs, stride, "shortcut")
        else:
            shortcut = slim.conv2d(inputs, depth, [1, 1], stride=stride, activation_fn=None, scope="shortcut")
        rate *= unit_rate
        residual = resnet_utils.conv2d_same(inputs, depth, 3, 1, rate=rate, scope="conv1")
        with slim.arg_scope([slim.conv2d], activation_fn=None):
            residual = resnet_utils.conv2d_same(residual, depth, 3, stride, rate=rate, scope="conv2")
        return slim.utils.collect_named_outputs(outputs_collections, sc.name, tf.nn.relu(shortcut + residual))


def root_block_fn_for_beta_variant(net: Tensor, depth_multiplier: float = 1.0) -> Tensor:
    """The three 3x3 convolutions before `pool1`, of 64, 64 and 128 channels times the multiplier."""
    return _root(net, [int(depth * depth_multiplier) for depth in (64, 64, 128)])


def _root(net: Tensor, depths: Sequence[int]) -> Tensor:
    """The convolutions before `pool1`: a single one is 7x7, several are 3x3; the first has the stride."""
    if len(depths) == 1:
        return resnet_utils.conv2d_same(net, depths[0], 7, stride=2, scope="conv1")
    for number, depth in enumerate(depths, start=1):
        net = resnet_utils.conv2d_same(net, depth, 3, stride=2 if number == 1 else 1, scope=f"conv1_{number}")
    return net


def resnet_v1_beta(
    inputs: Tensor,
    blocks: Sequence[resnet_utils.Block],
    num_classes: int | None = None,
    is_training: bool | None = None,
    global_pool: bool = True,
    output_stride: int | None = None,
    root_block_fn: Callable[[Tensor], Tensor] | None = None,
    reuse: bool | None = None,
    scope: str | None = None,
    spatial_squeeze: bool = False,
) -> Network:
    """Generator of DeepLab's v1 ResNets; arguments and results as of `resnet_v1.resnet_v1`.

    Args:
      root_block_fn: the convolutions before `pool1`; None is the 7x7 of `resnet_v1`.
    """
    return resnet.resnet(
        inputs,
        blocks,
        num_classes,
        is_training,
        global_pool,
        output_stride,
        spatial_squeeze,
        reuse,
        scope,
        default_scope="resnet_v1",
        units=[bottleneck, lite_bottleneck],
        root=root_block_fn or partial(_root, depths=(64,)),
        # Whatever the arg scope says.
        pool_padding="SAME",
    )


def resnet_v1_beta_block(scope: str, base_depth: int, num_units: int, stride: int) -> resnet_utils.Block:
    """A bottleneck block of depth 4 * base_depth whose stride sits in its last unit."""
    return resnet.bottleneck_block(bottleneck, scope, base_depth, num_units, stride, unit_rate=1)


def resnet_v1_small_beta_block(scope: str, base_depth: int, num_units: int, stride: int) -> resnet_utils.Block:
    """A block of `lite_bottleneck`s of depth base_depth whose stride sits in its last unit."""
    unit = {"depth": base_depth, "stride": 1, "unit_rate": 1}
    return resnet_utils.Block(scope, lite_bottleneck, [unit] * (num_units - 1) + [{**unit, "stride": stride}])


def _with_rates(blocks: Sequence[resnet_utils.Block], multi_grid: Sequence[int] | None) -> list[resnet_utils.Block]:
    """Blocks with these rates for the units of the last; None is a rate of 1.

    Raises:
      ValueError: the rates are not as many as the units.
    """
    *before, last = blocks
    rates = [1] * len(last.args) if multi_grid is None else multi_grid
    if len(rates) != len(last.args):
        raise ValueError(f"multi_grid needs {len(last.args)} rates, one for each unit of {last.scope}")
    args = [{**unit, "unit_rate": rate} for unit, rate in zip(last.args, rates, strict=True)]
    return [*before, last._replace(args=args)]


def build(
    network: Any,
    inputs: Tensor,
    *,
    global_pool: bool = False,
    multi_grid: Sequence[int] | None = None,
    **arguments: Any,
) -> Network:
    """The graph of a network description.

    Args:
      network: has `blocks` (each with a `scope` and `units`, which have `depth`, `depth_bottleneck`, `stride` and
        `rate`), `num_classes`, `root_depths` (those of `conv1_1` and its successors, or the one of `conv1`) and `lite`
        (whether the units are `lite_bottleneck`s).
      inputs: [batch, height, width, channels].
      global_pool: as of `resnet_v1_beta`.
      multi_grid: a rate for each unit of the last block; None is a rate of 1.
      arguments: the other arguments of `resnet_v1_beta`.

    Raises:
      ValueError: the rates are not as many as the units, or the output stride is not valid.
    """
    names = ("depth", "stride") if network.lite else ("depth", "depth_bottleneck", "stride")
    blocks = [
        resnet_utils.Block(
            block.scope,
            lite_bottleneck if network.lite else bottleneck,
            [{**{name: getattr(unit, name) for name in names}, "unit_rate": unit.rate} for unit in block.units],
        )
        for block in network.blocks
    ]
    return resnet_v1_beta(
        inputs,
        _with_rates(blocks, multi_grid),
        network.num_classes,
        global_pool=global_pool,
        root_block_fn=partial(_root, depths=network.root_depths),
        **arguments,
    )


def resnet_v1_18(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool | None = None,
    global_pool: bool = False,
    output_stride: int | None = None,
    multi_grid: Sequence[int] | None = None,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_18",
) -> Network:
    """The network of 18 layers, of `lite_bottleneck`s."""
    blocks = _with_rates(resnet.four_blocks(resnet_v1_small_beta_block, (2, 2, 2, 2)), multi_grid)
    return resnet_v1_beta(inputs, blocks, num_classes, is_training, global_pool, output_stride, None, reuse, scope)


def resnet_v1_18_beta(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool | None = None,
    global_pool: bool = False,
    output_stride: int | None = None,
    multi_grid: Sequence[int] | None = None,
    root_depth_multiplier: float = 0.25,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_18",
) -> Network:
    """`resnet_v1_18` with three 3x3 convolutions as its root: `root_block_fn_for_beta_variant`."""
    blocks = _with_rates(resnet.four_blocks(resnet_v1_small_beta_block, (2, 2, 2, 2)), multi_grid)
    root = partial(root_block_fn_for_beta_variant, depth_multiplier=root_depth_multiplier)
    return resnet_v1_beta(inputs, blocks, num_classes, is_training, global_pool, output_stride, root, reuse, scope)


def resnet_v1_50(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool | None = None,
    global_pool: bool = False,
    output_stride: int | None = None,
    multi_grid: Sequence[int] | None = None,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_50",
) -> Network:
    """Slim's ResNet-50, to which only `multi_grid` is added."""
    blocks = _with_rates(resnet.four_blocks(resnet_v1_beta_block, (3, 4, 6, 3)), multi_grid)
    return resnet_v1_beta(inputs, blocks, num_classes, is_training, global_pool, output_stride, None, reuse, scope)


def resnet_v1_50_beta(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool | None = None,
    global_pool: bool = False,
    output_stride: int | None = None,
    multi_grid: Sequence[int] | None = None,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_50",
) -> Network:
    """`resnet_v1_50` with three 3x3 convolutions as its root."""
    blocks = _with_rates(resnet.four_blocks(resnet_v1_beta_block, (3, 4, 6, 3)), multi_grid)
    root = root_block_fn_for_beta_variant
    return resnet_v1_beta(inputs, blocks, num_classes, is_training, global_pool, output_stride, root, reuse, scope)


def resnet_v1_101(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool | None = None,
    global_pool: bool = False,
    output_stride: int | None = None,
    multi_grid: Sequence[int] | None = None,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_101",
) -> Network:
    """Slim's ResNet-101, to which only `multi_grid` is added."""
    blocks = _with_rates(resnet.four_blocks(resnet_v1_beta_block, (3, 4, 23, 3)), multi_grid)
    return resnet_v1_beta(inputs, blocks, num_classes, is_training, global_pool, output_stride, None, reuse, scope)


def resnet_v1_101_beta(
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool | None = None,
    global_pool: bool = False,
    output_stride: int | None = None,
    multi_grid: Sequence[int] | None = None,
    reuse: bool | None = None,
    scope: str | None = "resnet_v1_101",
) -> Network:
    """`resnet_v1_101` with three 3x3 convolutions as its root."""
    blocks = _with_rates(resnet.four_blocks(resnet_v1_beta_block, (3, 4, 23, 3)), multi_grid)
    root = root_block_fn_for_beta_variant
    return resnet_v1_beta(inputs, blocks, num_classes, is_training, global_pool, output_stride, root, reuse, scope)
