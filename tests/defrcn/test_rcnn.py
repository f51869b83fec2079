# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The second stage: losses, dropout."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.rcnn import BoxPredictor, known_logits, rcnn_losses
from tests.helpers.small import MODES, boxes_in

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
K = 3


def losses(logits, deltas, boxes, classes, gt, valid):
    return rcnn_losses(
        logits, deltas, boxes, classes, gt, valid, box_weights=WEIGHTS, smooth_l1_beta=0.0
    )


def oracle(logits, deltas, boxes, classes, gt, valid):
    cls = box = 0.0
    for row in np.flatnonzero(valid):
        wide = logits[row].astype(np.float64)
        cls += np.log(np.exp(wide - wide.max()).sum()) + wide.max() - wide[classes[row]]
        if classes[row] < K:
            size, wanted = boxes[row, 2:] - boxes[row, :2], gt[row, 2:] - gt[row, :2]
            shift = (gt[row, :2] + wanted / 2 - boxes[row, :2] - size / 2) / size
            target = np.concatenate((shift, np.log(wanted / size))) * np.array(WEIGHTS)
            own = deltas[row, 4 * classes[row] : 4 * classes[row] + 4]
            box += np.abs(own - target).sum()
    total = max(valid.sum(), 1)
    return cls / total, box / total


def case(count=14, seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(count, K + 1)).astype(np.float32) * 3,
        rng.normal(size=(count, 4 * K)).astype(np.float32),
        boxes_in((90, 120), count, seed),
        rng.permutation(np.arange(count) % (K + 1)).astype(np.int32),
        boxes_in((90, 120), count, seed + 1),
        np.arange(count) < count - 4,
    ]


def values(mode, arrays):
    return [float(one.asnumpy()) for one in mode(losses)(*map(Tensor, arrays))]


@MODES
def test_losses_against_a_loop(mode):
    arrays = case()
    assert values(mode, arrays) == pytest.approx(oracle(*arrays), rel=1e-5)


@MODES
def test_no_foreground_and_no_sample(mode):
    arrays = case()
    arrays[3][:] = K
    cls, box = values(mode, arrays)
    assert box == 0
    assert cls == pytest.approx(oracle(*arrays)[0], rel=1e-5)
    arrays[5][:] = False
    assert values(mode, arrays) == [0, 0]


def gradients(arrays):
    def total(logits, deltas, boxes, classes, gt, valid):
        return sum(losses(logits, deltas, boxes, classes, gt, valid))

    return [one.asnumpy() for one in ms.grad(total, (0, 1))(*map(Tensor, arrays))]


def test_unused_slots_change_nothing():
    arrays = case()
    expected, grads = values(lambda f: f, arrays), gradients(arrays)
    valid = arrays[5]
    for position, filler in ((0, 99), (1, -7), (2, 0), (3, 1), (4, 0)):
        arrays[position][~valid] = filler
    assert values(lambda f: f, arrays) == pytest.approx(expected, rel=1e-6)
    for before, after in zip(grads, gradients(arrays)):
        np.testing.assert_allclose(after[valid], before[valid], rtol=1e-5, atol=1e-8)
        assert (after[~valid] == 0).all()


def test_gradients_are_finite_with_empty_boxes():
    arrays = case()
    for foreground in (True, False):
        arrays[2][:2] = 5  # points
        arrays[4][1:4] = 5
        arrays[5][:] = True
        arrays[3][:4] = K
        if foreground:
            arrays[3][0] = 1
        assert np.isfinite(values(lambda f: f, arrays)).all()
        assert all(np.isfinite(one).all() for one in gradients(arrays))


def test_gradient_of_the_class_loss():
    arrays = case()
    logits, classes, valid = arrays[0].astype(np.float64), arrays[3], arrays[5]
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    expected = (share - np.eye(K + 1)[classes]) * valid[:, None] / valid.sum()
    np.testing.assert_allclose(gradients(arrays)[0], expected, atol=1e-6)


@MODES
def test_what_a_picture_is_not_labelled_for_is_unknown(mode):
    """Two pictures of two samples, background and foreground; an infinite logit is unknown too."""
    logits = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    logits[2, 1] = np.inf
    classes = np.array([[K, 1], [K, 0]], np.int32)
    labelled = np.array([[True, False, True], [False, False, False]])

    def masked(logits, classes, labelled):
        return known_logits(logits, classes, labelled)

    found = mode(masked)(*map(Tensor, (logits, classes, labelled))).asnumpy()
    wanted = [[1, 0, 3, 4], [5, 6, 7, 8], [0, 0, 0, 12], [13, 14, 15, 16]]
    np.testing.assert_array_equal(found, wanted)
    gradient = ms.grad(lambda *given: masked(*given).sum())
    slopes = gradient(*map(Tensor, (logits, classes, labelled))).asnumpy()
    np.testing.assert_array_equal(slopes, np.array(wanted) > 0)


@MODES
def test_dropout_is_on_the_class_layer_only(mode):
    predictor = BoxPredictor(6, K, 0.8)
    rng = np.random.default_rng(0)
    for parameter in predictor.get_parameters():
        parameter.set_data(Tensor(rng.normal(size=parameter.shape).astype(np.float32)))
    rows = rng.normal(size=(5, 6)).astype(np.float32)
    noise = rng.random((5, 6), np.float32)

    def train(rows, noise):
        return predictor.train_forward(rows, noise)

    cls, box = (one.asnumpy() for one in mode(train)(Tensor(rows), Tensor(noise)))
    plain_cls, plain_box = (one.asnumpy() for one in predictor(Tensor(rows)))
    np.testing.assert_allclose(box, plain_box, rtol=1e-6)
    kept = rows * (noise >= 0.8) / 0.2
    weight, bias = predictor.cls_score.weight.asnumpy(), predictor.cls_score.bias.asnumpy()
    np.testing.assert_allclose(cls, kept @ weight.T + bias, rtol=1e-4, atol=1e-5)
    assert np.abs(cls - plain_cls).max() > 0.1
