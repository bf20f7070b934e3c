"""The PyTorch port trains as the TF-Slim graph does: statistics, losses, gradients, steps and initial values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, SMALL_NETWORKS, named, pytorch_port, random_images, random_weights
from scipy import stats

from converters import frameworks
from converters.formats import models
from converters.parity.compare import rel_l2
from converters.parity.tf_slim import building_graphs
from scripts.studies.training_steps import (
    Hyperparameters,
    PyTorchTraining,
    SlimTraining,
    Step,
    compare_steps,
    random_batches,
    run_both,
)
from slimport import networks
from slimport.pytorch import training

SCOPE = "net"
DENSE = {"output_stride": 4, "global_pool": False, "spatial_squeeze": False}


def biases_before_batch_norm(network: networks.Network) -> tuple[str, ...]:
    return tuple(sorted(n for n in network.variables() if n.endswith("/biases") and not n.startswith("logits/")))


@pytest.fixture(scope="module")
def three_steps() -> Callable[..., list[tuple[Step, Step]]]:
    """Three steps of PyTorch and of TF-Slim on the small network, which tests of the same steps share."""

    @cache
    def steps(hyperparameters: Hyperparameters, **arguments: Any) -> list[tuple[Step, Step]]:
        batches = random_batches(SMALL, (33, 46), 4, output_stride=arguments.get("output_stride"))
        return list(run_both(SMALL, random_weights(SMALL), batches, hyperparameters, **arguments))

    return steps


@pytest.mark.parametrize(
    ("hyperparameters", "arguments"),
    [
        (Hyperparameters(), {}),
        (Hyperparameters(nesterov=True, weight_decay=1e-2), DENSE),
        (Hyperparameters(), {"is_training": False}),
    ],
    ids=["training", "dense, Nesterov", "frozen BatchNorm"],
)
def test_three_steps_are_slims(
    hyperparameters: Hyperparameters, arguments: dict[str, Any], three_steps: Callable[..., list[tuple[Step, Step]]]
) -> None:
    steps = three_steps(hyperparameters, **arguments)
    found = {difference.quantity: difference for difference in compare_steps(steps)}
    slim = steps[0][1]
    assert list(found) == ["end_points", "losses", "gradients", "variables", "slots", "moving_averages"]
    assert not [difference for difference in found.values() if not difference.ok]
    variables = set(SMALL.variables())
    moving = {name for name in variables if "/moving_" in name}
    assert found["gradients"].compared == found["slots"].compared == found["variables"].compared
    assert set(slim.gradients) == variables - moving
    assert set(slim.moving_averages) == moving
    frozen = arguments.get("is_training") is False
    assert found["gradients"].zeros == (() if frozen else biases_before_batch_norm(SMALL))
    changed = [name for name in moving if not np.array_equal(slim.moving_averages[name], random_weights(SMALL)[name])]
    assert len(changed) == (0 if frozen else len(moving))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet_v1", {}),
        # Dropout's random numbers are each framework's own.
        ("vgg", {"dropout_keep_prob": 1.0}),
    ],
)
def test_three_steps_of_the_other_families_are_slims(name: str, arguments: dict[str, Any]) -> None:
    network = SMALL_NETWORKS[name].with_classes(7)
    batches = random_batches(network, (28, 28), 4)
    found = list(compare_steps(run_both(network, random_weights(network), batches, Hyperparameters(), **arguments)))
    assert not [difference for difference in found if not difference.ok]
    compared = {difference.quantity: difference.compared for difference in found}
    moving = sum("/moving_" in variable for variable in network.variables())
    assert compared["gradients"] == compared["variables"] == len(network.variables()) - moving
    assert compared.get("moving_averages", 0) == moving


def test_three_steps_of_resnet_v2_50_are_slims() -> None:
    network = named("resnet_v2_50", 21)
    batches = random_batches(network, (64, 48), 4)
    # With 16 numbers a channel in the last block, larger steps let rounding grow close to the limit.
    steps = run_both(network, random_weights(network), batches, Hyperparameters(learning_rate=0.001))
    assert not [difference for difference in compare_steps(steps) if not difference.ok]


@pytest.mark.parametrize(
    ("changed", "quantity"),
    [
        ({"weight_decay": 1.01e-4}, "losses"),
        ({"momentum": 0.9001}, "slots"),
        ({"learning_rate": 0.010001}, "variables"),
    ],
)
def test_another_hyperparameter_is_a_difference(changed: dict[str, float], quantity: str) -> None:
    weights = random_weights(SMALL)
    sides = [
        PyTorchTraining(SMALL, SCOPE, weights, "float64", hyperparameters)
        for hyperparameters in (Hyperparameters(), replace(Hyperparameters(), **changed))
    ]
    steps = [(sides[0].step(*batch), sides[1].step(*batch)) for batch in random_batches(SMALL, (33, 33), 4, 2)]
    assert quantity in {difference.quantity for difference in compare_steps(steps) if not difference.ok}


def batch_variances(step: Step, weights: dict[str, Any]) -> dict[str, Any]:
    """What a step's moving variances took in, by the convolution whose BatchNorm it is."""
    decay = 1 - float(np.float32(1 - 0.997))
    suffix = "/BatchNorm/moving_variance"
    return {
        name.removesuffix(suffix): (value - decay * weights[name].astype(np.float64)) / (1 - decay)
        for name, value in step.moving_averages.items()
        if name.endswith(suffix)
    }


