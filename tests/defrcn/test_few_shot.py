# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""K-shot sets: names, TFA's files in COCO and VOC format, the draw of K boxes."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from src.calibration.support_set import SupportSet
from src.data.batching import Preprocessing
from src.data.mindrecord_build import input_key, labelled_classes, with_labels
from src.dataset import TrainLoader, build_mindrecord, load_dataset
from src.defrcn.built_datacategory import (
    VOC_CLASSES,
    VOC_NOVEL_CLASSES,
    FewShot,
    resolve_dataset,
    voc_categories,
)
from src.defrcn.few_shot import class_file, draw, file_name
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.model_utils.errors import InputError
from src.model_utils.set_names import is_few_shot
from tests.helpers.data_helpers import CATEGORIES, coco_tree, voc_xml, write_image

# --- names


def test_coco_names_and_paths():
    info = resolve_dataset("coco14_trainval_novel_10shot_seed9", datasets_root="d", coco_root="/c")
    assert info.few_shot == FewShot(Path("d/cocosplit"), 10, 9)
    assert info.image_root == Path("/c/trainval2014")
    assert (len(info.class_names), info.split, info.name[-5:]) == (20, "novel", "seed9")
    assert len(resolve_dataset("coco14_trainval_all_30shot_seed0").class_names) == 80
    path = "d/cocosplit/seed9/full_box_10shot_dining table_trainval.json"
    with pytest.raises(InputError, match="folder of K-shot files d/cocosplit/seed9 does not"):
        class_file(info.few_shot, "coco", "dining table")
    assert f"d/cocosplit/seed9/{file_name('coco', 10, 'dining table')}" == path


def test_voc_names_and_paths():
    info = resolve_dataset("voc_2012_trainval_base2", datasets_root="d")
    assert info.annotations == Path("d/VOC2012/Annotations")
    assert info.image_list == Path("d/VOC2012/ImageSets/Main/trainval.txt")
    assert (len(info.class_names), len(info.novel_classes)) == (15, 5)
    info = resolve_dataset("voc_2007_test_all3", datasets_root="d")
    assert info.image_list == Path("d/VOC2007/ImageSets/Main/test.txt")
    assert info.class_names == info.base_classes + info.novel_classes
    assert info.category_ids == tuple(range(1, 21))
    info = resolve_dataset("voc_2007_test_novel3", datasets_root="d")
    assert info.class_names == VOC_NOVEL_CLASSES[3] and info.category_ids == (16, 17, 18, 19, 20)
    info = resolve_dataset("voc_2012_trainval_novel1_5shot_seed29", datasets_root="d")
    assert info.few_shot == FewShot(Path("d/vocsplit"), 5, 29, True, Path("d"))
    other = resolve_dataset(
        "voc_2012_trainval_novel1_5shot_seed29", official_vocsplit_sampling=True
    )
    assert not other.few_shot.seeded


def test_voc_table():
    assert len(VOC_CLASSES) == 20 and list(VOC_CLASSES) == sorted(VOC_CLASSES)
    for number, novel in VOC_NOVEL_CLASSES.items():
        names = [name for _, name in voc_categories(number)]
        assert sorted(names) == list(VOC_CLASSES) and tuple(names[15:]) == novel


OWN = CustomDataset(
    format="coco",
    train=CustomSource(annotations="t.json", images="t"),
    test=CustomSource(annotations="v.json", images="v"),
    novel_classes=("a",),
)
SETS = {
    "x": OWN.model_copy(update={"few_shot": "k"}),
    "y": OWN,
    "my_test": OWN.model_copy(update={"few_shot": "k"}),
}


