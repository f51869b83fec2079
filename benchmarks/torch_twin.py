# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The same detector with torch and torchvision, to measure this project against.

    python benchmarks/torch_twin.py check
    python benchmarks/torch_twin.py evaluate --config_path=FILE --data=FOLDER --checkpoint=FILE \
        --result=FOLDER
    python benchmarks/torch_twin.py time --device=cuda

Runs in an environment of its own, `benchmarks/requirements-torch.txt`. `check` compares it with
the golden vectors that the official code produced, with the tolerances of the project's tests
(topics 07, 08, 09, 12 and 13). `evaluate` is a whole evaluation of a data set in COCO format,
`time` the full network's steps on one device.
`benchmarks/compare.py` starts both, and the measurements.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

THREADS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Check, or evaluate; exit code 1 if a number is off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("check", help="against the golden vectors")
    evaluate = what.add_parser("evaluate", help="a data set in COCO format")
    evaluate.add_argument("--config_path", required=True)
    evaluate.add_argument("--data", type=Path, required=True, help="annotations and images")
    evaluate.add_argument("--checkpoint", type=Path, required=True)
    evaluate.add_argument("--result", type=Path, required=True)
    timing = what.add_parser("time", help="the full network on one device")
    timing.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    timing.add_argument("--repeats", type=int, default=10, help="calls after the first one")
    timing.add_argument("--small", action="store_true", help="256x256, to try it")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    import torch

    torch.set_num_threads(THREADS)
    if arguments.what == "check":
        from benchmarks.twin import check

        return 0 if check.run() else 1
    if arguments.what == "time":
        from benchmarks.twin.timing import measure

        table = measure(arguments.device, arguments.repeats, small=arguments.small)
        sys.stdout.write(table + "\n")
        return 0
    from benchmarks.twin.evaluate import evaluate_folder

    evaluate_folder(arguments.config_path, arguments.data, arguments.checkpoint, arguments.result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
