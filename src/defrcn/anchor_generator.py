# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Anchors: boxes of fixed sizes and shapes at every cell of the feature map."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops


def make_cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> np.ndarray:
    """Boxes around the origin, ordered by size, then ratio (height / width).

    Args:
        sizes: side in pixels of a square of the same area.
        aspect_ratios: height divided by width.

    Returns:
        (len(sizes) * len(aspect_ratios), 4) float32.
    """
    rows = []
    for size in sizes:
        for ratio in aspect_ratios:
            width = (size**2 / ratio) ** 0.5
            height = ratio * width
            rows.append((-width / 2, -height / 2, width / 2, height / 2))
    return np.asarray(rows, np.float32)


class AnchorGenerator(nn.Cell):
    """All anchors of a feature map.

    Args:
        sizes: see `make_cell_anchors`, pixels of the model frame.
        aspect_ratios: height / width.
        stride: pixels between neighbouring cells.
        offset: position of a cell's centre in strides (0: its corner, as DeFRCN has it).

    Inputs:
        - **features** (Tensor) - (N, H, W, C), of which only the size counts.

    Outputs:
        Tensor (H * W * num_cell_anchors, 4) float32, model frame; order: row, column,
        size, ratio. None is dropped at the border.
    """

    def __init__(
        self,
        sizes: Sequence[float],
        aspect_ratios: Sequence[float],
        stride: int,
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        cells = make_cell_anchors(sizes, aspect_ratios)
        self.num_cell_anchors = len(cells)
        self.cell_anchors = Tensor(cells)
        self.stride = float(stride)
        self.offset = offset

    def construct(self, features: Tensor) -> Tensor:
        """See the class."""
        height, width = features.shape[1], features.shape[2]
        columns = (ops.arange(width).astype(ms.float32) + self.offset) * self.stride
        rows = (ops.arange(height).astype(ms.float32) + self.offset) * self.stride
        rows, columns = ops.meshgrid(rows, columns, indexing="ij")
        shifts = ops.stack((columns, rows, columns, rows), -1)
        return (shifts[:, :, None, :] + self.cell_anchors).reshape(-1, 4)
