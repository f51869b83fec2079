# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""COCO metrics against known values, tables, result files, and the empty cases."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from src.defrcn.built_datacategory import Annotation, Record, resolve_dataset
from src.defrcn.meta_coco import read_json
from src.detecteval import (
    UNDEFINED,
    detections_to_rows,
    evaluate,
    ground_truth_from_records,
    per_category_table,
    read_rows,
    report,
)
from src.evaluation.figures import select
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.util import write_json
from tests.helpers.data_helpers import named_set
from tests.helpers.pycoco import figures, hostile_set

CHECKOUT = project_folder()
SHARED = Path(os.environ.get("DEFRCN_SHARED_DATA") or CHECKOUT.parent / "shared" / "data")
OFFICIAL = SHARED / "eval_fixtures" / "coco_val2014_100"
needs_official = pytest.mark.skipif(
    not OFFICIAL.is_dir(), reason=f"no {OFFICIAL}: set DEFRCN_SHARED_DATA to the shared data"
)

IMAGES = [{"id": 7, "height": 100, "width": 100}, {"id": 9, "height": 100, "width": 100}]
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}]


def truth(*annotations):
    """Ground truth of two images from (image, category, box, extra keys)."""
    entries = [
        {"id": number, "image_id": image, "category_id": category, "bbox": box, **extra}
        for number, (image, category, box, extra) in enumerate(annotations)
    ]
    return {"images": IMAGES, "annotations": entries, "categories": CATEGORIES}


def row(image, category, box, score=0.9):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def judge(ground_truth, rows, **keys):
    return evaluate(named_set(**keys), ground_truth, rows, metric="coco")


@needs_official
@pytest.mark.parametrize(
    ("split", "key", "prefix"),
    [
        ("all", "all_80_classes", ""),
        ("base", "base_60_classes", "b"),
        ("novel", "novel_20_classes", "n"),
    ],
)
def test_figures_of_the_official_example(split, key, prefix):
    expected = json.loads((OFFICIAL / "expected_values.json").read_text())
    info = resolve_dataset(f"coco14_test_{split}")
    ground_truth = read_json(OFFICIAL / "instances_val2014_100.json")
    rows = read_rows(OFFICIAL / "instances_val2014_fakebbox100_results.json")
    evaluation = evaluate(info, ground_truth, rows)
    assert evaluation.num_images == expected["images"]
    for name, value in expected[key].items():
        assert evaluation.groups["all"][name] == pytest.approx(100 * value, abs=1e-6), name
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
        value = 100 * expected[key][name]
        if prefix == "" or name == "AP":
            assert evaluation.results[name] == pytest.approx(value, abs=1e-6)
        if prefix:
            assert evaluation.results[prefix + name] == pytest.approx(value, abs=1e-6)
    if split == "all":  # the parts of the whole set equal the sets of the parts
        assert evaluation.num_objects == expected["gt_annotations"] - expected["gt_crowd"]
        assert evaluation.num_detections == expected["detections"]
        for part, name in (("base_60_classes", "bAP50"), ("novel_20_classes", "nAP50")):
            assert evaluation.results[name] == pytest.approx(100 * expected[part]["AP50"], abs=1e-6)
    for name, value in evaluation.per_class.items():
        official = expected["per_class_AP_all"][name]
        wanted = UNDEFINED if official is None else 100 * official
        assert value == pytest.approx(wanted, abs=1e-6), name


@needs_official
def test_printed_lines_are_the_official_ones():
    info = resolve_dataset("coco14_test_all")
    evaluation = evaluate(
        info,
        read_json(OFFICIAL / "instances_val2014_100.json"),
        read_rows(OFFICIAL / "instances_val2014_fakebbox100_results.json"),
    )
    text = report(evaluation)
    values = "0.505 0.697 0.573 0.586 0.519 0.501 0.387 0.594 0.595 0.640 0.566 0.564".split()
    lines = [line for line in text.splitlines() if line.startswith(" Average")]
    assert [line.rsplit("= ")[-1] for line in lines[:12]] == values
    assert len(lines) == 36  # all, base, novel
    assert "| category" in text
    assert "fire hydrant" in text
    assert "AP (all 80 classes)" in text
    assert "nAP (20 novel classes)" in text


