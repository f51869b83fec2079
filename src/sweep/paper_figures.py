# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What the DeFRCN paper and its official repository report, for comparison with one's own runs.

Novel AP (COCO) and novel AP50 (VOC) in percent, and the iterations of fine-tuning, which the
official configurations give for 16 images an iteration.
"""

from __future__ import annotations

from collections.abc import Mapping

SHOTS: Mapping[str, tuple[int, ...]] = {"coco": (1, 2, 3, 5, 10, 30), "voc": (1, 2, 3, 5, 10)}
OFFICIAL_BATCH = 16
# The figure that the tables of the paper hold.
METRICS: Mapping[str, str] = {"coco": "nAP", "voc": "nAP50"}
# How the official figures were averaged: over repeats on the K-shot set of seed 0 (fsrw-like),
# or over the K-shot sets of seeds 0 to 9 (tfa-like).
PROTOCOLS: Mapping[str, str] = {"fsod": "fsrw", "gfsod": "tfa"}

Figures = tuple[float, ...]


# By data set, setting and split (COCO has one split, numbered 0 here): the paper's table, and that
# of the official repository, which varies by 0.3 between runs; in the order of the set's `SHOTS`.
REPORTED: Mapping[tuple[str, str, int], Mapping[str, Figures]] = {
    ("coco", "fsod", 0): {
        "paper": (9.3, 12.9, 14.8, 16.1, 18.5, 22.6),
        "repository": (9.7, 13.1, 14.5, 15.6, 18.4, 22.6),
    },
    ("coco", "gfsod", 0): {
        "paper": (4.8, 8.5, 10.7, 13.6, 16.8, 21.2),
        "repository": (4.8, 8.5, 10.7, 13.5, 16.7, 21.0),
    },
    ("voc", "fsod", 1): {
        "paper": (53.6, 57.5, 61.5, 64.1, 60.8),
        "repository": (55.1, 57.4, 61.1, 64.6, 61.5),
    },
    ("voc", "fsod", 2): {
        "paper": (30.1, 38.1, 47.0, 53.3, 47.9),
        "repository": (32.1, 40.5, 47.9, 52.9, 47.5),
    },
    ("voc", "fsod", 3): {
        "paper": (48.4, 50.9, 52.3, 54.9, 57.4),
        "repository": (48.9, 51.9, 52.3, 55.7, 59.0),
    },
    ("voc", "gfsod", 1): {
        "paper": (40.2, 53.6, 58.2, 63.6, 66.5),
        "repository": (43.8, 57.5, 61.4, 65.3, 67.0),
    },
    ("voc", "gfsod", 2): {
        "paper": (29.5, 39.7, 43.4, 48.1, 52.8),
        "repository": (31.5, 40.9, 45.6, 50.1, 52.9),
    },
    ("voc", "gfsod", 3): {
        "paper": (35.0, 38.3, 52.9, 57.7, 60.8),
        "repository": (38.2, 50.9, 54.1, 59.2, 61.9),
    },
}

ITERATIONS: Mapping[tuple[str, str], tuple[int, ...]] = {
    ("coco", "fsod"): (1000, 1500, 2000, 2500, 2500, 4000),
    ("coco", "gfsod"): (3200, 4000, 4800, 6000, 6000, 12000),
    ("voc", "fsod"): (800, 1200, 1600, 2000, 4000),
    ("voc", "gfsod"): (1000, 1500, 2000, 2500, 4000),
}


def reported(dataset: str, setting: str, split: int, source: str) -> dict[int, float]:
    """Reported figures by shot.

    Args:
        dataset: "coco" or "voc"; any other has none.
        setting: "fsod" or "gfsod".
        split: VOC's split 1, 2 or 3; no matter for COCO.
        source: "paper" or "repository".
    """
    tables = REPORTED.get((dataset, setting, split if dataset == "voc" else 0), {})
    return dict(zip(SHOTS.get(dataset, ()), tables.get(source, ())))


def official_images(dataset: str, setting: str) -> dict[int, int]:
    """Images that the official fine-tuning sees by shot: its iterations times 16."""
    counts = ITERATIONS.get((dataset, setting), ())
    return {shot: OFFICIAL_BATCH * n for shot, n in zip(SHOTS.get(dataset, ()), counts)}
