# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From the network's outputs to detections, on the host, in numpy: wherever they were computed.

Boxes are float32 (x1, y1, x2, y2) in continuous pixels. Letters: P proposals, K foreground classes,
R boxes, D detections.
"""

from __future__ import annotations

import numpy as np


def final_detections(
    boxes: np.ndarray,
    scores: np.ndarray,
    valid: np.ndarray,
    *,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Threshold, NMS within each class, best `max_detections`: on the host, for one image.

    The number of candidates is not known beforehand, so a compiled graph would have to reserve
    room for all P * K of them.

    Args:
        boxes: (P, K, 4) float32, clipped, model frame.
        scores: (P, K + 1) float32, background last.
        valid: (P,) bool.
        score_threshold: a score must be above it.
        nms_threshold: see `nms`.
        max_detections: D.

    Returns:
        boxes (D, 4), scores (D,), classes (D,) int64, by falling score.
    """
    usable = valid & np.isfinite(boxes).all((1, 2)) & np.isfinite(scores).all(1)
    rows, classes = np.nonzero((scores[:, :-1] > score_threshold) & usable[:, None])
    picked_boxes, picked_scores = boxes[rows, classes], scores[rows, classes]
    keep = batched_nms(picked_boxes, picked_scores, classes, nms_threshold)
    keep = keep[:max_detections]
    return picked_boxes[keep], picked_scores[keep], classes[keep]


def to_image_frame(
    boxes: np.ndarray, image_size: np.ndarray, original_size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scale boxes from the model frame to the original image.

    Args:
        boxes: (D, 4) float32, model frame.
        image_size: (2,) height, width in the model frame.
        original_size: (2,) height, width of the original image.

    Returns:
        (D, 4) float32 boxes, clipped; (D,) bool, False for those that became empty.
    """
    scale = (np.asarray(original_size, np.float64) / np.asarray(image_size)).astype(np.float32)
    boxes = boxes * scale[[1, 0, 1, 0]]
    limit = np.asarray(original_size, np.float32)[[1, 0, 1, 0]]
    boxes = np.clip(boxes, np.float32(0), limit)
    return boxes, (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression on the host.

    Args:
        boxes: (R, 4) float32.
        scores: (R,) float32; equal scores keep their order.
        threshold: a box is dropped if its float32 IoU with a kept one is above this, compared in
            double precision as the official code does: IoU float32(0.3) is above 0.3.

    Returns:
        (S,) int64, kept indices by falling score.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order].astype(np.float32, copy=False)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = np.ones(len(order), bool)
    for i in range(len(order)):
        if not alive[i]:
            continue
        rest = np.flatnonzero(alive[i + 1 :]) + i + 1
        low = np.maximum(boxes[i, :2], boxes[rest, :2])
        high = np.minimum(boxes[i, 2:], boxes[rest, 2:])
        sides = np.maximum(high - low, np.float32(0))
        overlap = sides[:, 0] * sides[:, 1]
        union = area[i] + area[rest] - overlap
        # As a product there is no 0 / 0; the quotient decides as the official code does.
        with np.errstate(divide="ignore", invalid="ignore"):
            above = (overlap / union).astype(np.float64) > threshold
        alive[rest[above]] = False
    return order[alive]


def batched_nms(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, threshold: float
) -> np.ndarray:
    """NMS within each class: boxes of different classes never suppress each other.

    Args:
        boxes: (R, 4) float32.
        scores: (R,) float32.
        classes: (R,) integer.
        threshold: as in `nms`.

    Returns:
        (S,) int64, kept indices by falling score.
    """
    kept = [np.zeros(0, np.int64)]
    for label in np.unique(classes):
        rows = np.flatnonzero(classes == label)
        kept.append(rows[nms(boxes[rows], scores[rows], threshold)])
    merged = np.sort(np.concatenate(kept))
    return merged[np.argsort(-scores[merged], kind="stable")]
