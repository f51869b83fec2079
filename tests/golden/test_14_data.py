# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 14: records of COCO's and VOC's sets, and what the official mapper makes of COCO's."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from src.data.batching import Preprocessing, collate
from src.data.mindrecord_build import BuildReport, usable_boxes
from src.data.mindrecord_io import Row
from src.data.transforms import decode, resize, resized_shape, to_bgr
from src.dataset import EvalLoader, build_mindrecord, load_dataset, usable_for_training
from src.model_utils.set_names import is_few_shot
from tests.golden import golden

pytestmark = pytest.mark.golden
# Names do not depend on the vectors' seed, so those of the copy here serve for collection.
NAMES = golden.record_of(golden.HERE / "14_data.json")
COCO_SETS, VOC_SETS = list(NAMES["coco"]), list(NAMES["voc"])
FEW_SHOT_VOC_SETS = [name for name in VOC_SETS if is_few_shot(name)]
FEW_SHOT_SETS = [name for name in COCO_SETS if is_few_shot(name)] + FEW_SHOT_VOC_SETS


def load(name):
    return load_dataset([name], datasets_root=golden.root() / "tree" / "datasets")


def as_official(record, keys=("iscrowd", "bbox", "category_id", "bbox_mode")):
    """A record in the form of the vectors; VOC's annotations there have no iscrowd."""
    annotations = [
        {key: list(entry.bbox) if key == "bbox" else getattr(entry, key) for key in keys}
        for entry in record.annotations
    ]
    return {
        "file_name": Path(record.file_name).relative_to(golden.root() / "tree").as_posix(),
        "height": record.height,
        "width": record.width,
        "image_id": record.image_id,
        "annotations": annotations,
    }


def as_official_voc(record):
    return as_official(record, ("bbox", "category_id", "bbox_mode"))


def test_every_set_is_compared():
    vectors = golden.record("14_data")
    assert (list(vectors["coco"]), list(vectors["voc"])) == (COCO_SETS, VOC_SETS)
    assert len(COCO_SETS) == 11 and len(VOC_SETS) == 20


@pytest.mark.parametrize("name", COCO_SETS)
def test_records(name):
    """Also the K-shot sets: one record an image, the boxes of all classes merged."""
    expected = golden.record("14_data")["coco"][name]
    info, records = load(name)
    assert list(info.class_names) == expected["thing_classes"]
    mapping = [[number, index] for index, number in enumerate(info.category_ids)]
    assert mapping == expected["category_id_to_class"]
    assert [as_official(record) for record in records] == expected["records"]
    assert len(usable_for_training(records)) == expected["usable_for_training"]


@pytest.mark.parametrize("name", VOC_SETS)
def test_voc_records(name):
    """VOC's K-shot sets have one record an object, and some classes a draw of K objects."""
    expected = golden.record("14_data")["voc"][name]
    drawn = golden.record("14_data")["voc_classes_with_a_random_draw"].get(name, {})
    info, records = load(name)
    assert list(info.class_names) == expected["thing_classes"]
    assert len(usable_for_training(records)) == expected["usable_for_training"]
    free = {info.class_names.index(class_name) for class_name in drawn}

    def fixed(found):
        return [
            entry for entry in found if not free & {a["category_id"] for a in entry["annotations"]}
        ]

    ours = [as_official_voc(record) for record in records]
    if is_few_shot(name):
        assert all(len(record.annotations) == 1 for record in records)
        assert fixed(ours) == fixed(expected["records"])
    else:
        assert not drawn
        assert ours == expected["records"]


