# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Wrong annotations and images: each is handled, counted, and reported with the file's name."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.batching import Preprocessing
from src.data.mindrecord_io import FolderWriter, Row
from src.dataset import EvalLoader, TrainLoader, build_mindrecord, load_dataset
from src.defrcn.picture_file import EXIF_ORIENTATION
from src.model_utils.errors import InputError
from tests.helpers.data_helpers import (
    coco_tree,
    encoded,
    picture_records,
    pixels,
    record,
    write_image,
)

SIZES = [(20, 30), (33, 20), (24, 24)]


def load(root, change):
    return load_dataset(["toy_train_all"], datasets_root=root, custom=coco_tree(root, change))[1]


def build(records, folder, **changes):
    settings = {"class_names": ("a", "b", "c"), "training": True, "show_progress": False}
    return build_mindrecord(records, folder, **{**settings, **changes})


def annotation(content, **values):
    content["annotations"][1].update(values)


def image(content, **values):
    content["images"][1].update(values)


NAN = float("nan")
ANNOTATION = r"train\.json: annotation 2 of image 'a\.png': "
IMAGE = r"train\.json: image 3 \('a\.png'\): "
WRONG = {
    "nan": (lambda c: annotation(c, bbox=[1, NAN, 3, 4]), ANNOTATION + ".* NaN or infinity"),
    "inf": (lambda c: annotation(c, bbox=[1, 2, 3, float("inf")]), ANNOTATION + ".* infinity"),
    "huge": (lambda c: annotation(c, bbox=[1, 2, 3, 10**400]), ANNOTATION + ".* too large"),
    "text": (lambda c: annotation(c, bbox=[1, 2, "3", 4]), ANNOTATION + ".* four numbers"),
    "three": (lambda c: annotation(c, bbox=[1, 2, 3]), ANNOTATION + ".* four numbers"),
    "none": (lambda c: c["annotations"][1].pop("bbox"), ANNOTATION + ".* four numbers"),
    "class": (lambda c: annotation(c, category_id=5), ANNOTATION + "category id 5 is not among"),
    "no class": (lambda c: annotation(c, category_id=None), ANNOTATION + "category_id None"),
    "crowd": (lambda c: annotation(c, iscrowd=2), ANNOTATION + "iscrowd 2"),
    "ignore": (lambda c: annotation(c, ignore=1), ANNOTATION + "'ignore' is not supported"),
    "height": (lambda c: image(c, height=0), IMAGE + "height 0"),
    "width": (lambda c: image(c, width=-30), IMAGE + "width -30"),
    "fraction": (lambda c: image(c, width=30.5), IMAGE + r"width 30\.5"),
    "immense": (lambda c: image(c, width=10**400), IMAGE + "width 1000"),
    "no width": (lambda c: c["images"][1].pop("width"), IMAGE + "width None"),
    "twice": (lambda c: image(c, id=5), "image id 5 occurs twice"),
    "no id": (lambda c: image(c, id=None), r"image 'a\.png' has no id"),
    "mixed ids": (lambda c: image(c, id="3"), "partly numbers and partly texts"),
    "no name": (lambda c: image(c, file_name=""), "file_name '' is not a file's name"),
    "category twice": (lambda c: c["categories"][0].update(id=2), "occurs twice"),
    "no categories": (lambda c: c.pop("categories"), "no list 'categories'"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_annotations_are_refused_by_name(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, change)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "a/../../secret.png",
        "/etc/hostname",
        "..\\secret.png",
        "C:\\x.png",
        "x\0.png",
        "..",
        ".",
    ],
)
def test_paths_that_leave_the_image_folder(tmp_path, name):
    with pytest.raises(InputError, match="leaves the image folder"):
        load(tmp_path, lambda content: image(content, file_name=name))


def test_a_name_that_is_no_text(tmp_path):
    with pytest.raises(InputError, match="not valid text"):
        load(tmp_path, lambda content: image(content, file_name="\ud800.png"))


def test_links_inside_the_image_folder_are_followed(tmp_path):
    """As `trainval2014`, which is made of links."""
    (real,) = picture_records(tmp_path / "real", [(20, 30)])
    (tmp_path / "links").mkdir()
    os.symlink(Path("..", "real", "000.png"), tmp_path / "links" / "x.png")
    linked = dataclasses.replace(real, file_name=str(tmp_path / "links" / "x.png"))
    assert build([linked], tmp_path / "m").num_rows == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"images": {}}', "\x00", "[" * 100_000])
def test_files_that_are_no_annotations(tmp_path, content):
    custom = coco_tree(tmp_path)
    (tmp_path / "toy" / "train.json").write_text(content)
    with pytest.raises(InputError, match=r"train\.json"):
        load_dataset(["toy_train_all"], datasets_root=tmp_path, custom=custom)


def test_missing_annotation_file(tmp_path):
    with pytest.raises(InputError, match=r"trainvalno5k\.json does not exist"):
        load_dataset(["coco14_trainval_all"], datasets_root=tmp_path)


