"""Topic 14: records of COCO's full sets, and what the official mapper makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.batching import Preprocessing, collate
from src.dataset import EvalLoader, build_mindrecord, load_dataset, usable_for_training
from src.mindrecord_build import BuildReport, usable_boxes
from src.mindrecord_io import Row
from src.transforms import decode, resize, resized_shape, to_bgr
from tests.golden import golden

pytestmark = pytest.mark.golden
FULL_SETS = [
    "coco14_trainval_base",
    "coco14_trainval_all",
    "coco14_test_all",
    "coco14_test_base",
    "coco14_test_novel",
]


def load(name):
    return load_dataset([name], datasets_root=golden.root() / "tree" / "datasets")


def as_official(record):
    """A record in the form of the vectors."""
    annotations = [
        {
            "iscrowd": entry.iscrowd,
            "bbox": list(entry.bbox),
            "category_id": entry.category_id,
            "bbox_mode": entry.bbox_mode,
        }
        for entry in record.annotations
    ]
    return {
        "file_name": Path(record.file_name).relative_to(golden.root() / "tree").as_posix(),
        "height": record.height,
        "width": record.width,
        "image_id": record.image_id,
        "annotations": annotations,
    }


@pytest.mark.parametrize("name", FULL_SETS)
def test_records(name):
    expected = golden.record("14_data")["coco"][name]
    info, records = load(name)
    assert list(info.class_names) == expected["thing_classes"]
    mapping = [[number, index] for index, number in enumerate(info.category_ids)]
    assert mapping == expected["category_id_to_class"]
    assert [as_official(record) for record in records] == expected["records"]
    assert len(usable_for_training(records)) == expected["usable_for_training"]


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
    loader = EvalLoader(folder, pixel_mean=(0.0, 0.0, 0.0))
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
