# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Small data sets for tests, and the place of the shared real ones."""

from __future__ import annotations

import copy
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.defrcn.built_datacategory import XYWH, Annotation, Record
from src.defrcn.data_types import DatasetInfo
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.model_utils.paths import project_folder


def shared(name: str) -> Path:
    """A folder of shared real data; the test is skipped without it."""
    beside = project_folder().parent / "shared" / "data"
    root = Path(os.environ.get("DEFRCN_SHARED_DATA") or beside)
    if not (root / name).is_dir():
        pytest.skip(f"no folder {name} in {root}; set DEFRCN_SHARED_DATA to the shared data")
    return root / name


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def write_image(path: Path, height: int, width: int, seed: int = 0, **save) -> Path:
    """Write a picture; `save` goes to Pillow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(height, width, seed)).save(path, **save)
    return path


def encoded(image: Image.Image, kind: str = "PNG", **save) -> bytes:
    """The bytes of a picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **save)
    return buffer.getvalue()


def record(path: Path, height: int, width: int, boxes=((2.0, 3.0, 10.0, 8.0),), image_id=1):
    """A record with (x, y, width, height) boxes of class 0, 1, ..."""
    annotations = tuple(Annotation(tuple(box), XYWH, index) for index, box in enumerate(boxes))
    return Record(str(path), image_id, height, width, annotations)


def picture_records(folder: Path, sizes, seed: int = 0) -> list[Record]:
    """Pictures of the given (height, width), each with one or more boxes."""
    records = []
    for index, (height, width) in enumerate(sizes):
        path = write_image(folder / f"{index:03d}.png", height, width, seed + index)
        boxes = [(1.0 + k, 2.0, width / 2, height / 2) for k in range(1 + index % 3)]
        records.append(record(path, height, width, boxes, image_id=100 + index))
    return records


CATEGORIES = [{"id": 7, "name": "ring"}, {"id": 2, "name": "cross"}, {"id": 4, "name": "star"}]


def coco_content() -> dict:
    """A COCO-format file of two pictures, 40 x 60 and 50 x 30, with three objects."""
    return {
        "images": [
            {"id": 5, "file_name": "b.png", "height": 40, "width": 60},
            {"id": 3, "file_name": "a.png", "height": 50, "width": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 2, "bbox": [5, 6, 7.5, 8], "iscrowd": 0},
            {"id": 3, "image_id": 5, "category_id": 4, "bbox": [9, 8, 7, 6], "iscrowd": 1},
        ],
        "categories": copy.deepcopy(CATEGORIES),
    }


def coco_tree(root: Path, change=None) -> dict[str, CustomDataset]:
    """Write a small data set of one's own named `toy` (novel class: star), changed by `change`."""
    write_image(root / "toy" / "images" / "a.png", 50, 30, 1)
    write_image(root / "toy" / "images" / "b.png", 40, 60, 2)
    content = coco_content()
    if change is not None:
        change(content)
    (root / "toy" / "train.json").write_text(json.dumps(content))
    source = CustomSource(annotations="toy/train.json", images="toy/images")
    return {"toy": CustomDataset(format="coco", train=source, test=source, novel_classes=("star",))}


# A configuration that names the data set of `coco_tree`; `root` is its folder.
TOY_CONFIG = """
datasets_root: {root}
data:
  train: [toy_train_all]
  test: [toy_test_all]
  custom:
    toy:
      format: coco
      train: {{annotations: toy/train.json, images: toy/images}}
      test: {{annotations: toy/train.json, images: toy/images}}
      novel_classes: [star]
"""

VOC_OBJECT = """  <object><name>{name}</name><difficult>{difficult}</difficult>
  <bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>
"""


def voc_xml(height: int, width: int, objects, file_name: str = "", head: str = "") -> str:
    """A VOC-style annotation; objects are (name, x1, y1, x2, y2, difficult)."""
    keys = ("name", "x1", "y1", "x2", "y2", "difficult")
    body = "".join(VOC_OBJECT.format(**dict(zip(keys, entry))) for entry in objects)
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"{head}<annotation><filename>{file_name}</filename>{size}\n{body}</annotation>"


def named_set(name="toy", class_names=("cat", "dog"), category_ids=(3, 5), **fields) -> DatasetInfo:
    """A test set of which only the name and the classes matter."""
    return DatasetInfo(
        **{
            **{"name": name, "format": "coco", "annotations": Path(), "image_root": Path()},
            **{"image_list": None, "class_names": class_names, "category_ids": category_ids},
            **{"base_classes": (), "novel_classes": (), **fields},
        }
    )
