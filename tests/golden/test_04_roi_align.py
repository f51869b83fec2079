# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 04: ROIAlign, values and gradient."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.roi_align import ROIAlign
from tests.golden import golden

pytestmark = pytest.mark.golden
TOLERANCE = 1e-5
SCALES = {"detector": 1 / 16, "pcb": 1 / 32}


@pytest.fixture(params=SCALES)
def case(request):
    data = golden.arrays("04_roi_align")
    prefix = f"{request.param}."
    found = {key[len(prefix) :]: data[key] for key in data if key.startswith(prefix)}
    return {**found, "scale": SCALES[request.param]}


@pytest.fixture(params=[False, True], ids=["eager", "compiled"])
def mode(request):
    return (lambda function: ms.jit(function, fullgraph=True)) if request.param else lambda f: f


def pooler(case, bin_step=1):
    """A function whose `max_size` is the largest side among the boxes, no more."""
    boxes, bins = case["boxes"], case["pooled"].shape[-1]
    largest = float((boxes[..., 2:] - boxes[..., :2]).max())
    cell = ROIAlign(bins, case["scale"], largest, bin_step)

    def pool(features, boxes, size):
        return cell(features, boxes, size)

    return pool


def inputs(case):
    features = np.ascontiguousarray(case["features"].transpose(0, 2, 3, 1))
    size = np.array(features.shape[1:3], np.float32)
    return Tensor(features), Tensor(case["boxes"]), Tensor(size)


def rows_first(pooled, bins):
    """(B * B, N * R, C) -> (N * R, C, B, B)."""
    rois, channels = pooled.shape[1:]
    return pooled.transpose(1, 2, 0).reshape(rois, channels, bins, bins)


def test_pooled(case, mode):
    pooled = mode(pooler(case))(*inputs(case)).asnumpy()
    actual = rows_first(pooled, case["pooled"].shape[-1])
    np.testing.assert_allclose(actual, case["pooled"], atol=TOLERANCE, rtol=0)


def test_gradient(case, mode):
    pool = pooler(case)
    rois, channels = case["pooled"].shape[:2]
    given = Tensor(np.ascontiguousarray(case["grad_out"].reshape(rois, channels, -1)))
    given = given.transpose(2, 0, 1)

    def product(features, boxes, size):
        return (pool(features, boxes, size) * given).sum()

    differentiated = ms.grad(product)

    def gradient_of(features, boxes, size):
        return differentiated(features, boxes, size)

    gradient = mode(gradient_of)(*inputs(case)).asnumpy()
    actual = gradient.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(actual, case["grad_in"], atol=TOLERANCE, rtol=0)


def test_even_bins_are_the_even_bins(case, mode):
    pooled = mode(pooler(case, bin_step=2))(*inputs(case)).asnumpy()
    expected = case["pooled"][:, :, ::2, ::2]
    actual = rows_first(pooled, expected.shape[-1])
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE, rtol=0)


def test_each_image_alone_and_map_in_a_larger_tensor(case):
    """Rows are image 0's boxes, then image 1's; cells beyond the valid size are never read."""
    features, boxes, size = inputs(case)
    count, bins = boxes.shape[1], case["pooled"].shape[-1]
    batch, height, width, channels = features.shape
    rng = np.random.default_rng(0)
    large = rng.normal(0, 100, (batch, height + 3, width + 2, channels)).astype(np.float32)
    large[:, :height, :width] = features.asnumpy()
    pool = pooler(case)
    for i in range(batch):
        pooled = pool(Tensor(large[i : i + 1]), boxes[i : i + 1], size).asnumpy()
        expected = case["pooled"][i * count : (i + 1) * count]
        np.testing.assert_allclose(rows_first(pooled, bins), expected, atol=TOLERANCE, rtol=0)
