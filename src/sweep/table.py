# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Statistics over the runs of a sweep, and their tables as Markdown and CSV.

Figures are percentages. Two 95 % intervals of the mean over n runs, both as half widths:

* t interval: t(0.975, n-1) s / sqrt(n), with s the sample standard deviation (divided by n-1).
  This is the one to quote: few runs spread more than a normal law says.
* z interval: 1.96 sigma / sqrt(n), with sigma the population standard deviation (divided by n).
  The official result tables are made so; for 10 runs it is 18 % narrower than the t interval.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from src.sweep.paper_figures import METRICS, PROTOCOLS, official_images, reported
from src.util import csv_text, pipe_table

Z = 1.96  # as the official tables round it
CONFIDENCE = 0.95
NOT_AVAILABLE = "n/a"
SOURCES = ("paper", "repository")


@dataclass(frozen=True)
class RunFigures:
    """What a finished run gave.

    Attributes:
        shot: K, objects of a class in the training set.
        shot_seed: number of the K-shot set.
        seed: of the training.
        iterations: optimizer steps.
        images: pictures seen in them.
        seconds: wall time of the attempt that finished it, evaluation included.
        results: figures by name, percent; negative: undefined.
        per_class: AP of each class, percent; negative: undefined.
        per_class_50: AP50 likewise; empty if the evaluation gives none.
    """

    shot: int
    shot_seed: int
    seed: int
    iterations: int
    images: int
    seconds: float
    results: Mapping[str, float]
    per_class: Mapping[str, float] = field(default_factory=dict)
    per_class_50: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """Mean of n values and how sure it is; NaN where it is undefined.

    Attributes:
        count: n.
        mean: of the values.
        sigma: population standard deviation (divided by n).
        deviation: sample standard deviation (divided by n - 1); NaN for one value.
        t_half: half width of the 95 % t interval; NaN for one value.
        z_half: half width of the official interval, 1.96 sigma / sqrt(n); NaN for one value.
        low: least value.
        high: largest value.
    """

    count: int
    mean: float
    sigma: float
    deviation: float
    t_half: float
    z_half: float
    low: float
    high: float


@dataclass(frozen=True)
class Sweep:
    """What a table is about.

    Attributes:
        dataset: "coco", "voc" or "own".
        setting: "fsod" or "gfsod".
        split: of VOC, 1 to 3; otherwise 0.
        protocol: "fsrw" (one K-shot set, several training seeds) or "tfa" (a set a seed).
        metric: name of the figure that matters, such as "nAP".
        test_set: what was evaluated on.
        novel_classes: names; empty if the data has no split.
        protocol_note: what the evaluation says its figures are.
    """

    dataset: str
    setting: str
    split: int
    protocol: str
    metric: str
    test_set: str = ""
    novel_classes: tuple[str, ...] = ()
    protocol_note: str = ""

    @property
    def title(self) -> str:
        """Data set, setting and protocol in a few words."""
        split = f" split {self.split}" if self.dataset == "voc" else ""
        name = self.test_set if self.dataset == "own" else f"{self.dataset.upper()}{split}"
        return f"{name}, {self.setting}, {self.protocol}-like"

    @property
    def about(self) -> str:
        """What the figures are."""
        place = self.test_set or "the test set"
        return f"{self.metric} in percent on {place}. {self.protocol_note}".rstrip()

    @property
    def comparable(self) -> bool:
        """Whether the paper has figures of this metric."""
        return METRICS.get(self.dataset) == self.metric

    def reported(self, source: str) -> dict[int, float]:
        """Figures of this metric by shot, from the "paper" or its "repository"; {} if none."""
        known = reported(self.dataset, self.setting, self.split, source)
        return known if self.comparable else {}


def summarize(values: Sequence[float]) -> Summary:
    """Sum up values; negative ones are undefined (no ground truth) and left out."""
    defined = np.array([value for value in values if value >= 0], dtype=np.float64)
    count = len(defined)
    if count == 0:
        return Summary(0, *[math.nan] * 7)
    sigma = float(defined.std())
    deviation = t_half = z_half = math.nan
    if count > 1:
        z_half = Z * sigma / math.sqrt(count)
        deviation = float(defined.std(ddof=1))
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))
        t_half = quantile * deviation / math.sqrt(count)
    return Summary(
        count=count,
        mean=float(defined.mean()),
        sigma=sigma,
        deviation=deviation,
        t_half=t_half,
        z_half=z_half,
        low=float(defined.min()),
        high=float(defined.max()),
    )


