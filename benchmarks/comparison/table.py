# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What was measured, as JSON and as a table."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def machine() -> dict[str, Any]:
    """Processor, cores, memory and system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def ratios(sides: Mapping[str, Row]) -> dict[str, float]:
    """Ours divided by the other side's, of every figure that both have."""
    mine, other = sides.values()
    return {
        key: mine[key] / other[key]
        for key, value in mine.items()
        if isinstance(value, float) and isinstance(other.get(key), float) and other[key] > 0
    }


COLUMNS = (
    ("minimum, s", "minimum_s", "{:.3g}"),
    ("median, s", "median_s", "{:.3g}"),
    ("first, s", "first_s", "{:.3g}"),
    ("peak, GB", "peak_mb", "{:.2f}"),
    ("growth, GB", "growth_mb", "{:.2f}"),
)
RATIOS = (("ratio", "minimum_s"), ("peak", "peak_mb"), ("growth", "growth_mb"))


def markdown(result: Mapping[str, Any]) -> str:
    """The table of all cases, two figures a cell, ours first; then the parts and other figures."""
    names = result["sides"]
    head = ["case", *(f"{title}: {names[0]} / {names[1]}" for title, _, _ in COLUMNS)]
    head += [title if title == "ratio" else f"{title} ratio" for title, _ in RATIOS]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in result["cases"].values():
        cells = [row["title"]]
        for _, key, form in COLUMNS:
            scale = 1e-3 if key.endswith("_mb") else 1.0
            values = [row["sides"][name].get(key) for name in names]
            shown = ["–" if value is None else form.format(value * scale) for value in values]
            cells.append(" / ".join(shown))
        cells += [_number(row["ratios"].get(key)) for _, key in RATIOS]
        lines.append(_line(cells))
    lines += ["", *_remarks(result)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _remarks(result: Mapping[str, Any]) -> list[str]:
    """A line for each further figure of a case."""
    lines = []
    for row in result["cases"].values():
        for name, side in row["sides"].items():
            if "unseen_s" in side:
                share = side["unseen_s"] / side["minimum_s"]
                lines.append(
                    f"- {row['title']}, {name}: {share:.2f} times the warm sum when first met"
                )
        if "matmuls" in row:
            lines.append(f"- {row['title']}: the twin takes {row['matmuls']:.0f} of its matmuls")
        lines += [
            f"- {row['title']}, {part}: {mine:.3g} / {theirs:.3g} s, ratio {mine / theirs:.2f}"
            for part, (mine, theirs) in row.get("parts", {}).items()
        ]
    return lines
