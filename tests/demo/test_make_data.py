# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The generated data set: every byte by the seed, exact boxes, balance, reuse, wrong arguments."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from src.dataset import open_dataset
from src.defrcn.meta_coco import load_records
from src.demo import make_data as tool
from src.demo import scenes
from src.demo.make_data import deal_classes, main, make_demo_data, plan_split
from src.demo.shapes import CLASSES, OUTLINES, SUPERSAMPLE, fine_mask, paint
from src.model_utils.config import load_config
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder

ROOT = project_folder()
NOVEL = {shape.name for shape in CLASSES if shape.novel}


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo data") / "shapes"
    assert make_demo_data(folder, seed=3, num_train=20, num_test=14)
    return folder


def test_the_seed_decides_every_byte(tmp_path):
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        make_demo_data(tmp_path / name, seed=seed, num_train=6, num_test=4)
    one, other = contents(tmp_path / "one"), contents(tmp_path / "other")
    assert contents(tmp_path / "again") == one
    same = [name for name, data in one.items() if other.get(name) == data]
    assert same == []


def test_several_processes_draw_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(tool.os, "cpu_count", lambda: 2)
    plans = plan_split("train", 64, 5, 1)
    for name in ("one", "all"):
        (tmp_path / name / "images" / "train").mkdir(parents=True)
    rows = list(tool._draw_all(tmp_path / "all", plans))
    assert [tool.draw_picture(tmp_path / "one", plan) for plan in plans[::9]] == rows[::9]
    one, every = contents(tmp_path / "one"), contents(tmp_path / "all")
    assert (len(one), len(every)) == (8, 64)
    assert one.items() <= every.items()


