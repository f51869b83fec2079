# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Base classes as if novel: who is judged, what is drawn, what a setting makes of the scores."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import yaml

from src.assembly.base_draws import BaseDraws, Found, Judge, draw_base
from src.assembly.data import read_sets
from src.defrcn.pcb import Calibrator, Picture, Prototypes
from src.model_utils.config import load_config
from src.model_utils.errors import InputError

NAMES = {1: "ring", 2: "star", 3: "disc"}  # star is novel


def annotations(count, first=1):
    """Pictures with two rings and a star each, every second one a disc; crowds too."""
    images, objects = [], []
    for number in range(first, first + count):
        images.append({"id": number, "file_name": f"{number}.png", "height": 100, "width": 100})
        for place, kind in enumerate((1, 1, 2, *([3] if number % 2 else []))):
            box = [10.0 * place, number % 50, 20.0, 30.0]
            objects.append({"bbox": box, "category_id": kind, "area": 600.0, "iscrowd": 0})
        objects.append({"bbox": [0, 0, 90, 90], "category_id": 3, "area": 8100.0, "iscrowd": 1})
        for place, one in enumerate(objects[-5:]):
            one.setdefault("image_id", number)
            one.setdefault("id", 10 * number + place)
    categories = [{"id": number, "name": name} for number, name in NAMES.items()]
    return {"images": images, "annotations": objects, "categories": categories}


def write(path, content):
    path.write_text(json.dumps(content))


