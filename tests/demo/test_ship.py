# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The detector and the encoder in configs/demo: where they are from, and that they are good."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from src.assembly.calibration import make_encoder
from src.assembly.evaluation import load_for_evaluation
from src.assembly.training import make_detector
from src.demo.make_data import main as make_data
from src.demo.shapes import CLASSES
from src.demo.ship import ship
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.util import read_json
from src.weights.checkpoint import load_weights
from src.weights.ckpt_format import write_ckpt
from src.weights.note import note_path, read_note

FOLDER = project_folder() / "configs" / "demo"
BASE = FOLDER / "shapes_base.ckpt"
ENCODER = FOLDER / "shapes_encoder.ckpt"
EVALUATION = {"protocol": "COCO box AP", "results": {"bAP": 50.5}}


@pytest.mark.parametrize("path", [BASE, ENCODER], ids=lambda path: path.stem)
def test_the_note_is_of_this_file_and_says_how_it_was_made(path):
    note = read_note(path)  # refuses another file's
    assert note["origin"]["settings"] == "settings --from-scratch  "  # the recipe and nothing else
    assert note["origin"]["commands"][0] == "bash scripts/run_demo.sh --from-scratch DIR"
    assert note["origin"]["pictures"]["seed"] == 0
    assert "/" not in json.dumps(note).replace("scripts/", "")  # no place on a machine


def test_they_fit_the_demos_configurations():
    config = load_config(FOLDER / "shapes_base.yaml", [])
    names = tuple(shape.name for shape in CLASSES if not shape.novel)
    assert load_for_evaluation(make_detector(config, names), BASE, names) == BASE
    novel = FOLDER / "shapes_fsod_5shot.yaml"
    make_encoder(load_config(novel, [f"--pcb_modelpath={ENCODER}"]))


@pytest.mark.slow
def test_the_base_detector_gives_the_figures_of_its_note(tmp_path):
    make_data([f"--output={tmp_path / 'shapes'}", "--seed=0"])
    words = [f"--datasets_root={tmp_path}", f"--test_mindrecord_dir={tmp_path / 'mindrecord'}"]
    words += [f"--eval_checkpoint_path={BASE}", f"--result_path={tmp_path / 'results'}"]
    config = f"--config_path={FOLDER / 'shapes_base.yaml'}"
    subprocess.run([sys.executable, project_folder() / "eval.py", config, *words], check=True)
    (found,) = read_json(tmp_path / "results" / "metrics.json", "").values()
    ((protocol, figures),) = read_note(BASE)["origin"]["figures"].items()
    assert found["protocol"] == protocol
    assert found["results"] == pytest.approx(figures, abs=0.5)  # another processor rounds otherwise
    assert figures["bAP50"] > 70


@pytest.fixture
def demo(tmp_path):
    summary = {"training": {"base": [{}], "novel": []}, "data": {"seed": 0}}
    summary["evaluation"] = {"base": [EVALUATION], "novel_pcb": [EVALUATION]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "steps.txt").write_text("settings --from-scratch  \ndata 3\n")
    (tmp_path / "target").mkdir()
    for place, value in (("base/ckpt_0/defrcn-7", 7.0), ("encoder", 1.0)):
        path = tmp_path / "checkpoints" / f"{place}.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_ckpt(path, {"a.weight": np.full(3, value, np.float32)})
    return tmp_path


def test_what_was_trained_is_shipped(demo, monkeypatch):
    monkeypatch.setattr("src.demo.ship.BASE", "base/ckpt_0/defrcn-7.ckpt")
    base, encoder = ship(demo, demo / "target")
    assert load_weights(base)["a.weight"].tolist() == [7, 7, 7]
    assert load_weights(encoder)["a.weight"].tolist() == [1, 1, 1]
    note = read_note(base)
    assert note["origin"]["figures"] == {"COCO box AP": {"bAP": 50.5}}
    assert note["origin"]["settings"] == "settings --from-scratch  "
    assert note_path(encoder).is_file()


def test_a_demo_that_trained_none_is_refused(demo):
    summary = json.loads((demo / "summary.json").read_text())
    del summary["training"]["base"]
    (demo / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match="trained no base detector"):
        ship(demo, demo / "target")
    assert not list((demo / "target").iterdir())
