# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""benchmarks/real.py: means, paired differences, tables, and which runs it goes on with.

All stages on real pictures are slow. tests/test_real_prepare.py has the making of data and weights.
"""

import argparse
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import real
from benchmarks.real_photographs import calibrate, figures
from benchmarks.real_photographs.figures import Result
from src.model_utils.errors import InputError
from src.model_utils.paths import CHECKPOINTS, project_folder
from src.util import sha256_file
from src.weights.checkpoint import save_checkpoint
from src.weights.ckpt_format import write_ckpt
from tests.helpers.data_helpers import shared


def results():
    """Two K-shot sets at 1 shot, one more at 5; DCFS has not got to set 1 of 5 shots."""
    values = {
        ("ce", False, 1, 0): 10.0,
        ("ce", False, 1, 1): 20.0,
        ("ce", False, 5, 0): 30.0,
        ("ce", False, 5, 1): 34.0,
        ("ce", True, 1, 0): 11.0,
        ("dcfs", False, 1, 0): 12.0,
        ("dcfs", False, 1, 1): 23.0,
        ("dcfs", False, 5, 0): 29.0,
    }
    return [Result("fsod", *key, {"nAP": v, "nAP50": 2 * v}) for key, v in values.items()]


def test_intervals_by_hand():
    """Of t(0.975, 2) = 4.30265 and t(0.975, 1) = 12.7062."""
    mean, half = figures.interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.30265 / math.sqrt(3), rel=1e-5))
    assert figures.interval([-1.0, 1.0]) == (0.0, pytest.approx(12.7062, rel=1e-5))
    assert figures.interval([7.0])[0] == 7.0 and math.isnan(figures.interval([7.0])[1])
    assert math.isnan(figures.interval([])[0])
    assert figures.signed([]) == "n/a" and figures.plain([]) == "n/a"
    assert figures.signed([2.0, 2.1, 2.2]) == "**+2.10 ± 0.25**"
    assert figures.signed([-2.0, 2.0]) == "+0.00 ± 25.41"


def test_differences_are_over_the_same_sets():
    found = figures.differences(results(), "fsod", "nAP", ("dcfs", False), ("ce", False))
    assert found == {1: {0: 2.0, 1: 3.0}, 5: {0: -1.0}}
    table = figures.differences_table(results(), "fsod", "nAP").splitlines()
    # over shots: set 0 alone has both, (2 - 1) / 2
    assert [cell.strip() for cell in table[2].split("|")[1:-1]] == [
        "dcfs - ce",
        "+2.50 ± 6.35",
        "-1.00",
        "+0.50",
    ]
    assert len(table) == 4  # no pair of both with PCB, none of DCFS with it


def test_all_tables(tmp_path):
    text = figures.markdown(results(), {"bAP": 40.0, "bAP50": 70.0})
    assert "### fsod, nAP\n" in text and "### fsod, nAP50\n" in text and "gfsod" not in text
    assert "| 15.00 ± 63.53 |" in text and "| 30.00 ± 127.06 |" in text
    figures.plot(tmp_path / "plot.png", results(), {"bAP": 40.0})
    with Image.open(tmp_path / "plot.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_what_is_missing_is_named(tmp_path):
    words = ["--data", str(tmp_path), "--weights", "none.ckpt", "--output", str(tmp_path / "o")]
    done = program(*words)
    assert done.returncode == 1
    assert f"error: --data: {tmp_path}/annotations is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_runs_on_other_data_are_not_gone_on_with(tmp_path):
    for name in ("a", "b"):
        for part in ("annotations", "images"):
            (tmp_path / name / part).mkdir(parents=True)
    (tmp_path / "weights.ckpt").touch()
    (tmp_path / "out" / "datasets").mkdir(parents=True)
    (tmp_path / "out" / "datasets" / "neu_det").symlink_to(tmp_path / "a")
    words = ["--weights", str(tmp_path / "weights.ckpt"), "--output", str(tmp_path / "out")]
    done = program("--data", str(tmp_path / "b"), *words)
    assert done.returncode == 1
    assert f"error: --output: {tmp_path}/out holds runs on {tmp_path}/a; name" in done.stderr


def bench(folder, *extra, **options):
    """A benchmark whose folder holds a base detector of two steps; none of its programs is run."""
    (folder / "weights.ckpt").touch()
    given = dict(data=folder, weights=folder / "weights.ckpt", output=folder / "out")
    given |= dict(shots="1", seeds="0", encoder_steps=4, settings="fsod")
    made = real.Bench(argparse.Namespace(**given | options), extra)
    made.run = lambda name, *_: ran.append(name)
    ran = made.ran = []
    return made


def checkpoint(run, step):
    """A training's checkpoint, without the network."""
    save_checkpoint(
        run / CHECKPOINTS, step, {"w": np.zeros(1)}, {"s": np.zeros(1)}, {"class_names": []}
    )


def evaluation(run, step, value):
    """Figures as train.py leaves them."""
    found = {name: value for name in figures.SETTINGS["gfsod"]}
    path = run / f"eval_{step}" / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"set": {"results": found}}))


SHORT = ("--solver.max_iter=2", "--solver.steps=[]", "--solver.warmup_iters=0")


