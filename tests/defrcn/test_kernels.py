# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Kernels give, bit for bit, what the parts that they stand for give; also where it is strange."""

import functools

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from src.defrcn.anchor_generator import AnchorGenerator
from src.defrcn.bbox_assign_sample import RPNTargets
from src.defrcn.bbox_assign_sample_stage2 import ROITargets
from src.defrcn.kernels import (
    KernelAnchors,
    KernelPredictedBoxes,
    KernelProposals,
    KernelROITargets,
    KernelRPNTargets,
    KernelSquareSum,
    use_kernels,
)
from src.defrcn.proposal_generator import ProposalGenerator
from src.defrcn.rcnn import PredictedBoxes
from src.network_define import build_train_step
from src.sgd_optimizer import SGD
from tests.helpers import small
from tests.helpers.small import MODES, boxes_in, compiled, eager, training_inputs, truth


def assert_same(cell, twin, inputs, mode=eager):
    def run(*inputs):
        return cell(*inputs)

    pairs = mode(run)(*inputs), twin(*inputs)
    for found, wanted in [pairs] if isinstance(pairs[0], Tensor) else zip(*pairs):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found.asnumpy(), wanted.asnumpy())


def generator(**changes):
    settings = {
        "pre_nms_topk": 60,
        "post_nms_topk": 12,
        "nms_threshold": 0.7,
        "min_box_size": 0.0,
        "box_weights": (1.0, 1.0, 1.0, 1.0),
    }
    return ProposalGenerator(**{**settings, **changes})


def head_outputs(count, seed, images=2):
    """Logits with many ties, deltas that now and then are huge, anchors half outside."""
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=(images, count)) * 3).astype(np.float32) / 2
    deltas = rng.normal(size=(images, count, 4)) * rng.choice([0.1, 1, 30], (images, count, 1))
    corner = rng.uniform(-40, 90, (count, 2))
    anchors = np.concatenate((corner, corner + rng.uniform(2, 60, (count, 2))), 1)
    valid = rng.random(count) < 0.9
    sizes = np.array([[70, 95], [64.5, 80]] * images, np.float32)[:images]
    arrays = (logits, deltas.astype(np.float32), anchors.astype(np.float32), valid, sizes)
    return list(map(Tensor, arrays))


@pytest.mark.parametrize(
    ("mode", "changes"),
    [
        (eager, {}),
        (compiled, {}),
        (eager, {"min_box_size": 9.0}),
        (eager, {"box_weights": (10.0, 10.0, 5.0, 5.0), "nms_threshold": 0.5}),
        (eager, {"pre_nms_topk": 1000, "post_nms_topk": 400}),  # more than there are
        (eager, {"nms_threshold": 0.05, "post_nms_topk": 40}),  # few are kept
    ],
)
def test_proposals(kernels, mode, changes):
    twin, inputs = generator(**changes), head_outputs(300, 0)
    assert_same(KernelProposals(twin, kernels), twin, inputs, mode)
    assert 0 < twin(*inputs)[2].asnumpy().sum()


@pytest.mark.parametrize("mode", [eager, compiled])
def test_anchors(kernels, mode):
    twin = AnchorGenerator((32.0, 64.0, 200.0), (0.5, 1.0, 2.0), 16, 0.25)
    assert_same(KernelAnchors(twin, kernels), twin, [Tensor(np.zeros((2, 7, 11, 3)))], mode)


