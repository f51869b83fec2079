# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Losses by kernels: values and gradients of what they stand for."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.kernels import KernelROILosses, KernelRPNLosses
from src.defrcn.rcnn import ROILosses
from src.defrcn.rpn import RPNLosses
from tests.helpers.small import MODES, boxes_in, eager

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
K, IMAGES, SAMPLES, ANCHORS = 5, 2, 9, 40


def passes(cell, mode):
    """What gives both losses, and both predictions' gradients for two weights of the losses."""

    def total(logits, deltas, *rest):
        first, second = cell(logits, deltas, *rest)
        return 0.75 * first + 2.0 * second

    gradient = ms.grad(total, (0, 1))

    def forward(*given):
        return cell(*given)

    def back(*given):
        return gradient(*given)

    forward, back = mode(forward), mode(back)

    def values(predictions, rest):
        given = [*map(Tensor, (*predictions, *rest))]
        return [one.asnumpy() for one in (*forward(*given), *back(*given))]

    return values


def compare(one, other, predictions, rest):
    found, wanted = one(predictions, rest), other(predictions, rest)
    for one, other in zip(found, wanted):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6 * scale)
    return found


def first_stage(seed=0, positives=3, used=7):
    rng = np.random.default_rng(seed)
    logits = (20 * rng.normal(size=IMAGES * SAMPLES)).astype(np.float32)
    deltas = rng.normal(size=(IMAGES * SAMPLES, 4)).astype(np.float32)
    anchors = boxes_in((90, 120), ANCHORS, seed)
    index = rng.integers(0, ANCHORS, (IMAGES, SAMPLES)).astype(np.int32)
    matched = boxes_in((90, 120), IMAGES * SAMPLES, seed + 1).reshape(IMAGES, SAMPLES, 4)
    matched[:, used:] = 0  # unused slots hold points
    rows = np.tile(np.arange(SAMPLES), (IMAGES, 1))
    return (logits, deltas), (anchors, index, matched, rows < positives, rows < used)


@MODES
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_first_stage(kernels, mode, beta):
    twin = RPNLosses(WEIGHTS, beta, (1.5, 0.5))
    both = passes(KernelRPNLosses(twin, kernels), mode), passes(twin, mode)
    for positives, used in ((3, 7), (0, SAMPLES), (0, 0), (SAMPLES, SAMPLES)):
        predictions, rest = first_stage(positives=positives, used=used)
        found = compare(*both, predictions, rest)
        assert (found[0] > 0) == (used > 0)
        assert (found[1] > 0) == (positives > 0)


def second_stage(seed=0, used=6):
    rng = np.random.default_rng(seed)
    logits = (3 * rng.normal(size=(IMAGES * SAMPLES, K + 1))).astype(np.float32)
    deltas = rng.normal(size=(IMAGES * SAMPLES, 4 * K)).astype(np.float32)
    boxes, matched = (
        boxes_in((90, 120), IMAGES * SAMPLES, seed + i).reshape(IMAGES, SAMPLES, 4) for i in (1, 2)
    )
    boxes[:, used:] = 0
    classes = rng.integers(0, K + 1, (IMAGES, SAMPLES)).astype(np.int32)
    valid = np.tile(np.arange(SAMPLES) < used, (IMAGES, 1))
    return (logits, deltas), (boxes, classes, matched, valid)


@MODES
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_second_stage(kernels, mode, beta):
    twin = ROILosses(WEIGHTS, beta, 1.5)
    both = passes(KernelROILosses(twin, kernels), mode), passes(twin, mode)
    for used in (6, SAMPLES, 0):
        predictions, rest = second_stage(used=used)
        found = compare(*both, predictions, rest)
        assert (found[0] > 0) == (used > 0)
    predictions, rest = second_stage()
    rest[1][:] = K  # background only
    assert compare(*both, predictions, rest)[1] == 0


def test_large_logits_do_not_overflow(kernels):
    twin = ROILosses(WEIGHTS, 0.0, 1.0)
    (logits, deltas), rest = second_stage()
    both = passes(KernelROILosses(twin, kernels), eager), passes(twin, eager)
    found = compare(*both, (60 * logits, deltas), rest)
    assert np.isfinite(found[0])
    (logits, deltas), rest = first_stage()
    twin = RPNLosses(WEIGHTS, 0.0, (1.0, 1.0))
    both = passes(KernelRPNLosses(twin, kernels), eager), passes(twin, eager)
    compare(*both, (30 * logits, deltas), rest)


@pytest.mark.parametrize("place", [0, 1])
def test_what_is_no_number_shows(kernels, place):
    for kind, twin, (predictions, rest) in (
        (KernelRPNLosses, RPNLosses(WEIGHTS, 0.0, (1.0, 1.0)), first_stage()),
        (KernelRPNLosses, RPNLosses(WEIGHTS, 1.0, (1.0, 1.0)), first_stage()),
        (KernelROILosses, ROILosses(WEIGHTS, 0.0, 1.0), second_stage()),
        (KernelROILosses, ROILosses(WEIGHTS, 1.0, 1.0), second_stage()),
    ):
        predictions[place][0] = np.nan
        if kind is KernelROILosses:
            rest[1][0, 0] = 1  # no background
        found = passes(kind(twin, kernels), eager)(predictions, rest)
        assert np.isnan(found[place])
        assert np.isnan(found[2 + place]).any()
        assert np.isfinite(found[1 - place])