def by_shot(runs: Sequence[RunFigures]) -> dict[int, list[RunFigures]]:
    """The runs of each shot, shots in increasing order."""
    return {
        shot: [run for run in runs if run.shot == shot] for shot in sorted({r.shot for r in runs})
    }


def class_figures(run: RunFigures, metric: str) -> Mapping[str, float]:
    """The figures of the classes that belong to a metric: AP50 for "nAP50", otherwise AP."""
    return run.per_class_50 if metric.endswith("50") and run.per_class_50 else run.per_class


def class_names(runs: Sequence[RunFigures], sweep: Sweep) -> list[str]:
    """The novel classes; all where there is no split."""
    names = dict.fromkeys(name for run in runs for name in class_figures(run, sweep.metric))
    novel = [name for name in names if name in sweep.novel_classes]
    return novel or list(names)


def summaries(
    runs: Sequence[RunFigures], values: Callable[[RunFigures], Mapping[str, float]], name: str
) -> dict[int, Summary]:
    """Sum up, for each shot, one of the figures that `values` gives of a run; some may lack it."""
    return {
        shot: summarize([values(run)[name] for run in group if name in values(run)])
        for shot, group in by_shot(runs).items()
    }


def all_summaries(
    runs: Sequence[RunFigures], sweep: Sweep
) -> Iterator[tuple[str, str, dict[int, Summary]]]:
    """Kind ("figure" or "class"), name and summary of each shot, of everything evaluated."""
    figures = list(dict.fromkeys(name for run in runs for name in run.results))
    of_class = functools.partial(class_figures, metric=sweep.metric)
    for kind, names, values in (
        ("figure", figures, operator.attrgetter("results")),
        ("class", class_names(runs, sweep), of_class),
    ):
        for name in names:
            yield kind, name, summaries(runs, values, name)


def figure(value: float, digits: int = 2) -> str:
    """A number for a table."""
    return NOT_AVAILABLE if math.isnan(value) else f"{value:.{digits}f}"


def with_interval(summary: Summary) -> str:
    """Mean ± t interval for a table."""
    half = "" if math.isnan(summary.t_half) else f" ± {summary.t_half:.2f}"
    return f"{figure(summary.mean)}{half}"


def _pipe(rows: Sequence[Sequence[str]], headers: Sequence[str], names: bool = False) -> str:
    """A table; `names` stand left in the first column, numbers right."""
    columns = ["left" if names else "right", *["right"] * (len(headers) - 1)]
    return pipe_table(rows, headers, columns)


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"


def main_table(runs: Sequence[RunFigures], sweep: Sweep) -> str:
    """One line a shot: mean, both intervals, the paper, iterations and images seen."""
    paper, repository = map(sweep.reported, SOURCES)
    official = official_images(sweep.dataset, sweep.setting)
    headers = [
        "shot",
        "runs",
        sweep.metric,
        "95 % (t)",
        "95 % (z, official)",
        "sigma",
        "min",
        "max",
        *(["paper", "repository"] if paper else []),
        "iterations",
        "images seen",
        *(["official images", "% of official"] if official else []),
    ]
    rows = []
    for shot, group in by_shot(runs).items():
        summary = summarize([run.results[sweep.metric] for run in group])
        halves = (summary.t_half, summary.z_half)
        row = [
            *(str(shot), str(summary.count), figure(summary.mean)),
            *(figure(half) if math.isnan(half) else f"± {half:.2f}" for half in halves),
            *(figure(summary.sigma), figure(summary.low), figure(summary.high)),
            *(figure(line.get(shot, math.nan), 1) for line in (paper, repository) if paper),
            *(_span([run.iterations for run in group]), _span([run.images for run in group])),
            *(_against_official(group, official.get(shot)) if official else ()),
        ]
        rows.append(row)
    return _pipe(rows, headers)


def _against_official(group: Sequence[RunFigures], official: int | None) -> list[str]:
    if official is None:
        return [NOT_AVAILABLE] * 2
    mean = sum(run.images for run in group) / len(group)
    return [str(official), f"{100 * mean / official:.0f}"]


