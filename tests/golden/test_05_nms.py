# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 05: non-maximum suppression and the selection of proposals."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.anchor_generator import AnchorGenerator
from src.defrcn.box_ops import decode_boxes
from src.defrcn.detections import batched_nms, nms
from src.defrcn.portable import PortableProposals
from src.defrcn.proposal_generator import ProposalGenerator
from tests.golden import golden, network

pytestmark = pytest.mark.golden
THRESHOLDS = (0.3, 0.5, 0.7)
SETTINGS = {"train": (12000, 2000), "test": (6000, 1000), "small": (700, 60)}


@pytest.fixture(scope="module")
def data():
    return golden.arrays("05_nms")


@pytest.fixture(scope="module")
def anchors(data):
    settings = network.config("base").model.anchors
    cells = AnchorGenerator(
        settings.sizes, settings.aspect_ratios, settings.stride, settings.offset
    )
    height, width = map(int, -(-data["rpn.image_sizes"].max(0) // settings.stride))
    found = cells(Tensor(np.zeros((1, height, width, 1), np.float32)))
    assert found.shape[0] == data["rpn.logits"].shape[1]
    return found


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_nms(data, threshold):
    kept = nms(data["boxes"], data["scores"], threshold)
    np.testing.assert_array_equal(kept, data[f"nms_{threshold}"])
    kept = batched_nms(data["boxes"], data["scores"], data["classes"], threshold)
    np.testing.assert_array_equal(kept, data[f"batched_{threshold}"])


def test_iou_equal_to_the_threshold_is_kept(data):
    kept = nms(data["edge_boxes"], data["edge_scores"], 0.5)
    np.testing.assert_array_equal(kept, data["edge_nms_0.5"])


def test_decoded_anchors(data, anchors):
    weights = network.config("base").model.rpn.bbox_reg_weights
    decoded = decode_boxes(Tensor(data["rpn.deltas"]), anchors[None], weights).asnumpy()
    expected = data["rpn.decoded"]
    assert (np.abs(decoded - expected) <= 2e-5 * (1 + np.abs(expected))).all()


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        (setting, kind)
        for setting in SETTINGS
        for kind in ("eager", "compiled", "exported")
        if (setting, kind) != ("train", "exported")
    ],  # an exported network does not train
)
def test_proposals(data, anchors, setting, kind):
    rpn = network.config("base").model.rpn
    if setting != "small":
        own = getattr(rpn, f"pre_nms_topk_{setting}"), getattr(rpn, f"post_nms_topk_{setting}")
        assert own == SETTINGS[setting]
    before, after = SETTINGS[setting]
    settings = ProposalGenerator(
        pre_nms_topk=before,
        post_nms_topk=after,
        nms_threshold=rpn.nms_threshold,
        min_box_size=rpn.min_box_size,
        box_weights=rpn.bbox_reg_weights,
    )
    generator = PortableProposals(settings) if kind == "exported" else settings

    def propose(logits, deltas, anchors, valid, size):
        return generator(logits, deltas, anchors, valid, size)

    propose = propose if kind == "eager" else ms.jit(propose, fullgraph=True)
    everywhere = Tensor(np.ones(anchors.shape[0], bool))
    for i, size in enumerate(data["rpn.image_sizes"]):
        boxes, logits, valid, *undecided = propose(
            Tensor(data["rpn.logits"][i : i + 1]),
            Tensor(data["rpn.deltas"][i : i + 1]),
            anchors,
            everywhere,
            Tensor(size.astype(np.float32)[None]),
        )
        assert [one.asnumpy().tolist() for one in undecided] == [[0.0]] * (kind == "exported")
        boxes, logits, valid = (one.asnumpy()[0] for one in (boxes, logits, valid))
        expected = data[f"rpn.{setting}{i}_boxes"]
        assert valid.shape == (after,)
        assert valid.sum() == len(expected)
        assert valid[: len(expected)].all()
        np.testing.assert_allclose(boxes[valid], expected, atol=1e-3, rtol=0)
        logits_expected = data[f"rpn.{setting}{i}_logits"]
        np.testing.assert_allclose(logits[valid], logits_expected, atol=1e-6, rtol=0)
        # What fills the other slots is still inside the picture.
        assert (boxes >= 0).all() and (boxes <= size[[1, 0, 1, 0]]).all()
