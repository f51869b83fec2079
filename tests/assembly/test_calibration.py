# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The calibration block from a configuration: what it is made of, kept, and refused for."""

from __future__ import annotations

import cv2
import mindspore as ms
import numpy as np
import pytest

from src.assembly import data as assembly_data
from src.assembly import encoders
from src.assembly.calibration import make_calibrator, supports_of
from src.data.batching import Batch
from src.defrcn.data_types import XYWH, Annotation, DatasetInfo, Record
from src.defrcn.pcb import cosines
from src.defrcn.pcb_encoder import ResNetEncoder
from src.engine.inference import detect, rows_of
from src.engine.network import Network
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.util import write_json
from src.weights.ckpt_format import write_ckpt
from tests.defrcn.test_few_shot import kshot_tree
from tests.defrcn.test_pcb_encoder import parameters
from tests.helpers.data_helpers import write_image

CONFIG = """
datasets_root: {root}
save_checkpoint_path: {root}/run
pcb_modelpath: {root}/encoder.ckpt
input: {{min_size_test: 64, max_size_test: 128}}
test: {{pcb: {{enable: true}}}}
data:
  train: [toy_train_all_1shot_seedx]
  test: [toy_test_all]
  custom:
    toy:
      format: coco
      train: {{annotations: toy/train.json, images: toy/images}}
      test: {{annotations: toy/train.json, images: toy/images}}
      novel_classes: [star, cross]
      few_shot: shots
"""
BOXES = np.array([[2, 2, 30, 30], [9, 8, 16, 14], [5, 6, 20, 30]], np.float32)
SCORES = np.array([0.9, 0.5, 0.3], np.float32)


@pytest.fixture
def tree(tmp_path):
    """The set `toy` (cross and star are novel, ring is not) with its 1-shot files."""
    kshot_tree(tmp_path)
    write_ckpt(tmp_path / "encoder.ckpt", parameters())
    (tmp_path / "c.yaml").write_text(CONFIG.format(root=tmp_path))
    return tmp_path


def configured(tree, *flags):
    return load_config(tree / "c.yaml", flags)


def info_of(config) -> DatasetInfo:
    return assembly_data.read_sets(config, config.data.test)[0]


def calibrator(tree, *flags, checkpoint=None):
    config = configured(tree, *flags)
    return make_calibrator(config, info_of(config), checkpoint)


@pytest.fixture
def counted(monkeypatch):
    """Pictures that were encoded, by size."""
    seen = []
    original = ResNetEncoder.feature_map

    def watched(self, pixels):
        seen.append(pixels.shape[:2])
        return original(self, pixels)

    monkeypatch.setattr(ResNetEncoder, "feature_map", watched)
    return seen


def test_off_and_without_novel_classes_there_is_none(tree, caplog):
    assert calibrator(tree, "--test.pcb.enable=false", "--pcb_modelpath=nowhere") is None
    assert calibrator(tree, "--data.test=[toy_test_base]") is None
    assert "toy_test_base has no novel class" in caplog.text


def test_it_calibrates_novel_classes_of_any_data_set(tree, counted):
    """By hand from the network: only boxes of cross and star, and only of their pictures."""
    config = configured(tree)
    info = info_of(config)
    assert info.class_names == ("cross", "star", "ring")  # in the order of their ids
    calibrate = make_calibrator(config, info, None)
    assert calibrate.changes.tolist() == [True, True, False]
    assert sorted(counted) == [(40, 60), (50, 30)]
    name = str(tree / "toy" / "images" / "b.png")
    result = calibrate(name, BOXES, SCORES, np.array([2, 1, 0]))
    encoder = calibrate.encoder
    support = {0: ("a.png", [5, 6, 12.5, 14]), 1: ("b.png", [9, 8, 16, 14])}
    expected = SCORES.copy()
    for row, index in ((1, 1), (2, 0)):
        file, box = support[index]
        own = cv2.imread(str(tree / "toy" / "images" / file))
        # 50 x 30 becomes 107 x 64 and 40 x 60 becomes 64 x 96: heights bring 107 back to 50.
        box = np.array([box]) * ([64 / 30 * 50 / 107, 1] * 2 if index == 0 else 1)
        prototype = encoder.box_vectors(own, box.astype(np.float32))
        vector = encoder.box_vectors(cv2.imread(name), BOXES[row : row + 1])
        expected[row] = 0.5 * SCORES[row] + 0.5 * cosines(vector, prototype)[0]
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert result[1] == pytest.approx(0.75, abs=1e-5)  # its own prototype


