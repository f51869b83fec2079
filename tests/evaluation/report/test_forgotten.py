# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""AP of the base classes before and after fine-tuning, by hand; earlier results of all kinds."""

import json
from dataclasses import replace

import pytest

from src.detecteval import evaluate
from src.evaluation.report.forgotten import Before, compare, read_before
from src.model_utils.errors import InputError
from tests.helpers.data_helpers import named_set

NAMES, IDS = ("cat", "dog", "emu", "owl"), (1, 2, 3, 4)
INFO = named_set(
    class_names=NAMES,
    category_ids=IDS,
    base_classes=NAMES[:3],
    novel_classes=NAMES[3:],
)
AFTER = {"cat": 40.0, "dog": 30.0, "emu": -100.0, "owl": 20.0}
OBJECTS = {"cat": 4, "dog": 5, "emu": 0, "owl": 6}


def before(**fields):
    settings = {
        **{"folder": "base", "dataset": "toy_base", "metric": "coco", "num_images": 9},
        **{"per_class": {"cat": 44.0, "dog": 50.0, "emu": 10.0}},
        **{"per_class_objects": {"cat": 4, "dog": 5, "emu": 1}, "pcb": False},
    }
    return Before(**{**settings, **fields})


@pytest.fixture(scope="module")
def nothing():
    """An evaluation of nothing, to put figures into."""
    truth = {
        "images": [{"id": number, "height": 9, "width": 9} for number in range(9)],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in zip(IDS, NAMES)],
    }
    return evaluate(INFO, truth, [], metric="coco")


@pytest.fixture
def after(nothing):
    return replace(nothing, per_class=AFTER, per_class_objects=OBJECTS)


def test_by_hand(after):
    found = compare(before(), after, INFO)
    assert [row["class"] for row in found.rows] == ["dog", "cat", "emu"]  # the largest loss first
    dog, cat, emu = found.rows
    assert dog == {
        **{"class": "dog", "AP_before": 50.0, "AP_after": 30.0, "difference": -20.0},
        **{"objects_before": 5, "objects_after": 5, "in": "both"},
    }
    assert cat["difference"] == -4.0
    assert (emu["AP_before"], emu["AP_after"], emu["difference"]) == (10.0, None, None)
    assert (found.num_compared, found.mean_before, found.mean_after) == (2, 47.0, 35.0)
    assert found.mean_difference == -12.0
    assert found.warnings == ("Classes with another number of objects: emu 1 before and 0 after.",)


def test_equal_losses_keep_the_order_of_classes_and_gains_come_last(after):
    changed = replace(after, per_class={**AFTER, "cat": 46.0, "dog": 40.0, "emu": 0.0})
    found = compare(before(), changed, INFO)
    assert [(row["class"], row["difference"]) for row in found.rows] == [
        *(("dog", -10.0), ("emu", -10.0), ("cat", 2.0)),
    ]


def test_classes_of_one_side_only(after):
    earlier = before(
        per_class={"cat": 44.0, "yak": 7.0, "owl": 1.0}, per_class_objects={"cat": 4, "yak": 2}
    )
    found = compare(earlier, after, INFO)
    assert [(row["class"], row["in"]) for row in found.rows] == [
        *(("cat", "both"), ("dog", "after"), ("emu", "after"), ("yak", "before")),
    ]
    assert found.rows[3]["AP_before"] == 7.0
    assert found.rows[3]["objects_after"] is None
    assert (found.num_compared, found.mean_difference) == (1, -4.0)
    assert found.warnings == (
        "Only in the earlier evaluation, and not in the means: yak.",
        "Only in this one, and not in the means: dog, emu.",
    )


def test_test_sets_that_differ_are_told(after):
    found = compare(before(num_images=8, per_class_objects={}), after, INFO)
    assert found.warnings[0] == "The test sets differ: 8 images before, 9 after."
    assert "does not say how many objects" in found.warnings[1]
    counts = {"cat": 3, "dog": 5, "emu": 0}
    (told,) = compare(before(per_class_objects=counts), after, INFO).warnings
    assert told == "Classes with another number of objects: cat 3 before and 4 after."
    counts["cat"] = 4
    assert compare(before(per_class_objects=counts), after, INFO).warnings == ()


