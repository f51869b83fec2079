# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From images to detections, one image after the other: network, thresholds, NMS, image frame.

No MindSpore here: a `network.Network` is one source of outputs, an exported graph another.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from src.data.batching import Batch
from src.defrcn.detections import final_detections, to_image_frame
from src.evaluation.detection_rows import Row, detections_to_rows

logger = logging.getLogger(__name__)

Image = TypeVar("Image", bound=Batch)

Calibrate = Callable[[str, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""File name, boxes, scores and classes of an image's detections -> other scores (D,)."""

OutputsOf = Callable[[Batch], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""A batch of one image -> boxes (P, K, 4), scores (P, K + 1) and valid (P,) of its proposals."""


@dataclass(frozen=True)
class Detections(Generic[Image]):
    """What was found in one image.

    Attributes:
        image: the batch of one that was looked at.
        boxes: (D, 4) float32 (x1, y1, x2, y2), image frame, pixels.
        scores: (D,) float32, falling.
        classes: (D,) int64 class indices.
    """

    image: Image
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def detect(
    outputs_of: OutputsOf,
    images: Iterable[Image],
    total: int,
    *,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> Iterator[Detections[Image]]:
    """Detect on images one by one, each when it is asked for; the log tells how fast.

    Args:
        outputs_of: see `OutputsOf`: a network, an exported graph, stored outputs.
        images: batches of one image.
        total: how many there are, for the log.
        score_threshold: see `detections.final_detections`.
        nms_threshold: likewise.
        max_detections: likewise.
    """
    first, count, num_detections = 0.0, 0, 0
    started = time.monotonic()
    for image in images:
        boxes, scores, classes = final_detections(
            *outputs_of(image),
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
        )
        boxes, whole = to_image_frame(boxes, image.image_sizes[0], image.original_sizes[0])
        yield Detections(image, boxes[whole], scores[whole], classes[whole])
        num_detections += int(whole.sum())
        count += 1
        now = time.monotonic()
        if count == 1:
            first = now
        elif count % max(1, total // 10) == 0:
            logger.info("image %d/%d  %.2f images/s", count, total, _rate(count, first, now))
    speed = ""
    if count > 1:
        speed = f", {_rate(count, first, time.monotonic()):.2f} images/s after the first"
    plural = "s" if count != 1 else ""
    logger.info(
        "%d image%s in %.1f s%s, %d detections",
        count,
        plural,
        time.monotonic() - started,
        speed,
        num_detections,
    )


def rows_of(
    found: Iterable[Detections], category_ids: Sequence[int], calibrate: Calibrate | None = None
) -> list[Row]:
    """Detections as COCO result rows, those of an image by the detector's own scores.

    Args:
        found: of the images.
        category_ids: the data set's id of each class index.
        calibrate: changes the scores, see `pcb.Calibrator`.
    """
    rows: list[Row] = []
    for one in found:
        scores = one.scores
        if calibrate is not None:
            scores = calibrate(one.image.file_names[0], one.boxes, scores, one.classes)
        rows += detections_to_rows(
            one.image.image_ids[0], one.boxes, scores, one.classes, category_ids
        )
    return rows


def _rate(count: int, first: float, now: float) -> float:
    """Images a second without the first one, which compiles."""
    return (count - 1) / max(now - first, 1e-9)
