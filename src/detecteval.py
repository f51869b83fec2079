"""From detections to numbers: COCO metrics by pycocotools, tables, JSON.

No model and no MindSpore here: everything takes plain values, so that a result file of any origin
is judged the same. Rows and ground truth are those of `src.detection_rows`.

All figures are percentages; -100 stands for "undefined: no ground truth", as official results do.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate  # type: ignore[import-untyped]

from src.detection_rows import (
    ImageId,
    Row,
    check_rows,
    dataset_ground_truth,
    detections_to_rows,
    ground_truth_from_records,
    read_ground_truth,
    read_rows,
    write_rows,
)
from src.model_utils.errors import InputError
from src.util import write_json

__all__ = [
    "Evaluation",
    "check_rows",
    "dataset_ground_truth",
    "detections_to_rows",
    "evaluate_coco",
    "ground_truth_from_records",
    "per_category_table",
    "read_ground_truth",
    "read_rows",
    "report",
    "write_evaluation",
    "write_rows",
]

logger = logging.getLogger(__name__)

UNDEFINED = -100.0
PROTOCOL = "COCO box AP in percent, IoU 0.50:0.95, at most 100 detections an image and class"
# The 12 COCO figures in pycocotools' order.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
RECALLS = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
# Prefix of a group's figures in the official results: AP, bAP, nAP.
PREFIXES = {"all": "", "base": "b", "novel": "n"}


@dataclass(frozen=True)
class Evaluation:
    """What one set of detections is worth.

    Attributes:
        dataset: Name of the test set.
        num_images: Images judged, those without objects and without detections included.
        num_objects: Ground truth of the set's classes, crowds and difficult ones left out.
        num_detections: Rows of the set's classes.
        groups: For "all", and for "base" and "novel" where the data set has that split and the
            test set has such classes: the twelve COCO figures by name, percent.
        group_sizes: Classes in each group.
        lines: For each group, pycocotools' own twelve lines (fractions, not percent).
        per_class: AP of each class in the set's order, percent.
    """

    dataset: str
    num_images: int
    num_objects: int
    num_detections: int
    groups: dict[str, dict[str, float]]
    group_sizes: dict[str, int]
    lines: dict[str, str]
    per_class: dict[str, float]

    @property
    def shown_groups(self) -> list[str]:
        """The groups worth a line: not "all" if it is the same as "base" or as "novel"."""
        parts = [group for group in ("base", "novel") if group in self.groups]
        return parts if len(parts) == 1 else ["all", *parts]

    @property
    def results(self) -> dict[str, float]:
        """The figures under the official names.

        A set with base and novel classes has AP, bAP, nAP, each with 50, 75, s, m, l; a set of
        base (novel) classes only has bAP (nAP) with all of these, and AP; one without a split has
        AP with all of these.
        """
        figures = {
            f"{PREFIXES[group]}{metric}": self.groups[group][metric]
            for group in self.shown_groups
            for metric in METRICS
        }
        figures.setdefault("AP", self.groups["all"]["AP"])
        return figures

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values, with what the figures mean."""
        return {
            "dataset": self.dataset,
            "protocol": f"{PROTOCOL}; -100: undefined, no ground truth",
            "evaluator": f"pycocotools {importlib.metadata.version('pycocotools')}",
            "num_images": self.num_images,
            "num_objects": self.num_objects,
            "num_detections": self.num_detections,
            "num_classes": self.group_sizes,
            "results": self.results,
            "summary": self.groups,
            "per_class_AP": self.per_class,
        }


def evaluate_coco(
    ground_truth: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    dataset: str,
    class_names: Sequence[str],
    category_ids: Sequence[int],
    base_classes: Collection[str] = (),
    novel_classes: Collection[str] = (),
    image_ids: Collection[ImageId] | None = None,
) -> Evaluation:
    """Judge detections as the official evaluator does.

    Args:
        ground_truth: COCO annotations (`images`, `annotations`, `categories`), other classes and
            all. Not changed.
        rows: Detections; those of other classes than `class_names` are left out.
        dataset: Name of the test set.
        class_names: The test set's classes, and
        category_ids: their ids in the ground truth, in the same order.
        base_classes: Names of the whole data set's base classes.
        novel_classes: And of its novel classes; without any there is no split to report.
        image_ids: Judge these images only (both ground truth and rows); None for all.

    Raises:
        InputError: If there are no images, or a row is wrong or of an unknown image or category.
    """
    known = {entry["id"] for entry in ground_truth["categories"]} | set(category_ids)
    images = {entry["id"]: entry for entry in ground_truth["images"]}
    if len({isinstance(identity, str) for identity in images}) != 1:
        raise InputError(f"{dataset}: the ground truth has no images, or mixes kinds of image ids")
    check_rows(rows, source=f"{dataset} detections", image_ids=images, category_ids=known)
    wanted = set(images) if image_ids is None else set(image_ids) & set(images)
    if not wanted:
        raise InputError(f"{dataset}: none of the images asked for is in the ground truth")
    classes = set(category_ids)

    objects = _annotations(ground_truth["annotations"], classes, wanted, dataset)
    detections = _annotations(rows, classes, wanted, dataset)
    for entry in detections:
        entry.update(area=entry["bbox"][2] * entry["bbox"][3], iscrowd=0)
    ordered = sorted(classes)
    table = {
        "images": [images[identity] for identity in images if identity in wanted],
        "categories": [{"id": identity} for identity in ordered],
    }
    logger.info("judging %d detections on %d images of %s", len(detections), len(wanted), dataset)
    accumulated = _accumulate(table, objects, detections, ordered)
    members = _group_members(class_names, category_ids, base_classes, novel_classes)
    groups, lines = {}, {}
    for group, identities in members.items():
        columns = [ordered.index(identity) for identity in identities]
        groups[group], lines[group] = _summarize(accumulated, columns)
    per_class = {
        name: _class_ap(accumulated.eval["precision"], ordered.index(identity))
        for name, identity in zip(class_names, category_ids)
    }
    counted = sum(not (entry["iscrowd"] or entry.get("difficult")) for entry in objects)
    sizes = {group: len(identities) for group, identities in members.items()}
    return Evaluation(
        dataset, len(wanted), counted, len(detections), groups, sizes, lines, per_class
    )


