# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""All that is found out about the sets of a configuration, as plain values: check.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.tools.data_check import anchors, duplicates
from src.tools.data_check.boxes import (
    BoxSet,
    class_table,
    model_sides,
    resized,
    suspicious,
)
from src.tools.data_check.pictures import Seen, file_problem

ODDITIES = ("grey", "deep", "rotated")
ENLARGED = 3.0  # times that a picture is enlarged for the network, from which on it is counted


@dataclass(frozen=True)
class Settings:
    """What the configuration says of pictures and anchors; pixels.

    Attributes:
        short_edges: for "train" and "test": `input.min_size_*`.
        max_sizes: for both: `input.max_size_*`.
        anchor_sizes: `model.anchors.sizes`.
        anchor_ratios: `model.anchors.aspect_ratios`, height / width.
        stride: `model.anchors.stride`.
        filter_empty: `data.filter_empty`.
        num_classes: `model.num_classes`.
    """

    short_edges: Mapping[str, tuple[int, ...]]
    max_sizes: Mapping[str, int]
    anchor_sizes: tuple[float, ...]
    anchor_ratios: tuple[float, ...]
    stride: int
    filter_empty: bool
    num_classes: int | None


def file_lengths(sets: Sequence[BoxSet]) -> tuple[dict[str, int], dict[str, str]]:
    """Bytes of every file that can be opened, and what is wrong with the others."""
    lengths, problems = {}, {}
    for path in dict.fromkeys(path for one in sets for path in one.files):
        length, problem = file_problem(path)
        if problem:
            problems[path] = problem
        else:
            lengths[path] = length
    return lengths, problems


def describe(
    boxes: BoxSet, settings: Settings, seen: Mapping[str, Seen], problems: Mapping[str, str]
) -> dict[str, Any]:
    """A set: counts, classes, sizes, anchors, what looks wrong.

    Args:
        boxes: the set.
        settings: of the configuration.
        seen: what was found in the pictures that were read.
        problems: pictures that cannot be used, with the reason.
    """
    edges, max_size = settings.short_edges[boxes.part], settings.max_sizes[boxes.part]
    sides = [model_sides(boxes, edge, max_size) for edge in edges]
    used = [one[boxes.usable] for one in sides]
    together = np.concatenate(used)
    odd = suspicious(boxes, sides, settings.anchor_sizes)
    looked = [place for place, path in enumerate(boxes.files) if path in seen]
    return {
        "name": boxes.info.name,
        "part": boxes.part,
        "split": boxes.info.split if boxes.info.novel_classes else "all",
        "few_shot": boxes.info.few_shot is not None,
        "pictures": len(boxes.files),
        "pictures_read": len(looked),
        "pictures_left_out": sum(path not in seen and path not in problems for path in boxes.files),
        "boxes": int(boxes.usable.sum()),
        "crowd": int(boxes.crowd.sum()),
        "pictures_without_boxes": int(boxes.empty.sum()),
        "drops_them": settings.filter_empty and boxes.part == "train",
        "short_edges": list(edges),
        "max_size": max_size,
        "classes": class_table(boxes, sides),
        "sizes": anchors.log_histogram(np.sqrt(together.prod(axis=1)), 1 / len(edges)),
        "aspects": anchors.log_histogram(together[:, 1] / together[:, 0], 1 / len(edges)),
        "anchors": anchors.anchor_fit(together, settings.anchor_sizes, settings.anchor_ratios),
        "picture_sizes": _picture_sizes(boxes, edges, max_size),
        "oddities": {
            kind: [
                boxes.shown(place) for place in looked if kind in seen[boxes.files[place]].oddities
            ]
            for kind in ODDITIES
        },
        "problems": [
            f"{boxes.shown(place)}: {problems[path]}"
            for place, path in enumerate(boxes.files)
            if path in problems
        ],
        "suspicious": {
            kind: [boxes.described(box) for box in places.tolist()] for kind, places in odd.items()
        },
    }


def _picture_sizes(boxes: BoxSet, edges: Sequence[int], max_size: int) -> dict[str, Any]:
    """Short and long edges of the pictures as they are and as the network gets them."""
    if not len(boxes.sizes):
        return {"original": None, "resized": [], "most_common": [], "enlarged": 0}
    common = Counter(map(tuple, boxes.sizes.tolist())).most_common(5)
    resizes = []
    for edge in edges:
        after = resized(boxes.sizes, edge, max_size)
        resizes.append({"short_edge": edge, **_edges(after)})
    largest = resized(boxes.sizes, max(edges), max_size)
    factor = largest.min(axis=1) / boxes.sizes.min(axis=1)
    return {
        "original": _edges(boxes.sizes),
        "resized": resizes,
        "most_common": [
            {"width": width, "height": height, "pictures": count}
            for (height, width), count in common
        ],
        "enlarged": int((factor > ENLARGED).sum()),
    }


def _edges(sizes: np.ndarray) -> dict[str, list[int]]:
    """Least, median and largest of the short and of the long edge."""
    return {
        name: [int(np.quantile(values, share)) for share in (0, 0.5, 1)]
        for name, values in (("short", sizes.min(axis=1)), ("long", sizes.max(axis=1)))
    }


def find_duplicates(
    sets: Sequence[BoxSet], lengths: Mapping[str, int], seen: Mapping[str, Seen]
) -> dict[str, list[dict[str, Any]]]:
    """Groups of pictures that are the same file or the same picture.

    Returns:
        `same`: the same bytes, or one file in training and test; `near`: alike, though not all of
        the same bytes. Of each group its `pictures` (set and name), and whether it `leaks`: is in
        training and in test.
    """
    places: dict[str, list[tuple[BoxSet, int]]] = {}
    for one in sets:
        for place, path in enumerate(one.files):
            places.setdefault(path, []).append((one, place))
    same = duplicates.same_files(lengths)
    first = {path: group[0] for group in same for path in group}
    near = [
        group
        for group in duplicates.near_pictures(seen)
        if len({first.get(path, path) for path in group}) > 1
    ]
    known = {path for group in same for path in group}
    both = [
        [path]
        for path, found in places.items()
        if path not in known and len({one.part for one, _ in found}) > 1
    ]

    def group_of(paths: Sequence[str]) -> dict[str, Any]:
        found = [item for path in paths for item in places[path]]
        return {
            "leaks": len({one.part for one, _ in found}) > 1,
            "sets": list(dict.fromkeys(one.info.name for one, _ in found)),
            "pictures": [f"{one.info.name}: {one.shown(place)}" for one, place in found],
        }

    return {"same": [group_of(g) for g in (*both, *same)], "near": [group_of(g) for g in near]}
