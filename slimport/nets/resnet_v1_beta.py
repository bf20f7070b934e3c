"""DeepLab's variants of ResNet v1 in TF-Slim.

Same names, arguments, scopes and end points as `research/deeplab/core/resnet_v1_beta.py` in tensorflow/models, without
`sync_batch_norm_method`, `root_depth_multiplier` and weight standardization. `spatial_squeeze` and the end point
`global_pool` are those of `slimport.nets.resnet_v1`.

The 'beta' networks begin with three 3x3 convolutions in the place of one 7x7, and `multi_grid` gives each unit of the
last block an atrous rate of its own (arXiv:1706.05587).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport import spec
from slimport.named import given
from slimport.nets import resnet, resnet_utils, resnet_v1
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
    return _root(net, [int(depth * depth_multiplier) for depth in spec.ResNetV1Beta.root_depths])


def _root(net: Tensor, depths: Sequence[int]) -> Tensor:
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
) -> tuple[Tensor, dict[str, Tensor]]:
    """Generator of DeepLab's v1 ResNets; arguments and results as of `resnet_v1.resnet_v1`.

    Args:
      root_block_fn: the convolutions before `pool1`; None is the 7x7 of `resnet_v1`.
    """
    seven = partial(resnet_utils.conv2d_same, num_outputs=64, kernel_size=7, stride=2, scope="conv1")
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
        root=root_block_fn or seven,
    )


def _block(block: spec.Block, lite: bool) -> resnet_utils.Block:
    if lite:
        args = [{"depth": u.depth, "stride": u.stride, "unit_rate": u.rate} for u in block.units]
        return resnet_utils.Block(block.scope, lite_bottleneck, args)
    described = resnet_utils.blocks_of([block], bottleneck)[0]
    args = [{**arg, "unit_rate": unit.rate} for arg, unit in zip(described.args, block.units, strict=True)]
    return described._replace(args=args)


def resnet_v1_beta_block(scope: str, base_depth: int, num_units: int, stride: int) -> resnet_utils.Block:
    """A bottleneck block of depth 4 * base_depth whose stride sits in its last unit."""
    return _block(spec.bottleneck_block(scope, base_depth, num_units, stride), lite=False)


def resnet_v1_small_beta_block(scope: str, base_depth: int, num_units: int, stride: int) -> resnet_utils.Block:
    """A block of `lite_bottleneck`s of depth base_depth whose stride sits in its last unit."""
    return _block(spec.lite_block(scope, base_depth, num_units, stride), lite=True)


def build(
    network: spec.ResNetV1Beta,
    inputs: Tensor,
    *,
    global_pool: bool = False,
    multi_grid: Sequence[int] | None = None,
    **arguments: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The graph of a network description; the other arguments are those of `resnet_v1_beta`."""
    blocks = [_block(block, network.lite) for block in network.with_multi_grid(multi_grid).blocks]
    root = None if len(network.root_depths) == 1 else partial(_root, depths=network.root_depths)
    return resnet_v1_beta(inputs, blocks, network.num_classes, global_pool=global_pool, root_block_fn=root, **arguments)


def _of_depth(
    network: spec.ResNetV1Beta,
    inputs: Tensor,
    num_classes: int | None = None,
    is_training: bool | None = None,
    global_pool: bool = False,
    output_stride: int | None = None,
    multi_grid: Sequence[int] | None = None,
    reuse: bool | None = None,
    scope: str | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """A network of DeepLab's with any number of classes, by default none.

    Args:
      network: the description.
      inputs: [batch, height, width, channels].
      multi_grid: a rate for each unit of the last block; None is a rate of 1. The others as of `resnet_v1_beta`.

    Raises:
      ValueError: the rates are not as many as the units, or the output stride is not valid.
    """
    return build(
        replace(network, num_classes=num_classes),
        inputs,
        is_training=is_training,
        global_pool=global_pool,
        output_stride=output_stride,
        multi_grid=multi_grid,
        reuse=reuse,
        scope=scope,
    )


def _named(name: str, network: spec.ResNetV1Beta) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
    return given(name, _of_depth, {"network": network}, scope=name.removesuffix("_beta"))


_NAMED = spec.ResNetV1Beta.named()
resnet_v1_18 = _named("resnet_v1_18", _NAMED["resnet_v1_18"])
resnet_v1_18_beta = _named("resnet_v1_18_beta", _NAMED["resnet_v1_18_beta"])
# ResNets v1 of slim's, to which only `multi_grid` is added.
resnet_v1_50 = _named("resnet_v1_50", replace(_NAMED["resnet_v1_50_beta"], root_depths=(64,)))
resnet_v1_50_beta = _named("resnet_v1_50_beta", _NAMED["resnet_v1_50_beta"])
resnet_v1_101 = _named("resnet_v1_101", replace(_NAMED["resnet_v1_101_beta"], root_depths=(64,)))
resnet_v1_101_beta = _named("resnet_v1_101_beta", _NAMED["resnet_v1_101_beta"])
