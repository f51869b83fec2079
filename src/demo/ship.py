# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Make the detector and the encoder in configs/demo those of a demo that trained them.

    bash scripts/run_demo.sh --from-scratch DIR
    python -m src.demo.ship --output DIR

`shapes_base.ckpt` is the base detector at its last step, `shapes_encoder.ckpt` the calibration's
encoder; the note beside each says how it was made, its figures and its SHA-256. Training on another
machine gives other bytes and about the same figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.util import read_json, run_main
from src.weights.ckpt_format import write_ckpt
from src.weights.note import read_weights, write_note

BASE = "base"  # below checkpoints
ENCODER = "encoder.ckpt"
_AGAIN = "run bash scripts/run_demo.sh --from-scratch first."


def ship(output: Path, target: Path) -> list[Path]:
    """Write a demo's base detector and encoder, and their notes, into a folder.

    Args:
        output: the demo's folder, of a finished run with --from-scratch.
        target: where to; what has these names there is replaced.

    Returns:
        The two `.ckpt` files.

    Raises:
        InputError: the demo is not finished, or did not train these.
    """
    summary = read_json(output / "summary.json", _AGAIN)
    if "base" not in summary["training"]:
        raise InputError(f"{output}: this demo trained no base detector; {_AGAIN}")
    (base,) = summary["evaluation"]["base"]
    (novel,) = summary["evaluation"]["novel_pcb"]
    origin = {
        "commands": [
            "bash scripts/run_demo.sh --from-scratch DIR",
            "python -m src.demo.ship --output DIR",
        ],
        "settings": (output / "steps.txt").read_text(encoding="utf-8").splitlines()[0],
        "pictures": summary["data"],
    }
    judged = {
        "shapes_base": (BASE, base),
        "shapes_encoder": (ENCODER, novel),
    }
    written = []
    for name, (place, evaluation) in judged.items():
        weights = read_weights(output / "checkpoints" / place, "--output")
        path = target / f"{name}.ckpt"
        write_ckpt(path, weights.params)
        figures = {evaluation["protocol"]: evaluation["results"]}
        write_note(path, weights.class_names, {**origin, "figures": figures})
        written.append(path)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files and say where."""
    parser = argparse.ArgumentParser(
        prog="python -m src.demo.ship", description="Ship a demo's base detector and encoder."
    )
    parser.add_argument("--output", type=Path, required=True, help="the demo's folder")
    target = project_folder() / "configs" / "demo"
    for path in ship(parser.parse_args(argv).output, target):
        sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    run_main(main)