def test_without_a_defined_ap_there_is_no_mean(after):
    found = compare(before(per_class={"emu": 10.0}), after, INFO)
    assert (found.num_compared, found.mean_before, found.mean_difference) == (0, None, None)
    assert found.to_json()["mean_difference"] is None


def test_without_a_split_all_classes_count(after):
    info = named_set(class_names=NAMES, category_ids=IDS, base_classes=NAMES)
    found = compare(before(per_class={**AFTER, "owl": 25.0}), after, info)
    assert found.rows[0]["class"] == "owl"
    assert len(found.rows) == 4


def entry_of(**fields):
    one = before(**fields)
    return {
        **{"metric": one.metric, "num_images": one.num_images, "pcb": one.pcb},
        **{"per_class_AP": one.per_class, "per_class_objects": one.per_class_objects},
    }


def write(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "metrics.json").write_text(text)
    return folder


def read(place, info=INFO, metric="coco"):
    return read_before(place, "--before", info, metric)


def test_one_test_set_by_folder_or_file(tmp_path):
    folder = write(tmp_path / "base", {"toy_base": entry_of()})
    assert read(folder) == before()
    assert read(folder / "metrics.json") == before()
    # the file that src.tools.report writes is of one set
    write(folder, {"dataset": "toy_base", **entry_of()})
    assert read(folder) == before()


def test_the_file_of_an_evaluation(tmp_path, after):
    folder = write(tmp_path / "all", {"toy": after.to_json()})
    found = read(folder)
    assert (found.per_class, found.per_class_objects, found.pcb) == (AFTER, OBJECTS, None)
    assert compare(found, after, INFO).mean_difference == 0.0


def test_a_file_of_an_older_version(tmp_path):
    entry = entry_of()
    del entry["per_class_objects"], entry["pcb"]
    found = read(write(tmp_path / "old", {"toy_base": entry}))
    assert found == before(folder="old", per_class_objects={}, pcb=None)


def test_several_test_sets(tmp_path):
    sets = {"a": entry_of(), "novel": entry_of(per_class={"owl": 3.0}), "toy": entry_of(pcb=True)}
    folder = write(tmp_path / "base", sets)
    assert read(folder).dataset == "toy"  # that of the same name
    other = replace(INFO, name="mine")
    with pytest.raises(InputError, match=r"of several test sets \(a, toy\); name .*base/a$"):
        read(folder, other)
    (folder / "a").mkdir()
    assert read(folder / "a", other).dataset == "a"
    del sets["toy"]
    write(folder, sets)
    assert read(folder, other).dataset == "a"  # the only one with base classes
    (folder / "b").mkdir()
    with pytest.raises(InputError, match=r"metrics\.json has no figures of b; name the result"):
        read(folder / "b")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "is damaged or cannot be read"),
        ("[]", "is not what eval.py writes"),
        ("null", "is not what eval.py writes"),
        ("{}", "has no figures; name the result folder"),
        ({"toy": []}, "is not what eval.py writes"),
        ({"toy": {"per_class_AP": {"cat": "x"}}}, "is not what eval.py writes"),
        ({"toy": {"per_class_AP": {"cat": 1.0}}}, r"\(KeyError: 'metric'\)"),
        ({"toy": {"per_class_AP": {"cat": None}}}, "is not what eval.py writes"),
        ('{"toy": {"per_class_AP": {"cat": NaN}}}', "is not finite"),
        (
            {"toy": entry_of(per_class={"yak": 1.0})},
            r"none of the base classes .*\(cat, dog, emu\)",
        ),
        ({"toy": entry_of(per_class={"owl": 1.0})}, "none of the base classes of toy"),
        ({"toy": entry_of(metric="voc07")}, "by the metric voc07, toy is judged by coco"),
    ],
)
def test_wrong_files_are_named(tmp_path, content, expected):
    folder = write(tmp_path / "base", content)
    with pytest.raises(InputError, match=expected) as caught:
        read(folder)
    assert "base/metrics.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_such_results(tmp_path):
    with pytest.raises(InputError, match=r"^--before: .*gone does not exist"):
        read(tmp_path / "gone")
    with pytest.raises(InputError, match=r"^--before: .* has no metrics\.json; name the result"):
        read(tmp_path)
    novel = replace(INFO, class_names=("owl",), category_ids=(4,))
    with pytest.raises(InputError, match="^--before: toy has novel classes only"):
        read(tmp_path, novel)
