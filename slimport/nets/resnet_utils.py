"""Building blocks of residual networks in TF-Slim: `Block`, `subsample`, `conv2d_same`, `stack_blocks_dense`.

Same names and arguments as `research/slim/nets/resnet_utils.py` in tensorflow/models.

Residual networks: arXiv:1512.03385, arXiv:1603.05027. Here, as in slim, a block subsamples in its last unit and not in
its first, which gives identical results with less memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf
import tf_slim as slim

Tensor = Any


class Block(NamedTuple):
    """A ResNet block.

    scope: the scope of the block.
    unit_fn: the residual unit, from a tensor to a tensor.
    args: one dict of arguments to `unit_fn` (`depth`, `depth_bottleneck`, `stride`) for each unit.
    """

    scope: str
    unit_fn: Callable[..., Tensor]
    args: Sequence[dict[str, int]]


def subsample(inputs: Tensor, factor: int, scope: str | None = None) -> Tensor:
    """Every `factor`-th row and column.

    Args:
      inputs: [batch, height_in, width_in, channels].
      factor: the subsampling factor; 1 returns `inputs` itself.
      scope: optional variable scope.

    Returns:
      [batch, ceil(height_in / factor), ceil(width_in / factor), channels].
    """
    if factor == 1:
        return inputs
    return slim.max_pool2d(inputs, [1, 1], stride=factor, scope=scope)


def conv2d_same(
    inputs: Tensor, num_outputs: int, kernel_size: int, stride: int, rate: int = 1, scope: str | None = None
) -> Tensor:
    """A strided convolution that equals the unstrided SAME one, subsampled.

    TensorFlow's own strided SAME convolution pads an even side at its end only, and so reads other pixels. Hence the
    padding is made explicit here, alike on both sides, and the convolution is VALID.

    Args:
      inputs: [batch, height_in, width_in, channels].
      num_outputs: number of filters.
      kernel_size: side of the kernel.
      stride: output stride.
      rate: atrous rate.
      scope: optional variable scope.

    Returns:
      [batch, ceil(height_in / stride), ceil(width_in / stride), num_outputs].
    """
    if stride == 1:
        return slim.conv2d(inputs, num_outputs, kernel_size, stride=1, rate=rate, padding="SAME", scope=scope)
    pad_total = rate * (kernel_size - 1)
    pad_begin = pad_total // 2
    sides = [pad_begin, pad_total - pad_begin]
    inputs = tf.pad(inputs, [[0, 0], sides, sides, [0, 0]])
    return slim.conv2d(inputs, num_outputs, kernel_size, stride=stride, rate=rate, padding="VALID", scope=scope)


@slim.add_arg_scope
def stack_blocks_dense(
    net: Tensor,
    blocks: Sequence[Block],
    output_stride: int | None = None,
    store_non_strided_activations: bool = False,
    outputs_collections: Any = None,
) -> Tensor:
    """Stacks blocks under `<block scope>/unit_<n>`, and controls the density of the features.

    When the activations reach `output_stride`, later units run with stride 1 and their convolutions are dilated
    (atrous) by the strides left out, so that a denser output holds the nominal one as a subsample.

    Args:
      net: [batch, height, width, channels].
      blocks: the blocks.
      output_stride: None for the nominal stride, or a product of the units' strides from the start up to some unit.
      store_non_strided_activations: collect each block's output before its subsampling, which is then moved from the
        last unit to the block's end. Costs four times the memory and computation of that unit.
      outputs_collections: collection to which the block outputs are added.

    Returns:
      The last block's output, at the output stride.

    Raises:
      ValueError: the output stride cannot be reached.
    """
    unreachable = "The target output_stride cannot be reached."
    current_stride = 1
    rate = 1
    for block in blocks:
        with tf.variable_scope(block.scope, "block", [net]) as sc:
            block_stride = 1
            for i, unit in enumerate(block.args):
                if store_non_strided_activations and i == len(block.args) - 1:
                    block_stride = unit.get("stride", 1)
                    unit = dict(unit, stride=1)
                with tf.variable_scope(f"unit_{i + 1}", values=[net]):
                    if output_stride is not None and current_stride == output_stride:
                        # The unit runs at the rate so far; its own stride dilates only what comes after it.
                        net = block.unit_fn(net, rate=rate, **dict(unit, stride=1))
                        rate *= unit.get("stride", 1)
                    else:
                        net = block.unit_fn(net, rate=1, **unit)
                        current_stride *= unit.get("stride", 1)
                        if output_stride is not None and current_stride > output_stride:
                            raise ValueError(unreachable)
            net = slim.utils.collect_named_outputs(outputs_collections, sc.name, net)
            if output_stride is not None and current_stride == output_stride:
                rate *= block_stride
            else:
                net = subsample(net, block_stride)
                current_stride *= block_stride
                if output_stride is not None and current_stride > output_stride:
                    raise ValueError(unreachable)
    if output_stride is not None and current_stride != output_stride:
        raise ValueError(unreachable)
    return net


def resnet_arg_scope(
    weight_decay: float = 0.0001,
    batch_norm_decay: float = 0.997,
    batch_norm_epsilon: float = 1e-5,
    batch_norm_scale: bool = True,
    activation_fn: Callable[[Tensor], Tensor] = tf.nn.relu,
    use_batch_norm: bool = True,
    batch_norm_updates_collections: Any = tf.GraphKeys.UPDATE_OPS,
) -> Any:
    """The default arg scope of the ResNets.

    Args:
      weight_decay: L2 regularization of the convolution kernels.
      batch_norm_decay: decay of the moving averages.
      batch_norm_epsilon: added to the variance.
      batch_norm_scale: whether BatchNorm has a `gamma`.
      activation_fn: the convolutions' activation.
      use_batch_norm: whether the convolutions are normalized.
      batch_norm_updates_collections: where the updates of the moving averages go.

    Returns:
      An arg scope.
    """
    batch_norm_params = {
        "decay": batch_norm_decay,
        "epsilon": batch_norm_epsilon,
        "scale": batch_norm_scale,
        "updates_collections": batch_norm_updates_collections,
    }
    # padding="SAME" for pool1 makes feature alignment easier in dense prediction, and is what fb.resnet.torch has; the
    # code that accompanies arXiv:1512.03385 uses VALID.
    with (
        slim.arg_scope(
            [slim.conv2d],
            weights_regularizer=slim.l2_regularizer(weight_decay),
            weights_initializer=slim.variance_scaling_initializer(),
            activation_fn=activation_fn,
            normalizer_fn=slim.batch_norm if use_batch_norm else None,
            normalizer_params=batch_norm_params,
        ),
        slim.arg_scope([slim.batch_norm], **batch_norm_params),
        slim.arg_scope([slim.max_pool2d], padding="SAME") as arg_scope,
    ):
        return arg_scope
