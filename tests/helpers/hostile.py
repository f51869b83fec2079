# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""How a hostile or broken input is handed to an entry point, and what must happen then."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
from pathlib import Path

import pytest
import yaml

from src.assembly import evaluation as assembly_eval
from src.engine.trainer import Trainer
from src.util import run_main
from tests.helpers.data_helpers import coco_tree, write_image
from tests.helpers.trained import configuration

SECONDS = 40  # for one case, on a machine that is busy
MEGABYTES = 600  # that a case may add to the process


class TooLong(BaseException):
    pass


@contextlib.contextmanager
def time_limit(seconds: int = SECONDS):
    """Raise `TooLong` in the main thread after some seconds."""

    def ring(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def memory() -> float:
    """The most that the process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def write_config(root: Path, **changes) -> Path:
    """A configuration for the data set `toy` below `root` (`data_helpers.coco_tree`)."""
    settings = configuration(root)
    toy = {"annotations": "toy/train.json", "images": "toy/images"}
    settings["data"].update(train=["toy_train_base"], test=["toy_test_base"])
    settings["data"]["custom"] = {
        "toy": {"format": "coco", "train": toy, "test": dict(toy), "novel_classes": ["star"]}
    }
    settings["test"] = {"eval_at_end": False}
    for key, value in changes.items():
        settings[key] = value
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def toy(tmp_path):
    """A data set of two pictures and its configuration, still unbroken."""
    coco_tree(tmp_path)
    write_image(tmp_path / "toy" / "images" / "b.jpg", 40, 60, 2)
    write_config(tmp_path)
    return tmp_path


@pytest.fixture
def refuse(monkeypatch, capsys, tmp_path):
    """Run an entry point that must refuse its input; give its one sentence."""
    monkeypatch.chdir(tmp_path)
    ran = []
    monkeypatch.setattr(Trainer, "run", lambda *_: ran.append("training"))
    monkeypatch.setattr(assembly_eval, "detect", lambda *_, **__: ran.append("evaluation"))
    handlers = logging.root.handlers[:]

    def call(main, *argv, left=("**/*.ckpt", "**/metrics.json", "**/meta.json")) -> str:
        """`left`: what must not be there afterwards."""
        before = memory()
        with time_limit(), pytest.raises(SystemExit) as end:
            run_main(lambda: main([str(word) for word in argv]))
        error = capsys.readouterr().err
        told = [line for line in error.splitlines() if line.startswith("error: ")]
        assert end.value.code == 1, (end.value.code, error)
        assert len(told) == 1 and "Traceback" not in error, error
        assert not ran, f"{ran} was started"
        assert memory() - before < MEGABYTES
        for pattern in ("**/owned*", *left):
            assert not list(tmp_path.glob(pattern)), pattern
        assert not list(tmp_path.glob("**/.*.tmp")) and not list(tmp_path.glob("**/.*building*"))
        return told[0]

    yield call
    for handler in logging.root.handlers[:]:
        if handler not in handlers:
            handler.close()
            logging.root.removeHandler(handler)
    for handler in handlers:
        logging.root.addHandler(handler)


def flip(path: Path, position: int, bit: int = 3) -> None:
    """Flip one bit; a negative position counts from the end."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def cut(path: Path, share: float) -> None:
    """Keep the first part of a file."""
    os.truncate(path, int(path.stat().st_size * share))
