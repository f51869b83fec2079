# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Base checkpoint, surgery, fine-tuning and evaluation, as a user runs them, on small pictures."""

import json
import re

import numpy as np
import pytest
import yaml

from src import model_surgery
from src.assembly import training as assembly
from src.demo.make_data import make_demo_data
from src.model_utils.config import load_config
from src.network_define import parameters_of
from src.tools import draw_kshot
from src.weights.checkpoint import load_training_checkpoint, load_weights, save_checkpoint
from src.weights.initialise import initialise
from tests.helpers.trained import configuration, run

BASE, NOVEL, ALL = 9, 3, 12
PREDICTOR = "roi_heads.box_predictor."
KINDS = {
    # Kind -> surgery, its file, classes.
    "fsod": ("remove", "model_reset_remove.ckpt", NOVEL),
    "gfsod": ("randinit", "model_reset_surgery.ckpt", ALL),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, K-shot files, a base checkpoint, and the configuration of both."""
    root = tmp_path_factory.mktemp("few_shot")
    make_demo_data(root / "shapes", seed=0, num_train=40, num_test=2)
    settings = configuration(root)
    settings["data"]["custom"]["shapes"]["few_shot"] = "shapes/split"
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    draw_kshot.main([f"--config_path={path}", "--shots=1", "--seeds=2"])
    config = load_config(path)
    info, _ = assembly.read_sets(config, ("shapes_train_base",))
    net = assembly.make_detector(config, info.class_names)
    initialise(net, 7)
    save_checkpoint(
        root / "run" / "ckpt_0", 3, parameters_of(net), {}, {"class_names": info.class_names}
    )
    return path


@pytest.fixture(scope="module", params=KINDS)
def tuned(request, place):
    """Surgery and fine-tuning of a kind: its name, its folder, its output."""
    kind, root = request.param, place.parent
    method, file_name, _ = KINDS[kind]
    base = root / "run"
    model_surgery.main(
        [f"--dataset={place}", f"--method={method}", f"--src-path={base}", "--seed=4"]
    )
    split = "novel" if kind == "fsod" else "all"
    output, _ = run("train.py", place, *flags(root, kind, split, base / file_name))
    return kind, root / kind, output


def flags(root, kind, split, start):
    return (
        f"--data.train=shapes_train_{split}_1shot_seedx",
        f"--data.test=shapes_test_{split}",
        "--shot_seed=1",
        f"--model_pretrained_path={start}",
        f"--save_checkpoint_path={root / kind}",
        f"--train_mindrecord_dir={root / 'mindrecord' / kind / 'train'}",
        f"--test_mindrecord_dir={root / 'mindrecord' / kind / 'test'}",
        "--model.roi_heads.freeze_feat=true",
        "--model.roi_heads.cls_dropout=true",
        "--model.roi_heads.backward_scale=0.01",
        "--model.backbone.freeze_at=3",
    )


def test_it_starts_trains_and_evaluates(tuned):
    kind, folder, output = tuned
    _, file_name, num_classes = KINDS[kind]
    assert f"loaded {folder.parent / 'run' / file_name}" in output
    assert ("class and box layer: they start anew" in output) == (kind == "fsod")
    assert re.search(r" step 3/3  total \d", output)
    metrics = json.loads((folder / "eval_3" / "metrics.json").read_text())
    (name,) = metrics
    assert name == f"shapes_test_{'novel' if kind == 'fsod' else 'all'}"
    checkpoint = load_training_checkpoint(folder / "ckpt_0")
    assert len(checkpoint.class_names) == num_classes
    assert checkpoint.info["config"]["data"]["train"] == [
        f"shapes_train_{'novel' if kind == 'fsod' else 'all'}_1shot_seed1"
    ]


def test_what_fine_tuning_moves(tuned):
    kind, folder, _ = tuned
    checkpoint = load_training_checkpoint(folder / "ckpt_0")
    start = load_weights(folder.parent / "run" / KINDS[kind][1])
    assert set(checkpoint.params) - set(start) == {
        name for name in checkpoint.params if kind == "fsod" and name.startswith(PREDICTOR)
    }
    frozen = re.compile(r"backbone\.(stem|res[23])\.|roi_heads\.res5\.")
    for name in start:
        same = np.array_equal(checkpoint.params[name], start[name])
        assert same == bool(frozen.match(name)), name
    state = {name for name in checkpoint.state if name.startswith("velocity.")}
    trained = {f"velocity.{name}" for name in checkpoint.params if not frozen.match(name)}
    assert state == trained


def test_a_base_checkpoint_as_it_is_is_refused(place):
    root = place.parent
    start = root / "run" / "ckpt_0" / "defrcn-3.ckpt"
    _, error = run("train.py", place, *flags(root, "refused", "novel", start), expect=1)
    assert re.search(r"error: .*is for 9 classes, the training set has 3; .*model_surgery", error)
