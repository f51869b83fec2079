# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Disks that are full, read-only or closed: one sentence, and nothing partial passes for whole."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from src.data import mindrecord_build
from src.dataset import build_mindrecord
from src.model_utils.errors import InputError
from src.util import atomic_path, disk_problem, run_main, set_up_logging, write_json
from src.weights.checkpoint import load_training_checkpoint, save_checkpoint
from tests.helpers.data_helpers import picture_records
from tests.helpers.hostile import refuse, toy  # noqa: F401 - fixtures

STATE = {"seed": np.array(0)}
INFO = {"class_names": ["a"]}


def weights(megabytes: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=int(megabytes * (1 << 18))).astype(np.float32)}


@contextlib.contextmanager
def mounted(place: Path, size: str):
    """A disk of its own; the test is skipped where mounting is not permitted."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no program mount")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextlib.contextmanager
def largest_file(size: int):
    """No file of this process may grow beyond a size; writing more fails with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@contextlib.contextmanager
def somebody_else():
    """Root may do anything; inside the block this process is nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def check_first_is_left(folder: Path) -> None:
    found = load_training_checkpoint(folder)
    assert found.step == 1
    np.testing.assert_array_equal(found.params["w"], weights(0.5)["w"])
    assert not list(folder.glob(".*")), visible(folder)


def test_a_disk_that_is_full_when_a_checkpoint_is_saved(tmp_path):
    with mounted(tmp_path / "disk", "3m") as disk:
        folder = disk / "ckpt_0"
        save_checkpoint(folder, 1, weights(0.5), STATE, INFO)
        with pytest.raises(InputError, match=r"defrcn-2\.ckpt cannot be written.*No space left"):
            save_checkpoint(folder, 2, weights(4), STATE, INFO)
        check_first_is_left(folder)
        # The weights fit, the state does not: no manifest, so no checkpoint.
        large = {**STATE, "velocity": weights(1.5)["w"]}
        with pytest.raises(InputError, match=r"defrcn-2\.state\.npz cannot be written"):
            save_checkpoint(folder, 2, weights(1.2), large, INFO)
        check_first_is_left(folder)
        assert "defrcn-2.json" not in visible(folder)
        # Room is made: the same step is saved, the half one is replaced.
        save_checkpoint(folder, 2, weights(1), STATE, INFO)
        assert load_training_checkpoint(folder).step == 2


def test_a_file_that_may_not_grow(tmp_path):
    save_checkpoint(tmp_path, 1, weights(0.5), STATE, INFO)
    with largest_file(1 << 20), pytest.raises(InputError, match=r"defrcn-2\.ckpt.*File too large"):
        save_checkpoint(tmp_path, 2, weights(2), STATE, INFO)
    check_first_is_left(tmp_path)


def test_a_read_only_disk(tmp_path):
    with mounted(tmp_path / "disk", "3m") as disk:
        folder = disk / "ckpt_0"
        save_checkpoint(folder, 1, weights(0.5), STATE, INFO)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(InputError, match=r"defrcn-2\.ckpt cannot be written.*Read-only"):
            save_checkpoint(folder, 2, weights(0.5), STATE, INFO)
        check_first_is_left(folder)


def test_a_folder_of_somebody_else(tmp_path):
    folder = tmp_path / "ckpt_0"
    save_checkpoint(folder, 1, weights(0.5), STATE, INFO)
    for place in (*tmp_path.parents[:2], tmp_path):
        place.chmod(0o755)  # pytest's are closed
    folder.chmod(0o555)
    with somebody_else(), pytest.raises(InputError, match=r"defrcn-2\.ckpt .*Permission denied"):
        save_checkpoint(folder, 2, weights(0.5), STATE, INFO)
    check_first_is_left(folder)


def test_mindrecord_on_a_full_disk(tmp_path, monkeypatch):
    """Also if it fills up only after the room was looked at."""
    records = picture_records(tmp_path / "i", [(400, 400)] * 12)
    rng = np.random.default_rng(0)
    for one in records:  # noise, which takes 480 kB
        noise = rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)
        Image.fromarray(noise).save(one.file_name)
    with mounted(tmp_path / "disk", "13m") as disk:
        options = {"class_names": ("a", "b", "c"), "training": True, "show_progress": False}
        with pytest.raises(InputError, match=r"MB are needed for MindRecord"):
            build_mindrecord(records, disk / "m", **options)
        monkeypatch.setattr(mindrecord_build, "_check_space", lambda *_: 500_000)
        with pytest.raises(InputError, match=r"MindRecord cannot be written \(No free disk"):
            build_mindrecord(records, disk / "m", **options)
        assert visible(disk) == [".m.lock"]


def test_training_into_a_read_only_folder(toy, refuse):  # noqa: F811
    with mounted(toy / "disk", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        run = f"--save_checkpoint_path={disk / 'run'}"
        told = refuse(train.main, f"--config_path={toy / 'tiny.yaml'}", run)
    assert f"{disk}/run" in told and "Read-only file system" in told


def test_training_below_a_file(toy, refuse):  # noqa: F811
    (toy / "file").write_text("x")
    run = f"--save_checkpoint_path={toy / 'file' / 'run'}"
    told = refuse(train.main, f"--config_path={toy / 'tiny.yaml'}", run)
    assert str(toy / "file" / "run") in told and "Not a directory" in told
    record = f"--train_mindrecord_dir={toy / 'file' / 'm'}"
    told = refuse(train.main, f"--config_path={toy / 'tiny.yaml'}", record)
    assert str(toy / "file") in told


def test_a_log_file_on_a_full_disk(tmp_path, capsys):
    """Said once, in one line; what goes on without the log does so."""
    handlers = logging.root.handlers[:]
    with mounted(tmp_path / "disk", "64k") as disk:
        set_up_logging(0, disk / "log_0.txt")
        for _ in range(3000):
            logging.getLogger("x").info("%s", "a line of the log " * 5)
        error = capsys.readouterr().err
        assert error.splitlines() == [
            f"warning: {disk / 'log_0.txt'} is not continued: No space left on device"
        ]
        logging.root.handlers[-1].close()
    logging.root.handlers[:] = handlers


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EROFS, "right to use"),
        (errno.EACCES, "right to use"),
        (errno.EIO, "faulty"),
    ],
)
def test_other_failures_of_the_disk(tmp_path, number, words, monkeypatch, capsys):
    write_json(tmp_path / "a.json", 1)

    def failing(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(InputError, match=rf"a\.json cannot be written.*{words}"):
        write_json(tmp_path / "a.json", 2)
    assert visible(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_text() == "1\n"
    with pytest.raises(SystemExit) as end:
        run_main(lambda: os.fsync(1))
    assert end.value.code == 1 and "Traceback" not in capsys.readouterr().err


def test_bugs_are_not_taken_for_disks(tmp_path):
    assert disk_problem(OSError(errno.EBADF, "x")) is None
    with pytest.raises(OSError, match="Bad file"), atomic_path(tmp_path / "a"):
        raise OSError(errno.EBADF, "Bad file")
    assert visible(tmp_path) == []
