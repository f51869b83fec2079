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


#: What each run of the tests goes through; the others are for the slow ones.
OFTEN = ("inference plain fixed", "inference of the encoder")
SELDOM = tuple(name for name in gpu_steps.STEPS if name not in (*OFTEN, "no kernel"))


@pytest.mark.parametrize("names", [OFTEN, pytest.param(SELDOM, marks=pytest.mark.slow)])
def test_every_operator_has_a_kernel(environment, names):
    status, text = run(environment, "-m", "tests.helpers.gpu_steps", *names)
    assert tuple(re.findall(r"^came to its end: (.*)$", text, re.MULTILINE)) == names, text[-3000:]
    assert status == 0


def test_an_operator_without_one_is_noticed(environment):
    status, text = run(environment, "-m", "tests.helpers.gpu_steps", "no kernel")
    assert status != 0
    assert "MatMul" in text and "came to its end" not in text


@pytest.mark.slow
def test_training(environment, trained_demo, tmp_path):
    """train.py in half precision: two steps, a checkpoint, an evaluation."""
    flags = [*configured(trained_demo, tmp_path), "--amp_level=auto"]
    status, text = run(environment, "train.py", *flags)
    assert status == 0, text[-3000:]
    assert "step 2/2" in text and "kernels in C++" not in text
    assert "backbone and res5 in float16 (amp_level O2)" in text
    assert (tmp_path / "run" / "eval_2" / "metrics.json").exists()


def configured(trained_demo, folder):
    """Flags of a training of two steps on a card."""
    solver = {"max_iter": 2, "warmup_iters": 0, "steps": []}
    config = trained_demo.copy(folder, steps=None, solver=solver)
    return [f"--config_path={config}", f"--overlay={ROOT / 'configs/gpu.yaml'}"]


@pytest.mark.slow
def test_training_and_evaluation_in_float32(environment, trained_demo, tmp_path):
    flags = configured(trained_demo, tmp_path)
    status, text = run(environment, "train.py", *flags, "--test.eval_at_end=false")
    assert status == 0, text[-3000:]
    status, text = run(environment, "eval.py", *flags, f"--eval_checkpoint_path={tmp_path / 'run'}")
    assert status == 0, text[-3000:]


@pytest.mark.slow
def test_check_device_refuses_its_numbers(environment):
    """All is found, and what the card computes is wrong."""
    status, text = run(environment, "-m", "src.tools.check_device", "GPU")
    assert status == 1
    assert "runs CUDA up to 12.4" in text and "no card, compute capability 8.0, 16 GiB" in text
    assert text.endswith("not usable here: matrix product, convolution, training step\n"), text
