# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""COCO's figures by pycocotools alone, and detections that are hard to judge."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from src.evaluation.figures import Selection, is_ignored

SIDE = 640  # of a hostile set's images, pixels


class _Judge(COCOeval):  # type: ignore[misc]
    """pycocotools' evaluator, for which difficult objects are ignored but no crowds."""

    def _prepare(self) -> None:
        super()._prepare()
        for entries in self._gts.values():
            for entry in entries:
                if is_ignored(entry):
                    entry["ignore"] = 1


def figures(chosen: Selection, category_ids: Sequence[int]) -> list[float]:
    """The twelve figures of some classes, percent, by pycocotools and nothing else."""
    sides = []
    with contextlib.redirect_stdout(io.StringIO()):
        for entries in (chosen.objects, chosen.detections):
            side = COCO()
            side.dataset = {
                "images": chosen.images,
                "categories": [{"id": identity} for identity in category_ids],
                "annotations": copy.deepcopy(entries),
            }
            side.createIndex()
            sides.append(side)
        judge = _Judge(*sides, "bbox")
        judge.params.catIds = sorted(category_ids)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [100 * float(value) for value in judge.stats]


def hostile_set(seed: int, images: int = 12, classes: int = 5) -> tuple[dict[str, Any], list[dict]]:
    """Ground truth and rows with all that evaluators differ in.

    Equal scores in an image and over images, names of images whose order is not that of the list,
    crowds, difficult objects, objects of no area and at the limits of small and medium, several
    detections on the very same box, more than 100 of a class, a class without objects, one without
    detections, pictures without either.
    """
    draw = np.random.default_rng(seed)
    names = [f"{number:03d}" for number in draw.permutation(images)]
    sides = (0, 1, 8, 31, 32, 33, 95, 96, 97, 300)
    objects: list[dict] = []
    rows: list[dict] = []
    for name in names[: images - 2]:
        for category in range(1, classes):
            for _ in range(draw.integers(0, 6)):
                size = draw.choice(sides, 2).astype(float)
                corner = draw.integers(0, SIDE - 300, 2).astype(float)
                box = [*corner, *size]
                objects.append(
                    {
                        "id": len(objects),
                        "image_id": name,
                        "category_id": category,
                        "bbox": box,
                        "iscrowd": int(draw.random() < 0.15),
                        "difficult": int(draw.random() < 0.15),
                    }
                )
                for _ in range(draw.integers(0, 4)):
                    moved = np.array(box) + draw.choice((0, 0, 1, 2, 4, 9), 4)
                    score = float(draw.choice((0.25, 0.5, 0.5, 0.75, 0.9, 1.0)))
                    rows.append(_row(name, category, moved, score))
        for category in (0, 2):  # the first has no object
            for _ in range(draw.integers(0, 160)):
                box = np.array([*draw.integers(0, SIDE, 2), *draw.choice(sides, 2)])
                rows.append(_row(name, category, box, float(np.round(draw.random(), 2))))
    rows = [rows[index] for index in draw.permutation(len(rows))]
    kept = [row for row in rows if row["category_id"] != classes - 1]  # the last is never found
    table = {
        "images": [{"id": name, "height": SIDE, "width": SIDE} for name in names],
        "annotations": objects,
        "categories": [{"id": number, "name": f"class {number}"} for number in range(classes)],
    }
    return table, kept


def _row(name: str, category: int, box: np.ndarray, score: float) -> dict:
    return {"image_id": name, "category_id": category, "bbox": box.tolist(), "score": score}
