# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What one process of tests/programs/test_parallel.py does: python parallel_worker.py MODE FOLDER.

`train`: five steps on two pictures each, by one process or by two, with the loader and the noise
that train.py uses; then once more from the middle; then detections. `endless`: a training without
a network, to be ended from outside. `die`: the second process dies. Results go to FOLDER/RANK.json
and .npz.
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

from src.assembly.evaluation import gather_rows
from src.data.batching import Batch, Preprocessing
from src.dataset import TrainLoader, build_mindrecord
from src.engine.inference import Network, detect, rows_of
from src.engine.noise import Noise
from src.engine.parallel import Group
from src.engine.trainer import Trainer
from src.lr_schedule import Schedule
from src.model_utils.config import Solver
from src.model_utils.device_adapter import Runtime
from src.model_utils.errors import InputError
from src.model_utils.interruption import StopRequests
from src.network_define import (
    build_eval_step,
    build_optimizer,
    build_train_step,
    parameters_of,
    set_parameters,
)
from src.util import run_main, set_up_logging
from src.weights.checkpoint import load_training_checkpoint
from src.weights.initialise import initialise
from tests.helpers import data_helpers, small

SIZE = (96, 128)
PICTURES = 2  # a step, by all processes
STEPS = 5
SEED = 3
ROWS = 7  # so that five steps go over the end of a pass
NUM_BOXES = 3


def batch_of(numbers):
    # Near 1, as a network with frozen statistics wants them: else rounding grows from step to step.
    images = np.concatenate([small.pictures([SIZE], seed=n)[0] / 60 for n in numbers])
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


def loader(folder, group, start=0):
    """Pictures of one size with one to three objects, shared by the processes, from a step on."""
    place = folder / "train.mindrecord"
    if group.leads and not place.exists():
        records = data_helpers.picture_records(folder / "pictures", [SIZE] * ROWS)
        build_mindrecord(records, place, class_names=("a", "b", "c"), training=True)
    group.wait()
    return TrainLoader(
        place,
        # Near 1, as a network with frozen statistics wants them: else rounding grows every step.
        Preprocessing(max_size=SIZE[1], pixel_mean=(128.0,) * 3, pixel_std=(60.0,) * 3),
        batch_size=PICTURES // group.size,
        seed=SEED,
        rank=group.rank,
        world_size=group.size,
        start_batch=start,
        min_sizes=SIZE[:1],
        aspect_ratio_grouping=False,
    )


def batches(group, start=0):
    step = start
    while True:
        numbers = range(PICTURES * step, PICTURES * (step + 1))
        yield batch_of(list(numbers)[group.rank :: group.size])
        step += 1


def settings(folder, group, steps, **changes):
    values = {
        "seed": SEED,
        "num_images": 12,
        "folder": folder,
        "info": {"class_names": ["a", "b", "c"]},
        "log_period": 1,
        "save_period": 3,
        "keep_last": 9,
        "group": group,
        **changes,
    }
    return Schedule(1e-3, steps, (4,), 0.1, 2, 0.1), values


def train(folder, group):
    net = small.detector(
        small.section(
            backbone__freeze_at=2, roi_heads__cls_dropout=True, roi_heads__dropout_ratio=0.2
        )
    )
    # every process starts elsewhere: rank 0's weights are to be used
    if group.rank:
        initialise(net, 99)
    optimizer = build_optimizer(net, Solver())
    count = PICTURES // group.size
    reducer = group.reducer(optimizer.parameters)
    compiled = build_train_step(net, optimizer, batch_size=count, exact=True, reducer=reducer)
    noise = Noise(anchors_per_cell=9, proposals=20, dropout=(16, 8 * 32))
    schedule, values = settings(folder, group, STEPS)
    trainer = Trainer(net, optimizer, *compiled, schedule, noise, **values)
    losses = []
    one_step = trainer._one_step

    def noted(batch, lr):
        losses.append(one_step(batch, lr))
        return losses[-1]

    trainer._one_step = noted
    trainer.run(loader(folder, group))
    weights = parameters_of(net)
    again = go_on_from_the_middle(folder, group, net, optimizer, compiled, noise)
    np.savez(folder / f"{group.rank}.npz", losses=np.stack(losses), **weights)
    content = {
        "resumed equal": all(np.array_equal(weights[name], again[name]) for name in weights),
        "rows": look(net, group),
        **talk(group),
    }
    (folder / f"{group.rank}.json").write_text(json.dumps(content))


def go_on_from_the_middle(folder, group, net, optimizer, compiled, noise):
    """Train the last steps again from the checkpoint of step 3; the weights then."""
    checkpoint = load_training_checkpoint(folder / "ckpt_0" / "defrcn-3.json")
    schedule, values = settings(folder / "again", group, STEPS)
    trainer = Trainer(net, optimizer, *compiled, schedule, noise, **values)
    set_parameters(list(net.get_parameters()), checkpoint.params)
    trainer.restore(checkpoint)
    trainer.run(loader(folder, group, 3))
    return parameters_of(net)


def look(net, group):
    """Detections on five pictures, shared by the processes, in one process's order."""
    numbers = [50, 7, 21, 3, 30]
    mine = [batch_of([number]) for number in numbers[group.rank :: group.size]]
    found = detect(
        Network(build_eval_step(net, exact=False)),
        mine,
        len(mine),
        score_threshold=0.0001,
        nms_threshold=0.5,
        max_detections=20,
    )
    return gather_rows(group, rows_of(found, (11, 12, 13)), numbers)


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
        schedule, values = settings(folder, group, 1000, save_period=1000, stop=stop)
        trainer = Trainer(
            Toy(),
            ToyOptimizer(),
            gradients_of,
            lambda *_: None,
            schedule,
            Noise(anchors_per_cell=1, proposals=1, dropout=(1, 1)),
            **values,
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
    mode, place = sys.argv[1:3]
    runtime = Runtime.start("CPU", distribute="--run_distribute=true" in sys.argv)
    set_up_logging(runtime.rank)
    group = Group(runtime.rank, runtime.world_size, runtime.local_rank)
    folder = Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    {"train": train, "endless": endless, "die": die}[mode](folder, group)


if __name__ == "__main__":
    run_main(main)