def test_moving_variances_are_biased_or_unbiased_as_said() -> None:
    """TF-Slim fuses BatchNorm in float32 and then takes the unbiased variance; unfused, in float64, the biased one."""
    weights = random_weights(SMALL)
    arguments = (SMALL, SCOPE, weights)
    (batch,) = random_batches(SMALL, (16, 16), 2, 1)

    def first(side: Any) -> Step:
        step: Step = side.step(*batch)
        return step

    ports = {
        variance: first(PyTorchTraining(*arguments, "float64", Hyperparameters(), moving_variance=variance))
        for variance in ("unbiased", "biased")
    }
    unbiased, biased = (batch_variances(ports[variance], weights) for variance in ports)
    for name, variance in unbiased.items():
        n = math.prod(ports["biased"].end_points[f"{SCOPE}/{name}"].shape[:3])
        np.testing.assert_allclose(variance / biased[name], n / (n - 1), rtol=1e-10)
    assert len(unbiased) == 10

    with SlimTraining(*arguments, "float64", Hyperparameters()) as slim:
        assert "FusedBatchNormV3" not in {op.type for op in slim.graph.get_operations()}
        unfused = first(slim)
    with SlimTraining(*arguments, "float32", Hyperparameters()) as slim:
        assert "FusedBatchNormV3" in {op.type for op in slim.graph.get_operations()}
        fused = first(slim)

    def worst(step: Step, variance: str) -> float:
        truth = ports[variance].moving_averages
        return max(rel_l2(value, truth[name]) for name, value in step.moving_averages.items())

    assert worst(unfused, "biased") < 1e-14
    assert worst(unfused, "unbiased") > 1e-5
    assert worst(fused, "unbiased") < 1e-6
    assert worst(fused, "biased") > 1e-5


def test_keras_takes_the_biased_variance(three_steps: Callable[..., list[tuple[Step, Step]]]) -> None:
    """Keras's BatchNormalization is TF-Slim's unfused one, in training mode too."""
    weights = random_weights(SMALL)
    ((images, _),) = random_batches(SMALL, (33, 46), 4, 1)
    step = three_steps(Hyperparameters())[0][1]
    model = models.keras_port(SMALL, weights.items(), dtype="float64")
    for layer in model.layers:
        if hasattr(layer, "momentum"):
            # TensorFlow rounds 1 - decay to float32, in float64 graphs too.
            layer.momentum = 1 - float(np.float32(1 - layer.momentum))
    logits = frameworks.require("keras").ops.convert_to_numpy(model(images.astype(np.float64), training=True))
    assert rel_l2(logits, step.end_points[f"{SMALL.name}/spatial_squeeze"]) < 1e-12
    updated = dict(models.keras_variables(model))
    assert max(rel_l2(updated[name], value) for name, value in step.moving_averages.items()) < 1e-10


@pytest.mark.parametrize("count", [1, 2])
def test_the_biased_option_leaves_evaluation_and_gradients_alone(count: int) -> None:
    model = pytorch_port(SMALL, random_weights(SMALL)).double()
    images = torch.from_numpy(random_images((2 * count, 3, 33, 33))).double()
    outputs, gradients = [], []
    for variance in ("unbiased", "biased"):
        training.set_moving_variance(model, variance)  # type: ignore[arg-type]
        outputs.append(model.eval()(images))
        gradients.append(torch.autograd.grad(model.train()(images).square().sum(), list(model.parameters())))
        model = pytorch_port(SMALL, random_weights(SMALL)).double()
    assert torch.equal(*outputs)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_an_unknown_moving_variance_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 'unbiased' or 'biased'"):
        training.set_moving_variance(torch.nn.Identity(), "fused")  # type: ignore[arg-type]


