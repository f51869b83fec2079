# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The boxes of a data set as arrays: counts, sizes in both frames, boxes that look wrong.

A K-shot set of PASCAL VOC has a record for each object; here a picture is a file, so that its
objects come together again. A box is *usable* as training has it: no crowd, and with an area
inside its picture. Letters: P pictures, N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from src.data.transforms import resized_shape, to_xyxy
from src.defrcn.data_types import DatasetInfo, Record

BORDER = 1.0  # pixels of the image frame that a box may cross the border by, unreported
LEAST_SIDE = 1.0  # pixels of the model frame
MOST_AREA = 0.95  # of the picture's
MOST_ASPECT = 20.0  # longer side over shorter one
REACH = 2.0  # times the largest anchor, or this part of the smallest: then IoU is 1/4 at most

# What is said of boxes of each kind.
SUSPICIOUS = {
    "no_area": "without area inside the picture",
    "outside": f"beyond the border of the picture by more than {BORDER:g} pixel",
    "tiny": f"with a side below {LEAST_SIDE:g} pixel as the network sees them",
    "whole_picture": f"of more than {100 * MOST_AREA:g} % of the picture",
    "extreme_aspect": f"more than {MOST_ASPECT:g} times as long as wide",
    "twice": "that repeat a box of the same class",
    "two_classes": "that lie exactly on one of another class",
    "out_of_reach": f"more than {REACH:g} times larger or smaller than every anchor",
}


@dataclass(frozen=True)
class BoxSet:
    """A data set as arrays.

    Attributes:
        part: "train" or "test".
        info: the set.
        records: as they were read.
        files: P pictures, in the order in which they first come.
        sizes: (P, 2) int64 height and width, pixels.
        corners: (N, 4) float64 (x1, y1, x2, y2), image frame.
        classes: (N,) int64.
        pictures: (N,) int64, index into `files`.
        crowd: (N,) bool.
        difficult: (N,) bool.
    """

    part: str
    info: DatasetInfo
    records: tuple[Record, ...]
    files: tuple[str, ...]
    sizes: np.ndarray
    corners: np.ndarray
    classes: np.ndarray
    pictures: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray

    @cached_property
    def clipped(self) -> np.ndarray:
        """(N, 4): the corners inside the picture."""
        limits = np.tile(self.sizes[self.pictures][:, ::-1], 2)
        return np.clip(self.corners, 0.0, limits)

    @cached_property
    def usable(self) -> np.ndarray:
        """(N,) bool: what is trained on."""
        sides = self.clipped[:, 2:] - self.clipped[:, :2]
        return np.asarray(~self.crowd & (sides > 0).all(axis=1))

    @cached_property
    def empty(self) -> np.ndarray:
        """(P,) bool: pictures without a usable box."""
        return np.bincount(self.pictures[self.usable], minlength=len(self.files)) == 0

    def group(self, name: str) -> str:
        """Of a class: "base", "novel", or "" where there is no such split."""
        if not self.info.novel_classes:
            return ""
        return "novel" if name in self.info.novel_classes else "base"

    def shown(self, picture: int) -> str:
        """A picture's name below the set's image folder, else its last part."""
        path = Path(self.files[picture])
        inside = path.is_relative_to(self.info.image_root)
        return path.relative_to(self.info.image_root).as_posix() if inside else path.name

    def described(self, box: int) -> str:
        """A box for a reader: file, class, corners."""
        x1, y1, x2, y2 = (f"{value:.6g}" for value in self.corners[box])
        name = self.info.class_names[self.classes[box]]
        return f"{self.shown(self.pictures[box])}: {name} ({x1}, {y1}, {x2}, {y2})"


def gather(part: str, info: DatasetInfo, records: Sequence[Record]) -> BoxSet:
    """Records as arrays."""
    places: dict[str, int] = {}
    sizes, rows, corners = [], [], []
    for record in records:
        if record.file_name not in places:
            places[record.file_name] = len(places)
            sizes.append((record.height, record.width))
        for one in record.annotations:
            corners.append(to_xyxy(one.bbox, one.bbox_mode))
            rows.append(
                (places[record.file_name], one.category_id, bool(one.iscrowd), bool(one.difficult))
            )
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return BoxSet(
        part,
        info,
        tuple(records),
        tuple(places),
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
        np.array(corners, dtype=np.float64).reshape(-1, 4),
        table[:, 1],
        table[:, 0],
        table[:, 2].astype(bool),
        table[:, 3].astype(bool),
    )