def test_runs_of_other_flags_are_not_gone_on_with(tmp_path):
    first = bench(tmp_path, *SHORT)
    (tmp_path / "out").mkdir()
    bench(tmp_path, "--solver.max_itre=2").check_settings()
    first.check_settings()  # nothing was trained with the misspelt flag
    checkpoint(first.base, 2)
    bench(tmp_path, *SHORT, shots="1,5", seeds="0-9", settings="fsod,gfsod").check_settings()
    with pytest.raises(InputError, match=r"out holds runs with --encoder_steps=4; give these, or"):
        bench(tmp_path, *SHORT, encoder_steps=5).check_settings()
    flags = "the further flags --solver.max_iter=2 '--solver.steps=.*' --solver.warmup_iters=0; "
    with pytest.raises(InputError, match=flags):
        bench(tmp_path).check_settings()
    other = tmp_path / "other.ckpt"
    other.write_bytes(b"other")
    sha = sha256_file(tmp_path / "weights.ckpt")
    with pytest.raises(InputError, match=f"--weights of sha256 {sha} and --encoder_steps=4; "):
        bench(tmp_path, *SHORT, weights=other, encoder_steps=5).check_settings()
    first.check_settings()
    (tmp_path / "out" / "settings.json").write_text("[]")
    with pytest.raises(InputError, match=r"settings\.json is not of this program; remove it if"):
        first.check_settings()
    (tmp_path / "out" / "settings.json").unlink()  # a folder of before
    bench(tmp_path, encoder_steps=5).check_settings()
    with pytest.raises(InputError, match=r"--encoder_steps=5 and the further flags \(none\); "):
        first.check_settings()


def test_the_evaluation_after_the_last_step_counts(tmp_path, monkeypatch):
    made = bench(tmp_path, *SHORT)
    run = tmp_path / "out" / "fsod_ce" / "tfa-like" / "1shot_seed0"
    for folder in (made.base, run):
        evaluation(folder, 1, 70.0)
    made.train_base()
    assert made.ran == ["base", "encoder"]  # the first was stopped before its end
    made.encoder.touch()
    for folder in (made.base, run):
        evaluation(folder, 2, 30.0)
        os.utime(folder / "eval_2" / "metrics.json", (0, 0))
        checkpoint(folder, 2)
    made.train_base()
    assert made.ran == ["base", "encoder"]
    assert made.base_figures() == {"bAP": 30.0, "bAP50": 30.0}
    assert list(made.results()) == []  # the sweep has not finished the run
    (run / "sweep_result.json").touch()
    assert [one.figures["nAP"] for one in made.results()] == [30.0]
    evaluation(run, "x", 40.0)
    (run / "eval_x").rename(run / "calibrated")
    assert [(one.calibrated, one.figures["nAP"]) for one in made.results()] == [
        (False, 30.0),
        (True, 40.0),
    ]

    read = []
    monkeypatch.setattr(
        calibrate, "read_sets", lambda *_: (argparse.Namespace(category_ids=[]), [])
    )
    monkeypatch.setattr(calibrate, "make_calibrator", lambda *_: True)
    monkeypatch.setattr(calibrate.detecteval, "read_rows", lambda path: read.append(path) or [])
    monkeypatch.setattr(calibrate.detecteval, "dataset_ground_truth", lambda *_: {})
    monkeypatch.setattr(calibrate.detecteval, "evaluate", lambda *_, **__: "judged")
    assert calibrate.calibrated(real.load_config(str(real.HERE / "fsod.yaml")), run) == "judged"
    assert read == [run / "eval_2" / "detections.json"]
    with pytest.raises(InputError, match=r"none/ckpt_0 holds no checkpoint; name a finished run"):
        figures.last_evaluation(tmp_path / "none")


def program(*words):
    command = [sys.executable, "benchmarks/real.py", *words]
    return subprocess.run(
        command, cwd=project_folder(), capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_all_stages_and_again(tmp_path):
    """Two steps each of the real networks, one K-shot set; what is finished is not repeated."""
    data, weights = shared("neu_det"), shared("weights_thin_r50") / "thin_r50.npz"
    with np.load(weights) as archive:
        write_ckpt(tmp_path / "thin.ckpt", dict(archive))
    words = [
        *("--data", str(data), "--weights", str(tmp_path / "thin.ckpt")),
        *("--output", str(tmp_path / "out"), "--shots=1", "--seeds=0", "--encoder_steps=2"),
        *SHORT,
        "--test.eval_period=1",
    ]
    done = program(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "out"
    runs = json.loads((out / "results.json").read_text())["runs"]
    sides = {(one["setting"], one["loss"], one["calibrated"]) for one in runs}
    assert len(runs) == len(sides) == 8
    losses = {}
    for loss in ("ce", "dcfs"):
        (path,) = out.glob(f"gfsod_{loss}/tfa-like/1shot_seed0/ckpt_0/*.json")
        losses[loss] = json.loads(path.read_text())["info"]["config"]["model"]["roi_heads"]
    assert {name: one["cls_loss"] for name, one in losses.items()} == {"ce": "ce", "dcfs": "dcfs"}
    assert (out / "plot.png").is_file() and "### gfsod, bAP" in (out / "table.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.json")}
    again = program(*words)
    assert again.returncode == 0, again.stdout + again.stderr
    tables = [one.stdout[one.stdout.index("### ") :] for one in (done, again)]
    assert tables[0] == tables[1]
    assert " base: " in done.stdout and " base: " not in again.stdout
    assert {path: path.stat().st_mtime_ns for path in out.rglob("metrics.json")} == before
    assert len(list(out.glob("gfsod_ce/tfa-like/1shot_seed0/eval_*"))) == 2
    refused = program(*words[:-1])
    assert refused.returncode == 1
    assert f"error: --output: {out} holds runs with the further flags" in refused.stderr
