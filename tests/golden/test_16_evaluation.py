# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Metrics of given detections equal the official evaluators' (topic 16), COCO's and VOC's."""

import numpy as np
import pytest

from src.dataset import load_dataset
from src.detecteval import dataset_ground_truth, detections_to_rows, evaluate, metric_of
from tests.golden import golden

pytestmark = pytest.mark.golden

TOLERANCE = 1e-6
SETS = [
    *(f"coco14_test_{split}" for split in ("all", "base", "novel")),
    *(f"voc_2007_test_{split}{n}" for n in (1, 2, 3) for split in ("all", "base", "novel")),
]


def stored_rows(name, image_ids, category_ids):
    """The given detections of a test set as result rows."""
    data = golden.arrays("16_evaluation")
    image_index, boxes, scores, classes = (
        data[f"{name}.{key}"] for key in ("image_index", "boxes", "scores", "classes")
    )
    rows = []
    for index, image_id in enumerate(image_ids):
        mine = np.flatnonzero(image_index == index)
        rows += detections_to_rows(image_id, boxes[mine], scores[mine], classes[mine], category_ids)
    assert len(rows) == len(boxes)
    return rows


def test_every_stored_set_is_compared():
    assert set(SETS) == set(golden.record("16_evaluation"))


@pytest.mark.parametrize("name", SETS)
def test_results_equal_the_official_ones(name):
    info, records = load_dataset([name], datasets_root=golden.root() / "tree" / "datasets")
    expected = golden.record("16_evaluation")[name]
    rows = stored_rows(name, expected["image_ids"], info.category_ids)
    metric = metric_of(name)
    assert metric == ("voc07" if name.startswith("voc") else "coco")
    evaluation = evaluate(info, dataset_ground_truth(info, records), rows, metric=metric)
    assert evaluation.num_images == len(expected["image_ids"])
    assert set(evaluation.results) == set(expected["results"])
    for key, value in expected["results"].items():
        assert evaluation.results[key] == pytest.approx(value, abs=TOLERANCE, rel=0), key
