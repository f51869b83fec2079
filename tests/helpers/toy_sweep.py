# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A sweep to test with: toy data, a configuration, and a stand-in for train.py."""

import json
import subprocess
import sys
import time
from pathlib import Path

import yaml

from src.model_utils.paths import project_folder
from src.sweep import __main__ as sweep

PROJECT = project_folder()
FAKE = f"'{sys.executable}' '{PROJECT / 'tests' / 'helpers' / 'fake_train.py'}'"
ROOT = "tfa-like"
START = ["--model_pretrained_path=start.ckpt"]


def write_toy(path, content=None, shot=2):
    """An annotation file with classes a and b, or a K-shot file of b."""
    boxes = [{"id": k, "image_id": 1, "category_id": 2, "bbox": [k, k, 9, 9]} for k in range(shot)]
    if content is None:
        image = {"id": 1, "file_name": "a.png", "height": 20, "width": 30}
        categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
        content = {"images": [image], "categories": categories}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, "annotations": boxes}))
    return content


def write_inputs(folder):
    """Data with two K-shot sets of one and two shots, toy.yaml, and start.ckpt."""
    content = write_toy(folder / "datasets" / "a.json")
    for seed, shot in ((seed, shot) for seed in range(2) for shot in (1, 2)):
        name = f"split/seed{seed}/full_box_{shot}shot_b_trainval.json"
        write_toy(folder / "datasets" / name, content, shot)
    half = {"annotations": "a.json", "images": "images"}
    toy = {"format": "coco", "train": half, "test": dict(half)}
    solver = {"images_per_batch": 4, "images_per_card": 4, "max_iter": 2, "steps": []}
    config = {
        "data": {
            "train": ["toy_train_novel_1shot_seedx"],
            "test": ["toy_test_all"],
            "custom": {"toy": {**toy, "novel_classes": ["b"], "few_shot": "split"}},
        },
        "solver": {**solver, "warmup_iters": 0},
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(config))
    (folder / "start.ckpt").write_bytes(b"weights")


def enter(folder, monkeypatch):
    """Write the inputs and go there; children write to events.log."""
    write_inputs(folder)
    monkeypatch.setenv("FAKE_LOG", str(folder / "events.log"))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.chdir(folder)
    return folder


def words(*more, shots="1,2", seeds="0-1", output="out dir"):
    return [
        f"--output={output}",
        "--dataset=own",
        "--setting=fsod",
        f"--shots={shots}",
        f"--seeds={seeds}",
        "--config_path=toy.yaml",
        "--data.train=[toy_train_novel_{shot}shot_seedx]",
        f"--train_command={FAKE}",
        *([] if any("base_checkpoint" in word for word in more) else START),
        *more,
    ]


def go(*more, **which):
    return sweep.main(words(*more, **which))


def events(place):
    path = place / "events.log"
    return path.read_text().splitlines() if path.exists() else []


def starts(place):
    """Which runs were started at which step, in order."""
    return [line.partition(" pid")[0] for line in events(place) if " start " in line]


def run_folder(place, name="1shot_seed0"):
    return place / "out dir" / ROOT / name


def checkpoints(folder):
    return sorted(path.name for path in (folder / "ckpt_0").glob("defrcn-*.ckpt"))


def spawn(*more, **which):
    """The sweep as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "src.sweep", *words(*more, **which)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(place, text, seconds=30.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any(text in line for line in events(place)):
            return
        time.sleep(0.02)
    raise AssertionError(f"no {text!r} in {events(place)}")


def gone(pid, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def child_pid(place):
    return int([line for line in events(place) if " pid " in line][-1].rpartition(" ")[2])
