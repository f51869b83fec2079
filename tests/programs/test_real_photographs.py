# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The full R-101 configuration on real COCO photographs: trains, evaluates, at reduced size."""

from __future__ import annotations

import json

import numpy as np
import pytest

import eval as eval_program
import train as train_program
from src.model_utils.paths import project_folder
from src.weights.checkpoint import load_training_checkpoint, load_weights
from src.weights.ckpt_format import write_ckpt
from tests.golden import golden
from tests.helpers.data_helpers import shared

CONFIG = project_folder() / "configs" / "coco" / "defrcn_det_r101_base.yaml"
pytestmark = pytest.mark.slow  # two more compilations of the full network
STEPS = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A few training steps from a backbone file, then the evaluation of a part of the test set."""
    folder = tmp_path_factory.mktemp("real")
    source = shared("coco_mini") / "datasets"
    root = folder / "datasets"
    (root / "cocosplit").mkdir(parents=True)
    (root / "coco").symlink_to((source / "coco").resolve())
    (root / "cocosplit" / "datasplit").mkdir()
    for name, count in (("trainvalno5k", 12), ("5k", 4)):
        text = (source / "cocosplit" / "datasplit" / f"{name}.json").read_text()
        content = json.loads(text)
        content["images"] = content["images"][:count]
        kept = {image["id"] for image in content["images"]}
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
        (root / "cocosplit" / "datasplit" / f"{name}.json").write_text(json.dumps(content))
    state = golden.state_dict("base")
    backbone = {n: a for n, a in state.items() if n.startswith(("backbone.", "roi_heads.res5."))}
    write_ckpt(folder / "backbone.ckpt", backbone)
    flags = [
        f"--config_path={CONFIG}",
        f"--datasets_root={root}",
        f"--train_mindrecord_dir={folder / 'train'}",
        f"--test_mindrecord_dir={folder / 'test'}",
        f"--save_checkpoint_path={folder / 'run'}",
        f"--result_path={folder / 'results'}",
        f"--backbone_pretrained_path={folder / 'backbone.ckpt'}",
        "--input.min_size_train=[128,160]",
        "--input.max_size_train=240",
        "--input.min_size_test=160",
        "--input.max_size_test=240",
        "--model.roi_heads.batch_size_per_image=64",
        "--model.rpn.post_nms_topk_test=100",
        "--test.visualize_images=2",
    ]
    short = ["--solver.max_iter=3", "--solver.steps=[]", "--solver.warmup_iters=2"]
    short += ["--solver.scale_to_batch=false", "--solver.base_lr=0.0001", "--log.period=1"]
    assert train_program.main([*flags, *short, "--test.eval_at_end=false"]) == 0
    assert eval_program.main([*flags, f"--eval_checkpoint_path={folder / 'run'}"]) == 0
    return folder, backbone


def test_trains_and_saves(run):
    folder, backbone = run
    saved = load_training_checkpoint(folder / "run" / "ckpt_0")
    assert saved is not None
    assert saved.step == STEPS
    assert len(saved.class_names) == 60
    assert saved.params.keys() == golden.state_dict("base").keys()
    moved = {n for n, a in backbone.items() if not np.array_equal(a, saved.params[n])}
    expected = {n for n in backbone if ".res4." in n or ".res5." in n}
    assert moved == {n for n in expected if ".norm." not in n}
    plain = load_weights(folder / "run" / "ckpt_0" / f"defrcn-{STEPS}.ckpt")
    assert all(np.array_equal(plain[n], a) for n, a in saved.params.items())


def test_logs_every_step(run):
    lines = (run[0] / "run" / "loss_0.log").read_text().splitlines()
    assert len(lines) == STEPS
    assert all("total_loss: " in line and "nan" not in line for line in lines)


def test_evaluates_the_base_classes(run):
    results = run[0] / "results"
    figures = json.loads((results / "metrics.json").read_text())["coco14_test_base"]
    assert figures["num_images"] == 4
    assert set(figures["results"]) >= {"AP", "bAP", "bAP50", "bAP75"}
    assert 0 <= figures["results"]["bAP"] <= 100
    rows = json.loads((results / "detections.json").read_text())
    assert len(rows) == figures["num_detections"]
    assert len(list((results / "pictures").glob("*.png"))) == 3
