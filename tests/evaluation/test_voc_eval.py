# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""VOC's average precision: a published case, curves by hand, the official text format."""

import json

import numpy as np
import pytest

from src.defrcn.built_datacategory import XYXY, Annotation, Record
from src.detecteval import evaluate, ground_truth_from_records, metric_of, report
from src.evaluation.detection_rows import detections_to_rows
from src.evaluation.voc_eval import (
    THRESHOLDS,
    as_official_text,
    average_precision,
    class_ap,
    class_curve,
)
from tests.helpers.data_helpers import named_set, shared


def small_case():
    """Objects and detections of the published case, and its AP values.

    Its boxes are x, y, width, height with both corners counted as inside, so that the far corner
    is x + width: as VOC's corners, from which reading takes 1 on the near side.
    """
    folder = shared("eval_fixtures") / "voc_ap_small_case"
    objects, rows = [], []
    for path in sorted((folder / "gts").glob("*.txt")):
        for line in path.read_text().split("\n"):
            if line.strip():
                x, y, width, height = map(float, line.split()[1:])
                box = [x - 1, y - 1, width + 1, height + 1]
                objects.append({"image_id": path.stem, "bbox": box, "iscrowd": 0})
    for path in sorted((folder / "dets").glob("*.txt")):
        for line in path.read_text().split("\n"):
            if line.strip():
                score, x, y, width, height = map(float, line.split()[1:])
                box = [x - 1, y - 1, width + 1, height + 1]
                rows.append({"image_id": path.stem, "bbox": box, "score": score})
    return objects, rows, json.loads((folder / "expected_values.json").read_text())


@pytest.mark.parametrize(("eleven", "key"), [(True, "11_point_AP"), (False, "every_point_AP")])
def test_the_published_small_case(eleven, key):
    objects, rows, expected = small_case()
    assert (len(objects), len(rows)) == (15, 24)
    thresholds = [float(text) for text in expected[key]]
    figures = class_ap(objects, rows, thresholds=thresholds, eleven_points=eleven)
    assert figures == pytest.approx([100 * v for v in expected[key].values()], abs=1e-7)


def test_average_precision_by_hand():
    recall = np.array([0.25, 0.25, 0.5, 0.5, 0.75])
    precision = np.array([1, 1 / 2, 2 / 3, 2 / 4, 3 / 5])
    # recalls 0, .1, .2: 1; .3, .4, .5: 2/3; .6, .7: 3/5; .8, .9, 1: never reached
    assert average_precision(recall, precision) == pytest.approx((3 * 1 + 3 * 2 / 3 + 2 * 0.6) / 11)
    area = average_precision(recall, precision, eleven_points=False)
    assert area == pytest.approx(0.25 * 1 + 0.25 * 2 / 3 + 0.25 * 0.6)
    nothing = np.zeros(0)
    assert average_precision(nothing, nothing) == 0.0
    assert average_precision(nothing, nothing, eleven_points=False) == 0.0


def test_curve_by_hand():
    """A hit, the same object again, a difficult one twice, a miss, a second object."""
    best = np.array([0.9, 0.8, 0.7, 0.7, 0.5, 0.6])
    owner = np.array([0, 0, 2, 2, 1, 1])
    difficult = np.array([False, False, True, True, False, False])
    recall, precision = class_curve(best, owner, difficult, 0.5, 2)
    assert recall.tolist() == [0.5, 0.5, 0.5, 0.5, 0.5, 1.0]
    # IoU 0.5 is not above 0.5: false, and it does not take the object from the next one
    assert precision.tolist() == pytest.approx([1, 1 / 2, 1 / 2, 1 / 2, 1 / 3, 2 / 4])


def test_text_format():
    rows = [
        {"bbox": [10.04, 20.06, 5.0, 7.0], "score": 0.12345},
        {"bbox": [0.0, 0.25, 100.35, 1.0], "score": 0.9996},
    ]
    scores, corners = as_official_text(rows)
    assert scores.tolist() == [0.123, 1.0]
    # 100.35 is 100.3499985 in float32; 1.25 lies in the middle and goes to the even digit
    assert corners.tolist() == [[11.0, 21.1, 15.0, 27.1], [1.0, 1.2, 100.3, 1.2]]
    scores, corners = as_official_text([])
    assert scores.shape == (0,)
    assert corners.shape == (0, 4)


def test_text_format_decides():
    """Scores that are equal with 3 decimals stay in the rows' order; IoU counts the last pixel."""
    objects = [{"image_id": "a", "bbox": [0, 0, 10, 10], "iscrowd": 0}]
    right = {"image_id": "a", "bbox": [0, 0, 10, 10], "score": 0.5003}
    wrong = {"image_id": "a", "bbox": [50, 50, 10, 10], "score": 0.5001}
    assert class_ap(objects, [right, wrong])[0] == pytest.approx(100)
    assert class_ap(objects, [wrong, right])[0] == pytest.approx(50)
    # corners 1 ... 10 and 1 ... 5.0: exactly half of the object, which is not above a half
    half = {"image_id": "a", "bbox": [0, 0, 10, 5], "score": 0.9}
    more = {"image_id": "a", "bbox": [0, 0, 10, 5.06], "score": 0.9}
    assert class_ap(objects, [half])[0] == 0.0
    assert class_ap(objects, [more])[0] == pytest.approx(100)


