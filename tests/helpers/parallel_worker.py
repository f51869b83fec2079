# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What one process of tests/programs/test_parallel.py does: parallel_worker.py MODE FOLDER [FLAGS].

`train`: train.py with FLAGS, and what it does not write down: losses and weights in full, rows of
detections, and what the processes tell each other. `endless`: a training without a network, to be
ended from outside. `die`: the second process dies. Results go to FOLDER/RANK.json and .npz.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    from src.model_utils.interruption import hold_interrupts

    hold_interrupts()

import numpy as np
from mindspore import Parameter, Tensor, nn

import train as train_program
from src.assembly import evaluation
from src.assembly import training as assembly
from src.data.batching import Batch
from src.engine.noise import Noise
from src.engine.parallel import Group
from src.engine.trainer import Trainer
from src.lr_schedule import Schedule
from src.model_utils.device_adapter import Runtime
from src.model_utils.errors import InputError
from src.model_utils.interruption import StopRequests
from src.network_define import parameters_of, set_parameters
from src.util import run_main, set_up_logging
from src.weights.initialise import initialise
from tests.helpers import small

SIZE = (96, 128)
PICTURES = 2  # a step, by all processes
NUM_BOXES = 3


def batch_of(numbers):
    images = np.concatenate([small.pictures([SIZE], seed=n)[0] for n in numbers])
    count = len(numbers)
    boxes = np.stack([small.boxes_in(SIZE, NUM_BOXES, n) for n in numbers])
    return Batch(
        images=images,
        image_sizes=np.array([SIZE] * count, np.float32),
        padded_size=np.array(SIZE, np.int32),
        gt_boxes=boxes,
        gt_classes=np.tile(np.arange(NUM_BOXES, dtype=np.int32), (count, 1)),
        gt_valid=np.ones((count, NUM_BOXES), bool),
        image_ids=list(numbers),
        file_names=[f"picture{n}.jpg" for n in numbers],
        original_sizes=np.array([SIZE] * count, np.int32),
        positions=tuple(numbers),
    )


def batches(group, start=0):
    step = start
    while True:
        numbers = range(PICTURES * step, PICTURES * (step + 1))
        yield batch_of(list(numbers)[group.rank :: group.size])
        step += 1


def train(folder, flags):
    """What train.py does, noted down, and then some small talk in its group."""
    make_trainer, gather_rows = assembly.make_trainer, evaluation.gather_rows
    trainers, losses, rows = [], [], []

    def make(config, net, *rest, group, **named):
        # every process starts elsewhere: rank 0's weights are to be used
        if group.rank:
            initialise(net, 99)
        trainer = make_trainer(config, net, *rest, group=group, **named)
        one_step = trainer._one_step

        def noted(batch, lr):
            losses.append(one_step(batch, lr))
            return losses[-1]

        trainer._one_step = noted
        trainers.append(trainer)
        return trainer

    def gather(*given):
        rows.extend(gather_rows(*given))
        return list(rows)

    assembly.make_trainer, evaluation.gather_rows = make, gather
    train_program.main(flags)
    (trainer,) = trainers
    group = trainer.group
    np.savez(folder / f"{group.rank}.npz", losses=np.stack(losses), **parameters_of(trainer.net))
    content = {"rows": rows, "statistics": shared_statistics(trainer), **talk(group)}
    (folder / f"{group.rank}.json").write_text(json.dumps(content))


def shared_statistics(trainer):
    """The running statistics' values, after each process had gathered others."""
    statistics = [one for one in trainer.net.get_parameters() if ".running_" in one.name]
    own = {one.name: np.full(one.shape, 1 + trainer.group.rank) for one in statistics}
    set_parameters(statistics, own)
    trainer._share_statistics()
    return sorted({float(value) for one in statistics for value in np.unique(one.asnumpy())})


def talk(group):
    """What the small talk between processes gives."""
    own = bytes(range(256)) * (20 * group.rank) + b"\0end"
    found = {
        "bytes": [len(part) for part in group.gather_bytes(own)],
        "right": group.gather_bytes(own)[group.rank] == own,
        "nothing": [part.decode() for part in group.gather_bytes(b"")],
        "first": group.of_first(group.rank == 0),
    }
    group.check_same(7, "seven")
    try:
        group.check_same(group.rank, "the number")
    except InputError as error:
        found["refusal"] = str(error)
    return found


class Toy(nn.Cell):
    def __init__(self):
        super().__init__()
        self.weight = Parameter(Tensor(np.zeros(3, np.float32)), name="weight")


class ToyOptimizer:
    state = ()


def endless(folder, group):
    """Steps of half a second; a loss that is not finite at step NAN_AT, on the last rank."""
    nan_at = int(os.environ.get("NAN_AT", "-1"))
    steps = iter(range(1, 1_000_000))

    def gradients_of(*_):
        step = next(steps)
        time.sleep(0.5)
        bad = step == nan_at and group.rank == group.size - 1
        losses = np.full(4, np.nan if bad else 1.0 + group.rank, np.float32)
        return Tensor(losses), Tensor(np.float32(1.0)), ()

    with StopRequests() as stop:
        trainer = Trainer(
            Toy(),
            ToyOptimizer(),
            gradients_of,
            lambda *_: None,
            Schedule(1e-3, 1000, (4,), 0.1, 2, 0.1),
            Noise(anchors_per_cell=1, proposals=1, dropout=(1, 1)),
            seed=3,
            num_images=12,
            folder=folder,
            info={"class_names": ["a", "b", "c"]},
            log_period=1,
            save_period=1000,
            keep_last=9,
            stop=stop,
            group=group,
        )
        trainer.run(batches(group))


def die(folder, group):
    group.wait()
    (folder / f"pid{group.rank}").write_text(str(os.getpid()))
    if group.rank == 1:
        time.sleep(1)
        sys.stdout.write("this process dies\n")
        sys.stdout.flush()
        os._exit(9)
    with contextlib.suppress(RuntimeError):
        group.wait()
    time.sleep(600)


def main():
    mode, folder, flags = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    folder.mkdir(parents=True, exist_ok=True)
    if mode == "train":
        return train(folder, flags)
    runtime = Runtime.start("CPU", distribute="--run_distribute=true" in flags)
    set_up_logging(runtime.rank)
    group = Group(runtime.rank, runtime.world_size, runtime.local_rank)
    return {"endless": endless, "die": die}[mode](folder, group)


if __name__ == "__main__":
    run_main(main)
