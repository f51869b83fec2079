# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Copies on ModelArts, with processes that really wait, fail and die, and a stand-in for moxing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.assembly.modelarts import copies, on_this_machine
from src.model_utils import moxing_adapter
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder

PROJECT = project_folder()
FAKE_MOXING = PROJECT / "tests" / "helpers" / "fake_moxing"
LIMIT = 60


class Machine:
    """Starts processes of runs on one machine, and knows what was copied."""

    def __init__(self, folder):
        self.folder = folder
        self.out = folder / "obs" / "out"
        self.log = folder / "moxing.log"
        (folder / "obs" / "data").mkdir(parents=True)
        (folder / "obs" / "data" / "a.txt").write_text("data")
        self.started = []

    def start(self, rank, moxing=True, environ=None, **options):
        paths = [
            str(PROJECT),
            *([str(PROJECT / "tests" / "helpers" / "fake_moxing")] if moxing else []),
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.modelarts_process", str(self.folder), str(rank)]
            + [f"{key}={value}" for key, value in options.items()],
            env={
                "PYTHONPATH": os.pathsep.join(paths),
                "MOXING_LOG": str(self.log),
                "PATH": "",
                **(environ or {}),
            },
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def copied(self):
        """(pid, name of the source) of every copy."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(int(line.split()[0]), Path(line.split()[1]).name) for line in lines]

    def wait_for(self, condition):
        limit = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < limit
            time.sleep(0.02)

    def results(self):
        return {path.name for path in self.out.glob("*")}


@pytest.fixture
def machine(tmp_path):
    one = Machine(tmp_path)
    yield one
    for process in one.started:
        process.kill()
        process.communicate()


def ended(process):
    text, _ = process.communicate(timeout=LIMIT)
    return process.returncode, text


def test_one_process(machine):
    process = machine.start(0)
    code, text = ended(process)
    assert code == 0, text
    assert machine.copied() == [(process.pid, "data"), (process.pid, "train")]
    assert (machine.out / "0.txt").read_text() == "data"
    (machine.folder / "obs" / "data" / "a.txt").write_text("changed")
    assert ended(machine.start(0))[0] == 0  # another launch copies again
    assert (machine.out / "0.txt").read_text() == "changed"


def test_four_processes_copy_once_in_and_once_out(machine):
    processes = [
        machine.start(rank, environ={"MOXING_DELAY": "0.5"}, work=1 + 0.2 * rank)
        for rank in range(4)
    ]
    ends = [ended(process) for process in processes]
    assert [code for code, _ in ends] == [0] * 4, ends
    (first, source), (last, target) = machine.copied()
    assert (source, target) == ("data", "train")
    assert first in [process.pid for process in processes]
    assert last == processes[0].pid
    assert machine.results() == {"0.txt", "1.txt", "2.txt", "3.txt"}
    assert sum("has copied the data" in text for _, text in ends) == 3
    # The same once more: nothing of the first launch is taken for the second's.
    again = [machine.start(rank) for rank in range(4)]
    assert [ended(process)[0] for process in again] == [0] * 4
    # (One that ends before the first has begun copies the results out for itself.)
    assert [name for _, name in machine.copied()].count("data") == 2


def test_a_process_that_dies_while_it_copies_is_replaced(machine):
    owner = machine.start(0, environ={"MOXING_HANG": "data"})
    machine.wait_for(lambda: machine.copied() == [(owner.pid, "data")])
    other = machine.start(1)
    machine.wait_for(lambda: f"process {owner.pid} of this machine" in other.stdout.readline())
    owner.kill()
    code, text = ended(other)
    assert code == 0, text
    assert machine.copied()[1:] == [(other.pid, "data"), (other.pid, "train")]


def test_a_copy_that_hangs_ends_for_all(machine):
    owner = machine.start(0, environ={"MOXING_HANG": "data"}, copy=1)
    machine.wait_for(machine.copied)
    other = machine.start(1)
    code, text = ended(owner)
    assert code == 1 and "error: data_url: copying" in text and "takes more than 1 s" in text
    code, text = ended(other)
    assert code == 1 and f"found out by process {owner.pid}" in text
    assert len(machine.copied()) == 1 and not machine.out.exists()


def test_waiting_for_another_process_ends(machine):
    owner = machine.start(0, environ={"MOXING_HANG": "data"})
    machine.wait_for(machine.copied)
    code, text = ended(machine.start(1, copy=0.5))
    assert code == 1
    assert f"process {owner.pid} of this machine has been copying for more than 0.5 s" in text


def test_a_copy_that_fails_is_tried_once(machine):
    environ = {"MOXING_FAIL": "data", "MOXING_DELAY": "0.5"}
    ends = [ended(p) for p in [machine.start(rank, environ=environ) for rank in range(3)]]
    for code, text in ends:
        assert code == 1
        assert "data_url: " in text and "RuntimeError: the network is down" in text
        assert "Traceback" not in text
    assert len(machine.copied()) == 1


@pytest.mark.parametrize(("end", "code"), [("error", 1), ("3", 3)])
def test_results_of_a_run_that_failed_are_copied(machine, end, code):
    process = machine.start(0, end=end)
    found, text = ended(process)
    assert found == code
    assert ("error: the loss is not finite" in text) == (end == "error")
    assert machine.results() == {"0.txt"}


def test_results_of_a_run_that_is_stopped_are_copied_whatever_signals_follow(machine):
    process = machine.start(0, work=60, environ={"MOXING_DELAY": "1"})
    machine.wait_for(lambda: process.stdout.readline() == "working\n")
    process.terminate()
    machine.wait_for(lambda: (process.pid, "train") in machine.copied())
    process.terminate()
    code, text = ended(process)
    assert code == 128 + signal.SIGTERM, text
    assert machine.results() == {"0.txt"}


def test_when_the_first_process_is_killed_another_copies_the_results(machine):
    first = machine.start(0, end="killed", work=0.5)
    second = machine.start(1, work=1.5)
    assert ended(first)[0] == -signal.SIGKILL
    assert ended(second)[0] == 0
    assert machine.copied()[-1] == (second.pid, "train")
    assert machine.results() == {"0.txt", "1.txt"}


def test_the_first_process_waits_for_the_others_but_not_for_ever(machine):
    second = machine.start(1, work=4)
    machine.wait_for(lambda: second.stdout.readline() == "working\n")
    first = machine.start(0, leave=0.5)
    code, text = ended(first)
    assert code == 0 and "rank 1 still runs after 0.5 s" in text
    assert machine.results() == {"0.txt", "1.txt"}
    assert second.poll() is None
    assert ended(second)[0] == 0
    assert [name for _, name in machine.copied()] == ["data", "train", "train"]


@pytest.mark.parametrize("end", ["0", "error"])
def test_results_that_cannot_be_copied_are_named(machine, end):
    code, text = ended(machine.start(0, end=end, environ={"MOXING_FAIL": "train"}))
    assert code == 1
    place = machine.folder / "cache" / "train"
    assert f"train_url: {place} could not be copied to {machine.out}" in text
    assert ("error: the loss is not finite" in text) == (end == "error")
    assert (place / "0.txt").exists()


def test_without_moxing(machine):
    code, text = ended(machine.start(0, moxing=False))
    assert code == 1
    assert text.startswith("error: enable_modelarts: the package moxing is not installed")


def test_two_runs_in_one_folder_are_kept_apart(machine):
    first = machine.start(0, work=30)
    machine.wait_for(lambda: first.stdout.readline() == "working\n")
    code, text = ended(machine.start(0))
    assert code == 1
    assert f"(process {first.pid}); give each run its own folder" in text


@pytest.mark.parametrize("kind", ["file", "folder", "empty"])
def test_weights(machine, kind):
    place = machine.folder / "obs" / "weights"
    place.mkdir()
    if kind != "empty":
        (place / "R-101.ckpt").write_text("weights")
    url = place / "R-101.ckpt" if kind == "file" else place
    code, text = ended(machine.start(0, weights=url))
    if kind == "empty":
        assert code == 1 and f"checkpoint_url: nothing came from {url}" in text
    else:
        assert code == 0, text
        copied = machine.folder / "cache" / "checkpoint" / "R-101.ckpt"
        assert copied.read_text() == "weights"


def test_nothing_to_resume_is_no_mistake(machine):
    machine.out.mkdir()
    code, text = ended(machine.start(0, resume="yes"))
    assert code == 0, text
    assert machine.results() == {"0.txt"}


@pytest.mark.parametrize("other", ["", "yes"])
def test_a_machine_without_rank_0_sends_nothing_that_may_be_older(machine, other):
    machine.out.mkdir()
    (machine.out / "loss_0.log").write_text("old")
    process = machine.start(8, resume="yes", other=other, work=1)
    machine.wait_for(lambda: process.stdout.readline() == "working\n")
    (machine.out / "loss_0.log").write_text("new")  # by the first machine, meanwhile
    code, text = ended(process)
    assert code == 0, text
    assert (machine.out / "loss_0.log").read_text() == ("new" if other else "old")
    assert machine.results() == {"8.txt", "loss_0.log"}


def test_a_disk_that_cannot_be_written_is_named(machine):
    (machine.folder / "cache").write_text("")
    code, text = ended(machine.start(0))
    assert code == 1
    assert "error: modelarts.cache_dir: " in text and "cannot be written" in text


# --- from the configuration


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("backbone_pretrained_path: weights/MSRA/R-101.ckpt")
    flags = ("--enable_modelarts=true", "--train_url=obs://out")
    return lambda *more: load_config(path, (*flags, *more))


def test_paths_are_put_on_the_machines_disk(load):
    config = on_this_machine(
        load(
            "--data_url=obs://data",
            "--checkpoint_url=obs://weights",
            "--pcb_modelpath=/given/r.ckpt",
            "--save_checkpoint_path=checkpoints/a",
            "--watch.dir=curves",
            "--test.report_before=base/eval",
            "--modelarts.cache_dir=/c",
        )
    )
    assert config.datasets_root == "/c/data"
    assert config.backbone_pretrained_path == "/c/checkpoint/weights/MSRA/R-101.ckpt"
    assert config.pcb_modelpath == "/given/r.ckpt"
    assert config.model_pretrained_path == ""
    assert config.save_checkpoint_path == "/c/train/checkpoints/a"
    assert config.result_path == ""
    assert config.export_file_name == "/c/train/defrcn"
    assert config.train_mindrecord_dir == "/c/mindrecord/train"
    assert (config.watch.dir, config.profile.dir) == ("/c/train/curves", "")
    assert config.test.report_before == "/c/checkpoint/base/eval"


def test_what_is_not_copied_stays_where_it_is(load, tmp_path):
    config = on_this_machine(load())
    assert config.datasets_root == "datasets"
    assert config.backbone_pretrained_path == "weights/MSRA/R-101.ckpt"
    assert config.test.report_before == ""
    without = load_config(tmp_path / "run.yaml")
    assert on_this_machine(without) is without
    with copies(without, 0):
        pass


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        ("--save_checkpoint_path=/elsewhere", "save_checkpoint_path"),
        ("--result_path=../up", "result_path"),
        ("--profile.dir=/cache/trainer", "profile.dir"),
    ],
)
def test_results_that_would_be_lost_are_refused(load, flag, key):
    with pytest.raises(InputError, match=rf"^{key}: .*only that is copied to train_url"):
        on_this_machine(load(flag))


def test_a_resumed_run_gets_its_results_back(load, monkeypatch):
    seen = []
    monkeypatch.setattr("src.assembly.modelarts.modelarts_run", seen.append)
    config = load("--resume=true", "--data_url=obs://data", "--modelarts.cache_dir=/c")
    copies(on_this_machine(config), 5)
    (transfer,) = seen
    assert [(one.key, one.url, str(one.folder)) for one in transfer.sources] == [
        ("data_url", "obs://data", "/c/data"),
        ("train_url", "obs://out", "/c/train"),
    ]
    assert [one.may_be_empty for one in transfer.sources] == [False, True]
    assert (transfer.rank, str(transfer.results), transfer.copy_seconds) == (5, "/c/train", 7200)


def test_launches_are_told_apart(monkeypatch):
    here = moxing_adapter._launch()
    assert here == moxing_adapter._launch()
    _, parent, began = here.split(":")
    assert int(parent) == os.getppid() and int(began) > 0
    monkeypatch.setenv("JOB_ID", "7")
    assert moxing_adapter._launch() == "7" + here
