# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What every evaluator has in common: which entries count, the figures' names, tables, JSON.

No model and no MindSpore here: everything takes plain values, so that a result file of any origin
is judged the same. Rows and ground truth are those of `src.evaluation.detection_rows`.

All figures are percentages; -100 stands for "undefined: no ground truth", as official results do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.defrcn.data_types import DatasetInfo
from src.evaluation.detection_rows import ImageId, Row, check_rows
from src.model_utils.errors import InputError
from src.util import pipe_table

UNDEFINED = -100.0
# The 12 COCO figures in pycocotools' order, and the three of VOC.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
RECALLS = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
VOC_METRICS = ("AP", "AP50", "AP75")
CLASSES_A_ROW = 3  # of the table of classes
# Prefix of a group's figures in the official results: AP, bAP, nAP.
PREFIXES = {"all": "", "base": "b", "novel": "n"}
# What AP means with each metric.
MEANING = {
    "coco": "COCO box AP in percent, IoU 0.50:0.95, at most 100 detections an image and class",
    "voc07": "VOC 2007 box AP in percent (11 points), IoU 0.50:0.95, difficult objects ignored",
    "voc12": "VOC 2012 box AP in percent (every point), IoU 0.50:0.95, difficult objects ignored",
}
COLUMNS = {"coco": METRICS, "voc07": VOC_METRICS, "voc12": VOC_METRICS}


