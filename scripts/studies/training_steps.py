"""Training steps of the TF-Slim graph and of the PyTorch port, and how far they are apart.

Both sides run the same few steps of momentum SGD and record, by slim's names and in slim's layouts, every quantity of
each step. In float64 they differ by the order of summation alone.

TensorFlow's unfused BatchNorm, the only one in float64, takes the biased variance of a batch into the moving average.
So the port is compared with it under `moving_variance="biased"`; a float32 graph has the fused BatchNorm, which takes
the unbiased one, as the port does from the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from converters import frameworks, mapping
from converters.formats import models
from converters.parity.compare import rel_l2
from converters.parity.tf_slim import SlimGraph, static_size
from converters.variables import Array
from slimport.networks import Network

_AUXILIARY = "AuxLogits"
_AUXILIARY_WEIGHT = 0.4
"""Of the auxiliary logits' loss, as in slim's train_image_classifier.py."""
LIMIT = 1e-10
"""Of the relative difference in float64, after three steps."""
ROUNDING = 1e-12
"""A gradient below this part of the whole gradient's norm is the rounding of a 0."""

Batch = tuple[Array, Array]
"""Images [batch, height, width, in_channels], and labels of the shape of the logits without their classes."""


@dataclass(frozen=True)
class Hyperparameters:
    """Of momentum SGD with slim's L2 regularization."""

    learning_rate: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4


class Step(NamedTuple):
    """One training step.

    end_points: before the update; with the batch's statistics where BatchNorm trains.
    losses: the cross entropy, the regularization loss and their sum.
    gradients: of the sum, by variable.
    variables: those that the optimizer trains, after the update.
    slots: the optimizer's, after the update.
    moving_averages: of BatchNorm, after the update.
    """

    end_points: Mapping[str, Array]
    losses: Mapping[str, Array]
    gradients: Mapping[str, Array]
    variables: Mapping[str, Array]
    slots: Mapping[str, Array]
    moving_averages: Mapping[str, Array]


