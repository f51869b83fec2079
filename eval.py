# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Evaluate a checkpoint: python eval.py --config_path=FILE --eval_checkpoint_path=FILE."""

from __future__ import annotations

if __name__ == "__main__":
    from src.model_utils.interruption import hold_interrupts

    hold_interrupts()  # before the libraries below start threads

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from src.assembly.device import start_device
from src.assembly.evaluation import (
    evaluate_sets,
    evaluation_checkpoint,
    load_for_evaluation,
    make_inference,
    open_test_sets,
)
from src.assembly.modelarts import copies, on_this_machine
from src.assembly.training import make_detector
from src.assembly.watch import open_watch, show_evaluation, step_of
from src.engine.claims import alone_in
from src.engine.parallel import Group
from src.model_utils.config import Config, config_from_arguments
from src.util import run_main, set_up_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Detect on the test sets, print the tables, write figures and pictures."""
    config = config_from_arguments(argv, "Evaluate a DeFRCN checkpoint.")
    config = on_this_machine(config)
    # Before anything else: in the scheduler of several processes this does not return.
    runtime = start_device(config)
    folder = Path(config.result_path or Path(config.save_checkpoint_path) / "eval")
    group = Group(runtime.rank, runtime.world_size, runtime.local_rank)
    with alone_in(folder, "eval.py", "result_path", group=group):
        set_up_logging(runtime.rank, folder / f"log_{runtime.rank}.txt")
        with copies(config, runtime.rank, runtime.local_rank):
            evaluate(config, group, folder)
    return 0


def evaluate(config: Config, group: Group, folder: Path) -> None:
    """The work of `main`; everything is written below `folder`."""
    path = evaluation_checkpoint(config)
    sets = open_test_sets(config, group=group)
    class_names = sets[0].info.class_names
    net = make_detector(config, class_names)
    loaded = load_for_evaluation(net, path, class_names)
    outputs_of = make_inference(config, net)
    with contextlib.closing(open_watch(config, folder, rank=group.rank)) as watch:
        text, figures = evaluate_sets(
            config, outputs_of, sets, folder, checkpoint=loaded, group=group
        )
        step = step_of(loaded)
        show_evaluation(config, watch, step, figures, folder)
    if group.leads:
        sys.stdout.write(text + "\n")


if __name__ == "__main__":
    run_main(main)