@dataclass(frozen=True)
class Evaluation:
    """What one set of detections is worth.

    Attributes:
        dataset: Name of the test set.
        metric: "coco", "voc07" or "voc12": a key of `MEANING`.
        evaluator: The program that computed the figures, with its version.
        num_images: Images judged, those without objects and without detections included.
        num_objects: Ground truth of the set's classes, crowds and difficult ones left out.
        num_detections: Rows of the set's classes.
        groups: For "all", and for "base" and "novel" where the data set has that split and the
            test set has such classes: the metric's figures by name, percent.
        group_sizes: Classes in each group.
        lines: With COCO's metric, for each group, pycocotools' own twelve lines (fractions).
        per_class: AP of each class in the set's order, percent.
        per_class_ap50: And AP at IoU 0.5.
        per_class_objects: And the number of its objects, counted as for `num_objects`.
        pcb: Whether the scores were calibrated by PCB; None: not known.
    """

    dataset: str
    metric: str
    evaluator: str
    num_images: int
    num_objects: int
    num_detections: int
    groups: dict[str, dict[str, float]]
    group_sizes: dict[str, int]
    lines: dict[str, str]
    per_class: dict[str, float]
    per_class_ap50: dict[str, float]
    per_class_objects: dict[str, int]
    pcb: bool | None = None

    @property
    def shown_groups(self) -> list[str]:
        """The groups worth a line: not "all" if it is the same as "base" or as "novel"."""
        parts = [group for group in ("base", "novel") if group in self.groups]
        return parts if len(parts) == 1 else ["all", *parts]

    @property
    def results(self) -> dict[str, float]:
        """The figures under the official names.

        With COCO's metric, a set with base and novel classes has AP, bAP, nAP, each with 50, 75,
        s, m, l; a set of base (novel) classes only has bAP (nAP) with all of these, and AP; one
        without a split has AP with all of these. With VOC's metric every set has AP, AP50, AP75,
        and the same of its base and of its novel classes.
        """
        figures = {
            f"{PREFIXES[group]}{metric}": self.groups[group][metric]
            for group in self.shown_groups
            for metric in COLUMNS[self.metric]
        }
        always = ("AP",) if self.metric == "coco" else VOC_METRICS
        return {**{metric: self.groups["all"][metric] for metric in always}, **figures}

    @property
    def setting(self) -> str:
        """The protocol in the literature's words, with the number of classes."""
        shown = self.shown_groups
        if len(shown) > 1:
            return f"gfsod ({self.group_sizes['base']} base and {self.classes_of('novel')})"
        if shown == ["all"]:
            return f"{self.classes_of('all')}, no split into base and novel ones"
        name = "fsod" if shown == ["novel"] else "base training"
        return f"{name} ({self.classes_of(shown[0])} only)"

    def classes_of(self, group: str) -> str:
        """How many classes a group has, in words."""
        count = self.group_sizes[group]
        kind = "" if group == "all" else f"{group} "
        return f"{'all ' if group == 'all' else ''}{count} {kind}class{'es' * (count != 1)}"

    @property
    def calibration(self) -> str:
        """Whether the scores are those of the detector or calibrated ones."""
        return {None: "", True: "with PCB", False: "without PCB"}[self.pcb]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values, with what the figures mean."""
        return {
            "dataset": self.dataset,
            "metric": self.metric,
            "protocol": f"{MEANING[self.metric]}; {self.setting}; "
            + ("-100: undefined, no ground truth" if self.metric == "coco" else NO_OBJECTS),
            "pcb": self.pcb,
            "evaluator": self.evaluator,
            "num_images": self.num_images,
            "num_objects": self.num_objects,
            "num_detections": self.num_detections,
            "num_classes": self.group_sizes,
            "results": self.results,
            "summary": self.groups,
            "per_class_AP": self.per_class,
            "per_class_AP50": self.per_class_ap50,
            "per_class_objects": self.per_class_objects,
        }


NO_OBJECTS = "a class without objects has AP 0, as officially"


@dataclass(frozen=True)
class Selection:
    """What is judged: `images` in the ground truth's order, objects and detections of the classes.

    Entries are copies with `iscrowd`, `area` and an `id` from 1 on.
    """

    images: list[dict[str, Any]]
    objects: list[Row]
    detections: list[Row]

    @property
    def num_objects(self) -> int:
        """Objects that count as missed if they are not found."""
        return sum(self.objects_by_category.values())

    @property
    def objects_by_category(self) -> Counter[int]:
        """And how many of them each category has; 0 for one without."""
        return Counter(entry["category_id"] for entry in self.objects if not is_ignored(entry))


def is_ignored(entry: Mapping[str, Any]) -> bool:
    """Whether an object counts neither as missed nor, when found, as wrong."""
    return bool(entry["iscrowd"] or entry.get("difficult"))


def select(
    ground_truth: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    dataset: str,
    category_ids: Sequence[int],
) -> Selection:
    """Check detections against the ground truth and keep what is to be judged.

    Args:
        ground_truth: COCO annotations (`images`, `annotations`, `categories`), other classes and
            all. Not changed.
        rows: Detections; those of other classes than `category_ids` are left out.
        dataset: Name of the test set, for messages.
        category_ids: The test set's classes.

    Raises:
        InputError: If there are no images, or a row is wrong or of an unknown image or category.
    """
    known = {entry["id"] for entry in ground_truth["categories"]} | set(category_ids)
    images = {entry["id"]: entry for entry in ground_truth["images"]}
    if len({isinstance(identity, str) for identity in images}) != 1:
        raise InputError(f"{dataset}: the ground truth has no images, or mixes kinds of image ids")
    check_rows(rows, source=f"{dataset} detections", image_ids=images, category_ids=known)
    classes = set(category_ids)
    objects = _annotations(ground_truth["annotations"], classes, images, dataset)
    detections = _annotations(rows, classes, images, dataset)
    for entry in detections:
        entry.update(area=entry["bbox"][2] * entry["bbox"][3], iscrowd=0)
    return Selection(list(images.values()), objects, detections)


def group_members(info: DatasetInfo) -> dict[str, list[int]]:
    """Class indices of "all", and of "base" and "novel" where there is such a split."""
    members = {"all": list(range(len(info.class_names)))}
    for group, names in (("base", info.base_classes), ("novel", info.novel_classes)):
        indices = [index for index, name in enumerate(info.class_names) if name in names]
        if indices and info.novel_classes:
            members[group] = indices
    return members


def per_category_table(per_class: Mapping[str, float], per_class_ap50: Mapping[str, float]) -> str:
    """Return `| category | AP | AP50 | category | AP | AP50 | ...`, percent; n/a if undefined."""
    cells = [
        (name, figure(value), figure(per_class_ap50[name])) for name, value in per_class.items()
    ]
    rows = [sum(cells[i : i + CLASSES_A_ROW], ()) for i in range(0, len(cells), CLASSES_A_ROW)]
    headers = ["category", "AP", "AP50"] * min(CLASSES_A_ROW, max(1, len(cells)))
    return pipe_table(rows, headers)


def report(evaluation: Evaluation) -> str:
    """Return everything as text: what was judged and how, the COCO lines, the tables."""
    ev = evaluation
    calibrated = f", {ev.calibration}" if ev.calibration else ""
    undefined = "n/a: no ground truth" if ev.metric == "coco" else NO_OBJECTS
    meaning = f"{MEANING[ev.metric]}; {ev.setting}{calibrated}"
    parts = [
        f"{ev.dataset}: {ev.num_images} images, {ev.num_objects} objects, "
        f"{ev.num_detections} detections; {ev.setting}{calibrated}"
    ]
    for group in ev.shown_groups:
        if group in ev.lines:
            parts.append(
                f"COCO figures over {ev.classes_of(group)} (fractions); {ev.setting}{calibrated}:"
            )
            parts.append(ev.lines[group])
    parts.append(f"{meaning} ({undefined}):")
    parts.append(_group_table(ev))
    parts.append(f"AP and AP50 of each class ({meaning}):")
    parts.append(per_category_table(ev.per_class, ev.per_class_ap50))
    return "\n".join(parts)


def figure(value: float) -> str:
    """A percentage as text."""
    return "n/a" if value == UNDEFINED else f"{value:.3f}"


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


def _group_table(evaluation: Evaluation) -> str:
    columns = COLUMNS[evaluation.metric]
    rows = []
    for group in evaluation.shown_groups:
        figures = [figure(evaluation.groups[group][metric]) for metric in columns]
        rows.append([f"{PREFIXES[group]}AP ({evaluation.classes_of(group)})", *figures])
    headers = ["classes", *columns]
    return pipe_table(rows, headers)
