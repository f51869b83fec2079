# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The float64 reference of benchmarks/rounding.py and the network, written apart, agree."""

import numpy as np
import pytest
from mindspore import Tensor

from benchmarks.rounding import STAGES, Reference, softmax
from src.network_define import parameters_of
from tests.helpers import small


@pytest.mark.parametrize("size", [(70, 97), (96, 112)])
def test_reference(size):
    images, sizes, padded = small.pictures((size,), shape=(96, 112))
    images /= 60  # near 1, or the scores saturate
    inputs = tuple(map(Tensor, (images, sizes, padded)))
    net = small.detector(masked=True).set_train(False)
    reference = Reference(parameters_of(net), net.roi_heads.pooler.num_bins)
    truth = reference.stages(images[0].astype(np.float64), *size)
    stages = [one.asnumpy() for one in net.backbone.stages(inputs[0], inputs[2])]
    stages[3] = stages[3].transpose(0, 3, 1, 2)
    for name, actual in zip(STAGES, stages):
        wanted = truth[name].transpose(1, 0, 2, 3)
        assert actual.shape == wanted.shape
        used = np.abs(wanted).max()
        assert used > 0.1, name
        assert np.abs(actual - wanted).max() < 1e-5 * used, name

    boxes = small.boxes_in(size, 6, 3)
    valid_size = Tensor(np.ceil(np.array(size) / 16).astype(np.float32))
    features = net.rcnn_features(Tensor(stages[3].transpose(0, 2, 3, 1)))
    logits = net.roi_heads(features, Tensor(boxes[None]), valid_size)[0].asnumpy()
    scores = reference.scores(truth["res4"], boxes, *size)
    assert logits.max() - logits.min() > 0.1
    np.testing.assert_allclose(softmax(logits), scores, atol=1e-4, rtol=0)
