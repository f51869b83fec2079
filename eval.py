"""Evaluate a checkpoint: python eval.py --config_path=FILE --eval_checkpoint_path=FILE."""

from __future__ import annotations

if __name__ == "__main__":
    from src.interruption import hold_interrupts

    hold_interrupts()  # before the libraries below start threads

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from src import assembly, assembly_eval
from src.model_utils.config import config_from_arguments
from src.model_utils.device_adapter import Runtime
from src.util import run_main, set_up_logging

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Detect on the test sets, print the tables, write figures and pictures."""
    config = config_from_arguments(argv, "Evaluate a DeFRCN checkpoint.")
    set_up_logging(config.rank_id)
    Runtime.start(config.device_target, device_id=config.device_id, rank=config.rank_id)
    path = assembly_eval.evaluation_checkpoint(config)
    sets = assembly_eval.open_test_sets(config)
    class_names = sets[0].info.class_names
    net = assembly.make_detector(config, class_names)
    loaded = assembly_eval.load_for_evaluation(net, path, class_names)
    folder = Path(config.result_path or Path(config.save_checkpoint_path) / "eval")
    text, _ = assembly_eval.evaluate_sets(
        config, assembly_eval.make_eval_step(config, net), sets, folder, checkpoint=loaded
    )
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    run_main(main)
