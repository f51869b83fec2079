# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What marks a used folder, and how an earlier run is moved aside."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from src.engine import run_folder as module
from src.engine.claims import alone_in
from src.engine.parallel import ALONE, Group
from src.engine.run_folder import contents, run_folder
from src.model_utils.errors import InputError
from src.model_utils.folder_lock import LOCK
from src.weights.checkpoint import save_checkpoint


def checkpoint(folder, step=3):
    state = {"seed": np.array(0)}
    save_checkpoint(folder / "ckpt_0", step, {"w": np.ones(2)}, state, {"class_names": ["a"]})


def tree(folder):
    """Every file's content and time, by name."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def use(folder, **how):
    with run_folder(folder, ALONE, **{"resume": False, "overwrite": False, **how}) as notes:
        return list(notes)


@pytest.fixture
def run(tmp_path):
    """A run of three steps."""
    place = tmp_path / "run"
    checkpoint(place)
    (place / "loss_0.log").write_text("1\n2\n3\n")
    (place / "log_0.txt").write_text("log\n")
    return place


def test_what_is_there_is_said_and_nothing_is_written(run):
    before = tree(run.parent)
    words = (
        r"save_checkpoint_path: \S+run holds a run of 3 steps, saved 2\d{3}-\d\d-\d\d \d\d:\d\d; go"
        r" on with it by --resume=true, or name another folder \(--overwrite=true .*run\.old-1"
    )
    with pytest.raises(InputError, match=words):
        use(run)
    assert tree(run.parent) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ckpt_0/defrcn-2.ckpt", r"a checkpoint that is not whole \(defrcn-2\.ckpt\)"),
        ("ckpt_0/defrcn-2.json", "a checkpoint that is not whole"),
        ("ckpt_0/0-7_500.ckpt", "a checkpoint that is not whole"),
        ("support_set.json", "the support set of a run"),
    ],
)
def test_marks(tmp_path, name, words):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=words):
        use(tmp_path)
    assert names(tmp_path) == [Path(name).parts[0]]
    use(tmp_path, resume=True)


def test_what_marks_nothing(tmp_path):
    for name in ("logs/1/output.txt", "sweep_run.json", ".sweep.lock", "output.txt", "log_0.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "loss_0.log").touch()
    (tmp_path / "ckpt_0").mkdir()
    (tmp_path / "ckpt_0" / ".defrcn-2.ckpt.x.ckpt").touch()
    before = names(tmp_path)
    assert contents(tmp_path) == "" and use(tmp_path) == []
    assert names(tmp_path) == sorted([*before, LOCK])


def test_losses_without_a_checkpoint_are_not_continued(tmp_path):
    place = tmp_path / "run"
    place.mkdir()
    (place / "loss_0.log").write_text("1\n")
    assert use(place, resume=True) == []
    (note,) = use(place)
    assert note.endswith(f"is in {tmp_path / 'run.old-1'} now")
    assert names(place) == [LOCK] and names(tmp_path / "run.old-1") == ["loss_0.log"]


def test_overwriting_moves_the_run_and_nothing_of_others(run):
    for name in ("logs/1/output.txt", "sweep_run.json", ".sweep.lock", "output.txt"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("x")
    (run / "eval_3").mkdir()
    (run / "notes.txt").write_text("mine")
    (run / "mindrecord" / "train").mkdir(parents=True)
    (run.parent / "run.old-1").mkdir()
    saved = tree(run / "ckpt_0")
    (note,) = use(run, overwrite=True, kept=[run / "mindrecord" / "train", Path("/elsewhere")])
    old = run.parent / "run.old-2"
    assert str(old) in note
    assert names(old) == ["ckpt_0", "eval_3", "log_0.txt", "loss_0.log", "notes.txt"]
    assert tree(old / "ckpt_0") == saved
    others = [".sweep.lock", "logs", "mindrecord", "output.txt", "sweep_run.json"]
    assert names(run) == sorted([LOCK, *others])
    assert use(run, overwrite=True) == []  # nothing to move
    assert names(run.parent) == ["run", "run.old-1", "run.old-2"]


def test_a_link_stays_one(run, tmp_path):
    link = tmp_path / "link"
    link.symlink_to("run")
    use(link, overwrite=True)
    assert link.is_symlink() and names(link) == [LOCK]
    assert names(tmp_path) == ["link", "run", "run.old-1"]


def broken_off(run, monkeypatch, after):
    """Move a run aside, and die after so many renames."""
    rename, done = os.rename, []

    def failing(source, target):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(source)
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "rename", failing)
        with pytest.raises(KeyboardInterrupt):
            use(run, overwrite=True)


@pytest.mark.parametrize("after", range(4))
def test_moving_that_is_broken_off_is_taken_up_again(run, monkeypatch, after):
    saved = tree(run)
    broken_off(run, monkeypatch, after)
    if after < 3:
        with pytest.raises(InputError, match="holds a run of 3 steps"):
            use(run)
    (note,) = use(run, overwrite=after < 3)
    old = run.parent / "run.old-1"
    assert str(old) in note and tree(old) == saved
    assert names(run.parent) == ["run", "run.old-1"]


def test_going_on_after_a_move_that_was_broken_off(run, monkeypatch):
    broken_off(run, monkeypatch, 2)
    use(run, resume=True)
    assert names(run.parent / "run.old-1") == ["log_0.txt", "loss_0.log"]
    assert contents(run).startswith("a run of 3 steps")


def test_the_others_learn_of_a_refusal(run):
    """The second of two processes is told what the first one found, and looks at nothing."""

    class Second(Group):
        def gather_bytes(self, content):
            assert content == b""
            return [b"save_checkpoint_path: it holds a run", b""]

    with pytest.raises(InputError, match=r"^save_checkpoint_path: it holds a run$"):
        with run_folder(run / "absent", Second(1, 2), resume=False, overwrite=False):
            raise AssertionError
    assert not (run / "absent").exists()


def test_results_may_go_to_the_folder_of_a_running_training_but_once_only(run):
    with run_folder(run, ALONE, resume=True, overwrite=False):
        with alone_in(run, "eval.py", "result_path"):
            words = r"^result_path: \S+run is in use by eval\.py, process \d+ on .*another folder$"
            with pytest.raises(InputError, match=words):
                with alone_in(run, "src.predict", "result_path"):
                    raise AssertionError
            with alone_in(run, "postprocess.py", "result_path", name="evaluation"):
                pass
            with pytest.raises(InputError, match=r"run is in use by train\.py"):
                use(run, resume=True)


def test_a_lock_of_results_stays_when_the_run_is_moved(run):
    """Else the next one would have another file, and so the same folder at once."""
    with alone_in(run, "eval.py", "result_path"):
        use(run, overwrite=True)
        with pytest.raises(InputError, match=r"run is in use by eval\.py"):
            with alone_in(run, "src.predict", "result_path"):
                raise AssertionError


def test_a_file_or_a_closed_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"file cannot be written or read: .*another folder"):
        use(tmp_path / "file")
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}/file/run cannot be written")):
        use(tmp_path / "file" / "run")
