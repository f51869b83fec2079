# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 11: the learning rate of every official configuration, for the batch it is meant for."""

import pytest
import yaml

from src.lr_schedule import Schedule, scale_schedule
from tests.golden import golden, network

pytestmark = pytest.mark.golden


def files():
    try:
        return sorted(golden.record("11_lr"))
    except OSError:
        return ["vectors of topic 11 are missing"]


def official_schedule(name):
    settings = golden.record_of(golden.common("cfg/summary.json"))[name]
    # The summary holds what differs; these are the same in all resolved files.
    resolved = [yaml.safe_load(path.read_text()) for path in golden.common("cfg").glob("*.yaml")]
    gammas = {one["SOLVER"]["GAMMA"] for one in resolved}
    factors = {one["SOLVER"]["WARMUP_FACTOR"] for one in resolved}
    assert len(gammas) == len(factors) == 1
    return Schedule(
        base_lr=settings["SOLVER.BASE_LR"],
        max_steps=settings["SOLVER.MAX_ITER"],
        milestones=tuple(settings["SOLVER.STEPS"]),
        gamma=gammas.pop(),
        warmup_steps=settings["SOLVER.WARMUP_ITERS"],
        warmup_factor=factors.pop(),
    )


@pytest.mark.parametrize("name", files())
def test_rates(name):
    expected = golden.record("11_lr")[name]
    schedule = official_schedule(name)
    assert len(expected) > 5
    for step, rate in expected:
        assert schedule.lr(step) == pytest.approx(rate, rel=1e-9), step
    assert scale_schedule(schedule, 16, 16) == schedule


@pytest.mark.parametrize("kind", network.CONFIGS)
def test_own_configuration(kind):
    """The project's own file gives the official rates."""
    solver = network.config(kind).solver
    own = Schedule(
        base_lr=solver.base_lr,
        max_steps=solver.max_iter,
        milestones=solver.steps,
        gamma=solver.gamma,
        warmup_steps=solver.warmup_iters,
        warmup_factor=solver.warmup_factor,
    )
    name = network.CONFIGS[kind].removeprefix("configs/")
    few_shot = name.replace("shot.yaml", "shot_seedx.yaml")
    assert own == official_schedule(few_shot)
