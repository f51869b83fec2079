# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Detections on pictures of one's own: collected, drawn, written as JSON and for labelling tools.

Boxes are in the picture's pixels after its EXIF orientation, continuous, without +1.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from src.evaluation.detection_rows import Row, detections_to_rows
from src.evaluation.visualize import (
    GAP,
    PAPER,
    contact_sheet,
    detection_labels,
    draw_at_viewing_size,
    draw_labels,
    write_picture,
)
from src.predict.formats import write_formats
from src.util import listing, write_json

logger = logging.getLogger(__name__)

FORMAT = "defrcn-predictions"
BOXES = (
    "pixels of the picture after its EXIF orientation, (0, 0) its upper left corner; bbox_xyxy: "
    "left, top, right, bottom; bbox_xywh: left, top, width, height, as COCO has it"
)
SHEET_PICTURES = 8


@dataclass
class Predictions:
    """What was found so far.

    Attributes:
        folder: where results go.
        class_names: names by class index.
        category_ids: ids by class index.
        threshold: detections with a lower score are left out.
        pictures: name of the folder that the pictures' names are relative to.
        head: what the JSON file says beside detections, the checkpoint among it.
        entries: an entry a picture or frame.
        problems: file and reason of what could not be read.
        counts: detections by class name.
        panels: drawn pictures for the sheet.
    """

    folder: Path
    class_names: Sequence[str]
    category_ids: Sequence[int]
    threshold: float
    pictures: str
    head: Mapping[str, Any]
    entries: list[dict[str, Any]] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    panels: list[np.ndarray] = field(default_factory=list)

    def rows(self, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> list[Row]:
        """The detections that count as COCO rows, best first.

        Args:
            boxes: (D, 4) float32 (x1, y1, x2, y2).
            scores: (D,) float32.
            classes: (D,) integer class index.
        """
        order = np.argsort(-np.asarray(scores), kind="stable")
        chosen = order[np.asarray(scores)[order] >= np.float32(self.threshold)]
        return detections_to_rows(
            0, boxes[chosen], scores[chosen], classes[chosen], self.category_ids
        )

    def add(self, place: Mapping[str, Any], pixels: np.ndarray, rows: Sequence[Row]) -> None:
        """Record a picture.

        Args:
            place: `file`, or `frame` and `seconds`, and whatever else is to be said of it.
            pixels: (H, W, 3), the picture.
            rows: see `rows`.
        """
        names = dict(zip(self.category_ids, self.class_names))
        detections = []
        for row in rows:
            label = names[row["category_id"]]
            x, y, width, height = row["bbox"]
            detections.append(
                {
                    "label": label,
                    "category_id": row["category_id"],
                    "score": row["score"],
                    "bbox_xyxy": [x, y, x + width, y + height],
                    "bbox_xywh": row["bbox"],
                }
            )
            self.counts[label] += 1
        height, width = pixels.shape[:2]
        self.entries.append({**place, "width": width, "height": height, "detections": detections})

    def draw(self, pixels: np.ndarray, rows: Sequence[Row], *, resized: bool) -> np.ndarray:
        """Draw detections on (H, W, 3) uint8 blue-first pixels.

        Args:
            pixels: the picture.
            rows: see `rows`.
            resized: bring it to a size at which labels can be read.
        """
        labels = detection_labels(rows, self.class_names, self.category_ids, self.threshold)
        draw = draw_at_viewing_size if resized else draw_labels
        return draw(pixels, labels)

    def draw_picture(self, name: str, pixels: np.ndarray, rows: Sequence[Row]) -> str:
        """Write a drawn picture as `pictures/NAME.png`; return that path within the folder."""
        # with the suffix: a folder may hold both a.jpg and a.png
        relative = f"pictures/{name}.png"
        drawn = self.draw(pixels, rows, resized=True)
        write_picture(self.folder / relative, drawn)
        if rows and len(self.panels) < SHEET_PICTURES:
            edge = ((GAP, GAP), (GAP, GAP), (0, 0))
            self.panels.append(np.pad(drawn, edge, constant_values=PAPER[0]))
        return relative

    def problem(self, name: str, reason: str) -> None:
        """Record a file that could not be used."""
        self.problems.append({"file": name, "reason": reason})

    def leave_out(self, name: str, reason: str) -> None:
        """Record and log a picture that is left out."""
        logger.warning("left out: %s", reason)
        self.problem(name, reason)

    def write(self, kind: str, *, complete: bool) -> Path:
        """Write `detections.json`, and `sheet.png` of the first pictures with detections.

        For pictures also the files of `src.predict.formats`.

        Args:
            kind: "images" or "frames", the name of the list.
            complete: false if the run was ended early.
        """
        path = self.folder / "detections.json"
        content = {
            "format": FORMAT,
            **self.head,
            "classes": [
                {"label": name, "category_id": identity}
                for name, identity in zip(self.class_names, self.category_ids)
            ],
            "score_threshold": self.threshold,
            "boxes": BOXES,
            "complete": complete,
            "problems": self.problems,
            kind: self.entries,
        }
        write_json(path, content)
        if kind == "images":
            self._write_formats()
        if self.panels:
            write_picture(self.folder / "sheet.png", contact_sheet(self.panels))
        return path

    def _write_formats(self) -> None:
        classes = dict(zip(self.category_ids, self.class_names))
        version = str(self.head["checkpoint"])
        shared = write_formats(self.folder, self.entries, classes, self.pictures, version)
        if shared:
            logger.warning(
                "no file of labels in yolo/labels for %s: names that differ only in their suffix "
                "would share one",
                listing(shared),
            )

    def table(self) -> str:
        """Detections of each class that was found, most first."""
        rows = [(name, str(count)) for name, count in self.counts.most_common()]
        if not rows:
            return f"nothing found with a score of {self.threshold:g} or more"
        rows.insert(0, ("class", "detections"))
        width, other = (max(map(len, column)) for column in zip(*rows))
        lines = [f"| {name:{width}} | {count:{other}} |" for name, count in rows]
        lines.insert(1, f"|:{'-' * (width + 1)}|:{'-' * (other + 1)}|")
        return "\n".join(lines)
