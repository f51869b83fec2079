# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""One writer a folder: with processes that hold it, are killed, and leave children behind."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from src.model_utils.errors import InputError
from src.model_utils.folder_lock import LOCK, FolderLock
from src.model_utils.paths import project_folder

HOLD = """
import os, sys, time
from pathlib import Path
from src.model_utils.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]), "train.py")
lock.take()
child = os.fork() if sys.argv[2] == "fork" else -1
if child == 0:
    time.sleep(60)
    os._exit(0)
print("held", child, flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def holder(folder, how="alone"):
    """A process that has the lock, and the number of its forked child."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), how],
        cwd=project_folder(),
        stdout=subprocess.PIPE,
        text=True,
    )
    child = -1
    try:
        word, number = process.stdout.readline().split()
        assert word == "held"
        child = int(number)
        yield process, child
    finally:
        process.kill()
        if child > 0:  # first: it has the pipe, too
            os.kill(child, signal.SIGKILL)
        process.communicate()


def test_the_second_is_told_who_has_it(tmp_path):
    with holder(tmp_path / "run") as (process, _):
        words = rf"run is in use by train\.py, process {process.pid} on \S+ since 2\d{{3}}-"
        before = (tmp_path / "run" / LOCK).read_bytes()
        for make in (False, True):
            with pytest.raises(InputError, match=words):
                FolderLock(tmp_path / "run", "eval.py").take(make=make)
        (tmp_path / "link").symlink_to("run")
        with pytest.raises(InputError, match="is in use by"):
            FolderLock(tmp_path / "link", "eval.py").take()
        assert (tmp_path / "run" / LOCK).read_bytes() == before


def test_what_a_killed_process_left_is_no_lock(tmp_path):
    with holder(tmp_path) as (process, _):
        process.kill()
        process.wait()
        lock = FolderLock(tmp_path, "train.py")
        lock.take()
        assert lock.held and f'"pid": {os.getpid()}' in (tmp_path / LOCK).read_text()
        lock.release()


def test_a_forked_child_does_not_hold_it(tmp_path):
    with holder(tmp_path, "fork") as (process, child):
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives on
        lock = FolderLock(tmp_path, "train.py")
        lock.take()
        lock.release()


def test_a_child_that_was_started_does_not_hold_it(tmp_path):
    lock = FolderLock(tmp_path, "train.py")
    lock.take()
    child = subprocess.Popen(["sleep", "60"])
    lock.release()
    other = FolderLock(tmp_path, "train.py")
    other.take()
    other.release()
    child.kill()
    child.wait()


def test_looking_writes_nothing(tmp_path):
    lock = FolderLock(tmp_path / "run", "train.py")
    lock.take(make=False)
    assert not lock.held and not (tmp_path / "run").exists()


def test_a_disk_without_locks_is_used_with_a_warning(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FolderLock(tmp_path, "train.py")
    lock.take()
    assert "cannot be locked (No locks available)" in lock.problem
    lock.release()
