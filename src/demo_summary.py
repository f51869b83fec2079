"""Sum up a run of scripts/run_demo.sh: print the figures, write them to summary.json.

    python -m src.demo_summary --output DIR --data_seconds 20 --train_seconds 300 ...

Reads what the run left in DIR: the data set's manifest, `checkpoints/**/loss_0.log`, and
`results/metrics.json`. Prints nothing that is not in the JSON file.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate  # type: ignore[import-untyped]

from src.model_utils.errors import InputError
from src.util import run_main, write_json

STEPS = ("data", "train", "eval")
COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_LOSS_LINE = re.compile(
    r"(?P<seconds>\d+) s \| epoch: (?P<epoch>\d+) step: (?P<step>\d+) "
    r"total_loss: (?P<total_loss>\S+)\s+lr: (?P<lr>\S+)"
)


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Read a JSON file that the run should have left.

    Raises:
        InputError: if it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run the demo again.") from error


def read_losses(folder: Path) -> list[dict[str, float]]:
    """Return the lines of the run's `loss_0.log` files as numbers, oldest first."""
    rows = []
    for path in sorted(folder.rglob("loss_0.log")):
        for line in path.read_text(encoding="utf-8").splitlines():
            found = _LOSS_LINE.match(line)
            if found:
                rows.append({name: float(text) for name, text in found.groupdict().items()})
    return rows


def evaluations(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one entry per test set from metrics.json: it holds one set, or several by name."""
    return [metrics] if "results" in metrics else list(metrics.values())


def summarize(output: Path, seconds: dict[str, int]) -> dict[str, Any]:
    """Collect every figure of a run.

    Args:
        output: the demo's folder.
        seconds: wall time of each of `STEPS`.
    """
    results = output / "results"
    pictures = sorted(str(path) for path in results.rglob("*.png"))
    return {
        "data": read_json(output / "data" / "shapes" / "manifest.json")["settings"],
        "seconds": {**seconds, "total": sum(seconds.values())},
        "training": read_losses(output / "checkpoints"),
        "evaluation": evaluations(read_json(results / "metrics.json")),
        "pictures": {
            "preview": str(output / "data" / "shapes" / "preview.png"),
            "detections": pictures,
        },
    }


def report(summary: dict[str, Any]) -> str:
    """Return the summary as text: a table a test set, then times and places."""
    lines = []
    for entry in summary["evaluation"]:
        lines.append(f"{entry['dataset']}, {entry['num_images']} held-out pictures, percent:")
        rows = [
            [group, *(_figure(figures[name]) for name in COLUMNS)]
            for group, figures in entry["summary"].items()
        ]
        lines.append(
            str(tabulate(rows, ["classes", *COLUMNS], tablefmt="pipe", disable_numparse=True))
        )
    if summary["training"]:
        last = summary["training"][-1]
        lines.append(f"last logged loss: {last['total_loss']:.5f}")
    times = ", ".join(f"{name} {seconds} s" for name, seconds in summary["seconds"].items())
    lines.append(f"time: {times}")
    lines.append(f"the pictures:   {summary['pictures']['preview']}")
    detections = summary["pictures"]["detections"]
    if detections:
        lines.append(f"the detections: {Path(detections[0]).parent} ({len(detections)} pictures)")
    return "\n".join(lines)


def _figure(value: float) -> str:
    return "n/a" if value < 0 else f"{value:.1f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Write summary.json and print it as text."""
    parser = argparse.ArgumentParser(prog="python -m src.demo_summary", description="Sum up.")
    parser.add_argument("--output", type=Path, required=True, help="the demo's folder")
    for step in STEPS:
        parser.add_argument(f"--{step}_seconds", type=int, required=True, help="wall time")
    arguments = parser.parse_args(argv)
    seconds = {step: getattr(arguments, f"{step}_seconds") for step in STEPS}
    summary = summarize(arguments.output, seconds)
    path = arguments.output / "summary.json"
    write_json(path, summary)
    sys.stdout.write(f"{report(summary)}\nevery figure:   {path}\n")
    return 0


if __name__ == "__main__":
    run_main(main)
