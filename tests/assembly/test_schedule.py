# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From the solver's numbers to the steps that are made, and what the log says of it."""

from __future__ import annotations

import logging

import pytest

from src.assembly.schedule import make_schedule, real_schedule
from src.model_utils.config import load_config
from src.model_utils.errors import InputError


@pytest.fixture
def load(tmp_path):
    def load(*flags):
        path = tmp_path / "run.yaml"
        path.write_text("{}")
        return load_config(path, [f"--solver.{flag}" for flag in flags])

    return load


def numbers(schedule):
    return schedule.max_steps, schedule.milestones, schedule.warmup_steps, schedule.base_lr


def test_as_it_stands(load, caplog):
    with caplog.at_level(logging.INFO):
        assert numbers(make_schedule(load(), 16)) == (110000, (85000, 100000), 1000, 0.02)
    assert caplog.messages == ["16 images a step; the schedule is used as it stands"]


def test_for_the_real_batch_and_then_in_so_many_steps(load, caplog):
    """The length is of real steps, so it does not depend on the batch; the rate is the batch's."""
    config = load("images_per_card=2", "scale_to_iter=1100")
    with caplog.at_level(logging.INFO):
        assert numbers(make_schedule(config, 4)) == (1100, (850, 1000), 10, 0.01)
    assert caplog.messages == [
        "8 images a step, the schedule is for 16: lr 0.02 -> 0.01, steps 110000 -> 1100, decay at "
        "[85000, 100000] -> [850, 1000], warm-up 1000 -> 10 (solver.scale_to_batch true, "
        "solver.scale_to_iter 1100)"
    ]
    unscaled = load("scale_to_iter=1100", "scale_to_batch=false")
    assert numbers(real_schedule(unscaled, 1)) == (1100, (850, 1000), 10, 0.02)


@pytest.mark.parametrize("wanted", [1, 7, 100, 109999, 330000])
def test_the_length_is_exact(load, wanted):
    for cards in (1, 3, 16):
        schedule = real_schedule(load(f"scale_to_iter={wanted}"), cards)
        assert schedule.max_steps == wanted
        assert schedule.milestones[0] == pytest.approx(wanted * 85 / 110, abs=0.5) or wanted == 1


def test_a_shorter_schedule_alone_is_refused_and_the_way_named(load):
    for flags in (["max_iter=100"], ["max_iter=100", "steps=[]"]):
        with pytest.raises(InputError, match="below max_iter 100.*set solver.scale_to_iter"):
            load(*flags)
    with pytest.raises(InputError, match="scale_to_iter: .*greater than or equal to 1"):
        load("scale_to_iter=0")
