# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 07: the backbone's stages, alone and padded."""

import functools

import mindspore as ms
import pytest
from mindspore import Tensor

from tests.golden import golden, network

pytestmark = [pytest.mark.golden, pytest.mark.own_process]
TOLERANCE = 1e-4
STAGES = ("stem", "res2", "res3", "res4")


@functools.cache
def backbone():
    return network.new_detector(network.config("base"), "base", "plain").backbone


def assert_stages(name, stages):
    data = golden.arrays("07_backbone")
    for stage, features in zip(STAGES, stages):
        features = features.asnumpy()
        if stage == "res4":
            features = features.transpose(0, 3, 1, 2)
        golden.assert_digest(data, f"{name}.{stage}", features, TOLERANCE)


@pytest.fixture(scope="module")
def compiled():
    """In the mode that training uses: one compilation for all sizes of a batch."""
    net = backbone()

    def stages(images, padded_size):
        return net.stages(images, padded_size)

    images = ms.Tensor(shape=[None, 3, None, None], dtype=ms.float32)
    return ms.enable_dynamic(images=images)(ms.jit(stages, fullgraph=True))


@pytest.mark.parametrize("name", network.INPUTS)
def test_compiled(compiled, name):
    images, _, padded_size = map(Tensor, network.INPUTS[name]())
    assert_stages(name, compiled(images, padded_size))


def test_eager():
    images, _, padded_size = map(Tensor, network.INPUTS["alone1"]())
    assert_stages("alone1", backbone().stages(images, padded_size))
