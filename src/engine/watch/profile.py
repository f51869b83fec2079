# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""MindSpore's profile of some steps of a training."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from src.model_utils.errors import InputError

logger = logging.getLogger(__name__)


class ProfileWindow:
    """Profiles steps `first` to `first + count - 1` of this process, then writes the profile.

    The step before them is MindSpore's warm-up, if there is one. Reading the data out takes some
    seconds to minutes after the last step. A run that ends inside the window writes what it has.

    Args:
        folder: gets a folder of MindSpore's own name.
        first: first step, from 1 on.
        count: steps.
        target: "CPU", "GPU" or "Ascend".

    Raises:
        InputError: this MindSpore has no `mindspore.profiler.profile`.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, first: int, count: int, target: str
    ) -> None:
        from mindspore import profiler

        if not hasattr(profiler, "profile"):
            raise InputError(
                "enable_profiling: this MindSpore has no mindspore.profiler.profile; use 2.8.0, or "
                "leave enable_profiling false"
            )
        self._profiler: Any = profiler
        self.folder = Path(folder)
        self._target = target
        self._first = first
        self._warm_up = min(first - 1, 1)
        self._start = first - self._warm_up
        self._end = first + count
        self._count = count
        self._step = 0
        self._profile: Any = None

    def before_step(self) -> None:
        """Start where the window begins."""
        self._step += 1
        if self._step == self._start:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._profile = self._begin()

    def after_step(self) -> None:
        """Mark the step; after the last one the profile is written."""
        if self._profile is None:
            return
        if self._step + 1 == self._end:
            self.close()
        else:
            self._profile.step()

    def close(self) -> None:
        """Stop and write, if the window is open."""
        profile, self._profile = self._profile, None
        if profile is None:
            return
        logger.info("writing the profile of steps %d to %d of this run", self._first, self._step)
        profile.step()  # ends the step under way
        profile.stop()
        # MindSpore logs its errors here and raises none.
        if any(path.is_file() for path in self.folder.rglob("*")):
            logger.info("profile: %s", self.folder)
        else:
            logger.warning("MindSpore wrote no profile in %s; its own log says why", self.folder)

    def _begin(self) -> Any:  # noqa: ANN401 - MindSpore's profile, without types
        of = self._profiler
        activities = [of.ProfilerActivity.CPU]
        if self._target != "CPU":
            device = "NPU" if self._target == "Ascend" else "GPU"
            activities.append(getattr(of.ProfilerActivity, device))
        return of.profile(
            activities=activities,
            schedule=of.schedule(wait=0, warmup=self._warm_up, active=self._count, repeat=1),
            on_trace_ready=of.tensorboard_trace_handler(str(self.folder)),
        )
