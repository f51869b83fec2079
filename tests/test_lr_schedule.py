# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The learning rate at the edges, and its scaling to another batch."""

import pytest

from src.lr_schedule import Schedule, resized_schedule, scale_schedule

OFFICIAL = Schedule(
    base_lr=0.02,
    max_steps=110000,
    milestones=(85000, 100000),
    gamma=0.1,
    warmup_steps=1000,
    warmup_factor=0.001,
)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 2e-5),
        (1, 2e-5 + 0.02 * 0.999 / 1000),
        (500, 0.02 * (0.0005 + 0.5)),
        (999, 0.02 * (0.001 * 0.001 + 0.999)),
        (1000, 0.02),
        (84999, 0.02),
        (85000, 0.002),
        (99999, 0.002),
        (100000, 0.0002),
        (109999, 0.0002),
    ],
)
def test_edges(step, rate):
    assert OFFICIAL.lr(step) == pytest.approx(rate, rel=1e-12)


def test_without_warmup_and_milestones():
    schedule = Schedule(0.3, 10, (), 0.1, 0, 0.0)
    assert [schedule.lr(step) for step in (0, 1, 10**6)] == [0.3] * 3


def test_milestone_inside_the_warmup():
    schedule = Schedule(1.0, 20, (5,), 0.5, 10, 0.0)
    assert [schedule.lr(step) for step in (4, 5, 10)] == pytest.approx([0.4, 0.25, 0.5])


@pytest.mark.parametrize("batch", [1, 2, 8, 16, 32])
def test_scaling_sees_as_many_images(batch):
    scaled = scale_schedule(OFFICIAL, 16, batch)
    assert scaled.base_lr == pytest.approx(0.02 * batch / 16)
    assert scaled.max_steps == 110000 * 16 / batch
    assert scaled.milestones == (85000 * 16 / batch, 100000 * 16 / batch)
    assert scaled.warmup_steps == pytest.approx(1000 * 16 / batch, abs=0.5)
    assert scaled.gamma == 0.1 and scaled.warmup_factor == 0.001
    assert isinstance(scaled.max_steps, int)


def test_scaling_rounds_but_never_to_nothing():
    short = Schedule(0.01, 10, (1, 5), 0.1, 3, 0.1)
    scaled = scale_schedule(short, 1, 16)
    assert (scaled.max_steps, scaled.milestones, scaled.warmup_steps) == (1, (1, 1), 1)
    assert scale_schedule(Schedule(0.01, 10, (), 0.1, 0, 0.1), 1, 16).warmup_steps == 0
    # 7 steps of 3 images are 21 images: 10.5 steps of 2.
    assert scale_schedule(Schedule(0.01, 7, (), 0.1, 0, 0.1), 3, 2).max_steps in (10, 11)


def test_another_length_keeps_the_rates():
    shorter = resized_schedule(OFFICIAL, 100)
    assert (shorter.max_steps, shorter.milestones, shorter.warmup_steps) == (100, (77, 91), 1)
    assert shorter.base_lr == 0.02
    for part in (0.1, 0.5, 0.8, 0.99):
        assert shorter.lr(int(100 * part)) == pytest.approx(OFFICIAL.lr(int(110000 * part)))
    assert resized_schedule(OFFICIAL, 110000) == OFFICIAL