def resized(sizes: np.ndarray, short_edge: int, max_size: int) -> np.ndarray:
    """(P, 2) heights and widths after resizing."""
    different, where = np.unique(sizes, axis=0, return_inverse=True)
    new = [resized_shape(int(h), int(w), short_edge, max_size) for h, w in different]
    return np.array(new, dtype=np.int64).reshape(-1, 2)[where.reshape(-1)]


def model_sides(boxes: BoxSet, short_edge: int, max_size: int) -> np.ndarray:
    """(N, 2) widths and heights inside the picture, in pixels of the model frame; at least 0."""
    ratio = (resized(boxes.sizes, short_edge, max_size) / boxes.sizes)[boxes.pictures][:, ::-1]
    return np.maximum(boxes.clipped[:, 2:] - boxes.clipped[:, :2], 0.0) * ratio


def mean_scale(sides: Sequence[np.ndarray]) -> np.ndarray:
    """(N,) square root of each box's area, the mean over the short edges; pixels.

    Args:
        sides: `model_sides` at each short edge.
    """
    return np.asarray(np.mean([np.sqrt(one.prod(axis=1)) for one in sides], axis=0))


def class_table(boxes: BoxSet, sides: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """For each class its boxes, pictures, and quantiles of `mean_scale`.

    Args:
        boxes: the set.
        sides: `model_sides` at each short edge.
    """
    scale = mean_scale(sides)
    rows = []
    for index, name in enumerate(boxes.info.class_names):
        own = boxes.classes == index
        used = own & boxes.usable
        quantiles = np.quantile(scale[used], (0.05, 0.5, 0.95)) if used.any() else (None,) * 3
        rows.append(
            {
                "class": name,
                "group": boxes.group(name),
                "boxes": int(used.sum()),
                "pictures": len(np.unique(boxes.pictures[used])),
                "crowd": int((own & boxes.crowd).sum()),
                "difficult": int((used & boxes.difficult).sum()),
                "not_usable": int((own & ~boxes.crowd & ~boxes.usable).sum()),
                **{
                    key: None if value is None else round(float(value), 1)
                    for key, value in zip(("size_5", "size_median", "size_95"), quantiles)
                },
            }
        )
    return rows


def suspicious(
    boxes: BoxSet, sides: Sequence[np.ndarray], anchor_sizes: Sequence[float]
) -> dict[str, np.ndarray]:
    """Boxes that look wrong, crowds left out: for each kind of `SUSPICIOUS` their indices.

    Args:
        boxes: the set.
        sides: `model_sides` at each short edge; a box is too small or large only if it is so at
            every one of them.
        anchor_sizes: square roots of areas, model frame.
    """
    height, width = boxes.sizes[boxes.pictures].T
    plain, used = ~boxes.crowd, boxes.usable
    over = np.maximum(-boxes.corners[:, :2], boxes.corners[:, 2:] - np.stack((width, height), 1))
    inner = boxes.clipped[:, 2:] - boxes.clipped[:, :2]
    largest = np.maximum.reduce([one.min(axis=1) for one in sides])
    scales = [np.sqrt(one.prod(axis=1)) for one in sides]
    above, below = np.minimum.reduce(scales), np.maximum.reduce(scales)
    far = (above > REACH * max(anchor_sizes)) | (below < min(anchor_sizes) / REACH)
    longer, shorter = inner.max(axis=1), np.maximum(inner.min(axis=1), 1e-12)
    twice, two_classes = _repeated(boxes)
    masks = {
        "no_area": plain & ~used,
        "outside": used & (over > BORDER).any(axis=1),
        "tiny": used & (largest < LEAST_SIDE),
        "whole_picture": used & (inner.prod(axis=1) > MOST_AREA * height * width),
        "extreme_aspect": used & (longer / shorter > MOST_ASPECT),
        "twice": twice,
        "two_classes": two_classes,
        "out_of_reach": used & far,
    }
    return {kind: np.flatnonzero(masks[kind]) for kind in SUSPICIOUS}


def _repeated(boxes: BoxSet) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool each: repetitions of an earlier box of the same class; of another class only.

    Boxes are the same if they agree to a hundredth of a pixel.
    """
    plain = np.flatnonzero(boxes.usable)
    place = np.concatenate(
        (boxes.pictures[plain, None], np.rint(boxes.corners[plain] * 100).astype(np.int64)), axis=1
    )
    with_class = np.concatenate((place, boxes.classes[plain, None]), axis=1)
    again = np.ones((2, len(plain)), bool)
    for row, keys in enumerate((with_class, place)):
        again[row, np.unique(keys, axis=0, return_index=True)[1]] = False
    masks = np.zeros((2, len(boxes.classes)), bool)
    masks[:, plain] = again[0], again[1] & ~again[0]
    return masks[0], masks[1]
