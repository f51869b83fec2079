# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Group normalisation against the textbook formula in float64."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.defrcn.resnet import CHANNELS_PER_GROUP, ConvNorm, GroupNorm, make_norm
from tests.helpers.small import MODES

EPS = 1e-5


def groups_of(x):
    return max(1, x.shape[1] // CHANNELS_PER_GROUP)


def formula(x, weight, bias):
    batch, channels = x.shape[:2]
    groups = x.astype(np.float64).reshape(batch, groups_of(x), -1)
    normal = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(
        groups.var(-1, keepdims=True) + EPS
    )
    normal = normal.reshape(x.shape)
    return normal * weight.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1), normal


def formula_gradients(x, weight, given):
    """Of the sum of `given * formula`, with respect to x, weight and bias."""
    batch = len(x)
    normal = formula(x, weight, np.zeros_like(weight))[1]
    groups = x.astype(np.float64).reshape(batch, groups_of(x), -1)
    std = np.sqrt(groups.var(-1, keepdims=True) + EPS)
    inner = (given * weight.reshape(1, -1, 1, 1)).reshape(batch, groups_of(x), -1)
    n = normal.reshape(batch, groups_of(x), -1)
    centred = inner - inner.mean(-1, keepdims=True) - n * (inner * n).mean(-1, keepdims=True)
    return (
        (centred / std).reshape(x.shape),
        (given * normal).sum((0, 2, 3)),
        given.astype(np.float64).sum((0, 2, 3)),
    )


def layer(channels, seed=0):
    rng = np.random.default_rng(seed)
    norm = GroupNorm(channels)
    norm.weight.set_data(Tensor(rng.uniform(0.5, 2, channels).astype(np.float32)))
    norm.bias.set_data(Tensor(rng.uniform(-1, 1, channels).astype(np.float32)))
    return norm


def inputs(shape, seed=1):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=shape) * 3 + 1.5).astype(np.float32)
    return x, rng.normal(size=shape).astype(np.float32)


@MODES
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(1, 8, 5, 7), (3, 48, 6, 4), (2, 16, 1, 3)])
def test_values_and_gradients(mode, training, shape):
    norm = layer(shape[1])
    norm.set_train(training)

    def product(x, given):
        out = norm(x)
        return (out * given).sum(), out

    differentiated = ms.value_and_grad(product, 0, norm.trainable_params(), has_aux=True)

    def run(x, given):
        return differentiated(x, given)

    run = mode(run)
    weight, bias = norm.weight.asnumpy(), norm.bias.asnumpy()
    # Twice, with other data: nothing is remembered from the first time.
    for seed in (1, 2):
        x, given = inputs(shape, seed)
        (_, out), (grad_x, (grad_weight, grad_bias)) = run(Tensor(x), Tensor(given))
        np.testing.assert_allclose(out.asnumpy(), formula(x, weight, bias)[0], atol=2e-5)
        expected = formula_gradients(x, weight, given)
        for actual, wanted in zip((grad_x, grad_weight, grad_bias), expected):
            atol = 1e-4 * max(1.0, np.abs(wanted).max())
            np.testing.assert_allclose(actual.asnumpy(), wanted, atol=atol)
    np.testing.assert_array_equal(norm.weight.asnumpy(), weight)
    np.testing.assert_array_equal(norm.bias.asnumpy(), bias)


@MODES
def test_two_in_a_row_share_nothing(mode):
    first, second = layer(16, 3), layer(16, 4)

    both = nn.SequentialCell(first, second)  # names their parameters apart

    def run(x):
        return both(x)

    x, _ = inputs((2, 16, 5, 6))
    run = mode(run)
    middle = formula(x, first.weight.asnumpy(), first.bias.asnumpy())[0]
    expected = formula(middle, second.weight.asnumpy(), second.bias.asnumpy())[0]
    for _ in range(2):
        np.testing.assert_allclose(run(Tensor(x)).asnumpy(), expected, atol=5e-5)


@MODES
def test_a_sample_does_not_see_the_others(mode):
    norm = layer(8)

    def run(x):
        return norm(x)

    x, _ = inputs((3, 8, 4, 4))
    together = mode(run)(Tensor(x)).asnumpy()
    for i in range(3):
        np.testing.assert_allclose(run(Tensor(x[i : i + 1])).asnumpy()[0], together[i], atol=2e-5)


def test_a_constant_map_gives_the_bias():
    norm = layer(8)
    out = norm(Tensor(np.full((1, 8, 4, 4), 7, np.float32))).asnumpy()
    np.testing.assert_allclose(out[0, :, 0, 0], norm.bias.asnumpy(), atol=1e-3)


def test_channels_must_divide():
    with pytest.raises(ValueError, match="multiple"):
        GroupNorm(24)
    with pytest.raises(ValueError, match="unknown norm"):
        make_norm("LN", 8)


@MODES
def test_frozen_norm_is_folded_into_the_convolution(mode):
    rng = np.random.default_rng(0)
    conv = ConvNorm(4, 6, 3, 2, "FrozenBN")
    x = rng.normal(size=(2, 4, 9, 7)).astype(np.float32)
    weight = rng.normal(size=conv.weight.shape).astype(np.float32)
    conv.weight.set_data(Tensor(weight))
    plain = conv(Tensor(x)).asnumpy().astype(np.float64) * np.sqrt(1 + EPS)
    values = {}
    for name in ("weight", "bias", "running_mean", "running_var"):
        values[name] = rng.uniform(0.5, 2, 6).astype(np.float32)
        getattr(conv.norm, name).set_data(Tensor(values[name]))
        values[name] = values[name].reshape(1, -1, 1, 1)

    def run(x):
        return conv(x)

    expected = (plain - values["running_mean"]) / np.sqrt(values["running_var"] + EPS)
    expected = expected * values["weight"] + values["bias"]
    np.testing.assert_allclose(mode(run)(Tensor(x)).asnumpy(), expected, atol=1e-4)
    assert not conv.norm.trainable_params()
