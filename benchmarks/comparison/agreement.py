# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Do both sides compute the same? Before that is known, no ratio is worth anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Result = Mapping[str, np.ndarray]

# Relative, of the RPN's two losses and of the second stage's: at full size the two sides keep some
# 80 other ones of 2,000 proposals where logits of random weights nearly tie, and draw 36 of 512
# samples otherwise (features agree to 1e-5).
LOSSES = np.array([2e-4, 2e-4, 1e-2, 1e-2])
SCORES, PIXELS = 2e-3, 0.5
PAIRED = 0.95  # of the detections, those next to the cut at 100 left out
CALIBRATED = 1e-3
FIGURES = 0.0  # COCO's figures are equal in every digit
PROGRAMS = 0.2  # percent AP: pictures are decoded by other libraries


class DisagreementError(RuntimeError):
    """Both sides compute something else."""


def losses(ours: Result, theirs: Result) -> float:
    """Largest relative difference of a loss."""
    difference = np.abs(ours["losses"] - theirs["losses"]) / np.abs(theirs["losses"])
    if not (difference <= LOSSES).all():
        raise DisagreementError(f"losses differ by {difference}, more than {LOSSES}")
    return float(difference.max())


def detections(ours: Result, theirs: Result) -> float:
    """Share of detections without a partner of the same class, place and score."""
    if not len(ours["boxes"]) or not len(theirs["boxes"]):
        raise DisagreementError("a side found nothing")
    far = np.abs(ours["boxes"][:, None] - theirs["boxes"][None]).max(-1) > PIXELS
    far |= np.abs(ours["scores"][:, None] - theirs["scores"][None]) > SCORES
    far |= ours["classes"][:, None] != theirs["classes"][None]
    alone = max(float(far.all(axis).mean()) for axis in (0, 1))
    return _within("detections", alone, 1.0 - PAIRED)


def scores(ours: Result, theirs: Result) -> float:
    """Largest difference of a calibrated score."""
    difference = np.abs(ours["calibrated"] - theirs["calibrated"])
    return _within("calibrated scores", float(difference.max()), CALIBRATED)


def figures(ours: Result, theirs: Result) -> float:
    """Largest difference of one of COCO's figures, percent."""
    difference = np.abs(ours["figures"] - theirs["figures"])
    return _within("figures", float(difference.max()), FIGURES)


def programs(ours: Result, theirs: Result) -> float:
    """Largest difference of AP, AP50 and AP75 of whole programs, percent."""
    difference = np.abs(ours["figures"] - theirs["figures"])
    return _within("AP of the programs", float(difference.max()), PROGRAMS)


def _within(what: str, difference: float, tolerance: float) -> float:
    if not difference <= tolerance:
        raise DisagreementError(f"{what} differ by {difference:.2e}, more than {tolerance:.0e}")
    return difference


BY_KIND: dict[str, Callable[[Result, Result], float]] = {
    "inference": detections,
    "training": losses,
    "calibration": scores,
    "coco": figures,
    "program": programs,
}
