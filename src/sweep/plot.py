# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The figure of a sweep: the metric over shots, with intervals, beside the reported lines."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from src.sweep.paper_figures import PROTOCOLS
from src.sweep.table import SOURCES, RunFigures, Sweep, summaries
from src.util import atomic_path

OURS = "#1f5fa8"
PAPER = "#d1495b"
REPOSITORY = "#8a8f98"
BESIDE = 0.05  # single runs stand to the right of their mean, or its bar would hide them


def plot(path: str | os.PathLike[str], runs: Sequence[RunFigures], sweep: Sweep) -> None:
    """Draw the mean with its t interval, every run as a dot, and the paper; write a PNG.

    Shots stand at equal distances. Where the paper has figures, the official repository's are a
    second line. A shot with one run has no interval.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = summaries(runs, lambda run: run.results, sweep.metric)
    lines = {source: sweep.reported(source) for source in SOURCES}
    shots = sorted({*found, *(shot for line in lines.values() for shot in line)})
    place = {shot: float(index) for index, shot in enumerate(shots)}
    figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for source, colour, style in (("repository", REPOSITORY, ":"), ("paper", PAPER, "--")):
        if line := lines[source]:
            axes.plot(
                [place[shot] for shot in line],
                list(line.values()),
                style,
                color=colour,
                marker="s",
                ms=4,
                label=f"{source} ({PROTOCOLS[sweep.setting]}-like)",
            )
    defined = [run for run in runs if run.results.get(sweep.metric, -1) >= 0]
    axes.scatter(
        [place[run.shot] + BESIDE for run in defined],
        [run.results[sweep.metric] for run in defined],
        s=18,
        color=OURS,
        alpha=0.5,
        linewidths=0,
        zorder=2,
        label=f"single runs ({len(defined)})",
    )
    means = {shot: one for shot, one in found.items() if one.count}
    halves = [0.0 if math.isnan(one.t_half) else one.t_half for one in means.values()]
    axes.errorbar(
        [place[shot] for shot in means],
        [one.mean for one in means.values()],
        yerr=halves,
        color=OURS,
        marker="o",
        ms=6,
        lw=1.8,
        capsize=4,
        zorder=3,
        label=f"this sweep ({sweep.protocol}-like), mean and 95 % t interval",
    )
    axes.set_xticks(list(place.values()), [str(shot) for shot in shots])
    axes.set(
        xlim=(-0.4, len(shots) - 0.6),
        ylim=(0, None),
        xlabel="shots (objects of a class)",
        ylabel=f"{sweep.metric} (%)",
        title=sweep.title,
    )
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": ""})
