"""The scopes of layers: those of their variables where these are told apart by them, else the nodes' names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from converters.graph_def.cover import Layer
from converters.graph_def.parameters import parameter
from converters.graph_def.values import Value

# What TensorFlow calls a node that is given no name.
_GENERIC = re.compile(
    r"(Conv2D|conv2d_transpose|convolution|depthwise|separable_conv2d(_depthwise)?|MatMul|BiasAdd|Add(V2|N)?|add|mul|Mul"
    r"|sub|Sub|RealDiv|truediv|div|Relu6?|LeakyRelu|Elu|Selu|Sigmoid|Tanh|Softmax|LogSoftmax|MaxPool|AvgPool|Mean|Reshape|Squeeze"
    r"|FusedBatchNorm(V[23])?|batchnorm|add_1|mul_1|ReadVariableOp|BatchToSpaceND|Tensordot|concat|ConcatV2|read|Pad"
    r"|Floor|Maximum|transpose|strided_slice|ResizeBilinear|ResizeNearestNeighbor|ExpandDims|LRN)(_\d+)?"
)
_KERNEL_WORD = re.compile(r"^(w|weights?|kernel|filters?)_|_(w|weights?|kernel|filters?)$", re.IGNORECASE)
_NAMELESS = re.compile(r"(Variable|Const|w|weights?|kernel|filters?)(_\d+)?", re.IGNORECASE)
_KINDS = {"conv2d": "conv", "depthwise": "depthwise", "conv2d_transpose": "deconv", "fully_connected": "fc"}


def kernel_name(value: Value) -> str:
    """The variable, or constant, that is a layer's kernel."""
    found = parameter(value.inputs[1])
    return found.name if found is not None else value.node


def node_scope(node: str) -> str:
    """A node's name without what TensorFlow calls any node of its kind; empty where nothing is left."""
    components = node.split("/")
    while components and _GENERIC.fullmatch(components[-1]):
        components.pop()
    return "/".join(components)


class Scopes:
    """Chooses the scope of each layer with a kernel."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        kernels = {
            kernel_name(layer.kernel) for layer in layers if layer.kernel is not None and layer.depthwise is None
        }
        self._in_scope = Counter(name.rpartition("/")[0] for name in kernels)
        self._numbers: Counter[str] = Counter()

    def of_kernel(self, kernel: Value) -> str:
        """The scope of the layer with this kernel."""
        name = kernel_name(kernel)
        scope, _, leaf = name.rpartition("/")
        if scope and self._in_scope[scope] <= 1:
            # A constant that was read from a variable is under its op.
            return (node_scope(scope) or scope) if leaf.startswith("ReadVariableOp") else scope
        if (found := node_scope(kernel.node)) and (not scope or found != scope):
            return found
        leaf = leaf if _NAMELESS.fullmatch(leaf) else _KERNEL_WORD.sub("", leaf)
        if leaf and not _NAMELESS.fullmatch(leaf):
            return f"{scope}/{leaf}" if scope else leaf
        kind = _KINDS[kernel.op]
        self._numbers[kind] += 1
        numbered = f"{kind}{self._numbers[kind]}"
        return f"{scope}/{numbered}" if scope else numbered


def common_scope(scopes: Sequence[str]) -> str:
    """The components that all names begin with; none where a name is nothing else."""
    if not scopes:
        return ""
    paths = [scope.split("/")[:-1] for scope in scopes]
    shared = paths[0]
    for path in paths[1:]:
        length = next(
            (i for i, (a, b) in enumerate(zip(shared, path, strict=False)) if a != b), min(len(shared), len(path))
        )
        shared = shared[:length]
    return "/".join(shared)
