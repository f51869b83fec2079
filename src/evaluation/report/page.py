# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""An evaluation as a folder that a browser shows: one page, plots, sorted pictures, tables.

Everything is in the folder and nothing refers to the network, so it may be copied anywhere:

    index.html   per_class.csv   pictures.csv   confusion.csv   forgotten.csv   report.json
    plots/*.svg   pictures/{ok,missed,false}/*.jpg

A picture counts as *missed* if an object in it is missed, as *false* if a detection in it is, and
lies in both folders if both happen; else it is *ok*. For this each class keeps the detections from
its best score threshold on, and for the confusion of classes too. What fine-tuning cost the base
classes (forgotten.csv) is there if an earlier evaluation is given.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import ImageColor

from src.data.transforms import decode, to_bgr
from src.defrcn.built_datacategory import DatasetInfo, Record
from src.defrcn.picture_file import PILLOW_MAX_PIXELS
from src.evaluation.detection_rows import Row
from src.evaluation.figures import COLUMNS, MEANING, PREFIXES, UNDEFINED, Evaluation
from src.evaluation.report import plots as report_plots
from src.evaluation.report.analysis import Analysis, Finding, Picture, analyse, class_rows, to_csv
from src.evaluation.report.confusion import BACKGROUND, GROUPS, MISSED, Confusion, confuse
from src.evaluation.report.forgotten import Before, Forgotten, compare
from src.evaluation.result_folder import new_results
from src.evaluation.visualize import Label, draw_at_viewing_size, write_picture
from src.model_utils.errors import InputError
from src.util import write_json, write_text

TEMPLATES = Path(__file__).resolve().parent / "templates"
# In the head of each page, and how a folder is recognised that may be written again.
MARK = '<meta name="generator" content="defrcn evaluation report">'
KINDS = ("ok", "missed", "false")
# Pairs of classes in the list of confusions, and up to how many classes the matrix is open.
MAX_PAIRS, MAX_OPEN_CLASSES = 15, 25
# Of outcomes, red first.
COLOURS = {"hit": report_plots.HIT, "false": report_plots.FALSE, "missed": report_plots.MISSED}


@dataclass(frozen=True)
class Shown:
    """A picture of the gallery: its file relative to the page, name, kind, counts of outcomes."""

    path: str
    name: str
    kind: str
    hits: int
    missed: int
    false: int


def write_report(
    folder: str | Path,
    evaluation: Evaluation,
    info: DatasetInfo,
    ground_truth: Mapping[str, Any],
    records: Sequence[Record],
    rows: Sequence[Row],
    *,
    source: str = "",
    before: Before | None = None,
    max_pictures: int = 24,
    max_pixels: int = PILLOW_MAX_PIXELS,
) -> Path:
    """Write the page and everything on it.

    Args:
        folder: Where; new, empty, or with an earlier page, which is replaced.
        evaluation: The figures.
        info: The test set, its classes filled in.
        ground_truth: COCO annotations that the figures are of.
        records: The test set's images with their files.
        rows: The detections.
        source: Where the detections come from, such as the checkpoint's name; shown.
        before: The base detector's evaluation, to show what fine-tuning cost the base classes.
        max_pictures: Drawn of each kind; `pictures.csv` lists all.
        max_pixels: Larger images are refused, as in evaluation.

    Returns:
        The page's file.

    Raises:
        InputError: If the folder holds something else, or an image cannot be read.
    """
    place = Path(folder)
    check_free(place)
    analysis = analyse(info, ground_truth, rows)
    pictures = analysis.at_best_thresholds()
    files = {record.image_id: record.file_name for record in records}
    table = class_rows(analysis, evaluation)
    confusion = confuse(analysis.classes, pictures)
    forgotten = None if before is None else compare(before, evaluation, info)
    with new_results(place) as results:
        write_text(results.folder / "per_class.csv", to_csv(table))
        write_text(results.folder / "pictures.csv", to_csv(_picture_rows(pictures, files)))
        _write_comparisons(results.folder, confusion, forgotten)
        _write_plots(results.folder / "plots", analysis)
        shown = _write_pictures(
            results.folder, pictures, files, info.class_names, max_pictures, max_pixels
        )
        page = page_environment().get_template("report.html.j2")
        text = page.render(
            mark=MARK,
            ev=evaluation,
            meaning=MEANING[evaluation.metric],
            source=source,
            columns=COLUMNS[evaluation.metric],
            figures=_group_figures(evaluation),
            table=table,
            classes=analysis.classes,
            confusion=_confusion_view(confusion),
            forgotten=forgotten,
            shown=shown,
            kinds=KINDS,
            counts={kind: sum(kind in one.kinds for one in pictures) for kind in KINDS},
            colours=COLOURS,
        )
        write_text(results.folder / "index.html", text)
        results.publish()
    return place / "index.html"


def check_free(folder: Path, mark: str = MARK, what: str = "the report") -> None:
    """Refuse a folder that holds something else than an earlier page.

    Args:
        folder: Where the page shall be.
        mark: In the head of a page that may be written again.
        what: The page, for the message.

    Raises:
        InputError: it does.
    """
    if not folder.exists():
        return
    page = folder / "index.html"
    old = page.is_file() and mark in page.read_text(encoding="utf-8", errors="replace")
    if not old and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder} holds other files; name a new or empty folder for {what}")


def page_environment(*folders: Path) -> Environment:
    """What renders pages: text is escaped, a missing value is an error.

    Args:
        folders: Of further templates; those of the report (`style.css.j2`) can be included.
    """
    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["signed"] = _signed
    return environment


def _number(value: float | None, digits: int = 1) -> str:
    """A figure for the page; a dash if it is not defined."""
    return "–" if value is None or value == UNDEFINED else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    """A difference for the page, with its sign; one that rounds to nothing has none."""
    if value is None:
        return _number(value)
    text = f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
    return "0.0" if text[1:] == "0.0" else text


def _group_figures(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The rows of the page's first table: official name, classes, figures."""
    return [
        {
            "group": group,
            "prefix": PREFIXES[group],
            "classes": evaluation.classes_of(group),
            "values": [evaluation.groups[group][name] for name in COLUMNS[evaluation.metric]],
        }
        for group in evaluation.shown_groups
    ]


def _confusion_view(confusion: Confusion) -> dict[str, Any]:
    """What the page shows of the confusion: rows of counts with their shares."""
    groups = confusion.by_group()
    objects, detected = (*confusion.names, BACKGROUND), (*confusion.names, MISSED)
    return {
        "columns": detected,
        "rows": _matrix_rows(objects, confusion.counts, confusion.shares),
        "open": len(confusion.names) <= MAX_OPEN_CLASSES,
        "pairs": confusion.largest(MAX_PAIRS),
        "mistaken": confusion.mistaken,
        "false": int(confusion.counts[-1].sum()),
        "repeated": confusion.repeated,
        "group_columns": (*GROUPS, MISSED),
        "groups": groups and _matrix_rows((*GROUPS, BACKGROUND), groups.counts, groups.shares),
        "right": groups and groups.right,
    }


def _matrix_rows(
    names: Sequence[str], counts: np.ndarray, shares: np.ndarray
) -> list[dict[str, Any]]:
    return [
        {"name": name, "total": sum(row), "cells": list(zip(row, part))}
        for name, row, part in zip(names, counts.tolist(), shares.tolist())
    ]


def _write_comparisons(folder: Path, confusion: Confusion, forgotten: Forgotten | None) -> None:
    write_text(folder / "confusion.csv", confusion.to_csv())
    if forgotten is not None:
        write_text(folder / "forgotten.csv", to_csv(forgotten.rows))
    both = {
        "confusion": confusion.to_json(),
        "forgotten": None if forgotten is None else forgotten.to_json(),
    }
    write_json(folder / "report.json", both)


def _picture_rows(pictures: Sequence[Picture], files: Mapping[Any, str]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": one.image_id,
            "file": Path(files[one.image_id]).name if one.image_id in files else "",
            "kind": "+".join(one.kinds),
            "found": one.count("found"),
            "missed": one.count("missed"),
            "false": one.count("false"),
        }
        for one in pictures
    ]


def _write_plots(folder: Path, analysis: Analysis) -> None:
    """Write each plot for light and for dark pages."""
    plots = {
        "curves": report_plots.curves_plot(analysis.classes),
        "scores": report_plots.histogram_plot(analysis.classes),
    }
    for index, one in enumerate(analysis.classes):
        plots[f"class_{index:03d}"] = report_plots.class_plot(one)
    for name, svg in plots.items():
        write_text(folder / f"{name}.svg", svg)
        write_text(folder / f"{name}.dark.svg", report_plots.dark(svg))


def _chosen(pictures: Sequence[Picture], kind: str, number: int) -> list[Picture]:
    """The most telling pictures of a kind first: most objects, most missed, most certain errors."""
    members = [one for one in pictures if kind in one.kinds]
    if kind == "false":
        return sorted(members, key=lambda one: -_worst(one))[:number]
    outcome = "missed" if kind == "missed" else "found"
    return sorted(members, key=lambda one: -one.count(outcome))[:number]


def _worst(picture: Picture) -> float:
    return max((one.score for one in picture.detections if one.outcome == "false"), default=0.0)


def _write_pictures(
    folder: Path,
    pictures: Sequence[Picture],
    files: Mapping[Any, str],
    class_names: Sequence[str],
    number: int,
    max_pixels: int,
) -> list[Shown]:
    shown = []
    drawn: dict[Any, Path] = {}
    for kind in KINDS:
        for place, picture in enumerate(_chosen(pictures, kind, number)):
            source = Path(files[picture.image_id])
            name = f"{place:03d}_{re.sub(r'[^A-Za-z0-9._-]', '_', source.stem)}.jpg"
            target = folder / "pictures" / kind / name
            if picture.image_id in drawn:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(drawn[picture.image_id], target)
            else:
                image = to_bgr(decode(source.read_bytes(), str(source), max_pixels))
                labels = picture_labels(picture, class_names)
                write_picture(target, draw_at_viewing_size(image, labels))
                drawn[picture.image_id] = target
            counts = [picture.count(outcome) for outcome in ("hit", "missed", "false")]
            shown.append(Shown(f"pictures/{kind}/{name}", source.name, kind, *counts))
    return shown


def picture_labels(picture: Picture, class_names: Sequence[str]) -> list[Label]:
    """What to draw: detections solid, missed objects dashed, ignored ones faint; best last."""

    def label(one: Finding, text: str) -> Label:
        faint, dashed = one.outcome == "ignored", one.outcome == "missed"
        red, green, blue = ImageColor.getrgb(COLOURS.get(one.outcome, "#969696"))[:3]
        return Label(one.bbox, one.class_index, text, faint, dashed, (blue, green, red))

    labels = [
        label(one, f"{class_names[one.class_index]} ({one.outcome})")
        for one in picture.objects
        if one.outcome != "found"
    ]
    for one in sorted(picture.detections, key=lambda one: one.score):
        note = " false" if one.outcome == "false" else ""
        labels.append(label(one, f"{class_names[one.class_index]} {one.score:.2f}{note}"))
    return labels
