# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A K-shot set beside the full set that it is drawn from: counts, sizes, objects without a box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.model_utils.set_names import split_shots
from src.tools.data_check.boxes import BoxSet, mean_scale, model_sides

UNLIKELY = 0.01  # chance of K boxes that are all so small, or all so large


def full_names(name: str) -> tuple[str, ...]:
    """The full sets that a K-shot set's pictures are of: both years of PASCAL VOC."""
    found = split_shots(name)
    full = found[0] if found else name
    if full.startswith("voc_20"):
        return tuple(f"voc_{year}{full[8:]}" for year in ("2007", "2012"))
    return (full,)


def coverage(
    shots: BoxSet, full: Sequence[BoxSet], short_edges: Sequence[int], max_size: int, problem: str
) -> dict[str, Any]:
    """What a K-shot set has of each class, and what the full sets say beside it.

    Args:
        shots: the K-shot set.
        full: the sets that `full_names` names, of the same classes; empty if they cannot be read.
        short_edges: that are trained with.
        max_size: limit of the long edge.
        problem: why the full sets cannot be read, or "".
    """
    wanted = shots.info.few_shot.shot if shots.info.few_shot else 0
    there = _there(full, shots.files)
    rows = []
    for index, name in enumerate(shots.info.class_names):
        own = _scales([shots], index, short_edges, max_size)
        all_of = _scales(full, index, short_edges, max_size)
        boxes = int((shots.usable & (shots.classes == index)).sum())
        side, chance = unlikely_side(own, all_of)
        rows.append(
            {
                "class": name,
                "group": shots.group(name),
                "wanted": wanted,
                "boxes": boxes,
                "pictures": len(np.unique(shots.pictures[shots.usable & (shots.classes == index)])),
                "size_median": _median(own),
                "full_boxes": len(all_of) if full else None,
                "full_median": _median(all_of),
                "unlikely": side if chance < UNLIKELY else "",
                "chance": round(chance, 6),
                # the same box may be listed twice, so that there are more than the full set has
                "without_box": max(there.get(index, 0) - boxes, 0) if full else None,
            }
        )
    return {
        "set": shots.info.name,
        "shots": wanted,
        "full_sets": [one.info.name for one in full],
        "full_problem": problem,
        "classes": rows,
    }


def _there(full: Sequence[BoxSet], pictures: Sequence[str]) -> Mapping[int, int]:
    """Usable boxes of each class that the full sets have in these pictures.

    They are told by their paths; where none is the same, such as of a copy, by their names.
    """
    wanted, files = {*pictures}, {path for one in full for path in one.files}
    by_path = not wanted.isdisjoint(files)
    names = {Path(path).name for path in pictures}
    counts: dict[int, int] = {}
    for one in full:
        chosen = np.array(
            [path in wanted if by_path else Path(path).name in names for path in one.files], bool
        )
        inside = one.usable & chosen[one.pictures]
        for index in one.classes[inside].tolist():
            counts[index] = counts.get(index, 0) + 1
    return counts


def _scales(
    sets: Sequence[BoxSet], index: int, short_edges: Sequence[int], max_size: int
) -> np.ndarray:
    """`mean_scale` of each usable box of a class."""
    found = [np.zeros(0)]
    for one in sets:
        own = one.usable & (one.classes == index)
        found.append(mean_scale([model_sides(one, edge, max_size) for edge in short_edges])[own])
    return np.concatenate(found)


def unlikely_side(few: np.ndarray, many: np.ndarray) -> tuple[str, float]:
    """Whether boxes are all small or all large, and how rarely chance draws them so.

    The chance that all of K boxes are at most as large as the largest of `few` is the share of
    `many` that are, to the power of K; the same for the smallest.

    Returns:
        "small" or "large", whichever is rarer, and its chance; 1 without boxes.
    """
    if not len(few) or not len(many):
        return "small", 1.0
    small = float((many <= few.max()).mean()) ** len(few)
    large = float((many >= few.min()).mean()) ** len(few)
    return ("small", small) if small <= large else ("large", large)


def _median(values: np.ndarray) -> float | None:
    return round(float(np.median(values)), 1) if len(values) else None
