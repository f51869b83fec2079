# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Annotation files of one's own, COCO format and VOC-style XML, become records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from src.dataset import load_dataset, open_dataset
from src.defrcn.built_datacategory import Annotation
from src.defrcn.meta_coco import image_path
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.model_utils.errors import InputError
from tests.helpers.data_helpers import coco_tree, shared, voc_xml, write_image


def load(name, root, custom):
    return load_dataset([name], datasets_root=root, custom=custom)


def test_own_coco_records(tmp_path):
    info, records = load("toy_train_all", tmp_path, coco_tree(tmp_path))
    assert info.class_names == ("cross", "star", "ring") and info.category_ids == (2, 4, 7)
    assert (info.base_classes, info.novel_classes) == (("cross", "ring"), ("star",))
    first, second = records
    assert (first.image_id, first.height, first.width) == (3, 50, 30)  # sorted by id
    assert first.file_name == str(tmp_path / "toy" / "images" / "a.png")
    assert first.annotations == (Annotation((5.0, 6.0, 7.5, 8.0), 1, 0, 0),)
    assert second.annotations == (
        Annotation((1.0, 2.0, 3.0, 4.0), 1, 2, 0),
        Annotation((9.0, 8.0, 7.0, 6.0), 1, 1, 1),
    )


@pytest.mark.parametrize(
    ("split", "names", "per_image"),
    [("base", ("cross", "ring"), [1, 1]), ("novel", ("star",), [0, 1])],
)
def test_own_coco_splits(tmp_path, split, names, per_image):
    info, records = load(f"toy_train_{split}", tmp_path, coco_tree(tmp_path))
    assert info.class_names == names
    assert [len(record.annotations) for record in records] == per_image


@pytest.mark.parametrize("name", ["coco14_trainval_base", "coco14_test_novel", "toy_train_all"])
def test_a_missing_file_says_how_to_get_it(tmp_path, name):
    custom = coco_tree(tmp_path)
    (tmp_path / "toy" / "train.json").unlink()
    remedy = "data.custom" if name.startswith("toy") else "python -m src.tools.prepare_coco"
    with pytest.raises(InputError, match=f"annotation file .*json does not exist; .*{remedy}"):
        load(name, tmp_path, custom)


def test_test_part_takes_classes_of_the_training_part(tmp_path):
    custom = coco_tree(tmp_path)
    content = json.loads((tmp_path / "toy" / "train.json").read_text())
    content["categories"] = [entry for entry in content["categories"] if entry["id"] != 4]
    content["annotations"] = content["annotations"][:2]
    (tmp_path / "toy" / "test.json").write_text(json.dumps(content))
    own = custom["toy"]
    source = CustomSource(annotations="toy/test.json", images="toy/images")
    custom = {
        "toy": CustomDataset(
            format="coco", train=own.train, test=source, novel_classes=own.novel_classes
        )
    }
    info, records = load("toy_test_all", tmp_path, custom)
    assert info.class_names == ("cross", "star", "ring")
    assert records[1].annotations[0].category_id == 2


def test_several_sets_are_joined_if_their_classes_agree(tmp_path):
    custom = coco_tree(tmp_path)
    names = ["toy_train_all", "toy_test_all"]
    assert len(load_dataset(names, datasets_root=tmp_path, custom=custom)[1]) == 4
    with pytest.raises(InputError, match="different classes"):
        load_dataset(["toy_train_all", "toy_test_base"], datasets_root=tmp_path, custom=custom)
    with pytest.raises(InputError, match="no data set"):
        load_dataset([], datasets_root=tmp_path)


def voc_tree(root: Path, classes=(), image_list="", objects=None, head="") -> dict:
    """Two pictures with VOC-style XML files."""
    objects = objects or [("ring", 3, 4, 20, 22, 0), ("star", 1, 1, 40, 30, 1)]
    write_image(root / "v" / "JPEGImages" / "b1.jpg", 30, 40, 1)
    write_image(root / "v" / "JPEGImages" / "other.png", 20, 25, 2)
    (root / "v" / "xml").mkdir()
    (root / "v" / "xml" / "b1.xml").write_text(voc_xml(30, 40, objects, "x.jpg", head))
    second = voc_xml(20, 25, [("cross", 2.5, 3, 9, 11, 0)], "other.png")
    (root / "v" / "xml" / "a2.xml").write_text(second)
    source = CustomSource(annotations="v/xml", images="v/JPEGImages", image_list=image_list)
    return {
        "v": CustomDataset(
            format="voc", train=source, test=source, novel_classes=("star",), classes=tuple(classes)
        )
    }


def test_own_voc_records(tmp_path):
    info, records = load("v_train_all", tmp_path, voc_tree(tmp_path))
    assert info.class_names == ("cross", "ring", "star") and info.category_ids == (1, 2, 3)
    assert [record.image_id for record in records] == ["a2", "b1"]
    # the picture of a2 is the one its <filename> names, that of b1 has its own name
    assert [Path(record.file_name).name for record in records] == ["other.png", "b1.jpg"]
    assert records[0].annotations == (Annotation((1.5, 2.0, 9.0, 11.0), 0, 0),)
    assert records[1].annotations == (
        Annotation((2.0, 3.0, 20.0, 22.0), 0, 1),
        Annotation((0.0, 0.0, 40.0, 30.0), 0, 2, 0, 1),
    )