@pytest.mark.parametrize("name", FEW_SHOT_VOC_SETS)
def test_classes_with_a_draw_keep_k_of_their_objects(name):
    """By count as the vectors say, and each one an object of the class in the annotations."""
    drawn = golden.record("14_data")["voc_classes_with_a_random_draw"][name]
    info, records = load(name)
    counts = Counter(record.annotations[0].category_id for record in records)
    assert len(records) == len(golden.record("14_data")["voc"][name]["records"])
    for class_name, numbers in drawn.items():
        index = info.class_names.index(class_name)
        assert counts[index] == numbers["kept"] < numbers["objects"]
        ours = [as_official_voc(r) for r in records if r.annotations[0].category_id == index]
        pool = [
            {**as_official_voc(image), "annotations": [entry]}
            for year in ("2007", "2012")
            for image in load(f"voc_{year}_trainval_{name.split('_')[3]}")[1]
            for entry in as_official_voc(image)["annotations"]
        ]
        assert all(entry in pool for entry in ours)
        keys = [json.dumps(entry, sort_keys=True) for entry in ours]
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", FEW_SHOT_SETS)
def test_reading_again_gives_the_same_boxes(name):
    assert load(name) == load(name)


def test_all_and_novel_sets_draw_the_same_boxes():
    """With the class `boat`, which has a draw in the vectors and is novel in split 3."""
    everything = load("voc_2007_trainval_all3_1shot_seed0")
    novel = load("voc_2007_trainval_novel3_1shot_seed0")
    boats = []
    for info, records in (everything, novel):
        index = info.class_names.index("boat")
        boats.append(
            [
                (r.file_name, r.annotations[0].bbox)
                for r in records
                if r.annotations[0].category_id == index
            ]
        )
    assert len(boats[0]) == 1 and boats[0] == boats[1]


def prepared(record, short_edge, max_size):
    boxes, classes = usable_boxes(record, BuildReport())
    content = Path(record.file_name).read_bytes()
    row = Row(content, boxes, classes, record.height, record.width, record.image_id, "")
    return row, resized_shape(record.height, record.width, short_edge, max_size), False


@pytest.mark.parametrize(
    ("name", "short_edge", "max_size"), [("test_800", 800, 1333), ("train_96_no_flip", 96, 150)]
)
def test_mapper(name, short_edge, max_size):
    records = {record.image_id: record for record in load("coco14_trainval_all")[1]}
    settings = Preprocessing(max_size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (), 1, 10**8)
    expected = golden.record("14_data")["mapper"][name]
    assert expected
    for entry in expected:
        row, size, flip = prepared(records[entry["image_id"]], short_edge, max_size)
        pixels = to_bgr(resize(decode(row.content, ""), *size))
        assert pixels.sum(axis=(0, 1), dtype=np.int64).tolist() == entry["channel_sums"]
        batch = collate([(row, size, flip)], settings)
        assert list(batch.images.shape[1:]) == entry["shape"]
        sums = batch.images.sum(axis=(0, 2, 3), dtype=np.float64)
        assert sums.tolist() == entry["channel_sums"]
        boxes = np.array(entry["gt_boxes"]).reshape(-1, 4)
        count = int(batch.gt_valid.sum())
        assert count == len(boxes)
        np.testing.assert_allclose(batch.gt_boxes[0, :count], boxes, atol=1e-3, rtol=0)
        assert batch.gt_classes[0, :count].tolist() == entry["gt_classes"]


def test_mapper_through_mindrecord(tmp_path):
    """The whole way: records, MindRecord, loader; pixels and boxes stay the official ones."""
    info, records = load("coco14_trainval_all")
    folder = tmp_path / "test"
    build_mindrecord(
        records, folder, class_names=info.class_names, training=False, show_progress=False
    )
    loader = EvalLoader(folder, Preprocessing(pixel_mean=(0.0, 0.0, 0.0)))
    batches = {batch.image_ids[0]: batch for batch in loader}
    assert list(batches) == [record.image_id for record in records]
    for entry in golden.record("14_data")["mapper"]["test_800"]:
        batch = batches[entry["image_id"]]
        sums = batch.images.sum(axis=(0, 2, 3), dtype=np.float64)
        assert sums.tolist() == entry["channel_sums"]
        boxes = np.array(entry["gt_boxes"]).reshape(-1, 4)
        valid = batch.gt_valid[0]
        np.testing.assert_allclose(batch.gt_boxes[0, valid], boxes, atol=1e-3, rtol=0)
        assert batch.gt_classes[0, valid].tolist() == entry["gt_classes"]
