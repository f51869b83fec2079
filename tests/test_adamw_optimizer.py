# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""AdamW against its formula in float64."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from src.adamw_optimizer import BETA2, EPS, AdamW
from src.defrcn.kernels import KernelAdamWStep

SHAPES = {"a.weight": (3, 2), "a.bias": (3,)}
DECAYS = (0.1, 0.0)


def optimizer(library=""):
    rng = np.random.default_rng(0)
    return AdamW(
        [
            Parameter(Tensor(rng.standard_normal(s).astype(np.float32)), n)
            for n, s in SHAPES.items()
        ],
        DECAYS,
        in_one=KernelAdamWStep(DECAYS, 0.9, BETA2, EPS, library) if library else None,
    )


def oracle(weights, gradients, rates):
    weights = [w.astype(np.float64) for w in weights]
    means = [np.zeros_like(w) for w in weights]
    squares = [np.zeros_like(w) for w in weights]
    for t, (step, lr) in enumerate(zip(gradients, rates), start=1):
        for i, g in enumerate(step):
            means[i] = 0.9 * means[i] + 0.1 * g
            squares[i] = 0.99 * squares[i] + 0.01 * g.astype(np.float64) ** 2
            unbiased = means[i] / (1 - 0.9**t), squares[i] / (1 - 0.99**t)
            weights[i] = (1 - lr * DECAYS[i]) * weights[i] - lr * unbiased[0] / (
                np.sqrt(unbiased[1]) + 1e-8
            )
    return weights


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("by_kernel", [False, True])
def test_four_steps(compiled, by_kernel, kernels):
    adamw = optimizer(kernels if by_kernel else "")
    start = [p.asnumpy().copy() for p in adamw.parameters]
    rng = np.random.default_rng(1)
    gradients = [
        [rng.standard_normal(s).astype(np.float32) for s in SHAPES.values()] for _ in range(4)
    ]
    rates = [0.01, 0.02, 0.02, 0.005]

    def update(lr, *given):
        return adamw(given, lr)

    step = ms.jit(update, fullgraph=True) if compiled else update
    for given, lr in zip(gradients, rates):
        step(Tensor(lr, ms.float32), *map(Tensor, given))
    for parameter, expected in zip(adamw.parameters, oracle(start, gradients, rates)):
        np.testing.assert_allclose(parameter.asnumpy(), expected, rtol=1e-5, atol=1e-6)
    assert adamw.steps.asnumpy().tolist() == [4]


def test_state_holds_all_that_a_resumed_run_needs():
    names = [p.name for p in optimizer().state]
    assert names == [f"{kind}.{n}" for kind in ("mean", "square") for n in SHAPES] + ["adamw.steps"]
