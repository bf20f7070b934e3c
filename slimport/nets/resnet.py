"""The common part of the ResNets in TF-Slim: from images to logits, around a stack of blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport.nets import resnet_utils
from slimport.nets.resnet_utils import Tensor

Network = tuple[Tensor, dict[str, Tensor]]
"""The network's output, and its end points by name."""


def resnet(
    inputs: Tensor,
    blocks: Sequence[resnet_utils.Block],
    num_classes: int | None,
    is_training: bool | None,
    global_pool: bool,
    output_stride: int | None,
    spatial_squeeze: bool,
    reuse: bool | None,
    scope: str | None,
    *,
    default_scope: str,
    units: Sequence[Callable[..., Tensor]],
    root: Callable[[Tensor], Tensor] | None,
    postnorm: Callable[[Tensor], Tensor] = lambda net: net,
    store_non_strided_activations: bool = False,
    pool_padding: str | None = None,
) -> Network:
    """A ResNet; the families' generators say what the other arguments mean, and what is returned and raised.

    Args:
      default_scope: the scope where `scope` is None.
      units: the residual units of the blocks, whose outputs are end points.
      root: the convolutions before `pool1`; None has neither.
      postnorm: what stands between the blocks and the pooling.
      pool_padding: of `pool1`; None is the arg scope's.
    """
    with tf.variable_scope(scope, default_scope, [inputs], reuse=reuse) as sc:
        collection = sc.original_name_scope + "_end_points"
        training = {} if is_training is None else {"is_training": is_training}
        with (
            slim.arg_scope([slim.conv2d, *units, resnet_utils.stack_blocks_dense], outputs_collections=collection),
            slim.arg_scope([slim.batch_norm], **training),
        ):
            net = inputs
            if root:
                if output_stride is not None:
                    if output_stride % 4 != 0:
                        raise ValueError("The output_stride needs to be a multiple of 4.")
                    output_stride //= 4
                net = root(net)
                padding = {} if pool_padding is None else {"padding": pool_padding}
                net = slim.max_pool2d(net, [3, 3], stride=2, scope="pool1", **padding)
            net = resnet_utils.stack_blocks_dense(net, blocks, output_stride, store_non_strided_activations)
            net = postnorm(net)
            end_points = slim.utils.convert_collection_to_dict(collection)
            if global_pool:
                net = tf.reduce_mean(net, [1, 2], name="pool5", keepdims=True)
                end_points["global_pool"] = net
            if num_classes:
                net = slim.conv2d(net, num_classes, [1, 1], activation_fn=None, normalizer_fn=None, scope="logits")
                end_points[sc.name + "/logits"] = net
                if spatial_squeeze:
                    net = tf.squeeze(net, [1, 2], name="SpatialSqueeze")
                    end_points[sc.name + "/spatial_squeeze"] = net
                end_points["predictions"] = slim.softmax(net, scope="predictions")
            return net, end_points


def build(
    unit_fn: Callable[..., Tensor], generator: Callable[..., Network], network: Any, inputs: Tensor, **more: Any
) -> Network:
    """The graph of a network description, whose blocks are of one unit.

    Args:
      unit_fn: the unit.
      generator: `resnet_v1` or `resnet_v2`.
      network: has `blocks` (each with a `scope` and `units`, which have `depth`, `depth_bottleneck` and `stride`),
        `num_classes` and `include_root_block`.
      inputs: [batch, height, width, channels].
      more: the other arguments of the generator.
    """
    blocks = [
        resnet_utils.Block(
            block.scope,
            unit_fn,
            [{"depth": u.depth, "depth_bottleneck": u.depth_bottleneck, "stride": u.stride} for u in block.units],
        )
        for block in network.blocks
    ]
    return generator(inputs, blocks, network.num_classes, include_root_block=network.include_root_block, **more)


def bottleneck_block(
    unit_fn: Callable[..., Tensor], scope: str, base_depth: int, num_units: int, stride: int, **more: int
) -> resnet_utils.Block:
    """A block of bottleneck units of depth 4 * base_depth, and with `more` arguments; its last unit has the stride."""
    unit = {"depth": 4 * base_depth, "depth_bottleneck": base_depth, "stride": 1, **more}
    return resnet_utils.Block(scope, unit_fn, [unit] * (num_units - 1) + [{**unit, "stride": stride}])


def four_blocks(
    block_fn: Callable[[str, int, int, int], resnet_utils.Block],
    num_units: Sequence[int],
    min_base_depth: int = 8,
    depth_multiplier: float = 1,
) -> list[resnet_utils.Block]:
    """The blocks of a network that has a name, Table 1 of arXiv:1512.03385. The last does not subsample.

    Args:
      block_fn: makes a block from its scope, base depth, number of units and stride.
      num_units: of each of the four blocks.
      min_base_depth: the least base depth, whatever the multiplier.
      depth_multiplier: of the base depths.
    """
    table = enumerate(zip((64, 128, 256, 512), num_units, (2, 2, 2, 1), strict=True), start=1)
    return [
        block_fn(f"block{number}", max(int(base_depth * depth_multiplier), min_base_depth), units, stride)
        for number, (base_depth, units, stride) in table
    ]
