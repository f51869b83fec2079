# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The small encoder for the calibration block: what is shown, what is written."""

import json

import cv2
import numpy as np
import pytest

from src.defrcn.built_datacategory import XYWH, Annotation, Record
from src.defrcn.pcb import cosines
from src.defrcn.pcb_encoder import STRIDE, ResNetEncoder, normalised
from src.defrcn.pcb_resnet import layout_of
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.tools import pretrain_encoder
from src.tools.pretrain_encoder import GREY, ORDERS, SIDE, Crop, crop_objects, shares, view
from src.weights.checkpoint import load_weights
from src.weights.parameter_rules import shapes_of
from src.weights.weight_shapes import EncoderLayout

CONFIG = project_folder() / "configs" / "demo" / "shapes_base.yaml"
COLOURS = {"red": (30, 30, 220), "blue": (220, 30, 30), "green": (30, 220, 30)}


def picture(path, boxes, height=150, width=200):
    pixels = np.full((height, width, 3), 128, np.uint8)
    for (x, y, w, h), colour in boxes:
        pixels[y : y + h, x : x + w] = COLOURS[colour]
    assert cv2.imwrite(str(path), pixels)
    return str(path)


def test_crops_hold_objects_of_the_set_only(tmp_path):
    name = picture(tmp_path / "a.png", [((10, 20, 30, 40), "red"), ((120, 60, 20, 20), "blue")])
    items = (
        Annotation((10.0, 20.0, 30.0, 40.0), XYWH, 0),
        Annotation((120.0, 60.0, 20.0, 20.0), XYWH, 1),
        Annotation((0.0, 0.0, 200.0, 150.0), XYWH, 1, iscrowd=1),
        Annotation((5.0, 5.0, 3.0, 30.0), XYWH, 1),
        Annotation((400.0, 5.0, 30.0, 30.0), XYWH, 1),  # outside
        Annotation((197.0, 5.0, 30.0, 30.0), XYWH, 1),  # all but three pixels
    )
    records = [Record(name, 1, 150, 200, items)]
    crops = crop_objects(records, 10**6, 100, np.random.default_rng(0))
    assert [crop.class_index for crop in crops] == [0, 1]
    for crop, colour in zip(crops, ("red", "blue")):
        x1, y1, x2, y2 = crop.box.astype(int)
        assert (crop.pixels[y1:y2, x1:x2] == COLOURS[colour]).all()
        assert (crop.pixels == COLOURS[colour]).all(2).sum() == (x2 - x1) * (y2 - y1)
    drawn = crop_objects(records * 50, 10**6, 7, np.random.default_rng(0))
    assert len(drawn) == 7


