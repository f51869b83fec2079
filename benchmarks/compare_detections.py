"""Compares two detections.json of the same pictures, row by row.

    python benchmarks/compare_detections.py eval/detections.json result_Files/evaluation/detections.json

Rows are matched within a picture and a class, by box and score together. A row without a partner
is a tie if its score lies within the tolerance of the score threshold, or of the lowest score in a
picture that reached the limit of rows: there the last digits decide which row is kept. Exit status
1 if any other row has no partner.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

BOX, SCORE = 0.05, 1e-4  # pixels; of a score from 0 to 1


def read_rows(path: Path) -> dict:
    """Rows by picture and class: (n, 5) float64, x1, y1, x2, y2 and score."""
    groups = defaultdict(list)
    for row in json.loads(path.read_text(encoding="utf-8")):
        x, y, width, height = row["bbox"]
        groups[row["image_id"], row["category_id"]].append(
            (x, y, x + width, y + height, row["score"])
        )
    return {key: np.array(rows, np.float64) for key, rows in groups.items()}


def match(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences of the pairs that match: (n, 2), and which rows of either have no partner."""
    apart = np.abs(first[:, None] - second[None])
    box, score = apart[..., :4].max(-1), apart[..., 4]
    pairs = linear_sum_assignment(np.minimum(box / BOX + score / SCORE, 1e6))
    good = (box[pairs] <= BOX) & (score[pairs] <= SCORE)
    alone = np.ones(len(first), bool), np.ones(len(second), bool)
    for side, partners in zip(alone, pairs):
        side[partners[good]] = False
    return np.stack((box[pairs][good], score[pairs][good]), 1), *alone


def cut_scores(first: dict, second: dict, threshold: float, limit: int) -> dict:
    """The score below which rows of a picture are dropped."""
    cuts = defaultdict(lambda: threshold)
    for rows in (first, second):
        scores = defaultdict(list)
        for key, values in rows.items():
            scores[key[0]] += list(values[:, 4])
        for picture, values in scores.items():
            if len(values) >= limit:
                cuts[picture] = max(cuts[picture], min(values))
    return cuts


def compare(first: dict, second: dict, threshold: float, limit: int) -> dict:
    """Counts and the largest differences."""
    nothing = np.zeros((0, 5))
    differences = []
    lonely = []
    for key in sorted(set(first) | set(second), key=str):
        one, two = first.get(key, nothing), second.get(key, nothing)
        found, *alone = match(one, two)
        differences.append(found)
        for rows, side in zip((one, two), alone):
            lonely += [(key[0], key[1], *row) for row in rows[side]]
    cuts = cut_scores(first, second, threshold, limit)
    ties = [row for row in lonely if row[-1] - cuts[row[0]] <= SCORE]
    pairs = np.concatenate([*differences, np.zeros((0, 2))])
    return {
        "pictures": len({key[0] for key in [*first, *second]}),
        "rows": [sum(map(len, rows.values())) for rows in (first, second)],
        "matched": len(pairs),
        "ties": len(ties),
        "unmatched": len(lonely) - len(ties),
        "largest_box_difference": float(pairs[:, 0].max(initial=0.0)),
        "largest_score_difference": float(pairs[:, 1].max(initial=0.0)),
        "first_unmatched": [row for row in lonely if row not in ties][:5],
    }


def main() -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--threshold", type=float, default=0.05, help="score threshold of both")
    parser.add_argument("--limit", type=int, default=100, help="most rows of a picture")
    arguments = parser.parse_args()
    result = compare(
        read_rows(arguments.first),
        read_rows(arguments.second),
        arguments.threshold,
        arguments.limit,
    )
    sys.stdout.write(json.dumps(result, indent=2, default=str) + "\n")
    return 1 if result["unmatched"] else 0


if __name__ == "__main__":
    sys.exit(main())
