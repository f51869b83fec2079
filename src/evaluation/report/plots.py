# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Plots of an analysis as SVG text, in a light and a dark version.

Text stays text, backgrounds are transparent and nothing refers to the network, so that the page
shows them anywhere. The dark version is the light one with other colours for ink and grid.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from src.evaluation.report.analysis import (
    RECALLS,
    ClassAnalysis,
    histogram,
    interpolated,
    mean_curve,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours of outcomes, on the page, in plots and in pictures; told apart by the colour-blind too.
HIT, FALSE, MISSED = "#2f7fc1", "#e5722b", "#b8377f"
GROUP_COLOURS = {"all": "#5b6572", "base": "#2f7fc1", "novel": "#e5722b"}
INK, MUTED, GRID = "#1d2530", "#66707d", "#dde2e8"
DARK = {INK: "#e8ebef", MUTED: "#9aa5b3", GRID: "#36404d", "#5b6572": "#b3bcc8"}

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "semibold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
# Up to this number of classes, each has a thin line behind the means.
MAX_THIN_LINES = 20
BINS = 20
_TIGHT = {"borderpad": 0.2, "handlelength": 1.4, "columnspacing": 1.3, "fontsize": 8.5}


def curves_plot(classes: Sequence[ClassAnalysis]) -> str:
    """Best precision at each recall: the mean of each group, thin lines for the classes."""
    with _figure(5.6, 3.7) as figure:
        axes = figure.subplots()
        if len(classes) <= MAX_THIN_LINES:
            for one in classes:
                if one.num_objects and len(one.scores):
                    colour = GROUP_COLOURS[one.group or "all"]
                    line = interpolated(*one.curve)
                    axes.plot(RECALLS, line, color=colour, linewidth=0.8, alpha=0.4)
        for name, members in _groups(classes).items():
            curve = mean_curve(members)
            if curve is not None:
                label = f"{name} ({len(members)})"
                axes.plot(RECALLS, curve, color=GROUP_COLOURS[name], linewidth=2.4, label=label)
        _unit_square(axes, "recall", "precision")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=3, **_TIGHT)
        return _svg(figure)


def histogram_plot(classes: Sequence[ClassAnalysis]) -> str:
    """How certain hits and false detections are, all classes together."""
    with _figure(5.6, 3.7) as figure:
        axes = figure.subplots()
        _draw_histogram(axes, classes)
        return _svg(figure)


def class_plot(one: ClassAnalysis) -> str:
    """One class: precision over recall, certainty, F1 over the score threshold."""
    best = one.best
    with _figure(11.4, 3.1) as figure:
        curve, bars, threshold = figure.subplots(1, 3)
        if len(one.scores) and one.num_objects:
            curve.plot(*_stairs(one), color=HIT, linewidth=1.8)
        curve.set_title("Precision over recall")
        _unit_square(curve, "recall", "precision")
        _draw_histogram(bars, [one])
        bars.set_title("Scores")
        if len(one.scores) and one.num_objects:
            threshold.plot(*f1_steps(one), color=HIT, linewidth=1.8)
        title = "F1 over the score threshold"
        _unit_square(threshold, "score threshold", "F1")
        if best is not None:
            curve.plot([best.recall], [best.precision], "o", color=FALSE, markersize=6)
            threshold.plot([best.threshold], [best.f1], "o", color=FALSE, markersize=6)
            title = f"F1: {best.f1:.2f} with scores from {best.threshold:.2f} on"
        threshold.set_title(title)
        return _svg(figure)


def dark(svg: str) -> str:
    """Return a plot for dark backgrounds."""
    for light, other in DARK.items():
        svg = svg.replace(light, other)
    return svg


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """An empty figure, inches, and the style in force for it."""
    import matplotlib  # here, so that training and evaluation start without it
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def _groups(classes: Sequence[ClassAnalysis]) -> dict[str, list[ClassAnalysis]]:
    """The groups to draw; "all" only if it is not the same as one of the others."""
    parts = {
        name: members
        for name in ("base", "novel")
        if (members := [one for one in classes if one.group == name])
    }
    return parts if len(parts) == 1 else {"all": list(classes), **parts}


def _stairs(one: ClassAnalysis) -> tuple[np.ndarray, np.ndarray]:
    """The curve from recall 0 on."""
    recall, precision = one.curve
    return np.append(0.0, recall), np.append(precision[:1], precision)


def f1_steps(one: ClassAnalysis) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the line of F1 over the threshold, thresholds falling.

    F1 is that of a score for all thresholds from it down to the next score, the last one to 0
    (calibrated scores may be below 0).
    """
    scores, f1 = one.f1_curve
    return np.repeat(np.append(scores, min(0.0, scores[-1])), 2)[1:-1], np.repeat(f1, 2)


def _unit_square(axes: Any, across: str, up: str) -> None:  # noqa: ANN401 - matplotlib is untyped
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.04), xlabel=across, ylabel=up)


def _draw_histogram(axes: Any, classes: Sequence[ClassAnalysis]) -> None:  # noqa: ANN401
    hits, false = histogram(classes, BINS)
    left, width = np.arange(BINS) / BINS, 1 / BINS
    middle = left + width / 2
    axes.bar(middle, hits, width * 0.86, color=HIT, label=f"hits ({hits.sum()})")
    axes.bar(middle, false, width * 0.86, bottom=hits, color=FALSE, label=f"false ({false.sum()})")
    axes.set(xlim=(-0.01, 1.01), xlabel="score", ylabel="detections")
    axes.set_ylim(0, max(1.0, 1.06 * (hits + false).max()))
    # Above the axes, where no bar is.
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=2, **_TIGHT)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(visible=False, axis="x")


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    # No document type and no metadata: both name addresses on the network.
    text = re.sub(r"<!DOCTYPE[^>]*>|<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)
    return re.sub(r"\n\s*\n", "\n", text)
