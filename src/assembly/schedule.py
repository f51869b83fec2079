# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From the `solver` section to the steps that are really made; needs no MindSpore."""

from __future__ import annotations

import logging

from src.lr_schedule import Schedule, resized_schedule, scale_schedule
from src.model_utils.config import Config

logger = logging.getLogger(__name__)


def plain_schedule(config: Config) -> Schedule:
    """The schedule as it stands in the configuration."""
    solver = config.solver
    return Schedule(
        base_lr=solver.base_lr,
        max_steps=solver.max_iter,
        milestones=solver.steps,
        gamma=solver.gamma,
        warmup_steps=solver.warmup_iters,
        warmup_factor=solver.warmup_factor,
    )


def real_schedule(config: Config, world_size: int) -> Schedule:
    """The schedule for the real batch, then in as many steps as wanted.

    Args:
        config: the configuration.
        world_size: processes that share a step.
    """
    solver, schedule = config.solver, plain_schedule(config)
    if solver.scale_to_batch:
        batch = solver.images_per_card * world_size
        schedule = scale_schedule(schedule, solver.images_per_batch, batch)
    if solver.scale_to_iter is not None:
        schedule = resized_schedule(schedule, solver.scale_to_iter)
    return schedule


def make_schedule(config: Config, world_size: int) -> Schedule:
    """`real_schedule`; the log says what was scaled."""
    solver, plain, real = config.solver, plain_schedule(config), real_schedule(config, world_size)
    batch = solver.images_per_card * world_size
    if real == plain:
        logger.info("%d images a step; the schedule is used as it stands", batch)
        return real
    logger.info(
        "%d images a step, the schedule is for %d: lr %g -> %g, steps %d -> %d, decay at %s -> %s, "
        "warm-up %d -> %d (solver.scale_to_batch %s, solver.scale_to_iter %s)",
        batch,
        solver.images_per_batch,
        plain.base_lr,
        real.base_lr,
        plain.max_steps,
        real.max_steps,
        list(plain.milestones),
        list(real.milestones),
        plain.warmup_steps,
        real.warmup_steps,
        str(solver.scale_to_batch).lower(),
        solver.scale_to_iter or "null",
    )
    return real
