# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The RPN's head and losses."""

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from src.defrcn.anchor_generator import AnchorGenerator
from src.defrcn.bbox_assign_sample import RPNTargets
from src.defrcn.fast import SampledRPNHead
from src.defrcn.proposal_generator import ProposalGenerator
from src.defrcn.rpn import (
    RPN,
    ConvBias,
    RPNHead,
    RPNLosses,
    absolute_or_smooth_l1,
    rpn_losses,
)
from tests.helpers.small import MODES, boxes_in

CHANNELS, ANCHORS = 6, 3


def head(kind=RPNHead):
    parts = (CHANNELS, 3), (ANCHORS, 1), (4 * ANCHORS, 1)
    cell = kind(*(ConvBias(CHANNELS, *part) for part in parts))
    rng = np.random.default_rng(0)
    for parameter in cell.get_parameters():
        parameter.set_data(Tensor(rng.normal(0, 0.5, parameter.shape).astype(np.float32)))
    return cell


def features_of(height, width, batch=1, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, height, width, CHANNELS)).astype(np.float32)


@MODES
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 4)])
def test_at_anchors_equals_the_dense_head(mode, size):
    """Values and all gradients, at every anchor, so at every border and corner too."""
    cell, (height, width) = head(SampledRPNHead), size
    total = height * width * ANCHORS
    rng = np.random.default_rng(2)
    index = Tensor(rng.permutation(total).astype(np.int32))
    given = Tensor(rng.normal(size=(total, 5)).astype(np.float32))
    features = Tensor(features_of(height, width))

    def dense(features, given):
        logits, deltas = cell(features)
        picked = ops.gather(logits[0], index, 0), ops.gather(deltas[0], index, 0)
        return (picked[0] * given[:, 0]).sum() + (picked[1] * given[:, 1:]).sum(), picked

    def sampled(features, given):
        picked = cell.at_anchors(features, None, None, index.reshape(1, -1))
        return (picked[0] * given[:, 0]).sum() + (picked[1] * given[:, 1:]).sum(), picked

    results = []
    for function in (dense, sampled):
        step = ms.value_and_grad(function, 0, cell.trainable_params(), has_aux=True)
        results.append(run_step(step, mode)(features, given))
    (_, expected), (grad, grads) = results[0]
    (_, actual), (sampled_grad, sampled_grads) = results[1]
    for mine, wanted in zip((*actual, sampled_grad, *sampled_grads), (*expected, grad, *grads)):
        wanted = wanted.asnumpy()
        scale = max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(mine.asnumpy(), wanted, atol=2e-5 * scale, rtol=0)


def run_step(step, mode):
    def run(features, given):
        return step(features, given)

    return mode(run)


def test_formulations_of_the_dense_head_agree():
    features = Tensor(features_of(6, 9, batch=2))
    fast, plain = head(SampledRPNHead)(features), head()(features)
    for mine, wanted in zip(fast, plain):
        np.testing.assert_allclose(mine.asnumpy(), wanted.asnumpy(), atol=5e-5, rtol=0)


def test_order_is_row_column_anchor():
    cell, features = head(), features_of(3, 4)
    hidden = ops.conv2d(
        Tensor(features).transpose(0, 3, 1, 2), cell.conv.weight, cell.conv.bias, 1, "pad", 1
    )
    hidden = np.maximum(hidden.asnumpy()[0], 0)
    row, column, anchor = 2, 1, 2
    place = (row * 4 + column) * ANCHORS + anchor
    logits, deltas = (one.asnumpy()[0] for one in cell(Tensor(features)))
    at = hidden[:, row, column]
    weight = cell.objectness_logits.weight.asnumpy()[anchor, :, 0, 0]
    bias = cell.objectness_logits.bias.asnumpy()[anchor]
    assert logits[place] == pytest.approx(float(weight @ at + bias), rel=1e-4)
    weight = cell.anchor_deltas.weight.asnumpy()[4 * anchor : 4 * anchor + 4, :, 0, 0]
    bias = cell.anchor_deltas.bias.asnumpy()[4 * anchor : 4 * anchor + 4]
    np.testing.assert_allclose(deltas[place], weight @ at + bias, rtol=1e-4, atol=1e-5)


def test_smooth_l1():
    difference = Tensor(np.array([-2, -0.25, 0, 0.5, 3], np.float32))
    plain = absolute_or_smooth_l1(difference, 0.0).asnumpy()
    np.testing.assert_allclose(plain, [2, 0.25, 0, 0.5, 3])
    smooth = absolute_or_smooth_l1(difference, 1.0).asnumpy()
    np.testing.assert_allclose(smooth, [1.5, 0.03125, 0, 0.125, 2.5])


def losses(logits, deltas, anchors, gt, positive, valid):
    return rpn_losses(
        logits,
        deltas,
        anchors,
        gt,
        positive,
        valid,
        box_weights=(1.0, 1.0, 1.0, 1.0),
        smooth_l1_beta=0.0,
    )


