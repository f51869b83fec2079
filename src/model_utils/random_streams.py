# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Every stream of random numbers that a run draws, by number, and the generator of each.

A generator is a function of seed, stream and position, so nothing has to be stored to go on, and
what one sample draws depends neither on the samples around it nor on the process that has it.

Arrays that are drawn once, by name, stand beside these streams: starting weights, rows of new
classes and K-shot sets use `[seed, CRC-32 of the name]`. NumPy fills short keys with zeros, so such
a key would be position 0 of the stream with that number; no name has one so small.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

NOISE_SCHEME = 2
"""How a sample's numbers are drawn; kept with training states. 1 drew by (rank, step)."""


class Stream(IntEnum):
    """What the numbers are for. A position is that of a sample in the endless order, if not said.

    Attributes:
        SHUFFLE: the order of one pass over the data; the position is the pass.
        SAMPLE: short edge and flip.
        ANCHORS: which anchors the RPN learns from.
        PROPOSALS: which proposals the second stage learns from.
        GROUND_TRUTH: which ground-truth boxes it learns from beside them.
        DROPOUT: of the class layer.
        ENCODER: everything in `pretrain_encoder`; without a position.
        BASE_DRAWS: of `choose_alpha`: position 0 divides the pictures, the others draw boxes.
    """

    SHUFFLE = 0
    SAMPLE = 1
    ANCHORS = 2
    PROPOSALS = 3
    GROUND_TRUTH = 4
    DROPOUT = 5
    ENCODER = 11
    BASE_DRAWS = 12


def generator(seed: int, stream: Stream, *position: int) -> np.random.Generator:
    """Random numbers that depend on their arguments only; none of them is negative."""
    return np.random.default_rng((seed, int(stream), *position))
