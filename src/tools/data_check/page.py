# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The page of a data check: a folder that a browser shows, complete and without the network.

    index.html   check.json   sheets/SET_CLASS.jpg

Names of files and classes are foreign text: on the page they are escaped, and no file is called
after them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.data.transforms import decode, to_bgr
from src.evaluation.report.page import page_environment
from src.evaluation.result_folder import new_results
from src.evaluation.visualize import (
    contact_sheet,
    draw_at_viewing_size,
    ground_truth_labels,
    write_picture,
)
from src.tools.data_check.boxes import SUSPICIOUS, BoxSet
from src.tools.data_check.pictures import spread
from src.util import read_regular, write_json, write_text

TEMPLATES = Path(__file__).resolve().parent / "templates"
# In the head of each page, and how a folder is recognised that may be written again.
MARK = '<meta name="generator" content="defrcn data check">'
SHOWN_ITEMS = 20  # files of a finding; check.json has all
_WIDTH, _HEIGHT = 480, 130  # of a plot
_SHEET_COLUMNS, _SHEET_CELL = 4, 420  # pixels a picture


def chosen_pictures(boxes: BoxSet, number: int) -> list[list[int]]:
    """For each class up to `number` of its pictures, evenly spread."""
    found = []
    for index in range(len(boxes.info.class_names)):
        own = np.unique(boxes.pictures[boxes.usable & (boxes.classes == index)])
        found.append([int(own[place]) for place in spread(len(own), number)])
    return found


def write_page(
    folder: Path,
    check: Mapping[str, Any],
    sets: Sequence[BoxSet],
    chosen: Sequence[Sequence[Sequence[int]]],
    max_pixels: int,
) -> Path:
    """Write the page and everything on it; it takes the place of an earlier one when it is whole.

    Args:
        folder: where; `check_free` was asked.
        check: what check.json holds.
        sets: in the order of `check["sets"]`.
        chosen: for each set and class the pictures to draw, none of which has a problem.
        max_pixels: larger pictures are refused.

    Returns:
        The page's file.
    """
    with new_results(folder) as results:
        sheets = [
            _write_sheets(results.folder / "sheets", number, *pair, max_pixels)
            for number, pair in enumerate(zip(sets, chosen))
        ]
        plots = [{"sizes": size_plot(one), "aspects": aspect_plot(one)} for one in check["sets"]]
        page = page_environment(TEMPLATES).get_template("check.html.j2")
        text = page.render(
            mark=MARK,
            check=check,
            sheets=sheets,
            plots=plots,
            kinds=SUSPICIOUS,
            most=SHOWN_ITEMS,
            width=_WIDTH,
            height=_HEIGHT,
        )
        write_text(results.folder / "index.html", text)
        write_json(results.folder / "check.json", check)
        results.publish()
    return folder / "index.html"


def _write_sheets(
    folder: Path, number: int, boxes: BoxSet, chosen: Sequence[Sequence[int]], max_pixels: int
) -> list[str]:
    """Draw a sheet for each class; return their names relative to the page, "" without pictures."""
    labels: dict[str, list[Any]] = {}
    for record in boxes.records:  # a picture of a K-shot set may have several
        found = labels.setdefault(record.file_name, [])
        found += ground_truth_labels(record, boxes.info.class_names)
    names = []
    for index, places in enumerate(chosen):
        panels = []
        for place in places:
            path = boxes.files[place]
            image = to_bgr(decode(read_regular(path), path, max_pixels))
            panels.append(draw_at_viewing_size(image, labels[path]))
        name = f"set{number}_class{index:03d}.jpg" if panels else ""
        if panels:
            sheet = contact_sheet(panels, columns=_SHEET_COLUMNS, width=_SHEET_CELL)
            write_picture(folder / name, sheet)
        names.append(f"sheets/{name}" if panels else "")
    return names


def size_plot(one: Mapping[str, Any]) -> dict[str, Any]:
    """What to draw of a set's box sizes beside the anchors'."""
    fit = one["anchors"]
    chosen = fit["chosen"]["sizes"] if fit["chosen"] else []
    ticks = [2**power for power in range(-2, 14)]
    return _plot(one["sizes"], fit["sizes"], chosen, ticks, "px")


def aspect_plot(one: Mapping[str, Any]) -> dict[str, Any]:
    """What to draw of a set's aspect ratios beside the anchors'."""
    fit = one["anchors"]
    chosen = fit["chosen_ratios"]["ratios"] if fit["chosen_ratios"] else []
    ticks = [2.0**power for power in range(-6, 7)]
    return _plot(one["aspects"], fit["ratios"], chosen, ticks, "")


def _plot(
    histogram: Mapping[str, Sequence[float]],
    configured: Sequence[float],
    chosen: Sequence[float],
    ticks: Sequence[float],
    unit: str,
) -> dict[str, Any]:
    """Places of bars, marks and ticks on a logarithmic axis, in units of the drawing."""
    edges, counts = histogram["edges"], histogram["counts"]
    ends = [*edges[:1], *edges[-1:], *configured, *chosen]
    low, high = math.log(min(ends) / 1.1), math.log(max(ends) * 1.1)
    top = max(counts, default=1.0)

    def across(value: float) -> float:
        return round((math.log(value) - low) / (high - low) * _WIDTH, 1)

    return {
        "bars": [
            {
                "x": across(left),
                "width": round(max(across(right) - across(left) - 1, 1), 1),
                "height": round(count / top * _HEIGHT, 1),
                "title": f"{left:.3g} to {right:.3g}{' ' * bool(unit)}{unit}: {count:g} boxes",
            }
            for left, right, count in zip(edges, edges[1:], counts)
        ],
        "configured": [across(value) for value in configured],
        "chosen": [across(value) for value in chosen],
        "ticks": [
            {"x": across(value), "text": f"{value:g}"}
            for value in ticks
            if low <= math.log(value) <= high
        ],
    }