def test_classes_are_matched_by_name(tree):
    """The support set counts cross, star, ring; the test set holds cross and star only."""
    for flags in (["--data.train=[toy_train_novel_1shot_seed0]"], []):
        all_classes = calibrator(tree, *flags)
        novel = calibrator(tree, "--data.test=[toy_test_novel]", *flags)
        for left, right in zip(all_classes.prototypes.vectors, novel.prototypes.vectors):
            np.testing.assert_allclose(left, right, atol=1e-6)
        assert novel.changes.tolist() == [True, True]
    # A set of other novel classes numbers them otherwise: star is 1 of all and 0 of the novel.
    flags = ["--data.custom.toy.novel_classes=[star]", "--data.test=[toy_test_novel]"]
    star = calibrator(tree, *flags)
    np.testing.assert_allclose(star.prototypes.vectors, novel.prototypes.vectors[1:], atol=1e-6)


def test_settings_arrive(tree):
    flags = ["--test.pcb.alpha=0.25", "--test.pcb.lower=0.1", "--test.pcb.upper=0.8"]
    made = calibrator(tree, *flags, "--test.pcb.max_pixels=123456")
    assert (made.alpha, made.lower, made.upper) == tuple(map(np.float32, (0.25, 0.1, 0.8)))
    assert made.encoder.max_pixels == 123456 and made.encoder.shape_step == 0
    fixed = calibrator(tree, "--input.input_shapes=[[64, 64]]")
    assert fixed.encoder.shape_step == encoders.SHAPE_STEP
    np.testing.assert_allclose(fixed.prototypes.vectors, made.prototypes.vectors, atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--pcb_modelpath="],
            "pcb_modelpath is empty; make it of .*5d3b4d8f.pth --output res101_ms.ckpt",
        ),
        (
            ["--pcb_modelpath=no.ckpt"],
            "no.ckpt does not exist.*pth2ckpt.py --input .* --output no.ckpt",
        ),
        (["--data.train=[toy_train_all]"], "toy_train_all is no K-shot set"),
        (["--test.pcb.cache_features=true"], "test.pcb.cache_dir is empty"),
    ],
)
def test_what_is_missing_is_named(tree, flags, words):
    with pytest.raises(InputError, match=words):
        calibrator(tree, *flags)


def test_other_weights_are_refused(tree):
    write_ckpt(tree / "detector.ckpt", {"backbone.stem.conv1.weight": np.ones(3, np.float32)})
    with pytest.raises(InputError, match=r"detector.ckpt is no encoder"):
        calibrator(tree, f"--pcb_modelpath={tree / 'detector.ckpt'}")


def write_support(tree, *flags):
    """What training writes; the checkpoint beside it."""
    config = configured(tree, *flags)
    write_json(
        tree / "run" / "support_set.json",
        assembly_data.read_training_data(config).support.to_json(),
    )
    checkpoint = tree / "run" / "defrcn-5.ckpt"
    checkpoint.touch()
    return checkpoint


