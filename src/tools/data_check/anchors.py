# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""How well anchors fit boxes by size and shape, and which sizes and ratios would fit better.

Anchor and box lie on one centre here, so an IoU is the best that there can be: on the grid of
cells it is less, above all for boxes not much larger than a cell. Sides are (width, height) in
pixels of the model frame; a size is the square root of an area; a ratio is height / width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

THRESHOLDS = (0.5, 0.7)
RULE = (
    "k-means of log sqrt(area), as many sizes as are configured, rounded to whole pixels: below "
    "16 to 1, below 32 to 2, below 128 to 4, below 256 to 8, else to 16"
)
RATIO_RULE = "k-means of log (height / width), as many as are configured, rounded to two digits"
_CELLS = 512  # of the histogram that k-means works on
_CHUNK = 1 << 18
_BIN = 2**0.125  # width of the histogram's bins, as a factor


def anchor_shapes(sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """(len(sizes) * len(ratios), 2) widths and heights, as the detector's anchors have."""
    return np.array([(size / r**0.5, size * r**0.5) for size in sizes for r in ratios], np.float64)


def best_iou(sides: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """(N,) IoU of each box (N, 2) with its best anchor (A, 2), on one centre."""
    best = np.zeros(len(sides))
    for start in range(0, len(sides), _CHUNK):
        part = sides[start : start + _CHUNK, None, :]
        overlap = np.minimum(part, shapes).prod(axis=2)
        union = part.prod(axis=2) + shapes.prod(axis=1) - overlap
        best[start : start + _CHUNK] = (overlap / union).max(axis=1)
    return best


def best_ratio_iou(sides: np.ndarray, ratios: Sequence[float]) -> np.ndarray:
    """(N,) the same with anchors of these ratios and whatever size fits each box best.

    That is the one of the box's area: with q the root of the quotient of both ratios, or its
    inverse if that is smaller, overlap is q times the area.
    """
    distance = np.abs(np.log(sides[:, 1] / sides[:, 0])[:, None] - np.log(ratios)).min(axis=1)
    overlap = np.exp(-distance / 2)
    return np.asarray(overlap / (2 - overlap))


def shares_below(iou: np.ndarray) -> dict[str, float]:
    """Shares of boxes below each of `THRESHOLDS`; 0 of none."""
    return {
        f"below_{threshold}": round(float((iou < threshold).mean()), 4) if len(iou) else 0.0
        for threshold in THRESHOLDS
    }


def anchor_fit(
    sides: np.ndarray, sizes: Sequence[float], ratios: Sequence[float]
) -> dict[str, Any]:
    """Configured anchors, and those that k-means would choose, with the shares that fit badly.

    Args:
        sides: (N, 2) of all boxes, at every short edge that is trained with.
        sizes: configured.
        ratios: configured.
    """
    found: dict[str, Any] = {
        "sizes": list(sizes),
        "ratios": list(ratios),
        **shares_below(best_iou(sides, anchor_shapes(sizes, ratios))),
        "ratio_below_0.5": shares_below(best_ratio_iou(sides, ratios))["below_0.5"],
        "rule": RULE,
        "ratio_rule": RATIO_RULE,
        "chosen": None,
        "chosen_ratios": None,
    }
    if len(sides):
        chosen = chosen_sizes(np.sqrt(sides.prod(axis=1)), len(sizes))
        others = chosen_ratios(sides[:, 1] / sides[:, 0], len(ratios))
        found["chosen"] = {
            "sizes": chosen,
            **shares_below(best_iou(sides, anchor_shapes(chosen, ratios))),
        }
        found["chosen_ratios"] = {
            "ratios": others,
            **shares_below(best_iou(sides, anchor_shapes(chosen, others))),
        }
    return found


def chosen_sizes(scale: np.ndarray, count: int) -> list[int]:
    """Sizes for boxes of these sqrt(area) by `RULE`, increasing; 1 pixel at least."""
    return [int(size) for size in _apart(log_means(scale, count), count, round_size)]


def chosen_ratios(ratio: np.ndarray, count: int) -> list[float]:
    """Ratios for boxes of these ratios by `RATIO_RULE`, increasing."""
    return _apart(log_means(ratio, count), count, lambda value: float(f"{value:.2g}"))


def round_size(size: float) -> float:
    """A size in whole pixels, the coarser the larger it is."""
    step = next(
        (step for limit, step in ((16, 1), (32, 2), (128, 4), (256, 8)) if size < limit), 16
    )
    return max(float(np.floor(size / step + 0.5) * step), 1.0)


def _apart(means: np.ndarray, count: int, rounded: Callable[[float], float]) -> list[float]:
    """Round; where fewer than `count` are left, go on by factors of the square root of 2."""
    found = {rounded(float(mean)) for mean in means}
    low, high, step = min(found), max(found), 1
    while len(found) < count:
        factor = 2 ** ((step + 1) // 2 / 2)
        found.add(rounded(high * factor if step % 2 else low / factor))
        step += 1
    return sorted(found)


def log_means(values: np.ndarray, count: int) -> np.ndarray:
    """K-means of log(values) with `count` centres or, of fewer values, so many; increasing.

    On a line the best division into runs of neighbours can be computed, so nothing is drawn and
    no start has to be chosen. A fine histogram stands for the values.
    """
    logs = np.log(np.maximum(values, 1e-3))
    low, high = float(logs.min()), float(logs.max())
    if high - low < 1e-9:
        return np.exp(logs[:1])
    cell = np.minimum(((logs - low) / (high - low) * _CELLS).astype(np.int64), _CELLS - 1)
    weights = np.bincount(cell, minlength=_CELLS)
    used = weights > 0
    weights = weights[used]
    points = np.bincount(cell, weights=logs, minlength=_CELLS)[used] / weights
    ends = _best_runs(points, weights, min(count, len(points)))
    runs = zip(np.split(points, ends), np.split(weights, ends))
    return np.exp([np.average(run, weights=weight) for run, weight in runs])


def _best_runs(points: np.ndarray, weights: np.ndarray, count: int) -> list[int]:
    """Where to cut a row of points into `count` runs with the least squares around their means."""
    total, first, second = (
        np.append(0.0, np.cumsum(weights * points**power)) for power in range(3)
    )

    def between(sums: np.ndarray) -> np.ndarray:
        return sums[None, :] - sums[:, None]

    mass = np.maximum(between(total), 1e-12)
    # of the run from point i to before point j; only i < j counts
    squares = np.where(between(total) > 0, between(second) - between(first) ** 2 / mass, np.inf)
    best, cuts = squares[0], []
    for _ in range(count - 1):
        through = best[:, None] + squares
        cuts.append(through.argmin(axis=0))
        best = through.min(axis=0)
    place, ends = len(points), []
    for cut in reversed(cuts):
        place = int(cut[place])
        ends.append(place)
    return ends[::-1]


def log_histogram(values: np.ndarray, weight: float = 1.0) -> dict[str, list[float]]:
    """Counts in bins that are an eighth of an octave wide, from the least value to the largest.

    Args:
        values: positive.
        weight: of each.

    Returns:
        `edges`, one more than `counts`; both empty without values.
    """
    if not len(values):
        return {"edges": [], "counts": []}
    step = np.log(_BIN)
    place = np.floor(np.log(np.maximum(values, 1e-3)) / step + 1e-9).astype(np.int64)
    first = int(place.min())
    counts = np.bincount(place - first)
    edges = np.exp((first + np.arange(len(counts) + 1)) * step)
    return {
        "edges": [round(float(edge), 4) for edge in edges],
        "counts": [round(float(count * weight), 3) for count in counts],
    }
