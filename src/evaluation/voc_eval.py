# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""VOC's average precision, as the official evaluator of DeFRCN computes it.

Two things of the official evaluator are not what one would write: detections go through a text
format (scores with 3 decimals, corners with 1, the first corner shifted by +1 because VOC counts
pixels from 1), and widths count the last pixel (+1). Both change figures, so both are kept.
Differences to COCO: an IoU has to lie *above* the threshold; each detection is compared with the
object that it overlaps most, found already or not; difficult objects count nowhere; a class
without objects has AP 0 and is part of the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from src.evaluation.detection_rows import ImageId, Row
from src.evaluation.figures import Selection, is_ignored

THRESHOLDS = tuple(percent / 100.0 for percent in range(50, 100, 5))


def voc_figures(
    chosen: Selection,
    category_ids: Sequence[int],
    members: Mapping[str, Sequence[int]],
    *,
    eleven_points: bool,
) -> tuple[dict[str, dict[str, float]], list[float], list[float]]:
    """Judge detections by VOC's rules.

    Args:
        chosen: Objects and detections; crowds count as difficult.
        category_ids: Ids of the K classes.
        members: Class indices of each group.
        eleven_points: Precision at 11 recalls, as in VOC 2007; else the area below the curve.

    Returns:
        AP, AP50 and AP75 of each group, AP of the K classes, and their AP50; all in percent.
    """
    table = np.array(
        [
            class_ap(
                [entry for entry in chosen.objects if entry["category_id"] == identity],
                [entry for entry in chosen.detections if entry["category_id"] == identity],
                eleven_points=eleven_points,
            )
            for identity in category_ids
        ]
    )  # (classes, thresholds)
    groups = {}
    for group, indices in members.items():
        by_threshold = table[list(indices)].mean(axis=0)
        groups[group] = {
            "AP": float(by_threshold.mean()),
            "AP50": float(by_threshold[THRESHOLDS.index(0.5)]),
            "AP75": float(by_threshold[THRESHOLDS.index(0.75)]),
        }
    return groups, table.mean(axis=1).tolist(), table[:, 0].tolist()


def average_precision(
    recall: np.ndarray, precision: np.ndarray, *, eleven_points: bool = True
) -> float:
    """Average precision of one curve, 0 ... 1.

    Args:
        recall: (D,) after each detection by falling score, never falling.
        precision: (D,) likewise.
        eleven_points: Mean of the best precision at a recall of at least 0, 0.1, ... 1 (VOC
            2007); else the area below the best precision (VOC 2010 and later).
    """
    if eleven_points:
        return float(
            sum(precision[recall >= wanted].max(initial=0.0) for wanted in np.arange(0.0, 1.1, 0.1))
            / 11.0
        )
    envelope = np.maximum.accumulate(np.append(precision, 0.0)[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope[:-1]).sum())


def class_curve(
    best: np.ndarray, owner: np.ndarray, difficult: np.ndarray, threshold: float, num_objects: int
) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of one class after each detection.

    Args:
        best: (D,) largest IoU of each detection with an object of its image; -inf without any.
            Detections are in order of falling score.
        owner: (D,) number of that object, -1 without any.
        difficult: (D,) whether that object is difficult.
        threshold: IoU that has to be exceeded.
        num_objects: Objects that are not difficult, at least one.

    Returns:
        (D,) recall and (D,) precision.
    """
    over = best > threshold
    candidates = np.flatnonzero(over & ~difficult)
    hit = np.zeros(len(best), bool)
    # np.unique finds the first place of each object: the most certain detection has it.
    hit[candidates[np.unique(owner[candidates], return_index=True)[1]]] = True
    false = ~hit & ~(over & difficult)
    hits, wrong = hit.cumsum(dtype=np.float64), false.cumsum(dtype=np.float64)
    return hits / num_objects, hits / np.maximum(hits + wrong, np.finfo(np.float64).eps)


def as_official_text(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Scores (D,) and corners (D, 4) after a way through the official text format.

    Corners are VOC's: pixels counted from 1, the last one included.
    """
    scores = np.array([float(f"{row['score']:.3f}") for row in rows], np.float64)
    sizes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    # Rows hold width and height of float32 corners; this brings the far corner back exactly.
    far = (sizes[:, :2] + sizes[:, 2:]).astype(np.float32).astype(np.float64)
    corners = np.concatenate([sizes[:, :2] + 1.0, far], axis=1)
    texts = [[float(f"{value:.1f}") for value in corner] for corner in corners.tolist()]
    return scores, np.array(texts, np.float64).reshape(-1, 4)


def class_ap(
    objects: Sequence[Row],
    detections: Sequence[Row],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    eleven_points: bool = True,
) -> list[float]:
    """AP of one class in percent, at each IoU threshold.

    Args:
        objects: With `image_id`, `bbox`, `iscrowd` and perhaps `difficult`.
        detections: Result rows.
        thresholds: IoU that has to be exceeded.
        eleven_points: See `average_precision`.
    """
    num_objects = sum(not is_ignored(entry) for entry in objects)
    if not num_objects or not detections:
        return [0.0] * len(thresholds)
    scores, corners = as_official_text(detections)
    order = np.argsort(-scores, kind="stable")
    best, owner = _best_overlaps(objects, [detections[row] for row in order], corners[order])
    ignored = np.array([is_ignored(entry) for entry in objects])
    difficult = (owner >= 0) & ignored[owner]
    figures = []
    for threshold in thresholds:
        recall, precision = class_curve(best, owner, difficult, threshold, num_objects)
        ap = average_precision(recall, precision, eleven_points=eleven_points)
        figures.append(100.0 * ap)
    return figures


def _best_overlaps(
    objects: Sequence[Row], detections: Sequence[Row], corners: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Largest IoU of each detection with the objects of its image, and that object's number."""
    sizes = np.array([entry["bbox"] for entry in objects], np.float64).reshape(-1, 4)
    truth = np.concatenate([sizes[:, :2] + 1.0, sizes[:, :2] + sizes[:, 2:]], axis=1)
    of_image: dict[ImageId, list[int]] = {}
    for number, entry in enumerate(objects):
        of_image.setdefault(entry["image_id"], []).append(number)
    places: dict[ImageId, list[int]] = {}
    for place, row in enumerate(detections):
        places.setdefault(row["image_id"], []).append(place)
    best = np.full(len(detections), -np.inf)
    owner = np.full(len(detections), -1)
    for image_id, numbers in of_image.items():
        found = places.get(image_id)
        if found:
            overlaps = _overlaps(corners[found], truth[numbers])
            column = overlaps.argmax(axis=1)
            best[found] = overlaps[np.arange(len(found)), column]
            owner[found] = np.array(numbers)[column]
    return best, owner


def _overlaps(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU (D, G) of corners that both count the last pixel."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    sides = np.maximum(high - low + 1.0, 0.0)
    shared = sides[..., 0] * sides[..., 1]
    areas = [np.prod(corners[:, 2:] - corners[:, :2] + 1.0, axis=1) for corners in (boxes, truth)]
    overlaps: np.ndarray = shared / (areas[0][:, None] + areas[1][None, :] - shared)
    return overlaps
