# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""train.py and eval.py as a user runs them, on a few small pictures."""

import json
import re

import pytest

import eval as evaluation
import train
from tests.helpers.hostile import refuse  # noqa: F401 - a fixture
from tests.helpers.trained import run


def figures(path):
    found = json.loads(path.read_text())
    assert list(found) == ["shapes_test_base"]
    return found["shapes_test_base"]


def test_training(trained_demo):
    folder, steps = trained_demo.run, trained_demo.steps
    lines = trained_demo.text("train").splitlines()
    assert [line for line in lines if re.search(rf" step {steps}/{steps}  total \d", line)]
    assert len((folder / "loss_0.log").read_text().splitlines()) == steps
    names = {path.name for path in (folder / "ckpt_0").iterdir()}
    assert {f"defrcn-{step}.ckpt" for step in range(1, steps + 1)} <= names
    assert {f"defrcn-{steps}.state.npz", f"defrcn-{steps}.json"} <= names
    assert (folder / "log_0.txt").is_file()


def test_evaluation_at_the_end(trained_demo):
    folder = trained_demo.run / f"eval_{trained_demo.steps}"
    result = figures(folder / "metrics.json")
    assert result
    rows = json.loads((folder / "detections.json").read_text())
    assert 0 < len(rows) <= 15
    assert all(row["bbox"][2] > 0 and row["bbox"][3] > 0 for row in rows)
    assert len(list((folder / "pictures").glob("*.*"))) >= 1
    assert "AP" in trained_demo.text("train")


def test_eval_gives_what_training_gave(trained_demo):
    folder = trained_demo.run / f"eval_{trained_demo.steps}"
    output, again = trained_demo.text("eval"), trained_demo.evaluated
    assert "COCO box AP in percent" in output
    assert "base training (9 base classes only), without PCB" in output
    page = (again / "report" / "index.html").read_text()
    assert f"defrcn-{trained_demo.steps}.json" in page
    assert "base training (9 base classes only)" in page
    rows = json.loads((again / "detections.json").read_text())
    assert rows == json.loads((folder / "detections.json").read_text())
    assert figures(again / "metrics.json") == figures(folder / "metrics.json")


def moved(output):
    """The log without the folders of pictures that the copy of the run has elsewhere."""
    return re.sub(r"(train|test)_mindrecord_dir \S+ -> \S+, ", "", output)


def test_resume(trained_demo, tmp_path):
    place, done = trained_demo.copy(tmp_path / "project"), trained_demo.steps
    folder, last = place.parent / "run", done + 2
    flags = ("--resume=true", f"--solver.max_iter={last}", "--test.eval_at_end=false")
    output, _ = run("train.py", place, *flags)
    assert re.search(rf"resumed after step {done} of \S+defrcn-{done}\.json", output)
    changed = f"solver.max_iter {done} -> {last}, test.eval_at_end true -> false"
    assert re.search(rf"changed since step {done}: save_\S+ .*, {changed}\n", moved(output))
    for step in (done + 1, last):
        assert re.search(rf" step {step}/{last} ", output)
    assert not re.search(rf" step {done}/{last} ", output)
    assert len((folder / "loss_0.log").read_text().splitlines()) == last
    assert (folder / "ckpt_0" / f"defrcn-{last}.json").is_file()


@pytest.fixture(scope="module")
def place(trained_demo, tmp_path_factory):
    """A configuration whose folders are empty."""
    return trained_demo.copy(tmp_path_factory.mktemp("project"), steps=None)


def check_sentence(error, message):
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, error
    assert re.search(message, lines[0]), lines[0]


@pytest.mark.parametrize(
    ("program", "flag", "message"),
    [
        (train, "--solver.base_rate=1", r"solver\.base_rate.*unknown key.*solver\.base_lr"),
        (train, "--data.train=shapes_train_bass", r"shapes_train_bass"),
        (train, "--data.test=shapes_test_novel", r"shapes_test_novel has 3 classes.* has 9 "),
        (train, "--model_pretrained_path=no.ckpt", r"model_pretrained_path.*no\.ckpt"),
        (train, "--model.backbone.norm=FrozenBN", r"backbone_pretrained_path.*FrozenBN"),
        (evaluation, "--eval_checkpoint_path=missing.ckpt", r"eval_checkpoint_path.*missing\.ckpt"),
        (evaluation, "--test.score_threshold=2", r"test\.score_threshold"),
    ],
)
def test_one_sentence_for_what_is_wrong(place, refuse, program, flag, message):  # noqa: F811
    folder = f"--save_checkpoint_path={place.parent / 'wrong'}"
    check_sentence(refuse(program.main, f"--config_path={place}", flag, folder), message)


def test_the_sentence_is_all_that_a_user_sees(place):
    folder = f"--save_checkpoint_path={place.parent / 'wrong'}"
    output, error = run("train.py", place, "--model.num_classes=4", folder, expect=1)
    check_sentence(error, r"model\.num_classes is 4.* has 9 classes")
    assert "Traceback" not in output + error


def test_evaluation_on_other_classes_is_refused(trained_demo, place):
    _, error = run(
        "eval.py",
        place,
        f"--eval_checkpoint_path={trained_demo.run}",
        "--data.test=shapes_test_novel",
        f"--test_mindrecord_dir={place.parent / 'mindrecord' / 'novel'}",
        expect=1,
    )
    check_sentence(error, r"error: .*was trained on 9 classes")
