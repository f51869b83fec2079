# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What labelling tools get of predictions: COCO by pycocotools, Label Studio's form, YOLO's."""

from __future__ import annotations

import json
import logging
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO

from src.dataset import load_dataset
from src.evaluation.result_folder import INDEX, new_results
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.predict.output import Predictions
from tests.helpers.data_helpers import write_image

NAMES = ("cat", "no", 'a "dog" & <gnu>')
IDS = (7, 3, 12)
# name, height and width, detections: x1, y1, x2, y2, score, class index
PICTURES = {
    "a.png": (
        (40, 60),
        [(6.0, 4.0, 24.0, 36.0, 0.9, 2), (0.0, 0.0, 60.0, 40.0, 0.5, 0), (1, 1, 2, 2, 0.4, 1)],
    ),
    "sub/b #1.png": ((50, 30), [(1.25, 3.5, 2.75, 49.0, 0.75, 1)]),
    "sub/nothing.png": ((20, 20), []),
}


def predicted(folder, pictures=PICTURES, kind="images", threshold=0.5, complete=True):
    """Write results as the program does, without a network."""
    head = {"checkpoint": "run/defrcn-3.json"}
    found = Predictions(folder, NAMES, IDS, threshold, "my pictures", head)
    for name, ((height, width), detections) in pictures.items():
        table = np.array(detections, np.float32).reshape(-1, 6)
        rows = found.rows(table[:, :4], table[:, 4], table[:, 5].astype(int))
        place = {"file": name} if kind == "images" else {"frame": 0, "seconds": 0.0}
        found.add(place, np.zeros((height, width, 3), np.uint8), rows)
    found.write(kind, complete=complete)
    return json.loads((folder / "detections.json").read_text())


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_coco(tmp_path, capsys):
    predicted(tmp_path)
    truth = COCO(str(tmp_path / "coco_images.json"))
    assert truth.getImgIds() == [1, 2, 3] and truth.getAnnIds() == []
    images = truth.loadImgs([1, 2, 3])
    assert [(one["file_name"], one["height"], one["width"]) for one in images] == [
        (name, *size) for name, (size, _) in PICTURES.items()
    ]
    assert {one["id"]: one["name"] for one in truth.loadCats(truth.getCatIds())} == {
        7: "cat",
        3: "no",
        12: 'a "dog" & <gnu>',
    }
    results = truth.loadRes(str(tmp_path / "coco_results.json"))
    found = [
        (one["image_id"], one["category_id"], *one["bbox"], one["score"])
        for one in results.loadAnns(results.getAnnIds())
    ]
    # the third detection of the first picture is below the threshold
    assert found == [
        (1, 12, 6.0, 4.0, 18.0, 32.0, pytest.approx(0.9)),
        (1, 7, 0.0, 0.0, 60.0, 40.0, 0.5),
        (2, 3, 1.25, 3.5, 1.5, 45.5, 0.75),
    ]


REGION = {
    "id": str,
    "type": str,
    "from_name": str,
    "to_name": str,
    "original_width": int,
    "original_height": int,
    "image_rotation": int,
    "value": dict,
    "score": float,
}
VALUE = {"x": float, "y": float, "width": float, "height": float, "rotation": int}


def test_label_studio(tmp_path):
    """The fields of https://labelstud.io/guide/predictions, and a configuration that fits them."""
    predicted(tmp_path)
    view = ElementTree.parse(tmp_path / "label_studio.xml").getroot()
    image, labels = view
    assert (view.tag, image.tag, labels.tag) == ("View", "Image", "RectangleLabels")
    assert labels.get("toName") == image.get("name")
    assert [one.get("value") for one in labels] == list(NAMES)
    assert len({one.get("background") for one in labels}) == 3
    tasks = read(tmp_path / "label_studio.json")
    names = []
    for task in tasks:
        assert set(task) == {"data", "predictions"}
        parts = urlsplit(task["data"][image.get("value")[1:]])
        assert (parts.scheme, parts.netloc, parts.path) == ("", "", "/data/local-files/")
        assert not parts.fragment
        names += parse_qs(parts.query)["d"]
        (prediction,) = task["predictions"]
        assert set(prediction) == {"model_version", "score", "result"}
        assert prediction["model_version"] == "run/defrcn-3.json"
        assert 0 <= prediction["score"] <= 1
        ids = [one["id"] for one in prediction["result"]]
        assert len(set(ids)) == len(ids)
        for one in prediction["result"]:
            assert {key: type(value) for key, value in one.items()} == REGION
            assert one["type"] == "rectanglelabels"
            assert (one["from_name"], one["to_name"]) == (labels.get("name"), image.get("name"))
            assert {key: type(v) for key, v in one["value"].items()} == {
                **VALUE,
                "rectanglelabels": list,
            }
    assert names == [f"my pictures/{name}" for name in PICTURES]
    first, second, nothing = (task["predictions"][0] for task in tasks)
    assert first["score"] == pytest.approx(0.7) and second["score"] == 0.75
    assert nothing == {"model_version": "run/defrcn-3.json", "score": 0.0, "result": []}
    region = first["result"][0]
    assert (region["original_width"], region["original_height"]) == (60, 40)
    assert region["value"] == {
        "x": 10.0,
        "y": 10.0,
        "width": 30.0,
        "height": 80.0,
        "rotation": 0,
        "rectanglelabels": ['a "dog" & <gnu>'],
    }


