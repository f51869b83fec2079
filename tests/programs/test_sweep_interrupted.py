# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Sweeps that are killed, fail, or find damaged files; with real processes."""

import shlex
import signal

import pytest

from src.model_utils.errors import InputError
from src.sweep.runs import locked
from tests.helpers import toy_sweep
from tests.helpers.toy_sweep import (
    FAKE,
    ROOT,
    child_pid,
    events,
    go,
    gone,
    run_folder,
    spawn,
    starts,
    wait_for,
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    return toy_sweep.enter(tmp_path, monkeypatch)


def test_killed_outright_and_resumed(place, monkeypatch):
    monkeypatch.setenv("FAKE_STEPS", "4")
    monkeypatch.setenv("FAKE_DELAY", "0.1")
    process = spawn()
    wait_for(place, "2/0/0 step 2")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(child_pid(place))  # no training goes on without its sweep
    monkeypatch.setenv("FAKE_DELAY", "0")
    assert go() == 0
    found = starts(place)
    assert found[:2] == ["1/0/0 start 0", "2/0/0 start 0"]
    assert found[2] in ("2/0/0 start 1", "2/0/0 start 2")
    assert found[3:] == ["1/1/1 start 0", "2/1/1 start 0"]
    assert "4 of 4 runs" in (place / "out dir" / ROOT / "table.md").read_text()
    output = (run_folder(place, "2shot_seed0") / "output.txt").read_text()
    assert output.index("seed 0 (new)") < output.index("seed 0 (resume)")


def test_killed_before_a_checkpoint_starts_anew(place, monkeypatch):
    monkeypatch.setenv("FAKE_STEPS", "9")
    monkeypatch.setenv("FAKE_LATE", "8")
    monkeypatch.setenv("FAKE_DELAY", "0.1")
    process = spawn(shots="1", seeds="0")
    wait_for(place, "1/0/0 step 2")
    process.kill()
    process.wait()
    assert gone(child_pid(place))
    monkeypatch.setenv("FAKE_DELAY", "0")
    assert go(shots="1", seeds="0") == 0
    assert starts(place) == ["1/0/0 start 0", "1/0/0 start 0"]
    folder = run_folder(place)
    # logs of the two attempts are apart
    assert (folder / "loss_0.log").read_text() == "loss\n"
    assert (folder / "interrupted-1" / "loss_0.log").read_text() == "loss\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_handed_on(place, monkeypatch, number, code):
    monkeypatch.setenv("FAKE_STEPS", "100")
    monkeypatch.setenv("FAKE_DELAY", "0.2")
    process = spawn(shots="1", seeds="0")
    wait_for(place, "1/0/0 step 2")  # the checkpoint of step 1 is whole
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == code
    assert f"1/0/0 signal {int(number)}" in events(place)
    assert "the same command goes on from here" in output and "Traceback" not in output
    assert gone(child_pid(place))
    monkeypatch.setenv("FAKE_STEPS", "2")
    monkeypatch.setenv("FAKE_DELAY", "0")
    assert go(shots="1", seeds="0") == 0
    assert not starts(place)[-1].endswith("start 0")


def test_nothing_of_a_childs_group_is_left(place, monkeypatch):
    """A command that starts others: SIGTERM reaches them all, nothing stays."""
    both = f'{FAKE} "$@"; exit 9'
    script = f"sh -c {shlex.quote(both)} sh"
    monkeypatch.setenv("FAKE_STEPS", "100")
    monkeypatch.setenv("FAKE_DELAY", "0.2")
    process = spawn(f"--train_command={script}", shots="1", seeds="0")
    wait_for(place, "1/0/0 step 1")
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert gone(child_pid(place))


def test_a_run_that_fails(place, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "1")
    with pytest.raises(InputError, match=r"(?s)1-shot, set 0, seed 0 failed; .*this shot fails"):
        go()
    assert len(starts(place)) == 1
    assert go("--keep_going") == 1
    ended = [line for line in events(place) if line.endswith(" end")]
    assert ended == ["2/0/0 end", "2/1/1 end"]
    assert "2 of 4 runs" in (place / "out dir" / ROOT / "table.md").read_text()


def test_a_run_of_another_process_is_left_alone(place):
    with locked(run_folder(place)):
        assert go(seeds="0") == 1
    assert starts(place) == ["2/0/0 start 0"]
    assert go(seeds="0") == 0
    assert starts(place) == ["2/0/0 start 0", "1/0/0 start 0"]


def test_two_sweeps_in_one_folder_are_never_mixed(place, monkeypatch):
    monkeypatch.setenv("FAKE_STEPS", "100")
    monkeypatch.setenv("FAKE_DELAY", "0.2")
    process = spawn(shots="1", seeds="0")
    wait_for(place, "1/0/0 step 1")
    root = place / "out dir" / ROOT
    before = {path: path.read_bytes() for path in root.rglob("sweep*")}
    with pytest.raises(InputError, match=rf"{ROOT} is in use .*process {process.pid}\)"):
        go(shots="2", seeds="1")
    assert before == {path: path.read_bytes() for path in root.rglob("sweep*")}
    process.terminate()
    process.communicate(timeout=20)
    assert [line.split()[0] for line in starts(place)] == ["1/0/0"]
    monkeypatch.setenv("FAKE_STEPS", "2")
    assert go(shots="2", seeds="1") == 0  # what a killed one leaves is no obstacle


@pytest.mark.parametrize("text", ['{"format": ', "[]", '{"format": "defrcn-sweep"}'])
def test_a_damaged_result_is_named(place, text):
    assert go(shots="1", seeds="0") == 0
    path = run_folder(place) / "sweep_result.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"sweep_result\.json"):
        go(shots="1", seeds="0")
    path.unlink()
    assert go(shots="1", seeds="0") == 0  # its checkpoint is there: evaluated again
    assert starts(place) == ["1/0/0 start 0", "1/0/0 start 2"]


def test_a_damaged_checkpoint_does_not_count(place, monkeypatch):
    assert go(shots="1", seeds="0") == 0
    folder = run_folder(place)
    (folder / "sweep_result.json").unlink()
    weights = folder / "ckpt_0" / "defrcn-2.ckpt"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert go(shots="1", seeds="0") == 0
    assert starts(place) == ["1/0/0 start 0"] * 2
