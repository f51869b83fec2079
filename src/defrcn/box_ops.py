# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Box maths: pure functions, one place.

Boxes are float32 (x1, y1, x2, y2) in continuous pixels, width = x2 - x1 (no +1).
Letters: N images, G ground-truth boxes, A anchors or other candidates, R boxes.
"""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

# dw and dh are clamped so that a box grows at most 1000/16 times (Faster R-CNN's usual guard).
MAX_SCALE_LOG = math.log(1000.0 / 16.0)


LARGEST = float(np.finfo(np.float32).max)

# Taylor's coefficients of (exp(r) - 1 - r) / r^2, highest power first: enough for |r| < 0.35.
_EXP_SERIES = tuple(1.0 / math.factorial(k) for k in range(8, 1, -1))
# ln 2 in two parts: products of the first, of few bits, with small integers are exact.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_LOWEST_EXPONENT = -80.0
# Powers of two by table: exact, and MindSpore Lite's power takes one exponent only.
_LOWEST_TWOS, _HIGHEST_TWOS = -116, 127
_TWOS = (2.0 ** np.arange(_LOWEST_TWOS, _HIGHEST_TWOS + 1)).astype(np.float32)


def precise_exp(values: Tensor) -> Tensor:
    """Exp of float32 values up to the clamp of `decode_boxes`, rounded right nearly always.

    MindSpore's own on CPU is off by up to 70 units of the last place: a thousandth of a pixel.
    Written exp(x) = 2^n exp(r), |r| < 0.35, with what rounding loses carried along.
    """
    # Not ops.maximum, which would lose a NaN.
    lowest = ops.zeros_like(values) + _LOWEST_EXPONENT
    values = ops.where(values < lowest, lowest, values)
    twos = ops.floor(values * (1.0 / math.log(2.0)) + 0.5)
    exact, small = values - twos * _LN2_HIGH, twos * _LN2_LOW
    rest = exact - small
    lost = (exact - rest) - small
    series = ops.zeros_like(rest) + _EXP_SERIES[0]
    for coefficient in _EXP_SERIES[1:]:
        series = series * rest + coefficient
    total = 1.0 + rest
    lost = lost + (rest - (total - 1.0))
    # A NaN has to find some place in the table; it stays one in `total`.
    known = ops.where(twos >= _LOWEST_TWOS, twos, ops.zeros_like(twos) + _LOWEST_TWOS)
    place = ops.minimum(known, Tensor(_HIGHEST_TWOS, ms.float32)) - _LOWEST_TWOS
    power = ops.gather(Tensor(_TWOS), place.astype(ms.int32), 0)
    return (total + (lost + rest * rest * series)) * power


def box_area(boxes: Tensor) -> Tensor:
    """Area of (..., 4) boxes -> (...), pixels squared."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of every pair: (G, 4) and (A, 4) -> (G, A) float32; 0 where boxes do not overlap."""
    low = ops.maximum(boxes1[:, None, :2], boxes2[None, :, :2])
    high = ops.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    sides = ops.relu(high - low)
    overlap = sides[..., 0] * sides[..., 1]
    union = box_area(boxes1)[:, None] + box_area(boxes2)[None, :] - overlap
    touching = overlap > 0
    # The divisor is made 1 where nothing overlaps: two empty boxes would give 0 / 0.
    quotient = overlap / ops.where(touching, union, ops.ones_like(union))
    return ops.where(touching, quotient, ops.zeros_like(overlap))


def encode_boxes(source: Tensor, target: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Deltas that take `source` to `target` (R-CNN, eq. 6-9, times `weights`).

    Args:
        source: (..., 4) boxes with positive width and height.
        target: (..., 4) boxes with positive width and height.
        weights: (wx, wy, ww, wh).

    Returns:
        (..., 4) float32: dx, dy, dw, dh.
    """
    halves = ops.Split(-1, 2)
    source_corner, source_end = halves(source)
    target_corner, target_end = halves(target)
    source_size, target_size = source_end - source_corner, target_end - target_corner
    source_centre = source_corner + 0.5 * source_size
    target_centre = target_corner + 0.5 * target_size
    shift = (target_centre - source_centre) / source_size
    scale = ops.log(target_size / source_size)
    return ops.concat((shift, scale), -1) * Tensor(np.asarray(weights, np.float32))


def decode_boxes(deltas: Tensor, boxes: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Apply deltas to boxes, the inverse of `encode_boxes`; only growth is clamped.

    Args:
        deltas: (..., 4) dx, dy, dw, dh.
        boxes: (..., 4), broadcast against `deltas`.
        weights: (wx, wy, ww, wh).

    Returns:
        (..., 4) boxes in the frame of `boxes`.
    """
    deltas = deltas / Tensor(np.asarray(weights, np.float32))
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + 0.5 * size
    growth = deltas[..., 2:]
    # Not ops.minimum, which would turn a NaN into a box.
    growth = ops.where(growth > MAX_SCALE_LOG, ops.zeros_like(growth) + MAX_SCALE_LOG, growth)
    new_centre = deltas[..., :2] * size + centre
    half = 0.5 * (precise_exp(growth) * size)
    return ops.concat((new_centre - half, new_centre + half), -1)


def clip_boxes(boxes: Tensor, image_size: Tensor) -> Tensor:
    """Clip (..., 4) boxes to [0, width] x [0, height]; `image_size` (2,) is height, width."""
    height, width = image_size[0], image_size[1]
    limit = ops.stack((width, height, width, height))
    return ops.minimum(ops.relu(boxes), limit)


def nonempty(boxes: Tensor, min_size: float = 0.0) -> Tensor:
    """True for (..., 4) boxes whose width and height both exceed `min_size` pixels."""
    width = boxes[..., 2] - boxes[..., 0]
    height = boxes[..., 3] - boxes[..., 1]
    return ops.logical_and(width > min_size, height > min_size)


def finite(values: Tensor) -> Tensor:
    """True where every number of the last axis is finite: (..., D) -> (...)."""
    # Neither Inf nor NaN is at most the largest number.
    return (ops.abs(values) <= LARGEST).all(-1)