def test_the_support_set_must_be_the_checkpoints(tree, caplog):
    checkpoint = write_support(tree)
    assert calibrator(tree, checkpoint=checkpoint) is not None
    assert calibrator(tree, checkpoint=checkpoint.parent) is not None
    assert "has no support_set.json" not in caplog.text
    novel = "--data.train=[toy_train_novel_1shot_seed0]"
    with pytest.raises(InputError, match=r"is not the one that .*--shot_seed.*any_support"):
        calibrator(tree, novel, checkpoint=checkpoint)
    assert calibrator(tree, novel, "--test.pcb.any_support=true", checkpoint=checkpoint)
    assert "is not the one that" in caplog.text
    # Drawn anew each time, as officially: another set is what was asked for.
    assert calibrator(tree, novel, "--data.official_vocsplit_sampling=true", checkpoint=checkpoint)


def test_a_checkpoint_without_support_set_is_accepted_with_a_warning(tree, caplog):
    (tree / "other").mkdir()
    checkpoint = tree / "other" / "model_final.ckpt"
    checkpoint.touch()
    assert calibrator(tree, checkpoint=checkpoint) is not None
    assert "model_final.ckpt has no support_set.json beside it" in caplog.text


def test_a_changed_support_file_vouches_for_nothing(tree):
    checkpoint = write_support(tree)
    write_json(tree / "run" / "support_set.json", {"version": 1, "sha256": "0"})
    with pytest.raises(InputError, match="no whole support set"):
        calibrator(tree, checkpoint=checkpoint)


def entries(tree):
    return sorted((tree / "cache").rglob("*.npz"))


def test_prototypes_are_kept_and_verified(tree, counted, caplog):
    flag = f"--test.pcb.cache_dir={tree / 'cache'}"
    made = calibrator(tree, flag).prototypes
    assert len(counted) == 2 and len(entries(tree)) == 1
    found = calibrator(tree, flag).prototypes
    assert len(counted) == 2
    np.testing.assert_array_equal(found.vectors, made.vectors)
    np.testing.assert_array_equal(found.counts, made.counts)
    (path,) = entries(tree)
    path.write_bytes(path.read_bytes()[:-30])
    again = calibrator(tree, flag).prototypes
    assert len(counted) == 4 and "computed again" in caplog.text
    np.testing.assert_array_equal(again.vectors, made.vectors)
    calibrator(tree, flag)
    assert len(counted) == 4


def change_weights(tree):
    write_ckpt(tree / "encoder.ckpt", parameters(seed=1))


def change_picture(tree):
    write_image(tree / "toy" / "images" / "b.png", 40, 60, 99)


def change_nothing(tree):
    pass


@pytest.mark.parametrize(
    ("change", "flags"),
    [
        (change_weights, []),
        (change_picture, []),
        (change_nothing, ["--data.train=[toy_train_novel_1shot_seed0]"]),
        (change_nothing, ["--data.test=[toy_test_novel]"]),
        (change_nothing, ["--input.min_size_test=65"]),
        (change_nothing, ["--data.custom.toy.novel_classes=[star]"]),
    ],
    ids=["weights", "picture", "support", "classes", "size", "split"],
)
def test_prototypes_of_something_else_are_not_used(tree, counted, change, flags):
    flag = f"--test.pcb.cache_dir={tree / 'cache'}"
    calibrator(tree, flag)
    before = len(counted)
    change(tree)
    changed = calibrator(tree, flag, *flags).prototypes
    assert len(counted) > before and len(entries(tree)) == 2
    np.testing.assert_array_equal(changed.vectors, calibrator(tree, *flags).prototypes.vectors)


def test_features_of_test_pictures_are_kept_on_request(tree, counted):
    flags = [f"--test.pcb.cache_dir={tree / 'cache'}", "--test.pcb.cache_features=true"]
    name = str(tree / "toy" / "images" / "b.png")
    classes = np.array([2, 1, 0])
    plain = calibrator(tree)(name, BOXES, SCORES, classes)
    first = calibrator(tree, *flags)(name, BOXES, SCORES, classes)
    before = len(counted)
    kept = calibrator(tree, *flags)
    np.testing.assert_array_equal(kept(name, BOXES, SCORES, classes), first)
    # Other boxes of the same picture come from the same map.
    kept(name, BOXES + 1, SCORES, classes)
    assert len(counted) == before
    np.testing.assert_array_equal(first, plain)
    # The name does not matter, the content does.
    write_image(tree / "toy" / "images" / "b.png", 40, 60, 99)
    other = kept(name, BOXES, SCORES, classes)
    assert len(counted) == before + 1 and np.abs(other - first).max() > 1e-4