def test_own_voc_order_list_and_split(tmp_path):
    (tmp_path / "list.txt").write_text("b1 1\n\n")
    custom = voc_tree(tmp_path, classes=("star", "ring", "cross"), image_list="list.txt")
    info, records = load("v_test_base", tmp_path, custom)
    assert info.class_names == ("ring", "cross") and info.category_ids == (2, 3)
    assert [record.image_id for record in records] == ["b1"]
    assert [entry.category_id for entry in records[0].annotations] == [0]


DOCTYPE = '<!DOCTYPE a [<!ENTITY e "x">]>'
BILLION = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]>'
OUTSIDE = '<!DOCTYPE a SYSTEM "file:///etc/passwd">'


@pytest.mark.parametrize("head", [DOCTYPE, BILLION, OUTSIDE])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_document_types_are_refused(tmp_path, head, encoding):
    custom = voc_tree(tmp_path)
    path = tmp_path / "v" / "xml" / "b1.xml"
    path.write_bytes((head + voc_xml(30, 40, [])).encode(encoding))
    with pytest.raises(InputError, match=r"b1\.xml: document type"):
        load("v_train_all", tmp_path, custom)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([("ring", "nan", 1, 2, 3, 0)], r"b1\.xml: object 'ring': <xmin> is nan"),
        ([("ring", 1, 1, "inf", 3, 0)], r"b1\.xml: object 'ring': <xmax> is inf"),
        ([("ring", "", 1, 2, 3, 0)], r"b1\.xml: object 'ring': <xmin> is missing"),
        ([("ring", "one", 1, 2, 3, 0)], r"<xmin> is 'one', not a number"),
        ([("", 1, 1, 2, 3, 0)], r"b1\.xml: <name> is missing"),
    ],
)
def test_wrong_xml_objects(tmp_path, objects, message):
    custom = voc_tree(tmp_path, classes=("ring", "star", "cross"), objects=objects)
    with pytest.raises(InputError, match=message):
        load("v_train_all", tmp_path, custom)


def test_undeclared_class_and_bad_files(tmp_path):
    custom = voc_tree(tmp_path, classes=("ring", "star"))
    with pytest.raises(InputError, match=r"a2\.xml: object 'cross': not a class"):
        load("v_train_all", tmp_path, custom)
    path = tmp_path / "v" / "xml" / "a2.xml"
    path.write_text("<annotation><size>")
    with pytest.raises(InputError, match=r"a2\.xml cannot be read as XML"):
        load("v_train_all", tmp_path, custom)
    path.write_text(voc_xml(0, 25, []))
    with pytest.raises(InputError, match=r"a2\.xml: <size> says 25 x 0"):
        load("v_train_all", tmp_path, custom)
    path.write_text(voc_xml(5, 25, [], "../../secret.png"))
    with pytest.raises(InputError, match=r"a2\.xml: file_name '../../secret.png' leaves"):
        load("v_train_all", tmp_path, custom)


@pytest.mark.parametrize("line", ["../v/xml/b1", "/etc/passwd", "missing"])
def test_image_list_may_not_leave_the_folder(tmp_path, line):
    (tmp_path / "list.txt").write_text(line + "\n")
    custom = voc_tree(tmp_path, image_list="list.txt", classes=("star", "ring", "cross"))
    with pytest.raises(InputError, match="does not exist" if line == "missing" else "leaves"):
        load("v_train_all", tmp_path, custom)


def test_a_time_is_no_drive():
    assert image_path(Path("images"), "12:30.png", "x.json") == "images/12:30.png"
    for name in ("C:/a.png", "c:a.png", "C:\\a.png"):
        with pytest.raises(InputError, match="leaves the image folder"):
            image_path(Path("images"), name, "x.json")


def test_blood_cells():
    folder = shared("byo_bccd")
    train = CustomSource(annotations="annotations/instances_trainval.json", images="images")
    test = CustomSource(annotations="annotations/instances_test.json", images="images")
    custom = {
        "bccd": CustomDataset(format="coco", train=train, test=test, novel_classes=("Platelets",))
    }
    for split, kept in (("all", 3941), ("base", 3649), ("novel", 292)):
        info, records = load(f"bccd_train_{split}", folder, custom)
        assert (len(records), sum(len(r.annotations) for r in records)) == (292, kept)
    assert info.class_names == ("Platelets",) and info.category_ids == (3,)
    info, records = load("bccd_test_all", folder, custom)
    assert info.class_names == ("RBC", "WBC", "Platelets")
    assert (len(records), sum(len(r.annotations) for r in records)) == (72, 945)


def test_pascal_photographs_as_a_set_of_ones_own():
    folder = shared("voc_mini") / "datasets"
    part = CustomSource(annotations="VOC2012/Annotations", images="VOC2012/JPEGImages")
    info, records = load(
        "voc_train_all",
        folder,
        {"voc": CustomDataset(format="voc", train=part, test=part, novel_classes=("bird", "bus"))},
    )
    assert len(records) == 64 and len(info.class_names) == 20
    assert all(Path(record.file_name).is_file() for record in records)
    # <part> elements (heads, hands) are not objects; VOC's boxes start at 1
    assert min(entry.bbox[0] for record in records for entry in record.annotations) == 0.0


def test_misspelt_novel_class(tmp_path):
    custom = coco_tree(tmp_path)
    own = custom["toy"]
    custom = {
        "toy": CustomDataset(format="coco", train=own.train, test=own.test, novel_classes=("stra",))
    }
    with pytest.raises(InputError, match=r"'stra' is not a class .*did you mean 'star'"):
        open_dataset("toy_train_all", datasets_root=tmp_path, custom=custom)
