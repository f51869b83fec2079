# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""SGD against the formula in numpy."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from src.defrcn.kernels import KernelSGDStep
from src.sgd_optimizer import SGD, weight_decay_of
from tests.helpers.small import MODES

SHAPES = {"conv.weight": (3, 2, 1, 1), "conv.bias": (3,), "conv.norm.weight": (3,)}
DECAYS = (0.1, 0.2, 0.0)


def optimizer(nesterov=False, library=""):
    rng = np.random.default_rng(0)
    parameters = [
        Parameter(Tensor(rng.normal(size=shape).astype(np.float32)), name=name)
        for name, shape in SHAPES.items()
    ]
    step = KernelSGDStep(DECAYS, 0.9, nesterov, library) if library else None
    return SGD(parameters, DECAYS, 0.9, nesterov, in_one=step)


def gradients(step):
    rng = np.random.default_rng(step + 1)
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES.values()]


RATES = (0.1, 0.1, 0.02, 0.5)


def oracle(weights, nesterov):
    """The four updates in float64, as PyTorch documents its SGD (first velocity: gradient)."""
    weights = [weight.astype(np.float64) for weight in weights]
    velocities = [None] * len(weights)
    for step, lr in enumerate(RATES):
        for i, gradient in enumerate(gradients(step)):
            gradient = gradient + DECAYS[i] * weights[i]
            velocity = velocities[i]
            velocities[i] = gradient if velocity is None else 0.9 * velocity + gradient
            move = gradient + 0.9 * velocities[i] if nesterov else velocities[i]
            weights[i] = weights[i] - lr * move
    return weights


@MODES
@pytest.mark.parametrize("nesterov", [False, True])
def test_steps(mode, nesterov):
    cell = optimizer(nesterov)
    expected = oracle([p.asnumpy() for p in cell.parameters], nesterov)

    def update(lr, *gradients):
        return cell(gradients, lr)

    update = mode(update)
    for step, lr in enumerate(RATES):
        update(Tensor(lr, ms.float32), *map(Tensor, gradients(step)))
    for parameter, wanted in zip(cell.parameters, expected):
        np.testing.assert_allclose(parameter.asnumpy(), wanted, rtol=2e-5, atol=1e-6)


@MODES
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_kernel_gives_the_same_to_the_last_bit(kernels, mode, nesterov):
    twins = [optimizer(nesterov), optimizer(nesterov, kernels)]
    for cell in twins:

        def update(lr, *gradients, cell=cell):
            return cell(gradients, lr)

        update = mode(update)
        for step, lr in enumerate(RATES):
            assert update(Tensor(lr, ms.float32), *map(Tensor, gradients(step))) == Tensor(lr)
    assert [p.name for p in twins[1].state] == [p.name for p in twins[0].state]
    for kind in ("parameters", "state"):
        for plain, by_kernel in zip(*(getattr(cell, kind) for cell in twins)):
            np.testing.assert_array_equal(by_kernel.asnumpy(), plain.asnumpy())


def test_names_of_velocities():
    names = [p.name for p in optimizer().velocities]
    assert names == [f"velocity.{name}" for name in SHAPES]


@pytest.mark.parametrize(
    ("name", "decay"),
    [
        ("backbone.res4.0.conv1.weight", 1),
        ("backbone.res4.0.conv1.norm.weight", 3),
        ("backbone.res4.0.conv1.norm.bias", 3),
        ("roi_heads.box_predictor.cls_score.bias", 2),
        ("roi_heads.box_predictor.cls_score.weight", 1),
        ("affine_rpn.weight", 1),
        ("affine_rcnn.bias", 2),
    ],
)
def test_decay_by_kind(name, decay):
    assert weight_decay_of(name, weight_decay=1, weight_decay_bias=2, weight_decay_norm=3) == decay
