"""What the ResNets share in TF-Slim: from images to logits, around a stack of blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow.compat.v1 as tf
import tf_slim as slim

from slimport import spec
from slimport.named import given
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
) -> Network:
    """A ResNet; the families' generators say what the other arguments mean, and what is returned and raised.

    Args:
      default_scope: the scope where `scope` is None.
      units: the residual units of the blocks, whose outputs are end points.
      root: the convolutions before `pool1`; None has neither.
      postnorm: what stands between the blocks and the pooling.
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
                net = slim.max_pool2d(net, [3, 3], stride=2, scope="pool1")
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
    unit_fn: Callable[..., Tensor], generator: Callable[..., Network], network: spec.ResNet, inputs: Tensor, **more: Any
) -> Network:
    """The graph of a description whose blocks are of one unit; the other arguments are those of the generator."""
    blocks = resnet_utils.blocks_of(network.blocks, unit_fn)
    return generator(inputs, blocks, network.num_classes, include_root_block=network.include_root_block, **more)


def bottleneck_block(
    unit_fn: Callable[..., Tensor], scope: str, base_depth: int, num_units: int, stride: int
) -> resnet_utils.Block:
    """A block of bottleneck units of depth 4 * base_depth whose stride sits in its last unit."""
    return resnet_utils.blocks_of([spec.bottleneck_block(scope, base_depth, num_units, stride)], unit_fn)[0]


def named(name: str, unit_fn: Callable[..., Tensor], generator: Callable[..., Network]) -> Callable[..., Network]:
    """The network of a name under its name as scope."""
    network = spec.NETWORKS[name]
    assert isinstance(network, spec.ResNet)
    blocks = resnet_utils.blocks_of(network.blocks, unit_fn)
    return given(name, generator, {"blocks": blocks, "include_root_block": True}, scope=name)
