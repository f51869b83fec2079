# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The calibration block on photographs and blood cells, with a narrow encoder of random weights."""

from __future__ import annotations

import numpy as np
import pytest

from src.assembly.calibration import make_calibrator
from src.assembly.data import read_sets
from src.data.transforms import to_xyxy
from src.model_utils.config import load_config
from src.weights.ckpt_format import write_ckpt
from tests.defrcn.test_pcb_encoder import parameters
from tests.helpers.data_helpers import shared

CONFIG = """
datasets_root: {root}
pcb_modelpath: {folder}/encoder.ckpt
test: {{pcb: {{enable: true}}}}
data:
  train: [{train}]
  test: [{test}]
  custom:
    bccd:
      format: coco
      train: {{annotations: annotations/instances_trainval.json, images: images}}
      test: {{annotations: annotations/instances_test.json, images: images}}
      novel_classes: [Platelets]
      few_shot: cocosplit
"""
# Folder, K-shot set, test set, support boxes a class, novel classes, base classes.
CASES = {
    "coco gfsod": (
        "coco_mini/datasets",
        "coco14_trainval_all_2shot_seed1",
        "coco14_test_all",
        2,
        20,
        60,
    ),
    "voc fsod": (
        "voc_mini/datasets",
        "voc_2007_trainval_novel1_3shot_seed0",
        "voc_2007_test_novel1",
        3,
        5,
        0,
    ),
    "own gfsod": ("byo_bccd", "bccd_train_all_5shot_seed0", "bccd_test_all", 5, 1, 2),
}


@pytest.mark.parametrize("case", CASES)
def test_real_pictures(case, tmp_path):
    """Every support picture is read; novel classes change, base classes do not."""
    folder, train, test, shots, novel, base = CASES[case]
    root = shared(folder.partition("/")[0]) / folder.partition("/")[2]
    write_ckpt(tmp_path / "encoder.ckpt", parameters())
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.format(root=root, folder=tmp_path, train=train, test=test))
    config = load_config(path)
    info, records = read_sets(config, config.data.test)
    calibrate = make_calibrator(config, info, None)
    assert calibrate.changes.sum() == novel and (~calibrate.changes).sum() == base
    names = np.array(info.class_names)
    assert set(names[calibrate.changes]) == set(info.novel_classes)
    assert set(calibrate.prototypes.counts[calibrate.changes]) == {shots}
    assert np.isfinite(calibrate.prototypes.vectors).all()
    record = next(
        r
        for r in records
        if {names[a.category_id] for a in r.annotations} & set(info.novel_classes)
    )
    boxes = np.array([to_xyxy(a.bbox, a.bbox_mode) for a in record.annotations], np.float32)
    classes = np.array([a.category_id for a in record.annotations])
    scores = np.linspace(0.9, 0.1, len(boxes)).astype(np.float32)
    result = calibrate(record.file_name, boxes, scores, classes)
    changed = calibrate.changes[classes]
    np.testing.assert_array_equal(result[~changed], scores[~changed])
    cosine = 2 * result[changed] - scores[changed]
    assert changed.any() and (np.abs(cosine) <= 1 + 1e-5).all()
    assert (np.abs(result[changed] - scores[changed]) > 1e-4).all()
