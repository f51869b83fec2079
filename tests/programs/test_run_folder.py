# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A training destroys no other one: used wrongly as users do, with real processes.

All share one training, which lives while the first tests look at it, and is killed for the others.
"""

import contextlib
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import yaml

from src.demo.make_data import make_demo_data
from src.model_utils.folder_lock import LOCK
from src.weights.checkpoint import load_training_checkpoint
from tests.helpers.kill_driver import PROJECT, Child
from tests.helpers.trained import configuration

# A training with this ends when the weights are to be loaded: in its folder, before any step.
NO_WEIGHTS = "--model_pretrained_path=no.ckpt"


def tree(folder):
    """Every file's content and time, by name."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A small data set and a configuration of a training that does not end by itself."""
    place = tmp_path_factory.mktemp("project")
    make_demo_data(place / "shapes", seed=0, num_train=6, num_test=3)
    settings = configuration(place)
    settings["solver"]["max_iter"] = 100_000
    settings["checkpoint"] = {"period": 1}
    (place / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return place


def train(root, *flags, compiled=False):
    command = [sys.executable, PROJECT / "train.py", f"--config_path={root / 'tiny.yaml'}", *flags]
    number = len(list(root.glob("output-*")))
    # most of what is asked here does not depend on it, and it takes seconds
    return Child(command, root / f"output-{number}.txt", root, MS_JIT=str(int(compiled)))


def refused(root, *flags):
    """What a training that is refused says, in one sentence."""
    child = train(root, *flags)
    assert child.process.wait(300) == 1, child.text()
    assert "Traceback" not in child.text()
    (line,) = [line for line in child.text().splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture(scope="module")
def running(root):
    """A training that has saved its first step."""
    child = train(root)
    assert child.wait_for(r"saved \S+defrcn-1\.ckpt"), child.text()
    yield child
    child.process.kill()
    child.process.wait()


@contextlib.contextmanager
def held(child):
    """Inside, a process stands still, with all that it holds: it takes no time from the others."""
    child.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        child.process.send_signal(signal.SIGCONT)


def test_a_second_training_is_told_which_process_has_the_folder(root, running):
    for flag in ("--resume=true", "--overwrite=true", "--log.period=1"):
        with held(running):
            told = refused(root, flag)
        words = r"save_checkpoint_path: \S+run is in use by train\.py, process (\d+) on \S+ since"
        assert re.search(words, told)[1] == str(running.process.pid)
    assert names(root / "run") == [LOCK, "ckpt_0", "log_0.txt", "loss_0.log"]
    assert running.process.poll() is None


def predict(root, *flags):
    command = [sys.executable, "-m", "src.predict", f"--config_path={root / 'tiny.yaml'}"]
    command += [f"--eval_checkpoint_path={root / 'run'}", "--score_threshold=0", *flags]
    number = len(list(root.glob("output-*")))
    return Child(command, root / f"output-{number}.txt", root)


def test_predicting_while_it_trains_and_results_of_one_run_only(root, running):
    """The second one has no pictures of the first one, and nobody else loses a file."""
    pictures = sorted((root / "shapes" / "images" / "test").iterdir())
    place = root / "run" / "predict"
    first = predict(root, f"--input_path={pictures[0]}")
    assert first.wait_for("loaded "), first.text()
    with held(running), held(first):
        second = predict(root, f"--input_path={pictures[1]}")
        assert second.process.wait(300) == 1
    assert f"src.predict, process {first.process.pid} on " in second.text()
    first.end()
    assert names(place / "pictures") == [f"{pictures[0].name}.png"]
    (place / "pictures" / "mine.png").write_text("mine")
    assert running.process.poll() is None
    with held(running):
        predict(root, f"--input_path={pictures[1]}").end()
    assert names(place / "pictures") == sorted([f"{pictures[1].name}.png", "mine.png"])
    (entry,) = json.loads((place / "detections.json").read_text())["images"]
    assert entry["file"] == pictures[1].name


@pytest.fixture(scope="module")
def killed(root, running):
    """The folder of that training, killed outright; nothing in it may ever change."""
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    return tree(root / "run")


def test_a_used_folder_is_refused_and_nothing_is_written(root, killed):
    steps = load_training_checkpoint(root / "run" / "ckpt_0").step
    told = refused(root)
    assert re.search(rf"run holds a run of {steps} steps?, saved 2\d{{3}}-\d\d-\d\d", told)
    assert "--resume=true" in told and "another folder" in told
    assert tree(root / "run") == killed
    assert not list(root.glob("run.old*"))


def test_resuming_with_what_the_steps_did_not_have_is_refused_by_name(root, killed):
    flags = ["--solver.base_lr=0.5", "--input.flip_probability=0.25", "--test.eval_at_end=false"]
    told = refused(root, "--resume=true", *flags)
    assert "input.flip_probability 0.5 -> 0.25, solver.base_lr 0.001 -> 0.5; resume" in told
    assert "eval_at_end" not in told
    annotations = root / "shapes" / "annotations" / "train.json"
    content = annotations.read_text()
    annotations.write_text(re.sub(r'"bbox": ?\[[^,]*,', '"bbox": [1.5,', content, count=1))
    assert annotations.read_text() != content
    assert "data.train (its content)" in refused(root, "--resume=true")
    annotations.write_text(content)
    told = refused(root, "--resume=true", "--overwrite=true")
    assert re.search("resume goes on .*, overwrite moves it away", told)
    now = tree(root / "run")
    assert {name for name in now if now[name] != killed.get(name)} <= {"log_0.txt", LOCK}


def test_the_same_data_elsewhere_are_the_same_run(root, killed):
    (root / "moved").mkdir()
    (root / "moved" / "shapes").symlink_to(root / "shapes")
    child = train(root, "--resume=true", f"--datasets_root={root / 'moved'}")
    assert child.wait_for(r"resumed after step \d+ of"), child.text()
    assert "changed since step" in child.text() and "datasets_root" in child.text()
    child.process.send_signal(signal.SIGKILL)
    child.process.wait()
    assert not (root / "run" / "eval_1").exists()
    weights = [name for name in killed if name.startswith("ckpt_0")]
    assert {name: tree(root / "run")[name] for name in weights} == {
        name: killed[name] for name in weights
    }


def test_overwriting_moves_the_run_aside_whole(root, killed):
    (root / "run" / "logs").mkdir()
    launcher = (root / "run" / "logs" / "output.txt").open("w")  # as a launcher has it
    told = refused(root, "--overwrite=true", NO_WEIGHTS)
    assert "no.ckpt does not exist" in told
    old = tree(root / "run.old-1")
    assert names(root / "run.old-1") == ["ckpt_0", "log_0.txt", "loss_0.log", "predict"]
    assert {name: old[name] for name in old if name != "log_0.txt"} == {
        name: killed[name] for name in killed if name not in ("log_0.txt", LOCK)
    }
    assert names(root / "run") == [LOCK, "log_0.txt", "logs"]
    assert "run.old-1 now" in (root / "run" / "log_0.txt").read_text()
    launcher.write("goes on")
    launcher.close()
    assert (root / "run" / "logs" / "output.txt").read_text() == "goes on"


def test_a_run_that_made_no_step_is_no_mark(root):
    """As after a wrong flag, or Ctrl-C while the first step is compiled."""
    place = f"--save_checkpoint_path={root / 'early'}"
    child = train(root, place, compiled=True)
    assert child.wait_for("INFO configuration: "), child.text()
    for _ in range(2):
        os.kill(child.process.pid, signal.SIGINT)
        try:
            child.process.wait(0.3)  # compiling takes seconds, and a step would leave its mark
        except Exception:  # noqa: BLE001 - the second one ends at once
            continue
    child.process.kill()
    child.process.wait()
    assert names(root / "early") == [LOCK, "log_0.txt"]
    assert "no.ckpt does not exist" in refused(root, place, NO_WEIGHTS)
    assert names(root / "early") == [LOCK, "log_0.txt"]


@pytest.mark.parametrize("kind", ["file", "below"])
def test_a_folder_that_cannot_be_used(root, kind):
    place = root / f"bad-{kind}"
    place.write_text("x")
    told = refused(root, f"--save_checkpoint_path={Path(place, *(['run'] * (kind == 'below')))}")
    assert str(place) in told and "another folder" in told