def test_parameter_groups_are_slims_regularized_variables() -> None:
    model = pytorch_port(SMALL, random_weights(SMALL))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, others = training.parameter_groups(model, 0.5)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.5, 0)
    kernels = {name.replace("/", ".")[: -len("weights")] + "weight" for name in SMALL.variables() if "/weights" in name}
    assert {names[id(parameter)] for parameter in decayed["params"]} == kernels
    assert {names[id(parameter)] for parameter in others["params"]} == set(names.values()) - kernels


def test_the_regularization_loss_is_slims_with_its_default_weight_decay() -> None:
    frameworks.require("slimport.nets")
    import tensorflow.compat.v1 as tf
    import tf_slim as slim
    from tf_slim.nets import resnet_v2

    from slimport.nets import resnet_v2 as ours

    with tf.Graph().as_default(), building_graphs(), tf.Session() as session:
        with slim.arg_scope(resnet_v2.resnet_arg_scope()):
            ours.build(SMALL, tf.zeros((1, 64, 64, 3)), is_training=True, scope=SCOPE)
        session.run(tf.global_variables_initializer())
        variables = {v.op.name.removeprefix(f"{SCOPE}/"): v for v in tf.global_variables()}
        weights, loss = session.run([variables, tf.losses.get_regularization_loss()])
    model = pytorch_port(SMALL, weights).double()
    assert training.regularization_loss(model).item() == pytest.approx(float(loss), rel=1e-6)
    decayed, _ = training.parameter_groups(model)
    assert decayed["weight_decay"] == signature(resnet_v2.resnet_arg_scope).parameters["weight_decay"].default


def initial(network: networks.ResNetV2, seed: int) -> dict[str, Any]:
    """Every variable as slim initializes it, by name relative to the scope."""
    frameworks.require("slimport.nets")
    import tensorflow.compat.v1 as tf
    import tf_slim as slim

    from slimport.nets import resnet_v2

    with tf.Graph().as_default(), building_graphs(), tf.Session() as session:
        tf.set_random_seed(seed)
        with slim.arg_scope(resnet_v2.resnet_arg_scope()):
            resnet_v2.build(network, tf.zeros((1, 64, 64, 3)), is_training=True, scope=SCOPE)
        variables = {v.op.name.removeprefix(f"{SCOPE}/"): v for v in tf.global_variables()}
        session.run(tf.global_variables_initializer())
        return session.run(variables)


def standardized(variables: dict[str, Any], names: Sequence[str]) -> Any:
    """The numbers of some kernels, each in units of its own standard deviation before truncation."""
    kernels = (variables[name] for name in names)
    return np.concatenate([(k / math.sqrt(1.3 * 2 / np.prod(k.shape[:-1]))).ravel() for k in kernels])


def test_initial_values_are_distributed_as_slims() -> None:
    theirs = initial(SMALL, seed=1)
    model = pytorch_port(SMALL, random_weights(SMALL))
    training.initialize(model, torch.Generator().manual_seed(1))
    mine = dict(models.pytorch_variables(model))
    kernels = [name for name in theirs if name.endswith("/weights")]
    for name in theirs.keys() - set(kernels):
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    # The logits too: slim's arg scope covers them.
    for names in (kernels, ["logits/weights"]):
        ours, slims = standardized(mine, names), standardized(theirs, names)
        assert 1.9 < max(abs(ours)) <= 2 + 1e-6
        assert 1.9 < max(abs(slims)) <= 2 + 1e-6
        assert stats.ks_2samp(ours, slims).pvalue > 0.01
        assert stats.kstest(ours, stats.truncnorm(-2, 2).cdf).pvalue > 0.01
    # What is nearly it is told apart: without slim's 1.3, and PyTorch's He initialization, which is not truncated.
    ours, slims = standardized(mine, kernels), standardized(theirs, kernels)
    assert stats.ks_2samp(ours / math.sqrt(1.3), slims).pvalue < 1e-6
    he = torch.nn.init.kaiming_normal_(torch.empty(64, 64, 3, 3), generator=torch.Generator().manual_seed(1))
    assert max(abs(standardized({"he": he.permute(2, 3, 1, 0).numpy()}, ["he"]))) > 3
