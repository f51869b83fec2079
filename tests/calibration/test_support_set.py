# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The support set: its hash, its file, and that training writes the boxes it trains on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from src.assembly import calibration as assembly_pcb
from src.assembly import training as assembly
from src.assembly.data import read_training_data
from src.assembly.resume import check_resumable
from src.calibration.support_set import FILE_NAME, SupportSet, read_support_set
from src.defrcn.data_types import Annotation, Record
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.util import write_json
from tests.defrcn.test_few_shot import kshot_tree, voc_tree

BOX = Annotation((1.5, 2.0, 3.25, 4.0), 1, 0)
OTHER = Annotation((7.0, 2.0, 3.0, 4.0), 1, 1, 0, 1)
FIRST = Record("/a/x.png", 3, 50, 30, (BOX, OTHER))
SECOND = Record("/a/y.png", "z", 40, 60, (BOX,))
SUPPORT = SupportSet("toy_train_all_1shot_seed0", ("cross", "star"), (FIRST, SECOND))


def moved(record: Record) -> Record:
    return replace(record, file_name=record.file_name.replace("/a/", "/somewhere/else/"))


@pytest.mark.parametrize(
    "same",
    [
        replace(SUPPORT, records=(moved(FIRST), moved(SECOND))),
        replace(SUPPORT, dataset="renamed"),
        replace(SUPPORT, records=(SECOND, FIRST)),
        replace(SUPPORT, records=(replace(FIRST, annotations=(OTHER, BOX)), SECOND)),
        # one record an object, as VOC's sets have it
        replace(
            SUPPORT,
            records=(
                replace(FIRST, annotations=(BOX,)),
                SECOND,
                replace(FIRST, annotations=(OTHER,)),
            ),
        ),
    ],
    ids=["folder", "name", "order", "boxes", "grouping"],
)
def test_hash_knows_the_same_boxes_again(same):
    assert same.sha256 == SUPPORT.sha256 and len(SUPPORT.sha256) == 64


@pytest.mark.parametrize(
    "other",
    [
        replace(SUPPORT, class_names=("star", "cross")),
        replace(SUPPORT, records=(FIRST,)),
        replace(SUPPORT, records=(FIRST, SECOND, SECOND)),
        replace(SUPPORT, records=(FIRST, replace(SECOND, file_name="/a/w.png"))),
        replace(SUPPORT, records=(FIRST, replace(SECOND, height=41))),
        replace(
            SUPPORT,
            records=(FIRST, replace(SECOND, annotations=(replace(BOX, bbox=(1.5, 2, 3.25, 5)),))),
        ),
        replace(
            SUPPORT, records=(FIRST, replace(SECOND, annotations=(replace(BOX, bbox_mode=0),)))
        ),
        replace(
            SUPPORT, records=(FIRST, replace(SECOND, annotations=(replace(BOX, category_id=1),)))
        ),
    ],
    ids=["classes", "fewer", "more", "file", "size", "box", "mode", "class"],
)
def test_hash_notices(other):
    assert other.sha256 != SUPPORT.sha256


def test_file(tmp_path):
    path = tmp_path / FILE_NAME
    write_json(path, SUPPORT.to_json())
    again = read_support_set(path)
    assert again == SUPPORT and again.sha256 == SUPPORT.sha256
    assert json.loads(path.read_text())["sha256"] == SUPPORT.sha256
    whole = replace(SUPPORT, records=())
    assert SupportSet.from_json(whole.to_json()) == whole


