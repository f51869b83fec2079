# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Stands for train.py in the tests of sweeps: real checkpoints and figures, no network.

The environment says what it does: FAKE_LOG gets a line an event, FAKE_STEPS steps of FAKE_DELAY
seconds are "trained", a checkpoint after each but the first FAKE_LATE; FAKE_FAIL=SHOT fails.
FAKE_CARDS is what it says to have run on.
The figures of a run are 10 shot + seed (nAP), so that tests can compute means.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from src.util import write_json
from src.weights.checkpoint import load_training_checkpoint, save_checkpoint


def note(text):
    with open(os.environ["FAKE_LOG"], "a", encoding="utf-8") as handle:
        handle.write(text + "\n")


def on_term(number, frame):
    note(f"{name} signal {number}")
    sys.exit(128 + number)


flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
folder = Path(flags["save_checkpoint_path"])
shot = int(
    folder.relative_to(folder.parents[0] if "shot" in folder.name else folder.parents[1])
    .parts[0]
    .split("shot")[0]
)
seed = int(flags["seed"])
name = f"{shot}/{flags['shot_seed']}/{seed}"
for wanted in (signal.SIGTERM, signal.SIGINT):
    signal.signal(wanted, on_term)
steps = int(os.environ.get("FAKE_STEPS", "2"))
cards = int(os.environ.get("FAKE_CARDS", "1"))
said = {"run_distribute": cards > 1, "device_num": cards, "solver": {"images_per_card": 4}}
late = int(os.environ.get("FAKE_LATE", "0"))
resumed = load_training_checkpoint(folder / "ckpt_0") if flags.get("resume") == "true" else None
start = resumed.step if resumed else 0
note(f"{name} start {start} pid {os.getpid()}")
sys.stdout.write("step 1/2 of a fake\n")
sys.stdout.flush()
(folder / "mindrecord").mkdir(parents=True, exist_ok=True)
for file in ("meta.json", "data-0000.mindrecord", "data-0000.mindrecord.db"):
    (folder / "mindrecord" / file).write_text("x")
(folder / "loss_0.log").open("a").write("loss\n")
for step in range(start + 1, steps + 1):
    time.sleep(float(os.environ.get("FAKE_DELAY", "0")))
    if os.environ.get("FAKE_FAIL") == str(shot):
        sys.exit("error: this shot fails")
    note(f"{name} step {step}")
    if step > late:
        save_checkpoint(
            folder / "ckpt_0",
            step,
            {"weight": np.full(3, step, np.float32)},
            {"seed": np.array(seed)},
            {"class_names": ["a", "b"], "config": said},
            keep_last=int(flags.get("checkpoint.keep_last", "2")),
        )
value = 10.0 * shot + seed
write_json(
    folder / f"eval_{steps}" / "metrics.json",
    {
        "toy_test_all": {
            "protocol": "COCO box AP",
            "pcb": False,
            "results": {"AP": value / 2, "bAP": -100.0, "nAP": value, "nAP50": value + 1},
            "per_class_AP": {"a": value / 4, "b": value, "c": -100.0},
        }
    },
)
note(f"{name} end")