def test_own_names():
    info = resolve_dataset("x_train_novel_7shot_seed123", datasets_root="d", custom=SETS)
    assert info.few_shot == FewShot(Path("d/k"), 7, 123)
    assert (info.name, info.split) == ("x_train_novel_7shot_seed123", "novel")
    assert resolve_dataset("my_test_train_all_1shot_seed0", custom=SETS).few_shot.shot == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("coco14_trainval_novel_4shot_seed0", "4 shots do not exist, only 1, 2, 3, 5, 10, 30"),
        ("coco14_trainval_novel_5shot_seed10", "seed 10 does not exist, only 0 to 9; .*shot_seed"),
        ("voc_2007_trainval_all1_30shot_seed0", "30 shots do not exist, only 1, 2, 3, 5, 10"),
        ("voc_2007_trainval_all1_1shot_seed30", "seed 30 does not exist, only 0 to 29"),
        ("coco14_trainval_nvoel_5shot_seed3", "mean 'coco14_trainval_novel_5shot_seed3'"),
        ("coco14_trainval_novel_5shots_seed3", "mean 'coco14_trainval_novel_5shot_seed3'"),
        ("coco14_trainval_novel_5shot_seedx", "mean 'coco14_trainval_novel_5shot_seed0'"),
        ("coco14_trainval_base_5shot_seed3", "unknown"),
        ("coco14_test_novel_5shot_seed3", "mean 'coco14_trainval_novel_5shot_seed3'"),
        ("voc_2007_trainval_novel_5shot_seed3", r"mean 'voc_2007_trainval_novel\d_5shot_seed3'"),
        ("voc_2012_test_all1", "mean 'voc_2007_test_all1'"),
        ("voc_2007_trainval_novel4", "unknown .*known are .*voc_2007_test"),
        ("voc_2007_trainval_all1_1shot_seed01", "unknown"),
        ("x_trian_all_1shot_seed0", "mean 'x_train_all_1shot_seed0'"),
        ("x_test_all_1shot_seed0", "unknown"),
        ("x_train_base_1shot_seed0", "unknown"),
        ("x_train_all_0shot_seed0", "unknown"),
        ("y_train_all_1shot_seed0", "data.custom.y.few_shot is empty; draw .*src.tools.draw_kshot"),
        ("x_train_all_1shot_seed" + "9" * 5000, "unknown"),
    ],
)
def test_names_that_do_not_exist(name, words):
    with pytest.raises(InputError, match=words) as caught:
        resolve_dataset(name, custom=SETS)
    assert "\n" not in str(caught.value)


def test_which_names_are_of_k_shot_sets():
    assert is_few_shot("x_train_all_5shot_seed0") and is_few_shot("x_train_all_5shot_seedx")
    assert not is_few_shot("coco14_trainval_all") and not is_few_shot("5shot_seed0_train_all")


# --- the draw

ONE = FewShot(Path("k"), 3, 0)


def test_draw_is_seeded_by_the_set_and_keeps_the_order():
    items = list(range(50))
    kept = draw(items, ONE, "cat", Path("f"))
    assert len(set(kept)) == 3 and kept == sorted(kept)
    assert kept == draw(items, replace(ONE, folder=Path("elsewhere")), "cat", Path("g"))
    others = [
        draw(items, replace(ONE, seed=1), "cat", Path("f")),
        draw(items, replace(ONE, seed=2), "cat", Path("f")),
        draw(items, ONE, "dog", Path("f")),
    ]
    assert all(other != kept for other in others)


def test_draw_reaches_every_box():
    seen = Counter(i for s in range(300) for i in draw(range(6), replace(ONE, seed=s), "c", Path()))
    # 150 expected each; 100 and 200 are more than five standard deviations away
    assert set(seen) == set(range(6)) and all(100 < count < 200 for count in seen.values())


def test_draw_without_a_seed_differs_each_time():
    official = replace(ONE, seeded=False)
    assert len({tuple(draw(range(1000), official, "cat", Path("f"))) for _ in range(5)}) == 5


def test_draw_of_few(caplog):
    with caplog.at_level(logging.WARNING):
        assert draw([7, 8], ONE, "cat", Path("f.txt")) == [7, 8]
    assert "f.txt: 2 boxes of class cat, not 3" in caplog.text
    assert draw([1, 2, 3], ONE, "cat", Path("f")) == [1, 2, 3]
    with pytest.raises(InputError, match=r"f\.txt: lists no box of class 'cat'"):
        draw([], ONE, "cat", Path("f.txt"))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"seed0 does not exist; it has no seed"):
        class_file(FewShot(tmp_path, 1, 0), "coco", "a")
    (tmp_path / "full_box_1shot_a_trainval.json").touch()
    with pytest.raises(InputError, match="in no seed's folder are seed 0: move them to seed0"):
        class_file(FewShot(tmp_path, 1, 0), "coco", "a")
    (tmp_path / "seed10").mkdir()
    (tmp_path / "seed2").mkdir()
    with pytest.raises(InputError, match="seed0 does not exist; seeds there are 2, 10"):
        class_file(FewShot(tmp_path, 3, 0), "coco", "a")
    for shot in (2, 10):
        (tmp_path / "seed2" / f"full_box_{shot}shot_a_trainval.json").touch()
    with pytest.raises(InputError, match=r"full_box_1shot_a_.*shots there are 2, 10 for class 'a'"):
        class_file(FewShot(tmp_path, 1, 2), "coco", "a")
    with pytest.raises(InputError, match=r"box_1shot_a_train\.txt does not exist; it has no file"):
        class_file(FewShot(tmp_path, 1, 2), "voc", "a")