def check_against_pycocotools(info, ground_truth, rows):
    chosen = select(ground_truth, rows, dataset=info.name, category_ids=info.category_ids)
    found = evaluate(info, ground_truth, rows, metric="coco")
    expected = figures(chosen, info.category_ids)
    assert list(found.groups["all"].values()) == pytest.approx(expected, abs=1e-11)
    alone = [figures(chosen, [identity]) for identity in info.category_ids]
    undefined = [100 * UNDEFINED, UNDEFINED]  # pycocotools' own, times 100; ours
    for values, column in ((found.per_class, 0), (found.per_class_ap50, 1)):
        wanted = [undefined[1] if f[column] == undefined[0] else f[column] for f in alone]
        assert list(values.values()) == pytest.approx(wanted, abs=1e-11)
    return expected


@needs_official
def test_the_official_example_is_judged_as_by_pycocotools():
    check_against_pycocotools(
        resolve_dataset("coco14_test_novel"),
        read_json(OFFICIAL / "instances_val2014_100.json"),
        read_rows(OFFICIAL / "instances_val2014_fakebbox100_results.json"),
    )


@pytest.mark.parametrize("seed", range(8))
def test_hard_sets_are_judged_as_by_pycocotools(seed):
    ground_truth, rows = hostile_set(seed)
    categories = {entry["id"]: entry["name"] for entry in ground_truth["categories"]}
    info = named_set(class_names=tuple(categories.values()), category_ids=tuple(categories))
    expected = check_against_pycocotools(info, ground_truth, rows)
    assert len(set(expected)) > 8  # not all nothing, or all the same
    # what makes the sets hard does count: equal scores in another order, no difficult objects
    assert figures_of(info, ground_truth, rows[::-1]) != expected
    plain = [{**entry, "difficult": 0} for entry in ground_truth["annotations"]]
    assert figures_of(info, {**ground_truth, "annotations": plain}, rows) != expected


def figures_of(info, ground_truth, rows):
    return list(evaluate(info, ground_truth, rows, metric="coco").groups["all"].values())


def test_one_right_one_missed_by_hand():
    ground_truth = truth(
        (7, 3, [10, 10, 20, 20], {}), (9, 3, [10, 10, 50, 50], {}), (7, 5, [60, 60, 30, 30], {})
    )
    evaluation = judge(ground_truth, [row(7, 3, [10, 10, 20, 20]), row(7, 5, [60, 60, 30, 30])])
    # one of two cats at full precision: 51 of the 101 recall points
    assert evaluation.per_class == pytest.approx({"cat": 100 * 51 / 101, "dog": 100.0})
    assert evaluation.results["AP50"] == pytest.approx((100 * 51 / 101 + 100) / 2)
    assert set(evaluation.results) == {"AP", "AP50", "AP75", "APs", "APm", "APl"}


def test_object_with_id_zero_counts():
    """pycocotools reads the id 0 of a matched object as "not matched"."""
    ground_truth = truth((7, 3, [10, 10, 20, 20], {}))
    assert ground_truth["annotations"][0]["id"] == 0
    assert judge(ground_truth, [row(7, 3, [10, 10, 20, 20])]).results["AP"] == pytest.approx(100)


def test_no_detections_is_zero_not_an_error():
    evaluation = judge(truth((7, 3, [1, 1, 20, 20], {})), [])
    assert evaluation.results["AP"] == 0.0
    assert evaluation.per_class == {"cat": 0.0, "dog": UNDEFINED}
    assert "n/a" in report(evaluation)


def test_no_ground_truth_is_undefined_not_an_error():
    evaluation = judge(truth(), [row(7, 3, [1, 1, 20, 20])])
    assert set(evaluation.results.values()) == {UNDEFINED}
    assert evaluation.num_objects == 0
    assert evaluation.num_detections == 1
    empty = judge(truth(), [])
    assert set(empty.groups["all"].values()) == {UNDEFINED}


def test_ground_truth_without_images_is_refused():
    with pytest.raises(InputError, match="no images"):
        judge({"images": [], "annotations": [], "categories": CATEGORIES}, [])


