# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Train the detector: python train.py --config_path=FILE [--key=value ...]."""

from __future__ import annotations

if __name__ == "__main__":
    from src.model_utils.interruption import hold_interrupts

    hold_interrupts()  # before the libraries below start threads

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from src.assembly import evaluation as assembly_eval
from src.assembly import modelarts as assembly_modelarts
from src.assembly import runs as assembly_runs
from src.assembly import training as assembly
from src.assembly import watch as assembly_watch
from src.assembly.data import read_training_data
from src.assembly.device import start_device
from src.assembly.resume import check_resumable, origin_of
from src.assembly.schedule import make_schedule
from src.engine.claims import alone_in
from src.engine.parallel import Group
from src.lr_schedule import Schedule
from src.model_utils.config import Config, config_from_arguments, to_plain
from src.model_utils.interruption import StopRequests
from src.model_utils.paths import CHECKPOINTS
from src.util import run_main
from src.weights.checkpoint import load_training_checkpoint

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the configuration, prepare the data, train, save, evaluate.

    SIGINT, SIGTERM and SIGHUP end it after the step under way, which is saved.
    """
    config = config_from_arguments(argv, "Train DeFRCN.")
    with StopRequests() as stop:
        config = assembly_modelarts.on_this_machine(config)
        # Before anything else: in the scheduler of several processes this does not return.
        runtime = start_device(config)
        group = Group(runtime.rank, runtime.world_size, runtime.local_rank)
        with assembly_runs.hold_run_folder(config, group):
            with assembly_modelarts.copies(config, runtime.rank, runtime.local_rank):
                train(config, group, stop)
    return 0


def train(config: Config, group: Group, stop: StopRequests) -> None:
    """The work of `main`; `stop` ends it by `Interrupted`."""
    folder = Path(config.save_checkpoint_path)
    checkpoint_folder = folder / CHECKPOINTS
    resumed = load_training_checkpoint(checkpoint_folder) if config.resume else None
    start = resumed.step if resumed else 0
    group.check_same(start, "the step to go on from")
    data = read_training_data(config)
    check_resumable(config, data, resumed)
    loader = assembly.open_training_data(config, data, start_batch=start, group=group)
    net = assembly.make_detector(config, loader.class_names)
    schedule: Schedule = make_schedule(config, group.size)
    watch = assembly_watch.open_watch(
        config,
        folder,
        rank=group.rank,
        first_step=resumed.step + 1 if resumed else 0,
        num_steps=schedule.max_steps - start,
    )
    assembly.load_start(config, net, resumed, loader.class_names)
    evaluates = assembly_eval.evaluates(config)
    test_sets = (
        assembly_eval.open_test_sets(config, loader.class_names, group=group) if evaluates else []
    )
    outputs_of = assembly_eval.make_inference(config, net)

    def evaluate(step: int) -> None:
        place = folder / f"eval_{step}"
        with alone_in(place, "train.py", "save_checkpoint_path", group=group):
            text, figures = assembly_eval.evaluate_sets(
                config, outputs_of, test_sets, place, group=group
            )
            if group.leads:
                logger.info("after step %d:\n%s", step, text)
                assembly_watch.show_evaluation(config, watch, step, figures, place)

    trainer = assembly.make_trainer(
        config,
        net,
        schedule,
        loader,
        group=group,
        evaluate=evaluate if test_sets else None,
        stop=stop,
        origin=origin_of(config, data, resumed),
        data=data,
    )
    if resumed:
        trainer.restore(resumed)
        logger.info("resumed after step %d of %s", resumed.step, resumed.manifest)
    elif config.resume:
        logger.info("nothing to resume in %s: from the beginning", checkpoint_folder)
    logger.info("configuration: %s", to_plain(config))
    with contextlib.closing(watch):
        with contextlib.closing(loader):
            done = (folder / f"eval_{trainer.step}/metrics.json").exists()
            if resumed and trainer.evaluates_now and not group.of_first(done):
                evaluate(resumed.step)  # it was interrupted
            trainer.run(loader, watch)
        if test_sets and config.test.eval_at_end and trainer.evaluated != trainer.step:
            evaluate(trainer.step)


if __name__ == "__main__":
    run_main(main)