class SlimTraining(SlimGraph):
    """The TF-Slim graph with slim's loss and train op; arguments as of `SlimGraph`.

    Args:
      hyperparameters: of `tf.train.MomentumOptimizer` and the regularization.
      is_training: whether BatchNorm takes the batch's statistics and updates the moving averages.
    """

    def __init__(
        self,
        network: Network,
        scope: str,
        weights: Mapping[str, Array],
        dtype: str,
        hyperparameters: Hyperparameters,
        *,
        is_training: bool = True,
        **arguments: Any,
    ) -> None:
        super().__init__(
            network,
            scope,
            weights,
            dtype,
            is_training=is_training,
            weight_decay=hyperparameters.weight_decay,
            **arguments,
        )
        import tensorflow.compat.v1 as tf
        import tf_slim as slim

        with self._building():
            self._labels = tf.placeholder(tf.int64, self._output.shape[:-1])
            # `tf.losses.sparse_softmax_cross_entropy` is the same mean, computed in float32 whatever the logits are.
            cross_entropy = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=self._labels, logits=self._output)
            )
            tf.losses.add_loss(cross_entropy)
            if (auxiliary := self._end_points.get(_AUXILIARY)) is not None:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=self._labels, logits=auxiliary)
                tf.losses.add_loss(_AUXILIARY_WEIGHT * tf.reduce_mean(losses))
            total = tf.losses.get_total_loss()
            regularization = tf.losses.get_regularization_loss()
            self._losses = {"cross entropy": cross_entropy, "regularization": regularization, "total": total}
            trainable = {variable.op.name for variable in tf.trainable_variables()}
            self._trained = {name: v for name, v in self._variables.items() if v.op.name in trainable}
            self._moving = {name: v for name, v in self._variables.items() if v.op.name not in trainable}
            # As tensors, since the optimizer rounds Python's numbers to float32.
            learning_rate, momentum = (
                tf.constant(value, dtype) for value in (hyperparameters.learning_rate, hyperparameters.momentum)
            )
            optimizer = tf.train.MomentumOptimizer(learning_rate, momentum, use_nesterov=hyperparameters.nesterov)
            gradients: dict[str, Any] = {}

            def seen(pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
                gradients.update((variable.op.name, gradient) for gradient, variable in pairs)
                return pairs

            # Runs the updates of the moving averages, which `tf.losses` knows nothing of.
            self._train_op = slim.training.create_train_op(total, optimizer, global_step=None, transform_grads_fn=seen)
            self._gradients = {name: gradients[variable.op.name] for name, variable in self._trained.items()}
            self._slots = {name: optimizer.get_slot(variable, "momentum") for name, variable in self._trained.items()}
            self._session.run(tf.variables_initializer(optimizer.variables()))

    def step(self, images: Array, labels: Array) -> Step:
        """Runs one training step."""
        feeds = {self._images: images.astype(self._dtype), self._labels: labels}
        # Apart from the train op, which may change a variable before it is read.
        before = self._session.run((self._end_points, self._losses, self._gradients), feeds)
        self._session.run(self._train_op, feeds)
        return Step(*before, *self._session.run((self._trained, self._slots, self._moving)))


class PyTorchTraining:
    """The PyTorch port with the same loss, in PyTorch's own momentum SGD; arguments as of `SlimTraining`.

    Args:
      moving_variance: as of `slimport.pytorch.training.set_moving_variance`.
    """

    def __init__(
        self,
        network: Network,
        scope: str,
        weights: Mapping[str, Array],
        dtype: str,
        hyperparameters: Hyperparameters,
        *,
        is_training: bool = True,
        moving_variance: Literal["unbiased", "biased"] = "unbiased",
        **arguments: Any,
    ) -> None:
        torch = frameworks.require("torch")
        from slimport.pytorch import training

        self._torch, self._training, self._dtype = torch, training, dtype
        self._weight_decay = hyperparameters.weight_decay
        variables = ((name, array.astype(dtype)) for name, array in weights.items())
        self._model = models.pytorch_port(network, variables, scope=scope, **arguments).train(is_training)
        training.set_moving_variance(self._model, moving_variance)
        for module in self._model.modules():
            if isinstance(module, torch.nn.BatchNorm2d) and module.momentum:
                # TensorFlow rounds 1 - decay to float32, in float64 graphs too.
                module.momentum = float(np.float32(module.momentum))
        self._optimizer = torch.optim.SGD(
            training.parameter_groups(self._model, hyperparameters.weight_decay),
            lr=hyperparameters.learning_rate,
            momentum=hyperparameters.momentum,
            nesterov=hyperparameters.nesterov,
        )

    def step(self, images: Array, labels: Array) -> Step:
        """Runs one training step."""
        inputs = self._torch.from_numpy(images.astype(self._dtype).transpose(0, 3, 1, 2))
        net, end_points = self._model.end_points(inputs)
        cross_entropy = self._torch.nn.functional.cross_entropy(net, self._torch.from_numpy(labels))
        classified = cross_entropy
        if (auxiliary := end_points.get(_AUXILIARY)) is not None:
            of_auxiliary = self._torch.nn.functional.cross_entropy(auxiliary, self._torch.from_numpy(labels))
            classified = classified + _AUXILIARY_WEIGHT * of_auxiliary
        regularization = self._training.regularization_loss(self._model, self._weight_decay)
        losses = {
            "cross entropy": cross_entropy,
            "regularization": regularization,
            "total": classified + regularization,
        }
        parameters = dict(self._model.named_parameters())
        gradients = self._torch.autograd.grad(losses["total"], list(parameters.values()), retain_graph=True)
        self._optimizer.zero_grad()
        # The optimizer adds the regularization's gradient itself.
        classified.backward()
        self._optimizer.step()
        slots = {name: self._optimizer.state[parameter]["momentum_buffer"] for name, parameter in parameters.items()}
        return Step(
            {name: mapping.nhwc(value.detach().numpy()) for name, value in end_points.items()},
            {name: loss.detach().numpy() for name, loss in losses.items()},
            self._slim(dict(zip(parameters, gradients, strict=True))),
            self._slim(parameters),
            self._slim(slots),
            self._slim({name: value for name, value in self._model.named_buffers() if value.is_floating_point()}),
        )

    def _slim(self, tensors: Mapping[str, Any]) -> dict[str, Array]:
        """By slim's names, of which the state dict as a whole decides."""
        names, shapes = mapping.slim_names(self._model.state_dict()), self._model.graph.variables
        arrays = {names[name]: tensor.detach().numpy().copy() for name, tensor in tensors.items()}
        # PyTorch has the axes of a depthwise kernel together.
        return {name: mapping.slim_layout(name, array).reshape(shapes[name]) for name, array in arrays.items()}


def random_batches(
    network: Network, size: tuple[int, int], batch: int, count: int = 3, output_stride: int | None = None
) -> list[Batch]:
    """Batches of images, uniform in [-1, 1], with random labels: one for each image, or for each `output_stride`."""
    positions = () if output_stride is None else tuple(-(-side // output_stride) for side in size)
    generators = [np.random.default_rng(seed) for seed in range(count)]
    return [
        (
            generator.uniform(-1, 1, (batch, *size, network.in_channels)).astype(np.float32),
            generator.integers(0, network.num_classes or 1, (batch, *positions)),
        )
        for generator in generators
    ]


def run_both(
    network: Network,
    weights: Mapping[str, Array],
    batches: Sequence[Batch],
    hyperparameters: Hyperparameters,
    **arguments: Any,
) -> Iterator[tuple[Step, Step]]:
    """The port's step and TF-Slim's in float64, batch by batch; arguments as of `SlimTraining`."""
    common = (network, network.name, weights, "float64", hyperparameters)
    port = PyTorchTraining(*common, moving_variance="biased", **arguments)
    built = {name: value for name, value in arguments.items() if name in network.arguments}
    with SlimTraining(*common, size=static_size(network, batches[0][0], built), **arguments) as slim:
        for batch in batches:
            yield port.step(*batch), slim.step(*batch)


@dataclass(frozen=True)
class Difference:
    """The largest relative L2 difference of one quantity, over every step and every one of its arrays.

    compared: how many arrays of the quantity there are in a step.
    zeros: the arrays that are 0 but for rounding on both sides, with a difference relative to the whole quantity.
    """

    quantity: str
    compared: int
    worst: float
    name: str
    step: int
    zeros: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.worst <= LIMIT


def compare_steps(steps: Iterable[tuple[Step, Step]]) -> tuple[Difference, ...]:
    """How far the port's steps are from TF-Slim's, by quantity.

    A bias before a BatchNorm in training mode has a gradient of 0 in exact arithmetic, since the batch's mean takes it
    away again. Both sides then compute some 1e-17 of rounding, of which a relative difference says nothing; such an
    array is measured against the norm of all gradients instead.

    Args:
      steps: the port's and TF-Slim's; each pair is needed only until the next one is asked for.

    Raises:
      ValueError: a step of one side lacks an array of the other's.
    """
    differences: dict[str, list[tuple[float, str, int]]] = {quantity: [] for quantity in Step._fields}
    zeros: dict[str, set[str]] = {quantity: set() for quantity in Step._fields}
    compared: dict[str, int] = {}
    for number, (port, slim) in enumerate(steps, start=1):
        for quantity, arrays, truth in zip(Step._fields, port, slim, strict=True):
            if arrays.keys() != truth.keys():
                raise ValueError(f"{quantity} differ: {sorted(arrays.keys() ^ truth.keys())[:3]}")
            compared[quantity] = len(truth)
            whole = norm(truth.values())
            for name, reference in truth.items():
                error = rel_l2(np.asarray(arrays[name]), np.asarray(reference))
                if quantity in ("gradients", "slots") and norm([reference]) <= ROUNDING * whole:
                    zeros[quantity].add(name)
                    error = norm([arrays[name].astype(np.float64) - reference.astype(np.float64)]) / whole
                differences[quantity].append((error, name, number))
    return tuple(
        Difference(quantity, compared[quantity], *max(found), zeros=tuple(sorted(zeros[quantity])))
        for quantity, found in differences.items()
        # A network without BatchNorm has no moving averages.
        if found
    )


def norm(arrays: Iterable[Array]) -> float:
    """The L2 norm of all arrays together."""
    return float(np.sqrt(sum(np.sum(np.square(array, dtype=np.float64)) for array in arrays)))
