# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Model surgery as the first part of a sweep, with a stand-in for `src.model_surgery`."""

import json
import sys

import pytest

from src.model_utils.errors import InputError
from src.sweep import __main__ as sweep
from src.sweep import surgery as sweep_surgery
from src.weights.checkpoint import save_checkpoint
from tests.helpers import toy_sweep
from tests.helpers.toy_sweep import events, go, run_folder, starts


@pytest.fixture
def place(tmp_path, monkeypatch):
    return toy_sweep.enter(tmp_path, monkeypatch)


SURGEON = """
import os, sys
flags = dict(w[2:].split("=", 1) for w in sys.argv[1:])
open(os.environ["FAKE_LOG"], "a").write(f"surgery {flags['method']} {flags['dataset']}\\n")
ends = {"remove": "remove", "randinit": "surgery"}
name = f"{flags['tar-name']}_{ends[flags['method']]}.ckpt"
if "FAKE_SURGEON_FAILS" in os.environ:
    sys.exit("error: no such surgery")
open(os.path.join(flags["save-dir"], name), "w").write("reset")
"""


@pytest.fixture
def surgeon(place, monkeypatch):
    """A stand-in for `src.model_surgery`."""
    script = place / "surgeon.py"
    script.write_text(SURGEON)
    monkeypatch.setattr(sweep_surgery, "COMMAND", (sys.executable, str(script)))
    return place


def test_surgery_is_done_once(surgeon):
    flags = ("--base_checkpoint=start.ckpt", "--setting=gfsod")
    assert go(*flags, shots="1", seeds="0") == 0
    assert go(*flags, shots="1", seeds="0-1") == 0
    done = [line for line in events(surgeon) if line.startswith("surgery")]
    assert done == ["surgery randinit toy.yaml"]
    target = surgeon / "out dir" / "surgery" / "model_reset_surgery.ckpt"
    result = json.loads((run_folder(surgeon) / "sweep_result.json").read_text())
    assert result["settings"]["sha256"]["model_pretrained_path"] == sweep._checksum(str(target))
    target.write_text("damaged")
    sweep._checksum.cache_clear()
    assert go(*flags, shots="1", seeds="0") == 0
    assert target.read_text() == "reset"
    (surgeon / "start.ckpt").write_bytes(b"another base")
    with pytest.raises(InputError, match="made of another base checkpoint"):
        go(*flags, shots="1", seeds="0")


def test_surgery_that_fails(surgeon, monkeypatch):
    monkeypatch.setenv("FAKE_SURGEON_FAILS", "1")
    with pytest.raises(InputError, match=r"(?s)surgery of start\.ckpt failed .*no such surgery"):
        go("--base_checkpoint=start.ckpt", shots="1", seeds="0")
    assert starts(surgeon) == []


def test_a_reset_file_of_others_is_not_replaced(surgeon):
    target = surgeon / "out dir" / "surgery" / "model_reset_remove.ckpt"
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    with pytest.raises(InputError, match="was not made by a sweep"):
        go("--base_checkpoint=start.ckpt", shots="1", seeds="0")
    assert target.read_text() == "mine"


def test_the_base_may_be_a_folder(surgeon):
    save_checkpoint(
        surgeon / "base" / "ckpt_0", 7, {"w": _one()}, {"seed": _one()}, {"class_names": ["a"]}
    )
    assert go("--base_checkpoint=base", shots="1", seeds="0") == 0
    (surgeon / "nothing").mkdir()
    with pytest.raises(InputError, match="there is no checkpoint in nothing"):
        go("--base_checkpoint=nothing", shots="1", seeds="0")


def _one():
    import numpy as np

    return np.ones(1, np.float32)