def test_coco_categories_under_other_names(tmp_path):
    def rename(content):
        content["categories"] = [{"id": 3, "name": "auto"}]
        content["annotations"] = []

    coco_tree(tmp_path, rename)
    target = tmp_path / "cocosplit" / "datasplit" / "5k.json"
    target.parent.mkdir(parents=True)
    (tmp_path / "toy" / "train.json").rename(target)
    with pytest.raises(InputError, match="category 3 is 'auto' here but 'car'"):
        load_dataset(["coco14_test_base"], datasets_root=tmp_path)


def test_annotations_of_unlisted_images_are_counted(tmp_path, caplog):
    records = load(tmp_path, lambda content: annotation(content, image_id=77))
    assert [len(entry.annotations) for entry in records] == [0, 2]
    assert "1 annotations of unlisted images ignored" in caplog.text


def test_odd_boxes_are_dropped_and_counted(tmp_path, caplog):
    """A box without area, of negative size, outside: dropped; across the border: kept."""
    path = write_image(tmp_path / "i" / "x.png", 40, 60)
    boxes = [
        (5, 5, 10, 10),
        (5, 5, 0, 10),
        (20, 20, -5, 5),
        (70, 5, 10, 10),
        (50, 30, 30, 30),
        (-9, -9, 9, 9),
    ]
    with caplog.at_level(logging.INFO):
        info = build([record(path, 40, 60, boxes)], tmp_path / "m", class_names=tuple("abcdef"))
    counts = info.report["counts"]
    assert {kind: n for kind, n in counts.items() if n} == {"empty": 3, "negative": 1, "border": 1}
    assert info.report["examples"]["negative"] == [str(path)]
    assert "1 boxes of negative size left out" in caplog.text and str(path) in caplog.text
    batch = next(iter(EvalLoader(tmp_path / "m", min_size=40)))
    assert batch.gt_boxes[0].tolist() == [[5, 5, 15, 15], [50, 30, 60, 40]]
    assert batch.gt_classes[0].tolist() == [0, 4]


def test_images_without_objects_are_dropped_from_training_only(tmp_path):
    empty, crowd, degenerate, full = picture_records(tmp_path / "i", [(20, 30)] * 4)
    empty = dataclasses.replace(empty, annotations=())
    crowds = tuple(dataclasses.replace(entry, iscrowd=1) for entry in crowd.annotations)
    crowd = dataclasses.replace(crowd, annotations=crowds)
    flat = dataclasses.replace(degenerate.annotations[0], bbox=(3.0, 3.0, 0.0, 5.0))
    degenerate = dataclasses.replace(degenerate, annotations=(flat,))
    records = [empty, crowd, degenerate, full]
    info = build(records, tmp_path / "train")
    assert info.num_rows == 1 and info.report["counts"]["no_objects"] == 3
    assert TrainLoader(tmp_path / "train").num_images == 1
    info = build(records, tmp_path / "test", training=False)
    assert info.num_rows == 4 and info.num_boxes.tolist()[:3] == [0, 0, 0]
    batches = list(EvalLoader(tmp_path / "test", min_size=20))
    assert [batch.gt_valid.sum() for batch in batches] == [0, 0, 0, 1]
    assert batches[0].gt_boxes.shape == (1, 1, 4)
    with pytest.raises(InputError, match="none of 3 images has an object"):
        build(records[:3], tmp_path / "nothing")