def per_category_table(per_class: Mapping[str, float], columns: int = 3) -> str:
    """Return `| category | AP | category | AP | category | AP |`, percent; n/a if undefined."""
    cells = [(name, _figure(value)) for name, value in per_class.items()]
    rows = [sum(cells[i : i + columns], ()) for i in range(0, len(cells), columns)]
    width = min(columns, max(1, len(cells)))
    return str(
        tabulate(
            rows,
            headers=["category", "AP"] * width,
            tablefmt="pipe",
            stralign="left",
            disable_numparse=True,
        )
    )


def report(evaluation: Evaluation) -> str:
    """Return everything as text: what was judged and how, the COCO lines, the tables."""
    ev = evaluation
    parts = [
        f"{ev.dataset}: {ev.num_images} images, {ev.num_objects} objects, "
        f"{ev.num_detections} detections"
    ]
    for group in ev.shown_groups:
        kind = "" if group == "all" else f"{group} "
        parts.append(f"COCO figures over the {ev.group_sizes[group]} {kind}classes (fractions):")
        parts.append(ev.lines[group])
    parts.append(f"{PROTOCOL} (n/a: no ground truth):")
    parts.append(_group_table(ev))
    parts.append(f"AP of each class ({PROTOCOL}):")
    parts.append(per_category_table(ev.per_class))
    return "\n".join(parts)


def write_evaluation(path: str | os.PathLike[str], evaluation: Evaluation) -> None:
    """Write the figures as JSON, atomically."""
    write_json(path, evaluation.to_json())


class _Evaluator(COCOeval):  # type: ignore[misc]
    """COCOeval that knows VOC's difficult objects: ignored, but matched by their plain IoU."""

    def _prepare(self) -> None:
        super()._prepare()
        for entries in self._gts.values():
            for entry in entries:
                if entry.get("difficult"):
                    entry["ignore"] = 1


def _annotations(
    entries: Iterable[Mapping[str, Any]],
    category_ids: Collection[int],
    image_ids: Collection[ImageId],
    dataset: str,
) -> list[Row]:
    """Copy the entries of some classes and images, and number them from 1.

    Numbers of their own, because pycocotools takes an object with id 0 for no object.
    """
    try:
        return [
            {"iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3], **entry, "id": number}
            for number, entry in enumerate(entries, start=1)
            if entry["category_id"] in category_ids and entry["image_id"] in image_ids
        ]
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"{dataset}: an annotation of the ground truth lacks its image_id, category_id or "
            f"bbox of four numbers ({type(error).__name__}: {error})"
        ) from error


def _accumulate(
    table: Mapping[str, Any], objects: list[Row], detections: list[Row], category_ids: list[int]
) -> _Evaluator:
    with contextlib.redirect_stdout(io.StringIO()) as chatter:
        sides = []
        for entries in (objects, detections):
            side = COCO()
            side.dataset = {**table, "annotations": entries}
            side.createIndex()
            sides.append(side)
        evaluator = _Evaluator(sides[0], sides[1], "bbox")
        evaluator.params.catIds = category_ids
        evaluator.evaluate()
        evaluator.accumulate()
    logger.debug("%s", chatter.getvalue())
    return evaluator


def _summarize(accumulated: _Evaluator, columns: list[int]) -> tuple[dict[str, float], str]:
    """Let pycocotools sum up some of the classes: its twelve figures (percent), its lines."""
    summary = COCOeval(iouType="bbox")
    summary.params = accumulated.params
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


def _group_members(
    class_names: Sequence[str],
    category_ids: Sequence[int],
    base_classes: Collection[str],
    novel_classes: Collection[str],
) -> dict[str, list[int]]:
    members = {"all": list(category_ids)}
    for group, names in (("base", base_classes), ("novel", novel_classes)):
        found = [i for name, i in zip(class_names, category_ids) if name in names]
        if found and novel_classes:
            members[group] = found
    return members


def _group_table(evaluation: Evaluation) -> str:
    rows = []
    for group in evaluation.shown_groups:
        figures = [_figure(evaluation.groups[group][metric]) for metric in METRICS]
        size = evaluation.group_sizes[group]
        kind = f"all {size}" if group == "all" else f"{size} {group}"
        rows.append([f"{PREFIXES[group]}AP ({kind} classes)", *figures])
    headers = ["classes", *METRICS]
    return str(tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True))


def _figure(value: float) -> str:
    return "n/a" if value == UNDEFINED else f"{value:.3f}"
