# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What a run shows while it runs: numbers, pictures and text for viewers, and a profile.

A `Watch` without writers and window, the default, does nothing. Writers are
`watch_tensorboard.TensorBoardWriter` and `watch_summary.SummaryWriter`, the window is
`watch_profile.ProfileWindow`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

logger = logging.getLogger(__name__)


class Writer(Protocol):
    """A file format that viewers read; an `OSError` says that it cannot be written."""

    name: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of a step by name; a slash in a name makes groups."""

    def picture(self, step: int, name: str, path: Path) -> None:
        """Write a PNG file of a step."""

    def settings(self, values: Mapping[str, str], text: str) -> None:
        """Write the configuration: by dotted key, and as text."""

    def close(self) -> None:
        """Write what is left and close the file."""


class Window(Protocol):
    """Some steps that are looked at more closely."""

    def before_step(self) -> None:
        """A step begins."""

    def after_step(self) -> None:
        """A step has ended."""

    def close(self) -> None:
        """No more steps come."""


class Watch:
    """Hands everything to its writers; one that fails is left out from then on, with a warning.

    A training goes on when the disk of its curves is full: they are not what it is for.

    Args:
        writers: where numbers, pictures and settings go.
        window: told of the steps.
    """

    def __init__(self, writers: Sequence[Writer] = (), window: Window | None = None) -> None:
        self._writers = list(writers)
        self._window = window

    def before_step(self) -> None:
        """A training step begins."""
        if self._window:
            self._window.before_step()

    def after_step(self) -> None:
        """A training step has ended."""
        if self._window:
            self._window.after_step()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Show numbers of a step."""
        self._each(lambda writer: writer.scalars(step, values))

    def picture(self, step: int, name: str, path: Path) -> None:
        """Show a PNG file."""
        self._each(lambda writer: writer.picture(step, name, path))

    def settings(self, values: Mapping[str, str], text: str) -> None:
        """Show the configuration: by dotted key, and as text."""
        self._each(lambda writer: writer.settings(values, text))

    def close(self) -> None:
        """Close everything; afterwards nothing more is written."""
        if self._window:
            self._window.close()
        self._each(lambda writer: writer.close())
        self._writers, self._window = [], None

    def _each(self, action: Callable[[Writer], None]) -> None:
        for writer in tuple(self._writers):
            try:
                action(writer)
            except OSError as error:
                self._writers.remove(writer)
                logger.warning("%s cannot be written, going on without: %s", writer.name, error)
