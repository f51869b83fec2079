# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""YOLO-style data sets become records, the same ones as in COCO's and VOC's formats."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.transforms import to_xyxy
from src.dataset import load_dataset, open_dataset
from src.defrcn.data_types import XYWH, Annotation
from src.defrcn.picture_file import EXIF_ORIENTATION
from src.detecteval import dataset_ground_truth, evaluate
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.model_utils.errors import InputError
from src.tools import draw_kshot
from tests.helpers.data_helpers import voc_xml, write_image

NAMES = "names: [ring, cross, star]\n"
# 60 wide and 40 high
BOX = "1 0.5 0.25 0.2 0.1\n"
PIXELS = (0.4 * 60, 0.2 * 40, 0.2 * 60, 0.1 * 40)


def source(annotations="y/data.yaml", images="y/images"):
    return CustomSource(annotations=annotations, images=images)


def own(part=None, **fields) -> dict[str, CustomDataset]:
    part = part or source()
    fields = {"novel_classes": ("cross",), "test": part, **fields}
    return {"y": CustomDataset(format="yolo", train=part, **fields)}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def tree(root: Path, labels: str = BOX, names: str = NAMES) -> dict[str, CustomDataset]:
    """Two pictures, the first with labels."""
    write(root / "y" / "data.yaml", names)
    write_image(root / "y" / "images" / "a.png", 40, 60, 1)
    write_image(root / "y" / "images" / "b.png", 50, 30, 2)
    write(root / "y" / "labels" / "a.txt", labels)
    return own()


def load(root, custom, name="y_train_all"):
    return load_dataset([name], datasets_root=root, custom=custom)


def boxes(record) -> list:
    return [pytest.approx(one.bbox) for one in record.annotations]


def test_records(tmp_path):
    info, records = load(tmp_path, tree(tmp_path, BOX + "\n0 0.5 0.5 1 1\n"))
    assert info.class_names == ("ring", "cross", "star") and info.category_ids == (1, 2, 3)
    assert (info.base_classes, info.novel_classes) == (("ring", "star"), ("cross",))
    first, second = records
    assert first.file_name == str(tmp_path / "y" / "images" / "a.png")
    assert (first.image_id, first.height, first.width) == ("a.png", 40, 60)
    assert [(one.category_id, one.bbox_mode) for one in first.annotations] == [(1, XYWH), (0, XYWH)]
    assert boxes(first) == [PIXELS, (0.0, 0.0, 60.0, 40.0)]
    # a picture without a file of labels has no objects
    assert (second.image_id, second.height, second.width) == ("b.png", 50, 30)
    assert second.annotations == ()


@pytest.mark.parametrize(
    ("split", "names", "kept"),
    [("base", ("ring", "star"), [1]), ("novel", ("cross",), [0])],
)
def test_splits(tmp_path, split, names, kept):
    custom = tree(tmp_path, BOX + "2 0.5 0.5 0.1 0.1\n")
    info, records = load(tmp_path, custom, f"y_test_{split}")
    assert info.class_names == names
    assert [one.category_id for one in records[0].annotations] == kept


@pytest.mark.parametrize(
    "names",
    [
        "names: {0: ring, 1: cross, 2: star}\nnc: 3\n",
        "path: ../elsewhere\ntrain: /etc\nnames:\n  2: star\n  0: ring\n  1: cross\n",
        "names:\n- ring\n- 'cross'\n- \"star\"\ndownload: |\n  import os\n  os.abort()\n",
    ],
)
def test_forms_of_data_yaml(tmp_path, names):
    info, _ = load(tmp_path, tree(tmp_path, names=names))
    assert info.class_names == ("ring", "cross", "star")


def test_names_are_as_they_are_written(tmp_path):
    tree(tmp_path, names="names: [no, 007, 1e3, 2014-05-01, 横断歩道]\n")
    info, _ = load(tmp_path, own(novel_classes=("007",)))
    assert info.class_names == ("no", "007", "1e3", "2014-05-01", "横断歩道")


def test_polygons_become_their_bounding_boxes(tmp_path):
    lines = "2 0.1 0.2 0.5 0.9 0.3 0.1\n0 0.5 0.5 0.6 0.5 0.6 0.75 0.5 0.75\n"
    _, records = load(tmp_path, tree(tmp_path, lines))
    wanted = [(6.0, 4.0, 24.0, 32.0), (30.0, 20.0, 6.0, 10.0)]
    assert boxes(records[0]) == wanted
    assert [one.category_id for one in records[0].annotations] == [2, 0]


