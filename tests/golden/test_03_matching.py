# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 03: IoU and the two matchers.

The project has fixed numbers of slots, some of them unused, so there is always one box and one
ground-truth slot. Each case is padded with unused slots; they must not change anything.
"""

import functools
import inspect

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.bbox_assign_sample import label_anchors, match
from src.defrcn.bbox_assign_sample_stage2 import label_boxes
from src.defrcn.box_ops import pairwise_iou
from tests.golden import golden, network

pytestmark = pytest.mark.golden
# Of the compiled functions' arguments: one compilation serves all cases, as in training.
BOXES, FLAGS = ([None, 4], ms.float32), ([None], ms.bool_)
SHAPES = {
    **{name: BOXES for name in ("gt", "boxes", "anchors")},
    **{name: FLAGS for name in ("gt_valid", "valid", "anchor_valid")},
    "gt_classes": ([None], ms.int32),
    "iou": ([None, None], ms.float32),
}


@functools.cache
def functions():
    """What is tested, by name, with the project's own thresholds."""
    model = network.config("base").model
    thresholds, roi_threshold = model.rpn.iou_thresholds, model.roi_heads.iou_threshold

    def overlap(gt, boxes):
        return pairwise_iou(gt, boxes)

    def rpn(anchors, anchor_valid, gt, gt_valid):
        return label_anchors(anchors, anchor_valid, gt, gt_valid, thresholds)

    def roi(boxes, valid, gt, gt_classes, gt_valid):
        return label_boxes(
            boxes,
            valid,
            gt,
            gt_classes,
            gt_valid,
            iou_threshold=roi_threshold,
            num_classes=1000,
        )

    def both(iou, gt_valid):
        low, high = thresholds
        return match(iou, gt_valid, low, high, True) + match(iou, gt_valid, 0.5, 0.5, False)

    return {"overlap": overlap, "rpn": rpn, "roi": roi, "both": both}


@functools.cache
def compiled(name):
    function = functions()[name]
    shapes = {name: SHAPES[name] for name in inspect.signature(function).parameters}
    unknown = {name: Tensor(shape=shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}
    return ms.enable_dynamic(**unknown)(ms.jit(function, fullgraph=True))


def cases():
    try:
        return [str(case) for case in golden.arrays("03_matching")["cases"]]
    except OSError:
        return ["vectors of topic 03 are missing"]


def padded(boxes, fillers, extra):
    """Boxes and `extra` rows more, copies of some of `fillers`, and which of all are real."""
    rng = np.random.default_rng(0)
    if not len(fillers):
        fillers = np.array([[0, 0, 40, 40]], np.float32)
    filled = np.concatenate((boxes, fillers[rng.integers(len(fillers), size=extra)]))
    return filled.astype(np.float32), np.arange(len(filled)) < len(boxes)


@pytest.fixture(params=cases())
def case(request):
    data = golden.arrays("03_matching")
    prefix = f"{request.param}."
    return {key[len(prefix) :]: data[key] for key in data if key.startswith(prefix)}


@pytest.fixture(params=[False, True], ids=["eager", "compiled"])
def mode(request):
    return compiled if request.param else lambda name: functions()[name]


def test_iou(case, mode):
    gt = padded(case["gt"], case["boxes"], 1)[0]
    boxes = padded(case["boxes"], case["gt"], 1)[0]
    iou = mode("overlap")(Tensor(gt), Tensor(boxes)).asnumpy()
    rows, columns = case["iou"].shape
    np.testing.assert_allclose(iou[:rows, :columns], case["iou"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("mode", "extra_gt"), [(False, 0), (False, 3), (True, 3)], indirect=["mode"]
)
def test_matcher_of_the_rpn(case, mode, extra_gt):
    gt, gt_valid = padded(case["gt"], case["boxes"], max(extra_gt, 1 - len(case["gt"])))
    # Unused anchors lie on the ground truth: their IoU of 1 must not become anyone's best.
    anchors, anchor_valid = padded(case["boxes"], case["gt"], 8)
    labels, matches = mode("rpn")(*map(Tensor, (anchors, anchor_valid, gt, gt_valid)))
    count = len(case["boxes"])
    np.testing.assert_array_equal(labels.asnumpy()[:count], case["rpn_labels"])
    np.testing.assert_array_equal(matches.asnumpy()[:count], case["rpn_matches"])
    assert (labels.asnumpy()[count:] == -1).all()


@pytest.mark.parametrize(
    ("mode", "extra_gt"), [(False, 0), (False, 3), (True, 3)], indirect=["mode"]
)
def test_matcher_of_the_second_stage(case, mode, extra_gt):
    gt, gt_valid = padded(case["gt"], case["boxes"], max(extra_gt, 1 - len(case["gt"])))
    boxes, valid = padded(case["boxes"], case["gt"], 8)
    gt_classes = np.arange(len(gt), dtype=np.int32) + 5
    inputs = map(Tensor, (boxes, valid, gt, gt_classes, gt_valid))
    labels, classes, matches = (one.asnumpy() for one in mode("roi")(*inputs))
    count = len(case["boxes"])
    np.testing.assert_array_equal(labels[:count], case["roi_labels"])
    np.testing.assert_array_equal(matches[:count], case["roi_matches"])
    expected = np.where(case["roi_labels"] == 1, case["roi_matches"] + 5, 1000)
    np.testing.assert_array_equal(classes[:count], expected)
    assert (labels[count:] == -1).all()


def test_matching_the_given_iou(case, mode):
    """From the stored IoU itself, without padding where both sides have something."""
    if 0 in case["iou"].shape:
        assert (case["rpn_labels"] == 0).all()
        return
    valid = np.ones(len(case["gt"]), bool)
    outputs = mode("both")(Tensor(case["iou"]), Tensor(valid))
    names = ("rpn_matches", "rpn_labels", "roi_matches", "roi_labels")
    for name, output in zip(names, outputs):
        np.testing.assert_array_equal(output.asnumpy(), case[name], err_msg=name)
