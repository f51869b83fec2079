# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From detections to numbers: COCO's metric, and VOC's by `src.evaluation.voc_eval`.

COCO's rules are those of pycocotools, whose matching and curves faster-coco-eval computes in C++:
the same figures in a seventh of the time. pycocotools sums them up, in its own lines.

No model and no MindSpore here: everything takes plain values, so that a result file of any origin
is judged the same. Rows and ground truth are those of `evaluation.detection_rows`, figures and
tables those of `evaluation.figures`; curves, thresholds and sorted pictures are made by
`evaluation.report`: `test.report` of eval.py, or `python -m src.tools.report` from stored
detections.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools.cocoeval import COCOeval

from src.defrcn.built_datacategory import DatasetInfo
from src.evaluation.detection_rows import (
    Row,
    check_rows,
    dataset_ground_truth,
    detections_to_rows,
    ground_truth_from_records,
    read_rows,
)
from src.evaluation.figures import (
    METRICS,
    RECALLS,
    UNDEFINED,
    Evaluation,
    Selection,
    group_members,
    is_ignored,
    per_category_table,
    report,
    select,
)
from src.evaluation.voc_eval import voc_figures
from src.model_utils.set_names import parse_name

__all__ = [
    "UNDEFINED",
    "Evaluation",
    "check_rows",
    "dataset_ground_truth",
    "detections_to_rows",
    "evaluate",
    "ground_truth_from_records",
    "metric_of",
    "per_category_table",
    "read_rows",
    "report",
]

logger = logging.getLogger(__name__)


def metric_of(dataset: str, wanted: str = "auto") -> str:
    """Return which metric judges a test set: "coco", "voc07" or "voc12".

    By itself, the built-in PASCAL VOC sets are judged by VOC's rules of their year, as in the
    literature, and all others by COCO's, also those of one's own whose annotations are VOC-style
    XML: the format of a file says nothing about the rules to judge by.

    Args:
        dataset: Name of the test set.
        wanted: The metric asked for, or "auto".
    """
    if wanted != "auto":
        return wanted
    parsed = parse_name(dataset)
    return f"voc{parsed.family[-2:]}" if parsed and parsed.number else "coco"


def evaluate(
    info: DatasetInfo,
    ground_truth: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    metric: str = "auto",
    pcb: bool | None = None,
) -> Evaluation:
    """Judge detections on a test set as the official evaluators do.

    Args:
        info: The test set, its classes filled in; without novel ones there is no split to report.
        ground_truth: COCO annotations (`images`, `annotations`, `categories`), other classes and
            all, as `dataset_ground_truth` gives them. Not changed.
        rows: Detections; those of other classes than the set's are left out.
        metric: see `metric_of`.
        pcb: Whether the scores are calibrated; None: not known.

    Raises:
        InputError: If there are no images, or a row is wrong or of an unknown image or category.
    """
    metric = metric_of(info.name, metric)
    chosen = select(ground_truth, rows, dataset=info.name, category_ids=info.category_ids)
    logger.info(
        "judging %d detections on %d images of %s",
        len(chosen.detections),
        len(chosen.images),
        info.name,
    )
    members, objects = group_members(info), chosen.objects_by_category
    if metric == "coco":
        names = ("pycocotools", "faster-coco-eval")
        evaluator = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
        groups, lines, ap, ap50 = _coco_figures(chosen, info.category_ids, members)
    else:
        evaluator, lines = "src.evaluation.voc_eval", {}
        groups, ap, ap50 = voc_figures(
            chosen, info.category_ids, members, eleven_points=metric == "voc07"
        )
    return Evaluation(
        dataset=info.name,
        metric=metric,
        evaluator=evaluator,
        num_images=len(chosen.images),
        num_objects=chosen.num_objects,
        num_detections=len(chosen.detections),
        groups=groups,
        group_sizes={group: len(indices) for group, indices in members.items()},
        lines=lines,
        per_class=dict(zip(info.class_names, ap)),
        per_class_ap50=dict(zip(info.class_names, ap50)),
        per_class_objects=dict(zip(info.class_names, map(objects.__getitem__, info.category_ids))),
        pcb=pcb,
    )


def _coco_figures(
    chosen: Selection, category_ids: Sequence[int], members: Mapping[str, Sequence[int]]
) -> tuple[dict[str, dict[str, float]], dict[str, str], list[float], list[float]]:
    """COCO's figures (percent) and lines of each group, AP of each class, and its AP50."""
    ordered = sorted(set(category_ids))
    accumulated = _accumulate(chosen, ordered)
    column_of = [ordered.index(identity) for identity in category_ids]
    groups, lines = {}, {}
    for group, indices in members.items():
        columns = [column_of[index] for index in indices]
        groups[group], lines[group] = _summarize(accumulated, columns)
    precision = accumulated.eval["precision"]
    ap = [_class_ap(precision, column) for column in column_of]
    ap50 = [_class_ap(precision[:1], column) for column in column_of]
    return groups, lines, ap, ap50


class _Evaluator(COCOeval_faster):  # type: ignore[misc]
    """COCO's evaluator that knows VOC's difficult objects: ignored, but matched by plain IoU."""

    def _prepare(self) -> None:
        super()._prepare()  # where the entries are referred to, not copied
        for entry in self.cocoGt.anns.values():
            if is_ignored(entry):
                entry["ignore"] = 1


def _accumulate(chosen: Selection, category_ids: list[int]) -> _Evaluator:
    # C++ wants whole numbers for names of images; their order decides between equal scores.
    number_of = {identity: n for n, identity in enumerate(sorted(i["id"] for i in chosen.images))}
    sides = []
    for entries in (chosen.objects, chosen.detections):
        side = COCO(print_function=logger.debug)
        side.dataset = {
            "images": [{"id": number} for number in number_of.values()],
            "categories": [{"id": identity} for identity in category_ids],
            "annotations": [{**e, "image_id": number_of[e["image_id"]]} for e in entries],
        }
        side.createIndex()
        sides.append(side)
    evaluator = _Evaluator(*sides, "bbox", print_function=logger.debug)
    evaluator.params.catIds = category_ids
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator


def _summarize(accumulated: _Evaluator, columns: list[int]) -> tuple[dict[str, float], str]:
    """Let pycocotools sum up some of the classes: its twelve figures (percent), its lines."""
    summary = COCOeval(iouType="bbox")
    summary.eval = {
        "precision": accumulated.eval["precision"][:, :, columns],
        "recall": accumulated.eval["recall"][:, columns],
    }
    with contextlib.redirect_stdout(io.StringIO()) as lines:
        summary.summarize()
    figures = [float(value) * 100 for value in summary.stats]
    return dict(zip((*METRICS, *RECALLS), figures)), lines.getvalue().rstrip()


def _class_ap(precision: np.ndarray, column: int) -> float:
    """AP of one class from (IoU, recall, class, area, detections) precisions; -1 is undefined."""
    values = precision[:, :, column, 0, -1]
    values = values[values > -1]
    return float(values.mean()) * 100 if values.size else UNDEFINED
