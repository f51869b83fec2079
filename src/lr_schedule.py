# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The learning rate as a function of the step, and its scaling to the real batch."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Schedule:
    """Steps and rates of a run: linear warm-up, then decay by `gamma` at each milestone.

    Attributes:
        base_lr: rate after warm-up.
        max_steps: steps in all.
        milestones: increasing steps from which on the rate is lower.
        gamma: factor at each milestone.
        warmup_steps: 0 for none; the base rate is reached at this step.
        warmup_factor: part of the rate at step 0.
    """

    base_lr: float
    max_steps: int
    milestones: tuple[int, ...]
    gamma: float
    warmup_steps: int
    warmup_factor: float

    def lr(self, step: int) -> float:
        """Rate of the step about to be made, counted from 0."""
        warmup = 1.0
        if step < self.warmup_steps:
            progress = step / self.warmup_steps
            warmup = self.warmup_factor * (1.0 - progress) + progress
        return self.base_lr * warmup * self.gamma ** bisect_right(self.milestones, step)


def scale_schedule(schedule: Schedule, reference_batch: int, real_batch: int) -> Schedule:
    """Convert a schedule for `reference_batch` images a step to `real_batch` (Goyal et al. 2017).

    The rate goes with the batch, the steps against it, so that as many images are seen. Steps
    are rounded, and those that were positive stay so.
    """
    ratio = real_batch / reference_batch
    return replace(_divided(schedule, ratio), base_lr=schedule.base_lr * ratio)


def resized_schedule(schedule: Schedule, max_steps: int) -> Schedule:
    """The same course of the rate in `max_steps` steps, which are rounded as above."""
    return _divided(schedule, schedule.max_steps / max_steps)


def _divided(schedule: Schedule, ratio: float) -> Schedule:
    def steps(count: int) -> int:
        return max(1, round(count / ratio)) if count > 0 else 0

    return replace(
        schedule,
        max_steps=steps(schedule.max_steps),
        milestones=tuple(map(steps, schedule.milestones)),
        warmup_steps=steps(schedule.warmup_steps),
    )
