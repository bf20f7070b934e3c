"""A pytest plugin that puts `slimport.nets` in the place of `tf_slim.nets`'s ResNet v2, for tf_slim's own tests.

tf_slim has an older signature, without `spatial_squeeze`; this is the only thing adapted.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import tf_slim.nets

from slimport.nets import resnet_utils, resnet_v2


def _old_signature(
    inputs: Any,
    blocks: Any,
    num_classes: int | None = None,
    is_training: bool = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    include_root_block: bool = True,
    reuse: bool | None = None,
    scope: str | None = None,
) -> Any:
    return resnet_v2.resnet_v2(
        inputs,
        blocks,
        num_classes,
        is_training,
        global_pool,
        output_stride,
        include_root_block,
        spatial_squeeze=False,
        reuse=reuse,
        scope=scope,
    )


adapter = types.ModuleType("tf_slim.nets.resnet_v2")
adapter.__dict__.update(resnet_v2.__dict__, resnet_v2=_old_signature)
tf_slim.nets.resnet_v2 = sys.modules["tf_slim.nets.resnet_v2"] = adapter
tf_slim.nets.resnet_utils = sys.modules["tf_slim.nets.resnet_utils"] = resnet_utils
