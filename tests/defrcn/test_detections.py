# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Final detections and their suppression, against numbers done by hand and plain loops."""

import numpy as np
import pytest

from src.defrcn.detections import batched_nms, final_detections, nms, to_image_frame
from tests.defrcn.test_box_ops import loop_iou
from tests.helpers.small import boxes_in

K = 3


def detect(boxes, scores, valid=None, threshold=0.05, limit=100):
    valid = np.ones(len(boxes), bool) if valid is None else valid
    return final_detections(
        boxes, scores, valid, score_threshold=threshold, nms_threshold=0.5, max_detections=limit
    )


def candidates(rows):
    """Scores (P, K + 1) from lists of K numbers, the background's is the rest."""
    scores = np.array(rows, np.float32)
    return np.concatenate((scores, 1 - scores.sum(1, keepdims=True)), 1)


def same_box_for_all(boxes):
    return np.tile(np.array(boxes, np.float32)[:, None], (1, K, 1))


def test_detections_by_hand():
    boxes = same_box_for_all([[0, 0, 10, 10], [0, 0, 10, 9], [30, 0, 40, 10]])
    scores = candidates([[0.5, 0.2, 0.05], [0.6, 0.04, 0.0], [0.0, 0.0, 0.3]])
    found = detect(boxes, scores)
    # Row 0 loses to row 1 in class 0 but not in class 1; 0.05 is not above the threshold.
    assert found[2].tolist() == [0, 2, 1]
    np.testing.assert_allclose(found[1], [0.6, 0.3, 0.2])
    np.testing.assert_array_equal(found[0], boxes[[1, 2, 0], 0])
    assert detect(boxes, scores, limit=2)[2].tolist() == [0, 2]
    assert detect(boxes, scores, valid=np.array([True, False, True]))[2].tolist() == [0, 2, 1]
    assert detect(boxes, scores, valid=np.array([True, False, True]))[1][0] == np.float32(0.5)


def test_no_detection():
    boxes = same_box_for_all([[0, 0, 10, 10]])
    for outputs in (
        detect(boxes, candidates([[0.5, 0, 0]]), threshold=0.5),
        detect(boxes, candidates([[0.5, 0, 0]]), valid=np.zeros(1, bool)),
        detect(boxes[:0], candidates([[0.5, 0, 0]])[:0]),
    ):
        assert [one.shape for one in outputs] == [(0, 4), (0,), (0,)]


def test_what_is_not_finite_is_no_detection():
    boxes = same_box_for_all([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    scores = candidates([[0.5, 0, 0]] * 3)
    boxes[0, 2, 1] = np.nan
    scores[1, 1] = np.inf
    found = detect(boxes, scores)
    np.testing.assert_array_equal(found[0], [[40, 0, 50, 10]])


def test_to_image_frame():
    boxes = np.array([[0, 0, 100, 50], [10, 20, 30, 45], [99, 10, 120, 20], [5, 5, 5, 9]])
    out, whole = to_image_frame(boxes.astype(np.float32), np.array([50, 100]), np.array([200, 150]))
    # By width 1.5, by height 4; clipped to 150 x 200.
    expected = [[0, 0, 150, 200], [15, 80, 45, 180], [148.5, 40, 150, 80], [7.5, 20, 7.5, 36]]
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert whole.tolist() == [True, True, True, False]
    assert out.dtype == np.float32
    empty, none = to_image_frame(np.zeros((0, 4), np.float32), np.ones(2), np.ones(2))
    assert empty.shape == (0, 4) and none.shape == (0,)


def loop_nms(boxes, scores, threshold):
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept = []
    for i in order:
        if all(loop_iou(boxes[i], boxes[k]) <= threshold for k in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_nms_against_a_loop(threshold):
    boxes = boxes_in((60, 60), 80, 3)
    scores = np.random.default_rng(4).random(80).astype(np.float32)
    kept = nms(boxes, scores, threshold)
    assert kept.tolist() == loop_nms(boxes, scores, threshold)
    assert 1 < len(kept) <= 80


def test_nms_of_equal_scores_keeps_the_order():
    boxes = boxes_in((60, 60), 40, 5)
    scores = np.zeros(40, np.float32)
    assert nms(boxes, scores, 0.4).tolist() == loop_nms(boxes, scores, 0.4)


def test_nms_edge_cases():
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    assert nms(*none, 0.5).shape == (0,)
    assert batched_nms(*none, np.zeros(0, np.int64), 0.5).shape == (0,)
    # IoU exactly 0.5 is kept; points neither suppress nor are suppressed.
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1], [4, 4, 4, 4], [4, 4, 4, 4]], np.float32)
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    assert nms(boxes, scores, 0.5).tolist() == [0, 1, 2, 3]
    assert nms(boxes, scores, 0.49).tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.3, [0]), (0.6, [0]), (0.7, [0, 1]), (0.9, [0, 1])]
)
def test_nms_compares_in_double_precision(threshold, kept):
    """Two boxes whose IoU is float32(threshold), which may be above or below the threshold."""
    boxes = np.array([[0, 0, 10, 1], [0, 0, 10 * threshold, 1]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    iou = boxes[1, 2] / np.float32(10)
    assert iou == np.float32(threshold)
    assert (float(iou) > threshold) == (kept == [0])
    assert nms(boxes, scores, threshold).tolist() == kept
    classes = np.zeros(2, np.int64)
    assert batched_nms(boxes, scores, classes, threshold).tolist() == kept


def test_batched_nms_is_nms_within_each_class():
    boxes = boxes_in((50, 50), 60, 6)
    rng = np.random.default_rng(7)
    scores, classes = rng.random(60).astype(np.float32), rng.integers(0, 4, 60)
    kept = batched_nms(boxes, scores, classes, 0.4)
    expected = set()
    for label in range(4):
        rows = np.flatnonzero(classes == label)
        expected |= {int(rows[i]) for i in loop_nms(boxes[rows], scores[rows], 0.4)}
    assert set(kept.tolist()) == expected
    assert (np.diff(scores[kept]) <= 0).all()