def judged(records, rows, metric="voc07", **keys):
    names, ids = ("cat", "dog", "bird"), (1, 2, 3)
    truth = ground_truth_from_records(records, names, ids)
    classes = {"class_names": names, "category_ids": ids}
    classes.update(base_classes=("cat", "bird"), novel_classes=("dog",))
    info = named_set("voc_2007_test_all1", **{**classes, **keys})
    return evaluate(info, truth, rows, metric=metric)


def records_of(*annotations):
    return [
        Record("1.jpg", "000001", 100, 100, tuple(annotations)),
        Record("2.jpg", "000002", 100, 100, ()),
    ]


def rows_of(*found):
    boxes, scores, classes = zip(*found)
    return detections_to_rows(
        "000001", np.array(boxes), np.array(scores), np.array(classes), (1, 2, 3)
    )


def test_groups_and_classes_without_objects():
    records = records_of(Annotation((9, 9, 30, 30), XYXY, 0), Annotation((50, 50, 90, 90), XYXY, 1))
    rows = rows_of(((9, 9, 30, 30), 0.9, 0), ((50, 50, 90, 80), 0.8, 1), ((0, 0, 9, 9), 0.7, 2))
    ev = judged(records, rows)
    # the dog's IoU is 0.75, which is above 0.5 ... 0.7 and not above 0.75; no bird: 0, and counted
    assert ev.per_class == pytest.approx({"cat": 100, "dog": 50, "bird": 0})
    assert ev.per_class_ap50 == pytest.approx({"cat": 100, "dog": 100, "bird": 0})
    assert ev.results == pytest.approx(
        {
            **{"AP": 50, "AP50": 200 / 3, "AP75": 100 / 3},
            **{"bAP": 50, "bAP50": 50, "bAP75": 50, "nAP": 50, "nAP50": 100, "nAP75": 0},
        }
    )
    assert (ev.num_images, ev.num_objects, ev.num_detections) == (2, 2, 3)
    content = ev.to_json()
    assert content["protocol"].startswith("VOC 2007 box AP in percent (11 points)")
    assert "gfsod (2 base and 1 novel class)" in content["protocol"]
    assert content["per_class_AP50"]["dog"] == pytest.approx(100)
    text = report(ev)
    assert "nAP (1 novel class)" in text
    assert "VOC 2007" in text
    assert "Average Precision" not in text  # COCO's lines
    novel = judged(records, rows, class_names=("dog",), category_ids=(2,))
    assert set(novel.results) == {"AP", "AP50", "AP75", "nAP", "nAP50", "nAP75"}
    assert novel.setting == "fsod (1 novel class only)"


def test_difficult_objects_count_nowhere():
    easy, hard = (9, 9, 30, 30), (50, 50, 90, 90)
    records = records_of(Annotation(easy, XYXY, 0), Annotation(hard, XYXY, 0, difficult=1))
    found = [(hard, 0.95, 0), (hard, 0.94, 0), (easy, 0.9, 0)]
    ev = judged(records, rows_of(*found))
    assert ev.per_class["cat"] == pytest.approx(100)
    assert ev.num_objects == 1
    only_hard = judged(records_of(Annotation(hard, XYXY, 0, difficult=1)), rows_of((hard, 0.9, 0)))
    assert only_hard.per_class["cat"] == 0.0


def test_nothing_found():
    ev = judged(records_of(Annotation((9, 9, 30, 30), XYXY, 0)), [])
    assert set(ev.results.values()) == {0.0}


def test_every_point_instead_of_eleven():
    records = records_of(Annotation((9, 9, 30, 30), XYXY, 0), Annotation((50, 50, 90, 90), XYXY, 0))
    rows = rows_of(((9, 9, 30, 30), 0.9, 0))
    assert judged(records, rows).per_class["cat"] == pytest.approx(100 * 6 / 11)
    all_points = judged(records, rows, "voc12")
    assert all_points.per_class["cat"] == pytest.approx(50)
    assert all_points.metric == "voc12"
    assert "every point" in all_points.to_json()["protocol"]


def test_thresholds_are_the_official_floats():
    assert len(THRESHOLDS) == 10
    assert THRESHOLDS[0] == 0.5
    assert THRESHOLDS[5] == 0.75
    assert THRESHOLDS[-1] == 0.95


@pytest.mark.parametrize(
    ("name", "wanted", "metric"),
    [
        ("voc_2007_test_novel2", "auto", "voc07"),
        ("voc_2012_trainval_all1", "auto", "voc12"),
        ("coco14_test_all", "auto", "coco"),
        ("cells_test_all", "auto", "coco"),
        ("cells_test_all", "voc07", "voc07"),
        ("voc_2007_test_novel2", "coco", "coco"),
    ],
)
def test_which_metric(name, wanted, metric):
    assert metric_of(name, wanted) == metric
