# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Boxes as arrays: what is usable, sizes in the model frame, what looks wrong; all by hand."""

import numpy as np
import pytest

from src.data.mindrecord_build import BuildReport, usable_boxes
from src.defrcn.data_types import XYWH, XYXY, Annotation, Record
from src.tools.data_check.boxes import (
    SUSPICIOUS,
    class_table,
    gather,
    model_sides,
    resized,
    suspicious,
)
from src.tools.data_check.shots import coverage, full_names, unlikely_side
from tests.helpers.data_helpers import named_set

NAMES = ("cat", "dog")


def box(x1, y1, x2, y2, index=0, **fields):
    return Annotation((x1, y1, x2, y2), XYXY, index, **fields)


def picture(name, annotations, height=100, width=200):
    return Record(f"images/{name}", name, height, width, tuple(annotations))


def gathered(*records, **fields):
    return gather("train", named_set(class_names=NAMES, **fields), records)


def kinds(annotations, anchors=(16.0, 64.0), edges=(100,)):
    """Kind -> places of boxes of one picture, 200 x 100 pixels, without the kinds not found."""
    boxes = gathered(picture("a", annotations))
    sides = [model_sides(boxes, edge, 10_000) for edge in edges]
    found = suspicious(boxes, sides, anchors)
    assert list(found) == list(SUSPICIOUS)
    return {kind: places.tolist() for kind, places in found.items() if len(places)}


def test_usable_as_in_training():
    annotations = [
        box(1, 2, 31, 42),
        box(1, 2, 31, 42, iscrowd=1),
        box(10, 10, 10, 20),
        box(20, 20, 10, 30),
        box(200, 0, 250, 50),
        box(-5, -5, 5, 5, 1, difficult=1),
        Annotation((3, 4, 5, 6), XYWH, 1),
    ]
    record = picture("a", annotations)
    boxes = gathered(record)
    assert boxes.usable.tolist() == [True, False, False, False, False, True, True]
    kept, classes = usable_boxes(record, BuildReport())
    assert boxes.corners[boxes.usable] == pytest.approx(kept)
    assert boxes.classes[boxes.usable].tolist() == classes.tolist()
    assert boxes.corners[-1].tolist() == [3, 4, 8, 10]
    assert boxes.clipped[5].tolist() == [0, 0, 5, 5]


def test_records_of_one_file_are_one_picture():
    boxes = gathered(
        picture("a", [box(0, 0, 5, 5)]), picture("b", []), picture("a", [box(5, 5, 9, 9, 1)])
    )
    assert boxes.files == ("images/a", "images/b")
    assert boxes.pictures.tolist() == [0, 0]
    assert boxes.empty.tolist() == [False, True]


def test_nothing_at_all():
    for boxes in (gathered(), gathered(picture("a", []))):
        sides = [model_sides(boxes, 100, 200)]
        assert sides[0].shape == (0, 2)
        assert [row["boxes"] for row in class_table(boxes, sides)] == [0, 0]
        assert [row["size_median"] for row in class_table(boxes, sides)] == [None, None]
        assert all(not len(places) for places in suspicious(boxes, sides, (16,)).values())
    assert gathered().empty.shape == (0,)


def test_sizes_that_the_network_sees():
    """200 x 100 at a short edge of 50, and with a long edge of at most 120: factors 1/2 and 0.6."""
    boxes = gathered(picture("a", [box(0, 0, 40, 20)]), picture("b", [], 300, 300))
    assert model_sides(boxes, 50, 1000).tolist() == [[20, 10]]
    assert model_sides(boxes, 100, 120) == pytest.approx(np.array([[24, 12]]))
    assert resized(boxes.sizes, 100, 120).tolist() == [[60, 120], [100, 100]]


def test_table_of_classes():
    boxes = gathered(
        picture("a", [box(0, 0, 20, 20), box(0, 0, 40, 40), box(0, 0, 9, 9, 1, iscrowd=1)]),
        picture("b", [box(0, 0, 60, 60), box(5, 5, 5, 9)]),
        novel_classes=("dog",),
    )
    cat, dog = class_table(boxes, [model_sides(boxes, 50, 1000)])
    assert cat == {
        **{"class": "cat", "group": "base", "boxes": 3, "pictures": 2, "crowd": 0, "difficult": 0},
        **{"not_usable": 1, "size_5": 11.0, "size_median": 20.0, "size_95": 29.0},
    }
    assert (dog["group"], dog["boxes"], dog["crowd"], dog["size_5"]) == ("novel", 0, 1, None)


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ([box(10, 10, 30, 30)], {}),
        ([box(10, 10, 10, 30), box(9, 9, 5, 30), box(300, 10, 330, 30)], {"no_area": [0, 1, 2]}),
        ([box(-1, 0, 30, 30), box(-1.5, 0, 30, 30), box(9, 9, 39, 102)], {"outside": [1, 2]}),
        (
            [box(10, 10, 10.9, 80), box(10, 10, 11, 80)],
            {"tiny": [0], "extreme_aspect": [0, 1], "out_of_reach": [0]},
        ),
        (
            [box(0, 0, 200, 100), box(0, 0, 190, 100)],
            {"whole_picture": [0], "out_of_reach": [0, 1]},
        ),
        ([box(0, 0, 40, 2), box(0, 5, 41, 7)], {"extreme_aspect": [1]}),
        (
            [box(1, 1, 30, 30), box(1, 1, 30, 30.004), box(1, 1, 30, 30, 1), box(1, 1, 30, 31)],
            {"twice": [1], "two_classes": [2]},
        ),
        (
            [box(1, 1, 30, 30, 1), box(1, 1, 30, 30), box(1, 1, 30, 30)],
            {"twice": [2]} | {"two_classes": [1]},
        ),
        ([box(1, 1, 30, 30), box(1, 1, 30, 30, iscrowd=1)], {}),
        ([box(0, 0, 8, 8), box(0, 0, 7.9, 8), box(0, 0, 99, 99)], {"out_of_reach": [1]}),
    ],
)
def test_boxes_that_look_wrong(annotations, expected):
    assert kinds(annotations) == expected


