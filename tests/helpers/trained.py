# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A small trained detector that whole-program tests share: see `trained_demo` in conftest.py.

One run of `train.py` and one of `eval.py`, each in a process of its own as a user starts it, on
generated pictures. It is made once for all tests and all their processes; nobody may write into it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from src.demo.make_data import make_demo_data
from src.demo.shapes import CLASSES
from src.model_utils.paths import project_folder
from src.tools import draw_kshot

PROJECT = project_folder()
TIMEOUT = 600
STEPS = 10
PICTURES, TEST_PICTURES = 40, 3


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


@dataclass(frozen=True)
class TrainedDemo:
    """What was made, below `root`.

    `shapes` (pictures, annotations, `split` with 1-shot sets of seeds 0 and 1), `tiny.yaml`, `run`
    (a checkpoint of every step, `loss_0.log`, `eval_10`), `evaluated` (eval.py's, with a report),
    and the output of both programs, `train.txt` and `eval.txt`.
    """

    root: Path
    steps: int = STEPS

    @property
    def config(self) -> Path:
        return self.root / "tiny.yaml"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def evaluated(self) -> Path:
        return self.root / "evaluated"

    @property
    def eval_seconds(self) -> float:
        """How long eval.py took."""
        return json.loads((self.root / "seconds.json").read_text())["eval"]

    def text(self, program: str) -> str:
        """What `train` or `eval` printed."""
        return (self.root / f"{program}.txt").read_text()

    def copy(self, folder: Path, *, steps: int | None = STEPS, **sections) -> Path:
        """A configuration of one's own whose run starts as a copy of this one.

        It reads the shared pictures and writes below `folder`: `run`, `mindrecord`.

        Args:
            folder: absent or without a run.
            steps: the last checkpoint that is copied; None for a folder without a run.
            sections: keys to change, by section of the configuration.

        Returns:
            the configuration file, `tiny.yaml` in `folder`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        settings = settings_of(folder) | {"datasets_root": str(self.root)}
        for section, values in sections.items():
            settings[section] = {**settings.get(section, {}), **values}
        if steps is not None:
            target = folder / "run" / "ckpt_0"
            target.mkdir(parents=True)
            for path in sorted((self.run / "ckpt_0").iterdir()):
                if int(path.name.partition("-")[2].partition(".")[0]) <= steps:
                    shutil.copy2(path, target)
            lines = (self.run / "loss_0.log").read_text().splitlines(keepends=True)
            (folder / "run" / "loss_0.log").write_text("".join(lines[:steps]))
        path = folder / "tiny.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path


def settings_of(root: Path) -> dict:
    """The configuration of the shared run, with all its folders below `root`."""
    settings = configuration(root)
    settings["data"]["custom"]["shapes"]["few_shot"] = "shapes/split"
    settings["input"]["min_size_train"] = [64, 96]
    settings["solver"].update(max_iter=STEPS, warmup_iters=3, steps=[6])
    settings["checkpoint"] = {"period": 1, "keep_last": 1000}
    return settings


def make(root: Path) -> None:
    """Fill an empty folder."""
    make_demo_data(root / "shapes", seed=0, num_train=PICTURES, num_test=TEST_PICTURES)
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings_of(root)))
    assert draw_kshot.main([f"--config_path={path}", "--shots=1", "--seeds=2"]) == 0
    (root / "train.txt").write_text(run("train.py", path)[0])
    flags = [f"--eval_checkpoint_path={root / 'run'}", f"--result_path={root / 'evaluated'}"]
    started = time.monotonic()
    (root / "eval.txt").write_text(run("eval.py", path, *flags, "--test.report=true")[0])
    seconds = {"eval": time.monotonic() - started}
    (root / "seconds.json").write_text(json.dumps(seconds))


@contextlib.contextmanager
def locked(path: Path):
    """Let one process after the other in."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def made_once(common: Path) -> TrainedDemo:
    """The detector below `common`, which the tests' processes share; the first one makes it.

    If that failed it is not tried again: every test says why.
    """
    root, failure = common / "trained_demo", common / "trained_demo.failed"
    with locked(common / "trained_demo.lock"):
        assert not failure.exists(), failure.read_text()
        if not (root / "seconds.json").exists():
            try:
                root.mkdir()
                make(root)
            except BaseException as error:
                failure.write_text(f"the shared detector could not be trained: {error}")
                raise
    return TrainedDemo(root)
