# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What stands behind an AP: which detection hit what, curves, thresholds, pictures with faults.

Numbers only; `plots` and `page` draw them. A detection *hits* if it overlaps
an object of its class that no more certain detection has hit, with an IoU of at least 0.5; of
several the one with the largest IoU. One that overlaps only a crowd or a difficult object counts
neither as right nor as wrong. Any other is *false*. An object that no detection hits is *missed*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from src.defrcn.data_types import DatasetInfo
from src.evaluation.detection_rows import ImageId, Row
from src.evaluation.figures import UNDEFINED, Evaluation, is_ignored, select
from src.util import csv_text

IOU_THRESHOLD = 0.5
RECALLS = np.linspace(0.0, 1.0, 101)
# For a class without a single hit, for which no threshold is better than another.
FALLBACK_THRESHOLD = 0.5


@dataclass(frozen=True)
class Operating:
    """A class at one score threshold: what its detections from there on are worth."""

    threshold: float
    hits: int
    false: int
    missed: int

    @property
    def precision(self) -> float:
        """Share of right ones among the detections; 0 without any."""
        return self.hits / max(self.hits + self.false, 1)

    @property
    def recall(self) -> float:
        """Share of the objects that are hit; 0 without any."""
        return self.hits / max(self.hits + self.missed, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.hits / max(2 * self.hits + self.false + self.missed, 1)


@dataclass(frozen=True)
class ClassAnalysis:
    """One class.

    Attributes:
        name: Of the class.
        group: "base", "novel", or "" where there is no such split.
        num_objects: Objects to be found, crowds and difficult ones left out.
        scores: (D,) float64, falling, equal ones by image id; detections on crowds and difficult
            objects left out.
        hits: (D,) bool.
    """

    name: str
    group: str
    num_objects: int
    scores: np.ndarray
    hits: np.ndarray

    @property
    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Recall and precision after each detection, equal scores in the order that AP takes."""
        found = self.hits.cumsum()
        return found / max(self.num_objects, 1), found / np.arange(1, len(found) + 1)

    @property
    def f1_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Each different score, falling, and F1 with it as the threshold.

        Detections with equal scores come together, for no threshold lies between them.
        """
        last = np.flatnonzero(np.diff(self.scores, append=-np.inf) < 0)
        found = self.hits.cumsum()[last]
        return self.scores[last], 2 * found / np.maximum(last + 1 + self.num_objects, 1)

    @property
    def best(self) -> Operating | None:
        """The score threshold with the largest F1, of equal ones the highest; None without hits."""
        if not self.hits.any():
            return None
        thresholds, f1 = self.f1_curve
        return self.at(float(thresholds[f1.argmax()]))

    def at(self, threshold: float) -> Operating:
        """The class when detections below a score are dropped."""
        kept = self.hits[self.scores >= threshold]
        hits = int(kept.sum())
        return Operating(threshold, hits, len(kept) - hits, self.num_objects - hits)


@dataclass(frozen=True)
class Finding:
    """A detection or an object, and what became of it.

    `score` is a detection's own, and for an object that of the detection that hit it (0: none).
    """

    class_index: int
    bbox: tuple[float, float, float, float]
    score: float
    outcome: str


@dataclass
class Picture:
    """One image: detections ("hit", "false", "ignored"), objects ("found", "missed", "ignored")."""

    image_id: ImageId
    detections: list[Finding] = field(default_factory=list)
    objects: list[Finding] = field(default_factory=list)

    def count(self, outcome: str) -> int:
        """How many of its detections and objects came out so."""
        return sum(one.outcome == outcome for one in (*self.detections, *self.objects))

    @property
    def kinds(self) -> tuple[str, ...]:
        """("ok",) if all was found and nothing else; else "missed", "false", or both."""
        faults = tuple(kind for kind in ("missed", "false") if self.count(kind))
        return faults or ("ok",)


@dataclass(frozen=True)
class Analysis:
    """All classes in the test set's order, and all pictures in the ground truth's."""

    classes: tuple[ClassAnalysis, ...]
    pictures: tuple[Picture, ...]

    def at_best_thresholds(self) -> list[Picture]:
        """The pictures when each class keeps the detections from its best threshold on."""
        best = [one.best for one in self.classes]
        limits = [one.threshold if one else FALLBACK_THRESHOLD for one in best]
        return [_cut(picture, limits) for picture in self.pictures]


def analyse(info: DatasetInfo, ground_truth: Mapping[str, Any], rows: Sequence[Row]) -> Analysis:
    """Find out what every detection hits; see `detecteval.evaluate` for arguments and errors."""
    chosen = select(ground_truth, rows, dataset=info.name, category_ids=info.category_ids)
    index_of = {identity: index for index, identity in enumerate(info.category_ids)}
    pictures = {entry["id"]: Picture(entry["id"]) for entry in chosen.images}
    scored: list[list[tuple[float, str]]] = [[] for _ in info.class_names]
    counts = [0] * len(info.class_names)
    groups = _by_image_and_class(chosen.objects, chosen.detections)
    for (image_id, category), (objects, detections) in sorted(groups.items(), key=itemgetter(0)):
        found, truth = match(objects, detections)
        index, picture = index_of[category], pictures[image_id]
        picture.detections += [_finding(index, row, *what) for row, what in zip(detections, found)]
        picture.objects += [_finding(index, entry, *what) for entry, what in zip(objects, truth)]
        scored[index] += [what for what in found if what[1] != "ignored"]
        counts[index] += sum(outcome != "ignored" for _, outcome in truth)
    novel, base = info.novel_classes, info.base_classes if info.novel_classes else ()
    classes = []
    for name, entries, count in zip(info.class_names, scored, counts):
        group = "novel" if name in novel else "base" if name in base else ""
        scores = np.array([score for score, _ in entries], np.float64)
        hits = np.array([outcome == "hit" for _, outcome in entries], bool)
        order = np.argsort(-scores, kind="stable")
        classes.append(ClassAnalysis(name, group, count, scores[order], hits[order]))
    return Analysis(tuple(classes), tuple(pictures.values()))


def match(
    objects: Sequence[Mapping[str, Any]], detections: Sequence[Mapping[str, Any]]
) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
    """Match the detections of one class in one image with its objects.

    Returns:
        For each detection its score and "hit", "false" or "ignored"; for each object the score of
        its detection (0 without one) and "found", "missed" or "ignored".
    """
    ignored = np.array([is_ignored(entry) for entry in objects], bool)
    shared = overlaps(detections, objects)
    free = ~ignored
    found = [(row["score"], "false") for row in detections]
    truth = [(0.0, "ignored" if entry else "missed") for entry in ignored]
    for place in sorted(range(len(detections)), key=lambda place: -detections[place]["score"]):
        score = detections[place]["score"]
        candidates = np.where(free, shared[place], -1.0)
        if len(objects) and candidates.max() >= IOU_THRESHOLD:
            owner = int(candidates.argmax())
            free[owner] = False
            found[place], truth[owner] = (score, "hit"), (score, "found")
        elif (shared[place][ignored] >= IOU_THRESHOLD).any():
            found[place] = (score, "ignored")
    return found, truth


def overlaps(
    detections: Sequence[Mapping[str, Any]], objects: Sequence[Mapping[str, Any]]
) -> np.ndarray:
    """IoU (D, G) float64, continuous corners; with a crowd the detection's share that lies in it.

    Args:
        detections: D entries with `bbox` (x, y, width, height), pixels.
        objects: G such entries with `iscrowd`.
    """
    first, second = (
        np.array([entry["bbox"] for entry in side], np.float64).reshape(-1, 4)
        for side in (detections, objects)
    )
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(
        (first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None, :]
    )
    shared = np.maximum(high - low, 0.0).prod(axis=-1)
    areas = first[:, 2:].prod(axis=1)[:, None], second[:, 2:].prod(axis=1)[None, :]
    crowd = np.array([bool(entry["iscrowd"]) for entry in objects], bool)
    union = np.where(crowd, areas[0], areas[0] + areas[1] - shared)
    found: np.ndarray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return found


def interpolated(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Best precision at a recall of at least 0, 0.01, ... 1: (101,); its mean is COCO's AP50."""
    envelope = np.maximum.accumulate(np.append(precision, 0.0)[::-1])[::-1]
    values: np.ndarray = envelope[np.searchsorted(recall, RECALLS, side="left")]
    return values


def mean_curve(classes: Iterable[ClassAnalysis]) -> np.ndarray | None:
    """Mean of the interpolated curves of the classes with objects: (101,); None without any."""
    curves = [interpolated(*one.curve) for one in classes if one.num_objects]
    return np.mean(curves, axis=0) if curves else None


def histogram(classes: Iterable[ClassAnalysis], bins: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Number of hits and of false detections in equal steps of the score from 0 to 1."""
    hits, false = np.zeros(bins, int), np.zeros(bins, int)
    for one in classes:
        places = np.clip((one.scores * bins).astype(int), 0, bins - 1)
        hits += np.bincount(places[one.hits], minlength=bins)
        false += np.bincount(places[~one.hits], minlength=bins)
    return hits, false


def class_rows(analysis: Analysis, evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row a class for a table: AP in percent, the best threshold, and what it gives.

    Undefined values are None.
    """
    rows = []
    for one in analysis.classes:
        best = one.best
        ap, ap50 = evaluation.per_class[one.name], evaluation.per_class_ap50[one.name]
        rows.append(
            {
                "class": one.name,
                "group": one.group,
                "objects": one.num_objects,
                "detections": len(one.scores),
                "AP": None if ap == UNDEFINED else ap,
                "AP50": None if ap50 == UNDEFINED else ap50,
                "best_threshold": best.threshold if best else None,
                "F1": best.f1 if best else None,
                "precision": best.precision if best else None,
                "recall": best.recall if best else None,
                "hits": best.hits if best else 0,
                "false": best.false if best else 0,
                "missed": best.missed if best else one.num_objects,
                "mean_score_hits": _mean(one.scores[one.hits]),
                "mean_score_false": _mean(one.scores[~one.hits]),
            }
        )
    return rows


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a head line; numbers with 6 digits, None as nothing."""
    lines = [[f"{v:.6g}" if isinstance(v, float) else v for v in row.values()] for row in rows]
    return csv_text(rows[0] if rows else [], lines)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _finding(index: int, entry: Mapping[str, Any], score: float, outcome: str) -> Finding:
    x, y, width, height = entry["bbox"]
    return Finding(index, (x, y, x + width, y + height), score, outcome)


def _cut(picture: Picture, limits: Sequence[float]) -> Picture:
    """Drop a picture's weaker detections; an object that one of them hit is missed then.

    The more certain detections choose their objects first, so the rest need not be matched anew.
    """
    objects = [
        Finding(one.class_index, one.bbox, 0.0, "missed")
        if one.outcome == "found" and one.score < limits[one.class_index]
        else one
        for one in picture.objects
    ]
    kept = [one for one in picture.detections if one.score >= limits[one.class_index]]
    return Picture(picture.image_id, kept, objects)


def _by_image_and_class(
    objects: Iterable[Row], detections: Iterable[Row]
) -> dict[tuple[ImageId, int], tuple[list[Row], list[Row]]]:
    groups: dict[tuple[ImageId, int], tuple[list[Row], list[Row]]] = {}
    for side, entries in enumerate((objects, detections)):
        for entry in entries:
            key = (entry["image_id"], entry["category_id"])
            groups.setdefault(key, ([], []))[side].append(entry)
    return groups
