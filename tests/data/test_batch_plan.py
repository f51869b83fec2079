# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The endless order: seeded, sharded, grouped, resumable."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from src.data.batch_plan import endless_batches, endless_order
from src.model_utils.random_streams import Stream, generator


def batches(count, **changes):
    settings = {
        "num_rows": 10,
        "batch_size": 1,
        "seed": 3,
        "rank": 0,
        "world_size": 1,
        "start_batch": 0,
        "is_landscape": None,
    }
    return list(islice(endless_batches(**{**settings, **changes}), count))


def test_permutations_back_to_back():
    rows = [row for _, row in islice(endless_order(10, 3, 0, 1), 30)]
    expected = [generator(3, Stream.SHUFFLE, cycle).permutation(10) for cycle in range(3)]
    assert rows == np.concatenate(expected).tolist()
    assert [sorted(rows[k : k + 10]) for k in (0, 10, 20)] == [list(range(10))] * 3
    assert rows[:10] != rows[10:20]


@pytest.mark.parametrize("world_size", [2, 3, 16])
def test_ranks_share_one_order(world_size):
    """Rank r has the entries r, r + W, ... also across the ends of the permutations."""
    whole = list(islice(endless_order(10, 5, 0, 1), 48))
    for rank in range(world_size):
        own = [batch[0] for batch in batches(3, seed=5, rank=rank, world_size=world_size)]
        assert own == whole[rank::world_size][:3]


def test_other_seed_other_order():
    assert batches(10, seed=1) != batches(10, seed=2)
    assert batches(10, seed=1) == batches(10, seed=1)


KINDS = np.array([1, 0, 0, 1, 1, 1, 0, 1, 1, 1], dtype=bool)


@pytest.mark.parametrize("batch_size", [2, 4])
def test_grouping_is_what_two_buffers_give(batch_size):
    found = batches(20, batch_size=batch_size, is_landscape=KINDS)
    buffers, expected = {True: [], False: []}, []
    for sample in endless_order(10, 3, 0, 1):
        buffer = buffers[bool(KINDS[sample[1]])]
        buffer.append(sample)
        if len(buffer) == batch_size:
            expected.append(list(buffer))
            buffer.clear()
        if len(expected) == 20:
            break
    assert found == expected
    assert all(len({KINDS[row] for _, row in batch}) == 1 for batch in found)


@pytest.mark.parametrize("kinds", [None, KINDS])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("start", [1, 7, 40])
def test_resuming(kinds, batch_size, start):
    settings = {"batch_size": batch_size, "is_landscape": kinds, "rank": 1, "world_size": 2}
    assert batches(5, start_batch=start, **settings) == batches(start + 5, **settings)[start:]


@pytest.mark.parametrize(("images", "processes"), [(2, 2), (4, 2), (4, 4), (6, 3)])
def test_a_step_has_the_same_samples_however_it_is_shared(images, processes):
    """Also across the ends of the permutations, and when resumed."""
    whole = batches(10, batch_size=images, start_batch=2)
    share = {"batch_size": images // processes, "world_size": processes, "start_batch": 2}
    shared = [batches(10, rank=rank, **share) for rank in range(processes)]
    for step, samples in enumerate(whole):
        assert sorted(sample for own in shared for sample in own[step]) == samples
