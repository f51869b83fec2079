# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Parts for inference runtimes give what the parts that they stand for give."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn import portable
from src.defrcn.anchor_generator import AnchorGenerator
from src.defrcn.portable import (
    FixedAnchors,
    FixedConvolution,
    FixedPointNMS,
    FixedTiles,
    NumbersFirst,
    TopFirst,
    order_by_topk,
)
from src.defrcn.proposal_generator import (
    LOWEST_SCORE,
    BestFirst,
    GreedyNMS,
    ProposalGenerator,
)
from src.defrcn.resnet import ConvNorm
from src.defrcn.winograd import winograd_conv4x4
from src.export.network import DetectorForExport
from tests.helpers import small
from tests.helpers.small import MODES


@MODES
@pytest.mark.parametrize("count", [1, 7, 50, 80])
def test_the_best_first(mode, count):
    values = np.random.default_rng(count).permutation(50).astype(np.float32) - 20
    portable, given = TopFirst(), BestFirst()

    def best(values):
        return portable(values, count)

    actual = [one.asnumpy() for one in mode(best)(Tensor(values))]
    wanted = [one.asnumpy() for one in given(Tensor(values), count)]
    assert len(wanted[0]) == min(count, 50)
    for mine, other in zip(actual, wanted):
        np.testing.assert_array_equal(mine, other)


@MODES
def test_what_is_no_number_comes_last(mode):
    values = np.array([3, np.nan, -np.inf, 7, np.nan, np.inf, 0], np.float32)
    part = NumbersFirst()

    def best(values):
        return part(values, 9)

    found, places = (one.asnumpy() for one in mode(best)(Tensor(values)))
    np.testing.assert_array_equal(found[:4], [np.inf, 7, 3, 0])
    np.testing.assert_array_equal(places[:4], [5, 3, 0, 6])
    np.testing.assert_array_equal(found[4:], np.full(5, LOWEST_SCORE, np.float32))
    assert places.max() <= 6


@pytest.mark.parametrize("count", [400, 120])
def test_proposals_by_topk_are_those_of_a_sort(count):
    """Of unknown sizes, also fewer than are asked for, and where logits and deltas are none."""
    net = small.detector(fast=False)
    rng = np.random.default_rng(0)
    anchors = small.boxes_in((90, 90), count)
    logits = rng.permutation(2 * count).reshape(2, count).astype(np.float32)
    deltas = rng.normal(0, 0.5, (2, count, 4)).astype(np.float32)
    logits[0, 5], deltas[0, 7, 2], deltas[1, np.argmax(logits[1]), 0] = np.nan, np.inf, np.nan
    sizes = np.array([[90, 80], [70, 90]], np.float32)
    inputs = tuple(map(Tensor, (logits, deltas, anchors, rng.random(count) < 0.9, sizes)))
    generator = net.proposal_generator.train_proposals
    wanted = [one.asnumpy() for one in generator(*inputs)]
    order_by_topk(net)
    generators = [cell for _, cell in net.cells_and_names() if isinstance(cell, ProposalGenerator)]
    assert len(generators) == 2
    assert all(isinstance(one.best_first, NumbersFirst) for one in generators)

    @ms.jit(fullgraph=True)
    def run(logits, deltas, anchors, anchor_valid, image_sizes):
        return generator(logits, deltas, anchors, anchor_valid, image_sizes)

    dynamic = ms.enable_dynamic(
        logits=Tensor(shape=[2, None], dtype=ms.float32),
        deltas=Tensor(shape=[2, None, 4], dtype=ms.float32),
        anchors=Tensor(shape=[None, 4], dtype=ms.float32),
        anchor_valid=Tensor(shape=[None], dtype=ms.bool_),
    )(run)
    for one, other in zip(dynamic(*inputs), wanted):
        np.testing.assert_array_equal(one.asnumpy(), other)
    assert wanted[2].all()


