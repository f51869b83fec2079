# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Figures of the benchmark on real photographs: means, paired differences, tables, a plot.

Everything is in percent. A K-shot set counts once: its runs share pictures and starting weights, so
what helped is judged by differences over the same sets, with a 95 % t interval of their mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from src.model_utils.errors import InputError
from src.model_utils.paths import CHECKPOINTS
from src.sweep.table import CONFIDENCE
from src.util import atomic_path, pipe_table
from src.weights.checkpoint import find_latest, read_manifest

SETTINGS = {"fsod": ("nAP", "nAP50"), "gfsod": ("nAP", "nAP50", "bAP", "bAP50")}
LOSSES = ("ce", "dcfs")


@dataclass(frozen=True)
class Result:
    """An evaluated run.

    Attributes:
        setting: "fsod" or "gfsod".
        loss: "ce" or "dcfs".
        calibrated: whether PCB was on.
        shot: K.
        seed: number of the K-shot set, and of the training.
        figures: percent by name, those of `SETTINGS`.
    """

    setting: str
    loss: str
    calibrated: bool
    shot: int
    seed: int
    figures: Mapping[str, float]

    @property
    def column(self) -> str:
        """What was done, in a few words."""
        return self.loss + (" + PCB" if self.calibrated else "")


def last_evaluation(run: Path) -> Path:
    """The folder of a training's evaluation after its last step.

    Raises:
        InputError: there is no checkpoint that says which step that is.
    """
    manifest = find_latest(run / CHECKPOINTS)
    if manifest is None:
        raise InputError(f"{run / CHECKPOINTS} holds no checkpoint; name a finished run")
    return run / f"eval_{read_manifest(manifest)['step']}"


