"""The demo's last step: every printed figure is in summary.json."""

from __future__ import annotations

import json
import re

import pytest

from src.demo_summary import main, read_losses
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
    log = tmp_path / "checkpoints" / "loss_0.log"
    log.parent.mkdir()
    log.write_text(
        "12 s | epoch: 1 step: 50 total_loss: 2.25000  lr: 0.010000\n"
        "not a line of figures\n"
        "24 s | epoch: 2 step: 10 total_loss: 0.75000  lr: 0.020000\n"
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
    assert {"96", "83.5", "60.0", "0.75000", "300", "335"} <= set(figures)
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


def test_losses_are_read_as_numbers(finished):
    rows = read_losses(finished / "checkpoints")
    assert rows[0] == {"seconds": 12, "epoch": 1, "step": 50, "total_loss": 2.25, "lr": 0.01}
    assert len(rows) == 2


def test_a_missing_result_is_named(finished):
    (finished / "results" / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"metrics\.json"):
        main([f"--output={finished}", *SECONDS])
    assert not (finished / "summary.json").exists()
