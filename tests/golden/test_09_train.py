# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 09: one forward and backward pass of training."""

import functools

import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.de_frcn import LOSS_NAMES
from tests.golden import golden, network

pytestmark = [pytest.mark.golden, pytest.mark.own_process]
# Fine-tuning differs from base training in settings only; the plain formulation of these is
# compared on a small network.
CASES = (("base", "fast"), ("base", "plain"), ("fsod", "fast"), ("gfsod", "fast"))
# What lies inside fine-tuning is the same for novel and for all classes.
INNER_CASES = [case for case in CASES if case[0] != "gfsod"]
# Every run has the plain formulation's compiled step, stage by stage.
MARKS = {"plain": [pytest.mark.slow], "fast": []}
EAGER_CASES = [pytest.param(case, marks=MARKS[case[1]]) for case in INNER_CASES]
BASE_CASES = [case for case in EAGER_CASES if case.values[0][0] == "base"]
LOSS_TOLERANCE = 1e-4
FORWARD_TOLERANCE = 2e-4
# Winograd rounds otherwise: ReLU signs near zero flip.
FEATURE_GRADIENT_TOLERANCE = {"plain": 3e-3, "fast": 1e-2}


def arrays(kind):
    return golden.arrays(f"09_train_{kind}")


def assert_losses(actual, expected):
    assert set(expected) == set(LOSS_NAMES)
    named = dict(zip(LOSS_NAMES, map(float, actual)))
    assert named == pytest.approx(expected, rel=LOSS_TOLERANCE)


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request):
    """The kind and formulation of a module's tests; the step at its start."""
    network.train_step(*request.param).reset()
    return request.param


@functools.cache
def passed(kind, formulation):
    """Losses and gradients of the compiled step."""
    losses, gradients = network.first_pass(kind, formulation)
    names = [p.name for p in network.train_step(kind, formulation).optimizer.parameters]
    return losses.asnumpy(), {n: g.asnumpy() for n, g in zip(names, gradients)}


@functools.cache
def inside(kind, formulation):
    """Everything up to the proposals, eagerly, in training mode."""
    net = network.train_step(kind, formulation).net
    return network.first_stage(
        net, net.proposal_generator.train_proposals, network.train_inputs(kind)[:3]
    )


@functools.cache
def eagerly(kind, formulation):
    """Losses, and their gradient at the backbone's output, by eager code from end to end."""
    net, features = network.train_step(kind, formulation).net, inside(kind, formulation)["features"]
    return network.losses_from(net, features, network.train_inputs(kind))


@functools.cache
def samples(kind, formulation):
    """Boxes, classes and ground truth of each image's samples, in the stored order."""
    net, stage = network.train_step(kind, formulation).net, inside(kind, formulation)
    inputs = network.train_inputs(kind)
    sampled = net.roi_heads.targets(stage["proposals"], stage["valid"], *inputs[3:6], inputs[7])
    boxes, classes, used, target = (one.asnumpy() for one in sampled)
    found = []
    for i in range(2):
        own = boxes[i][used[i]]
        order = golden.matching_rows(arrays(kind)[f"roi_boxes{i}"], own, 1e-2)
        found.append((own[order], classes[i][used[i]][order], target[i][used[i]][order]))
    return found


def test_losses(case):
    assert_losses(passed(*case)[0], golden.record(f"09_train_{case[0]}")["losses"])


@pytest.mark.parametrize("case", BASE_CASES, indirect=True, ids=str)
def test_losses_when_image_1_has_no_boxes(case):
    kind, formulation = case
    expected = golden.record(f"09_train_{kind}_image1_without_boxes")["losses"]
    step = network.train_step(kind, formulation)
    losses, square, _ = step.gradients_of(*network.train_inputs(kind, without_boxes=(1,)))
    assert_losses(losses.asnumpy(), expected)
    assert np.isfinite(square.asnumpy())


@pytest.mark.parametrize("case", BASE_CASES, indirect=True, ids=str)
def test_losses_eager(case):
    kind, formulation = case
    expected = golden.record(f"09_train_{kind}")["losses"]
    assert_losses(eagerly(kind, formulation)[0], expected)


