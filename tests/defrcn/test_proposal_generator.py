# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What the golden vectors have no case of: equal scores."""

import numpy as np
from mindspore import Tensor

from src.defrcn.detections import nms
from src.defrcn.proposal_generator import GreedyNMS
from tests.helpers.small import MODES, boxes_in


@MODES
def test_of_equal_scores_the_first_is_kept(mode):
    boxes = np.concatenate([boxes_in((90, 90), 60, seed) for seed in range(3)])
    scores = np.sort(np.round(np.random.default_rng(0).normal(size=180) * 2))[::-1]
    scores = scores.astype(np.float32)
    assert len(set(scores.tolist())) < 20
    suppress = GreedyNMS(0.5)

    def run(boxes, scores):
        return suppress(boxes, scores)

    kept = mode(run)(Tensor(boxes), Tensor(scores)).asnumpy()
    wanted = np.zeros(180, bool)
    wanted[nms(boxes, scores, 0.5)] = True
    assert 10 < wanted.sum() < 170
    np.testing.assert_array_equal(kept, wanted)
