# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Box arithmetic, matching and sampling. Boxes are (x1, y1, x2, y2) in continuous pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import box_iou

LARGEST_GROWTH = math.log(1000.0 / 16.0)


def encode(source: Tensor, target: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Deltas (R, 4) that take boxes `source` to `target`, both (R, 4)."""
    size, wanted = source[:, 2:] - source[:, :2], target[:, 2:] - target[:, :2]
    centre, aim = source[:, :2] + 0.5 * size, target[:, :2] + 0.5 * wanted
    deltas = torch.cat(((aim - centre) / size, torch.log(wanted / size)), 1)
    return deltas * deltas.new_tensor(weights)


def decode(deltas: Tensor, boxes: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Apply deltas (R, ..., 4) to boxes that broadcast against them."""
    deltas = deltas / deltas.new_tensor(weights)
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + 0.5 * size + deltas[..., :2] * size
    half = 0.5 * size * torch.exp(deltas[..., 2:].clamp(max=LARGEST_GROWTH))
    return torch.cat((centre - half, centre + half), -1)


def clip(boxes: Tensor, size: tuple[float, float]) -> Tensor:
    """Clip (..., 4) boxes to an image of (height, width)."""
    height, width = size
    across, down = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((across[..., 0], down[..., 0], across[..., 1], down[..., 1]), -1)


def nonempty(boxes: Tensor, smallest: float = 0.0) -> Tensor:
    """(R,) bool: width and height are both above `smallest`."""
    return ((boxes[:, 2:] - boxes[:, :2]) > smallest).all(1)


def match(
    truth: Tensor, boxes: Tensor, thresholds: tuple[float, float], low_quality: bool
) -> tuple[Tensor, Tensor]:
    """Find each box's ground truth.

    Args:
        truth: (G, 4).
        boxes: (A, 4).
        thresholds: background below the first, foreground from the second on, else ignored.
        low_quality: a box that a ground truth overlaps most is foreground too.

    Returns:
        Index of the ground truth (A,), 0 where there is none, and label (A,) in {1, 0, -1}.
    """
    if not len(truth):
        nothing = torch.zeros(len(boxes), dtype=torch.int64)
        return nothing, nothing.clone()
    iou = box_iou(truth, boxes).nan_to_num_(0.0)
    best, matched = iou.max(0)
    label = torch.full_like(matched, -1)
    label[best < thresholds[0]] = 0
    label[best >= thresholds[1]] = 1
    if low_quality:
        label[(iou == iou.max(1, keepdim=True).values).any(0)] = 1
    return matched, label


def sample(label: Tensor, noise: Tensor, count: int, fraction: float) -> tuple[Tensor, Tensor]:
    """Draw positive and negative boxes.

    Args:
        label: (A,) in {1, 0, -1}; -1 is never drawn.
        noise: (A,) in [0, 1); larger is drawn first.
        count: boxes in all.
        fraction: of them positive at most.

    Returns:
        Indices of positives and of negatives.
    """
    # Rounded as the other side rounds it, so that both draw the same.
    key = (label + 1).float() + noise
    positive, negative = torch.nonzero(label == 1)[:, 0], torch.nonzero(label == 0)[:, 0]
    positives = min(len(positive), int(count * fraction))
    negatives = min(len(negative), count - positives)
    return (
        positive[key[positive].topk(positives).indices],
        negative[key[negative].topk(negatives).indices],
    )
