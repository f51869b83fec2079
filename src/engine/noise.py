# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The random numbers of a training step, drawn on the host, each sample's by its own generators."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from src.data.batching import Batch
from src.defrcn.resnet import STRIDE
from src.model_utils.random_streams import Stream, generator


def cell_order(height: int, width: int) -> np.ndarray:
    """Number the cells of a map so that a cell has the same number whatever the map's size.

    Cell (0, 0) is 0; around every square of k x k cells come those of its next column, downwards,
    and of its next row: numbers k², ..., (k + 1)² - 1.

    Returns:
        (height, width) int64.
    """
    row, column = np.indices((height, width))
    return np.where(column >= row, column * column + row, row * row + row + 1 + column)


@dataclass(frozen=True)
class Noise:
    """Sizes of the random numbers that `DeFRCN.losses` takes.

    What a sample draws depends on the seed and its position in the endless order: not on the other
    samples of its batch, their sizes and objects, nor on the process that it is in.

    Attributes:
        anchors_per_cell: B, anchors at each cell of the feature map.
        proposals: P, proposals an image.
        dropout: (S, 2C) of an image, for the class layer's dropout; (1, 1) without.
    """

    anchors_per_cell: int
    proposals: int
    dropout: tuple[int, int]

    def draw(self, seed: int, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The noise of a batch: (N, A), (N, P + G) and (N * S, 2C), float32 in [0, 1).

        Args:
            seed: of the run.
            batch: N images of positions in the endless order.
        """
        height, width = batch.images.shape[2:]
        cells = cell_order(math.ceil(height / STRIDE), math.ceil(width / STRIDE))
        sizes = {
            Stream.ANCHORS: (max(cells.shape) ** 2, self.anchors_per_cell),
            Stream.PROPOSALS: (self.proposals,),
            Stream.GROUND_TRUTH: (batch.gt_boxes.shape[1],),
            Stream.DROPOUT: self.dropout,
        }
        # More of a generator's numbers only follow those that it gives anyway.
        drawn = {
            stream: np.stack(
                [generator(seed, stream, one).random(size, np.float32) for one in batch.positions]
            )
            for stream, size in sizes.items()
        }
        return (
            drawn[Stream.ANCHORS][:, cells.reshape(-1)].reshape(len(batch.positions), -1),
            np.concatenate((drawn[Stream.PROPOSALS], drawn[Stream.GROUND_TRUTH]), 1),
            drawn[Stream.DROPOUT].reshape(-1, self.dropout[1]),
        )
