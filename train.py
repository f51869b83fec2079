"""Train the detector: python train.py --config_path=FILE [--key=value ...]."""

from __future__ import annotations

if __name__ == "__main__":
    from src.interruption import hold_interrupts

    hold_interrupts()  # before the libraries below start threads

import logging
from collections.abc import Sequence
from pathlib import Path

from src import assembly, assembly_eval
from src.checkpoint import load_training_checkpoint
from src.interruption import StopRequests
from src.lr_schedule import Schedule
from src.model_utils.config import config_from_arguments, to_plain
from src.model_utils.device_adapter import Runtime
from src.util import run_main, set_up_logging

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the configuration, prepare the data, train, save, evaluate.

    SIGINT, SIGTERM and SIGHUP end it after the step under way, which is saved.
    """
    with StopRequests() as stop:
        return train(argv, stop)


def train(argv: Sequence[str] | None, stop: StopRequests) -> int:
    """The work of `main`; `stop` ends it by `Interrupted`."""
    config = config_from_arguments(argv, "Train DeFRCN.")
    folder = Path(config.save_checkpoint_path)
    # First of all: in the scheduler of several processes this does not return.
    runtime = Runtime.start(
        config.device_target,
        device_id=config.device_id,
        distribute=config.run_distribute,
        device_num=config.device_num,
    )
    set_up_logging(runtime.rank, folder / f"log_{runtime.rank}.txt")
    checkpoint_folder = folder / f"ckpt_{runtime.rank}"
    resumed = load_training_checkpoint(checkpoint_folder) if config.resume else None
    loader = assembly.open_training_data(config, start_batch=resumed.step if resumed else 0)
    net = assembly.make_detector(config, loader.class_names)
    schedule: Schedule = assembly.make_schedule(config, runtime.world_size)
    assembly.load_start(config, net, resumed, loader.class_names)
    evaluates = assembly_eval.evaluates(config)
    test_sets = assembly_eval.open_test_sets(config, loader.class_names) if evaluates else []
    eval_step = assembly_eval.make_eval_step(config, net)

    def evaluate(step: int) -> None:
        place = folder / f"eval_{step}"
        text, _ = assembly_eval.evaluate_sets(config, eval_step, test_sets, place)
        logger.info("after step %d:\n%s", step, text)

    trainer = assembly.make_trainer(
        config, net, schedule, runtime, loader, evaluate=evaluate if test_sets else None, stop=stop
    )
    if resumed:
        trainer.restore(resumed)
        logger.info("resumed after step %d of %s", resumed.step, resumed.manifest)
        if trainer.evaluates_now and not (folder / f"eval_{resumed.step}/metrics.json").exists():
            evaluate(resumed.step)  # it was interrupted
    elif config.resume:
        logger.info("nothing to resume in %s: from the beginning", checkpoint_folder)
    logger.info("configuration: %s", to_plain(config))
    try:
        trainer.run(loader)
    finally:
        loader.close()
    if test_sets and config.test.eval_at_end and trainer.evaluated != trainer.step:
        evaluate(trainer.step)
    return 0


if __name__ == "__main__":
    run_main(main)
