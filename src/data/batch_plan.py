# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Which images make up which batch: an endless, seeded, resumable order, sharded by rank.

All of it is a function of the seed: the data set is shuffled over and over, the shuffled lists are
laid end to end, and rank r of W takes every W-th entry from the r-th on. So nothing special
happens between two passes over the data, and the order can be entered anywhere. Without grouping
a step has the same entries whatever number of ranks shares its images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from src.model_utils.random_streams import Stream, generator

Sample = tuple[int, int]
"""Position in the endless order of all ranks (unique), row of the data set."""


def endless_order(num_rows: int, seed: int, start: int, step: int) -> Iterator[Sample]:
    """Entries start, start + step, ... of the endless shuffled order."""
    position, current, order = start, -1, np.empty(0, dtype=np.int64)
    while True:
        cycle, place = divmod(position, num_rows)
        if cycle != current:
            current = cycle
            order = generator(seed, Stream.SHUFFLE, cycle).permutation(num_rows)
        yield position, int(order[place])
        position += step


def endless_batches(
    *,
    num_rows: int,
    batch_size: int,
    seed: int,
    rank: int,
    world_size: int,
    start_batch: int,
    is_landscape: Sequence[bool] | np.ndarray | None,
) -> Iterator[list[Sample]]:
    """Batches of one rank, from number `start_batch` on.

    Args:
        num_rows: images of the data set.
        batch_size: images a batch.
        seed: decides the order.
        rank: this process, 0..world_size-1.
        world_size: number of processes that share the order.
        start_batch: batches to leave out; the rest is the same as without leaving out.
        is_landscape: (num_rows,) width > height: a batch then holds one kind only; None for
            batches of the next images whatever they are.
    """
    if batch_size == 1 or is_landscape is None:
        first = rank + start_batch * batch_size * world_size
        samples = endless_order(num_rows, seed, first, world_size)
        while True:
            yield [next(samples) for _ in range(batch_size)]
    # with grouping, the batches before decide what waits in the two buffers: go through them
    buffers: tuple[list[Sample], list[Sample]] = ([], [])
    kinds = np.asarray(is_landscape, dtype=bool)
    complete = 0
    for sample in endless_order(num_rows, seed, rank, world_size):
        buffer = buffers[0 if kinds[sample[1]] else 1]
        buffer.append(sample)
        if len(buffer) == batch_size:
            if complete >= start_batch:
                yield list(buffer)
            buffer.clear()
            complete += 1
