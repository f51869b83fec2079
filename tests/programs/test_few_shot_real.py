# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""K-shot sets of the shared real data: COCO and VOC photographs, blood cells, TFA's own lists."""

from __future__ import annotations

import tarfile
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from src.dataset import load_dataset
from src.model_utils.custom_sets import CustomDataset, CustomSource
from tests.helpers.data_helpers import shared, voc_xml


def load(name, root, custom=None):
    return load_dataset([name], datasets_root=root, custom=custom)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("shot", [1, 2, 3, 5])
def test_coco_photographs(shot, seed):
    root = shared("coco_mini") / "datasets"
    info, records = load(f"coco14_trainval_all_{shot}shot_seed{seed}", root)
    counts = Counter(entry.category_id for record in records for entry in record.annotations)
    few = {info.class_names.index("hair drier"): 3}  # the data have no more
    assert counts == {index: min(shot, few.get(index, shot)) for index in range(80)}
    ids = [record.image_id for record in records]
    assert len(set(ids)) == len(ids)
    assert all(Path(record.file_name).is_file() for record in records)
    novel, novel_records = load(f"coco14_trainval_novel_{shot}shot_seed{seed}", root)
    assert novel.class_names == info.novel_classes
    assert sum(len(record.annotations) for record in novel_records) == 20 * shot
    # the boxes are those of the full annotation file
    full = {r.image_id: r for r in load("coco14_trainval_novel", root)[1]}
    for record in novel_records:
        assert set(record.annotations) <= set(full[record.image_id].annotations)
        assert replace(record, annotations=()) == replace(full[record.image_id], annotations=())


@pytest.mark.parametrize("number", [1, 2, 3])
def test_voc_photographs(number):
    root = shared("voc_mini") / "datasets"
    names = [f"voc_{year}_trainval_base{number}" for year in (2007, 2012)]
    info, records = load_dataset(names, datasets_root=root)
    assert len(records) == 65 and len(info.class_names) == 15
    _, records = load(f"voc_2007_test_novel{number}", root)
    assert len(records) == 40
    assert {e.category_id for r in records for e in r.annotations} == set(range(5))
    for seed in (0, 1):
        for shot in (1, 2, 3, 5):
            info, records = load(f"voc_2007_trainval_all{number}_{shot}shot_seed{seed}", root)
            few = {info.class_names.index(name): min(shot, 4) for name in ("cat", "motorbike")}
            counts = Counter(record.annotations[0].category_id for record in records)
            assert counts == {index: few.get(index, shot) for index in range(20)}
            assert all(Path(record.file_name).is_file() for record in records)


def test_blood_cells():
    folder = shared("byo_bccd")
    train = CustomSource(annotations="annotations/instances_trainval.json", images="images")
    test = CustomSource(annotations="annotations/instances_test.json", images="images")
    own = CustomDataset(
        format="coco",
        train=train,
        test=test,
        novel_classes=("Platelets",),
        classes=(),
        few_shot="cocosplit",
    )
    for seed in range(5):
        for shot in (1, 2, 3, 5, 10):
            _, records = load(f"bccd_train_all_{shot}shot_seed{seed}", folder, {"bccd": own})
            counts = Counter(entry.category_id for r in records for entry in r.annotations)
            assert counts == {0: shot, 1: shot, 2: shot}
            _, records = load(f"bccd_train_novel_{shot}shot_seed{seed}", folder, {"bccd": own})
            assert sum(len(record.annotations) for record in records) == shot


def test_all_published_voc_lists(tmp_path):
    """All 30 seeds of TFA's lists, with stand-ins for the annotations of VOC's images."""
    archive = shared("tfa_splits") / "vocsplit_seed0-29.tar.gz"
    with tarfile.open(archive) as content:
        members = [member for member in content.getmembers() if member.isfile()]
        assert len(members) == 30 * 5 * 20
        texts = {member.name: content.extractfile(member).read().decode() for member in members}
    classes = defaultdict(set)
    lines = {}
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        _, shot, class_name, _ = path.name.split("_")
        lines[path.parent.name, shot, class_name] = text.split()
        for line in text.split():
            classes[line].add(class_name)
    for year in ("2007", "2012"):
        for folder in ("Annotations", "JPEGImages"):
            (tmp_path / f"VOC{year}" / folder).mkdir(parents=True)
    for line, names in classes.items():
        path = tmp_path / line.removeprefix("datasets/").replace("JPEGImages", "Annotations")
        objects = [(name, 1, 1, 9, 9, 0) for name in sorted(names)]
        path.with_suffix(".xml").write_text(voc_xml(30, 40, objects, Path(line).name))
    for seed in range(30):
        for shot in (1, 2, 3, 5, 10):
            info, records = load(f"voc_2007_trainval_all1_{shot}shot_seed{seed}", tmp_path)
            for index, name in enumerate(info.class_names):
                files = [r.file_name for r in records if r.annotations[0].category_id == index]
                listed = lines[f"seed{seed}", f"{shot}shot", name]
                expected = [str(tmp_path / line.removeprefix("datasets/")) for line in listed]
                assert files == expected  # one object an image here, never more than K lines
