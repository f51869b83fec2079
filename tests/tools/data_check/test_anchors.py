# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Fit of anchors by hand, and the sizes chosen for distributions whose middles are known."""

import itertools

import numpy as np
import pytest

from src.defrcn.anchor_generator import make_cell_anchors
from src.tools.data_check.anchors import (
    anchor_fit,
    anchor_shapes,
    best_iou,
    best_ratio_iou,
    chosen_ratios,
    chosen_sizes,
    log_histogram,
    log_means,
    round_size,
)

SIZES, RATIOS = (16, 28.5, 64), (0.5, 1.0, 2.0)


def test_shapes_are_the_detectors():
    cells = make_cell_anchors(SIZES, RATIOS)
    assert anchor_shapes(SIZES, RATIOS) == pytest.approx(cells[:, 2:] - cells[:, :2], rel=1e-6)


def test_iou_by_hand():
    """A square of 10 in one of 20: 100 / 400. 20 wide, 10 high on it: 200 / 400. Across: 1/3."""
    square, wide, tall = anchor_shapes((20,), (1,)), np.array([[20.0, 10.0]]), [[10.0, 20.0]]
    assert best_iou(np.array([[10.0, 10.0], [20.0, 10.0], [20.0, 20.0]]), square) == pytest.approx(
        [0.25, 0.5, 1.0]
    )
    assert best_iou(wide, np.array(tall)) == pytest.approx([100 / 300])
    assert best_iou(wide, np.array([*tall, [19.0, 10.0]])) == pytest.approx([0.95])
    assert best_iou(np.zeros((0, 2)), square).shape == (0,)


def test_many_boxes_are_taken_in_pieces(monkeypatch):
    sides = np.random.default_rng(0).uniform(5, 90, (50, 2))
    whole = best_iou(sides, anchor_shapes(SIZES, RATIOS))
    monkeypatch.setattr("src.tools.data_check.anchors._CHUNK", 7)
    assert (best_iou(sides, anchor_shapes(SIZES, RATIOS)) == whole).all()


def test_what_no_size_can_mend():
    """The best of very many sizes, for boxes of ratio 2, 2.25 and 8 and square anchors."""
    sides = np.array([[10.0, 20.0], [40.0, 90.0], [80.0, 10.0]])
    tried = best_iou(sides, anchor_shapes(np.geomspace(5, 100, 4001), (1.0,)))
    found = best_ratio_iou(sides, (1.0,))
    assert found == pytest.approx(tried, abs=1e-3)
    assert found[1] == pytest.approx(0.5)  # hence 2.25 in the page's words
    assert best_ratio_iou(sides, (1.0, 2.0))[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0.2, 1), (7.4, 7), (15.4, 15), (17.1, 18), (33.9, 32), (34, 36), (131, 128), (250, 248)]
    + [(300, 304)],
)
def test_sizes_are_rounded(size, expected):
    assert round_size(size) == expected


def test_sizes_of_three_heaps():
    """Around 20, 50 and 200, of very different number; the middles are those of the logarithms."""
    rng = np.random.default_rng(1)
    heaps = [
        center * np.exp(rng.normal(0, 0.05, number))
        for center, number in ((20, 3000), (50, 500), (200, 60))
    ]
    assert chosen_sizes(np.concatenate(heaps), 3) == [20, 52, 200]  # 50 is half way to 52
    assert chosen_sizes(rng.permutation(np.concatenate(heaps)), 3) == [20, 52, 200]


def test_the_best_division_of_all():
    """Against every way to cut nine values into three runs."""
    values = np.array([1.0, 1.3, 2.0, 2.1, 5.0, 9.0, 11.0, 30.0, 31.0])
    logs = np.log(values)

    def squares(cuts):
        return sum(np.square(run - run.mean()).sum() for run in np.split(logs, cuts))

    cuts = min(itertools.combinations(range(1, 9), 2), key=squares)
    wanted = [np.exp(run.mean()) for run in np.split(logs, cuts)]
    assert log_means(values, 3) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_as_many_sizes_as_configured(count):
    for values in ([40.0] * 7, [0.5], [1.0, 1.1], [20.0, 300.0]):
        found = chosen_sizes(np.array(values), count)
        assert len(set(found)) == count and found == sorted(found) and found[0] >= 1
    assert len(chosen_ratios(np.array([1.0, 1.0]), count)) == count


def test_ratios_of_two_heaps():
    assert chosen_ratios(np.array([0.25] * 30 + [3.0] * 5), 2) == [0.25, 3.0]


def test_fit_before_and_after():
    """Squares of 10 and 100 beside anchors of 16 and 64: 100 / 256 and 4096 / 10000, both bad."""
    sides = np.array([[10.0, 10.0]] * 3 + [[100.0, 100.0]])
    fit = anchor_fit(sides, (16, 64), (1.0,))
    assert (fit["below_0.5"], fit["below_0.7"]) == (1.0, 1.0)
    assert fit["chosen"] == {"sizes": [10, 100], "below_0.5": 0.0, "below_0.7": 0.0}
    assert fit["chosen_ratios"]["ratios"] == [1.0]
    assert fit["ratio_below_0.5"] == 0.0
    fit = anchor_fit(sides, (10, 64), (1.0,))
    assert (fit["below_0.5"], fit["below_0.7"]) == (0.25, 0.25)
    fit = anchor_fit(np.zeros((0, 2)), (16, 64), (1.0,))
    assert (fit["below_0.5"], fit["chosen"]) == (0.0, None)


def test_bins_of_an_eighth_octave():
    """Edges at powers of 2^(1/8); a value on an edge belongs to the bin above it."""
    found = log_histogram(np.array([16.0, 16.0, 17.0, 20.0]), 0.5)
    assert found["edges"] == pytest.approx([16, 17.4482, 19.0273, 20.7494], abs=1e-3)
    assert found["counts"] == [1.5, 0.0, 0.5]
    assert log_histogram(np.zeros(0)) == {"edges": [], "counts": []}