@MODES
def test_losses_against_a_loop(mode):
    rng = np.random.default_rng(0)
    count = 12
    logits = (rng.normal(size=count) * 40).astype(np.float32)
    deltas = rng.normal(size=(count, 4)).astype(np.float32)
    anchors, gt = boxes_in((90, 90), count, 1), boxes_in((90, 90), count, 2)
    positive, valid = np.arange(count) < 4, np.arange(count) < 9
    # Unused slots hold anything, points included.
    gt[9:] = 0
    cls = box = 0.0
    for i in range(9):
        x = float(logits[i])
        cls += max(x, 0) - x * positive[i] + math.log1p(math.exp(-abs(x)))
        if positive[i]:
            size, wanted = anchors[i, 2:] - anchors[i, :2], gt[i, 2:] - gt[i, :2]
            shift = (gt[i, :2] + wanted / 2 - anchors[i, :2] - size / 2) / size
            target = np.concatenate((shift, np.log(wanted / size)))
            box += np.abs(deltas[i] - target).sum()
    inputs = map(Tensor, (logits, deltas, anchors, gt, positive, valid))
    actual = [float(one.asnumpy()) for one in mode(losses)(*inputs)]
    assert actual == pytest.approx([cls, box], rel=1e-5)


def test_gradients_are_finite_with_empty_slots_and_without_positives():
    zeros = np.zeros((5, 4), np.float32)
    anchors = boxes_in((50, 50), 5, 0)
    for positive, valid in ((0, 5), (0, 0), (2, 5)):
        gt = zeros.copy()
        gt[:positive] = anchors[:positive] + 1
        inputs = (
            anchors,
            gt,
            np.arange(5) < positive,
            np.arange(5) < valid,
        )
        tensors = tuple(map(Tensor, inputs))

        def total(logits, deltas, rest=tensors):
            return sum(losses(logits, deltas, *rest))

        gradients = ms.grad(total, (0, 1))(Tensor(zeros[:, 0]), Tensor(zeros))
        assert all(np.isfinite(one.asnumpy()).all() for one in gradients)
        assert (gradients[1].asnumpy()[positive:] == 0).all()
        assert (gradients[0].asnumpy()[valid:] == 0).all()


@MODES
def test_the_slope_at_0_is_that_of_a_logistic_function(mode):
    """ReLU's own slope there would pull a positive twice as far as the official code does."""
    box = Tensor(boxes_in((50, 50), 2, 0))
    rest = (Tensor(np.zeros((2, 4), np.float32)), box, box)
    used = Tensor(np.ones(2, bool))

    def total(logits, positive):
        return losses(logits, *rest, positive, used)[0]

    slope = ms.grad(total)

    def slopes(logits, positive):
        return slope(logits, positive)

    positive = Tensor(np.array([True, False]))
    found = mode(slopes)(Tensor(np.zeros(2, np.float32)), positive)
    np.testing.assert_array_equal(found.asnumpy(), [-0.5, 0.5])


def rpn(kind):
    proposals = ProposalGenerator(
        pre_nms_topk=72,
        post_nms_topk=20,
        nms_threshold=0.7,
        min_box_size=0.0,
        box_weights=(1.0, 1.0, 1.0, 1.0),
    )
    return RPN(
        head(kind),
        AnchorGenerator((16.0,), (0.5, 1.0, 2.0), 16),
        proposals,
        proposals,
        RPNTargets(iou_thresholds=(0.3, 0.7), num_samples=24, positive_fraction=0.5),
        RPNLosses((1.0, 1.0, 1.0, 1.0), 0.0, (1.0, 1.0)),
    )


def test_sampled_gradient_changes_neither_losses_nor_gradients():
    features = Tensor(features_of(4, 6, batch=2))
    gt = np.stack([boxes_in((60, 90), 2, seed) for seed in (3, 4)])
    gt_valid = Tensor(np.array([[True, True], [True, False]]))
    noise = Tensor(np.random.default_rng(5).random((2, 72), np.float32))
    results = []
    sizes = Tensor(np.array([[60, 90], [64, 80]], np.float32))
    for kind in (RPNHead, SampledRPNHead):
        cell = rpn(kind).set_train()

        def total(features, cell=cell):
            everywhere = Tensor(np.ones(72, bool))
            cls, box, proposals, valid = cell.losses(
                features, everywhere, sizes, Tensor(gt), gt_valid, noise
            )
            return cls + box, cls, box, proposals * valid[:, :, None]

        step = ms.value_and_grad(total, 0, cell.trainable_params(), has_aux=True)
        values, (grad, grads) = step(features)
        results.append([one.asnumpy() for one in (*values, grad, *grads)])
    assert results[0][2] > 0 and results[0][3].any()
    for wanted, mine in zip(*results):
        np.testing.assert_allclose(mine, wanted, atol=1e-5, rtol=1e-4)
