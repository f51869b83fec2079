# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Matching of boxes to ground truth, random subsampling, and the RPN's targets.

Letters: N images, G ground-truth slots, A anchors (or other boxes), S samples an image.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.defrcn import box_ops


def match(
    iou: Tensor,
    gt_valid: Tensor,
    low_threshold: float,
    high_threshold: float,
    allow_low_quality: bool,
) -> tuple[Tensor, Tensor]:
    """Assign every box its best ground truth (Faster R-CNN, sec. 3.1.2).

    An IoU exactly at a threshold counts as above it; thresholds are compared in float32. A
    low-quality match (a box whose IoU is the best that some ground truth reaches) changes the
    label only. A ground truth that touches nothing has a best IoU of 0, so every box that does
    not touch it becomes a low-quality match: an oddity of the official code that is kept.

    Args:
        iou: (G, A) float32.
        gt_valid: (G,) bool, False for unused slots.
        low_threshold: below it a box is background (0).
        high_threshold: from it on a box is foreground (1); ignored (-1) in between.
        allow_low_quality: whether low-quality matches become foreground.

    Returns:
        (A,) int32 index of the matched ground truth (the first of equals; 0 if there is none),
        and (A,) int32 label, 1, 0 or -1.
    """
    iou = ops.where(gt_valid[:, None], iou, -ops.ones_like(iou))
    best = ops.max(iou, 0)[0]
    # The first of equal ground truths wins: argmax of a reduction is not bound to that.
    slots = ops.arange(iou.shape[0]).astype(ms.float32)[:, None]
    unused = ops.ones_like(iou) * iou.shape[0]
    matched = ops.min(ops.where(iou == best[None, :], slots, unused), 0)[0]
    foreground = best >= Tensor(np.float32(high_threshold))
    ignored = best >= Tensor(np.float32(low_threshold))
    if allow_low_quality:
        gt_best = ops.max(iou, 1)[0]
        reached = ops.logical_and(iou == gt_best[:, None], gt_valid[:, None])
        foreground = ops.logical_or(foreground, reached.any(0))
    zeros = ops.zeros_like(matched)
    label = ops.where(foreground, zeros + 1, ops.where(ignored, zeros - 1, zeros))
    return matched.astype(ms.int32), label.astype(ms.int32)


def subsample(
    labels: Tensor, noise: Tensor, num_samples: int, positive_fraction: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw at most `num_samples` boxes, at most a fraction of them positive.

    The draw is decided by `noise`, so it can be repeated and tested.

    Args:
        labels: (A,) int32: 1 positive, 0 negative, -1 not to be drawn.
        noise: (A,) float32 in [0, 1); larger comes first.
        num_samples: S.
        positive_fraction: positives fill at most this part; negatives fill the rest.

    Returns:
        index (S,) int32; positive (S,) bool; valid (S,) bool (False where there were not enough
        boxes). Positives come first.
    """
    num_boxes = labels.shape[0]
    # Positives have keys in [2, 3), negatives in [1, 2), the others in [0, 1).
    _, order = ops.sort((labels + 1).astype(ms.float32) + noise, 0, True)
    total_positive = (labels == 1).astype(ms.int32).sum()
    total_negative = (labels == 0).astype(ms.int32).sum()
    most = Tensor(int(num_samples * positive_fraction), ms.int32)
    num_positive = ops.minimum(total_positive, most)
    slot = Tensor(np.arange(num_samples, dtype=np.int32))
    positive = slot < num_positive
    valid = slot < num_positive + total_negative
    place = ops.where(positive, slot, slot - num_positive + total_positive)
    place = ops.minimum(place, ops.zeros_like(place) + (num_boxes - 1))
    return ops.gather(order, place, 0).astype(ms.int32), positive, valid


def rpn_targets(
    anchors: Tensor,
    anchor_valid: Tensor,
    gt_boxes: Tensor,
    gt_valid: Tensor,
    noise: Tensor,
    *,
    iou_thresholds: tuple[float, float],
    num_samples: int,
    positive_fraction: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sample the anchors of one image that the RPN learns from.

    Args:
        anchors: (A, 4), model frame.
        anchor_valid: (A,) bool, False over the padding of a fixed input shape.
        gt_boxes: (G, 4), model frame.
        gt_valid: (G,) bool.
        noise: (A,) float32 in [0, 1), see `subsample`.
        iou_thresholds: below the first background, from the second on foreground.
        num_samples: S.
        positive_fraction: see `subsample`.

    Returns:
        index (S,) int32, positive (S,) bool, valid (S,) bool, matched ground truth (S, 4).
    """
    labels, matched = label_anchors(anchors, anchor_valid, gt_boxes, gt_valid, iou_thresholds)
    index, positive, valid = subsample(labels, noise, num_samples, positive_fraction)
    target = ops.gather(gt_boxes, ops.gather(matched, index, 0), 0)
    return index, positive, valid, target


class RPNTargets(nn.Cell):
    """Samples the anchors that the RPN learns from, image by image; see `rpn_targets`.

    Args:
        iou_thresholds: below the first background, from the second on foreground.
        num_samples: S.
        positive_fraction: see `subsample`.

    Inputs:
        - **anchors** (Tensor) - (A, 4) float32, model frame.
        - **anchor_valid** (Tensor) - (A,) bool.
        - **gt_boxes** (Tensor) - (N, G, 4) float32, model frame.
        - **gt_valid** (Tensor) - (N, G) bool.
        - **noise** (Tensor) - (N, A) float32 in [0, 1).

    Outputs:
        index (N, S) int32, positive (N, S) bool, valid (N, S) bool, matched ground truth
        (N, S, 4), all without gradient.
    """

    def __init__(
        self, *, iou_thresholds: tuple[float, float], num_samples: int, positive_fraction: float
    ) -> None:
        super().__init__()
        self.iou_thresholds = iou_thresholds
        self.num_samples = num_samples
        self.positive_fraction = positive_fraction

    def construct(
        self,
        anchors: Tensor,
        anchor_valid: Tensor,
        gt_boxes: Tensor,
        gt_valid: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        images = [
            rpn_targets(
                anchors,
                anchor_valid,
                gt_boxes[i],
                gt_valid[i],
                noise[i],
                iou_thresholds=self.iou_thresholds,
                num_samples=self.num_samples,
                positive_fraction=self.positive_fraction,
            )
            for i in range(gt_boxes.shape[0])
        ]
        index = ops.stop_gradient(ops.stack([image[0] for image in images]))
        positive = ops.stack([image[1].astype(ms.int32) for image in images]) > 0
        valid = ops.stack([image[2].astype(ms.int32) for image in images]) > 0
        target = ops.stop_gradient(ops.stack([image[3] for image in images]))
        return index, positive, valid, target


def label_anchors(
    anchors: Tensor,
    anchor_valid: Tensor,
    gt_boxes: Tensor,
    gt_valid: Tensor,
    iou_thresholds: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Labels (A,) int32 before sampling, and the matched ground truth's slot (A,) int32."""
    iou = box_ops.pairwise_iou(gt_boxes, anchors)
    # An anchor over padding must not be the best that a ground truth reaches.
    iou = ops.where(anchor_valid[None, :], iou, -ops.ones_like(iou))
    matched, labels = match(iou, gt_valid, iou_thresholds[0], iou_thresholds[1], True)
    return ops.where(anchor_valid, labels, ops.zeros_like(labels) - 1), matched
