# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What objects are taken for: a matrix over the classes and the background, and over the groups.

It continues the matching of `analysis`, so that its sums are those of the page's other tables:

1. Each class keeps the detections from its best threshold on, as for the pictures (0.5 for a class
   without hits). Detections on crowds and difficult objects of their class are left out, and these
   objects too.
2. Own class first: an object that a detection of its class hits is on the diagonal, whatever other
   classes are detected there.
3. Then the false detections of all classes together, the most certain first (of equal scores the
   one whose class has the lower category id, then the earlier row): each takes the object with the
   largest IoU, of at least 0.5, among those still free, that is missed by their class and not taken
   by another false detection. So an object is taken for one class at most.
4. A free object that nothing took is missed; a false detection that took nothing is one of the
   background. Some of these lie on an object that is taken already: they are counted apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.evaluation.report.analysis import (
    IOU_THRESHOLD,
    ClassAnalysis,
    Finding,
    Picture,
    overlaps,
)
from src.util import csv_text

BACKGROUND, MISSED = "background", "missed"
GROUPS = ("base", "novel")


@dataclass(frozen=True)
class Confusion:
    """How often an object of one class was detected as another.

    Attributes:
        names: The K classes.
        groups: "base" or "novel" for each of them; "" where there is no such split.
        counts: (K + 1, K + 1) int64. Rows: class of the object, the last one for false detections
            of the background. Columns: class of the detection, the last one for missed objects.
            The diagonal is what was recognised; its last entry is 0, for nothing can be counted.
        repeated: Of the detections of the background, those that overlap a taken object with an
            IoU of at least 0.5.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    counts: np.ndarray
    repeated: int

    @property
    def shares(self) -> np.ndarray:
        """Each count as a share of its row: (K + 1, K + 1) float64; 0 in a row of nothing."""
        return _shares(self.counts)

    @property
    def mistaken(self) -> int:
        """Objects that were taken for another class."""
        inner = self.counts[:-1, :-1]
        return int(inner.sum() - inner.trace())

    def largest(self, number: int) -> list[dict[str, Any]]:
        """The most frequent confusions of two classes, of equal ones the one with most of its row.

        Returns:
            At most `number` rows: object, detected, their groups, count, share of the object's row.
        """
        wrong = self.counts[:-1, :-1].copy()
        np.fill_diagonal(wrong, 0)
        pairs = [(int(row), int(column)) for row, column in np.argwhere(wrong)]
        shares = self.shares
        pairs.sort(key=lambda pair: (-wrong[pair], -shares[pair], pair))
        return [
            {
                "object": self.names[row],
                "object_group": self.groups[row],
                "detected": self.names[column],
                "detected_group": self.groups[column],
                "count": int(wrong[row, column]),
                "share": float(shares[row, column]),
            }
            for row, column in pairs[:number]
        ]

    def by_group(self) -> GroupConfusion | None:
        """The same between base, novel and background; None unless there are both."""
        if not set(GROUPS) <= set(self.groups):
            return None
        place = np.array([*map(GROUPS.index, self.groups), len(GROUPS)])
        counts = np.zeros((len(GROUPS) + 1, len(GROUPS) + 1), np.int64)
        np.add.at(counts, (place[:, None], place[None, :]), self.counts)
        right = np.bincount(place[:-1], weights=self.counts.diagonal()[:-1], minlength=len(GROUPS))
        return GroupConfusion(counts, tuple(map(int, right)))

    def to_csv(self) -> str:
        """The matrix with a head line, classes in rows and columns."""
        table: list[list[object]] = self.counts.tolist()
        table[-1][-1] = ""
        rows = [[name, *row] for name, row in zip((*self.names, BACKGROUND), table)]
        return csv_text(("object", *self.names, MISSED), rows)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        groups = self.by_group()
        return {
            "objects": [*self.names, BACKGROUND],
            "detected": [*self.names, MISSED],
            "counts": self.counts.tolist(),
            "repeated": self.repeated,
            "groups": None if groups is None else groups.to_json(),
        }


@dataclass(frozen=True)
class GroupConfusion:
    """Counts between base, novel and background.

    Attributes:
        counts: (3, 3) int64, rows and columns as in `Confusion`.
        right: Of the counts of base as base and of novel as novel, those of the very class.
    """

    counts: np.ndarray
    right: tuple[int, ...]

    @property
    def shares(self) -> np.ndarray:
        """Each count as a share of its row: (3, 3) float64; 0 in a row of nothing."""
        return _shares(self.counts)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "objects": [*GROUPS, BACKGROUND],
            "detected": [*GROUPS, MISSED],
            "counts": self.counts.tolist(),
            "shares": self.shares.tolist(),
            "right_class": dict(zip(GROUPS, self.right)),
        }


def confuse(classes: Sequence[ClassAnalysis], pictures: Iterable[Picture]) -> Confusion:
    """Count what objects are taken for; the rules stand at the top of this file.

    Args:
        classes: Of the analysis.
        pictures: With the detections that count, as `Analysis.at_best_thresholds` gives them.
    """
    counts = np.zeros((len(classes) + 1, len(classes) + 1), np.int64)
    repeated = sum(_count(picture, counts) for picture in pictures)
    names, groups = (one.name for one in classes), (one.group for one in classes)
    return Confusion(tuple(names), tuple(groups), counts, repeated)


def _count(picture: Picture, counts: np.ndarray) -> int:
    """Add a picture to the counts; the number of detections that repeat an object is returned."""
    objects = [one for one in picture.objects if one.outcome != "ignored"]
    false = [one for one in picture.detections if one.outcome == "false"]
    false.sort(key=lambda one: -one.score)  # stable, so that equal scores keep their order
    free = np.array([one.outcome == "missed" for one in objects], bool)
    repeated = 0
    for one in objects:
        if one.outcome == "found":
            counts[one.class_index, one.class_index] += 1
    for one, shared in zip(false, overlaps(*map(_entries, (false, objects)))):
        close = shared >= IOU_THRESHOLD
        row = -1  # the background's, unless an object is free
        if (close & free).any():
            owner = int(np.where(free, shared, -1.0).argmax())
            free[owner] = False
            row = objects[owner].class_index
        else:
            repeated += bool(close.any())
        counts[row, one.class_index] += 1
    for one, still in zip(objects, free):
        counts[one.class_index, -1] += still
    return repeated


def _entries(findings: Iterable[Finding]) -> list[Mapping[str, Any]]:
    """Findings as `overlaps` takes them; none of them is a crowd."""
    return [
        {"bbox": (x1, y1, x2 - x1, y2 - y1), "iscrowd": False}
        for x1, y1, x2, y2 in (one.bbox for one in findings)
    ]


def _shares(counts: np.ndarray) -> np.ndarray:
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
