# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The trial on one device: goes on after a failure, one table at the end, losses side by side."""

import os
import subprocess
import sys

import pytest

from benchmarks import device
from src.model_utils.paths import project_folder

ROOT = project_folder()


def trial(out, *words, **variables):
    return subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "device.sh"), str(out), *words],
        env={**os.environ, "DEFRCN_VENV": sys.prefix, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_failure_does_not_end_it(tmp_path):
    """Without a card the first step fails; the second one is done all the same."""
    out = tmp_path / "a trial"
    twin = tmp_path / "python"
    twin.write_text("#!/bin/sh\necho '| twin | 1.0 |'\n")
    twin.chmod(0o755)
    variables = {"DEFRCN_TRIAL": "check twin", "DEFRCN_TWIN": str(twin), "CUDA_HOME": "/none"}
    variables["CUDA_VISIBLE_DEVICES"] = ""
    done = trial(out, "GPU", **variables)
    assert done.returncode == 1
    text = (out / "table.md").read_text()
    assert done.stdout.endswith(text)
    assert "| check | **failed** (status 1) |" in text
    assert "| twin | passed |" in text and "\n## twin\n\n| twin | 1.0 |\n" in text
    assert "| NVIDIA driver " in text  # the table of the failed step, too
    again = trial(out, "GPU", **variables)
    assert again.returncode == 1 and "holds a trial; name another folder" in again.stderr
    assert trial("", "GPU", "more").returncode == 2


def test_losses_of_two_runs(tmp_path):
    paths = []
    for name, losses in (("a", (2.0, 1.0, 0.5)), ("b", (2.0, 1.1, 0.4, 0.3))):
        paths.append(tmp_path / name)
        lines = (f"1 s | epoch: 1 step: 1 total_loss: {loss:.5f}  lr: 0.1\n" for loss in losses)
        paths[-1].write_text("".join(lines))
    table = device.compare_losses(*paths)
    assert "| relative difference of the first loss | 0.0e+00" in table
    assert "| largest of the first ten" in table and "| 2.5e-01" in table
    assert "| 0.5000 and 0.4000" in table


def test_a_measurement_that_fails_is_a_row(monkeypatch, capsys):
    found = device.Measured("inference", "float32", 3.0, 1.0, 1.5, 0, 2 * 10**9)
    answers = iter(["no memory", "no memory", found])
    monkeypatch.setattr(device, "in_child", lambda *_: next(answers))
    assert device.main(["--repeats=1"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert "failed" in rows[2] and "no memory" in rows[2]
    cells = [cell.strip() for cell in rows[4].strip("|").split("|")]
    assert cells == ["inference", "float32", "3.000", "1.000", "1.500", "2.00"]


@pytest.mark.slow
def test_the_full_network_is_measured():
    found = device.in_child("inference", "float32", device_options())
    assert isinstance(found, device.Measured)
    assert found.first > found.minimum > 0 and found.host_memory > 10**9


def device_options():
    class Options:
        device_target, repeats = "CPU", 1

    return Options
