# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Waiting for a MindRecord folder that another process builds: with a message and a time limit."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

from src.data.mindrecord_io import MindRecordInfo, whole_folder
from src.model_utils.errors import InputError

logger = logging.getLogger(__name__)

WAIT_MINUTES = 240.0
TELL_SECONDS = 60.0
POLL_SECONDS = 0.5


class Patience:
    """Waits for a folder that another process builds: says so at times, and not for ever."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self._folder = folder
        self._minutes = minutes
        self._started = time.monotonic()
        self._told = -math.inf

    def pause(self) -> None:
        """Wait a moment.

        Raises:
            InputError: the time is up.
        """
        now = time.monotonic()
        waited = (now - self._started) / 60
        if waited >= self._minutes:
            raise InputError(
                f"{self._folder}: waited {self._minutes:g} minutes for another process to build "
                "it; look at that one's log, or set data.wait_minutes higher"
            )
        if now - self._told >= TELL_SECONDS:
            logger.warning(
                "%s: waiting for another process that builds it, for %.0f of at most %g minutes",
                self._folder,
                waited,
                self._minutes,
            )
            self._told = now
        time.sleep(min(POLL_SECONDS, 60 * (self._minutes - waited)))


@contextlib.contextmanager
def locked(folder: Path, wait_minutes: float) -> Iterator[None]:
    """Let one process at a time build a folder; the system frees the lock if that one dies."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    patience = Patience(folder, wait_minutes)
    with (folder.parent / f".{folder.name}.lock").open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                patience.pause()
        yield


def await_folder(folder: Path, key: str, wait_minutes: float) -> MindRecordInfo:
    """Wait until another process has built a folder from the same inputs."""
    patience = Patience(folder, wait_minutes)
    while True:
        try:
            return whole_folder(folder, key, full=False)
        except (ValueError, KeyError, TypeError):
            patience.pause()
