# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The factor of the loss in half precision: when it changes, what is kept."""

import numpy as np

from src.engine.loss_scale import LARGEST, LossScale


def test_halved_by_an_overflow_doubled_after_a_window():
    scale = LossScale(8.0, window=3)
    values = []
    for overflow in (0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0):
        if overflow:
            assert scale.overflow()
        else:
            scale.step()
        values.append(scale.value)
    assert values == [8, 8, 16, 8, 8, 8, 4, 4, 4, 8, 8]
    assert scale.overflows == 2


def test_its_ends():
    scale = LossScale(2.0, window=1)
    assert scale.overflow() and scale.value == 1.0
    assert not scale.overflow()  # no smaller factor can help: the gradient itself is at fault
    scale.value = LARGEST
    scale.step()
    assert scale.value == LARGEST


def test_a_fixed_one_stays():
    scale = LossScale(128.0, dynamic=False, window=1)
    scale.step()
    assert not scale.overflow()
    assert scale.value == 128.0 and scale.overflows == 0


def test_it_goes_on_from_a_checkpoint():
    scale = LossScale(16.0, window=5)
    scale.overflow()
    scale.step()
    state = scale.state()
    assert all(isinstance(value, np.ndarray) for value in state.values())
    again = LossScale(16.0, window=5)
    again.restore(state)
    assert again == scale
    again.restore({})  # of a run in float32
    assert again == scale
    fixed = LossScale(4.0, dynamic=False)
    fixed.restore(state)
    assert (fixed.value, fixed.since, fixed.overflows) == (4.0, 1, 1)