def test_rounding_is_cut_off_at_the_border(tmp_path):
    lines = "0 0.0500 0.5 0.1004 1.0009\n0 0.9 1.0008 0.1 0 \n1 1.0005 -0.0005 0.5 0.5 0.2 0.1\n"
    _, records = load(tmp_path, tree(tmp_path, lines))
    wanted = [
        (0.0, 0.0, 0.1002 * 60, 40.0),
        (0.85 * 60, 40.0, 6.0, 0.0),
        (0.2 * 60, 0.0, 48.0, 20.0),
    ]
    assert boxes(records[0]) == wanted


def test_turned_pictures_are_measured_as_they_are_seen(tmp_path):
    custom = tree(tmp_path)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    write_image(tmp_path / "y" / "images" / "a.jpg", 40, 60, exif=exif)
    (tmp_path / "y" / "images" / "a.png").unlink()
    _, records = load(tmp_path, custom)
    assert (records[0].height, records[0].width) == (60, 40)
    assert boxes(records[0]) == [(16.0, 12.0, 8.0, 6.0)]


def test_repeated_lines_count_once(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        _, records = load(tmp_path, tree(tmp_path, BOX + "0 0.5 0.5 1 1\n" + BOX + BOX))
    assert [one.category_id for one in records[0].annotations] == [1, 0]
    assert "images: 2 repeated lines of labels ignored" in caplog.text


# ---- where pictures and labels are ----


def place(root: Path, picture: str, label: str) -> None:
    write_image(root / picture, 40, 60)
    write(root / label, BOX)


@pytest.mark.parametrize(
    ("images", "picture", "label"),
    [
        ("y/images", "y/images/sub/a.png", "y/labels/sub/a.txt"),
        ("y/images/train", "y/images/train/a.b.png", "y/labels/train/a.b.txt"),
        ("y/train/images", "y/train/images/a.JPG", "y/train/labels/a.txt"),
        ("y", "y/train/images/a.png", "y/train/labels/a.txt"),
        ("y/pictures", "y/pictures/sub/a.png", "y/pictures/sub/a.txt"),
        ("y/images", "y/images/a.png", "y/images/a.txt"),
        # the innermost folder of that name that has labels beside it
        ("images/y/images", "images/y/images/a.png", "images/y/labels/a.txt"),
        ("y/images", "y/images/images/a.png", "y/labels/images/a.txt"),
    ],
)
def test_places_of_labels(tmp_path, images, picture, label):
    write(tmp_path / "data.yaml", NAMES)
    place(tmp_path, picture, label)
    write(tmp_path / images / "classes.txt", "ring\n")  # of another tool's, no labels
    (record,) = load(tmp_path, own(source("data.yaml", images)))[1]
    assert record.file_name == str(tmp_path / picture)
    assert record.image_id == Path(picture).relative_to(images).as_posix()
    assert len(record.annotations) == 1


def test_links_and_hidden_files(tmp_path):
    custom = tree(tmp_path)
    images = tmp_path / "y" / "images"
    place(tmp_path, "elsewhere/images/c.png", "elsewhere/labels/c.txt")
    (images / "more").symlink_to(tmp_path / "elsewhere" / "images")
    (images / "back").symlink_to(images)
    write_image(images / ".hidden.png", 5, 5)
    write_image(images / ".cache" / "d.png", 5, 5)
    write(tmp_path / "y" / "labels" / "more" / "c.txt", BOX)
    _, records = load(tmp_path, custom)
    assert [one.image_id for one in records] == ["a.png", "b.png", "more/c.png"]
    assert len(records[2].annotations) == 1


def test_listed_pictures(tmp_path):
    tree(tmp_path)
    write(tmp_path / "y" / "train.txt", "./images/b.png\n\nimages/a.png \n")
    custom = own(source(images="y/train.txt"), few_shot="shots")
    _, records = load(tmp_path, custom)
    assert [one.image_id for one in records] == ["images/b.png", "images/a.png"]
    assert records[1].file_name == str(tmp_path / "y" / "images" / "a.png")
    assert boxes(records[1]) == [PIXELS]


# ---- what is wrong ----

LABEL = r"labels/a\.txt, line 2: "


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0.5 0.5 0.1", LABEL + "4 numbers, where a box has 5"),
        ("1 0.5 0.5 0.1 0.1 0.9", LABEL + "6 numbers, .* a score is no part of a label"),
        ("cross 0.5 0.5 0.1 0.1", LABEL + "'cross 0.5 0.5 0.1 0.1' are not numbers"),
        ("1 nan 0.5 0.1 0.1", LABEL + ".* holds NaN or infinity"),
        ("1 0.5 0.5 inf 0.1", LABEL + ".* holds NaN or infinity"),
        ("1 0.5 0.5 1e999 0.1", LABEL + ".* holds NaN or infinity"),
        ("3 0.5 0.5 0.1 0.1", LABEL + r"class 3 is not among the 3 names .* \(0 to 2\)"),
        ("-1 0.5 0.5 0.1 0.1", LABEL + "class -1 is not among"),
        ("1.5 0.5 0.5 0.1 0.1", LABEL + "class 1.5 is not among"),
        ("1 0.5 1.002 0.1 0.1", LABEL + "the number 1.002 is outside of the picture"),
        ("1 0.5 0.5 -0.1 0.1", LABEL + "the number -0.1 is outside"),
        ("1 30 20 10 10", LABEL + "the number 30 is outside"),
        ("1 0.95 0.5 0.2 0.1", LABEL + "a side of the box 1.05 is outside"),
        ("1 0.1 0.1 0.1 1.01 0.2 0.1", LABEL + "the corner 1.01 is outside"),
    ],
)
def test_wrong_lines(tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, tree(tmp_path, f"{BOX}{line}\n"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("nc: 3\n", "has no list of classes; write names"),
        ("", "has no list of classes"),
        ("names: []\n", "has no list of classes"),
        ("names: ring\n", "has no list of classes"),
        ("names: [ring, [a]]\n", r"names: class 1 is \['a'\], which is no name"),
        ("names: [ring, '']\n", "names: class 1 is '', which is no name"),
        ('names: [ring, "a\\u0007"]\n', "class 1 is .* no name"),
        ("names: [ring, cross, ring]\n", "names: class 'ring' is there twice"),
        ("names: {0: ring, 2: cross}\n", "names must have the numbers 0 to 1 as keys"),
        ("names: {ring: 0, cross: 1}\n", "names must have the numbers 0 to 1"),
        ("names: {0: ring, 0: cross}\n", "the key '0' appears twice"),
        (NAMES + "nc: 2\n", "nc is '2', but names has 3 classes"),
        (NAMES + "nc: many\n", "nc is 'many', but"),
        (NAMES + "kpt_shape: [17, 3]\n", "kpt_shape: labels with key points are not read"),
        ("names: !!python/object/apply:os.abort []\n", "tags such as .* are not allowed"),
        ("names: &a [ring, *a]\n", "anchors and aliases are not allowed"),
        ("names: [ring\n", "is not a plain YAML file"),
        ("names: " + "[" * 5000, "is not a plain YAML file: it is nested too deeply"),
        (NAMES + "x: " + "y" * (1 << 17), "are more than"),
        ("- ring\n", "holds a list"),
    ],
    ids=lambda text: text[:30],
)
def test_wrong_data_yaml(tmp_path, names, message):
    with pytest.raises(InputError, match=rf"y/data\.yaml\b.*{message}"):
        load(tmp_path, tree(tmp_path, names=names))


