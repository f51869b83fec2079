# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Whole programs in turn: eval.py, and the twin's evaluation, on the demo's test pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.comparison.cases import Case
from benchmarks.comparison.turns import Times, WorkerError

FIGURES = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class Demo:
    """Where the demo's pictures and its detector are.

    Attributes:
        folder: of all that is written.
        checkpoint: a `.ckpt` file.
    """

    folder: Path
    checkpoint: Path

    @property
    def data(self) -> Path:
        """The root of the data set."""
        return self.folder / "data"


def prepare(folder: Path, checkout: Path) -> Demo:
    """Draw the pictures.

    Args:
        folder: where to.
        checkout: the project, whose own detector is used.
    """
    command = [sys.executable, "-m", "src.demo.make_data", "--seed", "0"]
    pictures = folder.resolve() / "data" / "shapes"
    subprocess.run([*command, "--output", str(pictures)], cwd=checkout, check=True)
    return Demo(folder.resolve(), checkout.resolve() / "configs" / "demo" / "shapes_base.ckpt")


def our_command(case: Case, demo: Demo, result: Path) -> list[str]:
    """eval.py without pictures of detections, which the other side does not draw."""
    return [
        *(sys.executable, "eval.py", f"--config_path={case.config}"),
        f"--datasets_root={demo.data}",
        f"--train_mindrecord_dir={result}/mindrecord/train",
        f"--test_mindrecord_dir={result}/mindrecord/test",
        f"--eval_checkpoint_path={demo.checkpoint}",
        f"--result_path={result}/eval",
        "--test.visualize_images=0",
    ]


def their_command(case: Case, demo: Demo, python: str, result: Path) -> list[str]:
    """The twin's evaluation."""
    return [
        *(python, "benchmarks/torch_twin.py", "evaluate", f"--config_path={case.config}"),
        f"--data={demo.data}/shapes",
        f"--checkpoint={demo.checkpoint}",
        f"--result={result}",
    ]


def our_figures(result: Path) -> dict[str, np.ndarray]:
    """What eval.py found, percent."""
    (found,) = json.loads((result / "eval" / "metrics.json").read_text()).values()
    return {"figures": np.array([found["results"][f"b{name}"] for name in FIGURES])}


def their_figures(result: Path) -> dict[str, np.ndarray]:
    """What the twin found, percent."""
    found = json.loads((result / "metrics.json").read_text())
    return {"figures": np.array([found[name] for name in FIGURES])}


def run(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
) -> tuple[float, float]:
    """Run a program to its end: seconds, and its peak memory in MB.

    Raises:
        WorkerError: it failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as told:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=told, stderr=told
        )
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise WorkerError(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    return took, usage.ru_maxrss * 1024 / 1e6


def take_turns(
    commands: Mapping[str, tuple[Sequence[str], Path]],
    environment: Mapping[str, str],
    logs: Path,
    repeats: int,
) -> dict[str, tuple[Times, float]]:
    """Run each once, then in turn `repeats` times; who begins changes every time.

    Args:
        commands: by name, each with the folder that it runs in.
        environment: more variables.
        logs: folder of what they write.
        repeats: rounds after the first.

    Returns:
        Times and peak memory in MB by name.
    """
    times: dict[str, Times] = {}
    peaks = dict.fromkeys(commands, 0.0)
    for turn in range(repeats + 1):
        order = list(commands) if turn % 2 == 0 else list(reversed(commands))
        for name in order:
            took, peak = run(*commands[name], environment, logs / f"{name}.log")
            peaks[name] = max(peaks[name], peak)
            if name in times:
                times[name].later[0].append(took)
            else:
                times[name] = Times(took, [[]])
    return {name: (times[name], peaks[name]) for name in commands}
