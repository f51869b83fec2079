# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From a test set to detections: the network on every image, then thresholds and NMS."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from mindspore import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from src.data.batching import Batch
from src.defrcn.rcnn import final_detections, to_image_frame
from src.evaluation.detection_rows import Row, detections_to_rows
from src.util import idle_thread

logger = logging.getLogger(__name__)

#: (file name, boxes (D, 4) in the image frame, scores (D,), class indices (D,)) -> scores (D,)
Calibrate = Callable[[str, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Batches(Protocol):
    """What can be counted and gone through: `dataset.EvalLoader`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class Outputs(Protocol):
    """Where outputs come from that are not computed here: `export_results.StoredResults`."""

    def outputs_of(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (P, K, 4), scores (P, K + 1) and valid (P,) bool of one image."""


class _Network:
    """A compiled network as a source of outputs."""

    def __init__(self, eval_step: Callable, idle_wait: bool) -> None:
        self.eval_step, self.idle_wait, self.compiled = eval_step, idle_wait, False

    def outputs_of(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Outputs`."""
        # The first image compiles, which is this thread's own work.
        with idle_thread(self.idle_wait and self.compiled):
            outputs = self.eval_step(
                Tensor.from_numpy(batch.images),
                Tensor(batch.image_sizes),
                Tensor(batch.padded_size),
            )
            boxes, scores, valid = (output.asnumpy()[0] for output in outputs)
        self.compiled = True
        return boxes, scores, valid


def detect(
    eval_step: Callable | Outputs,
    loader: Batches,
    category_ids: Sequence[int],
    *,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    idle_wait: bool = False,
    calibrate: Calibrate | None = None,
) -> list[Row]:
    """Run the detector over a test set.

    Args:
        eval_step: compiled, see `network_define.build_eval_step`; or stored outputs.
        loader: the images, one a batch.
        category_ids: the data set's id of each class index.
        score_threshold: see `rcnn.final_detections`.
        nms_threshold: likewise.
        max_detections: likewise.
        idle_wait: see `util.idle_thread`, for the CPU.
        calibrate: changes the scores of the detections of a file, see `pcb.Calibrator`.

    Returns:
        COCO result rows, boxes in the image frame; in the order of the detector's own scores.
    """
    rows: list[Row] = []
    first, count = 0.0, 0
    started = time.monotonic()
    progress = tqdm(loader, total=len(loader), unit="image", disable=not sys.stderr.isatty())
    source = _Network(eval_step, idle_wait) if callable(eval_step) else eval_step
    for batch in progress:
        boxes, scores, valid = source.outputs_of(batch)
        boxes, scores, classes = final_detections(
            boxes,
            scores,
            valid,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
        )
        boxes, whole = to_image_frame(boxes, batch.image_sizes[0], batch.original_sizes[0])
        boxes, scores, classes = boxes[whole], scores[whole], classes[whole]
        if calibrate is not None:
            scores = calibrate(batch.file_names[0], boxes, scores, classes)
        rows += detections_to_rows(batch.image_ids[0], boxes, scores, classes, category_ids)
        count += 1
        now = time.monotonic()
        if count == 1:
            first = now
        elif count % max(1, len(loader) // 10) == 0:
            logger.info("image %d/%d  %.2f images/s", count, len(loader), _rate(count, first, now))
    total = time.monotonic() - started
    speed = ""
    if count > 1:
        speed = f", {_rate(count, first, time.monotonic()):.2f} images/s after the first"
    plural = "s" if count != 1 else ""
    logger.info("%d image%s in %.1f s%s, %d detections", count, plural, total, speed, len(rows))
    return rows


def _rate(count: int, first: float, now: float) -> float:
    """Images a second without the first one, which compiles."""
    return (count - 1) / max(now - first, 1e-9)