def test_missing_and_unreadable_files(tmp_path):
    custom = tree(tmp_path)
    root = tmp_path / "y"
    (root / "labels" / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"file of labels \S*a\.txt cannot be read"):
        load(tmp_path, custom)
    (root / "labels" / "a.txt").unlink()
    os.mkfifo(root / "labels" / "a.txt")
    with pytest.raises(InputError, match=r"a\.txt cannot be read: .*not a regular file"):
        load(tmp_path, custom)
    (root / "labels" / "a.txt").unlink()
    message = r"none of 2 pictures has a file of labels \(the first would be \S*labels/a\.txt\)"
    with pytest.raises(InputError, match=message):
        load(tmp_path, custom)
    write(root / "labels" / "a.txt", "")
    assert [one.annotations for one in load(tmp_path, custom)[1]] == [(), ()]
    (root / "images" / "b.png").write_text("no picture")
    with pytest.raises(InputError, match=r"images/b\.png: not a readable image"):
        load(tmp_path, custom)
    (root / "data.yaml").unlink()
    with pytest.raises(InputError, match=r"y/data\.yaml is not a file; annotations is the path"):
        load(tmp_path, custom)


def test_pictures_that_are_not_there_or_there_twice(tmp_path):
    tree(tmp_path)
    root = tmp_path / "y"
    with pytest.raises(InputError, match=r"image folder \S*y/image does not exist"):
        load(tmp_path, own(source(images="y/image")))
    with pytest.raises(InputError, match=r"image folder \S*labels holds no picture"):
        load(tmp_path, own(source(images="y/labels")))
    write_image(root / "images" / "a.jpg", 40, 60)
    with pytest.raises(InputError, match=r"a\.jpg and a\.png would share one file of labels"):
        load(tmp_path, own())
    listed = own(source(images="y/list.txt"))
    for text, message in {
        "images/a.png\n./images/a.png\n": r"list\.txt names the picture images/a\.png twice",
        "../secret/a.png\n": r"list\.txt: file_name '../secret/a\.png' leaves the image folder",
        "/etc/a.png\n": "leaves the image folder",
        "images/z.png\nimages/a.png\n": r"images/z\.png cannot be read \(No such file",
        "\n": r"list of pictures \S*list\.txt is empty",
    }.items():
        write(root / "list.txt", text)
        with pytest.raises(InputError, match=message):
            load(tmp_path, listed)
    (root / "list.txt").unlink()
    with pytest.raises(InputError, match=r"list of pictures \S*list\.txt cannot be read"):
        load(tmp_path, listed)


