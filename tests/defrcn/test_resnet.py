# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Batch normalisation from scratch: the textbook formula, gathered statistics, later frozen."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from src.defrcn.resnet import BatchNorm, FrozenBatchNorm
from src.network_define import parameters_of, set_parameters
from tests.helpers import small
from tests.helpers.small import MODES

EPS = 1e-5
SHAPE = (4, 6, 5, 3)


def layer(seed=0):
    rng = np.random.default_rng(seed)
    norm = BatchNorm(SHAPE[1])
    norm.weight.set_data(Tensor(rng.uniform(0.5, 2, SHAPE[1]).astype(np.float32)))
    norm.bias.set_data(Tensor(rng.uniform(-1, 1, SHAPE[1]).astype(np.float32)))
    return norm


def batch(seed=1):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=SHAPE) * 3 + 1.5).astype(np.float32)


def channels(values):
    return np.asarray(values, np.float64).reshape(1, -1, 1, 1)


def normal_of(x, mean, variance):
    return (x - channels(mean)) / np.sqrt(channels(variance) + EPS)


@MODES
def test_training_normalises_by_the_batch_and_gathers_its_statistics(mode):
    norm = layer()
    norm.set_train(True)

    def forward(x):
        return norm(x)

    run = mode(forward)
    mean, variance = np.zeros(SHAPE[1]), np.ones(SHAPE[1])
    count = SHAPE[0] * SHAPE[2] * SHAPE[3]
    for seed in (1, 2, 3):
        x = batch(seed)
        x64 = x.astype(np.float64)
        here, spread = x64.mean((0, 2, 3)), x64.var((0, 2, 3))
        wanted = normal_of(x64, here, spread) * channels(norm.weight.asnumpy())
        wanted += channels(norm.bias.asnumpy())
        np.testing.assert_allclose(run(Tensor(x)).asnumpy(), wanted, atol=2e-5)
        mean = 0.9 * mean + 0.1 * here
        variance = 0.9 * variance + 0.1 * spread * count / (count - 1)
        np.testing.assert_allclose(norm.running_mean.asnumpy(), mean, rtol=1e-5)
        np.testing.assert_allclose(norm.running_var.asnumpy(), variance, rtol=1e-5)


@MODES
def test_evaluation_uses_what_was_gathered_and_leaves_it(mode):
    norm = layer()
    rng = np.random.default_rng(5)
    norm.running_mean.set_data(Tensor(rng.normal(size=SHAPE[1]).astype(np.float32)))
    norm.running_var.set_data(Tensor(rng.uniform(0.5, 4, SHAPE[1]).astype(np.float32)))
    before = {p.name: p.asnumpy().copy() for p in norm.get_parameters()}
    norm.set_train(False)

    def forward(x):
        return norm(x)

    out = mode(forward)(Tensor(batch())).asnumpy()
    wanted = normal_of(batch().astype(np.float64), before["running_mean"], before["running_var"])
    wanted = wanted * channels(before["weight"]) + channels(before["bias"])
    np.testing.assert_allclose(out, wanted, atol=2e-5)
    for parameter in norm.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), before[parameter.name])


@MODES
def test_gradients_against_the_formula(mode):
    norm = layer()
    norm.set_train(True)
    x, given = batch(1), batch(2)

    def total(x, given):
        return (norm(x) * given).sum()

    gradient = ms.grad(total, 0, (norm.weight, norm.bias))

    def gradients(x, given):
        return gradient(x, given)

    of_x, (of_weight, of_bias) = mode(gradients)(Tensor(x), Tensor(given))
    x64, axes = x.astype(np.float64), (0, 2, 3)
    normal = normal_of(x64, x64.mean(axes), x64.var(axes))
    inner = given * channels(norm.weight.asnumpy())
    centred = inner - inner.mean(axes, keepdims=True)
    centred -= normal * (inner * normal).mean(axes, keepdims=True)
    wanted = centred / np.sqrt(channels(x64.var(axes)) + EPS)
    np.testing.assert_allclose(of_x.asnumpy(), wanted, atol=2e-5)
    np.testing.assert_allclose(of_weight.asnumpy(), (given * normal).sum(axes), rtol=1e-4)
    np.testing.assert_allclose(of_bias.asnumpy(), given.sum(axes), rtol=1e-4)


def infer(net):
    images, sizes, padded = small.pictures([(64, 80)], seed=3)
    net.set_train(False)
    return [out.asnumpy() for out in net(Tensor(images), Tensor(sizes), Tensor(padded))]


def test_a_trained_one_is_loaded_as_a_frozen_one():
    scratch = small.detector(small.section(backbone__norm="BN", backbone__freeze_at=0))
    rng = np.random.default_rng(0)
    for parameter in scratch.get_parameters():
        if parameter.name.endswith(("running_mean", "running_var")):
            values = rng.uniform(0.6, 1.4, parameter.shape) - 1.0 * ("mean" in parameter.name)
            parameter.set_data(Tensor(values.astype(np.float32)))
    frozen = small.detector(small.section(backbone__norm="FrozenBN", backbone__freeze_at=3))
    set_parameters(list(frozen.get_parameters()), parameters_of(scratch))
    boxes, scores, valid = infer(scratch)
    again = infer(frozen)
    np.testing.assert_array_equal(valid, again[2])
    assert valid.any()
    np.testing.assert_allclose(scores[valid], again[1][valid], atol=1e-4)
    np.testing.assert_allclose(boxes[valid], again[0][valid], atol=0.05)


@pytest.mark.parametrize("freeze_at", [0, 2])
@pytest.mark.parametrize("freeze_feat", [False, True])
def test_stages_that_are_not_trained_have_frozen_norms(freeze_at, freeze_feat):
    model = small.section(
        backbone__norm="BN", backbone__freeze_at=freeze_at, roi_heads__freeze_feat=freeze_feat
    )
    net = small.detector(model)
    kinds = {
        "stem": net.backbone.stem.conv1.norm,
        "res2": net.backbone.res2[0].conv1.norm,
        "res3": net.backbone.res3[1].conv2.norm,
        "res4": net.backbone.res4[0].conv3.norm,
        "res5": net.roi_heads.res5[0].conv1.norm,
    }
    frozen = {"stem", "res2"} if freeze_at else set()
    frozen |= {"res5"} if freeze_feat else set()
    for name, norm in kinds.items():
        assert type(norm) is (FrozenBatchNorm if name in frozen else BatchNorm), name
        for parameter in (norm.weight, norm.bias):
            assert parameter.requires_grad is (name not in frozen), name
            assert isinstance(parameter, Parameter)
        assert not norm.running_mean.requires_grad


def test_names_are_those_of_the_frozen_norm():
    names = [
        [parameter.name for parameter in small.detector(model).get_parameters()]
        for model in (
            small.section(backbone__norm="BN", backbone__freeze_at=0),
            small.section(backbone__norm="FrozenBN", backbone__freeze_at=0),
        )
    ]
    assert names[0] == names[1]