def read_figures(path: Path, names: Iterable[str]) -> dict[str, float]:
    """The named figures of an evaluation's `metrics.json`, which is of one test set."""
    (entry,) = json.loads(path.read_text(encoding="utf-8")).values()
    found: Mapping[str, float] = entry["results"]
    return {name: found[name] for name in names}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half width of its 95 % t interval (NaN for fewer than two values)."""
    given = np.array(values, np.float64)
    if len(given) < 2:  # noqa: PLR2004
        return float(given.mean()) if len(given) else math.nan, math.nan
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(given) - 1))
    return float(given.mean()), quantile * float(given.std(ddof=1)) / math.sqrt(len(given))


def plain(values: Sequence[float]) -> str:
    """A mean with its interval."""
    mean, half = interval(values)
    if math.isnan(mean):
        return "n/a"
    return f"{mean:.2f}" + ("" if math.isnan(half) else f" ± {half:.2f}")


def signed(values: Sequence[float]) -> str:
    """A mean difference with its interval; in bold type if zero is outside of that."""
    mean, half = interval(values)
    if math.isnan(mean):
        return "n/a"
    text = f"{mean:+.2f}" + ("" if math.isnan(half) else f" ± {half:.2f}")
    return f"**{text}**" if abs(mean) > half else text


def shots_of(results: Iterable[Result]) -> list[int]:
    """The numbers of shots, in increasing order."""
    return sorted({one.shot for one in results})


def means_table(results: Sequence[Result], setting: str, figure: str) -> str:
    """A line a shot, a column for each loss without and with PCB: mean ± t interval."""
    mine = [one for one in results if one.setting == setting]
    columns = list(dict.fromkeys(one.column for one in mine))
    rows = []
    for shot in shots_of(mine):
        own = [one for one in mine if one.shot == shot]
        cells = [
            plain([one.figures[figure] for one in own if one.column == name]) for name in columns
        ]
        rows.append([str(shot), *cells])
    return pipe_table(rows, ["shots", *columns], ["right"] * (len(columns) + 1))


Side = tuple[str, bool]
"""A loss, and whether PCB is on."""

COMPARISONS: tuple[tuple[str, Side, Side], ...] = (
    ("dcfs - ce", ("dcfs", False), ("ce", False)),
    ("dcfs - ce, both with PCB", ("dcfs", True), ("ce", True)),
    ("PCB on - off, ce", ("ce", True), ("ce", False)),
    ("PCB on - off, dcfs", ("dcfs", True), ("dcfs", False)),
)


def differences(
    results: Iterable[Result], setting: str, figure: str, one: Side, other: Side
) -> dict[int, dict[int, float]]:
    """By shot and K-shot set: how much the first side has more; sets that lack one are left out."""
    values = {
        (run.loss, run.calibrated, run.shot, run.seed): run.figures[figure]
        for run in results
        if run.setting == setting
    }
    found: dict[int, dict[int, float]] = {}
    for loss, calibrated, shot, seed in values:
        if (loss, calibrated) == one and (*other, shot, seed) in values:
            more = values[(*one, shot, seed)] - values[(*other, shot, seed)]
            found.setdefault(shot, {})[seed] = more
    return found


def differences_table(results: Sequence[Result], setting: str, figure: str) -> str:
    """A line a comparison, a column a shot, and the mean over shots of each set of seeds."""
    shots = shots_of(one for one in results if one.setting == setting)
    rows = []
    for title, one, other in COMPARISONS:
        found = differences(results, setting, figure, one, other)
        if not found:
            continue
        whole = set.intersection(*(set(found.get(shot, {})) for shot in shots))
        over = [float(np.mean([found[shot][seed] for shot in shots])) for seed in sorted(whole)]
        cells = [signed(list(found.get(shot, {}).values())) for shot in shots]
        rows.append([title, *cells, signed(over)])
    heads = [f"{shot} shots" if shot > 1 else "1 shot" for shot in shots]
    columns = ["left", *["right"] * (len(shots) + 1)]
    return pipe_table(rows, ["difference", *heads, "mean over shots"], columns)


def markdown(results: Sequence[Result], before: Mapping[str, float]) -> str:
    """All tables.

    Args:
        results: evaluated runs.
        before: the base detector's figures, bAP and bAP50.
    """
    parts = []
    for setting, figures in SETTINGS.items():
        if not any(one.setting == setting for one in results):
            continue
        for figure in figures:
            base = f" (base detector: {before[figure]:.2f})" if figure in before else ""
            parts += [
                f"### {setting}, {figure}{base}",
                means_table(results, setting, figure),
                differences_table(results, setting, figure),
            ]
    return "\n\n".join(parts) + "\n"


def to_json(results: Sequence[Result], before: Mapping[str, float], **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """What `markdown` is made of, and more."""
    return {**more, "base_detector": dict(before), "runs": [asdict(one) for one in results]}


COLOURS = {"ce": "#1f5fa8", "dcfs": "#d1495b"}


def plot(path: Path, results: Sequence[Result], before: Mapping[str, float]) -> None:
    """Draw nAP of both settings and bAP of G-FSOD over shots, with intervals; write a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [("fsod", "nAP"), ("gfsod", "nAP"), ("gfsod", "bAP")]
    figure = Figure(figsize=(11, 3.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (setting, name) in zip(figure.subplots(1, 3), panels):
        mine = [one for one in results if one.setting == setting]
        shots = shots_of(mine)
        for number, column in enumerate(dict.fromkeys(one.column for one in mine)):
            own = [one for one in mine if one.column == column]
            spans = [interval([r.figures[name] for r in own if r.shot == shot]) for shot in shots]
            axes.errorbar(
                [place + 0.06 * (number - 1.5) for place in range(len(shots))],
                [mean for mean, _ in spans],
                yerr=[0.0 if math.isnan(half) else half for _, half in spans],
                color=COLOURS[own[0].loss],
                linestyle="--" if own[0].calibrated else "-",
                marker="s" if own[0].calibrated else "o",
                ms=4,
                capsize=3,
                label=column,
            )
        if name in before:
            axes.axhline(before[name], color="#8a8f98", linestyle=":", label="before")
        axes.set_xticks(range(len(shots)), [str(shot) for shot in shots])
        axes.set(title=f"{setting}: {name} (%)", xlabel="shots", ylim=(0, None))
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": ""})
