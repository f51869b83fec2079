# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Time and memory of the twin on one device, as benchmarks/device.py has them of the project."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.comparison import inputs
from benchmarks.comparison.cases import CASES, Case
from benchmarks.twin.detector import Batch, Detector, load, shapes_of
from benchmarks.twin.optimizer import make_optimizer
from src.model_utils.config import load_config
from src.model_utils.paths import project_folder

WORK = {"training, 1 image": 1, "training, 2 images": 2, "inference": 0}
HEADERS = ["twin, R-101, 800x1088", "precision", "first, s", "minimum, s", "median, s", "peak, GB"]


def measure(device: str, repeats: int, *, small: bool = False) -> str:
    """The table.

    Args:
        device: "cuda" or "cpu".
        repeats: calls after the first one.
        small: a picture of 256x256, to try this.
    """
    torch.set_default_device(device)
    precisions = {"float32": False, "TF32": True} if device == "cuda" else {"float32": False}
    rows = []
    for work, images in WORK.items():
        for precision, tf32 in precisions.items():
            torch.backends.cudnn.allow_tf32 = tf32
            case = CASES["training-256" if small else "training"]
            run = _prepared(dataclasses.replace(case, images=max(images, 1)), images > 0, device)
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            seconds = [_timed(run, device) for _ in range(repeats + 1)]
            memory = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0
            times = (seconds[0], min(seconds[1:]), statistics.median(seconds[1:]))
            rows.append([work, precision, *(f"{t:.3f}" for t in times), f"{memory:.2f}"])
    lines = [HEADERS, ["---"] * len(HEADERS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _timed(run: Callable[[], None], device: str) -> float:
    started = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _prepared(case: Case, trains: bool, device: str) -> Callable[[], None]:
    config = load_config(str(project_folder() / case.config), case.flags)
    net = Detector(config.model, case.classes)
    load(net, inputs.weights_for(shapes_of(net)))
    net = net.to(device)

    def there(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    if not trains:
        net.eval()
        image = there(inputs.images(case, config.input, 0)[:1])
        size = case.sizes[0]

        def detect() -> None:
            net.detect(image, tuple(map(float, size)), size, config.test)

        return detect
    net.train()
    optimizer = make_optimizer(net, config.solver, inputs.LEARNING_RATE)
    made = inputs.training(case, config)
    batch = Batch(
        there(made.images),
        [tuple(map(float, size)) for size in made.sizes],
        list(there(made.boxes)),
        list(there(made.classes).long()),
        there(made.rpn_noise),
        there(made.roi_noise),
        there(made.dropout_noise),
    )

    def step() -> None:
        losses = torch.stack(net.losses(batch))
        if not torch.isfinite(losses).all():
            raise ArithmeticError(f"losses {losses}")
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()

    return step
