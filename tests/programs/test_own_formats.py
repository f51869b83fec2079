# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A data set in YOLO's and in VOC's format, from files to predictions that labelling tools open.

The pictures and objects are those of the shared detector, which was trained on COCO's format.
"""

from __future__ import annotations

import json
from collections import defaultdict
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from src import model_surgery
from src.dataset import load_dataset
from src.model_utils.config import load_config
from src.predict import __main__ as predict
from src.tools import draw_kshot
from tests.helpers.kill_driver import losses_of
from tests.helpers.trained import run

pytestmark = pytest.mark.slow
STEPS = 3
FINE_TUNING = (
    "--data.train=[own_train_all_1shot_seedx]",
    "--data.test=[own_test_all]",
    "--model.roi_heads.freeze_feat=true",
    "--model.backbone.freeze_at=3",
    f"--solver.max_iter={STEPS}",
    "--solver.steps=[]",
    "--solver.warmup_iters=0",
    "--test.eval_at_end=false",
)


def by_picture(table: dict):
    """Pictures with their objects: index of the class, and x, y, width, height."""
    order = {entry["id"]: index for index, entry in enumerate(categories(table))}
    boxes = defaultdict(list)
    for one in table["annotations"]:
        boxes[one["image_id"]].append((order[one["category_id"]], one["bbox"]))
    for image in table["images"]:
        yield image, boxes[image["id"]]


def categories(table: dict) -> list[dict]:
    return sorted(table["categories"], key=lambda entry: entry["id"])


def write_labels(table: dict, folder) -> None:
    """YOLO's: a file a picture."""
    for image, objects in by_picture(table):
        across, down = image["width"], image["height"]
        text = ""
        for index, (x, y, width, height) in objects:
            centre = (x + width / 2) / across, (y + height / 2) / down
            numbers = " ".join(map(repr, (*centre, width / across, height / down)))
            text += f"{index} {numbers}\n"
        (folder / image["file_name"]).with_suffix(".txt").write_text(text)


def write_xml(table: dict, folder) -> None:
    """VOC's: a file a picture; pixels count from 1, and the last one belongs to the box."""
    names = [entry["name"] for entry in categories(table)]
    for image, objects in by_picture(table):
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "filename").text = image["file_name"]
        size = ElementTree.SubElement(root, "size")
        for side in ("width", "height"):
            ElementTree.SubElement(size, side).text = str(image[side])
        for index, (x, y, width, height) in objects:
            entry = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(entry, "name").text = names[index]
            corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + width, "ymax": y + height}
            box = ElementTree.SubElement(entry, "bndbox")
            for tag, value in corners.items():
                ElementTree.SubElement(box, tag).text = repr(value)
        path = (folder / image["file_name"]).with_suffix(".xml")
        ElementTree.ElementTree(root).write(path)


WRITERS = {"yolo": write_labels, "voc": write_xml}


@pytest.fixture(scope="module", params=WRITERS)
def place(request, trained_demo, tmp_path_factory):
    """The configuration; data and results lie in its folder."""
    kind = request.param
    root = tmp_path_factory.mktemp(kind)
    shapes = trained_demo.root / "shapes"
    own = {"format": kind, "few_shot": "own/split"}
    for part in ("train", "test"):
        table = json.loads((shapes / "annotations" / f"{part}.json").read_text())
        labels = root / "own" / "labels" / part
        labels.mkdir(parents=True)
        WRITERS[kind](table, labels)
        names = [entry["name"] for entry in categories(table)]
        where = "data.yaml" if kind == "yolo" else f"labels/{part}"
        own[part] = {"annotations": f"own/{where}", "images": f"own/images/{part}"}
    (root / "own" / "images").symlink_to(shapes / "images")
    if kind == "yolo":
        (root / "own" / "data.yaml").write_text(yaml.safe_dump({"names": names, "nc": len(names)}))
    else:
        own["classes"] = names
    path = trained_demo.copy(root, steps=None)
    settings = yaml.safe_load(path.read_text())
    own["novel_classes"] = settings["data"]["custom"]["shapes"]["novel_classes"]
    settings["data"] = {
        **{"train": ["own_train_base"], "test": ["own_test_base"], "custom": {"own": own}},
    }
    settings["datasets_root"] = str(root)
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def base(place):
    """The folder of a base training."""
    run("train.py", place)
    return place.parent / "run"


