# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""3x3 convolutions as Winograd products F(4x4, 3x3) (Lavin & Gray 2016, sec. 4.3).

A 4x4 tile of outputs takes 36 products a channel pair instead of 144; the products are one
batched matrix multiplication. Equal to a direct convolution up to rounding.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

# Interpolation points 0, 1, -1, 2, -2 and infinity.
_INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float64,
)
_KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float64,
)
_OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    np.float64,
)


def _pairs(matrix: np.ndarray) -> np.ndarray:
    """The two-dimensional transform of a one-dimensional one, on flattened tiles."""
    return np.kron(matrix, matrix).astype(np.float32)


INPUT_36 = _pairs(_INPUT)  # (36, 36): 6x6 input tile -> products
KERNEL_36 = _pairs(_KERNEL)  # (36, 9)
OUTPUT_16 = _pairs(_OUTPUT)  # (16, 36): products -> 4x4 output tile
# The tile of a 4x4 map with a border of zeros: only its inner 16 columns matter.
INPUT_16 = np.ascontiguousarray(INPUT_36.reshape(36, 6, 6)[:, 1:5, 1:5].reshape(36, 16))


def transform_kernel(weight: Tensor) -> Tensor:
    """(D, C, 3, 3) -> (36, D, C)."""
    out_channels, in_channels = weight.shape[:2]
    taps = ops.MatMul(transpose_b=True)(Tensor(KERNEL_36), weight.reshape(-1, 9))
    return taps.reshape(36, out_channels, in_channels)


def _multiply(tiles: Tensor, weight: Tensor) -> Tensor:
    """(36, T, C) transformed tiles and (D, C, 3, 3), or that transformed -> (16, T, D) outputs."""
    if weight.ndim == 4:
        weight = transform_kernel(weight)
    products = ops.BatchMatMul(transpose_b=True)(tiles, weight)
    count, channels = products.shape[1], products.shape[2]
    out = ops.MatMul()(Tensor(OUTPUT_16), products.reshape(36, -1))
    return out.reshape(16, count, channels)


def winograd_conv4x4(features: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution, padding 1, of R maps of 4x4.

    Args:
        features: (16, R, C) float32, position-major.
        weight: (D, C, 3, 3), or what `transform_kernel` makes of it.

    Returns:
        (16, R, D) float32.
    """
    count, channels = features.shape[1], features.shape[2]
    tiles = ops.MatMul()(Tensor(INPUT_16), features.reshape(16, -1))
    return _multiply(tiles.reshape(36, count, channels), weight)


def winograd_conv3x3(features: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution, padding 1, stride 1, of maps of any size.

    Args:
        features: (N, H, W, C) float32.
        weight: (D, C, 3, 3), or what `transform_kernel` makes of it.

    Returns:
        (N, H, W, D) float32.
    """
    batch, height, width, channels = features.shape
    rows, columns = (height + 3) // 4, (width + 3) // 4
    blocks = _blocks(features, rows, columns)
    # A 6x6 tile is a block of 4x4 and the first two rows and columns of the next ones.
    tall = ops.concat((blocks[:, :rows], blocks[:, 1:, :2]), 2)
    tiles = ops.concat((tall[:, :, :, :columns], tall[:, :, :, 1:, :2]), 4)
    count = batch * rows * columns
    tiles = tiles.transpose(2, 4, 0, 1, 3, 5).reshape(36, -1)
    tiles = ops.MatMul()(Tensor(INPUT_36), tiles).reshape(36, count, channels)
    out = _multiply(tiles, weight)
    out = out.reshape(4, 4, batch, rows, columns, -1).transpose(2, 3, 0, 4, 1, 5)
    out = out.reshape(batch, rows * 4, columns * 4, -1)
    return out[:, :height, :width]


def _blocks(features: Tensor, rows: int, columns: int) -> Tensor:
    """Surround with zeros and cut into 4x4 blocks: one cell before, enough after.

    (N, H, W, C) -> (N, rows + 1, 4, columns + 1, 4, C).
    """
    batch, _, width, channels = features.shape
    border = ops.zeros((batch, 6, width, channels), ms.float32)
    tall = ops.concat((border[:, :1], features, border), 1)[:, : 4 * rows + 4]
    border = ops.zeros((batch, 4 * rows + 4, 6, channels), ms.float32)
    wide = ops.concat((border[:, :, :1], tall, border), 2)[:, :, : 4 * columns + 4]
    return wide.reshape(batch, rows + 1, 4, columns + 1, 4, channels)
