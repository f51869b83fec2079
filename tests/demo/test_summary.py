# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The demo's last step: every printed figure is in summary.json."""

from __future__ import annotations

import json
import re

import pytest

from src.demo.summary import DEPLOYED, FROM_SCRATCH, STEPS, main, read_inference, read_training
from src.model_utils.errors import InputError

EVALUATION = {
    "dataset": "shapes_test_base",
    "num_images": 96,
    "num_objects": 220,
    "num_detections": 800,
    "results": {"bAP": 51.25, "bAP50": 83.5},
    "summary": {
        "all": {"AP": 51.25, "AP50": 83.5, "AP75": 60.0, "APs": -100.0, "APm": 55.5, "APl": 70.0}
    },
    "per_class_AP": {"disc": 51.25},
}
NOVEL = {**EVALUATION, "dataset": "shapes_test_novel"}
CALIBRATED = {
    **NOVEL,
    "summary": {"all": {**EVALUATION["summary"]["all"], "AP": 21.7, "AP50": 44.9}},
}
SECONDS = [f"{name} {number}\n" for number, name in enumerate(STEPS, 11)]
TRAIN_LOG = (
    "12:00:00 INFO 4 images a step; the schedule is used as it stands\n"
    "12:00:10 INFO step 50/100  total 2.2500  loss_rpn_cls 0.2500  loss_cls 2.0000  "
    "lr 0.010000  0.98 images/s  data 0.001 s  eta 00:10:54  3.5 GB\n"
    "12:00:20 INFO step 100/100  total {last}  loss_rpn_cls 0.2500  loss_cls 0.5000  "
    "lr 0.000020  1.98 images/s  data 0.000 s  eta 00:00:00  3.6 GB\n"
)
EVAL_LOG = (
    "12:01:00 INFO image 10/96  7.21 images/s\n"
    "12:01:00 INFO 96 images in 12.5 s, 8.21 images/s after the first, 800 detections\n"
)


@pytest.fixture
def finished(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))

    write("data/shapes/manifest.json", {"settings": {"seed": 0, "train": 400, "test": 100}})
    for name, entry in (("base", EVALUATION), ("novel", NOVEL), ("novel_pcb", CALIBRATED)):
        write(f"results/{name}/metrics.json", {entry["dataset"]: entry})
        write(f"eval_{name}.log", EVAL_LOG)
    write("steps.txt", "".join(["settings --from-scratch --a=1 \n", *SECONDS]))
    write("train_base.log", TRAIN_LOG.format(last="0.7500"))
    write("train_novel.log", TRAIN_LOG.format(last="0.3125"))
    return tmp_path


def numbers(value):
    """Every number below a JSON value."""
    if isinstance(value, dict):
        return {n for entry in value.values() for n in numbers(entry)}
    if isinstance(value, list):
        return {n for entry in value for n in numbers(entry)}
    return {float(value)} if isinstance(value, (int, float)) else set()


def test_every_printed_figure_is_in_the_file(finished, capsys):
    assert main([f"--output={finished}"]) == 0
    summary = json.loads((finished / "summary.json").read_text())
    stored = numbers(summary)
    printed = capsys.readouterr().out.replace(str(finished), "")
    printed = printed.replace("5 shots", "")
    figures = re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", printed)
    total = sum(range(11, 11 + len(STEPS)))
    assert {"83.5", "44.9", "60.0", "0.7500", "0.3125", "11", str(total)} <= set(figures)
    for figure in figures:
        decimals = len(figure.partition(".")[2])
        assert any(f"{value:.{decimals}f}" == figure for value in stored), figure
    assert "n/a" in printed
    assert summary["seconds"]["total"] == total
    assert summary["evaluation"] == {
        "base": [EVALUATION],
        "novel": [NOVEL],
        "novel_pcb": [CALIBRATED],
    }
    assert "report/index.html" in printed


def test_each_row_says_what_it_is(finished, capsys):
    main([f"--output={finished}"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split("|")[3].strip() for row in rows] == ["AP50", "83.5", "83.5", "44.9"]
    assert "without calibration" in rows[2]
    assert "with calibration" in rows[3]


def test_the_inference_programs_figures_are_shown_if_there_are_any(finished, capsys):
    main([f"--output={finished}"])
    assert "C++ program was left out" in capsys.readouterr().out
    path = finished / DEPLOYED
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"shapes_test_base": CALIBRATED}))
    main([f"--output={finished}"])
    printed = capsys.readouterr().out
    (row,) = [line for line in printed.splitlines() if "by the C++ program" in line]
    assert row.split("|")[3].strip() == "44.9"
    assert "left out" not in printed
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["evaluation"]["deployed"] == [CALIBRATED]


def test_logs_are_read_as_numbers(finished):
    rows = read_training(finished / "train_base.log")
    assert len(rows) == 2
    assert rows[0] == {
        "step": 50,
        "of": 100,
        "total": 2.25,
        "loss_rpn_cls": 0.25,
        "loss_cls": 2.0,
        "lr": 0.01,
        "data": 0.001,
        "images_per_second": 0.98,
        "gigabytes": 3.5,
    }
    assert read_inference(finished / "eval_base.log") == [
        {"images": 96, "seconds": 12.5, "images_per_second": 8.21}
    ]


def test_a_missing_result_is_named(finished):
    (finished / "results" / "novel" / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"metrics\.json"):
        main([f"--output={finished}"])
    assert not (finished / "summary.json").exists()


@pytest.mark.parametrize(("settings", "step"), [(" --from-scratch ", 4), ("", 5)])
def test_a_step_that_is_not_finished_is_named(finished, settings, step):
    (finished / "steps.txt").write_text("".join([f"settings{settings} \n", *SECONDS[:4]]))
    with pytest.raises(InputError, match=rf"steps\.txt: the step {STEPS[step]} is not finished"):
        main([f"--output={finished}"])
    assert not (finished / "summary.json").exists()


def test_nothing_is_said_of_a_training_that_was_left_out(finished, capsys):
    left = [line for line in SECONDS if line.split()[0] not in FROM_SCRATCH]
    (finished / "steps.txt").write_text("".join(["settings  \n", *left]))
    (finished / "train_base.log").unlink()
    main([f"--output={finished}"])
    printed = capsys.readouterr().out
    assert "base training: none" in printed
    assert "novel training: loss 0.3125 at step 100" in printed
    summary = json.loads((finished / "summary.json").read_text())
    assert set(summary["training"]) == {"novel"}
    assert not set(FROM_SCRATCH) & set(summary["seconds"])
