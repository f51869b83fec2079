"""SIGINT in a process that computes with MindSpore, which would turn it into a SIGTERM."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from src.interruption import hold_interrupts
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
    root = Path(__file__).resolve().parents[1]
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
