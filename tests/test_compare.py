# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""benchmarks/compare.py without torch and MindSpore: turns, agreement, figures, table."""

import json
import os
import re
import sys
import time

import numpy as np
import pytest

from benchmarks import compare
from benchmarks.comparison import agreement, inputs, programs, table, turns
from benchmarks.comparison.cases import CASES
from src.model_utils.config import load_config
from src.model_utils.paths import project_folder

# Takes as long as its argument says, and notes in a common file whose turn it was.
DUMMY = """
import json, sys, time
name, seconds, log = sys.argv[1], float(sys.argv[2]), sys.argv[3]
def tell(reply):
    sys.stdout.write(json.dumps(reply) + "\\n")
    sys.stdout.flush()
tell({"imported_mb": 1.0, "weights": 7, "versions": {}})
for line in sys.stdin:
    question = json.loads(line)
    if question["do"] == "fail":
        sys.exit("it broke")
    with open(log, "a") as handle:
        handle.write(f"{name}{question['input']} ")
    time.sleep(seconds)
    tell({"seconds": seconds + question["input"]})
"""


def dummies(tmp_path):
    log = tmp_path / "turns.txt"
    log.touch()
    return {
        name: [sys.executable, "-c", DUMMY, name, seconds, str(log)]
        for name, seconds in (("a", "0.01"), ("b", "0.02"))
    }, log


def test_two_processes_take_turns(tmp_path):
    commands, log = dummies(tmp_path)
    with turns.alive(commands, tmp_path, {}) as workers:
        assert all(worker.ready["weights"] == 7 for worker in workers.values())
        later = turns.take_turns(workers, [0, 3], 2)
    assert log.read_text().split() == ["a0", "b0", "a3", "b3", "b0", "a0", "b3", "a3"]
    assert later == {"a": [[0.01] * 2, [3.01] * 2], "b": [[0.02] * 2, [3.02] * 2]}


def state_of(process):
    """The letter of `ps`: T for stopped."""
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as handle:
        return handle.read().rsplit(")", 1)[1].split()[0]


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs Linux")
def test_a_worker_rests_while_it_is_not_asked(tmp_path):
    commands, _ = dummies(tmp_path)
    with turns.alive(commands, tmp_path, {}) as workers:
        for worker in workers.values():
            deadline = time.monotonic() + 10
            while state_of(worker._process) != "T" and time.monotonic() < deadline:
                time.sleep(0.01)
            assert state_of(worker._process) == "T"
        processes = [worker._process for worker in workers.values()]
    assert [process.returncode for process in processes] == [0, 0]


def test_a_worker_that_fails_says_why(tmp_path):
    commands, _ = dummies(tmp_path)
    with (
        turns.alive(commands, tmp_path, {}) as workers,
        pytest.raises(turns.WorkerError, match="it broke"),
    ):
        workers["a"].ask(do="fail")


def test_programs_are_run_in_turn_and_measured(tmp_path):
    one = [sys.executable, "-c", "b'x' * 150_000_000"]
    other = [sys.executable, "-c", "pass"]
    found = programs.take_turns({"a": (one, tmp_path), "b": (other, tmp_path)}, {}, tmp_path, 2)
    assert [len(times.later[0]) for times, _ in found.values()] == [2, 2]
    assert found["a"][1] > 150
    assert min(times.first for times, _ in found.values()) > 0
    with pytest.raises(turns.WorkerError, match="no luck"):
        programs.run(
            [sys.executable, "-c", "raise SystemExit('no luck')"], tmp_path, {}, tmp_path / "log"
        )


def test_times_of_several_inputs_are_summed():
    times = turns.Times(9.0, [[2.0, 1.0, 3.0], [5.0, 4.0, 9.0]])
    assert (times.minimum, times.median, times.unseen) == (5.0, 7.0, 7.0)


def detections(shift=0.0):
    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 40]], np.float32) + shift
    return {"boxes": boxes, "scores": np.array([0.9, 0.5]), "classes": np.array([1, 2])}


def test_agreement():
    assert agreement.detections(detections(), detections(0.1)) == 0
    with pytest.raises(agreement.DisagreementError, match="detections"):
        agreement.detections(detections(), detections(3.0))
    given = {"losses": np.array([1.0, 2.0, 1.0, 2.0])}
    assert agreement.losses(given, given) == 0
    for wrong in ([1.001, 2, 1, 2], [1, 2, 1, 2.1], [1, np.nan, 1, 2]):
        with pytest.raises(agreement.DisagreementError, match="losses"):
            agreement.losses({"losses": np.array(wrong)}, given)
    agreement.losses({"losses": np.array([1, 2, 1.004, 2])}, given)  # other samples
    with pytest.raises(agreement.DisagreementError):
        agreement.figures({"figures": np.array([1.0])}, {"figures": np.array([1.0 + 1e-12])})
    assert set(agreement.BY_KIND) == {case.kind for case in CASES.values()}


def test_the_table_has_ours_first_and_ratios():
    sides = {
        "ours": {"minimum_s": 1.0, "median_s": 1.5, "first_s": 8.0, "peak_mb": 1500.0},
        "twin": {"minimum_s": 2.0, "median_s": 2.5, "first_s": 2.0, "peak_mb": 1000.0},
    }
    row = {"title": "a case", "sides": sides, "ratios": table.ratios(sides), "matmuls": 86.4}
    row["parts"] = {"backbone": [0.5, 1.0]}
    text = table.markdown({"sides": ("ours", "twin"), "cases": {"case": row}})
    assert "| a case | 1 / 2 | 1.5 / 2.5 | 8 / 2 | 1.50 / 1.00 | – / – | 0.50 | 1.50 | – |" in text
    assert "takes 86 of its matmuls" in text and "backbone: 0.5 / 1 s, ratio 0.50" in text


@pytest.mark.parametrize(
    "arguments", [[], ["--twin-python", "p", "none-such"], ["--before", ".", "--repeats", "0"]]
)
def test_arguments_that_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        compare.main(arguments)
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.kind == "training"])
def test_batches_lie_inside_their_pictures(name):
    case = CASES[name]
    config = load_config(project_folder() / case.config, case.flags)
    made = inputs.training(case, config)
    height, width = case.sizes[0]
    assert made.images.shape == (case.images, 3, height, width)
    assert made.images.std() > 0.1
    assert (made.boxes >= 0).all() and (made.boxes <= [width, height] * 2).all()
    assert (made.boxes[..., 2:] - made.boxes[..., :2] >= 24).all()
    again = inputs.training(case, config)
    for one, other in zip(vars(made).values(), vars(again).values()):
        np.testing.assert_array_equal(one, other)


def test_generated_annotations_are_judged(tmp_path):
    case = CASES["coco-evaluation"]
    small = type(case)(case.name, case.title, case.kind, classes=3, images=4, objects=8)
    truth, rows = inputs.annotations(small)
    assert len(rows) == 32 and len(truth["images"]) == 4
    assert json.loads(json.dumps(rows)) == rows
    ids = [one["id"] for one in truth["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


def test_the_page_lists_every_case():
    page = (project_folder() / "docs" / "performance.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == set(CASES)
