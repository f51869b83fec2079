# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Every operator of the network has a GPU kernel: all is compiled and run on a card that is none.

See `helpers/fake_cuda`. Numbers mean nothing there; what is shown is that MindSpore finds a kernel
for each operator and dtype, for fixed and unknown shapes, and that the programs come to their end
on the way that they take on a card, the loading of CUDA included.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from src.model_utils.paths import project_folder
from tests.helpers import fake_cuda, gpu_steps

ROOT = project_folder()


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Variables of a process that finds a card."""
    if reason := fake_cuda.missing():
        pytest.skip(reason)
    return {**os.environ, **fake_cuda.make(tmp_path_factory.mktemp("cuda") / "home")}


def run(environment, *words):
    """Run a Python program; return its exit status and all that it wrote."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout


NAMES = [name for name in gpu_steps.STEPS if name != "no kernel"]


@pytest.mark.parametrize("which", ["training", "inference"])
def test_every_operator_has_a_kernel(environment, which):
    names = [name for name in NAMES if name.startswith(which)]
    status, text = run(environment, "-m", "tests.helpers.gpu_steps", *names)
    assert re.findall(r"^came to its end: (.*)$", text, re.MULTILINE) == names, text[-3000:]
    assert status == 0


def test_an_operator_without_one_is_noticed(environment):
    status, text = run(environment, "-m", "tests.helpers.gpu_steps", "no kernel")
    assert status != 0
    assert "MatMul" in text and "came to its end" not in text


@pytest.mark.parametrize("flags", [[], ["--amp_level=auto"]], ids=["float32", "amp"])
def test_train_and_eval(environment, trained_demo, tmp_path, flags):
    """The programs themselves: two steps, checkpoints, an evaluation."""
    config = trained_demo.copy(
        tmp_path, steps=None, solver={"max_iter": 2, "warmup_iters": 0, "steps": []}
    )
    flags = [f"--config_path={config}", f"--overlay={ROOT / 'configs/gpu.yaml'}", *flags]
    status, text = run(environment, "train.py", *flags)
    assert status == 0, text[-3000:]
    assert "step 2/2" in text and "kernels in C++" not in text
    assert ("backbone and res5 in float16 (amp_level O2)" in text) == ("amp" in str(flags[2:]))
    status, text = run(environment, "eval.py", *flags, f"--eval_checkpoint_path={tmp_path / 'run'}")
    assert status == 0, text[-3000:]


def test_check_device_refuses_its_numbers(environment):
    """All is found, and what the card computes is wrong."""
    status, text = run(environment, "-m", "src.tools.check_device", "GPU")
    assert status == 1
    assert "runs CUDA up to 12.4" in text and "no card, compute capability 8.0, 16 GiB" in text
    assert text.endswith("not usable here: matrix product, convolution, training step\n"), text