def test_classes_of_both_parts_must_be_the_same(tmp_path):
    tree(tmp_path)
    write(tmp_path / "y" / "test.yaml", "names: [cross, ring, star]\n")
    custom = own(test=source("y/test.yaml"))
    assert len(load(tmp_path, custom)[1]) == 2
    with pytest.raises(InputError, match=r"test\.yaml has other classes than \S*data\.yaml"):
        load(tmp_path, custom, "y_test_all")
    with pytest.raises(InputError, match=r"'stra' is not a class .*did you mean 'star'"):
        open_dataset("y_train_all", datasets_root=tmp_path, custom=own(novel_classes=("stra",)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ("cross",)}, "classes are VOC's"),
        (
            {"test": CustomSource(annotations="a", images="b", image_list="c")},
            "image_list is VOC's",
        ),
    ],
)
def test_keys_of_another_format_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        own(**fields)


# ---- the same data in three formats ----

CLASSES = ("cross", "disc", "ring")


def same_in_all(root: Path) -> dict[str, CustomDataset]:
    """Nine pictures with 0 to 4 objects, in each format; boxes in whole pixels, as VOC has them."""
    rng = np.random.default_rng(5)
    images, annotations = [], []
    for number in range(1, 10):
        name, height, width = f"{number:03d}.png", 40 + number, 60 + 3 * number
        write_image(root / "images" / name, height, width, number)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        objects = []
        for _ in range(number % 5):
            corner, size = rng.integers(0, 30, 2), rng.integers(2, 10, 2)
            objects.append((int(rng.integers(3)), *map(int, (*corner, *size))))
        for index, *box in objects:
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": index + 1}
            annotations.append({**entry, "bbox": box, "iscrowd": 0, "area": box[2] * box[3]})
        xml = [(CLASSES[k], x + 1, y + 1, x + w, y + h, 0) for k, x, y, w, h in objects]
        write(root / "xml" / f"{number:03d}.xml", voc_xml(height, width, xml, name))
        lines = "".join(
            f"{k} {(x + w / 2) / width:.9f} {(y + h / 2) / height:.9f} "
            f"{w / width:.9f} {h / height:.9f}\n"
            for k, x, y, w, h in objects
        )
        write(root / "labels" / f"{number:03d}.txt", lines)
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    table = {"images": images, "annotations": annotations, "categories": categories}
    write(root / "all.json", json.dumps(table))
    write(root / "data.yaml", f"names: [{', '.join(CLASSES)}]\n")
    places = {"coco": "all.json", "voc": "xml", "yolo": "data.yaml"}
    return {
        form: CustomDataset(
            format=form,
            train=source(place, "images"),
            test=source(place, "images"),
            novel_classes=("disc",),
            few_shot=f"shots_{form}",
        )
        for form, place in places.items()
    }


def plain(records) -> list:
    """What records say, whatever their ids and modes: boxes as rounded corners."""
    return [
        (
            Path(one.file_name).name,
            (one.height, one.width),
            [
                (a.category_id, *np.round(to_xyxy(a.bbox, a.bbox_mode), 5).tolist())
                for a in one.annotations
            ],
        )
        for one in records
    ]