@pytest.mark.parametrize("mode", [eager, compiled])
def test_predicted_boxes(kernels, mode):
    """Some grow without bounds, some are no numbers."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(-10, 80, (2, 30, 2))
    proposals = np.concatenate((corner, corner + rng.uniform(2, 60, (2, 30, 2))), 2)
    deltas = rng.normal(size=(60, 12)) * rng.choice([0.1, 1, 30, 300], (60, 1))
    deltas[3::20, :5], deltas[4::20], deltas[5::20, 3] = np.nan, np.inf, -np.inf
    sizes = [[70, 95], [64.5, 80]]
    inputs = [Tensor(np.asarray(one, np.float32)) for one in (proposals, deltas, sizes)]
    twin = PredictedBoxes((10.0, 10.0, 5.0, 5.0))
    assert_same(KernelPredictedBoxes(twin, kernels), twin, inputs, mode)


def test_proposals_of_numbers_that_are_none(kernels):
    logits, deltas, anchors, valid, sizes = head_outputs(50, 9)
    broken = deltas.asnumpy()
    broken[:, ::3], broken[:, 1::3, 2] = np.nan, np.inf
    twin = generator()
    inputs = [logits, Tensor(broken), anchors, valid, sizes]
    assert_same(KernelProposals(twin, kernels), twin, inputs)
    nowhere = Tensor(np.zeros(50, bool))
    inputs = [logits, deltas, anchors, nowhere, sizes]
    assert_same(KernelProposals(twin, kernels), twin, inputs)
    assert not twin(*inputs)[2].asnumpy().any()
    # A logit that is no number has no order: it must only do no harm.
    numbers = logits.asnumpy()
    numbers[:, 7] = np.nan
    boxes, scores, kept = KernelProposals(twin, kernels)(
        Tensor(numbers), *inputs[1:3], valid, sizes
    )
    assert np.isfinite(boxes.asnumpy()).all()
    assert np.isfinite(scores.asnumpy()[kept.asnumpy()]).all()


def test_suppression_compares_in_double(kernels):
    """As the official code: an IoU of float32(0.3) is above 0.3, and its box is dropped."""
    anchors = np.array([[0, 0, 10, 10], [0, 7, 10, 10]], np.float32)  # IoU 3 / 10
    assert np.float32(30) / np.float32(100) > 0.3
    inputs = (
        Tensor(np.array([[2, 1]], np.float32)),
        Tensor(np.zeros((1, 2, 4), np.float32)),
        Tensor(anchors),
        Tensor(np.ones(2, bool)),
        Tensor(np.array([[20, 20]], np.float32)),
    )
    cell = KernelProposals(generator(nms_threshold=0.3, post_nms_topk=2), kernels)
    assert cell(*inputs)[2].asnumpy().tolist() == [[True, False]]
    cell = KernelProposals(generator(nms_threshold=0.31, post_nms_topk=2), kernels)
    assert cell(*inputs)[2].asnumpy().tolist() == [[True, True]]


@MODES
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_rpn_targets(kernels, mode, fraction):
    for seed, count in enumerate((600, 20)):
        rng = np.random.default_rng(seed)
        boxes, _, gt_valid = truth(3, 5, seed)
        # Few values, so that many draws are ties.
        noise = (rng.integers(0, 50, (3, count)) / 50).astype(np.float32)
        valid = rng.random(count) < 0.9
        anchors = boxes_in((110, 110), count, seed + 50)
        anchors[:2] = boxes[0, :2]
        inputs = tuple(map(Tensor, (anchors, valid, boxes, gt_valid, noise)))
        twin = RPNTargets(iou_thresholds=(0.3, 0.7), num_samples=32, positive_fraction=fraction)
        assert_same(KernelRPNTargets(twin, kernels), twin, inputs, eager if seed else mode)
        assert twin(*inputs)[1].asnumpy()[:2].any(1).all()


@MODES
@pytest.mark.parametrize("append", [True, False])
def test_roi_targets(kernels, mode, append):
    for seed, count in enumerate((300, 9)):
        rng = np.random.default_rng(seed)
        boxes, classes, gt_valid = truth(3, 4, seed)
        proposals = np.stack([boxes_in((90, 90), count, seed + 9 + i) for i in range(3)])
        proposals[0, :2] = boxes[0, :2]
        valid = rng.random((3, count)) < 0.9
        noise = (rng.integers(0, 50, (3, count + 4)) / 50).astype(np.float32)
        inputs = tuple(map(Tensor, (proposals, valid, boxes, classes, gt_valid, noise)))
        twin = ROITargets(
            iou_threshold=0.5,
            num_samples=32,
            positive_fraction=0.25,
            num_classes=9,
            append_gt=append,
        )
        assert_same(KernelROITargets(twin, kernels), twin, inputs, eager if seed else mode)


def test_nothing_flows_back(kernels):
    twin = RPNTargets(iou_thresholds=(0.3, 0.7), num_samples=8, positive_fraction=0.5)
    cell = KernelRPNTargets(twin, kernels)
    boxes, _, valid = truth(2, 3, 0)
    noise = Tensor(np.random.default_rng(0).random((2, 40), np.float32))

    def total(anchors):
        index, _, _, target = cell(
            anchors, Tensor(np.ones(40, bool)), Tensor(boxes), Tensor(valid), noise
        )
        return ops.gather(anchors, index.reshape(-1), 0).sum() + target.sum()

    gradient = ms.grad(total)(Tensor(boxes_in((90, 90), 40, 3))).asnumpy()
    assert gradient.sum() == 2 * 8 * 4  # of what was gathered, and of nothing else


@MODES
def test_square_sum(kernels, mode):
    rng = np.random.default_rng(0)
    sizes = ((5000,), (3, 7), (2, 3, 4, 5), ())
    tensors = tuple(Tensor(rng.normal(size=size).astype(np.float32)) for size in sizes)
    cell = KernelSquareSum(kernels)

    def total(*tensors):
        return cell(tensors)

    found = mode(total)(*tensors)
    assert found.shape == ()
    wanted = sum(np.square(one.asnumpy().astype(np.float64)).sum() for one in tensors)
    assert float(found.asnumpy()) == pytest.approx(wanted, rel=1e-6)
    for strange in (np.nan, np.inf, 1e30):
        bad = Tensor(np.array([1, strange], np.float32))
        assert not np.isfinite(mode(total)(*tensors, bad).asnumpy())


def named(net, gradients):
    names = [parameter.name for parameter in net.trainable_params()]
    return dict(zip(names, (one.asnumpy() for one in gradients)))


def compiled_pass(net, kernels):
    """Losses and all gradients of a batch, by the step that training compiles for all sizes."""
    optimizer = SGD(net.trainable_params(), [0.0] * len(net.trainable_params()), 0.9, False)
    settings = {"batch_size": 2, "exact": True, "square_sum": KernelSquareSum(kernels)}
    gradients_of, _ = build_train_step(net, optimizer, **settings)
    losses, _, gradients = gradients_of(*training_inputs())
    return losses.asnumpy(), named(net, gradients)


def eager_pass(net):
    """The same, eagerly, which is less work for a network with many operators."""

    def total(*inputs):
        losses = net.losses(*inputs)
        return sum(losses), ops.stack(losses)

    net.set_train(True)
    step = ms.value_and_grad(total, None, net.trainable_params(), has_aux=True)
    (_, losses), gradients = step(*training_inputs())
    return losses.asnumpy(), named(net, gradients)


def network(norm):
    freeze_at = 1 if norm == "FrozenBN" else 0
    return small.detector(small.section(backbone__norm=norm, backbone__freeze_at=freeze_at))


@functools.cache
def of_the_twin(norm):
    return eager_pass(network(norm))


def test_a_training_step_is_the_same_to_the_last_bit(kernels):
    wanted, of_twin = of_the_twin("FrozenBN")
    net = network("FrozenBN")
    use_kernels(net, kernels, blocks=False)
    found, of_kernels = eager_pass(net)
    assert (wanted > 0).all()
    np.testing.assert_array_equal(found, wanted)
    assert list(of_kernels) == list(of_twin)
    for name, gradient in of_twin.items():
        np.testing.assert_array_equal(of_kernels[name], gradient, err_msg=name)


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_a_training_step_with_blocks(kernels, norm):
    """Sums come in another order, so that a ReLU may switch the other way."""
    wanted, of_twin = of_the_twin(norm)
    net = network(norm)
    use_kernels(net, kernels)
    found, of_kernels = compiled_pass(net, kernels)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert sorted(of_kernels) == sorted(of_twin)
    for name, gradient in of_twin.items():
        distance = np.linalg.norm(of_kernels[name] - gradient)
        assert distance <= 1e-2 * np.linalg.norm(gradient) + 1e-6, name
