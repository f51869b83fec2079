# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Sampling and targets of both stages."""

import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.bbox_assign_sample import match, rpn_targets, subsample
from src.defrcn.bbox_assign_sample_stage2 import append_ground_truth, roi_targets
from tests.helpers.small import MODES, boxes_in, compiled


def draw(labels, noise, count, fraction, mode=lambda f: f):
    def run(labels, noise):
        return subsample(labels, noise, count, fraction)

    outputs = mode(run)(Tensor(np.asarray(labels, np.int32)), Tensor(np.asarray(noise, np.float32)))
    return [one.asnumpy() for one in outputs]


def noise_of(count, seed=0):
    return np.random.default_rng(seed).random(count, np.float32)


@MODES
@pytest.mark.parametrize(
    ("positives", "negatives", "ignored", "expected"),
    [
        (100, 500, 50, (8, 24)),  # enough of both: a quarter is positive
        (3, 500, 50, (3, 29)),  # negatives fill the rest
        (0, 500, 7, (0, 32)),
        (100, 10, 5, (8, 10)),  # positives do not fill the rest
        (100, 0, 0, (8, 0)),
        (2, 3, 40, (2, 3)),
        (0, 0, 40, (0, 0)),
        (1, 2, 0, (1, 2)),  # fewer boxes than samples
    ],
)
def test_counts(mode, positives, negatives, ignored, expected):
    labels = np.repeat([1, 0, -1], [positives, negatives, ignored])
    labels = np.random.default_rng(1).permutation(labels)
    index, positive, valid = draw(labels, noise_of(len(labels)), 32, 0.25, mode)
    assert index.shape == positive.shape == valid.shape == (32,)
    assert (positive.sum(), (valid & ~positive).sum()) == expected
    assert (labels[index[positive]] == 1).all()
    assert (labels[index[valid & ~positive]] == 0).all()
    assert len(set(index[valid].tolist())) == valid.sum()
    # Positives first, then negatives, then unused slots, which still are indices.
    assert (np.diff(valid.astype(int)) <= 0).all() and (np.diff(positive.astype(int)) <= 0).all()
    assert ((index >= 0) & (index < len(labels))).all()


def test_every_box_is_drawn_equally_often():
    labels = np.repeat([1, 0, -1], [20, 60, 10])
    counts, rounds = np.zeros(len(labels)), 500

    def sample(labels, noise):
        return subsample(labels, noise, 16, 0.5)

    run = compiled(sample)
    for seed in range(rounds):
        outputs = run(Tensor(labels.astype(np.int32)), Tensor(noise_of(len(labels), seed)))
        index, _, valid = (one.asnumpy() for one in outputs)
        counts[index[valid]] += 1
    # Of 20 positives 8 are drawn each time, of 60 negatives 8: five standard deviations.
    for part, chance in ((slice(0, 20), 8 / 20), (slice(20, 80), 8 / 60)):
        spread = 5 * np.sqrt(rounds * chance * (1 - chance))
        assert np.abs(counts[part] - rounds * chance).max() < spread
    assert (counts[80:] == 0).all()


def test_larger_noise_comes_first():
    index, _, valid = draw([0, 1, 0, 1, 0], [0.1, 0.2, 0.9, 0.7, 0.5], 3, 0.34)
    assert index.tolist() == [3, 2, 4]
    assert valid.all()


def test_equal_noise_still_draws_different_boxes():
    labels = np.repeat([1, 0, -1], [10, 30, 5])
    index, positive, valid = draw(labels, np.full(45, 0.5), 20, 0.25)
    assert positive.sum() == 5 and valid.all()
    assert len(set(index.tolist())) == 20
    assert (labels[index[5:]] == 0).all()


def test_noise_just_below_one_keeps_kinds_apart():
    largest = np.nextafter(np.float32(1), np.float32(0))
    labels = np.array([-1, 0, 1, -1, 0, 1])
    index, positive, valid = draw(labels, [largest, 0, 0, largest, largest, largest], 6, 0.5)
    assert valid.sum() == 4 and positive.sum() == 2
    assert set(index[valid].tolist()) == {1, 2, 4, 5}


@MODES
def test_match_without_any_ground_truth(mode):
    def both(iou, valid):
        return match(iou, valid, 0.3, 0.7, True)

    iou = Tensor(np.random.default_rng(0).random((3, 9)).astype(np.float32))
    matched, labels = mode(both)(iou, Tensor(np.zeros(3, bool)))
    assert (labels.asnumpy() == 0).all()
    assert (matched.asnumpy() == 0).all()


def rpn(anchors, valid, gt, gt_valid, noise=None, count=16):
    outputs = rpn_targets(
        *map(Tensor, (anchors, valid, gt, gt_valid)),
        Tensor(noise_of(len(anchors)) if noise is None else noise),
        iou_thresholds=(0.3, 0.7),
        num_samples=count,
        positive_fraction=0.5,
    )
    return [one.asnumpy() for one in outputs]