@pytest.mark.parametrize("name", ["a/b", "..\\x", "", " ", "a\0"])
def test_class_names_may_not_lead_elsewhere(name):
    with pytest.raises(InputError, match="cannot be part of a K-shot file's name"):
        file_name("coco", 1, name)


# --- COCO format

BOXES = {
    "ring": (7, 5, [1, 2, 3, 4]),
    "cross": (2, 3, [5, 6, 7.5, 8]),
    "star": (4, 5, [9, 8, 7, 6]),
}
IMAGES = {
    3: {"id": 3, "file_name": "a.png", "height": 50, "width": 30},
    5: {"id": 5, "file_name": "b.png", "height": 40, "width": 60},
}


def kshot_content(name):
    category, image, box = BOXES[name]
    entry = {"id": 1, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
    content = {"images": [IMAGES[image]], "annotations": [entry], "categories": CATEGORIES}
    return copy.deepcopy(content)


def kshot_tree(root: Path, changes=None) -> dict[str, CustomDataset]:
    """The set `toy` with 1-shot files; `changes` maps a class to a change of its content."""
    custom = coco_tree(root)
    (root / "shots" / "seed0").mkdir(parents=True)
    for name in BOXES:
        content = kshot_content(name)
        (changes or {}).get(name, lambda _: None)(content)
        path = root / "shots" / "seed0" / f"full_box_1shot_{name}_trainval.json"
        path.write_text(json.dumps(content))
    return {"toy": custom["toy"].model_copy(update={"few_shot": "shots"})}


def load(name, root, custom=None, **more):
    return load_dataset([name], datasets_root=root, custom=custom, **more)


def test_own_kshot_sets(tmp_path):
    custom = kshot_tree(tmp_path)
    info, records = load("toy_train_all_1shot_seed0", tmp_path, custom)
    assert info.class_names == ("cross", "star", "ring")
    # images in the order of classes, boxes of all classes merged, in the order of the classes
    assert [record.image_id for record in records] == [3, 5]
    assert [entry.category_id for entry in records[1].annotations] == [1, 2]
    assert [entry.bbox for entry in records[1].annotations] == [(9, 8, 7, 6), (1, 2, 3, 4)]
    assert records[1].file_name == str(tmp_path / "toy" / "images" / "b.png")
    info, records = load("toy_train_novel_1shot_seed0", tmp_path, custom)
    assert info.class_names == ("star",) and info.base_classes == ("cross", "ring")
    assert [[entry.category_id for entry in r.annotations] for r in records] == [[0]]


def test_more_boxes_than_k_are_drawn_and_crowds_left_out(tmp_path):
    def more(content):
        entry = content["annotations"][0]
        content["annotations"] += [{**entry, "id": i, "bbox": [i, 2, 3, 4]} for i in range(2, 8)]
        content["annotations"].append({**entry, "id": 9, "bbox": [20, 20, 9, 9], "iscrowd": 1})
        content["images"] = content["images"] * 3
        del content["categories"]

    custom = kshot_tree(tmp_path, {"ring": more})
    sets = []
    for seed in range(6):
        (tmp_path / "shots" / "seed0").rename(tmp_path / "shots" / "tmp")
        (tmp_path / "shots" / "tmp").rename(tmp_path / "shots" / f"seed{seed}")
        _, records = load(f"toy_train_all_1shot_seed{seed}", tmp_path, custom)
        assert load(f"toy_train_all_1shot_seed{seed}", tmp_path, custom)[1] == records
        (ring,) = (e for r in records for e in r.annotations if e.category_id == 2)
        assert not ring.iscrowd and ring.bbox[2:] == (3, 4)
        sets.append(ring.bbox[0])
        (tmp_path / "shots" / f"seed{seed}").rename(tmp_path / "shots" / "seed0")
    assert len(set(sets)) > 1


def test_crowds_say_what_a_picture_is_labelled_for(tmp_path):
    """In the record's labelled classes, and nowhere else: hashes and keys stay as they are."""
    plain = load("toy_train_all_1shot_seed0", tmp_path / "a", kshot_tree(tmp_path / "a"))

    def crowd(content):
        (entry,), (category, _, _) = content["annotations"], BOXES["cross"]
        content["images"].append(IMAGES[5])  # which other classes have a box on
        content["annotations"].append(
            {**entry, "id": 2, "image_id": 5, "category_id": category, "iscrowd": 1}
        )

    def empty(content):
        content["annotations"][0]["bbox"] = [9, 8, 0, 6]

    custom = kshot_tree(tmp_path / "b", {"cross": crowd, "star": empty})
    info, records = load("toy_train_all_1shot_seed0", tmp_path / "b", custom)
    assert info.class_names == ("cross", "star", "ring")
    labelled = [labelled_classes(record, 3).tolist() for record in records]
    assert labelled == [[True, False, False], [True, True, True]]
    assert [labelled_classes(record, 3).tolist() for record in plain[1]] == [
        [True, False, False],
        [False, True, True],
    ]

    custom = kshot_tree(tmp_path / "c", {"cross": crowd})
    info, records = load("toy_train_all_1shot_seed0", tmp_path / "c", custom)
    boxes = [[one.annotations for one in these] for these in (plain[1], records)]
    assert boxes[0] == boxes[1]
    supports = [SupportSet("s", info.class_names, tuple(one)) for one in (plain[1], records)]
    assert supports[0].sha256 == supports[1].sha256
    stored = json.loads(json.dumps(supports[1].to_json()))
    assert SupportSet.from_json(stored) == supports[1]
    # the same folder for cls_loss ce, another one for dcfs
    bare = [replace(record, crowd_classes=()) for record in records]
    keys = [
        input_key(one, training=True, class_names=info.class_names, max_pixels=1)
        for one in (records, bare)
    ]
    assert keys[0] == keys[1]
    assert with_labels(keys[0], records) != with_labels(keys[0], bare)
    # those of before crowds counted stay valid where there is none
    assert with_labels("key", bare) == hashlib.sha256(b"key labelled").hexdigest()


def _other_class(content):
    content["annotations"][0]["category_id"] = 2


def _other_image(content):
    content["images"][0] = {**content["images"][0], "file_name": "c.png"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_other_class, r"ring_trainval\.json: annotation 1 is not of class 'ring'"),
        (lambda c: c["images"].clear(), "annotation 1 is of an unlisted image"),
        (lambda c: c["annotations"].clear(), "lists no box of class 'ring'"),
        (lambda c: c["annotations"][0].update(iscrowd=1), "lists no box of class 'ring'"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 4]), "holds NaN"),
        (lambda c: c["annotations"][0].update(category_id=99), "99 is not among"),
        (lambda c: c["images"][0].update(file_name="../x.png"), "leaves the image folder"),
        (lambda c: c["images"].append({**IMAGES[5], "height": 41}), "image id 5 occurs twice"),
        (_other_image, r"ring_trainval\.json: image id 5 is another image"),
        (lambda c: c.update(categories=[{"id": 7, "name": "star"}]), "category 7 is 'star' here"),
        (lambda c: c.pop("annotations"), "has no list 'annotations'"),
    ],
)
def test_wrong_kshot_files(tmp_path, change, words):
    custom = kshot_tree(tmp_path, {"ring": change})
    with pytest.raises(InputError, match=words):
        load("toy_train_all_1shot_seed0", tmp_path, custom)