def test_support_boxes_are_grouped_by_picture():
    """VOC has a record an object; crowds and boxes that vanish are left out."""

    def item(box, index, iscrowd=0):
        return Annotation(tuple(map(float, box)), XYWH, index, iscrowd)

    def record(name, *items):
        return Record(name, 1, 100, 100, items)

    records = [
        record("a", item((10, 10, 20, 20), 0)),
        record("b", item((1, 2, 3, 4), 1, 1), item((5, 5, 0, 9), 1)),
        record("a", item((40, 40, 10, 10), 2), item((50, 50, 10, 10), 1)),
    ]
    (support,) = supports_of(records, [3, 0, None], short_edge=200, max_size=400)
    assert support.file_name == "a" and support.classes.tolist() == [3, 0]
    np.testing.assert_allclose(support.boxes, [[10, 10, 30, 30], [50, 50, 60, 60]])
    assert supports_of(records, [None] * 3, short_edge=200, max_size=400) == []


def test_a_class_without_support_box_is_named(tree, caplog):
    path = tree / "shots" / "seed0" / "full_box_1shot_star_trainval.json"
    path.write_text(path.read_text().replace('"bbox": [9, 8, 7, 6]', '"bbox": [9, 8, 0, 6]'))
    made = calibrator(tree)
    assert made.changes.tolist() == [True, False, False]
    assert "has no box of star: their scores are not calibrated" in caplog.text


def test_detect_calibrates_in_the_image_frame():
    """Boxes arrive in pixels of the file; rows keep the order of the detector's scores."""
    batch = Batch(
        images=np.zeros((1, 3, 8, 8), np.float32),
        image_sizes=np.array([[8.0, 8.0]], np.float32),
        padded_size=np.array([8, 8], np.int32),
        gt_boxes=np.zeros((1, 1, 4), np.float32),
        gt_classes=np.zeros((1, 1), np.int32),
        gt_valid=np.zeros((1, 1), bool),
        image_ids=[7],
        file_names=["x.png"],
        original_sizes=np.array([[80, 40]], np.int32),
    )
    boxes = np.array([[[[0, 0, 4, 4]] * 2, [[2, 2, 8, 8]] * 2]], np.float32)
    scores = np.array([[[0.6, 0.1, 0.3], [0.2, 0.7, 0.1]]], np.float32)
    given = []

    def calibrate(file_name, boxes, scores, classes):
        given.append((file_name, boxes.copy(), scores.copy(), classes.copy()))
        return scores * np.float32(0.5) + np.arange(len(scores), dtype=np.float32)

    def step(*inputs):
        return ms.Tensor(boxes), ms.Tensor(scores), ms.Tensor(np.array([[True, True]]))

    thresholds = {"score_threshold": 0.5, "nms_threshold": 0.5, "max_detections": 9}
    rows = rows_of(detect(Network(step), [batch], 1, **thresholds), [11, 12], calibrate)
    ((name, seen, before, classes),) = given
    assert name == "x.png" and classes.tolist() == [1, 0]
    np.testing.assert_allclose(seen, [[10, 20, 40, 80], [0, 0, 20, 40]])
    np.testing.assert_allclose(before, [0.7, 0.6])
    assert [row["category_id"] for row in rows] == [12, 11]
    np.testing.assert_allclose([row["score"] for row in rows], [0.35, 1.3], atol=1e-6)
    untouched = rows_of(detect(Network(step), [batch], 1, **thresholds), [11, 12])
    np.testing.assert_allclose([row["score"] for row in untouched], [0.7, 0.6], atol=1e-6)