def _set(*keys):
    *path, value = keys

    def change(content):
        at = content
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("records", 0, "annotations", 0, "bbox", 0, 1.25), "was changed after"),
        (_set("class_names", ["cross", "strar"]), "was changed after"),
        (_set("records", 0, "annotations", 0, "category_id", 2), "box of an unlisted class"),
        (_set("records", 0, "annotations", 0, "bbox", [1, 2, 3]), "no whole support set"),
        (_set("records", 0, "annotations", 0, "bbox_mode", 7), "no whole support set"),
        (_set("records", 0, "height", None), "no whole support set"),
        (_set("records", 5), "no whole support set"),
        (_set("version", 99), "no support set of this version"),
        (lambda content: content.pop("sha256"), "no whole support set"),
    ],
)
def test_changed_files_are_refused(tmp_path, change, words):
    content = json.loads(json.dumps(SUPPORT.to_json()))
    change(content)
    path = tmp_path / "s.json"
    write_json(path, content)
    with pytest.raises(InputError, match=rf"s\.json.*{words}"):
        read_support_set(path)


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_support_set(tmp_path / "no.json")
    (tmp_path / "s.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_support_set(tmp_path / "s.json")
    (tmp_path / "s.json").write_text("[1]")
    with pytest.raises(InputError, match="no support set"):
        read_support_set(tmp_path / "s.json")


# --- training writes it

CONFIG = """
datasets_root: {root}
train_mindrecord_dir: {root}/record/seedx
save_checkpoint_path: {root}/run
input: {{min_size_train: [30], max_size_train: 60, flip_probability: 0.0}}
data:
  train: [{name}]
  test: [toy_test_novel]
  custom:
    toy:
      format: coco
      train: {{annotations: toy/train.json, images: toy/images}}
      test: {{annotations: toy/train.json, images: toy/images}}
      novel_classes: [star]
      few_shot: shots
"""


def open_data(root, name, *flags):
    """Open the training data as train.py does, and write what it writes with a first checkpoint.

    Returns the configuration and the boxes of some batches, in the image frame.
    """
    (root / "c.yaml").write_text(CONFIG.format(root=root, name=name))
    config = load_config(root / "c.yaml", flags)
    data = read_training_data(config)
    check_resumable(config, data, None)
    loader = assembly.open_training_data(config, data, start_batch=0)
    if data.support:
        write_json(root / "run" / FILE_NAME, data.support.to_json())
    boxes = set()
    for _ in range(2 * loader.num_images):
        batch = next(loader)
        scale = batch.original_sizes[0] / batch.image_sizes[0]
        found = batch.gt_boxes[0][batch.gt_valid[0]] * np.tile(scale[::-1], 2)
        classes = batch.gt_classes[0][batch.gt_valid[0]]
        for box, index in zip(found.round(2).tolist(), classes.tolist()):
            boxes.add((batch.file_names[0].rsplit("/")[-1], loader.class_names[index], *box))
    loader.close()
    return config, boxes


def support_boxes(support):
    boxes = set()
    for record in support.records:
        for entry in record.annotations:
            a, b, c, d = entry.bbox
            corners = (a, b, a + c, b + d) if entry.bbox_mode == 1 else entry.bbox
            name = support.class_names[entry.category_id]
            boxes.add((record.file_name.rsplit("/")[-1], name, *corners))
    return boxes


def test_the_file_holds_what_is_trained(tmp_path):
    kshot_tree(tmp_path)
    config, trained = open_data(tmp_path, "toy_train_all_1shot_seedx")
    support = read_support_set(tmp_path / "run" / FILE_NAME)
    assert support.dataset == "toy_train_all_1shot_seed0"
    assert support_boxes(support) == trained and len(trained) == 3
    assert assembly_pcb.read_support(config).sha256 == support.sha256
    # found from where checkpoints are: beside the file, or one folder up
    (tmp_path / "run" / "ckpt_0").mkdir()
    checkpoint = tmp_path / "run" / "ckpt_0" / "defrcn-3.ckpt"
    checkpoint.touch()
    assembly_pcb.check_support(support, checkpoint, any_support=False)
    with pytest.raises(InputError, match="is not the one that"):
        assembly_pcb.check_support(SUPPORT, checkpoint, any_support=False)


def test_drawn_voc_boxes_are_those_that_are_trained_and_calibrated_with(tmp_path):
    kshot_tree(tmp_path)
    (tmp_path / "shots" / "seed0").rename(tmp_path / "shots" / "seed1")
    voc_tree(tmp_path)
    name = "voc_2007_trainval_novel1_1shot_seedx"
    config, trained = open_data(tmp_path, name)
    support = read_support_set(tmp_path / "run" / FILE_NAME)
    assert support_boxes(support) == trained and len(trained) == 5
    assert all(assembly_pcb.read_support(config) == support for _ in range(10))
    # without a seed the file still holds the boxes of this training
    flags = ["--data.official_vocsplit_sampling=true"]
    hashes = set()
    for _ in range(22):
        config, trained = open_data(tmp_path, name, *flags)
        support = read_support_set(tmp_path / "run" / FILE_NAME)
        assert support_boxes(support) == trained
        hashes.add(support.sha256)
    assert len(hashes) == 2  # one of two birds


def test_other_training_sets_have_no_support_set(tmp_path):
    kshot_tree(tmp_path)
    open_data(tmp_path, "toy_train_all")
    assert not (tmp_path / "run" / FILE_NAME).exists()
    open_data(tmp_path, "toy_train_all_1shot_seed0")
    before = (tmp_path / "run" / FILE_NAME).read_text()
    with pytest.raises(InputError, match="are not those of toy_train_all now"):
        open_data(tmp_path, "toy_train_all", "--resume")
    assert (tmp_path / "run" / FILE_NAME).read_text() == before


def test_a_mixture_names_the_few_shot_part_only(tmp_path):
    kshot_tree(tmp_path)
    open_data(tmp_path, "toy_train_all_1shot_seed0, toy_test_all")
    support = read_support_set(tmp_path / "run" / FILE_NAME)
    assert support.dataset == "toy_train_all_1shot_seed0" and len(support_boxes(support)) == 3


def test_a_run_is_resumed_with_its_own_boxes(tmp_path):
    kshot_tree(tmp_path)
    open_data(tmp_path, "toy_train_all_1shot_seed0")
    before = (tmp_path / "run" / FILE_NAME).read_text()
    open_data(tmp_path, "toy_train_all_1shot_seed0", "--resume")
    path = tmp_path / "shots" / "seed0" / "full_box_1shot_ring_trainval.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [2, 2, 3, 4]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="which the run was started with"):
        open_data(tmp_path, "toy_train_all_1shot_seed0", "--resume")
    assert (tmp_path / "run" / FILE_NAME).read_text() == before
    open_data(tmp_path, "toy_train_all_1shot_seed0")
    assert (tmp_path / "run" / FILE_NAME).read_text() != before
