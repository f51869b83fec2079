# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Matching, curves, thresholds and picture kinds by hand; AP50 of the curves is pycocotools'."""

import csv
import io

import numpy as np
import pytest

from src.defrcn.built_datacategory import resolve_dataset
from src.defrcn.meta_coco import read_json
from src.detecteval import evaluate, read_rows
from src.evaluation.report.analysis import (
    ClassAnalysis,
    Operating,
    analyse,
    class_rows,
    histogram,
    interpolated,
    match,
    mean_curve,
    to_csv,
)
from src.model_utils.errors import InputError
from tests.helpers.data_helpers import named_set, shared

BOX, OTHER, FAR = [10, 10, 20, 20], [50, 50, 30, 30], [80, 5, 10, 10]


def detection(box, score, image=7, category=3):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def entry(box, image=7, category=3, **extra):
    return {"image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **extra}


def truth(*annotations):
    images = [{"id": identity, "height": 100, "width": 100} for identity in (7, 8, 9)]
    categories = [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}]
    return {"images": images, "annotations": list(annotations), "categories": categories}


def analysed(ground_truth, rows, **keys):
    return analyse(named_set(**keys), ground_truth, rows)


def one_class(scores, hits, num_objects):
    return ClassAnalysis("cat", "", num_objects, np.array(scores, float), np.array(hits, bool))


def test_the_more_certain_detection_takes_the_object():
    found, objects = match([entry(BOX)], [detection(BOX, 0.5), detection([10, 10, 20, 18], 0.9)])
    assert found == [(0.5, "false"), (0.9, "hit")]
    assert objects == [(0.9, "found")]


def test_a_detection_takes_the_object_it_overlaps_most():
    first, second = [0, 0, 20, 20], [4, 0, 20, 20]
    found, objects = match([entry(first), entry(second)], [detection([3, 0, 20, 20], 0.9)])
    assert found == [(0.9, "hit")]
    assert objects == [(0.0, "missed"), (0.9, "found")]
    # the second best is taken when the best is gone: 16 / 24 of both, at least a half
    found, objects = match(
        [entry(first), entry(second)], [detection(second, 0.9), detection(second, 0.8)]
    )
    assert objects == [(0.8, "found"), (0.9, "found")]


def test_an_iou_of_exactly_a_half_is_a_hit():
    assert match([entry([0, 0, 10, 10])], [detection([0, 0, 10, 5], 0.9)])[0] == [(0.9, "hit")]
    assert match([entry([0, 0, 10, 10])], [detection([0, 0, 10, 4.9], 0.9)])[0] == [(0.9, "false")]


def test_crowds_and_difficult_objects_are_neither_right_nor_wrong():
    inside = detection([12, 12, 4, 4], 0.9)
    assert match([entry(BOX, iscrowd=1)], [inside]) == ([(0.9, "ignored")], [(0.0, "ignored")])
    # a difficult object is matched by its plain IoU
    assert match([entry(BOX, difficult=1)], [inside])[0] == [(0.9, "false")]
    twice = [detection(BOX, 0.9), detection(BOX, 0.8)]
    assert match([entry(BOX, difficult=1)], twice)[0] == [(0.9, "ignored"), (0.8, "ignored")]
    # an object that counts goes first
    both = [entry(BOX, difficult=1), entry([10, 10, 20, 16])]
    assert match(both, [detection(BOX, 0.9)]) == (
        [(0.9, "hit")],
        [(0.0, "ignored"), (0.9, "found")],
    )


def test_nothing_on_either_side():
    assert match([], [detection(BOX, 0.9)]) == ([(0.9, "false")], [])
    assert match([entry(BOX)], []) == ([], [(0.0, "missed")])


def test_curve_and_best_threshold_by_hand():
    one = one_class([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 1, 0], 4)
    recall, precision = one.curve
    assert recall.tolist() == [0.25, 0.25, 0.5, 0.75, 0.75]
    assert precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 3 / 4, 3 / 5])
    thresholds, f1 = one.f1_curve
    assert thresholds.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert f1.tolist() == pytest.approx([2 / 5, 2 / 6, 4 / 7, 6 / 8, 6 / 9])
    assert one.best == Operating(0.6, hits=3, false=1, missed=1)
    assert (one.best.precision, one.best.recall, one.best.f1) == (0.75, 0.75, 0.75)
    assert one.at(0.85) == Operating(0.85, hits=1, false=0, missed=3)
    assert one.at(0.95) == Operating(0.95, hits=0, false=0, missed=4)
    assert one.at(0.95).f1 == 0.0


def test_equal_scores_come_together():
    """No threshold lies between equal scores, whichever of them comes first."""
    for hits in ([1, 0, 1, 0], [0, 1, 1, 0]):
        one = one_class([0.8, 0.8, 0.4, 0.4], hits, 2)
        assert one.f1_curve[0].tolist() == [0.8, 0.4]
        assert one.f1_curve[1].tolist() == pytest.approx([2 / 4, 4 / 6])
        assert one.best == Operating(0.4, hits=2, false=2, missed=0)


def test_of_equal_f1_the_highest_threshold():
    one = one_class([0.9, 0.8, 0.7, 0.6], [1, 0, 0, 1], 2)
    assert one.f1_curve[1].tolist() == pytest.approx([2 / 3, 1 / 2, 2 / 5, 2 / 3])
    assert one.best.threshold == 0.9