def test_trainable_and_frozen(case):
    kind, formulation = case
    net = network.train_step(kind, formulation).net
    expected = golden.record(f"09_train_{kind}")
    trainable = {p.name for p in net.get_parameters() if p.requires_grad}
    assert trainable == set(expected["trainable"])
    assert {p.name for p in net.trainable_params()} == trainable
    # Statistics of frozen norms are parameters here and buffers there.
    frozen = {p.name for p in net.get_parameters() if not p.requires_grad}
    assert set(expected["frozen"]) <= frozen
    buffers = {name for name in frozen - set(expected["frozen"]) if ".norm." not in name}
    assert not buffers


def test_gradients(case):
    kind, formulation = case
    data, names = arrays(kind), golden.record(f"09_train_{kind}")["trainable"]
    gradients = passed(kind, formulation)[1]
    assert set(gradients) == set(names)
    for row, name in enumerate(names):
        gradient, l2 = gradients[name], data["grad.l2"][row]
        length = np.sqrt((gradient.astype(np.float64) ** 2).sum())
        assert length == pytest.approx(l2, rel=3e-3), name
        index = data["grad.idx"][row]
        expected = data["grad.val"][row][index >= 0]
        difference = np.abs(golden.table_entries(index, gradient) - expected)
        allowed = 4e-2 * l2 / np.sqrt(gradient.size) + 2e-2 * np.abs(expected)
        assert (difference <= allowed).all(), name


def test_first_stage(case):
    kind, formulation = case
    data, stage = arrays(kind), inside(kind, formulation)
    features = stage["features"].asnumpy().transpose(0, 3, 1, 2)
    golden.assert_digest(data, "res4", features, FORWARD_TOLERANCE)
    batch, _, height, width = features.shape
    logits = stage["logits"].asnumpy().reshape(batch, height, width, -1)
    golden.assert_digest(data, "rpn_logits", logits.transpose(0, 3, 1, 2), FORWARD_TOLERANCE)
    deltas = stage["deltas"].asnumpy().reshape(batch, height, width, -1)
    golden.assert_digest(data, "rpn_deltas", deltas.transpose(0, 3, 1, 2), FORWARD_TOLERANCE)


def test_proposals(case):
    kind, formulation = case
    data, stage = arrays(kind), inside(kind, formulation)
    for i in range(2):
        valid = stage["valid"][i].asnumpy()
        boxes, logits = (stage[name][i].asnumpy()[valid] for name in ("proposals", "scores"))
        order = golden.matching_rows(data[f"proposal_boxes{i}"], boxes, 1e-2)
        expected = data[f"proposal_logits{i}"]
        np.testing.assert_allclose(logits[order], expected, atol=1e-3, rtol=0)
        # Swaps are near ties only.
        np.testing.assert_allclose(logits, np.sort(logits)[::-1], atol=0, rtol=0)


def test_anchor_labels(case):
    kind, formulation = case
    net, stage = network.train_step(kind, formulation).net, inside(kind, formulation)
    boxes, _, valid = map(Tensor, network.ground_truth(kind))
    for i in range(2):
        labels = network.anchor_labels(net, stage, boxes[i], valid[i])
        np.testing.assert_array_equal(labels, arrays(kind)[f"anchor_labels{i}"])


def test_samples_of_the_second_stage(case):
    kind, formulation = case
    data = arrays(kind)
    num_classes = network.train_step(kind, formulation).net.roi_heads.targets.num_classes
    for i, (_, classes, target) in enumerate(samples(kind, formulation)):
        np.testing.assert_array_equal(classes, data[f"roi_classes{i}"])
        foreground = classes < num_classes
        assert foreground.any()
        expected = data[f"roi_gt_boxes{i}"][foreground]
        np.testing.assert_allclose(target[foreground], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("case", INNER_CASES, indirect=True, ids=str)
def test_second_stage(case):
    kind, formulation = case
    data, stage = arrays(kind), inside(kind, formulation)
    net = network.train_step(kind, formulation).net
    boxes = [own[0] for own in samples(kind, formulation)]
    maps, logits, deltas = network.second_stage(net, stage, boxes)
    golden.assert_digest(data, "res5", maps, FORWARD_TOLERANCE)
    golden.assert_digest(data, "class_logits", logits, FORWARD_TOLERANCE)
    golden.assert_digest(data, "box_deltas", deltas, FORWARD_TOLERANCE)


@pytest.mark.parametrize("case", EAGER_CASES, indirect=True, ids=str)
def test_gradient_at_the_backbones_output(case):
    kind, formulation = case
    tolerance = FEATURE_GRADIENT_TOLERANCE[formulation]
    golden.assert_digest(arrays(kind), "grad_res4", eagerly(kind, formulation)[1], tolerance)
