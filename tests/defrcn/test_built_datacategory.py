# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Class tables and data set names."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.defrcn.built_datacategory import (
    COCO_CATEGORIES,
    COCO_NOVEL_CLASSES,
    resolve_dataset,
    split_classes,
)
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.model_utils.errors import InputError

OWN = CustomDataset(
    format="coco",
    train=CustomSource(annotations="t.json", images="t"),
    test=CustomSource(annotations="v.json", images="v"),
)


def test_coco_table():
    ids = [number for number, _ in COCO_CATEGORIES]
    assert ids == sorted(set(ids)) and len(ids) == 80
    # the ids that COCO has never used
    assert set(range(1, 91)) - set(ids) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


@pytest.mark.parametrize(("split", "count", "first"), [("all", 80, 1), ("base", 60, 8)])
def test_splits(split, count, first):
    names, ids = split_classes(COCO_CATEGORIES, COCO_NOVEL_CLASSES, split)
    assert (len(names), len(ids), ids[0]) == (count, count, first)


def test_novel_and_base_make_all():
    novel = split_classes(COCO_CATEGORIES, COCO_NOVEL_CLASSES, "novel")[1]
    base = split_classes(COCO_CATEGORIES, COCO_NOVEL_CLASSES, "base")[1]
    expected = (1, 2, 3, 4, 5, 6, 7, 9, 16, 17, 18, 19, 20, 21, 44, 62, 63, 64, 67, 72)
    assert novel == expected
    assert sorted(base + novel) == [number for number, _ in COCO_CATEGORIES]


def test_coco_paths():
    info = resolve_dataset("coco14_trainval_base", datasets_root="d", coco_root="/c")
    assert info.annotations == Path("d/cocosplit/datasplit/trainvalno5k.json")
    assert info.image_root == Path("/c/trainval2014")
    info = resolve_dataset("coco14_test_novel", datasets_root="d")
    assert info.annotations == Path("d/cocosplit/datasplit/5k.json")
    assert info.image_root == Path("d/coco/val2014")
    assert (len(info.class_names), len(info.base_classes)) == (20, 60)


def test_own_paths():
    info = resolve_dataset("x_test_all", datasets_root="d", custom={"x": OWN})
    assert (info.annotations, info.image_root) == (Path("d/v.json"), Path("d/v"))
    assert info.class_source == Path("d/t.json")  # classes always come from the training part


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("coco14_trainval_bse", "did you mean 'coco14_trainval_base'"),
        ("x_tset_all", "did you mean 'x_test_all'"),
        ("x_test_novel", "names no novel classes"),
        ("", "unknown"),
    ],
)
def test_unknown_names(name, hint):
    with pytest.raises(InputError, match=hint):
        resolve_dataset(name, custom={"x": OWN})
