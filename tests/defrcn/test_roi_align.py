# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Pooling by matrix products, compiled for all sizes; its values are golden topic 04."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.roi_align import ROIAlign
from tests.helpers.small import boxes_in


@pytest.mark.parametrize(("images", "count"), [(4, 24), (2, 5)])
def test_gradient_of_any_size(images, count):
    """Compiled for all sizes, as training on a CPU is."""
    rng = np.random.default_rng(0)
    pooler = ROIAlign(7, 1 / 16, 200.0, 2)
    features = rng.normal(size=(images, 9, 11, 6)).astype(np.float32)
    boxes = np.stack([boxes_in((140, 170), count, seed) for seed in range(images)])
    size = np.array([9, 11], np.float32)
    weight = rng.normal(size=(16, images * count, 6)).astype(np.float32)

    def total(features, boxes, size, weight):
        return (pooler(features, boxes, size) * weight).sum()

    gradient = ms.grad(total, 0)

    def back(features, boxes, size, weight):
        return gradient(features, boxes, size, weight)

    inputs = list(map(Tensor, (features, boxes, size, weight)))
    any_size = Tensor(shape=[images, None, None, 6], dtype=ms.float32)
    found = ms.enable_dynamic(features=any_size)(ms.jit(back, fullgraph=True))(*inputs)
    np.testing.assert_allclose(found.asnumpy(), back(*inputs).asnumpy(), rtol=1e-5, atol=1e-5)
