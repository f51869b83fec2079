# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""train.py and eval.py as a user runs them, on a few small pictures."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from src.demo.make_data import make_demo_data
from src.demo.shapes import CLASSES
from src.model_utils.paths import project_folder

PROJECT = project_folder()
TIMEOUT = 600


def configuration(root):
    """A network from scratch that compiles quickly, on pictures of 96 pixels."""
    source = {"images": "shapes/images/{}", "annotations": "shapes/annotations/{}.json"}
    return {
        "datasets_root": str(root),
        "train_mindrecord_dir": str(root / "mindrecord" / "train"),
        "test_mindrecord_dir": str(root / "mindrecord" / "test"),
        "save_checkpoint_path": str(root / "run"),
        "data": {
            "train": ["shapes_train_base"],
            "test": ["shapes_test_base"],
            "custom": {
                "shapes": {
                    "format": "coco",
                    **{
                        split: {key: text.format(split) for key, text in source.items()}
                        for split in ("train", "test")
                    },
                    "novel_classes": [shape.name for shape in CLASSES if shape.novel],
                }
            },
        },
        "input": {
            "min_size_train": [96],
            "max_size_train": 160,
            "min_size_test": 96,
            "max_size_test": 160,
        },
        "model": {
            "backbone": {
                "depth": 26,
                "norm": "BN",
                "freeze_at": 0,
                "stem_out_channels": 8,
                "res2_out_channels": 32,
            },
            "rpn": {
                "batch_size_per_image": 32,
                "post_nms_topk_train": 24,
                "post_nms_topk_test": 20,
            },
            "roi_heads": {"batch_size_per_image": 16},
        },
        "solver": {
            "images_per_batch": 2,
            "images_per_card": 2,
            "base_lr": 0.001,
            "max_iter": 3,
            "steps": [],
            "warmup_iters": 0,
        },
        "test": {"score_threshold": 0.0, "detections_per_image": 5, "visualize_images": 1},
        "log": {"period": 1},
        "checkpoint": {"period": 2},
    }


def run(script, config, *flags, expect=0):
    """Run an entry point; return its standard output and standard error."""
    command = [sys.executable, str(PROJECT / script), f"--config_path={config}", *flags]
    done = subprocess.run(
        command,
        cwd=config.parent,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == expect, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small data set and a configuration."""
    root = tmp_path_factory.mktemp("project")
    make_demo_data(root / "shapes", seed=0, num_train=6, num_test=3)
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(configuration(root)))
    return path


@pytest.fixture(scope="module")
def trained(place):
    """The output of a first run of three steps."""
    return run("train.py", place)[0]


def figures(path):
    found = json.loads(path.read_text())
    assert list(found) == ["shapes_test_base"]
    return found["shapes_test_base"]


def test_training(place, trained):
    folder = place.parent / "run"
    assert [line for line in trained.splitlines() if re.search(r" step 3/3  total \d", line)]
    assert len((folder / "loss_0.log").read_text().splitlines()) == 3
    names = {path.name for path in (folder / "ckpt_0").iterdir()}
    assert {"defrcn-2.ckpt", "defrcn-3.ckpt", "defrcn-3.state.npz", "defrcn-3.json"} <= names
    assert (folder / "log_0.txt").is_file()


def test_evaluation_at_the_end(place, trained):
    folder = place.parent / "run" / "eval_3"
    result = figures(folder / "metrics.json")
    assert result
    rows = json.loads((folder / "detections.json").read_text())
    assert 0 < len(rows) <= 15
    assert all(row["bbox"][2] > 0 and row["bbox"][3] > 0 for row in rows)
    assert len(list((folder / "pictures").glob("*.*"))) >= 1
    assert "AP" in trained


def test_eval_gives_what_training_gave(place, trained):
    folder = place.parent / "run"
    output, _ = run(
        "eval.py",
        place,
        f"--eval_checkpoint_path={folder}",
        f"--result_path={place.parent / 'again'}",
        "--test.report=true",
    )
    assert "COCO box AP in percent" in output
    assert "base training (9 base classes only), without PCB" in output
    page = (place.parent / "again" / "report" / "index.html").read_text()
    assert "defrcn-3.json" in page
    assert "base training (9 base classes only)" in page
    again = json.loads((place.parent / "again" / "detections.json").read_text())
    assert again == json.loads((folder / "eval_3" / "detections.json").read_text())
    assert figures(place.parent / "again" / "metrics.json") == figures(
        folder / "eval_3" / "metrics.json"
    )


def test_resume(place, trained):
    folder = place.parent / "run"
    output, _ = run(
        "train.py",
        place,
        "--resume=true",
        "--solver.max_iter=5",
        "--test.eval_at_end=false",
    )
    assert re.search(r"resumed after step 3 of \S+defrcn-3\.json", output)
    assert re.search(r" step 4/5 ", output) and re.search(r" step 5/5 ", output)
    assert not re.search(r" step 3/5 ", output)
    assert len((folder / "loss_0.log").read_text().splitlines()) == 5
    assert (folder / "ckpt_0" / "defrcn-5.json").is_file()


@pytest.mark.parametrize(
    ("script", "flag", "message"),
    [
        ("train.py", "--model.num_classes=4", r"model\.num_classes is 4.* has 9 classes"),
        ("train.py", "--solver.base_rate=1", r"solver\.base_rate.*unknown key.*solver\.base_lr"),
        ("train.py", "--data.train=shapes_train_bass", r"shapes_train_bass"),
        ("train.py", "--data.test=shapes_test_novel", r"shapes_test_novel has 3 classes.* has 9 "),
        ("train.py", "--model_pretrained_path=no.ckpt", r"model_pretrained_path.*no\.ckpt"),
        ("train.py", "--model.backbone.norm=FrozenBN", r"backbone_pretrained_path.*FrozenBN"),
        ("eval.py", "--eval_checkpoint_path=missing.ckpt", r"eval_checkpoint_path.*missing\.ckpt"),
        ("eval.py", "--test.score_threshold=2", r"test\.score_threshold"),
    ],
)
def test_one_sentence_for_what_is_wrong(place, script, flag, message):
    output, error = run(
        script, place, flag, f"--save_checkpoint_path={place.parent / 'wrong'}", expect=1
    )
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, error
    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in output + error


def test_evaluation_on_other_classes_is_refused(place, trained):
    _, error = run(
        "eval.py",
        place,
        f"--eval_checkpoint_path={place.parent / 'run'}",
        "--data.test=shapes_test_novel",
        f"--test_mindrecord_dir={place.parent / 'mindrecord' / 'novel'}",
        expect=1,
    )
    assert re.search(r"error: .*was trained on 9 classes", error)