@pytest.mark.parametrize("split", ["all", "base", "novel"])
def test_three_formats_read_the_same(tmp_path, split):
    custom = same_in_all(tmp_path)
    found = {form: load(tmp_path, custom, f"{form}_train_{split}") for form in custom}
    for info, _ in found.values():
        assert info.class_names == found["coco"][0].class_names
        assert info.category_ids == found["coco"][0].category_ids
    wanted = plain(found["coco"][1])
    assert sum(len(boxes) for *_, boxes in wanted) > 2
    assert plain(found["voc"][1]) == plain(found["yolo"][1]) == wanted


def test_figures_are_the_same(tmp_path):
    """Detections near the objects, judged against the ground truth of each format."""
    custom = same_in_all(tmp_path)
    rng = np.random.default_rng(2)
    shift = rng.normal(0, 0.7, (40, 4))
    found = {}
    for form in custom:
        info, records = load(tmp_path, custom, f"{form}_test_all")
        rows = []
        for record in records:
            for one in record.annotations:
                x1, y1, x2, y2 = to_xyxy(one.bbox, one.bbox_mode) + shift[len(rows)]
                place = {
                    "image_id": record.image_id,
                    "category_id": info.category_ids[one.category_id],
                }
                box = [x1, y1, max(x2 - x1, 0.1), max(y2 - y1, 0.1)]
                rows.append({**place, "bbox": box, "score": 1 / (1 + len(rows))})
        found[form] = evaluate(info, dataset_ground_truth(info, records), rows)
    assert 10 < found["coco"].groups["all"]["AP"] < 90
    for form in ("voc", "yolo"):
        assert found[form].groups == {
            group: pytest.approx(values) for group, values in found["coco"].groups.items()
        }
        assert found[form].num_objects == found["coco"].num_objects == 20


def test_the_same_k_shot_sets_are_drawn(tmp_path):
    custom = same_in_all(tmp_path)
    settings = {name: json.loads(one.model_dump_json()) for name, one in custom.items()}
    config = {"datasets_root": str(tmp_path), "data": {"custom": settings}}
    write(tmp_path / "c.yaml", json.dumps(config))
    for form in custom:
        flags = [f"--config_path={tmp_path / 'c.yaml'}", f"--dataset={form}", "--shots", "1", "3"]
        assert draw_kshot.main([*flags, "--seeds=3"]) == 0
        assert draw_kshot.main([*flags, "--seeds=3"]) == 0  # the same draw once more
    drawn = set()
    for seed in range(3):
        for split, count in (("novel", 1), ("all", 3)):
            for shot in (1, 3):
                name = f"{{}}_train_{split}_{shot}shot_seed{seed}"
                (_, coco), (_, voc), (_, yolo) = (
                    load(tmp_path, custom, name.format(form)) for form in custom
                )
                assert plain(coco) == plain(voc) == plain(yolo)
                assert sum(len(one.annotations) for one in yolo) == count * shot
                drawn.add(str(plain(yolo)))
    assert len(drawn) > 6
    # a VOC set with lists of pictures is read by these
    for name in CLASSES:
        write(tmp_path / "shots_voc" / "seed0" / f"box_3shot_{name}_train.txt", "009\n004\n")
    listed = load(tmp_path, custom, "voc_train_all_3shot_seed0")[1]
    assert {Path(one.file_name).name for one in listed} == {"004.png", "009.png"}
    # box for box those of the whole set
    whole = {one.file_name: one for one in load(tmp_path, custom, "yolo_train_all")[1]}
    for one in yolo:
        assert set(one.annotations) <= set(whole[one.file_name].annotations)
        assert all(type(a) is Annotation for a in one.annotations)


def test_k_shot_sets_of_listed_pictures(tmp_path):
    same_in_all(tmp_path)
    names = "".join(f"images/{number:03d}.png\n" for number in range(1, 8))
    write(tmp_path / "list.txt", names)
    custom = own(source("data.yaml", "list.txt"), novel_classes=("ring",), few_shot="shots")
    settings = {name: json.loads(one.model_dump_json()) for name, one in custom.items()}
    config = {"datasets_root": str(tmp_path), "data": {"custom": settings}}
    write(tmp_path / "c.yaml", json.dumps(config))
    assert draw_kshot.main([f"--config_path={tmp_path / 'c.yaml'}", "--shots=2"]) == 0
    _, records = load(tmp_path, custom, "y_train_all_2shot_seed0")
    assert sum(len(one.annotations) for one in records) == 6
    assert all(Path(one.file_name).parent == tmp_path / "images" for one in records)
    with pytest.raises(InputError, match=r"full_box_3shot_cross_trainval\.json does not exist"):
        load(tmp_path, custom, "y_train_all_3shot_seed0")
