# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""MINDIR files of a bundle, run by MindSpore itself."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.export.bundle import Graph
from src.export.graphs import Runner
from src.model_utils.device_adapter import Runtime
from src.model_utils.errors import InputError
from src.util import idle_thread


class MindirRunner(Runner):
    """By MindSpore; the first call compiles.

    Args:
        graph: see `Runner`.
        source: likewise.
        mindspore: the version that wrote the file, for messages.
        idle_wait: see `util.idle_thread`, for the CPU.

    Raises:
        InputError: this MindSpore cannot read the file.
    """

    def __init__(self, graph: Graph, source: Path, *, mindspore: str, idle_wait: bool) -> None:
        super().__init__(graph, source)
        self.mindspore, self.idle_wait, self.compiled = mindspore, idle_wait, False
        try:
            self.cell = nn.GraphCell(ms.load(str(graph.path)))
        except (RuntimeError, ValueError, TypeError) as error:
            raise self._refused(error) from error

    def run(self, arrays: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        """See `Runner`."""
        try:
            with idle_thread(self.idle_wait and self.compiled):
                found = self.cell(*map(Tensor, arrays))
                several = found if isinstance(found, (tuple, list)) else (found,)
                outputs = [one.asnumpy() for one in several]
        except (RuntimeError, ValueError, TypeError) as error:
            raise self._refused(error) from error
        self.compiled = True
        return outputs

    def _refused(self, error: Exception) -> InputError:
        reason = " ".join(str(error).split())[:300]
        return InputError(
            f"{self.source}: MindSpore {ms.__version__} cannot run {self.graph.path.name}, which "
            f"{self.mindspore} wrote ({reason})"
        )


def start(device_target: str) -> None:
    """Choose the device; before the first graph.

    Raises:
        InputError: see `Runtime.start`.
    """
    Runtime.start(device_target)
