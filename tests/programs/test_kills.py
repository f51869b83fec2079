# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Runs that are killed, interrupted or damaged: nothing finished is lost, all is the same after.

See `kill_driver` for SIGKILL at random moments; `test_parallel` kills two processes at once.
"""

import json
import os
import re
import signal
import sys

import pytest

from src.model_utils.processes import descendants
from src.weights.checkpoint import load_training_checkpoint
from tests.helpers.kill_driver import (
    KINDS,
    PROJECT,
    STEPS,
    Child,
    Driver,
    losses_of,
    same_checkpoint,
)


@pytest.mark.parametrize(("kind", "moments"), [("mindrecord", 1), ("eval", 1)])
def test_one_of_each_kind(tmp_path, trained_demo, kind, moments):
    Driver(tmp_path, seed=7, demo=trained_demo).go(kind, moments)


def test_a_training_killed_interrupted_damaged_is_the_same_bit_for_bit(tmp_path, trained_demo):
    """SIGKILL, then SIGINT, then a damaged checkpoint; what is resumed equals all at once."""
    driver = Driver(tmp_path, seed=7, demo=trained_demo)
    driver.kill_training(1, last=3)
    place = tmp_path / "victim" / "ckpt_0"
    killed_at = load_training_checkpoint(place).step if place.exists() else 0
    resume = driver.train_command("victim", "--resume=true")
    child = Child(resume, tmp_path / "victim.txt", tmp_path)
    assert child.wait_for(rf" step {killed_at + 2}/{STEPS} "), child.text()
    child.process.send_signal(signal.SIGINT)
    assert child.process.wait(600) == 130, child.text()
    assert "ended by SIGINT" in child.text() and "Traceback" not in child.text()
    saved = load_training_checkpoint(place).step
    assert killed_at + 2 <= saved < STEPS and f"saved {place}/defrcn-{saved}.ckpt" in child.text()
    newest = place / f"defrcn-{saved}.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    child = Child(resume, tmp_path / "victim.txt", tmp_path)
    child.end()
    assert f"{newest} is damaged" in child.text()
    before = rf"resumed after step {saved - 1} of \S+defrcn-{saved - 1}\.json"
    assert re.search(before, child.text())
    driver.check_end_of_training()


@pytest.mark.slow
def test_two_processes_with_norms_that_train(tmp_path, trained_demo):
    """As `test_parallel` has it with frozen ones: both killed, started again, the same end."""
    driver = Driver(tmp_path, seed=0, demo=trained_demo)

    def launch(run, *flags):
        words = driver.train_command(run, "--solver.images_per_card=1", *flags)[1:]
        command = [sys.executable, "-m", "src.launch", "--worker_num", "2", *words]
        return Child(command, tmp_path / f"{run}.txt", PROJECT)

    launch("whole", "--checkpoint.keep_last=1000").end()
    victim = launch("parts")
    assert victim.wait_for(rf" step 5/{STEPS} "), victim.text()
    for pid in (victim.process.pid, *descendants(victim.process.pid)):
        os.kill(pid, signal.SIGKILL)
    victim.process.wait()
    parts = tmp_path / "parts" / "ckpt_0"
    saved = load_training_checkpoint(parts).step
    assert 4 <= saved < STEPS
    again = launch("parts", "--resume=true")
    again.end()
    assert re.search(rf"resumed after step {saved} of ", again.text())
    whole = tmp_path / "whole" / "ckpt_0"
    same_checkpoint(whole / f"defrcn-{STEPS}.json", parts / f"defrcn-{STEPS}.json")
    losses = losses_of(parts.parent)
    assert losses == losses_of(whole.parent) and len(losses) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_moments(tmp_path, trained_demo, kind):
    Driver(tmp_path, seed=11, demo=trained_demo).go(kind, 5)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_a_sweep_of_real_trainings(tmp_path, trained_demo, number, code):
    """The training under way saves its step and ends, the sweep too; both go on from there."""
    base, steps = tmp_path, {"max_iter": 2, "steps": [], "warmup_iters": 0}
    solver = {**steps, "images_per_card": 1, "images_per_batch": 1}
    config = trained_demo.copy(base, steps=None, solver=solver)
    command = [
        *(sys.executable, "-m", "src.sweep", f"--output={base / 'sweep'}", "--dataset=own"),
        *("--setting=fsod", "--shots=1", "--seeds=0", f"--config_path={config}"),
        *(f"--base_checkpoint={trained_demo.run}", "--data.test=[shapes_test_novel]"),
        "--data.train=[shapes_train_novel_{shot}shot_seedx]",
        *("--test.visualize_images=0", "--solver.max_iter=400", "--progress_seconds=0.2"),
    ]
    child = Child(command, base / "sweep.txt", base)
    assert child.wait_for(r"step \d+/400 "), child.text()
    child.process.send_signal(number)
    assert child.process.wait(300) == code, child.text()
    folder = base / "sweep" / "tfa-like" / "1shot_seed0"
    log = (folder / "output.txt").read_text()
    assert "ending after this step" in log and "Traceback" not in log + child.text()
    step = int(re.findall(r"saved \S+defrcn-(\d+)\.ckpt", log)[-1])
    assert f"step {step}/400" in log and f"step {step + 1}/400" not in log
    child = Child(command, base / "sweep.txt", base)
    child.end()
    assert f"resumed after step {step} of" in (folder / "output.txt").read_text()
    assert json.loads((folder / "sweep_result.json").read_text())["iterations"] == 400
