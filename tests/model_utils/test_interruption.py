# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""SIGINT in a process that computes with MindSpore, which would turn it into a SIGTERM."""

import os
import signal
import subprocess
import sys

import pytest

from src.data import mindrecord_build
from src.model_utils.interruption import Interrupted, StopRequests
from src.model_utils.paths import project_folder
from tests.helpers.data_helpers import picture_records

PROGRAM = """
from src.model_utils.interruption import hold_interrupts
{hold}
import sys, time
import numpy as np
import mindspore as ms
from mindspore import Tensor, ops
from src.util import run_main

def main():
    @ms.jit(fullgraph=True)
    def run(x):
        return ops.matmul(x, x) * 0.01

    x = Tensor(np.ones((300, 300), np.float32))
    for number in range(600):
        run(x).asnumpy()
        if number == 5:
            print("ready", flush=True)
        time.sleep(0.01)
    return 7

run_main(main)
"""


@pytest.mark.parametrize(
    ("hold", "disposition", "code", "said"),
    [
        ("hold_interrupts()", signal.SIG_DFL, 130, "ended by SIGINT"),
        ("hold_interrupts()", signal.SIG_IGN, 7, ""),
        ("", signal.SIG_DFL, 143, "ended by SIGTERM"),  # why it is needed
    ],
)
def test_ctrl_c(tmp_path, hold, disposition, code, said):
    root = project_folder()
    (tmp_path / "program.py").write_text(PROGRAM.format(hold=hold))  # jit wants to see its text
    process = subprocess.Popen(
        [sys.executable, tmp_path / "program.py"],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, disposition),
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == code, error
    assert said in error and "Traceback" not in error


def test_a_signal_while_mindrecord_is_written(tmp_path, monkeypatch):
    """Ends at once and leaves nothing but what was there."""
    records = picture_records(tmp_path / "i", [(20, 30)] * 40)
    real = mindrecord_build._read_image

    def read(record, limit):
        if record is records[20]:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(record, limit)

    monkeypatch.setattr(mindrecord_build, "_read_image", read)
    options = {"class_names": ("a", "b", "c"), "training": True, "show_progress": False}
    with StopRequests(), pytest.raises(Interrupted) as event:
        mindrecord_build.build_mindrecord(records, tmp_path / "m", **options)
    assert event.value.code == 143
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m.lock", "i"]
    monkeypatch.undo()
    info = mindrecord_build.build_mindrecord(records, tmp_path / "m", **options)
    assert info.num_rows == 40


def test_deferred_immediate_and_after():
    with StopRequests() as stop:
        with stop.deferred():
            signal.raise_signal(signal.SIGTERM)
            assert stop.received == signal.SIGTERM
            with pytest.raises(Interrupted), stop.immediate():
                raise AssertionError("went on")
        with pytest.raises(Interrupted):
            stop.check()
    with StopRequests() as stop:
        stop.check()
        with stop.deferred(), pytest.raises(Interrupted), stop.immediate():
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("went on")