def test_two_names_of_the_same_boxes_are_refused():
    names = [f"voc_{year}_trainval_novel1_1shot_seed0" for year in (2007, 2012)]
    with pytest.raises(InputError, match="hold the same boxes; name one of them"):
        load_dataset(names)


# --- VOC format


def voc_tree(root: Path) -> None:
    """PASCAL VOC's layout with one image of each year and the 1-shot lists of split 1's novel."""
    objects = [("bird", 3, 4, 20, 22, 1), ("person", 1, 1, 40, 30, 0), ("bird", 5, 6, 7, 8, 0)]
    novel = [(name, 2, 3, 9, 11, 0) for name in ("bus", "cow", "motorbike", "sofa")]
    for year, image_id, found in (("2007", "000012", objects), ("2012", "2008_000001", novel)):
        write_image(root / f"VOC{year}" / "JPEGImages" / f"{image_id}.jpg", 30, 40, 1)
        folder = root / f"VOC{year}" / "Annotations"
        folder.mkdir()
        (folder / f"{image_id}.xml").write_text(voc_xml(30, 40, found, f"{image_id}.jpg"))
    (root / "vocsplit" / "seed0").mkdir(parents=True)
    for name in VOC_NOVEL_CLASSES[1]:
        line = "datasets/VOC2012/JPEGImages/2008_000001.jpg\n"
        text = "datasets/VOC2007/JPEGImages/000012.jpg" if name == "bird" else line
        for shot in (1, 2, 3):
            path = root / "vocsplit" / "seed0" / f"box_{shot}shot_{name}_train.txt"
            path.write_text(text)