def means_table(runs: Sequence[RunFigures], sweep: Sweep, kind: str) -> str:
    """Each "figure" of the evaluation, or each novel "class" (all without a split).

    Mean ± t interval, a column a shot.
    """
    rows = [
        [name, *map(with_interval, found.values())]
        for its_kind, name, found in all_summaries(runs, sweep)
        if its_kind == kind
    ]
    return _pipe(rows, [kind, *(f"{shot}-shot" for shot in by_shot(runs))], names=True)


def markdown(runs: Sequence[RunFigures], sweep: Sweep, planned: int, plot: str = "") -> str:
    """Everything as one Markdown page.

    Args:
        runs: the finished runs, at least one.
        sweep: what they are runs of.
        planned: runs that there will be in all.
        plot: file name of the plot, relative to the page.
    """
    kind = "AP50" if sweep.metric.endswith("50") else "AP"
    group = "novel class" if sweep.novel_classes else "class"
    parts = [
        f"# Sweep: {sweep.title}",
        f"{len(runs)} of {planned} runs finished. {sweep.about}",
        f"{_protocol_text(sweep)}",
        "95 % intervals of the mean over n runs, as half widths: t is t(0.975, n-1) s / sqrt(n) "
        "with s the sample standard deviation (divided by n-1); z is 1.96 sigma / sqrt(n), as the "
        "official tables have it, with sigma (its own column) the population standard deviation "
        "(divided by n).",
        main_table(runs, sweep),
    ]
    if plot:
        parts.append(f"![{sweep.metric} over shots]({plot})")
    parts += ["## All figures: mean ± t interval", means_table(runs, sweep, "figure")]
    if class_names(runs, sweep):
        parts += [
            f"## {kind} of each {group}: mean ± t interval",
            means_table(runs, sweep, "class"),
        ]
    return "\n\n".join(parts) + "\n"


def _protocol_text(sweep: Sweep) -> str:
    text = {
        "fsrw": "fsrw-like: one K-shot set, trained with several seeds.",
        "tfa": "tfa-like: the K-shot sets of several seeds, each trained once.",
    }[sweep.protocol]
    official = PROTOCOLS[sweep.setting]
    if sweep.comparable and official != sweep.protocol:
        text += (
            f" The paper's {sweep.setting} figures are {official}-like: its line is "
            "another mean than this one."
        )
    return text


def runs_csv(runs: Sequence[RunFigures]) -> str:
    """One line a run, with every figure and class."""

    def figures(run: RunFigures) -> dict[str, float]:
        classes = {f"AP {name}": value for name, value in run.per_class.items()}
        classes_50 = {f"AP50 {name}": value for name, value in run.per_class_50.items()}
        return {**run.results, **classes, **classes_50}

    names = list(dict.fromkeys(name for run in runs for name in figures(run)))
    # classes of a run that others lack stand with those of their kind
    names.sort(key=lambda name: name.startswith("AP ") + 2 * name.startswith("AP50 "))
    header = ["shot", "shot_seed", "seed", "iterations", "images", "seconds", *names]
    lines: list[list[object]] = []
    for run in sorted(runs, key=lambda run: (run.shot, run.shot_seed, run.seed)):
        known = figures(run)
        numbers = (run.shot, run.shot_seed, run.seed, run.iterations, run.images)
        cells = (_cell(known.get(name)) for name in names)
        lines.append([*numbers, f"{run.seconds:.1f}", *cells])
    return csv_text(header, lines)


def table_csv(runs: Sequence[RunFigures], sweep: Sweep) -> str:
    """One line for each shot and figure, classes included, with all of `Summary`."""
    header = [
        *("shot", "kind", "name", "runs", "mean", "sigma", "sample_deviation"),
        *("t95", "z95", "min", "max", *SOURCES),
    ]
    lines = [
        _line(shot, kind, name, summary, sweep)
        for kind, name, found in all_summaries(runs, sweep)
        for shot, summary in found.items()
    ]
    lines.sort(key=lambda line: (line[0], line[1] != "figure"))
    return csv_text(header, lines)


def _line(shot: int, kind: str, name: str, summary: Summary, sweep: Sweep) -> list[Any]:
    count, *numbers = astuple(summary)
    compared = kind == "figure" and name == sweep.metric
    known = [sweep.reported(source).get(shot, "") if compared else "" for source in SOURCES]
    return [shot, kind, name, count, *map(_cell, numbers), *known]


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) or value < 0 else f"{value:.4f}"
