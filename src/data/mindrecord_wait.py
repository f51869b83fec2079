# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Waiting for a MindRecord folder that another process builds: with a message and a time limit."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from src.data.mindrecord_io import MindRecordInfo, whole_folder
from src.model_utils.errors import InputError

logger = logging.getLogger(__name__)

WAIT_MINUTES = 240.0
TELL_SECONDS = 60.0
POLL_SECONDS = 0.5


def _attempts(folder: Path, minutes: float) -> Iterator[None]:
    """Yield at once and then at every moment to look for a folder that another process builds.

    Raises:
        InputError: the time is up.
    """
    started, last_message = time.monotonic(), -math.inf
    while True:
        yield
        now = time.monotonic()
        waited = (now - started) / 60
        if waited >= minutes:
            raise InputError(
                f"{folder}: waited {minutes:g} minutes for another process to build it; look at "
                "that one's log, or set data.wait_minutes higher"
            )
        if now - last_message >= TELL_SECONDS:
            logger.warning(
                "%s: waiting for another process that builds it, for %.0f of at most %g minutes",
                folder,
                waited,
                minutes,
            )
            last_message = now
        time.sleep(min(POLL_SECONDS, 60 * (minutes - waited)))


@contextlib.contextmanager
def locked(folder: Path, wait_minutes: float) -> Iterator[None]:
    """Let one process at a time build a folder; the system frees the lock if that one dies."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as handle:
        for _ in _attempts(folder, wait_minutes):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        yield


def await_folder(folder: Path, keys: Collection[str], wait_minutes: float) -> MindRecordInfo:
    """Wait until another process has built a folder from the same inputs."""
    attempts = _attempts(folder, wait_minutes)
    while True:
        next(attempts)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return whole_folder(folder, keys, full=False)