def test_yolo(tmp_path):
    predicted(tmp_path)
    settings = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text(encoding="utf-8"))
    assert settings == {
        "train": "images",
        "val": "images",
        "nc": 3,
        "names": dict(enumerate(NAMES)),
    }
    labels = tmp_path / "yolo" / "labels"
    found = {path.relative_to(labels).as_posix() for path in labels.rglob("*") if path.is_file()}
    assert found == {"a.txt", "sub/b #1.txt", "sub/nothing.txt"}
    lines = (labels / "a.txt").read_text().splitlines()
    assert lines[0] == "2 0.250000000 0.500000000 0.300000000 0.800000000"
    assert [line.split()[0] for line in lines] == ["2", "0"]
    assert (labels / "sub" / "nothing.txt").read_text() == ""


def test_yolo_is_read_back(tmp_path):
    """Random boxes on large and small pictures, some up to the border."""
    rng = np.random.default_rng(1)
    pictures = {}
    for number, (height, width) in enumerate([(40, 60), (9, 4003), (3001, 7)]):
        corners = np.sort(rng.random((40, 2, 2)), axis=1) * (width, height)
        corners[:5, 1] = width, height
        corners[5:10, 0] = 0
        corners[10:15, 1] = np.minimum(corners[10:15, 0] + 1, (width, height))
        table = np.hstack(
            [corners.reshape(-1, 4), rng.random((40, 1)), rng.integers(3, size=(40, 1))]
        )
        name = f"p/{number}.png"
        write_image(tmp_path / "pictures" / name, height, width)
        pictures[name] = ((height, width), table)
    wanted = predicted(tmp_path / "out", pictures, threshold=0)["images"]
    (tmp_path / "out" / "yolo" / "images").symlink_to(tmp_path / "pictures")
    place = CustomSource(annotations="yolo/data.yaml", images="yolo/images")
    custom = {"back": CustomDataset(format="yolo", train=place, test=place)}
    info, records = load_dataset(["back_train_all"], datasets_root=tmp_path / "out", custom=custom)
    assert info.class_names == NAMES
    for record, entry in zip(records, wanted):
        assert record.image_id == entry["file"]
        assert (record.height, record.width) == (entry["height"], entry["width"])
        assert len(record.annotations) == len(entry["detections"]) == 40
        for one, detection in zip(record.annotations, entry["detections"]):
            assert info.class_names[one.category_id] == detection["label"]
            np.testing.assert_allclose(one.bbox, detection["bbox_xywh"], rtol=1e-4, atol=1e-4)


def test_pictures_that_would_share_a_file_of_labels(tmp_path, caplog):
    one = ((40, 60), [(6.0, 4.0, 24.0, 36.0, 0.9, 2)])
    with caplog.at_level(logging.WARNING):
        predicted(tmp_path, {"a.png": one, "b.png": one, "a.jpg": one})
    assert "no file of labels in yolo/labels for a.png, a.jpg: names that differ" in caplog.text
    assert [path.name for path in (tmp_path / "yolo" / "labels").iterdir()] == ["b.txt"]
    assert len(read(tmp_path / "coco_images.json")["images"]) == 3
    assert len(read(tmp_path / "label_studio.json")) == 3


def test_names_that_are_no_valid_text(tmp_path, monkeypatch):
    """A file's name of other bytes than UTF-8, and a class with characters that XML cannot hold."""
    monkeypatch.setattr(f"{__name__}.NAMES", ("cat", "a\x07\ud800", "b"))
    name = b"\xe9t\xe9.png".decode("utf-8", "surrogateescape")
    predicted(tmp_path, {name: ((40, 60), [(6.0, 4.0, 24.0, 36.0, 0.9, 1)])})
    (task,) = read(tmp_path / "label_studio.json")
    assert task["data"]["image"] == "/data/local-files/?d=my%20pictures/%E9t%E9.png"
    view = ElementTree.parse(tmp_path / "label_studio.xml").getroot()
    labels = [one.get("value") for one in view.iter("Label")]
    assert labels[1] == task["predictions"][0]["result"][0]["value"]["rectanglelabels"][0]
    assert (tmp_path / "yolo" / "labels" / name).with_suffix(".txt").is_file()


def test_nothing_at_all(tmp_path):
    predicted(tmp_path, {})
    assert read(tmp_path / "coco_results.json") == []
    assert read(tmp_path / "label_studio.json") == []
    assert len(COCO(str(tmp_path / "coco_images.json")).getCatIds()) == 3
    assert (tmp_path / "yolo" / "data.yaml").is_file()


def test_frames_of_a_video_have_none_of_these(tmp_path):
    predicted(tmp_path, {"": PICTURES["a.png"]}, kind="frames")
    assert [path.name for path in tmp_path.iterdir()] == ["detections.json"]


def test_later_results_replace_all_of_the_earlier(tmp_path):
    """A file of the user's stays, also the link beside the labels."""
    (tmp_path / "pictures").mkdir()
    out = tmp_path / "out"
    for pictures in (PICTURES, {"new.png": PICTURES["a.png"]}):
        with new_results(out) as results:
            predicted(results.folder, pictures)
            results.publish()
        (out / "yolo" / "images").exists() or (out / "yolo" / "images").symlink_to("../../pictures")
    listed = set(read(out / INDEX)["files"])
    assert {
        "coco_images.json",
        "coco_results.json",
        "label_studio.json",
        "label_studio.xml",
    } < listed
    labels = [path.name for path in (out / "yolo" / "labels").rglob("*")]
    assert labels == ["new.txt"]
    assert (out / "yolo" / "images").is_symlink()