@pytest.fixture
def config(tmp_path):
    write(tmp_path / "train.json", annotations(40))
    write(tmp_path / "test.json", annotations(6, first=101))
    halves = {half: {"annotations": f"{half}.json", "images": "."} for half in ("train", "test")}
    own = {"format": "coco", "novel_classes": ["star"], **halves}
    settings = {"datasets_root": str(tmp_path), "data": {"train": ["mine_train_base"]}}
    settings["data"] |= {"test": ["mine_test_base"], "custom": {"mine": own}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    return lambda *flags: load_config(tmp_path / "c.yaml", flags)


def drawn(config, on="", **numbers):
    return draw_base(config, on, **{"pictures": 500, "shots": 3, "draws": 4, **numbers})


def files(records):
    return [record.file_name for record in records]


def test_each_draw_has_k_boxes_of_each_base_class(config):
    base = drawn(config())
    assert base.info.class_names == ("ring", "disc") and base.own
    for records in base.draws:
        counts = Counter(item.category_id for one in records for item in one.annotations)
        assert counts == {0: 3, 1: 3}
        assert not any(item.iscrowd for one in records for item in one.annotations)
    assert len({tuple(files(records)) for records in base.draws}) == 4


def test_judged_pictures_are_none_of_the_drawn(config):
    """Half of the training set at most; of another set any, but those of the training set."""
    base = drawn(config())
    assert len(base.judged) == 20
    pool = {name for records in base.draws for name in files(records)}
    assert not pool & set(files(base.judged))
    # Numbered anew: pictures of two sets may have the same ids.
    assert [record.image_id for record in base.judged] == list(range(1, 21))
    order = [int(name.rpartition("/")[2].partition(".")[0]) for name in files(base.judged)]
    assert order == sorted(order) and order != list(range(1, 21))
    assert len(drawn(config(), pictures=7).judged) == 7
    other = drawn(config(), "mine_test_base")
    assert [one.image_id for one in other.judged] == list(range(1, 7)) and not other.own
    assert len(drawn(config(), "mine_test_base", pictures=2).judged) == 2
    same = drawn(config(), "mine_train_base", pictures=30)
    assert not {n for records in same.draws for n in files(records)} & set(files(same.judged))


def test_the_seed_decides(config):
    def numbers(base: BaseDraws):
        return files(base.judged), [files(records) for records in base.draws]

    assert numbers(drawn(config())) == numbers(drawn(config()))
    assert numbers(drawn(config())) != numbers(drawn(config("--seed=1")))
    # More draws, or other shots, judge the same pictures; the first draws stay.
    more = drawn(config(), draws=6)
    assert numbers(more)[0] == numbers(drawn(config()))[0]
    assert more.draws[:4] == drawn(config()).draws


def test_classes_with_few_boxes_give_all_they_have(config, caplog):
    base = drawn(config(), shots=15, pictures=1)
    counts = Counter(item.category_id for one in base.draws[0] for item in one.annotations)
    assert counts[0] == 15 and counts[1] == 15
    base = drawn(config(), shots=99)
    counts = Counter(item.category_id for one in base.draws[0] for item in one.annotations)
    pool = Counter(files(base.draws[0]))
    assert counts[0] == 2 * len(pool) == 40
    assert caplog.text.count("ring has 40 boxes to draw from, not 99") == 1


@pytest.mark.parametrize(
    ("flags", "on", "words"),
    [
        (
            ["--data.train=[mine_train_all]"],
            "",
            r"data.train: mine_train_all has novel cl.*\(star\)",
        ),
        (
            ["--data.train=[mine_train_novel]"],
            "",
            r"data.train: mine_train_novel has novel classes",
        ),
        ([], "mine_test_all", r"--on: mine_test_all has novel classes \(star\), and nothing may"),
        ([], "mine_tset_base", r"unknown \(did you mean 'mine_test_base'\?\)"),
        (
            ["--data.custom.mine.novel_classes=[]", "--data.train=[mine_train_all]"],
            "coco14_test_base",
            r"instances|does not exist",
        ),
    ],
)
def test_novel_classes_and_unknown_sets_are_refused(config, flags, on, words):
    with pytest.raises(InputError, match=words):
        drawn(config(*flags), on)


def test_too_few_pictures_are_refused(config, tmp_path):
    write(tmp_path / "train.json", annotations(1))
    with pytest.raises(InputError, match="mine_train_base has 1 pictures .* too few to judge"):
        drawn(config())


def test_novel_annotations_do_not_matter(config, tmp_path):
    """Moved, taken out, or many more of them: draws and ground truth are the same."""
    settings = config()
    base = drawn(settings)
    judge = Judge(settings, base)
    content = annotations(40)
    poisoned = []
    for one in content["annotations"]:
        if one["category_id"] == 2:
            if one["image_id"] % 3 == 0:
                continue
            one["bbox"] = [1.0, 2.0, 3.0, 4.0]
        poisoned.append(one)
    many = {"category_id": 2, "image_id": 5, "bbox": [0, 0, 99, 99], "area": 9801, "iscrowd": 0}
    poisoned += [{**many, "id": 9000 + number} for number in range(50)]
    write(tmp_path / "train.json", {**content, "annotations": poisoned})
    again = drawn(settings)
    assert (again.judged, again.draws) == (base.judged, base.draws)
    assert Judge(settings, again)._truth == judge._truth
    assert all(entry["category_id"] != 2 for entry in judge._truth["annotations"])


def test_scores_are_those_of_the_block():
    """With a draw's prototypes, and classes of which there is none."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 5)).astype(np.float32)
    prototypes = Prototypes(rng.normal(size=(3, 5)).astype(np.float32), np.array([2, 0, 1]))
    scores = rng.uniform(0, 1, 40).astype(np.float32)
    scores[:2] = 0.2, 0.9  # at the limits
    classes, boxes = np.arange(40) % 3, np.zeros((40, 4), np.float32)
    calibrator = Calibrator(
        None,
        prototypes,
        excluded=[],
        alpha=0.3,
        lower=0.2,
        upper=0.9,
        read=lambda name: Picture(np.zeros((1, 1, 3), np.uint8), ""),
        vectors=lambda picture, chosen: vectors[chosen[:, 0].astype(int)],
    )
    boxes[:, 0] = np.arange(40)
    wanted = calibrator("x.png", boxes, scores, classes)
    rows = prototypes.vectors[classes]
    cosine = (
        (vectors * rows).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(rows, axis=1)
    )
    cosine = np.where(classes == 1, np.nan, cosine).astype(np.float32)
    found = Found(1, boxes, scores, classes, np.stack([cosine * 0, cosine]))
    np.testing.assert_allclose(found.calibrated(1, 0.3, 0.2, 0.9), wanted, atol=1e-6)
    assert np.abs(found.calibrated(0, 0.3, 0.2, 0.9) - wanted).max() > 0.1
    np.testing.assert_array_equal(found.calibrated(1, 1.0, 0.2, 0.9), scores)
    np.testing.assert_array_equal(found.scores, scores)


def test_figures_by_hand(config):
    """A false ring above the right one halves the precision; the block turns the two round."""
    settings = config()
    base = drawn(settings, "mine_test_base", pictures=1)
    (record,) = base.judged
    right = np.array([one.bbox for one in record.annotations if one.category_id == 0][:1])
    right[:, 2:] += right[:, :2]
    boxes = np.concatenate([[[50, 60, 90, 99]], right]).astype(np.float32)
    cosine = np.array([[0.1, 0.9]], np.float32)
    found = [
        Found(record.image_id, boxes, np.array([0.8, 0.6], np.float32), np.zeros(2, int), cosine)
    ]
    judge = Judge(settings, base)
    assert judge.figure == "AP"
    plain = judge(found, [one.scores for one in found])
    mixed = judge(found, [one.calibrated(0, 0.5, 0.05, 1.0) for one in found])
    # One of two rings is found: recalls 0 to 0.5 of the 101 count, 51 of them. No disc is found.
    rings = 51 / 101
    discs = sum(one.category_id == 1 and not one.iscrowd for one in record.annotations)
    assert mixed["AP"] == pytest.approx(100 * rings / (1 + discs), abs=1e-6)
    assert plain["AP"] == pytest.approx(100 * rings / 2 / (1 + discs), abs=1e-6)
    assert plain["AP50"] == pytest.approx(plain["AP"])
    none = judge(
        [Found(record.image_id, boxes[:0], np.zeros(0), np.zeros(0, int), cosine[:, :0])],
        [np.zeros(0)],
    )
    assert none["AP"] == 0


def test_vocs_rules_choose_by_ap50(config):
    settings = config("--test.metric=voc07")
    assert Judge(settings, drawn(settings)).figure == "AP50"


def test_base_sets_have_no_novel_box(config):
    """What the reading of base sets promises, and all above relies on."""
    info, records = read_sets(config(), ("mine_train_base",))
    assert "star" not in info.class_names
    assert sum(len(record.annotations) for record in records) == 40 * 2 + 20 + 40
