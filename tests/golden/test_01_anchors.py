# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 01: anchors of a cell and of whole maps."""

import mindspore as ms
import numpy as np
import pytest

from src.defrcn.anchor_generator import AnchorGenerator, make_cell_anchors
from tests.golden import golden, network

pytestmark = pytest.mark.golden
TOLERANCE = 1e-4  # pixels


@pytest.fixture(scope="module")
def settings():
    return network.config("base").model.anchors


def grids():
    names = [name for name in golden.arrays("01_anchors") if name.startswith("grid_")]
    assert names
    return names


def test_cell_anchors(settings):
    expected = golden.arrays("01_anchors")["cell_anchors"]
    cells = make_cell_anchors(settings.sizes, settings.aspect_ratios)
    assert cells.dtype == np.float32
    np.testing.assert_allclose(cells, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_grids(settings, compiled):
    generator = AnchorGenerator(
        settings.sizes, settings.aspect_ratios, settings.stride, settings.offset
    )

    def anchors(features):
        return generator(features)

    if compiled:
        features = ms.Tensor(shape=[1, None, None, 1], dtype=ms.float32)
        anchors = ms.enable_dynamic(features=features)(ms.jit(anchors, fullgraph=True))
    for name in grids():
        height, width = map(int, name.removeprefix("grid_").split("x"))
        actual = anchors(ms.Tensor(np.zeros((1, height, width, 1), np.float32))).asnumpy()
        expected = golden.arrays("01_anchors")[name]
        np.testing.assert_allclose(actual, expected, atol=TOLERANCE, rtol=0, err_msg=name)