def test_layout_and_annotations(small):
    for split, count in (("train", 20), ("test", 14)):
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(small / "annotations" / f"{split}.json"))
        assert len(coco.imgs) == count
        assert {c["name"]: c["id"] for c in coco.loadCats(coco.getCatIds())} == {
            shape.name: shape.category_id for shape in CLASSES
        }
        for image in coco.loadImgs(coco.getImgIds()):
            with Image.open(small / "images" / split / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"])
                assert picture.mode == "RGB"
            assert 160 <= min(picture.size) <= max(picture.size) <= 224
            rows = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
            assert 1 <= len(rows) <= 5
            for row in rows:
                x, y, width, height = row["bbox"]
                assert 0 <= x < x + width <= image["width"]
                assert 0 <= y < y + height <= image["height"]
                assert 0 < row["area"] <= width * height
    ids = [json.loads((small / "annotations" / f"{s}.json").read_text()) for s in tool.SPLITS]
    assert not {i["id"] for i in ids[0]["images"]} & {i["id"] for i in ids[1]["images"]}


def test_both_orientations_and_all_sizes_occur():
    plans = plan_split("train", 200, 0, 1)
    landscape = sum(plan.width > plan.height for plan in plans)
    assert 90 <= landscape <= 150
    assert {len(plan.classes) for plan in plans} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("index", range(6))
def test_boxes_hug_the_visible_pixels(index):
    rng = np.random.default_rng([7, index])
    classes = [CLASSES[int(i)] for i in rng.integers(0, len(CLASSES), 4)]
    scene = scenes.draw_scene(rng, 168, 200, classes)
    assert scene.pixels.shape == (168, 200, 3)
    assert scene.labels.shape == (168 * SUPERSAMPLE, 200 * SUPERSAMPLE)
    assert len(scene.objects) >= 1
    for number, item in enumerate(scene.objects, start=1):
        places = np.argwhere(scene.labels == number)
        low, high = places.min(axis=0), places.max(axis=0) + 1
        expected = np.asarray([low[1], low[0], high[1], high[0]]) / SUPERSAMPLE
        assert item.box == tuple(expected)
        assert item.area == len(places) / SUPERSAMPLE**2
        assert item.area > 60.0


@pytest.mark.parametrize("shape", CLASSES, ids=lambda shape: shape.name)
@pytest.mark.parametrize(("left", "top"), [(41, 30), (-37, 22), (170, -19)])
def test_pixels_change_exactly_inside_the_box(shape, left, top):
    """Paint one object on grey, re-measure it in the picture, compare with its box."""
    side, radius = 120, 45.0
    mask = fine_mask(OUTLINES[shape.name], side, radius, 1.1, 17.0)
    rng = np.random.default_rng(0)
    color = np.asarray([250.0, 20.0, 20.0], np.float32)
    colors = paint(rng, shape, mask, radius=radius, degrees=17.0, color=color) * 0.0
    sprite = scenes._Sprite(mask, colors, left, top)
    canvas = np.full((40, 56, 3), 128.0, np.float32)
    labels = np.zeros((160, 224), np.int16)
    scenes._composite(canvas, sprite, shadow=False)
    scenes._stamp(labels, sprite, 1)
    x1, y1, x2, y2 = scenes.measure(labels, 1, shape).box
    rows = np.flatnonzero((canvas[..., 0] != 128.0).any(axis=1))
    columns = np.flatnonzero((canvas[..., 0] != 128.0).any(axis=0))
    assert (columns[0], rows[0]) == (math.floor(x1), math.floor(y1))
    assert (columns[-1] + 1, rows[-1] + 1) == (math.ceil(x2), math.ceil(y2))
    darkness = float((128.0 - canvas[..., 0]).sum()) / 128.0
    assert darkness == pytest.approx(scenes.measure(labels, 1, shape).area, rel=1e-4)


def test_outlines_have_the_right_areas():
    radius = 200.0

    def area(name):
        return float(fine_mask(OUTLINES[name], 440, radius, 1.0, 0.0).sum()) / radius**2

    assert area("disc") == pytest.approx(math.pi, rel=0.01)
    assert area("ring") == pytest.approx(math.pi * (1 - 0.56**2), rel=0.02)
    assert area("square") == pytest.approx(1.56**2, rel=0.02)
    assert area("triangle") == pytest.approx(0.75 * math.sqrt(3), rel=0.02)
    assert area("hexagon") == pytest.approx(1.5 * math.sqrt(3), rel=0.02)
    assert area("striped bar") == pytest.approx(2 * 0.68, rel=0.02)


def test_outlines_fit_their_circle():
    for shape in CLASSES:
        for polygon in OUTLINES[shape.name]:
            assert max(math.hypot(x, y) for x, y in polygon) <= 1.25, shape.name


def test_objects_stay_visible():
    """A later object may not hide more of an earlier one than MIN_VISIBLE leaves."""
    labels = np.zeros((80, 80), np.int16)
    labels[10:50, 10:50] = 1
    mask = np.ones((40, 40), np.bool_)
    free = scenes._Sprite(mask, np.zeros((40, 40, 3), np.float32), 40, 40)
    hiding = scenes._Sprite(mask, np.zeros((40, 40, 3), np.float32), 20, 20)
    outside = scenes._Sprite(mask, np.zeros((40, 40, 3), np.float32), -20, 0)
    assert scenes._fits(labels, free, [1600])
    assert not scenes._fits(labels, hiding, [1600])
    assert not scenes._fits(labels, outside, [])


@pytest.mark.parametrize(("total", "weight"), [(1200, 0.4), (97, 1.0), (5, 0.4), (1, 0.0)])
def test_classes_are_dealt_by_weight(total, weight):
    counts = Counter(s.name for s in deal_classes(np.random.default_rng(0), total, weight))
    assert sum(counts.values()) == total
    whole = sum(weight if shape.novel else 1.0 for shape in CLASSES)
    for shape in CLASSES:
        share = (weight if shape.novel else 1.0) / whole * total
        assert abs(counts[shape.name] - share) <= 1.0


def test_novel_classes_are_rarer_in_training_only():
    for split, low, high in (("train", 0.13, 0.17), ("test", 0.97, 1.03)):
        plans = plan_split(split, 400, 0, 1)
        counts = Counter(shape.name for plan in plans for shape in plan.classes)
        novel = np.mean([counts[name] for name in NOVEL])
        base = np.mean([count for name, count in counts.items() if name not in NOVEL])
        assert low <= novel / base <= high


def test_the_base_split_drops_novel_boxes(small):
    source = {
        split: CustomSource(
            annotations=f"shapes/annotations/{split}.json", images=f"shapes/images/{split}"
        )
        for split in tool.SPLITS
    }
    custom = {
        "shapes": CustomDataset(
            format="coco", train=source["train"], test=source["test"], novel_classes=tuple(NOVEL)
        )
    }
    found = {}
    for part in ("all", "base", "novel"):
        info = open_dataset(
            f"shapes_train_{part}", datasets_root=small.parent, coco_root="", custom=custom
        )
        records = load_records(info)
        found[part] = sum(len(record.annotations) for record in records)
        if part == "base":
            names = {i["name"] for i in _categories(small)} - NOVEL
            assert len(names) == 9
    content = json.loads((small / "annotations" / "train.json").read_text())
    assert found["all"] == len(content["annotations"])
    assert 0 < found["novel"] < found["base"]
    assert found["base"] + found["novel"] == found["all"]


def _categories(folder):
    return json.loads((folder / "annotations" / "train.json").read_text())["categories"]


def test_the_demo_configuration_names_the_novel_classes():
    config = load_config(ROOT / "configs" / "demo" / "shapes_base.yaml")
    assert set(config.data.custom["shapes"].novel_classes) == NOVEL
    assert config.solver.images_per_card == config.solver.images_per_batch


def test_a_complete_folder_is_used_again(small):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert not make_demo_data(small, seed=3, num_train=20, num_test=14)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


@pytest.mark.parametrize("harm", ["image", "missing", "extra", "annotations", "manifest"])
def test_a_damaged_folder_is_made_again(tmp_path, harm):
    folder = tmp_path / "shapes"
    make_demo_data(folder, seed=1, num_train=3, num_test=2)
    before = contents(folder)
    image = folder / "images" / "train" / "000001.jpg"
    if harm == "image":
        data = bytearray(image.read_bytes())
        data[len(data) // 2] ^= 1
        image.write_bytes(bytes(data))
    elif harm == "missing":
        image.unlink()
    elif harm == "extra":
        (image.parent / "extra.jpg").write_bytes(b"")
    elif harm == "annotations":
        (folder / "annotations" / "test.json").write_text("{}")
    else:
        (folder / "manifest.json").write_text('{"settings"')
    assert make_demo_data(folder, seed=1, num_train=3, num_test=2)
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_other_settings_replace_the_folder(tmp_path):
    folder = tmp_path / "shapes"
    make_demo_data(folder, seed=1, num_train=3, num_test=2)
    assert make_demo_data(folder, seed=1, num_train=2, num_test=2)
    assert len(list((folder / "images" / "train").iterdir())) == 2


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(folder, plan):
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, "draw_picture", stop)
    with pytest.raises(KeyboardInterrupt):
        make_demo_data(tmp_path / "shapes", seed=0, num_train=2, num_test=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--train=0"], "at least one picture"),
        (["--test=-1"], "at least one picture"),
        (["--seed=-1"], "--seed -1"),
    ],
)
def test_wrong_numbers_are_named(tmp_path, arguments, words):
    with pytest.raises(InputError, match=words):
        main([f"--output={tmp_path / 'x'}", *arguments])
    assert list(tmp_path.iterdir()) == []


def test_other_peoples_files_are_safe(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        main([f"--output={tmp_path}", "--train=1", "--test=1"])
    with pytest.raises(InputError, match="is a file"):
        main([f"--output={tmp_path / 'mine.txt'}", "--train=1", "--test=1"])
    with pytest.raises(InputError, match="cannot be written"):
        main([f"--output={tmp_path / 'mine.txt' / 'below'}", "--train=1", "--test=1"])
    assert contents(tmp_path) == {"mine.txt": b"mine"}