def test_views_show_the_object_in_its_box(tmp_path):
    name = picture(tmp_path / "a.png", [((70, 60, 40, 30), "red")])
    box = Annotation((70.0, 60.0, 40.0, 30.0), XYWH, 0)
    records = [Record(name, 1, 150, 200, (box,))]
    (crop,) = crop_objects(records, 10**6, 9, np.random.default_rng(0))
    assert crop.scale == 1.0
    seen, sizes = set(), []
    for number in range(60):
        pixels, box, order = view(crop, np.random.default_rng(number))
        assert pixels.shape == (SIDE, SIDE, 3) and box.dtype == np.float32
        colour = np.array(COLOURS["red"])[list(ORDERS[order])]
        rows, columns = np.nonzero(np.abs(pixels.astype(int) - colour).max(2) < 40)
        true = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        # Edges of the box move by up to a tenth of the object's size, some 5 pixels when zoomed.
        assert np.abs(box - true).max() < 7
        seen.add(order)
        sizes.append(true[2] - true[0])
    assert seen == set(range(6))
    assert 40 * 0.75 < min(sizes) < 38 and 42 < max(sizes) < 40 * 1.32
    again = [view(crop, np.random.default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(again[0][0], again[1][0])


def test_large_objects_fit_into_a_view_and_beyond_the_picture_is_grey():
    crop = Crop(np.zeros((300, 400, 3), np.uint8), np.array([100.0, 50.0, 340.0, 250.0]), 0)
    assert crop.scale == pytest.approx(0.9 * SIDE / 240)
    corner = Crop(np.full((40, 40, 3), 9, np.uint8), np.array([0.0, 0.0, 20.0, 20.0]), 0)
    pixels, _, order = view(corner, np.random.default_rng(0))
    assert set(np.unique(pixels)) >= set(GREY) and (pixels == 9).any()
    grey = np.array(GREY, np.uint8)[list(ORDERS[order])]
    assert (np.abs(pixels.astype(int) - grey).max(2) == 0).any()
    assert np.abs(normalised(np.array([[GREY]], np.uint8))).max() < 0.02


def test_shares_pool_what_the_block_pools():
    rng = np.random.default_rng(0)
    boxes = np.array([[10, 20, 60, 90], [0, 0, SIDE, SIDE], [40, 40, 44, 44]], np.float32)
    cells = -(-SIDE // STRIDE)
    features = rng.normal(size=(cells, cells, 5)).astype(np.float32)
    weights = shares(boxes)
    assert weights.shape == (3, 1, cells, cells)
    pooled = np.einsum("nij,ijc->nc", weights[:, 0], features)
    np.testing.assert_allclose(
        pooled, pretrain_encoder.pool_boxes(features, boxes, STRIDE), atol=1e-6
    )


def make_set(folder, count=12):
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(count):
        index = i % 3
        x, y = (int(v) for v in rng.integers(5, 100, 2))
        box = [x, min(y, 80), *(int(v) for v in rng.integers(40, 60, 2))]
        picture(folder / f"{i}.png", [(box, list(COLOURS)[index])])
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": 150, "width": 200})
        entry = {"id": i + 1, "image_id": i + 1, "category_id": 1 + index, "bbox": box}
        annotations.append({**entry, "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(COLOURS)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "set.json").write_text(json.dumps(content))


def flags(folder, split="base"):
    source = f"{{annotations: {folder}/set.json, images: {folder}}}"
    own = f"format: coco, train: {source}, test: {source}, novel_classes: [green]"
    return [
        f"--config_path={CONFIG}",
        f"--data.custom={{three: {{{own}}}}}",
        f"--data.train=[three_train_{split}]",
        "--data.test=[three_test_base]",
        f"--output={folder / 'encoder.ckpt'}",
    ]


def test_an_encoder_comes_out_that_knows_the_unseen_class(tmp_path, monkeypatch):
    """Trained on red and blue, it finds green like green and unlike the others."""
    make_set(tmp_path)
    monkeypatch.setattr(pretrain_encoder, "set_up_logging", lambda: None)
    shown = []
    original = pretrain_encoder.crop_objects

    def watched(records, *others):
        crops = original(records, *others)
        shown.extend(crop.class_index for crop in crops)
        return crops

    monkeypatch.setattr(pretrain_encoder, "crop_objects", watched)
    sizes = ["--steps=30", "--batch=16", "--width=4"]
    assert pretrain_encoder.main([*flags(tmp_path), *sizes]) == 0
    assert sorted(set(shown)) == [0, 1] and len(shown) == 8
    params = load_weights(tmp_path / "encoder.ckpt")
    assert layout_of(shapes_of(params), "x") == EncoderLayout(
        (1, 1, 1, 1), 4, (4, 8, 16, 32), (16, 32, 64, 128), 128
    )
    assert all(np.isfinite(array).all() for array in params.values())
    encoder = ResNetEncoder(params, identity="", source="", max_pixels=10**7)
    vectors, classes = [], []
    for entry in json.loads((tmp_path / "set.json").read_text())["annotations"]:
        x, y, w, h = entry["bbox"]
        pixels = cv2.imread(str(tmp_path / f"{entry['id'] - 1}.png"))
        vectors.append(encoder.box_vectors(pixels, np.array([[x, y, x + w, y + h]], "f"))[0])
        classes.append(entry["category_id"])
    vectors, green = np.array(vectors), np.array(classes) == 3
    # Pooled features of base objects are centred.
    assert np.abs(vectors[~green].mean(0)).max() < 1e-3 * np.abs(vectors).max()
    prototype = np.repeat(vectors[green].mean(0)[None], len(vectors), 0)
    likeness = cosines(vectors, prototype)
    assert likeness[green].min() > likeness[~green].max() + 0.2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--data.train=[three_train_all]"], "has novel classes .green.*name the base set"),
        (["--data.train=[three_train_novel]"], "has novel classes .green"),
        (["--steps=0"], "--steps 0 is too small"),
        (["--batch=1"], "--batch 1 is too small"),
        (["--output=encoder.pth"], "must end in .ckpt"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, more, words):
    make_set(tmp_path, 3)
    given = {flag.partition("=")[0]: flag for flag in [*flags(tmp_path), *more]}
    with pytest.raises(InputError, match=words):
        pretrain_encoder.main(list(given.values()))


def test_a_set_without_objects_is_refused(tmp_path):
    make_set(tmp_path, 3)
    content = json.loads((tmp_path / "set.json").read_text())
    (tmp_path / "set.json").write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(InputError, match="no object to look at"):
        pretrain_encoder.main(flags(tmp_path))
