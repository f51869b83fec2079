# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What fine-tuning cost the base classes: their AP before and after it.

*Before* is the evaluation of the base detector, as eval.py or `src.tools.report` left it in a
folder's `metrics.json`; *after* is the evaluation at hand. Classes are matched by name; AP is in
percent, by one metric on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.defrcn.data_types import DatasetInfo
from src.evaluation.figures import UNDEFINED, Evaluation
from src.model_utils.errors import InputError
from src.model_utils.paths import require_path
from src.util import listing, read_json

FILE = "metrics.json"
_ADVICE = "name the result folder of the base detector's evaluation"


@dataclass(frozen=True)
class Before:
    """An earlier evaluation.

    Attributes:
        folder: Name of the folder that it lies in.
        dataset: Name of its test set.
        metric: As in `Evaluation`.
        num_images: Images judged.
        per_class: AP by class, percent; -100: undefined.
        per_class_objects: Number of objects by class; empty in a file of an older version.
        pcb: Whether the scores were calibrated; None: not known.
    """

    folder: str
    dataset: str
    metric: str
    num_images: int
    per_class: Mapping[str, float]
    per_class_objects: Mapping[str, int]
    pcb: bool | None


@dataclass(frozen=True)
class Forgotten:
    """AP of the base classes before and after.

    Attributes:
        before: The earlier evaluation.
        rows: One a class, the largest loss first and undefined ones last: "class", "AP_before",
            "AP_after", "difference" (after - before), "objects_before", "objects_after", "in"
            ("both", "before" or "after": the evaluations that have the class). None: undefined.
        num_compared: Classes with an AP on both sides.
        mean_before: Mean of AP over these, percent; None without any.
        mean_after: The same after.
        warnings: Sentences about what makes the two hard to compare.
    """

    before: Before
    rows: tuple[dict[str, Any], ...]
    num_compared: int
    mean_before: float | None
    mean_after: float | None
    warnings: tuple[str, ...]

    @property
    def mean_difference(self) -> float | None:
        """Mean of the differences, points of percent; None without any."""
        if self.mean_before is None or self.mean_after is None:
            return None
        return self.mean_after - self.mean_before

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "before": {
                "folder": self.before.folder,
                "dataset": self.before.dataset,
                "num_images": self.before.num_images,
                "pcb": self.before.pcb,
            },
            "num_compared": self.num_compared,
            "mean_AP_before": self.mean_before,
            "mean_AP_after": self.mean_after,
            "mean_difference": self.mean_difference,
            "warnings": list(self.warnings),
            "classes": list(self.rows),
        }


def read_before(place: str | Path, key: str, info: DatasetInfo, metric: str) -> Before:
    """Read the earlier evaluation that belongs to a test set.

    Of several test sets in one file it is the one of the same name, else the only one that has
    some of the base classes.

    Args:
        place: Folder of the results, or, if these are of several test sets, that of one of them;
            or the file `metrics.json` itself.
        key: The flag or key that named it.
        info: The test set at hand, its classes filled in.
        metric: That it is judged by: "coco", "voc07" or "voc12".

    Raises:
        InputError: There is no such file, it is damaged, it has none of the base classes or leaves
            a choice, another metric judged it, or the test set has no base classes.
    """
    wanted = _base_classes(info)
    if not wanted:
        raise InputError(
            f"{key}: {info.name} has novel classes only, so that nothing can be forgotten; name a "
            f"test set with base classes in data.test, or leave {key} empty"
        )
    path, sets = _read(require_path(key, place, _ADVICE), key)
    known = [one for one in sets if wanted & set(one.per_class)]
    same = [one for one in known if one.dataset == info.name]
    if not known:
        raise InputError(
            f"{key}: {path} has none of the base classes of {info.name} "
            f"({listing(sorted(wanted))}); {_ADVICE}"
        )
    if len(known) > 1 and not same:
        raise InputError(
            f"{key}: {path} is of several test sets ({listing([one.dataset for one in known])}); "
            f"name the folder of one of them, such as {path.parent / known[0].dataset}"
        )
    found = (same or known)[0]
    if found.metric != metric:
        raise InputError(
            f"{key}: {path} has AP by the metric {found.metric}, {info.name} is judged by "
            f"{metric}; evaluate both with the same test.metric"
        )
    return found


