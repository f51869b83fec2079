# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 12: inference on each test image."""

import functools

import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.rcnn import final_detections, to_image_frame
from tests.golden import golden, network

pytestmark = [pytest.mark.golden, pytest.mark.own_process]
# Case -> kind and score threshold (None: the configuration's).
CASES = {
    "base": ("base", None),
    "base_score_0.44": ("base", 0.44),
    "fsod": ("fsod", None),
    "gfsod": ("gfsod", None),
}
# Detectors of fine-tuning differ in the number of classes only: what is compiled is base's.
RUNS = (("base", "fast"), ("base", "plain"), ("fsod", "fast"), ("gfsod", "fast"))
TOLERANCE = 3e-4
BOX_TOLERANCE, SCORE_TOLERANCE = 3e-2, 1e-4


@functools.cache
def inside(kind, formulation, i):
    """By the parts of the network, eagerly: the first stage, logits and deltas of its proposals."""
    net, _ = network.eval_step(kind, formulation)
    net.set_train(False)
    inputs = tuple(map(Tensor, network.alone(i)))
    stage = network.first_stage(net, net.proposal_generator.test_proposals, inputs)
    heads = net.roi_heads(stage["rcnn_features"], stage["proposals"], stage["valid_size"])
    return stage, *heads


@functools.cache
def outputs(kind, formulation, i):
    """Boxes, scores and valid: of the compiled step, or for fine-tuning of the parts."""
    net, step = network.eval_step(kind, formulation)
    if kind == "base":
        return [one.asnumpy()[0] for one in step(*map(Tensor, network.alone(i)))]
    stage, logits, deltas = inside(kind, formulation, i)
    sizes = Tensor(network.alone(i)[1])
    boxes, scores = net.roi_heads.decode(stage["proposals"], logits, deltas, sizes)
    return [one.asnumpy()[0] for one in (boxes, scores, stage["valid"])]


@pytest.mark.parametrize("i", [0, 1])
@pytest.mark.parametrize(
    ("name", "formulation"),
    [(name, form) for name, (kind, _) in CASES.items() for of, form in RUNS if of == kind],
)
def test_detections(name, formulation, i):
    kind, threshold = CASES[name]
    settings = network.config(kind).test
    boxes, scores, classes = final_detections(
        *outputs(kind, formulation, i),
        score_threshold=settings.score_threshold if threshold is None else threshold,
        nms_threshold=settings.nms_threshold,
        max_detections=settings.detections_per_image,
    )
    original = golden.arrays("00_inputs")[f"original_size{i}"]
    boxes, whole = to_image_frame(boxes, network.alone(i)[1][0], original)
    assert_same_detections(name, i, (boxes[whole], scores[whole], classes[whole]))


def assert_same_detections(name, i, actual):
    """Match as sets: equal scores have no order."""
    data, prefix = golden.arrays(f"12_inference_{name}"), f"image{i}."
    expected = [data[prefix + key] for key in ("boxes", "scores", "classes")]
    assert len(expected[0]) == golden.record("12_inference")[f"{name}.image{i}"]["detections"]
    for label in np.unique(np.concatenate((expected[2], actual[2]))):
        mine, theirs = actual[2] == label, expected[2] == label
        order = golden.matching_rows(expected[0][theirs], actual[0][mine], BOX_TOLERANCE)
        np.testing.assert_allclose(
            actual[1][mine][order], expected[1][theirs], atol=SCORE_TOLERANCE, rtol=0
        )
    assert (np.diff(actual[1]) <= 0).all()


@pytest.mark.parametrize("i", [0, 1])
@pytest.mark.parametrize(("kind", "formulation"), RUNS)
def test_inside(kind, formulation, i):
    """Proposals, and the second stage on them, eagerly."""
    stage, *heads = inside(kind, formulation, i)
    data, prefix = golden.arrays(f"12_inference_{kind}"), f"image{i}."
    valid = stage["valid"][0].asnumpy()
    boxes, logits = (stage[name][0].asnumpy()[valid] for name in ("proposals", "scores"))
    assert len(boxes) == golden.record("12_inference")[f"{kind}.image{i}"]["proposals"]
    order = golden.matching_rows(data[prefix + "proposal_boxes"], boxes, 1e-2)
    expected = data[prefix + "proposal_logits"]
    np.testing.assert_allclose(logits[order], expected, atol=1e-3, rtol=0)
    cls, box = (one.asnumpy()[valid][order] for one in heads)
    golden.assert_digest(data, prefix + "class_logits", cls, TOLERANCE)
    golden.assert_digest(data, prefix + "box_deltas", box, TOLERANCE)
    # The whole pass saw the same proposals.
    assert outputs(kind, formulation, i)[2].sum() == valid.sum()
