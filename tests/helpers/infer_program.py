# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Building and calling the C++ inference program; the fixtures are in tests/programs/conftest.py.

Every call has a time limit: a wrong network can make MindSpore Lite wait for ever.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess

import mindspore as ms
import pytest

from src.export.mindir_rewrite import to_version_1
from src.model_utils.paths import project_folder

ROOT = project_folder()
BUILD = ROOT / "ascend310_infer" / "build.sh"
OUT = ROOT / "ascend310_infer" / "out"
BUILD_SECONDS, RUN_SECONDS = 1500, 120


def call(*command, seconds=RUN_SECONDS, **variables):
    """Run a command with a time limit."""
    return subprocess.run(
        [str(word) for word in command],
        # The checks of addresses want to be the first library that is loaded.
        env={**os.environ, "LD_PRELOAD": "", **variables},
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def must_have(done):
    """Skip where a tool is missing, except in CI."""
    if done.returncode == 0:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"in CI nothing may be missing: {done.stderr}")
    pytest.skip(done.stderr.strip())


def built(kind, *flags):
    """Build below OUT, one process at a time; unchanged sources are not compiled again."""
    OUT.mkdir(exist_ok=True)
    with open(OUT / f"{kind}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = call("bash", BUILD, f"--out={OUT / kind}", *flags, seconds=BUILD_SECONDS)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return OUT / kind


def write_mindir(network, inputs, path):
    """Export a network as a file of version 1."""
    made = path.with_name("version_3.mindir")
    ms.export(network, *inputs, file_name=str(made), file_format="MINDIR")
    path.write_bytes(to_version_1(made.read_bytes(), str(made)))
    return path


def run_unit_tests(folder, **variables):
    """Run the C++ unit tests of a build; none of them may be missing."""
    done = call(folder / "defrcn_tests", "--gtest_brief=1", **variables)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    count = 140 if (folder / "defrcn_probe").exists() else 75  # with bundles, and without
    assert int(re.search(r"PASSED  \] (\d+) tests", done.stdout)[1]) >= count


def ask(probe, folder, jobs, seconds=RUN_SECONDS, **variables):
    """The lines that `defrcn_probe` prints for jobs, each a sequence of words."""
    path = folder / "jobs.txt"
    path.write_text("".join(" ".join(map(str, job)) + "\n" for job in jobs))
    done = call(probe, path, seconds=seconds, **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(jobs)
    return lines
