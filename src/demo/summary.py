# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Sum up a run of scripts/run_demo.sh: print the figures, write them to summary.json.

    python -m src.demo.summary --output DIR

Reads what the run left in DIR: the seconds of its steps, the data set's manifest, the logs of
trainings and evaluations, `results/*/metrics.json`, and the C++ program's results if there are
any. The JSON file holds every figure of these, and all that is printed here.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.model_utils.errors import InputError
from src.util import pipe_table, read_json, run_main, write_json

STEPS = (
    "data",
    "train",
    "eval",
    "surgery",
    "encoder",
    "finetune",
    "eval_novel",
    "eval_novel_pcb",
    "predict",
    "deploy",
)
FROM_SCRATCH = ("train", "encoder")  # left out where the shipped detector and encoder are used
# Names of the evaluations' folders and logs, and what they are.
EVALUATIONS = {
    "base": "base classes",
    "novel": "novel classes, 5 shots, without calibration",
    "novel_pcb": "novel classes, 5 shots, with calibration",
}
# Of the C++ program, below the demo's folder; the step is left out without a compiler.
DEPLOYED = "inference/result_Files/evaluation/metrics.json"
DEPLOYED_TITLE = "base classes, exported, by the C++ program"
_AGAIN = "run the demo again."
TRAININGS = {"base": "train", "novel": "finetune"}  # and their steps
COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_TRAIN_LINE = re.compile(r"step (?P<step>\d+)/(?P<of>\d+)  (?P<rest>.*)")
_EVAL_LINE = re.compile(
    r"(?P<images>\d+) images in (?P<seconds>[\d.]+) s, (?P<images_per_second>[\d.]+) images/s"
)


def read_text(path: Path) -> str:
    """Read a text file that the run should have left.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {_AGAIN}") from error


def read_seconds(path: Path) -> dict[str, int]:
    """Return the wall time of each of `STEPS` that was done from lines "NAME SECONDS" of a file.

    Raises:
        InputError: a step has not been finished.
    """
    text = read_text(path)
    found = dict(re.findall(r"(?m)^([a-z_]+) (\d+)$", text))
    all_of_them = re.match(r"settings .*--from-scratch", text)
    steps = [step for step in STEPS if all_of_them or step not in FROM_SCRATCH]
    missing = [step for step in steps if step not in found]
    if missing:
        raise InputError(f"{path}: the step {missing[0]} is not finished; {_AGAIN}")
    return {step: int(found[step]) for step in steps}


def read_training(log: Path) -> list[dict[str, float]]:
    """Return the lines of the training's log as numbers: losses, rate, speed, memory."""
    rows = []
    for found in _TRAIN_LINE.finditer(read_text(log)):
        row = {"step": float(found["step"]), "of": float(found["of"])}
        for name, text in re.findall(r"([a-z_]+) ([\d.]+)(?=\s|$)", found["rest"]):
            row[name] = float(text)
        for name, unit in (("images_per_second", "images/s"), ("gigabytes", "GB")):
            number = re.search(rf"([\d.]+) {unit}", found["rest"])
            if number:
                row[name] = float(number[1])
        rows.append(row)
    return rows


def read_inference(log: Path) -> list[dict[str, float]]:
    """Return number of images, seconds and speed of each test set from the evaluation's log."""
    return [
        {name: float(text) for name, text in found.groupdict().items()}
        for found in _EVAL_LINE.finditer(read_text(log))
    ]


def evaluations(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one entry per test set from metrics.json: it holds one set, or several by name."""
    return [metrics] if "results" in metrics else list(metrics.values())


def summarize(output: Path) -> dict[str, Any]:
    """Collect every figure of a run in the demo's folder."""
    seconds = read_seconds(output / "steps.txt")
    results = output / "results"
    metrics = {name: results / name / "metrics.json" for name in EVALUATIONS}
    if (output / DEPLOYED).exists():
        metrics["deployed"] = output / DEPLOYED
    return {
        "data": read_json(output / "data/shapes/manifest.json", _AGAIN)["settings"],
        "seconds": {**seconds, "total": sum(seconds.values())},
        "training": {
            name: read_training(output / f"train_{name}.log")
            for name, step in TRAININGS.items()
            if step in seconds
        },
        "inference": {name: read_inference(output / f"eval_{name}.log") for name in EVALUATIONS},
        "evaluation": {
            name: evaluations(read_json(path, _AGAIN)) for name, path in metrics.items()
        },
        "pictures": {
            "preview": str(output / "data" / "shapes" / "preview.png"),
            "base detections": str(results / "base" / "pictures"),
            "novel detections": str(results / "novel_pcb" / "pictures"),
            "predictions": str(output / "predictions"),
            "report": str(results / "novel_pcb" / "report" / "index.html"),
        },
    }


def report(summary: dict[str, Any]) -> str:
    """Return the summary as text: a table, then losses, times and places."""
    lines, rows = [], []
    for name, entries in summary["evaluation"].items():
        for entry in entries:
            figures = entry["summary"]["all"]
            title = EVALUATIONS.get(name, DEPLOYED_TITLE)
            rows.append([title, *(_figure(figures[column]) for column in COLUMNS)])
    lines.append(f"{summary['data']['test']} held-out pictures, COCO's figures in percent:")
    lines.append(pipe_table(rows, ["", *COLUMNS]))
    if "deployed" not in summary["evaluation"]:
        lines.append("the C++ program was left out; its step says why")
    for name, steps in summary["training"].items():
        if steps:
            last = steps[-1]
            lines.append(f"{name} training: loss {last['total']:.4f} at step {last['step']:.0f}")
    if "base" not in summary["training"]:
        lines.append("base training: none, the detector and the encoder of configs/demo were used")
    times = ", ".join(f"{name} {seconds} s" for name, seconds in summary["seconds"].items())
    lines.append(f"time: {times}")
    lines += [f"{name}: {place}" for name, place in summary["pictures"].items()]
    return "\n".join(lines)


def _figure(value: float) -> str:
    return "n/a" if value < 0 else f"{value:.1f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Write summary.json and print it as text."""
    parser = argparse.ArgumentParser(prog="python -m src.demo.summary", description="Sum up.")
    parser.add_argument("--output", type=Path, required=True, help="the demo's folder")
    arguments = parser.parse_args(argv)
    summary = summarize(arguments.output)
    path = arguments.output / "summary.json"
    write_json(path, summary)
    sys.stdout.write(f"{report(summary)}\nevery figure:   {path}\n")
    return 0


if __name__ == "__main__":
    run_main(main)
