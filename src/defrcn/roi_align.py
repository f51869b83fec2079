# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""ROIAlign with half-pixel alignment and adaptive sampling, as two matrix products.

Bilinear interpolation, the average over a bin's samples and the grid of bins all split into a
row part and a column part, so pooling is `Wy @ features @ Wx^T` with weights that depend on the
boxes only (Mask R-CNN, sec. 3; the "aligned" convention of Detectron2).
Letters: N images, R boxes an image, B bins an axis, S samples a bin, L cells of an axis.
"""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops


def axis_weights(
    start: Tensor,
    end: Tensor,
    size: Tensor,
    length: int,
    *,
    num_bins: int,
    bin_step: int,
    max_samples: int,
) -> Tensor:
    """How much each cell of one axis gives to each bin.

    A sample beyond one cell outside the map counts 0; one nearer is moved to the edge.

    Args:
        start: (R,) float32 box start in cells (already moved by half a cell).
        end: (R,) float32.
        size: scalar float32, cells of the axis that belong to the batch.
        length: L >= size, cells of the tensor.
        num_bins: bins a box is divided into.
        bin_step: 2 keeps bins 0, 2, 4, ... only.
        max_samples: S, at least the samples of the largest bin.

    Returns:
        (B, R, L) float32, B = ceil(num_bins / bin_step).
    """
    extent = end - start
    bin_size = extent / num_bins
    count = -ops.floor(-bin_size)  # rounded up; ONNX export has no ceil
    safe_count = ops.maximum(count, ops.ones_like(count))
    bins = Tensor(np.arange(0, num_bins, bin_step, dtype=np.float32))
    sample = Tensor(np.arange(max_samples, dtype=np.float32))
    offset = (sample + 0.5) * ops.expand_dims(bin_size / safe_count, 1)
    low = start + ops.expand_dims(bins, 1) * bin_size
    point = ops.expand_dims(low, 2) + offset
    inside = ops.logical_and(point >= -1.0, point <= size)
    used = ops.logical_and(inside, sample < ops.expand_dims(count, 1))
    point = ops.minimum(ops.relu(point), size - 1.0)
    cells = ops.arange(length).astype(ms.float32)
    tent = ops.relu(1.0 - ops.abs(ops.expand_dims(point, 3) - cells))
    share = used.astype(ms.float32) / ops.expand_dims(safe_count, 1)
    return ops.ReduceSum()(tent * ops.expand_dims(share, 3), 2)


def entry(values: Tensor, index: int, axis: int) -> Tensor:
    """What is at an index of an axis, without that axis: one operator, where brackets are many."""
    return ops.gather(values, Tensor(index, ms.int32), axis)


class ROIAlign(nn.Cell):
    """Crop and pool boxes from a feature map.

    Args:
        num_bins: bins an axis.
        spatial_scale: cells a pixel, 1 / stride.
        max_size: largest side of a box in pixels; bounds the samples of a bin.
        bin_step: 2 pools the even bins only: all that a stride of 2 after it reads.

    Inputs:
        - **features** (Tensor) - (N, H, W, C) float32.
        - **boxes** (Tensor) - (N, R, 4) float32, model-frame pixels; no gradient.
        - **valid_size** (Tensor) - (2,) float32 rows, columns that belong to the batch.

    Outputs:
        Tensor (B * B, N * R, C): position-major, row by row.
    """

    def __init__(
        self, num_bins: int, spatial_scale: float, max_size: float, bin_step: int = 1
    ) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.bin_step = bin_step
        self.spatial_scale = spatial_scale
        self.max_samples = math.ceil(max_size * spatial_scale / num_bins) + 1

    def construct(self, features: Tensor, boxes: Tensor, valid_size: Tensor) -> Tensor:
        """See the class."""
        images, height, width, channels = features.shape
        count = boxes.shape[1]
        edges = ops.stop_gradient(boxes).reshape(-1, 4) * self.spatial_scale - 0.5
        left, top, right, bottom = [entry(edges, i, 1) for i in range(4)]
        by_row = self._weights(top, bottom, entry(valid_size, 0, 0), height)
        by_column = self._weights(left, right, entry(valid_size, 1, 0), width)
        bins = by_row.shape[0]
        by_column = by_column.reshape(bins, images, count, width).transpose(1, 0, 2, 3)
        # Sizes are said, not -1: where two are unknown, MindSpore takes the gradient's for others.
        each = bins * count
        columns = features.transpose(0, 2, 1, 3).reshape(images, width, height * channels)
        part = ops.BatchMatMul()(by_column.reshape(images, each, width), columns)
        # (N images * B columns * R, B rows, H) @ (N * B * R, H, C)
        by_row = by_row.transpose(1, 0, 2).reshape(images, 1, count, bins, height)
        by_row = by_row.tile((1, bins, 1, 1, 1)).reshape(images * each, bins, height)
        pooled = ops.BatchMatMul()(by_row, part.reshape(images * each, height, channels))
        pooled = pooled.reshape(images, bins, count, bins, channels).transpose(3, 1, 0, 2, 4)
        return pooled.reshape(bins * bins, -1, channels)

    def _weights(self, start: Tensor, end: Tensor, size: Tensor, length: int) -> Tensor:
        return axis_weights(
            start,
            end,
            size,
            length,
            num_bins=self.num_bins,
            bin_step=self.bin_step,
            max_samples=self.max_samples,
        )
