# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What a sample draws depends on the seed and its position alone."""

from __future__ import annotations

import numpy as np
import pytest

from src.data.batching import Batch
from src.engine.noise import Noise, cell_order
from src.model_utils.random_streams import Stream, generator

NOISE = Noise(anchors_per_cell=3, proposals=20, dropout=(4, 6))


def batch(*positions, size=(64, 80), slots=2):
    count = len(positions)
    return Batch(
        images=np.zeros((count, 3, *size), np.float32),
        image_sizes=np.array([size] * count, np.float32),
        padded_size=np.array(size, np.int32),
        gt_boxes=np.zeros((count, slots, 4), np.float32),
        gt_classes=np.zeros((count, slots), np.int32),
        gt_valid=np.ones((count, slots), bool),
        image_ids=list(positions),
        file_names=[""] * count,
        original_sizes=np.array([size] * count, np.int32),
        positions=positions,
    )


def test_the_first_cells_by_hand():
    assert cell_order(3, 4).tolist() == [[0, 1, 4, 9], [3, 2, 5, 10], [7, 8, 6, 11]]


@pytest.mark.parametrize(("height", "width"), [(7, 7), (2, 9), (9, 2), (1, 1)])
def test_a_cell_keeps_its_number_in_a_larger_map(height, width):
    own, larger = cell_order(height, width), cell_order(12, 12)
    np.testing.assert_array_equal(own, larger[:height, :width])
    assert sorted(larger.reshape(-1)) == list(range(144))
    assert own.max() < max(height, width) ** 2


def test_shapes_types_and_range():
    drawn = NOISE.draw(3, batch(5, 8, size=(65, 80)))
    assert [array.shape for array in drawn] == [(2, 5 * 5 * 3), (2, 22), (8, 6)]
    assert all(array.dtype == np.float32 for array in drawn)
    assert all(((array >= 0) & (array < 1)).all() for array in drawn)
    # uniform and without repetition: as many different numbers as there are
    assert len(np.unique(drawn[0])) == drawn[0].size
    many = NOISE.draw(3, batch(0, size=(800, 1344)))[0]
    assert abs(many.mean() - 0.5) < 4 / np.sqrt(12 * many.size)


def test_seed_and_position_decide_and_nothing_repeats():
    seen = [
        array.reshape(-1)[0]
        for key in ((3, 5), (4, 5), (3, 6), (3, 0))
        for array in NOISE.draw(key[0], batch(key[1]))
    ]
    assert len(set(seen)) == 12
    for first, second in zip(NOISE.draw(3, batch(5)), NOISE.draw(3, batch(5))):
        np.testing.assert_array_equal(first, second)


def test_a_sample_draws_the_same_whatever_is_around_it():
    """Alone, or in a larger batch that is padded more and has more slots of ground truth."""
    rpn, roi, dropout = NOISE.draw(3, batch(5, size=(64, 80), slots=2))
    others = batch(4, 5, 6, size=(96, 160), slots=7)
    padded_rpn, padded_roi, padded_dropout = NOISE.draw(3, others)
    grid = padded_rpn.reshape(3, 6, 10, 3)
    np.testing.assert_array_equal(grid[1, :4, :5].reshape(-1), rpn[0])
    np.testing.assert_array_equal(padded_roi[1, :22], roi[0])
    np.testing.assert_array_equal(padded_dropout[4:8], dropout)
    assert not np.isin(grid[0], grid[1]).any()


def test_draws_are_those_of_the_streams():
    rpn, roi, dropout = NOISE.draw(3, batch(5, size=(16, 16)))
    wanted = {
        Stream.ANCHORS: rpn[0],
        Stream.PROPOSALS: roi[0, :20],
        Stream.GROUND_TRUTH: roi[0, 20:],
        Stream.DROPOUT: dropout,
    }
    for stream, values in wanted.items():
        drawn = generator(3, stream, 5).random(values.shape, np.float32)
        np.testing.assert_array_equal(values, drawn)
