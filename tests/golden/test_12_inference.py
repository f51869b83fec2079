# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 12: inference on each test image."""

import functools

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.detections import final_detections, to_image_frame
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
def parts(kind, formulation):
    """The network's parts one after the other, what lies between them among the outputs.

    Compiled for plain, whose parts take long eagerly.
    """
    net, _ = network.eval_step(kind, formulation)
    net.set_train(False)

    def run(images, image_sizes, padded_size):
        stage = network.first_stage(
            net, net.proposal_generator.test_proposals, (images, image_sizes, padded_size)
        )
        heads = net.roi_heads(stage["rcnn_features"], stage["proposals"], stage["valid_size"])
        return stage["proposals"], stage["scores"], stage["valid"], heads[0], heads[1]

    if formulation == "fast":
        return run
    images = Tensor(shape=[1, 3, None, None], dtype=ms.float32)
    return ms.enable_dynamic(images=images)(ms.jit(run, fullgraph=True))


@functools.cache
def inside(kind, formulation, i):
    """Proposals, their logits and which there are; logits and deltas of the second stage."""
    return parts(kind, formulation)(*map(Tensor, network.alone(i)))


@functools.cache
def outputs(kind, formulation, i):
    """Boxes, scores and valid: of the compiled step as it is shipped, or of the parts."""
    net, step = network.eval_step(kind, formulation)
    if (kind, formulation) == ("base", "fast"):
        return [one.asnumpy()[0] for one in step(*map(Tensor, network.alone(i)))]
    proposals, _, valid, logits, deltas = inside(kind, formulation, i)
    boxes, scores = net.roi_heads.decode(proposals, logits, deltas, Tensor(network.alone(i)[1]))
    return [one.asnumpy()[0] for one in (boxes, scores, valid)]


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
    """Proposals, and the second stage on them."""
    proposals, scores, valid, *heads = (one.asnumpy() for one in inside(kind, formulation, i))
    data, prefix = golden.arrays(f"12_inference_{kind}"), f"image{i}."
    valid = valid[0]
    boxes, logits = proposals[0][valid], scores[0][valid]
    assert len(boxes) == golden.record("12_inference")[f"{kind}.image{i}"]["proposals"]
    order = golden.matching_rows(data[prefix + "proposal_boxes"], boxes, 1e-2)
    expected = data[prefix + "proposal_logits"]
    np.testing.assert_allclose(logits[order], expected, atol=1e-3, rtol=0)
    cls, box = (one[valid][order] for one in heads)
    golden.assert_digest(data, prefix + "class_logits", cls, TOLERANCE)
    golden.assert_digest(data, prefix + "box_deltas", box, TOLERANCE)
    # The whole pass saw the same proposals.
    assert outputs(kind, formulation, i)[2].sum() == valid.sum()