def test_class_without_hits_or_detections_or_objects():
    assert one_class([0.9], [0], 3).best is None
    assert one_class([], [], 3).best is None
    assert [part.tolist() for part in one_class([], [], 3).curve] == [[], []]
    assert interpolated(*one_class([], [], 3).curve).max() == 0.0
    assert one_class([0.9], [0], 0).curve[1].tolist() == [0.0]
    assert mean_curve([one_class([0.9], [0], 0)]) is None


def test_interpolated_curve():
    curve = interpolated(np.array([0.25, 0.25, 0.5]), np.array([1.0, 0.5, 0.6]))
    assert curve.shape == (101,)
    assert curve[:26].tolist() == [1.0] * 26
    assert curve[26:51].tolist() == [0.6] * 25
    assert curve[51:].tolist() == [0.0] * 50


def test_histogram():
    classes = [one_class([1.0, 0.52, 0.049], [1, 0, 0], 2), one_class([0.5, 0.0], [1, 1], 2)]
    hits, false = histogram(classes, bins=10)
    assert hits.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert false.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_kinds_of_pictures():
    ground_truth = truth(
        entry(BOX), entry(OTHER), entry(BOX, image=8), entry(BOX, image=8, category=5)
    )
    rows = [
        *(detection(BOX, 0.9), detection(OTHER, 0.8), detection(FAR, 0.1)),
        *(detection(BOX, 0.7, image=8), detection(FAR, 0.6, image=8, category=5)),
    ]
    analysis = analysed(ground_truth, rows)
    cat, dog = analysis.classes
    assert (cat.num_objects, dog.num_objects) == (3, 1)
    assert cat.best == Operating(0.7, hits=3, false=0, missed=0)
    assert dog.best is None
    assert [picture.kinds for picture in analysis.pictures] == [
        ("false",),
        ("missed", "false"),
        ("ok",),
    ]
    # cat from 0.7 on: the first picture's false one goes; dog from 0.5 on: its false one stays
    cut = analysis.at_best_thresholds()
    assert [picture.kinds for picture in cut] == [("ok",), ("missed", "false"), ("ok",)]
    assert (cut[0].count("hit"), cut[0].count("found"), cut[0].count("false")) == (2, 2, 0)
    assert (cut[1].count("hit"), cut[1].count("missed"), cut[1].count("false")) == (1, 1, 1)


def test_an_object_of_a_dropped_detection_is_missed():
    """One hit at 0.9, then four false ones before a second hit: the best threshold is 0.9."""
    ground_truth = truth(entry(BOX), entry(BOX, image=8))
    rows = [
        detection(BOX, 0.9),
        *(detection(FAR, 0.8 - 0.01 * k, image=9) for k in range(4)),
        detection(BOX, 0.2, image=8),
    ]
    analysis = analysed(ground_truth, rows)
    assert analysis.classes[0].best == Operating(0.9, hits=1, false=0, missed=1)
    assert [picture.kinds for picture in analysis.at_best_thresholds()] == [
        ("ok",),
        ("missed",),
        ("ok",),
    ]
    assert analysis.pictures[1].kinds == ("ok",)  # the analysis itself keeps all detections


def test_groups_and_the_table():
    ground_truth = truth(entry(BOX), entry(OTHER, category=5))
    rows = [detection(BOX, 0.9), detection(FAR, 0.3), detection(FAR, 0.6, category=5)]
    split = {"base_classes": ("cat",), "novel_classes": ("dog",)}
    analysis = analysed(ground_truth, rows, **split)
    assert [one.group for one in analysis.classes] == ["base", "novel"]
    assert analysed(ground_truth, rows, base_classes=("cat",)).classes[0].group == ""
    table = class_rows(analysis, evaluate(named_set(**split), ground_truth, rows, metric="coco"))
    cat, dog = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert cat == {
        **{"class": "cat", "group": "base", "objects": "1", "detections": "2", "AP": "100"},
        **{"AP50": "100", "best_threshold": "0.9", "F1": "1", "precision": "1", "recall": "1"},
        **{"hits": "1", "false": "0", "missed": "0"},
        **{"mean_score_hits": "0.9", "mean_score_false": "0.3"},
    }
    assert (dog["best_threshold"], dog["F1"], dog["missed"], dog["AP50"]) == ("", "", "1", "0")
    assert to_csv([]) == "\n"


def test_wrong_rows_are_named():
    with pytest.raises(InputError, match="toy detections: row 0: image_id 1 is not an image"):
        analysed(truth(entry(BOX)), [detection(BOX, 0.9, image=1)])


def test_curves_have_the_ap50_of_pycocotools():
    """On the official example, 80 classes with crowds: the mean of each curve is its AP50."""
    folder = shared("eval_fixtures") / "coco_val2014_100"
    info = resolve_dataset("coco14_test_all")
    ground_truth = read_json(folder / "instances_val2014_100.json")
    rows = read_rows(folder / "instances_val2014_fakebbox100_results.json")
    expected = evaluate(info, ground_truth, rows)
    analysis = analyse(info, ground_truth, rows)
    compared = 0
    for one in analysis.classes:
        official = expected.per_class_ap50[one.name]
        if one.num_objects:
            mine = 100 * interpolated(*one.curve).mean()
            assert mine == pytest.approx(official, abs=1e-6), one.name
            compared += 1
    assert compared > 60
    assert sum(one.num_objects for one in analysis.classes) == expected.num_objects
    for group, key in (("base", "bAP50"), ("novel", "nAP50")):
        curve = mean_curve(one for one in analysis.classes if one.group == group)
        assert 100 * curve.mean() == pytest.approx(expected.results[key], abs=1e-6)
