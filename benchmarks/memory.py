# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Resident memory over 2,000 training steps and an evaluation of 1,000 pictures: is it flat?

    python -m benchmarks.memory --output docs/memory.png [--steps 2000] [--pictures 1000]

A small network on pictures of many sizes, read from MindRecord as in a real run. Writes a plot and
a JSON file beside it; exit code 1 if memory grows by more than the limit after the warm-up.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from src.assembly.schedule import make_schedule
from src.assembly.training import make_detector, make_trainer
from src.data.batching import Batch, Preprocessing
from src.dataset import EvalLoader, TrainLoader, build_mindrecord
from src.defrcn.data_types import XYWH, Annotation, Record
from src.engine.inference import detect, rows_of
from src.engine.network import Network
from src.engine.parallel import ALONE
from src.model_utils.config import load_config
from src.model_utils.device_adapter import Runtime
from src.network_define import build_eval_step
from src.util import write_json
from src.weights.initialise import initialise

LIMIT = 0.05  # growth over the second half, as a share
NAMES = ("a", "b", "c")
FLAGS = """
--model.backbone.depth=26 --model.backbone.norm=GN --model.backbone.freeze_at=0
--model.backbone.stem_out_channels=8 --model.backbone.res2_out_channels=32
--model.rpn.batch_size_per_image=32 --model.rpn.post_nms_topk_train=24
--model.rpn.post_nms_topk_test=20 --model.roi_heads.batch_size_per_image=16
--input.max_size_train=128 --input.min_size_test=80 --input.max_size_test=128
--solver.images_per_card=1 --solver.images_per_batch=1 --solver.base_lr=0.0005 --solver.steps=[]
--solver.warmup_iters=0 --log.period=500 --checkpoint.period=500 --checkpoint.keep_last=2
--test.eval_at_end=false
""".split()


def resident() -> float:
    """Resident set of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def pictures(folder: Path, count: int) -> list[Record]:
    """Pictures of random sizes with one to six boxes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    records = []
    for index in range(count):
        height, width = (int(side) for side in rng.integers(60, 120, 2))
        path = folder / f"{index:05d}.jpg"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        boxes = [
            Annotation((5.0, 5.0, width / 3, height / 3), XYWH, int(label))
            for label in rng.integers(0, len(NAMES), int(rng.integers(1, 7)))
        ]
        records.append(Record(str(path), index, height, width, tuple(boxes)))
    return records


def sampled(batches: Iterator[Batch], samples: list[float], every: int) -> Iterator[Batch]:
    """Hand batches on and note the memory at every so manieth."""
    for number, batch in enumerate(batches):
        if number % every == 0:
            samples.append(resident())
        yield batch


def growth(samples: list[float]) -> float:
    """Of a straight line through the second half of the samples, as a share of its level."""
    half = samples[len(samples) // 2 :]
    slope, start = np.polyfit(np.arange(len(half)), half, 1)
    return float(slope * len(half) / start)


def measure(options: argparse.Namespace, root: Path) -> dict[str, list[float]]:
    """Train, then evaluate; the samples of both."""
    flags = [*FLAGS, "--input.min_size_train=[64,72,80,96]", f"--solver.max_iter={options.steps}"]
    config = load_config(
        "configs/defrcn_base.yaml", [*flags, f"--save_checkpoint_path={root / 'run'}"]
    )
    Runtime.start("CPU")
    records = pictures(root / "images", options.pictures)
    for name, training in (("train", True), ("test", False)):
        build_mindrecord(
            records,
            root / name,
            class_names=NAMES,
            training=training,
            show_progress=False,
        )
    loader = TrainLoader(
        root / "train", Preprocessing(max_size=128), min_sizes=config.input.min_size_train
    )
    net = make_detector(config, NAMES)
    initialise(net, 0)
    schedule = make_schedule(config, 1)
    trainer = make_trainer(config, net, schedule, loader, group=ALONE, evaluate=None)
    found: dict[str, list[float]] = {"training": [], "evaluation": []}
    trainer.run(sampled(loader, found["training"], max(options.steps // 200, 1)))
    loader.close()
    gc.collect()
    test = EvalLoader(root / "test", Preprocessing(max_size=128), min_size=80)
    every = max(options.pictures // 200, 1)
    detections = detect(
        Network(build_eval_step(net, exact=True), idle_wait=True),
        sampled(iter(test), found["evaluation"], every),
        len(test),
        score_threshold=0.0,
        nms_threshold=0.5,
        max_detections=20,
    )
    rows = rows_of(detections, (1, 2, 3))
    sys.stdout.write(f"{len(rows)} detections\n")
    return found


def plot(path: Path, found: dict[str, list[float]], options: argparse.Namespace) -> None:
    """Both curves, from zero."""
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for axis, (name, samples), total, unit in zip(
        axes, found.items(), (options.steps, options.pictures), ("step", "picture")
    ):
        axis.plot(np.linspace(0, total, len(samples)), samples, color="tab:blue")
        axis.set_xlabel(unit)
        axis.set_title(f"{name}: {100 * growth(samples):+.1f} % over the second half")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("resident memory, MB")
    axes[0].set_ylim(0)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    """Measure, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/memory.png"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--pictures", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    plot(options.output, found, options)
    shares = {name: round(growth(samples), 4) for name, samples in found.items()}
    summary = {
        "steps": options.steps,
        "pictures": options.pictures,
        "growth_over_second_half": shares,
        "megabytes": {name: [round(value) for value in samples] for name, samples in found.items()},
    }
    write_json(options.output.with_suffix(".json"), summary, indent=None)
    sys.stdout.write(f"growth over the second half: {shares}, limit {LIMIT}\n")
    return int(any(share > LIMIT for share in shares.values()))


if __name__ == "__main__":
    sys.exit(main())
