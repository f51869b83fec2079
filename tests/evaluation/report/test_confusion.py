# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What objects are taken for, counted by hand; its sums are those of the other tables."""

import csv
import io

import numpy as np
import pytest

from src.defrcn.built_datacategory import resolve_dataset
from src.defrcn.meta_coco import read_json
from src.detecteval import evaluate, read_rows
from src.evaluation.report.analysis import analyse, class_rows
from src.evaluation.report.confusion import Confusion, confuse
from tests.helpers.data_helpers import named_set, shared

NAMES, IDS = ("cat", "dog", "owl"), (3, 5, 9)
CAT, DOG, OWL = IDS
BOX, OTHER, FAR = [10, 10, 20, 20], [50, 50, 30, 30], [80, 5, 10, 10]
SPLIT = {"base_classes": ("cat", "dog"), "novel_classes": ("owl",)}


def detection(box, score, category, image=7):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def entry(box, category, image=7, **extra):
    return {"image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **extra}


def analysed(annotations, rows, **fields):
    images = [{"id": identity, "height": 100, "width": 100} for identity in (7, 8)]
    categories = [{"id": identity, "name": name} for identity, name in zip(IDS, NAMES)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    info = named_set(class_names=NAMES, category_ids=IDS, **fields)
    return analyse(info, truth, rows)


def confused(annotations, rows, **fields):
    analysis = analysed(annotations, rows, **fields)
    return confuse(analysis.classes, analysis.at_best_thresholds())


def test_by_hand():
    """A cat found, one taken for a dog, one missed; an owl for a dog; a dog of the background."""
    found = confused(
        [entry(BOX, CAT), entry(OTHER, CAT), entry(FAR, CAT), entry(BOX, OWL, image=8)],
        [
            detection(BOX, 0.9, CAT),
            detection(OTHER, 0.8, DOG),
            detection(BOX, 0.7, DOG, image=8),
            detection(FAR, 0.6, DOG, image=8),
        ],
    )
    assert found.counts.tolist() == [
        [1, 1, 0, 1],  # cat
        [0, 0, 0, 0],  # dog: there is none
        [0, 1, 0, 0],  # owl
        [0, 1, 0, 0],  # background
    ]
    assert (found.mistaken, found.repeated) == (2, 0)
    assert found.shares[0] == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    assert found.shares[1].tolist() == [0, 0, 0, 0]
    assert found.by_group() is None


def test_detections_below_the_best_threshold_do_not_count():
    """Dog has a hit at 0.9 and is kept from there on; a class without hits from 0.5 on."""
    annotations = [entry(FAR, DOG), entry(BOX, CAT), entry(OTHER, CAT)]
    low = [detection(FAR, 0.9, DOG), detection(BOX, 0.8, DOG)]
    assert confused(annotations, low).counts[0].tolist() == [0, 0, 0, 2]
    high = [*low, detection(BOX, 0.5, OWL), detection(OTHER, 0.49, OWL)]
    assert confused(annotations, high).counts[0].tolist() == [0, 0, 1, 1]


def test_the_own_class_goes_before_a_more_certain_other():
    found = confused([entry(BOX, CAT)], [detection(BOX, 0.9, DOG), detection(BOX, 0.6, CAT)])
    assert found.counts[0].tolist() == [1, 0, 0, 0]
    assert found.counts[-1].tolist() == [0, 1, 0, 0]
    assert found.repeated == 1


def test_the_most_certain_of_the_others_takes_the_object():
    """An object is taken for one class at most, the rest is of the background, and counted."""
    rows = [detection(BOX, 0.6, DOG), detection([10, 10, 20, 18], 0.9, OWL)]
    found = confused([entry(BOX, CAT)], rows)
    assert found.counts[0].tolist() == [0, 0, 1, 0]
    assert found.counts[-1].tolist() == [0, 1, 0, 0]
    assert found.repeated == 1


@pytest.mark.parametrize("turned", [False, True])
def test_of_equal_scores_the_lower_category_then_the_earlier_row(turned):
    rows = [detection(BOX, 0.8, DOG), detection(BOX, 0.8, OWL)]
    found = confused([entry(BOX, CAT)], rows[:: -1 if turned else 1])
    assert found.counts[0].tolist() == [0, 1, 0, 0]
    # of two dogs the first takes the cat it overlaps most, the second what is left: 16 / 24
    first, second = [0, 0, 20, 20], [4, 0, 20, 20]
    rows = [detection(second, 0.8, DOG), detection(second, 0.8, DOG)]
    found = confused([entry(first, OWL), entry(second, CAT)], rows)
    assert found.counts[[0, 2], 1].tolist() == [1, 1]
    found = confused([entry(first, OWL), entry(second, CAT)], rows[:1])
    assert found.counts[[0, 2], 1].tolist() == [1, 0]


def test_an_iou_of_exactly_a_half_is_enough():
    square = [0, 0, 10, 10]
    for height, count in ((5, 1), (4.9, 0)):
        found = confused([entry(square, CAT)], [detection([0, 0, 10, height], 0.9, DOG)])
        assert found.counts[0].tolist() == [0, count, 0, 1 - count]
        assert found.counts[-1, 1] == 1 - count
        assert found.repeated == 0


def test_crowds_and_difficult_objects_are_in_no_row():
    annotations = [entry(BOX, CAT, iscrowd=1), entry(OTHER, CAT, difficult=1)]
    own = [detection([12, 12, 4, 4], 0.9, CAT), detection(OTHER, 0.8, CAT)]
    assert not confused(annotations, own).counts.any()
    # to another class they are background, as for its AP
    found = confused(annotations, [detection(OTHER, 0.8, DOG)])
    assert found.counts[-1].tolist() == [0, 1, 0, 0]
    assert (found.counts.sum(), found.repeated) == (1, 0)


def test_pictures_are_apart():
    found = confused([entry(BOX, CAT)], [detection(BOX, 0.9, DOG, image=8)])
    assert found.counts[0].tolist() == [0, 0, 0, 1]
    assert found.counts[-1].tolist() == [0, 1, 0, 0]


def test_nothing_on_either_side():
    found = confused([], [])
    assert found.counts.shape == (4, 4)
    assert not found.counts.any()
    assert found.largest(5) == []
    assert not found.shares.any()
    missed = confused([entry(BOX, OWL)], [])
    assert missed.counts[2].tolist() == [0, 0, 0, 1]


def table(counts, groups=("base", "base", "novel")):
    return Confusion(NAMES, groups, np.array(counts), 0)


COUNTS = [[6, 2, 1, 1], [0, 3, 0, 0], [2, 0, 1, 5], [0, 1, 3, 0]]


def test_groups():
    groups = table(COUNTS).by_group()
    assert groups.counts.tolist() == [[11, 1, 1], [2, 1, 5], [1, 3, 0]]
    assert groups.right == (9, 1)
    assert groups.shares[0] == pytest.approx([11 / 13, 1 / 13, 1 / 13])
    assert groups.shares[2] == pytest.approx([1 / 4, 3 / 4, 0])
    for split in (("", "", ""), ("base",) * 3, ("novel",) * 3):
        assert table(COUNTS, split).by_group() is None
        assert table(COUNTS, split).to_json()["groups"] is None


def test_groups_of_a_test_set():
    rows = [detection(BOX, 0.9, DOG), detection(OTHER, 0.9, OWL)]
    found = confused([entry(BOX, OWL), entry(OTHER, OWL)], rows, **SPLIT)
    assert found.groups == ("base", "base", "novel")
    assert found.by_group().counts.tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert found.by_group().right == (0, 1)


def test_the_largest_confusions():
    """cat as dog and owl as cat are equally many; of the owl's row they are more."""
    found = table(COUNTS).largest(10)
    pairs = [(one["object"], one["detected"], one["count"]) for one in found]
    assert pairs == [("owl", "cat", 2), ("cat", "dog", 2), ("cat", "owl", 1)]
    assert found[0]["share"] == 2 / 8
    assert (found[0]["object_group"], found[0]["detected_group"]) == ("novel", "base")
    assert table(COUNTS).largest(1) == found[:1]
    assert table(COUNTS).mistaken == 5


def test_as_csv_and_json():
    rows = list(csv.reader(io.StringIO(table(COUNTS).to_csv())))
    assert rows == [
        ["object", "cat", "dog", "owl", "missed"],
        ["cat", "6", "2", "1", "1"],
        ["dog", "0", "3", "0", "0"],
        ["owl", "2", "0", "1", "5"],
        ["background", "0", "1", "3", ""],
    ]
    content = table(COUNTS).to_json()
    assert content["counts"] == COUNTS
    assert (content["objects"][-1], content["detected"][-1]) == ("background", "missed")
    assert content["groups"]["right_class"] == {"base": 9, "novel": 1}
    assert content["groups"]["counts"][0] == [11, 1, 1]


def test_sums_are_those_of_the_table_of_classes():
    """On the official example with a fifth of the detections renamed: rows, columns, diagonal."""
    folder = shared("eval_fixtures") / "coco_val2014_100"
    info = resolve_dataset("coco14_test_all")
    truth = read_json(folder / "instances_val2014_100.json")
    rows = read_rows(folder / "instances_val2014_fakebbox100_results.json")
    for number, row in enumerate(rows):
        if number % 5 == 0:
            row["category_id"] = info.category_ids[number % 80]
    analysis = analyse(info, truth, rows)
    pictures = analysis.at_best_thresholds()
    found = confuse(analysis.classes, pictures)
    figures = class_rows(analysis, evaluate(info, truth, rows))
    assert found.mistaken > 50
    assert found.counts[-1].sum() > 0
    # classes without hits have no threshold in the table, and the pictures' in the matrix
    false = np.zeros(80, int)
    for one in (one for picture in pictures for one in picture.detections):
        false[one.class_index] += one.outcome == "false"
    inner = found.counts[:-1, :-1]
    for index, row in enumerate(figures):
        assert found.counts[index].sum() == row["objects"]
        assert inner[index, index] == row["hits"]
        assert found.counts[:, index].sum() == row["hits"] + false[index]
        if row["best_threshold"] is not None:
            assert false[index] == row["false"]
            assert found.counts[index].sum() - inner[index, index] == row["missed"]
    groups = found.by_group()
    assert groups.counts.sum() == found.counts.sum()
    assert sum(groups.right) == inner.trace()