def test_base_and_novel_groups():
    ground_truth = truth((7, 3, [10, 10, 20, 20], {}), (7, 5, [60, 60, 30, 30], {}))
    rows = [row(7, 3, [10, 10, 20, 20])]
    split = {"base_classes": ("cat",), "novel_classes": ("dog",)}
    both = judge(ground_truth, rows, **split).results
    assert (both["AP"], both["bAP"], both["nAP"]) == pytest.approx((50, 100, 0))
    assert len(both) == 18
    only = judge(ground_truth, rows, **split, class_names=("dog",), category_ids=(5,)).results
    assert set(only) == {"AP", "nAP", "nAP50", "nAP75", "nAPs", "nAPm", "nAPl"}
    plain = judge(ground_truth, rows, base_classes=("cat", "dog")).results
    assert set(plain) == {"AP", "AP50", "AP75", "APs", "APm", "APl"}


def test_rows_of_other_classes_are_left_out():
    ground_truth = truth((7, 3, [10, 10, 20, 20], {}), (7, 5, [60, 60, 30, 30], {}))
    rows = [row(7, 3, [10, 10, 20, 20]), row(7, 5, [0, 0, 5, 5])]
    evaluation = judge(ground_truth, rows, class_names=("cat",), category_ids=(3,))
    assert evaluation.results["AP"] == pytest.approx(100)
    assert evaluation.num_detections == 1


def test_difficult_objects_are_ignored_but_do_not_swallow_others():
    found_and_difficult = [
        Annotation((10, 10, 30, 30), 0, 0),
        Annotation((60, 60, 90, 90), 0, 0, difficult=1),
    ]
    records = [Record("a.jpg", "000001", 100, 100, tuple(found_and_difficult))]
    ground_truth = ground_truth_from_records(records, ("cat", "dog"), (3, 5))
    assert ground_truth["annotations"][0]["bbox"] == [10, 10, 20, 20]
    hit = [row("000001", 3, [10, 10, 20, 20], 0.5)]
    # missed: nothing lost; found first: nothing gained or lost
    assert judge(ground_truth, hit).results["AP"] == pytest.approx(100)
    both = [*hit, row("000001", 3, [60, 60, 30, 30], 0.9)]
    assert judge(ground_truth, both).results["AP"] == pytest.approx(100)
    assert judge(ground_truth, both).num_objects == 1
    # a box inside a difficult object is no crowd match: its IoU is low, so it is wrong
    inside = [*hit, row("000001", 3, [65, 65, 5, 5], 0.9)]
    assert judge(ground_truth, inside).results["AP"] == pytest.approx(50)


def test_records_with_width_and_height():
    records = [Record("a.jpg", 7, 100, 100, (Annotation((10, 10, 20, 40), 1, 1),))]
    entry = ground_truth_from_records(records, ("cat", "dog"), (3, 5))["annotations"][0]
    assert (entry["bbox"], entry["area"], entry["category_id"]) == ([10, 10, 20, 40], 800, 5)


def test_ground_truth_is_not_changed():
    ground_truth = truth((7, 3, [10, 10, 20, 20], {}))
    before = json.dumps(ground_truth)
    rows = [row(7, 3, [10, 10, 20, 20])]
    judge(ground_truth, rows)
    assert json.dumps(ground_truth) == before
    assert rows == [row(7, 3, [10, 10, 20, 20])]


