# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Winograd tiles against direct convolution, values and gradients."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from src.defrcn.winograd import winograd_conv3x3, winograd_conv4x4
from tests.helpers.small import MODES


def direct(features, weight):
    """Direct convolution of (N, H, W, C)."""
    out = ops.conv2d(features.transpose(0, 3, 1, 2), weight, None, 1, "pad", 1)
    return out.transpose(0, 2, 3, 1)


def tiles_direct(features, weight):
    """The same of (16, R, C) position-major 4x4 maps."""
    channels = features.shape[2]
    maps = features.transpose(1, 0, 2).reshape(-1, 4, 4, channels)
    return direct(maps, weight).reshape(-1, 16, weight.shape[0]).transpose(1, 0, 2)


def compare(mode, mine, reference, shape, weight_shape):
    rng = np.random.default_rng(0)
    features = Tensor(rng.normal(size=shape).astype(np.float32))
    weight = Tensor(rng.normal(size=weight_shape).astype(np.float32))
    expected = reference(features, weight)
    given = Tensor(rng.normal(size=expected.shape).astype(np.float32))

    def product(function):
        def inner(features, weight, given):
            out = function(features, weight)
            return (out * given).sum(), out

        return ms.value_and_grad(inner, (0, 1), has_aux=True)

    differentiated = product(mine)

    def run(features, weight, given):
        return differentiated(features, weight, given)

    (_, out), gradients = mode(run)(features, weight, given)
    (_, expected), expected_gradients = product(reference)(features, weight, given)
    for actual, wanted in zip((out, *gradients), (expected, *expected_gradients)):
        wanted = wanted.asnumpy()
        assert actual.shape == wanted.shape
        np.testing.assert_allclose(
            actual.asnumpy(), wanted, atol=2e-5 * np.abs(wanted).max(), rtol=0
        )


@MODES
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (4, 4), (5, 7), (8, 12), (13, 3)])
def test_maps_of_any_size(mode, size):
    compare(mode, winograd_conv3x3, direct, (2, *size, 6), (5, 6, 3, 3))


@MODES
@pytest.mark.parametrize("count", [1, 7])
def test_maps_of_4x4(mode, count):
    compare(mode, winograd_conv4x4, tiles_direct, (16, count, 6), (5, 6, 3, 3))