def test_rpn_targets():
    anchors = boxes_in((100, 100), 60, 0)
    gt = anchors[[7, 31]] + np.float32(0.25)
    index, positive, valid, target = rpn(anchors, np.ones(60, bool), gt, np.ones(2, bool))
    assert {7, 31} <= set(index[positive].tolist())
    for slot in np.flatnonzero(positive):
        if index[slot] in (7, 31):
            np.testing.assert_array_equal(target[slot], gt[[7, 31].index(index[slot])])
    assert valid.all()


def test_rpn_without_ground_truth_is_all_background():
    anchors = boxes_in((100, 100), 60, 0)
    _, positive, valid, _ = rpn(anchors, np.ones(60, bool), anchors[:1], np.zeros(1, bool))
    assert not positive.any() and valid.all()


def test_anchors_over_padding_are_never_drawn_nor_the_best():
    anchors = boxes_in((100, 100), 40, 0)
    gt = anchors[:1].copy()
    usable = np.arange(40) >= 20
    anchors[25] = gt + np.array([[0, 0, 2, 2]], np.float32)
    index, positive, valid, _ = rpn(anchors, usable, gt, np.ones(1, bool), count=64)
    assert valid.sum() >= 10  # the others are ignored
    assert (index[valid] >= 20).all()
    # The ground truth's best usable anchor is positive, though a padded one fits exactly.
    assert 25 in index[positive]


def test_append_ground_truth():
    boxes, valid = append_ground_truth(
        *map(
            Tensor,
            (
                boxes_in((50, 50), 3, 0),
                np.array([True, True, False]),
                boxes_in((50, 50), 2, 1),
                np.array([True, False]),
            ),
        )
    )
    assert valid.asnumpy().tolist() == [True, True, False, True, False]
    np.testing.assert_array_equal(boxes.asnumpy()[3:], boxes_in((50, 50), 2, 1))


def roi(proposals, valid, gt, classes, gt_valid, *, count=16, append=True, mode=lambda f: f):
    def run(proposals, valid, gt, classes, gt_valid, noise):
        return roi_targets(
            proposals,
            valid,
            gt,
            classes,
            gt_valid,
            noise,
            iou_threshold=0.5,
            num_samples=count,
            positive_fraction=0.25,
            num_classes=9,
            append_gt=append,
        )

    noise = noise_of(len(proposals) + len(gt))
    inputs = (proposals, valid, gt, np.asarray(classes, np.int32), gt_valid, noise)
    return [one.asnumpy() for one in mode(run)(*map(Tensor, inputs))]


@MODES
def test_roi_targets(mode):
    proposals, gt = boxes_in((100, 100), 40, 0), boxes_in((100, 100), 2, 9)
    boxes, classes, valid, target = roi(
        proposals, np.ones(40, bool), gt, [4, 6], np.ones(2, bool), mode=mode
    )
    foreground = valid & (classes < 9)
    assert 1 <= foreground.sum() <= 4 and valid.all()
    assert set(classes[foreground].tolist()) <= {4, 6}
    for label, box in zip(classes[foreground], target[foreground]):
        np.testing.assert_array_equal(box, gt[[4, 6].index(label)])
    known = np.concatenate((proposals, gt))
    assert all((known == box).all(1).any() for box in boxes)


def test_ground_truth_is_a_proposal_only_if_appended():
    proposals = np.tile(np.array([[0, 0, 5, 5]], np.float32), (20, 1))
    gt = np.array([[50, 50, 90, 90]], np.float32)
    for append in (True, False):
        boxes, classes, valid, _ = roi(
            proposals, np.ones(20, bool), gt, [2], np.ones(1, bool), append=append
        )
        assert (classes[valid] == 2).any() == append
        assert (boxes == gt[0]).all(1).any() == append


@MODES
def test_roi_without_ground_truth_is_all_background(mode):
    proposals = boxes_in((100, 100), 40, 0)
    boxes, classes, valid, _ = roi(
        proposals, np.ones(40, bool), proposals[:2], [4, 6], np.zeros(2, bool), mode=mode
    )
    assert (classes == 9).all() and valid.all()
    assert all((proposals == box).all(1).any() for box in boxes)


@MODES
def test_invalid_proposals_are_never_drawn(mode):
    proposals = boxes_in((100, 100), 40, 0)
    # The unused ones lie exactly on the ground truth.
    usable = np.arange(40) < 6
    gt = boxes_in((100, 100), 1, 9)
    proposals[6:] = gt
    boxes, _, valid, _ = roi(
        proposals, usable, gt, [4], np.ones(1, bool), append=False, count=32, mode=mode
    )
    assert valid.sum() <= 6
    assert not (boxes[valid] == gt[0]).all(1).any()


def test_no_usable_box_at_all():
    proposals, gt = boxes_in((100, 100), 5, 0), boxes_in((100, 100), 1, 1)
    _, _, valid, _ = roi(proposals, np.zeros(5, bool), gt, [4], np.zeros(1, bool))
    assert not valid.any()
