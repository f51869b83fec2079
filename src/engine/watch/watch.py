# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What a run shows while it runs: numbers, pictures and text for viewers, and a profile.

A `Watch` alone shows nothing; `tensorboard.TensorBoardWatch` writes TensorBoard's files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from src.engine.watch.profile import ProfileWindow


class Watch:
    """Told of a run's steps and figures; hands the steps to the window of the profile.

    Args:
        window: told of the steps.
    """

    def __init__(self, window: ProfileWindow | None = None) -> None:
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
        """Show numbers of a step by name; a slash in a name makes groups."""

    def picture(self, step: int, name: str, path: Path) -> None:
        """Show a PNG file."""

    def settings(self, text: str) -> None:
        """Show the configuration."""

    def close(self) -> None:
        """Close everything; afterwards nothing more is written."""
        if self._window:
            self._window.close()
