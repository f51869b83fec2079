# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Vectors of boxes from a feature map of the whole picture, for the calibration block's encoders.

Letters: R boxes, D numbers of a vector, C channels of a feature map of h x w cells. Boxes are
float32 (x1, y1, x2, y2) pixels of the image frame. All of it runs on the host.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

# Largest array of weights or pooled features that is made at once, in numbers (64 MB).
MAX_NUMBERS = 1 << 24


def axis_weights(start: np.ndarray, end: np.ndarray, length: int) -> np.ndarray:
    """How much each cell of one axis gives to a box's only bin.

    The rules of `roi_align.axis_weights` (aligned, as many samples as the box has cells), with
    the samples scattered instead of compared with every cell.

    Args:
        start: (R,) float32 cells, already moved by half a cell.
        end: (R,) float32.
        length: cells of the axis.

    Returns:
        (R, length) float32.
    """
    extent = end - start
    count = np.ceil(extent)
    samples = max(int(count.max(initial=0.0)), 1)
    order = np.arange(samples, dtype=np.float32)
    step = extent / np.maximum(count, 1)
    point = start[:, None] + (order + np.float32(0.5)) * step[:, None]
    used = (order < count[:, None]) & (point >= -1) & (point <= length)
    share = used / np.maximum(count, 1)[:, None]
    point = np.clip(point, 0, length - 1)
    low = np.minimum(point.astype(np.int64), length - 1)
    part = point - low
    weights = np.zeros((len(start), length), np.float32)
    rows = np.arange(len(start))[:, None]
    np.add.at(weights, (rows, low), share * (1 - part))
    np.add.at(weights, (rows, np.minimum(low + 1, length - 1)), share * part)
    return weights


def pool_boxes(
    features: np.ndarray, boxes: np.ndarray, stride: int, max_numbers: int = MAX_NUMBERS
) -> np.ndarray:
    """ROIAlign with one bin, aligned, adaptive samples.

    Args:
        features: (h, w, C) float32.
        boxes: (R, 4) float32, in the frame that `stride` is of.
        stride: pixels a cell.
        max_numbers: boxes are taken in chunks so that no array of theirs is larger.

    Returns:
        (R, C) float32.
    """
    height, width, channels = features.shape
    cells = features.reshape(-1, channels)
    edges = np.asarray(boxes, np.float32).reshape(-1, 4) / np.float32(stride) - np.float32(0.5)
    pooled = np.empty((len(edges), channels), np.float32)
    # A box has as many samples an axis as cells there, unless it reaches far beyond the map.
    largest = max(len(cells), channels, 1 + int((edges[:, 2:] - edges[:, :2]).max(initial=0.0)))
    chunk = max(max_numbers // largest, 1)
    for first in range(0, len(edges), chunk):
        x1, y1, x2, y2 = edges[first : first + chunk].T
        by_row, by_column = axis_weights(y1, y2, height), axis_weights(x1, x2, width)
        weights = (by_row[:, :, None] * by_column[:, None, :]).reshape(len(x1), -1)
        pooled[first : first + chunk] = weights @ cells
    return pooled


class MapEncoder(ABC):
    """An encoder that sees the whole picture once; its boxes are pooled from that map.

    Attributes:
        stride: pixels of the encoder's frame a cell.
        identity: see `pcb.Encoder`.
    """

    stride: int
    identity: str

    @abstractmethod
    def feature_map(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 BGR -> (h, w, C) float32."""

    def project(self, pooled: np.ndarray) -> np.ndarray:
        """Pooled features (R, C) -> vectors (R, D) float32."""
        return pooled

    def map_shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the map of a picture of so many pixels."""
        return -(-height // self.stride), -(-width // self.stride)

    def scale(self, height: int, width: int) -> tuple[float, float]:
        """Pixels of the encoder's frame a pixel of the picture, downwards and to the right."""
        return 1.0, 1.0

    def pooled_vectors(
        self, features: np.ndarray, size: tuple[int, int], boxes: np.ndarray
    ) -> np.ndarray:
        """Vectors of boxes, given their picture's map.

        Args:
            features: (h, w, C) float32.
            size: height and width of the picture, pixels.
            boxes: (R, 4) float32, image frame.

        Returns:
            (R, D) float32.
        """
        down, right = self.scale(*size)
        factors = np.array([right, down, right, down], np.float32)
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4) * factors
        return self.project(pool_boxes(features, boxes, self.stride))

    def box_vectors(self, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """See `pcb.Encoder`."""
        height, width = pixels.shape[:2]
        return self.pooled_vectors(self.feature_map(pixels), (height, width), boxes)
