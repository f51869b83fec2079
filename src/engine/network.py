# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A compiled network as a source of outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mindspore import Tensor

from src.data.batching import Batch
from src.util import idle_thread


class Network:
    """A compiled network as a source of outputs, see `inference.OutputsOf`.

    Args:
        eval_step: see `network_define.build_eval_step`.
        idle_wait: see `util.idle_thread`, for the CPU.
    """

    def __init__(self, eval_step: Callable, idle_wait: bool = False) -> None:
        self.eval_step, self.idle_wait, self.compiled = eval_step, idle_wait, False

    def __call__(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The network's outputs for a batch of one image."""
        # The first image compiles, which is this thread's own work.
        with idle_thread(self.idle_wait and self.compiled):
            outputs = self.eval_step(
                Tensor.from_numpy(batch.images),
                Tensor(batch.image_sizes),
                Tensor(batch.padded_size),
            )
            boxes, scores, valid = (output.asnumpy()[0] for output in outputs)
        self.compiled = True
        return boxes, scores, valid