def test_voc_takes_images_of_both_years_and_difficult_objects(tmp_path):
    voc_tree(tmp_path)
    _, records = load("voc_2007_trainval_novel1_2shot_seed0", tmp_path)
    assert records == load("voc_2012_trainval_novel1_2shot_seed0", tmp_path)[1]
    found = [(r.image_id, r.annotations[0].category_id, r.annotations[0].bbox) for r in records]
    assert found[:2] == [("000012", 0, (2, 3, 20, 22)), ("000012", 0, (4, 5, 7, 8))]
    assert found[2] == ("2008_000001", 1, (1, 2, 9, 11)) and len(found) == 6
    assert [r.annotations[0].difficult for r in records[:2]] == [1, 0]
    assert records[0].file_name == str(tmp_path / "VOC2007/JPEGImages/000012.jpg")


def test_voc_draw_with_and_without_a_seed(tmp_path):
    voc_tree(tmp_path)
    name = "voc_2007_trainval_novel1_1shot_seed0"
    kept = {load(name, tmp_path)[1][0].annotations for _ in range(20)}
    assert len(kept) == 1
    free = {
        load(name, tmp_path, official_vocsplit_sampling=True)[1][0].annotations for _ in range(40)
    }
    assert len(free) == 2  # one of two birds; the same one 40 times has a chance of 2e-12


def test_an_image_that_is_listed_twice_counts_twice(tmp_path):
    voc_tree(tmp_path)
    path = tmp_path / "vocsplit" / "seed0" / "box_3shot_cow_train.txt"
    path.write_text(path.read_text() * 2)
    _, records = load("voc_2007_trainval_novel1_3shot_seed0", tmp_path)
    assert sum(r.annotations[0].category_id == 2 for r in records) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"box_1shot_cow_train\.txt: lists no box of class 'cow'"),
        ("datasets/VOC2007/JPEGImages/000012.jpg", "lists no box of class 'cow'"),
        ("datasets/VOC2007/JPEGImages/000013.jpg", r"000013\.xml does not exist"),
        ("..", "leaves|does not exist"),
    ],
)
def test_wrong_voc_lists(tmp_path, text, words):
    voc_tree(tmp_path)
    (tmp_path / "vocsplit" / "seed0" / "box_1shot_cow_train.txt").write_text(text)
    with pytest.raises(InputError, match=words):
        load("voc_2007_trainval_novel1_1shot_seed0", tmp_path)


def test_own_voc_format(tmp_path):
    voc_tree(tmp_path)
    source = CustomSource(annotations="VOC2007/Annotations", images="VOC2007/JPEGImages")
    custom = {
        "v": CustomDataset(
            format="voc",
            train=source,
            test=source,
            novel_classes=("bird",),
            classes=(),
            few_shot="shots",
        )
    }
    (tmp_path / "shots" / "seed4").mkdir(parents=True)
    for name in ("bird", "person"):
        (tmp_path / "shots" / "seed4" / f"box_1shot_{name}_train.txt").write_text("000012\n")
    info, records = load("v_train_all_1shot_seed4", tmp_path, custom)
    assert info.class_names == ("bird", "person")
    assert [record.annotations[0].category_id for record in records] == [0, 1]


def test_records_of_single_objects_train(tmp_path):
    """Several records of one image go through MindRecord and the loader."""
    voc_tree(tmp_path)
    info, records = load("voc_2007_trainval_novel1_2shot_seed0", tmp_path)
    folder = tmp_path / "record"
    build_mindrecord(
        records, folder, class_names=info.class_names, training=True, show_progress=False
    )
    settings = Preprocessing(max_size=60)
    loader = TrainLoader(folder, settings, batch_size=2, min_sizes=(30,), flip_probability=0.0)
    assert loader.num_images == 6
    seen = Counter()
    for _ in range(6):
        batch = next(loader)
        assert batch.gt_valid.sum(axis=1).tolist() == [1, 1]
        seen.update(int(c) for c in batch.gt_classes[batch.gt_valid])
    loader.close()
    assert seen[0] == 4 and seen[1] == 2  # two of six records are birds
