# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Names of data sets, taken apart."""

import pytest

from src.model_utils.set_names import (
    SetName,
    fill_seed,
    is_reserved,
    names_like,
    parse_name,
    split_shots,
)

OWN = ("x", "x_test", "voc_x")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("coco14_test_base", SetName("coco14", "test", "base")),
        ("coco14_trainval_all_30shot_seed9", SetName("coco14", "trainval", "all", shots=(30, 9))),
        ("voc_2012_trainval_novel3", SetName("voc_2012", "trainval", "novel", 3)),
        (
            "voc_2007_trainval_all1_1shot_seed0",
            SetName("voc_2007", "trainval", "all", 1, False, (1, 0)),
        ),
        ("x_train_all", SetName("x", "train", "all", own=True)),
        ("x_test_train_all", SetName("x_test", "train", "all", own=True)),
        ("voc_x_test_novel", SetName("voc_x", "test", "novel", own=True)),
        ("x_train_novel_7shot_seed12", SetName("x", "train", "novel", own=True, shots=(7, 12))),
        *(
            (name, None)
            for name in ("", "x", "x_test", "y_train_all", "x_trainval_all", "x_train_all1")
        ),
        *((name, None) for name in ("coco14_train_all", "coco14_test_all1", "coco14_val_all")),
        *(
            (name, None)
            for name in ("voc_2012_test_all1", "voc_2007_test_all", "voc_2010_test_all1")
        ),
        *((name, None) for name in ("x_test_all_1shot_seed0", "x_train_base_1shot_seed0")),
        *((name, None) for name in ("x_train_all_1shot_seedx", "x_train_all_01shot_seed0")),
        ("x_train_all_1shot_seed" + "9" * 5000, None),
    ],
)
def test_a_name_taken_apart(name, expected):
    assert parse_name(name, OWN) == expected


def test_the_full_set_of_a_k_shot_set():
    for name in ("coco14_trainval_novel", "voc_2007_trainval_all2", "x_test_train_all"):
        parsed = parse_name(f"{name}_5shot_seed1", OWN)
        assert parsed is not None and parsed.full == name


def test_shots_of_any_name():
    assert split_shots("whatever_3shot_seed4") == ("whatever", 3, 4)
    assert split_shots("whatever_3shot_seedx") == ("whatever", 3, None)
    assert split_shots("whatever_3shots_seed4") is None


def test_seedx_is_a_word_of_its_own():
    assert fill_seed("a_5shot_seedx", 3) == "a_5shot_seed3"
    assert fill_seed("runs/seedx/novel_seedx", 0) == "runs/seed0/novel_seed0"
    assert fill_seed("linseedx seedxy", 3) == "linseedx seedxy"


def test_names_of_the_built_in_sets_are_reserved():
    assert all(map(is_reserved, ("coco14", "coco14_mine", "voc_2007", "voc2012_x")))
    assert not any(map(is_reserved, ("coco", "coco141", "voc", "voc_x")))


def test_names_to_compare_a_misspelt_one_with():
    assert "x_train_base" in names_like("x_tarin_base", OWN)
    assert "voc_2012_test_all1" not in names_like("voc_2012_test_all1", OWN)
    shots = names_like("x_tarin_all_5_shots_seed3", OWN)
    assert "x_train_all_5shot_seed3" in shots and "coco14_trainval_novel_5shot_seed3" in shots
    assert all(name.endswith("_5shot_seed3") and "base" not in name for name in shots)
