# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The configurations of blood cells with the data in each format, as docs/own_data.md lays them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from src.assembly.data import describe_set, read_sets
from src.data.transforms import to_xyxy
from src.model_utils.config import load_config
from src.model_utils.paths import project_folder
from src.tools import draw_kshot
from tests.helpers.data_helpers import write_image
from tests.programs.test_own_formats import write_labels, write_xml

OWN = project_folder() / "configs" / "own"
CLASSES = ("RBC", "WBC", "Platelets")
NAMES = {"train": [f"BloodImage_{n:05d}" for n in range(12)], "test": ["BloodImage_00012"]}
OVERLAYS = {
    "coco": [],
    "voc": [f"--overlay={OWN / '_bccd_voc.yaml'}"],
    "yolo": [f"--overlay={OWN / '_bccd_yolo.yaml'}"],
}


def table(part):
    """COCO's: a cell of each class in each picture, in another place in each."""
    images, annotations = [], []
    for place, name in enumerate(NAMES[part]):
        size = {"width": 64, "height": 48}
        images.append({"id": place + 1, "file_name": f"{name}.jpg", **size})
        for index in range(len(CLASSES)):
            box = [2 + place, 3 + 2 * index, 20 + index, 10 + place]
            entry = {"image_id": place + 1, "category_id": index + 1, "bbox": box}
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, **entry})
    found = [{"id": index, "name": name} for index, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": found}


def write_coco(root):
    (root / "annotations").mkdir(parents=True)
    for part, name in (("train", "trainval"), ("test", "test")):
        path = root / "annotations" / f"instances_{name}.json"
        path.write_text(json.dumps(table(part)))
    return {"train": root / "images", "test": root / "images"}


def write_voc(root):
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for part, name in (("train", "trainval"), ("test", "test")):
        write_xml(table(part), root / "Annotations")
        ids = "".join(f"{one}\n" for one in NAMES[part])
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(ids)
    return {"train": root / "JPEGImages", "test": root / "JPEGImages"}


def write_yolo(root):
    for part in NAMES:
        (root / "labels" / part).mkdir(parents=True)
        write_labels(table(part), root / "labels" / part)
    (root / "data.yaml").write_text(yaml.safe_dump({"names": list(CLASSES)}))
    return {part: root / "images" / part for part in NAMES}


@pytest.fixture
def trees(tmp_path):
    """`datasets_root` by format, with K-shot sets drawn by the tutorial's command."""
    roots = {}
    for form, write in (("coco", write_coco), ("voc", write_voc), ("yolo", write_yolo)):
        roots[form] = tmp_path / form
        for part, folder in write(roots[form] / "bccd").items():
            for name in NAMES[part]:
                write_image(folder / f"{name}.jpg", 48, 64)
        words = [f"--config_path={OWN / 'bccd_base.yaml'}", *OVERLAYS[form]]
        shots = [f"--datasets_root={roots[form]}", "--shots", "5", "10"]
        assert draw_kshot.main([*words, *shots]) == 0
    return roots


def objects(records, names):
    """Class and corners of each object, by picture."""
    found = {}
    for record in records:
        picture = record.file_name.rpartition("/")[2]
        for one in record.annotations:
            corners = np.round(to_xyxy(one.bbox, one.bbox_mode), 6).tolist()
            found.setdefault(picture, []).append((names[one.category_id], *corners))
    return {picture: sorted(boxes) for picture, boxes in found.items()}


@pytest.mark.parametrize("name", ["bccd_base", "bccd_fsod_10shot", "bccd_gfsod_10shot"])
def test_all_formats_give_the_same(trees, name):
    found = {}
    for form, root in trees.items():
        words = [*OVERLAYS[form], f"--datasets_root={root}"]
        config = load_config(OWN / f"{name}.yaml", words)
        assert config.data.custom["bccd"].format == form
        every = describe_set(config, "bccd_train_all")
        found[form] = [every.class_names, every.novel_classes]
        for names in (config.data.train, config.data.test):
            info, records = read_sets(config, names)
            found[form] += [info.class_names, objects(records, info.class_names)]
    assert found["voc"] == found["coco"]
    assert found["yolo"] == found["coco"]
    classes, novel, *_, shown = found["coco"]
    assert (classes, novel) == (CLASSES, ("WBC",))
    (boxes,) = shown.values()  # of the only test picture
    wanted = {"bccd_base": ["Platelets", "RBC"], "bccd_fsod_10shot": ["WBC"]}
    assert [one[0] for one in boxes] == wanted.get(name, sorted(CLASSES))


def test_overlays_change_nothing_but_the_data():
    for path in OWN.glob("[!_]*.yaml"):
        plain = load_config(path)
        for form in ("voc", "yolo"):
            laid = load_config(path, OVERLAYS[form])
            assert laid.data.train == plain.data.train and laid.data.test == plain.data.test
            assert laid.data.custom["bccd"].few_shot == plain.data.custom["bccd"].few_shot
            assert laid.model_copy(update={"data": plain.data}) == plain
