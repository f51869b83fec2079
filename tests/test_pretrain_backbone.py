"""Pre-training on crops: what is cropped, and that a classifier comes out of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src import pretrain_backbone
from src.checkpoint import load_weights
from src.defrcn.built_datacategory import XYWH, Annotation, Record
from src.model_utils.errors import InputError
from src.pretrain_backbone import SIDE, crop_objects, view

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "demo" / "shapes_base.yaml"
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


def picture(path, boxes):
    pixels = np.full((60, 80, 3), 128, np.uint8)
    for (x, y, width, height), colour in boxes:
        pixels[y : y + height, x : x + width] = COLOURS[colour]
    Image.fromarray(pixels).save(path)
    return str(path)


def test_crops_are_the_objects_with_surroundings(tmp_path):
    name = picture(tmp_path / "a.png", [((10, 10, 20, 20), "red"), ((50, 20, 30, 30), "blue")])
    items = (
        Annotation((10.0, 10.0, 20.0, 20.0), XYWH, 0),
        Annotation((50.0, 20.0, 30.0, 30.0), XYWH, 1),
        Annotation((0.0, 0.0, 80.0, 60.0), XYWH, 1, iscrowd=1),
    )
    crops, classes = crop_objects([Record(name, 1, 60, 80, items)], 10**6)
    assert classes.tolist() == [0, 1]
    part, box = crops[0]
    assert box == (6.0, 6.0, 26.0, 26.0)
    assert part[6:26, 6:26].reshape(-1, 3).tolist() == [[30, 30, 220]] * 400  # B, G, R
    assert part[0, 0].tolist() == [128, 128, 128]
    assert crops[1][0].shape == (49, 39, 3)  # cut at the right border
    seen = view(crops[0], np.random.default_rng(3))
    assert seen.shape == (SIDE, SIDE, 3)
    np.testing.assert_array_equal(seen, view(crops[0], np.random.default_rng(3)))
    assert (seen == (30, 30, 220)).all(2).mean() > 0.5


def make_set(folder, count=12):
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(count):
        colour = ("red", "blue")[i % 2]
        box = [int(v) for v in (*rng.integers(2, 20, 2), *rng.integers(20, 38, 2))]
        picture(folder / f"{i}.png", [(box, colour)])
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": 60, "width": 80})
        entry = {"id": i + 1, "image_id": i + 1, "category_id": 1 + i % 2, "bbox": box}
        annotations.append({**entry, "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "set.json").write_text(json.dumps(content))


def flags(folder):
    source = f"{{annotations: {folder}/set.json, images: {folder}}}"
    return [
        f"--config_path={CONFIG}",
        f"--data.custom={{two: {{format: coco, train: {source}, test: {source}}}}}",
        "--data.train=[two_train_all]",
        "--data.test=[two_test_all]",
        f"--output={folder / 'backbone.ckpt'}",
    ]


def test_learns_two_colours_and_writes_the_backbone(tmp_path, caplog, monkeypatch):
    make_set(tmp_path)
    monkeypatch.setattr(pretrain_backbone, "set_up_logging", lambda: None)  # caplog's handler stays
    arguments = [*flags(tmp_path), "--steps=40", "--batch=16", "--lr=0.003"]
    arguments.append("--model.backbone.norm=GN")
    with caplog.at_level("INFO"):
        assert pretrain_backbone.main(arguments) == 0
    accuracy = next(r.args[0] for r in caplog.records if "on the crops" in r.msg)
    assert accuracy > 0.9
    params = load_weights(tmp_path / "backbone.ckpt")
    assert all(name.startswith(("backbone.", "roi_heads.res5.")) for name in params)
    assert {"backbone.stem.conv1.weight", "roi_heads.res5.1.conv3.norm.bias"} <= set(params)
    assert all(np.isfinite(array).all() for array in params.values())


def test_a_set_without_objects_is_refused(tmp_path):
    make_set(tmp_path, 2)
    content = json.loads((tmp_path / "set.json").read_text())
    (tmp_path / "set.json").write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(InputError, match="no object"):
        pretrain_backbone.main(flags(tmp_path))