def rotated(path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.fromarray(pixels(20, 30)).save(path, exif=exif)


def test_rotated_and_grey_images_are_used_and_counted(tmp_path):
    (tmp_path / "i").mkdir()
    rotated(tmp_path / "i" / "r.jpg")
    Image.fromarray(pixels(20, 30)[:, :, 1]).save(tmp_path / "i" / "g.png")
    records = [
        record(tmp_path / "i" / "r.jpg", 30, 20),
        record(tmp_path / "i" / "g.png", 20, 30, image_id=2),
    ]
    info = build(records, tmp_path / "m")
    assert (info.report["counts"]["rotated"], info.report["counts"]["grey"]) == (1, 1)
    first, second = EvalLoader(tmp_path / "m", min_size=20)
    assert first.images.shape == (1, 3, 30, 20) and second.images.shape == (1, 3, 20, 30)
    mean = np.array([103.53, 116.28, 123.675], np.float32)[:, None, None]
    plain = second.images[0] + mean
    np.testing.assert_allclose(plain[0], plain[2], atol=1e-4)


def test_rotated_image_with_the_size_before_rotation(tmp_path):
    rotated(tmp_path / "r.jpg")
    with pytest.raises(InputError, match=r"r\.jpg: .* after the EXIF orientation"):
        build([record(tmp_path / "r.jpg", 20, 30)], tmp_path / "m")


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def bomb(path):
    """A header that promises more pixels than Pillow takes, in a file of some bytes."""
    content = bytearray(encoded(Image.fromarray(pixels(20, 30))))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


BROKEN = {
    "missing": (lambda path: path.unlink(), "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "unknown format"),
    "text": (lambda path: path.write_text("<html>404</html>"), "not a readable image"),
    "cut": (cut, "not a readable image"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    "bomb": (bomb, "over the limit"),
    "other size": (lambda path: write_image(path, 33, 21), "is 21 x 33 .* says 20 x 33"),
    "dangling": (lambda path: (path.unlink(), path.symlink_to("nowhere")), "cannot be read"),
}


@pytest.mark.parametrize(("breaking", "message"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("training", [True, False])
def test_broken_images_are_refused_by_name(tmp_path, breaking, message, training):
    records = picture_records(tmp_path / "i", SIZES)
    breaking(Path(records[1].file_name))
    with pytest.raises(InputError, match=rf"1 of 3 images .*001\.png.*{message}"):
        build(records, tmp_path / "m", training=training)
    assert not (tmp_path / "m").exists()


def test_over_the_limit_that_was_set(tmp_path):
    records = picture_records(tmp_path / "i", SIZES)
    with pytest.raises(InputError, match=r"1 of 3 .*001\.png: 20 x 33 pixels are over the limit"):
        build(records, tmp_path / "m", max_image_pixels=600)
    assert build(records, tmp_path / "m", max_image_pixels=660).num_rows == 3
    with pytest.raises(InputError, match="max_image_pixels"):
        build(records, tmp_path / "m", max_image_pixels=10**9)


def test_all_broken_images_are_listed_at_once(tmp_path):
    records = picture_records(tmp_path / "i", [(20, 30)] * 12)
    for entry in records[::2]:
        cut(Path(entry.file_name))
    with pytest.raises(InputError, match=r"6 of 12 .*000.*002.*004.*and 3 more.*problems\.txt"):
        build(records, tmp_path / "m", num_workers=3)
    lines = (tmp_path / "m.problems.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == [entry.file_name for entry in records[::2]]
    assert build(records[1::2], tmp_path / "m").num_rows == 6
    assert not (tmp_path / "m.problems.txt").exists()


def test_a_failed_build_leaves_the_old_folder(tmp_path):
    records = picture_records(tmp_path / "i", SIZES)
    build(records, tmp_path / "m")
    before = json.loads((tmp_path / "m" / "meta.json").read_text())
    cut(Path(records[0].file_name))
    with pytest.raises(InputError):
        build(records, tmp_path / "m")
    assert json.loads((tmp_path / "m" / "meta.json").read_text()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".m.lock",
        "i",
        "m",
        "m.problems.txt",
    ]


def bad_folder(tmp_path):
    """A whole folder whose second image does not decode: something the build does not let in."""
    (tmp_path / "m").mkdir()
    writer = FolderWriter(tmp_path / "m", 10_000)
    good = encoded(Image.fromarray(pixels(20, 30)))
    for index, content in enumerate([good, b"no image", good]):
        boxes, classes = np.array([[1, 1, 9, 9]], np.float32), np.zeros(1, np.int32)
        writer.write(Row(content, boxes, classes, 20, 30, index, f"/data/{index}.png"))
    writer.finish("key", ("a",), {})
    return tmp_path / "m"


@pytest.mark.parametrize("num_workers", [1, 3])
def test_an_error_in_a_worker_arrives_with_the_name(tmp_path, num_workers):
    before = threading.active_count()
    folder = bad_folder(tmp_path)
    loader = TrainLoader(folder, min_sizes=(20,), num_workers=num_workers)
    with pytest.raises(InputError, match=r"/data/1\.png: not a readable image"):
        for _ in range(4):
            next(loader)
    with pytest.raises(InputError, match=r"/data/1\.png"):
        list(EvalLoader(folder, min_size=20, num_workers=num_workers))
    assert threading.active_count() == before


def test_a_bug_in_a_worker_arrives_with_the_name(tmp_path, monkeypatch):
    build(picture_records(tmp_path / "i", SIZES), tmp_path / "m")
    loader = TrainLoader(tmp_path / "m", min_sizes=(20,))

    def fail(*_):
        raise MemoryError("no more")

    monkeypatch.setattr("src.data.batching.normalise_into", fail)
    with pytest.raises(RuntimeError, match=r"loading .*\.png failed: MemoryError"):
        next(loader)


def test_a_folder_that_vanishes_during_training(tmp_path):
    build(picture_records(tmp_path / "i", SIZES), tmp_path / "m")
    loader = TrainLoader(tmp_path / "m", min_sizes=(20,))
    next(loader)
    (tmp_path / "m").rename(tmp_path / "gone")
    with pytest.raises(InputError, match="m: cannot be read as MindRecord"):
        for _ in range(100):
            next(loader)


def test_preprocessing_settings_are_frozen():
    settings = Preprocessing(1, (0.0,), (1.0,), (), 1, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.max_size = 2