def test_detections_to_rows():
    boxes = np.array([[1.5, 2, 11.5, 22], [0, 0, 4, 4]], np.float32)
    rows = detections_to_rows(np.int64(7), boxes, np.array([0.5, 0.25]), np.array([1, 0]), (3, 5))
    assert rows == [row(7, 5, [1.5, 2.0, 10.0, 20.0], 0.5), row(7, 3, [0.0, 0.0, 4.0, 4.0], 0.25)]
    json.dumps(rows)
    assert detections_to_rows("a", np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), (3,)) == []
    with pytest.raises(ValueError, match="class index"):
        detections_to_rows(7, boxes, np.ones(2), np.array([0, 2]), (3, 5))
    with pytest.raises(ValueError, match="2 boxes, 1 scores"):
        detections_to_rows(7, boxes, np.ones(1), np.array([0, 1]), (3, 5))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(8, 3, [1, 1, 2, 2]), r"row 1: image_id 8 is not an image"),
        (row("7", 3, [1, 1, 2, 2]), r"row 1: image_id '7' is not an image"),
        (row(7, 4, [1, 1, 2, 2]), r"row 1: category_id 4 is not a category"),
        (row(7, 3, [1, 1, -2, 2]), r"row 1: bbox .* negative"),
        (row(7, 3, [1, 1, 2]), r"row 1: bbox .* four finite"),
        (row(7, 3, [1, 1, 2, float("nan")]), r"row 1: bbox .* four finite"),
        (row(7, 3, [1, 1, 2, 2], float("inf")), r"row 1: score inf"),
        (row(7, 3, [1, 1, 2, 2], None), r"row 1: score None"),
        (row(7, True, [1, 1, 2, 2]), r"row 1: category_id True"),
        ({"image_id": 7, "category_id": 3}, r"row 1: bbox, score is missing"),
        ([7, 3], r"row 1: \[7, 3\] is not a detection"),
    ],
)
def test_a_wrong_row_is_named(bad, message):
    with pytest.raises(InputError, match=message):
        judge(truth((7, 3, [1, 1, 2, 2], {})), [row(7, 3, [1, 1, 2, 2]), bad])


def test_result_files(tmp_path):
    rows = [row(7, 3, [1.25, 1, 2, 2], 0.1)]
    write_json(tmp_path / "rows.json", rows)
    assert read_rows(tmp_path / "rows.json") == rows
    write_json(tmp_path / "none.json", [])
    assert read_rows(tmp_path / "none.json") == []
    (tmp_path / "half.json").write_text('[{"image_id": 1')
    (tmp_path / "map.json").write_text("{}")
    (tmp_path / "bad.json").write_text('[{"image_id": 1}]')
    for name, message in [
        ("missing.json", "does not exist"),
        ("half.json", "cannot be read as JSON"),
        ("map.json", "must hold a list"),
        ("bad.json", "row 0: category_id, bbox, score is missing"),
    ]:
        with pytest.raises(InputError, match=message):
            read_rows(tmp_path / name)


def test_ground_truth_files(tmp_path):
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "part.json").write_text('{"images": [], "annotations": []}')
    for name, message in [("no.json", "does not exist"), ("list.json", "images")]:
        with pytest.raises(InputError, match=message):
            read_json(tmp_path / name)
    with pytest.raises(InputError, match="categories"):
        read_json(tmp_path / "part.json")
    broken = truth((7, 3, [1, 1, 2, 2], {}))
    del broken["annotations"][0]["bbox"]
    with pytest.raises(InputError, match=r"lacks its .*bbox"):
        judge(broken, [])


def test_evaluation_as_json():
    evaluation = judge(
        truth((7, 3, [10, 10, 20, 20], {})),
        [row(7, 3, [10, 10, 20, 20])],
        base_classes=("cat",),
        novel_classes=("dog",),
    )
    content = json.loads(json.dumps(evaluation.to_json()))
    assert content["dataset"] == "toy"
    assert "COCO box AP in percent" in content["protocol"]
    assert content["results"]["bAP"] == pytest.approx(100)
    assert content["results"]["nAP"] == UNDEFINED
    assert content["num_classes"] == {"all": 2, "base": 1, "novel": 1}
    assert content["per_class_AP"]["dog"] == UNDEFINED
    assert len(content["summary"]["all"]) == 12


def test_table_format():
    ap50 = {"a": 50.0, "b": 100.0, "c": UNDEFINED, "d e": 0.25}
    table = per_category_table({"a": 12.3456, "b": 100.0, "c": UNDEFINED, "d e": 0.0}, ap50)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert all(cell.startswith(":--") for cell in lines.pop(1))
    assert lines == [
        ["category", "AP", "AP50"] * 3,
        ["a", "12.346", "50.000", "b", "100.000", "100.000", "c", "n/a", "n/a"],
        ["d e", "0.000", "0.250", *[""] * 6],
    ]
    one = per_category_table({"one": 1.0}, {"one": 2.0})
    assert one.startswith("| category   | AP    | AP50   |")
