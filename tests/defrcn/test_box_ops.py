# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Box maths against numbers done by hand and plain loops."""

import math

import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn import box_ops
from tests.helpers.small import MODES, boxes_in

ONES = (1.0, 1.0, 1.0, 1.0)


def t(*rows):
    return Tensor(np.array(rows, np.float32))


def loop_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return overlap / (areas - overlap) if overlap > 0 else 0.0


@MODES
def test_iou_by_hand(mode):
    iou = mode(box_ops.pairwise_iou)(
        t((0, 0, 10, 10), (5, 5, 5, 5)),
        t(
            (0, 0, 10, 10),
            (5, 0, 15, 10),
            (2, 2, 4, 7),
            (10, 0, 20, 10),
            (20, 20, 30, 30),
            (5, 5, 5, 5),
            (5, 0, 5, 9),
            (8, 8, 2, 2),
        ),
    ).asnumpy()
    np.testing.assert_allclose(iou[0], [1, 1 / 3, 0.1, 0, 0, 0, 0, 0], rtol=1e-6)
    # A point overlaps nothing, itself included, and gives no NaN.
    np.testing.assert_array_equal(iou[1], np.zeros(8))


def test_iou_against_a_loop():
    a, b = boxes_in((80, 100), 13, 0), boxes_in((80, 100), 29, 1)
    iou = box_ops.pairwise_iou(Tensor(a), Tensor(b)).asnumpy()
    expected = [[loop_iou(x, y) for y in b.astype(float)] for x in a.astype(float)]
    np.testing.assert_allclose(iou, expected, atol=1e-6)


def test_area():
    areas = box_ops.box_area(t((1, 2, 4, 8), (3, 3, 3, 9), (0, 0, 0.5, 0.5))).asnumpy()
    np.testing.assert_allclose(areas, [18, 0, 0.25])


@MODES
def test_encode_by_hand(mode):
    def encode(source, target):
        return box_ops.encode_boxes(source, target, (10.0, 10.0, 5.0, 5.0))

    # Twice as wide, half as high, its centre 5 right and 20 up.
    deltas = mode(encode)(t((0, 0, 20, 40)), t((-5, -10, 35, 10))).asnumpy()
    expected = [[10 * 5 / 20, 10 * -20 / 40, 5 * math.log(2), 5 * math.log(0.5)]]
    np.testing.assert_allclose(deltas, expected, rtol=1e-5)


@MODES
def test_decode_inverts_encode(mode):
    weights = (10.0, 10.0, 5.0, 5.0)
    source, target = boxes_in((200, 300), 50, 0), boxes_in((200, 300), 50, 1)

    def round_trip(source, target):
        return box_ops.decode_boxes(box_ops.encode_boxes(source, target, weights), source, weights)

    boxes = mode(round_trip)(Tensor(source), Tensor(target)).asnumpy()
    np.testing.assert_allclose(boxes, target, atol=1e-3)


def test_only_growth_is_clamped():
    deltas = t((0, 0, 50, -50), (0, 0, -200, 1), (3, -3, 0, 0))
    boxes = box_ops.decode_boxes(deltas, t((0, 0, 16, 16)), ONES).asnumpy()
    assert boxes[0, 2] - boxes[0, 0] == pytest.approx(1000, rel=1e-5)
    np.testing.assert_allclose(boxes[0, [1, 3]], 8)
    assert boxes[1, 2] == boxes[1, 0] == 8
    assert boxes[1, 3] - boxes[1, 1] == pytest.approx(16 * math.e, rel=1e-6)
    np.testing.assert_allclose(boxes[2], [48, -48, 64, -32])


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_shows(column, value):
    deltas = np.zeros((2, 4), np.float32)
    deltas[0, column] = value
    boxes = box_ops.decode_boxes(Tensor(deltas), t((0, 0, 16, 16)), ONES)
    grown = column >= 2 and value == np.inf  # clamped like any large growth
    assert box_ops.finite(boxes).asnumpy().tolist() == [grown, True]


@MODES
def test_precise_exp(mode):
    rng = np.random.default_rng(0)
    values = np.concatenate((rng.uniform(-30, 4.14, 5000), rng.uniform(-1, 1, 5000)))
    values = values.astype(np.float32)
    exact = np.exp(values.astype(np.float64))
    actual = mode(box_ops.precise_exp)(Tensor(values)).asnumpy()
    units = np.abs(actual - exact) / np.spacing(exact.astype(np.float32))
    assert units.max() < 0.75
    special = box_ops.precise_exp(t(0, -np.inf, -1000, np.nan)).asnumpy()
    assert special[0] == 1
    assert (special[1:3] < 1e-30).all()
    assert np.isnan(special[3])


@MODES
def test_clip_and_nonempty(mode):
    size = Tensor(np.array([30, 50], np.float32))
    boxes = t((-5, -5, 60, 40), (10, 20, 20, 25), (55, 5, 70, 20), (3, 9, 3, 20))
    clipped = mode(box_ops.clip_boxes)(boxes, size)
    expected = [[0, 0, 50, 30], [10, 20, 20, 25], [50, 5, 50, 20], [3, 9, 3, 20]]
    np.testing.assert_array_equal(clipped.asnumpy(), expected)
    assert box_ops.nonempty(clipped).asnumpy().tolist() == [True, True, False, False]
    assert box_ops.nonempty(clipped, 5.0).asnumpy().tolist() == [True, False, False, False]


def test_finite():
    boxes = t((0, 1, 2, 3), (0, np.nan, 2, 3), (0, 1, np.inf, 3), (-np.inf, 1, 2, 3))
    assert box_ops.finite(boxes).asnumpy().tolist() == [True, False, False, False]
