# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
r"""Judge stored detections and write the page, without a network or a device.

    python -m src.tools.report --config_path=FILE --detections=detections.json --output=DIR \
        [--before=BASE_EVAL_DIR]

The configuration names the test set and, if wanted, the metric; `detections.json` is what eval.py
wrote, or any other file in COCO's result format. `--before` names the result folder of the base
detector: the page then shows what fine-tuning cost each base class.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from src import detecteval
from src.assembly.data import read_sets
from src.engine.claims import alone_in
from src.evaluation.report.forgotten import read_before
from src.evaluation.report.page import check_free, write_report
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.util import run_main, set_up_logging, write_json

FLAGS: Flags = {
    "--config_path": dict(required=True, help="the YAML file"),
    "--detections": dict(required=True, type=Path, help="COCO result file, as eval.py writes"),
    "--output": dict(required=True, type=Path, help="folder of the page, new or empty"),
    "--test_set": dict(default="", help="name; default: the one in data.test"),
    "--pictures": dict(type=int, default=24, help="drawn of each kind (default 24)"),
    "--before": dict(default="", help="result folder of the base detector's evaluation"),
    "--title": dict(default="", help="shown on the page; default: the file's name"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and the figures, print the tables."""
    parser = command_parser(
        FLAGS,
        program="python -m src.tools.report",
        description="Judge stored detections and write a page with curves, tables and pictures.",
        epilog="Every key of the configuration is a flag too: --data.test=[mine_test_all]",
    )
    arguments, overrides = parser.parse_known_args(argv)
    set_up_logging()
    if arguments.pictures < 0:
        raise InputError(f"--pictures {arguments.pictures} must be 0 or more")
    config = load_config(arguments.config_path, overrides)
    names = [arguments.test_set] if arguments.test_set else list(config.data.test)
    if len(names) > 1:
        raise InputError(f"data.test names {', '.join(names)}; choose one of them with --test_set")
    detections, output = arguments.detections, arguments.output
    rows = detecteval.read_rows(detections)
    info, records = read_sets(config, tuple(names))
    ground_truth = detecteval.dataset_ground_truth(info, records)
    before = None
    if arguments.before:
        metric = detecteval.metric_of(info.name, config.test.metric)
        before = read_before(arguments.before, "--before", info, metric)
    pcb = known_calibration(detections, info.name)
    evaluation = detecteval.evaluate(info, ground_truth, rows, metric=config.test.metric, pcb=pcb)
    check_free(output)
    with alone_in(output, "src.tools.report", "--output"):
        page = write_report(
            output,
            evaluation,
            info,
            ground_truth,
            records,
            rows,
            source=arguments.title or detections.name,
            before=before,
            max_pictures=arguments.pictures,
            max_pixels=config.data.max_image_pixels,
        )
        write_json(output / "metrics.json", evaluation.to_json())
    sys.stdout.write(f"{detecteval.report(evaluation)}\npage: {page}\n")
    return 0


def known_calibration(detections: Path, dataset: str) -> bool | None:
    """Whether stored scores were calibrated by PCB, from the metrics.json that eval.py left.

    It lies beside the detections, or one folder up if there were several test sets. None if there
    is none, or if it says nothing of this test set.
    """
    for folder in (detections.parent, detections.resolve().parent.parent):
        try:
            content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            found = content[dataset]["pcb"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return found if isinstance(found, bool) else None
    return None


if __name__ == "__main__":
    run_main(main)
