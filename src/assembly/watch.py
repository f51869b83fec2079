# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What train.py and eval.py share for watching a run: from the configuration to a `Watch`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.engine.watch.profile import ProfileWindow
from src.engine.watch.watch import Watch
from src.model_utils.config import Config, to_yaml
from src.model_utils.errors import InputError


def open_watch(
    config: Config,
    folder: Path,
    *,
    rank: int = 0,
    first_step: int = 0,
    num_steps: int | None = None,
) -> Watch:
    """Open what the configuration asks for; curves on rank 0 only, a profile on every rank.

    Args:
        config: the configuration, which is the first thing written.
        folder: the run's.
        rank: number of this process.
        first_step: of a resumed run, the first step it does anew; 0 for a new run.
        num_steps: that this process will train; None or 0: it trains nothing.

    Raises:
        InputError: a file cannot be written, a package is missing, or the steps to profile come
            after the last one.
    """
    window = None
    if config.enable_profiling and num_steps:
        window = _window(config, folder, rank, num_steps)
    if rank != 0 or not config.watch.tensorboard:
        return Watch(window)
    place = Path(config.watch.dir or folder / "watch")
    try:
        from src.engine.watch.tensorboard import TensorBoardWatch

        watch = TensorBoardWatch(place, first_step, window)
    except ImportError as error:
        raise InputError(
            f"watch.tensorboard: {error.name or error} is not installed; "
            "pip install -r requirements.txt, or leave it false"
        ) from error
    except OSError as error:
        raise InputError(f"watch.dir: {place} cannot be written: {error.strerror}") from error
    watch.settings(to_yaml(config))
    return watch


def step_of(checkpoint: Path) -> int:
    """The step in the name of a checkpoint of training; 0 for any other file."""
    number = re.fullmatch(r"defrcn-(\d+)", checkpoint.stem)
    return int(number[1]) if number else 0


def show_evaluation(
    config: Config, watch: Watch, step: int, figures: Mapping[str, Any], folder: Path
) -> None:
    """Show what `evaluate_sets` returned and drew.

    Args:
        config: the configuration.
        watch: where.
        step: that the network was trained for.
        figures: by test set, as in `metrics.json`.
        folder: that `evaluate_sets` wrote to.
    """
    values = {
        f"{name}/{metric}": value
        for name, one in figures.items()
        for metric, value in one["results"].items()
        if value >= 0  # else undefined: there are no such objects
    }
    watch.scalars(step, values)
    if not config.test.visualize_images:
        return
    for name in figures:
        place = (folder / name if len(figures) > 1 else folder) / "pictures"
        drawn = sorted(path for path in place.glob("*.png") if path.name != "sheet.png")
        for path in drawn[: config.watch.images]:
            watch.picture(step, f"{name}/{path.stem}", path)


def _window(config: Config, folder: Path, rank: int, num_steps: int) -> ProfileWindow:
    first, count = config.profile.start_step, config.profile.steps
    if first + count - 1 > num_steps:
        raise InputError(
            f"profile: steps {first} to {first + count - 1} are to be profiled, but only "
            f"{num_steps} are to be trained; lower profile.start_step or profile.steps"
        )
    place = Path(config.profile.dir or folder / "profile") / f"rank_{rank}"
    return ProfileWindow(place, first=first, count=count, target=config.device_target)
