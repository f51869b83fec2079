"""COCO metrics of given detections equal the official evaluator's (topic 16)."""

import numpy as np
import pytest

from src.defrcn.built_datacategory import resolve_dataset
from src.detecteval import detections_to_rows, evaluate_coco, read_ground_truth
from tests.golden import golden

pytestmark = pytest.mark.golden

TOLERANCE = 1e-6


@pytest.mark.parametrize("name", ["coco14_test_all", "coco14_test_base", "coco14_test_novel"])
def test_results_equal_the_official_ones(name):
    info = resolve_dataset(name, datasets_root=golden.root() / "tree" / "datasets")
    expected = golden.record("16_evaluation")[name]
    data = golden.arrays("16_evaluation")
    image_index, boxes, scores, classes = (
        data[f"{name}.{key}"] for key in ("image_index", "boxes", "scores", "classes")
    )
    rows = []
    for index, image_id in enumerate(expected["image_ids"]):
        mine = np.flatnonzero(image_index == index)
        rows += detections_to_rows(
            image_id, boxes[mine], scores[mine], classes[mine], info.category_ids
        )
    assert len(rows) == len(boxes)
    evaluation = evaluate_coco(
        read_ground_truth(info.annotations),
        rows,
        dataset=name,
        class_names=info.class_names,
        category_ids=info.category_ids,
        base_classes=info.base_classes,
        novel_classes=info.novel_classes,
    )
    assert evaluation.num_images == len(expected["image_ids"])
    assert set(evaluation.results) == set(expected["results"])
    for key, value in expected["results"].items():
        assert evaluation.results[key] == pytest.approx(value, abs=TOLERANCE, rel=0), key