def detections(folder, names=None) -> list[tuple]:
    """eval.py's detections; pictures by their names, of which `names` has those of ids."""
    rows = json.loads((folder / "detections.json").read_text())
    return [
        (names[row["image_id"]] if names else row["image_id"], *row["bbox"], row["score"])
        for row in rows
    ]


def test_training_and_evaluation_are_those_of_cocos_format(trained_demo, place, base):
    assert losses_of(base) == losses_of(trained_demo.run)
    result = place.parent / "evaluated"
    flags = [f"--eval_checkpoint_path={trained_demo.run}", "--test.report=true"]
    run("eval.py", place, *flags, f"--result_path={result}")
    table = json.loads((trained_demo.root / "shapes/annotations/test.json").read_text())
    names = {entry["id"]: entry["file_name"] for entry in table["images"]}
    if place.parent.name.startswith("voc"):  # whose pictures have names without an ending
        names = {number: name.rpartition(".")[0] for number, name in names.items()}
    assert detections(result) == detections(trained_demo.evaluated, names) != []
    counts = []
    for folder in (result, trained_demo.evaluated):
        (content,) = json.loads((folder / "metrics.json").read_text()).values()
        counts.append([content[f"num_{what}"] for what in ("images", "objects", "detections")])
    assert counts[0] == counts[1]
    assert (result / "report" / "index.html").is_file()


def test_fine_tuning_and_predictions(place, base):
    root = place.parent
    assert draw_kshot.main([f"--config_path={place}", "--shots=1", "--seeds=1"]) == 0
    words = [f"--dataset={place}", "--method=randinit", f"--src-path={base}"]
    assert model_surgery.main([*words, f"--save-dir={root}"]) == 0
    start = f"--model_pretrained_path={root / 'model_reset_surgery.ckpt'}"
    folders = (
        f"--save_checkpoint_path={root / 'tuned'}",
        f"--train_mindrecord_dir={root / 'mindrecord' / 'shots'}",
    )
    run("train.py", place, *FINE_TUNING, *folders, start)
    support = json.loads((root / "tuned" / "support_set.json").read_text())
    assert support["dataset"] == "own_train_all_1shot_seed0"
    result = root / "predictions"
    words = [
        *(f"--config_path={place}", f"--eval_checkpoint_path={root / 'tuned'}"),
        *(f"--input_path={root / 'own' / 'images' / 'test'}", f"--result_path={result}"),
        *("--score_threshold=0", "--data.test=[own_test_all]"),
    ]
    assert predict.main(words) == 0
    found = json.loads((result / "detections.json").read_text())
    assert found["category_ids"] == "of the data set" and len(found["classes"]) == 12

    # what was predicted, as the training pictures of a next round
    (result / "yolo" / "images").symlink_to(root / "own" / "images" / "test")
    part = "{annotations: predictions/yolo/data.yaml, images: predictions/yolo/images}"
    more = f"{{format: yolo, train: {part}, test: {part}}}"
    config = load_config(place, [f"--data.custom.more={more}"])
    info, records = load_dataset(
        ["more_train_all"], datasets_root=config.datasets_root, custom=config.data.custom
    )
    assert info.class_names == tuple(entry["label"] for entry in found["classes"])
    for record, entry in zip(records, found["images"]):
        assert record.image_id == entry["file"]
        assert len(record.annotations) == len(entry["detections"]) > 0
        for one, detection in zip(record.annotations, entry["detections"]):
            assert info.class_names[one.category_id] == detection["label"]
            np.testing.assert_allclose(one.bbox, detection["bbox_xywh"], rtol=1e-4, atol=1e-4)
