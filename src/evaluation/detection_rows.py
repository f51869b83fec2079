# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Detections as COCO result rows, and the ground truth to hold them against: in and out of files.

A *row* is one detection as COCO's result format has it: `image_id`, `category_id`, `bbox`
(x, y, width, height), `score`. Boxes are in the image frame, float pixels. *Ground truth* is a
dictionary with COCO's lists `images`, `annotations` and `categories`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from src.defrcn.data_types import XYWH, DatasetInfo, ImageId, Record
from src.model_utils.errors import InputError
from src.util import read_regular

Row = dict[str, Any]
GroundTruth = dict[str, Any]


def detections_to_rows(
    image_id: ImageId,
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    category_ids: Sequence[int],
) -> list[Row]:
    """Turn the detections of one image into result rows.

    Args:
        image_id: As in the ground truth.
        boxes: (D, 4) float32 (x1, y1, x2, y2), image frame, pixels.
        scores: (D,) float32.
        classes: (D,) integer class index 0 ... K-1.
        category_ids: The data set's category id of each class index.

    Raises:
        ValueError: If the lengths differ or a class index is out of range.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    scores, classes = np.asarray(scores, np.float32), np.asarray(classes)
    if not len(boxes) == len(scores) == len(classes):
        raise ValueError(f"{len(boxes)} boxes, {len(scores)} scores, {len(classes)} classes")
    if len(classes) and not 0 <= classes.min() <= classes.max() < len(category_ids):
        raise ValueError(f"class index outside 0 ... {len(category_ids) - 1}")
    sizes = boxes[:, 2:] - boxes[:, :2]
    bboxes = np.concatenate([boxes[:, :2], sizes], axis=1).tolist()
    identity = image_id if isinstance(image_id, str) else int(image_id)
    return [
        {
            "image_id": identity,
            "category_id": int(category_ids[int(index)]),
            "bbox": bbox,
            "score": score,
        }
        for index, bbox, score in zip(classes, bboxes, scores.tolist())
    ]


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Read a COCO result file.

    Raises:
        InputError: If it is missing, no JSON list, or has a row that is no detection.
    """
    try:
        rows = json.loads(read_regular(path).decode("utf-8"))
    except FileNotFoundError:
        raise InputError(f"result file {path} does not exist; run eval.py first") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"result file {path} cannot be read as JSON: {error}") from error
    if not isinstance(rows, list):
        raise InputError(f"result file {path} must hold a list of detections (COCO results)")
    check_rows(rows, source=str(path))
    return rows


def check_rows(
    rows: Sequence[Any],
    *,
    source: str,
    image_ids: Collection[ImageId] | None = None,
    category_ids: Collection[int] | None = None,
) -> None:
    """Refuse the first row that is no detection, or not one of the given images and categories.

    Args:
        rows: To be checked; rows are counted from 0 in the message.
        source: File or origin, for the message.
        image_ids: The images that there are; None accepts any.
        category_ids: The categories that there are; None accepts any.

    Raises:
        InputError: Naming source, row and what is wrong.
    """
    for number, row in enumerate(rows):
        problem = _row_problem(row)
        if problem is None and image_ids is not None and row["image_id"] not in image_ids:
            problem = f"image_id {row['image_id']!r} is not an image of the ground truth"
        if problem is None and category_ids is not None and row["category_id"] not in category_ids:
            problem = f"category_id {row['category_id']} is not a category of the ground truth"
        if problem is not None:
            raise InputError(f"{source}: row {number}: {problem}")


def ground_truth_from_records(
    records: Iterable[Record], class_names: Sequence[str], category_ids: Sequence[int]
) -> GroundTruth:
    """Build COCO ground truth for records that come from other files, such as VOC XML.

    Difficult objects count neither as missed nor, when found, as wrong. An object's area, which
    decides between small, medium and large, is that of its box.
    """
    images, annotations = [], []
    for record in records:
        images.append({"id": record.image_id, "height": record.height, "width": record.width})
        for item in record.annotations:
            x, y, width, height = item.bbox
            if item.bbox_mode != XYWH:
                width, height = width - x, height - y
            annotations.append(
                {
                    "image_id": record.image_id,
                    "category_id": category_ids[item.category_id],
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": item.iscrowd,
                    "difficult": item.difficult,
                }
            )
    categories = [{"id": i, "name": name} for i, name in zip(category_ids, class_names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def dataset_ground_truth(info: DatasetInfo, records: Iterable[Record]) -> GroundTruth:
    """Return the ground truth of a test set: COCO's own file (with its areas), or from records."""
    # what only writes detections needs no annotation files, nor what they are read with
    from src.defrcn.meta_coco import read_json

    if info.format == "coco":
        return read_json(info.annotations)
    return ground_truth_from_records(records, info.class_names, info.category_ids)


def _row_problem(row: object) -> str | None:
    if not isinstance(row, dict):
        return f"{row!r:.60} is not a detection with image_id, category_id, bbox and score"
    missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in row]
    if missing:
        return f"{', '.join(missing)} is missing"
    if type(row["image_id"]) not in (int, str):
        return f"image_id {row['image_id']!r} is not a number or text"
    if type(row["category_id"]) is not int:
        return f"category_id {row['category_id']!r} is not a whole number"
    bbox = row["bbox"]
    if not isinstance(bbox, (list, tuple)) or len(bbox) != 4 or not all(map(_is_finite, bbox)):
        return f"bbox {bbox!r} is not four finite numbers"
    if bbox[2] < 0 or bbox[3] < 0:
        return f"bbox {bbox!r} has a negative width or height (x, y, width, height)"
    if not _is_finite(row["score"]):
        return f"score {row['score']!r} is not a finite number"
    return None


def _is_finite(value: object) -> bool:
    # also right for whole numbers beyond any float
    return isinstance(value, (int, float)) and (
        not isinstance(value, bool) and abs(value) <= sys.float_info.max
    )
