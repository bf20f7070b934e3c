"""Names that are the same in every framework. No framework is imported.

A scope of slim's is a valid one already. A scope of somebody else's TensorFlow graph may hold what PyTorch or Keras
refuses: a dot, `__`, a leading minus sign, or the name of an attribute that every module has (`features`, `type`).
"""

from __future__ import annotations

import re
from collections.abc import Collection

PYTORCH_LEAVES = {
    "weights": "weight",
    "depthwise_weights": "weight",
    "pointwise_weights": "pointwise_weight",
    "biases": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""PyTorch's leaf names by slim's, where they differ."""

KERAS_LEAVES = {
    "kernel": "weights",
    "bias": "biases",
    "depthwise_kernel": "depthwise_weights",
    "pointwise_kernel": "pointwise_weights",
    "alpha": "weights",
}
"""Slim's leaf names by Keras's, where they differ. A `DepthwiseConv2D`'s kernel is `depthwise_weights`."""

_ATTRIBUTES = """
    T_destination add_module affine apply arguments array bfloat16 bias biases_initializer buffers call_super_init
    children clipped compile cpu cuda dilation double dump_patches end_points eps eval extra_repr factor
    feature_info features float forward forward_features get_buffer get_extra_state get_parameter get_submodule
    graph groups half hosted in_channels in_features indices init initializer inplace ipu kernel_size like
    load_state_dict modules momentum moving_variance mtia named_buffers named_children named_modules
    named_parameters network node num_batches_tracked num_features num_parameters of out_channels out_features
    output_padding output_size padding padding_mode pads parameters pointwise_weight preprocessing pretrained_cfg
    register_backward_hook register_buffer register_forward_hook register_forward_pre_hook
    register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter register_state_dict_post_hook
    register_state_dict_pre_hook regularized requires_grad_ reset_classifier reset_parameters reset_running_stats
    running_mean running_var same scope set_extra_state set_submodule share share_memory state_dict statistics
    stride strides to to_empty track_running_stats train training transposed type value weight xpu zero_grad
"""
RESERVED = frozenset(_ATTRIBUTES.split())
"""The public attributes of PyTorch's modules and of slimport's, which a child module cannot have as its name."""


def pytorch_name(variable: str) -> str:
    """`conv1/weights` -> `conv1.weight`."""
    *scopes, leaf = variable.split("/")
    return ".".join([*scopes, PYTORCH_LEAVES.get(leaf, leaf)])


def part_number(digits: str) -> int:
    """The number of a layer, unit or block in a scope.

    Raises:
      ValueError: it is far beyond every count of these, so that to count to it would take hours.
    """
    if len(digits) > 4:
        raise ValueError(f"a part numbered {digits[:12]}, and there is no network of so many")
    return int(digits)


def clean(scope: str) -> str:
    """The scope as PyTorch and Keras can spell it: itself, where they can.

    Of `-prefix/conv.1/features` it makes `prefix/conv_1/features_scope`.
    """
    return "/".join(_clean_component(component) for component in scope.split("/") if component)


def unique(name: str, taken: Collection[str]) -> str:
    """The name with `_1`, `_2`, ... behind it where it is taken, as `tf.Graph.unique_name` does."""
    number, found = 0, name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def _clean_component(component: str) -> str:
    component = re.sub(r"[^A-Za-z0-9_-]+", "_", component)
    # Keras spells `/` as `__`, so that neither `__` nor a `_` at either end can be in a component.
    component = re.sub(r"_{2,}", "_", component).strip("_-") or "layer"
    return f"{component}_scope" if component in RESERVED else component
