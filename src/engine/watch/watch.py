# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What a run shows while it runs: numbers, pictures and text for viewers, and a profile.

A `Watch` without writer and window, the default, does nothing. The writer is
`tensorboard.TensorBoardWriter`, the window `profile.ProfileWindow`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from src.engine.watch.profile import ProfileWindow
    from src.engine.watch.tensorboard import TensorBoardWriter

logger = logging.getLogger(__name__)


class Watch:
    """Hands everything to its writer; one that fails is left out from then on, with a warning.

    A training goes on when the disk of its curves is full: they are not what it is for.

    Args:
        writer: where numbers, pictures and settings go.
        window: told of the steps.
    """

    def __init__(
        self, writer: TensorBoardWriter | None = None, window: ProfileWindow | None = None
    ) -> None:
        self._writer = writer
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
        self._tell(lambda writer: writer.scalars(step, values))

    def picture(self, step: int, name: str, path: Path) -> None:
        """Show a PNG file."""
        self._tell(lambda writer: writer.picture(step, name, path))

    def settings(self, text: str) -> None:
        """Show the configuration."""
        self._tell(lambda writer: writer.settings(text))

    def close(self) -> None:
        """Close everything; afterwards nothing more is written."""
        if self._window:
            self._window.close()
        self._tell(lambda writer: writer.close())
        self._writer, self._window = None, None

    def _tell(self, action: Callable[[TensorBoardWriter], None]) -> None:
        writer = self._writer
        if writer is None:
            return
        try:
            action(writer)
        except OSError as error:
            self._writer = None
            logger.warning("%s cannot be written, going on without: %s", writer.name, error)