def compare(before: Before, evaluation: Evaluation, info: DatasetInfo) -> Forgotten:
    """Hold the base classes of an evaluation against those of an earlier one.

    Without a split into base and novel classes all of them count.

    Args:
        before: Of `read_before`.
        evaluation: The figures at hand.
        info: Their test set, its classes filled in.
    """
    names = [name for name in info.class_names if name not in info.novel_classes]
    absent = [name for name in before.per_class if name not in info.class_names]
    names += [name for name in absent if name not in info.novel_classes]
    rows = [_row(name, before, evaluation) for name in names]
    compared = [row for row in rows if row["difference"] is not None]
    rows.sort(key=lambda row: math.inf if row["difference"] is None else row["difference"])
    return Forgotten(
        before=before,
        rows=tuple(rows),
        num_compared=len(compared),
        mean_before=_mean([row["AP_before"] for row in compared]),
        mean_after=_mean([row["AP_after"] for row in compared]),
        warnings=tuple(_warnings(rows, before, evaluation)),
    )


def _base_classes(info: DatasetInfo) -> set[str]:
    return set(info.class_names) - set(info.novel_classes)


def _row(name: str, before: Before, evaluation: Evaluation) -> dict[str, Any]:
    old, new = before.per_class.get(name), evaluation.per_class.get(name)
    where = "before" if new is None else "after" if old is None else "both"
    old, new = (None if value == UNDEFINED else value for value in (old, new))
    return {
        "class": name,
        "AP_before": old,
        "AP_after": new,
        "difference": None if old is None or new is None else new - old,
        "objects_before": before.per_class_objects.get(name),
        "objects_after": evaluation.per_class_objects.get(name),
        "in": where,
    }


def _warnings(rows: Sequence[Mapping[str, Any]], before: Before, after: Evaluation) -> list[str]:
    found = []
    if before.num_images != after.num_images:
        found.append(
            f"The test sets differ: {before.num_images} images before, {after.num_images} after."
        )
    other = [
        f"{row['class']} {row['objects_before']} before and {row['objects_after']} after"
        for row in rows
        if row["in"] == "both" and row["objects_before"] not in (None, row["objects_after"])
    ]
    if other:
        found.append(f"Classes with another number of objects: {listing(other)}.")
    if not before.per_class_objects:
        found.append(
            "The earlier evaluation does not say how many objects each class had, so that the test "
            "sets are compared by their number of images only."
        )
    for where, words in (("before", "the earlier evaluation"), ("after", "this one")):
        names = [row["class"] for row in rows if row["in"] == where]
        if names:
            found.append(f"Only in {words}, and not in the means: {listing(names)}.")
    return found


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _read(place: Path, key: str) -> tuple[Path, list[Before]]:
    """The file of figures at a place, and the test sets in it; a set's own folder has only that."""
    path, only = (place / FILE if place.is_dir() else place), ""
    if not path.is_file() and (place.parent / FILE).is_file():
        path, only = place.parent / FILE, place.name
    if not path.is_file():
        raise InputError(f"{key}: {place} has no {FILE}; {_ADVICE}")
    content = read_json(path, _ADVICE)
    if isinstance(content, dict) and "per_class_AP" in content:  # of src.tools.report
        content = {content.get("dataset"): content}
    folder = path.resolve().parent.name
    try:
        sets = [_before(folder, str(name), one) for name, one in content.items()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{key}: {path} is not what eval.py writes ({type(error).__name__}: {error}); {_ADVICE}"
        ) from error
    if only:
        sets = [one for one in sets if one.dataset == only]
    if not sets:
        raise InputError(f"{key}: {path} has no figures{only and f' of {only}'}; {_ADVICE}")
    return path, sets


def _before(folder: str, dataset: str, entry: Mapping[str, Any]) -> Before:
    """One test set of a file of figures."""
    per_class = {str(name): float(value) for name, value in entry["per_class_AP"].items()}
    if not all(map(math.isfinite, per_class.values())):
        raise ValueError(f"AP of {dataset} is not finite")
    objects = entry.get("per_class_objects", {})
    pcb = entry.get("pcb")
    return Before(
        folder=folder,
        dataset=dataset,
        metric=str(entry["metric"]),
        num_images=int(entry["num_images"]),
        per_class=per_class,
        per_class_objects={str(name): int(value) for name, value in objects.items()},
        pcb=pcb if isinstance(pcb, bool) else None,
    )