def crowded(count, seed):
    """Boxes of which many overlap, best first; some are points."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(5, 60, (count, 2))), 1)
    boxes[::17, 2:] = boxes[::17, :2]
    boxes[5:9] = boxes[4]
    return boxes.astype(np.float32), np.sort(rng.normal(size=count).astype(np.float32))[::-1].copy()


@MODES
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_suppression(mode, threshold):
    for seed, count in ((0, 300), (1, 20), (2, 1)):
        inputs = tuple(map(Tensor, crowded(max(count, 10), seed)))
        inputs = tuple(one[:count] for one in inputs)
        portable, given = FixedPointNMS(threshold), GreedyNMS(threshold)

        def run(boxes, scores, portable=portable):
            return portable(boxes, scores)

        kept, undecided = mode(run)(*inputs)
        wanted = given(*inputs)
        np.testing.assert_array_equal(kept.asnumpy(), wanted.asnumpy())
        assert undecided.shape == (1,)
        assert float(undecided.asnumpy()[0]) == 0
        assert count == 1 or 1 < wanted.asnumpy().sum() < count


def test_suppression_says_when_its_rounds_were_too_few():
    """In a row each box overlaps the next only: who is kept goes through all of them."""
    start = np.arange(20, dtype=np.float32) * 4
    boxes = np.stack((start, 0 * start, start + 10, 0 * start + 10), 1)
    scores = Tensor(np.arange(20, 0, -1).astype(np.float32))
    # IoU of neighbours 6 / 14, of the next but one 2 / 18
    kept, undecided = FixedPointNMS(0.4, rounds=5)(Tensor(boxes), scores)
    assert float(undecided.asnumpy()[0]) > 0
    kept, undecided = FixedPointNMS(0.4, rounds=25)(Tensor(boxes), scores)
    assert float(undecided.asnumpy()[0]) == 0
    np.testing.assert_array_equal(kept.asnumpy(), np.arange(20) % 2 == 0)


def test_anchors_of_one_size():
    given = AnchorGenerator((16.0, 40.0), (0.5, 1.0), 16)
    fixed = FixedAnchors(given, 3, 5)
    assert fixed.num_cell_anchors == 4
    features = Tensor(np.zeros((1, 3, 5, 8), np.float32))
    np.testing.assert_array_equal(fixed(features).asnumpy(), given(features).asnumpy())
    with pytest.raises(ValueError, match=r"\(3, 5\)"):
        fixed(features.swapaxes(1, 2))


@MODES
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (4, 2)])
@pytest.mark.parametrize("oblong", [False, True])
def test_a_convolution_with_its_norm_inside(mode, size, oblong):
    rng = np.random.default_rng(size[0])
    features = rng.normal(size=(1, 6, *size)).astype(np.float32)
    given = ConvNorm(6, 4, 3, 1, "FrozenBN")
    for parameter in given.get_parameters():
        low = 0.5 if "var" in parameter.name else -1.0
        parameter.set_data(Tensor(rng.uniform(low, 1.5, parameter.shape).astype(np.float32)))
    fixed = FixedConvolution(*given.folded(), given.convolve, oblong=oblong, name="conv")
    assert fixed.weight.shape == (4, 6, 3, 3 + oblong)

    def convolve(features):
        return fixed(features)

    actual = mode(convolve)(Tensor(features)).asnumpy()
    np.testing.assert_allclose(actual, given(Tensor(features)).asnumpy(), atol=1e-5, rtol=0)


def test_tiles_with_a_weight_transformed_before():
    rng = np.random.default_rng(2)
    given = ConvNorm(6, 4, 3, 1, "FrozenBN")
    given.weight.set_data(Tensor(rng.normal(size=(4, 6, 3, 3)).astype(np.float32)))
    features = Tensor(rng.normal(size=(16, 5, 6)).astype(np.float32))
    weight, bias = FixedTiles(given).folded()
    assert weight.shape == (36, 4, 6)
    actual = winograd_conv4x4(features, weight) + bias
    wanted = given(features.transpose(1, 2, 0).reshape(5, 6, 4, 4)).reshape(5, 4, 16)
    np.testing.assert_allclose(
        actual.asnumpy(), wanted.transpose(2, 0, 1).asnumpy(), atol=1e-4, rtol=0
    )


def test_overlaps_in_blocks_are_those_of_one(monkeypatch):
    boxes, scores = Tensor(small.boxes_in((300, 400), 70, 3)), Tensor(np.zeros(70, np.float32))
    whole = [one.asnumpy() for one in FixedPointNMS(0.5)(boxes, scores)]
    monkeypatch.setattr(portable, "NMS_BLOCK", 32)
    parts = [one.asnumpy() for one in FixedPointNMS(0.5)(boxes, scores)]
    assert 0 < whole[0].sum() < 70
    for one, other in zip(parts, whole):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("oblong", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_whole_detector(oblong):
    """Odd sizes inside a larger shape, with overlapping proposals."""
    images, sizes, padded = small.pictures(((70, 97),), shape=(96, 112))
    inputs = tuple(map(Tensor, (images, sizes, padded)))
    # The fast RPN head is Winograd's, the exported one is not.
    net = small.detector(masked=True, fast=oblong).set_train(False)
    wanted = [one.asnumpy() for one in net(*inputs)]
    exported = DetectorForExport(
        net,
        height=96,
        width=112,
        pixel_mean=(0, 0, 0),
        pixel_std=(1, 1, 1),
        restore_boxes=False,
        oblong=oblong,
    )
    shapes = [p.shape[2:] for p in net.get_parameters() if len(p.shape) == 4]
    assert shapes.count((3, 4)) == (7 if oblong else 0)  # the 3x3 of res2 to res4, the RPN's
    assert not any("running" in p.name or "norm.weight" in p.name for p in net.get_parameters())
    with pytest.raises(ValueError, match="anchors are for a map"):
        net(Tensor(np.zeros((1, 3, 96, 128), np.float32)), *inputs[1:])
    actual = [one.asnumpy() for one in exported.detect(*inputs)]
    for mine, other in zip(net(*inputs), actual):
        np.testing.assert_array_equal(mine.asnumpy(), other)
    assert actual[3].tolist() == [0.0]
    assert 3 <= wanted[2].sum() < 16
    np.testing.assert_array_equal(actual[2], wanted[2])
    # Another order of sums, and random weights that make much of it; otherwise the same sums.
    limits = (1e-2, 1e-4) if oblong else (1e-5, 1e-5)
    for mine, other, limit in zip(actual[:2], wanted[:2], limits):
        np.testing.assert_allclose(mine[wanted[2]], other[wanted[2]], atol=limit, rtol=0)
    assert ms.get_context("mode") == ms.PYNATIVE_MODE
