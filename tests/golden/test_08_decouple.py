# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 08: the gradient decoupled layer."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.gdl import GradientDecoupledLayer
from tests.golden import golden

pytestmark = pytest.mark.golden
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def data():
    return golden.arrays("08_decouple")


def decoupled(data, scale):
    layer = GradientDecoupledLayer(data["x"].shape[1], scale)
    layer.weight.set_data(Tensor(data["weight"]))
    layer.bias.set_data(Tensor(data["bias"]))
    return layer


def step_of(layer):
    def product(x, given):
        out = layer(x)
        return (out * given).sum(), out

    differentiated = ms.value_and_grad(product, 0, layer.trainable_params(), has_aux=True)

    def run(x, given):
        return differentiated(x, given)

    return run


def test_a_fresh_layer_is_the_identity(data):
    layer = GradientDecoupledLayer(data["x"].shape[1], 0.5)
    np.testing.assert_array_equal(layer.weight.asnumpy(), data["initial_weight"])
    np.testing.assert_array_equal(layer.bias.asnumpy(), data["initial_bias"])


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_values_and_gradients(data, compiled):
    order, back = (0, 2, 3, 1), (0, 3, 1, 2)  # the layer has channels last
    x = Tensor(np.ascontiguousarray(data["x"].transpose(order)))
    given = Tensor(np.ascontiguousarray(data["grad_out"].transpose(order)))
    for i, scale in enumerate(map(float, data["scales"])):
        run = step_of(decoupled(data, scale))
        run = ms.jit(run, fullgraph=True) if compiled else run
        (_, out), (grad_x, (grad_weight, grad_bias)) = run(x, given)
        for name, actual in (
            ("out", out.asnumpy().transpose(back)),
            ("grad_weight", grad_weight.asnumpy()),
            ("grad_bias", grad_bias.asnumpy()),
            (f"grad_x_{i}", grad_x.asnumpy().transpose(back)),
        ):
            np.testing.assert_allclose(
                actual, data[name], atol=TOLERANCE, rtol=0, err_msg=f"{name}, scale {scale}"
            )
