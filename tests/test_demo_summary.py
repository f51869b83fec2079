"""The demo's last step: every printed figure is in summary.json."""

from __future__ import annotations

import json
import re

import pytest

from src.demo_summary import main, read_inference, read_training
from src.model_utils.errors import InputError

EVALUATION = {
    "dataset": "shapes_test_base",
    "num_images": 96,
    "num_objects": 220,
    "num_detections": 800,
    "results": {"bAP": 51.25, "bAP50": 83.5},
    "summary": {
        "base": {"AP": 51.25, "AP50": 83.5, "AP75": 60.0, "APs": -100.0, "APm": 55.5, "APl": 70.0}
    },
    "per_class_AP": {"disc": 51.25},
}
SECONDS = ["--data_seconds=20", "--train_seconds=300", "--eval_seconds=15"]


@pytest.fixture
def finished(tmp_path):
    for name, content in (
        ("data/shapes/manifest.json", {"settings": {"seed": 0, "train": 400, "test": 100}}),
        ("results/metrics.json", EVALUATION),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    (tmp_path / "results" / "pictures.png").touch()
    (tmp_path / "train.log").write_text(
        "12:00:00 INFO 4 images a step; the schedule is used as it stands\n"
        "12:00:10 INFO step 50/100  total 2.2500  loss_rpn_cls 0.2500  loss_cls 2.0000  "
        "lr 0.010000  0.98 images/s  data 0.001 s  eta 00:10:54  3.5 GB\n"
        "12:00:20 INFO step 100/100  total 0.7500  loss_rpn_cls 0.2500  loss_cls 0.5000  "
        "lr 0.000020  1.98 images/s  data 0.000 s  eta 00:00:00  3.6 GB\n"
    )
    (tmp_path / "eval.log").write_text(
        "12:01:00 INFO image 10/96  7.21 images/s\n"
        "12:01:00 INFO 96 images in 12.5 s, 8.21 images/s after the first, 800 detections\n"
    )
    return tmp_path


def numbers(value):
    """Every number below a JSON value."""
    if isinstance(value, dict):
        return {n for entry in value.values() for n in numbers(entry)}
    if isinstance(value, list):
        return {n for entry in value for n in numbers(entry)}
    return {float(value)} if isinstance(value, (int, float)) else set()


def test_every_printed_figure_is_in_the_file(finished, capsys):
    assert main([f"--output={finished}", *SECONDS]) == 0
    summary = json.loads((finished / "summary.json").read_text())
    stored = numbers(summary)
    printed = capsys.readouterr().out.replace(str(finished), "").replace("shapes_test_base", "")
    figures = re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", printed)
    assert {"96", "83.5", "60.0", "0.7500", "300", "335"} <= set(figures)
    for figure in figures:
        decimals = len(figure.partition(".")[2])
        in_list = figure == "1"  # the number of drawn pictures is the length of their list
        assert in_list or any(f"{value:.{decimals}f}" == figure for value in stored), figure
    assert "n/a" in printed
    assert summary["seconds"] == {"data": 20, "train": 300, "eval": 15, "total": 335}
    assert summary["evaluation"] == [EVALUATION]
    assert summary["pictures"]["detections"] == [str(finished / "results" / "pictures.png")]


def test_several_test_sets(finished, capsys):
    other = {**EVALUATION, "dataset": "shapes_test_novel"}
    content = {"shapes_test_base": EVALUATION, "shapes_test_novel": other}
    (finished / "results" / "metrics.json").write_text(json.dumps(content))
    main([f"--output={finished}", *SECONDS])
    assert "shapes_test_novel, 96 held-out pictures" in capsys.readouterr().out


def test_logs_are_read_as_numbers(finished):
    rows = read_training(finished / "train.log")
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
    assert read_inference(finished / "eval.log") == [
        {"images": 96, "seconds": 12.5, "images_per_second": 8.21}
    ]


def test_a_missing_result_is_named(finished):
    (finished / "results" / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"metrics\.json"):
        main([f"--output={finished}", *SECONDS])
    assert not (finished / "summary.json").exists()
