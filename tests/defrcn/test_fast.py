# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The exchanged parts give what the parts that they stand for give; names stay."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.fast import BoxTiles, SampledRPNHead, TileBottleneck, make_fast
from src.defrcn.rcnn import BoxMaps
from tests.helpers import small
from tests.helpers.small import MODES, eager


def pair(**changes):
    """The same weights in a plain and a fast detector."""
    model = small.section(**changes)
    return small.detector(model, fast=False), small.detector(model, fast=True)


def box_features(net, mode):
    """What the second stage makes of three boxes of a random map."""
    rng = np.random.default_rng(3)
    features = Tensor(rng.normal(size=(1, 6, 9, 128)).astype(np.float32))
    boxes = Tensor(small.boxes_in((90, 130), 3, 4)[None])

    def run(features, boxes, valid_size):
        return net.roi_heads.box_features(features, boxes, valid_size)

    size = Tensor(np.array([6, 9], np.float32))
    return mode(run)(features, boxes, size).asnumpy()


@MODES
@pytest.mark.parametrize(
    ("changes", "layout"),
    [
        ({}, BoxTiles),
        ({"roi_heads__pooler_resolution": 8}, BoxTiles),
        ({"roi_heads__pooler_resolution": 5}, BoxMaps),
        ({"backbone__norm": "BN"}, BoxMaps),
    ],
    ids=["7 bins", "8 bins", "5 bins", "BN"],
)
def test_the_second_stage(mode, changes, layout):
    plain, fast = pair(**changes)
    assert isinstance(plain.roi_heads.layout, BoxMaps)
    assert isinstance(fast.roi_heads.layout, layout)
    tiles = [isinstance(block, TileBottleneck) for block in fast.roi_heads.res5]
    assert tiles == [layout is BoxTiles] * 2
    for net in (plain, fast):
        net.set_train(False)
    wanted, found = box_features(plain, eager), box_features(fast, mode)
    assert wanted.shape == (3, 256) and np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0)


def test_parameters_keep_names_order_values_and_what_trains():
    def of(net):
        return [(p.name, p.requires_grad, p.asnumpy().tobytes()) for p in net.get_parameters()]

    net = small.detector(small.section(roi_heads__freeze_feat=True), fast=False)
    before = of(net)
    make_fast(net)
    assert of(net) == before
    assert isinstance(net.proposal_generator.rpn_head, SampledRPNHead)
    assert not any(p.requires_grad for p in net.roi_heads.res5.get_parameters())


def test_the_dense_pass_has_a_gradient_in_evaluation_only():
    _, net = pair()
    head = net.proposal_generator.rpn_head
    features = Tensor(np.random.default_rng(0).normal(size=(1, 3, 4, 128)).astype(np.float32))
    gradient = ms.grad(lambda at: head(at)[0].sum())
    head.set_train(True)
    assert np.abs(gradient(features).asnumpy()).max() == 0
    head.set_train(False)
    assert np.abs(gradient(features).asnumpy()).max() > 0
