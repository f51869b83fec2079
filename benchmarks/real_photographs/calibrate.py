# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
r"""Calibrate the stored detections of finished runs, and judge them: one process for a whole sweep.

    python -m benchmarks.real_photographs.calibrate --config_path=FILE \
        --runs RUN:K:SEED [RUN:K:SEED ...] --train=neu_train_all_{shot}shot_seedx [--key=value ...]

What eval.py does with `test.pcb.enable`, without the detector: a detection's box and place stay,
so it need not be found once more. Writes RUN/calibrated/metrics.json.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.real_photographs.figures import last_evaluation
from src import detecteval
from src.assembly.calibration import make_calibrator
from src.assembly.data import read_sets
from src.assembly.device import start_device
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.config import Config, load_config
from src.util import run_main, set_up_logging, write_json

logger = logging.getLogger(__name__)

FLAGS: Flags = {
    "--config_path": dict(required=True, help="YAML file of the runs"),
    "--runs": dict(nargs="+", required=True, help="folder:shots:seed of each"),
    "--train": dict(required=True, help="the K-shot set, with {shot} and seedx"),
}


def calibrated(config: Config, run: Path) -> detecteval.Evaluation:
    """Judge a run's stored detections with the scores that the calibration block gives them.

    Args:
        config: of the run.
        run: its folder; of several evaluations the one after the last step counts.
    """
    info, records = read_sets(config, config.data.test)
    stored = last_evaluation(run) / "detections.json"
    calibrator = make_calibrator(config, info, run)
    assert calibrator is not None
    by_image = defaultdict(list)
    for row in detecteval.read_rows(stored):
        by_image[row["image_id"]].append(row)
    index_of = {identity: index for index, identity in enumerate(info.category_ids)}
    for record in records:
        rows = by_image[record.image_id]
        boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([row["score"] for row in rows], np.float32)
        classes = np.array([index_of[row["category_id"]] for row in rows], np.int64)
        for row, score in zip(rows, calibrator(record.file_name, boxes, scores, classes)):
            row["score"] = float(score)
    rows = [row for record in records for row in by_image[record.image_id]]
    truth = detecteval.dataset_ground_truth(info, records)
    return detecteval.evaluate(info, truth, rows, metric=config.test.metric, pcb=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate and judge every run."""
    parser = command_parser(FLAGS, program="calibrate", description=__doc__)
    options, words = parser.parse_known_args(argv)
    set_up_logging()
    for number, text in enumerate(options.runs):
        folder, shot, seed = text.rsplit(":", 2)
        train = options.train.replace("{shot}", shot)
        flags = [f"--data.train=[{train}]", f"--shot_seed={seed}", "--test.pcb.enable=true"]
        config = load_config(options.config_path, [*words, *flags])
        if number == 0:
            start_device(config, alone=True)
        found = calibrated(config, Path(folder))
        content = {config.data.test[0]: found.to_json()}
        write_json(Path(folder) / "calibrated" / "metrics.json", content)
        logger.info("%s: calibrated", folder)
    return 0


if __name__ == "__main__":
    run_main(main)