def test_too_small_or_large_only_at_every_size():
    """Seven pixels are out of reach at the short edge 100, not at 200; 140 the other way round."""
    small, large = [box(0, 0, 7, 7)], [box(0, 0, 160, 98)]
    assert kinds(small, edges=(100,)) == {"out_of_reach": [0]}
    assert kinds(small, edges=(100, 200)) == {}
    assert kinds(large, edges=(200,)) == {"out_of_reach": [0]}
    assert kinds(large, edges=(100, 200)) == {}
    assert kinds([box(0, 0, 0.6, 9)], edges=(100, 200), anchors=(2,)) == {}


def test_the_same_box_in_two_pictures_is_no_repetition():
    boxes = gathered(picture("a", [box(0, 0, 20, 20)]), picture("b", [box(0, 0, 20, 20)]))
    found = suspicious(boxes, [model_sides(boxes, 100, 200)], (16,))
    assert not len(found["twice"]) and not len(found["two_classes"])


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("mine_train_novel_10shot_seed3", ("mine_train_novel",)),
        ("coco14_trainval_all_5shot_seed0", ("coco14_trainval_all",)),
        (
            "voc_2012_trainval_novel2_1shot_seed9",
            ("voc_2007_trainval_novel2", "voc_2012_trainval_novel2"),
        ),
    ],
)
def test_names_of_full_sets(name, full):
    assert full_names(name) == full


def test_chance_of_small_and_large_boxes():
    """Of 10 boxes the two smallest: (2 / 10)^2; the three largest: (3 / 10)^3."""
    many = np.arange(1.0, 11.0)
    assert unlikely_side(np.array([1.0, 2.0]), many) == ("small", pytest.approx(0.04))
    assert unlikely_side(np.array([9.0, 10.0, 8.0]), many) == ("large", pytest.approx(0.027))
    assert unlikely_side(np.array([1.0, 10.0]), many)[1] == 1.0
    assert unlikely_side(np.zeros(0), many)[1] == 1.0
    assert unlikely_side(many, np.zeros(0))[1] == 1.0


def test_a_k_shot_set_beside_its_full_set():
    """Two cats of three that its pictures show; no dog of the one there; a picture apart."""
    few = gathered(picture("a", [box(0, 0, 10, 10), box(0, 0, 20, 20)]))
    full = gathered(
        picture("a", [*(box(0, 0, s, s) for s in (10, 20, 30)), box(0, 0, 40, 40, 1)]),
        picture("b", [box(0, 0, 80, 80), box(0, 0, 80, 80, 1), box(0, 0, 9, 9, iscrowd=1)]),
    )
    found = coverage(few, [full], (50, 100), 1000, "")
    cat, dog = found["classes"]
    # at 50 the factor is 1/2, at 100 it is 1: on average 3/4
    assert (cat["boxes"], cat["size_median"], cat["full_median"]) == (2, 11.2, 18.8)
    assert (cat["full_boxes"], cat["without_box"], dog["without_box"]) == (4, 1, 1)
    assert (dog["boxes"], dog["size_median"], dog["full_boxes"]) == (0, None, 2)
    alone = coverage(few, [], (50,), 1000, "there is none")
    assert alone["full_problem"] == "there is none"
    assert [row["without_box"] for row in alone["classes"]] == [None, None]
    assert [row["full_boxes"] for row in alone["classes"]] == [None, None]


@pytest.mark.parametrize(("own", "wanted"), [("left/a", 0), ("copy/a", 1)])
def test_pictures_of_one_name_in_two_folders(own, wanted):
    """By their paths; by their names where no path is the same."""
    few = gathered(picture(own, [box(0, 0, 10, 10)]))
    full = gathered(picture("left/a", [box(0, 0, 10, 10)]), picture("right/a", [box(0, 0, 10, 10)]))
    (cat, _) = coverage(few, [full], (50,), 1000, "")["classes"]
    assert cat["without_box"] == wanted
