# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Evaluation as train.py and eval.py assemble it, with detections that are given."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from src.assembly import evaluation as assembly_eval
from src.assembly import training
from src.assembly.evaluation import evaluate_sets, open_test_sets
from src.dataset import load_dataset
from src.evaluation.report import page
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.weights.ckpt_format import write_ckpt
from tests.helpers.data_helpers import coco_content, coco_tree, voc_xml, write_image

CONFIG = """
datasets_root: {root}
test_mindrecord_dir: {root}/mindrecord
save_checkpoint_path: {root}/run
data:
  train: [toy_train_all]
  test: [toy_test_all]
  custom:
    toy:
      format: coco
      train: {{annotations: toy/train.json, images: toy/images}}
      test: {{annotations: toy/train.json, images: toy/images}}
      novel_classes: [star]
test:
  visualize_images: 0
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.format(root=tmp_path))
    return path


@pytest.fixture
def detections(monkeypatch):
    """Finds what is put here, with half the score if it is calibrated."""
    found = []

    def rows_of(images, category_ids, calibrate):
        rows = [dict(row) for row in found if row["category_id"] in category_ids]
        if calibrate is not None:
            for row in rows:
                row["score"] = calibrate(row["score"])
        return rows

    monkeypatch.setattr(assembly_eval, "rows_of", rows_of)
    return found


def toy_sets(root, *names):
    custom = coco_tree(root)
    return [
        assembly_eval.TestSet(*load_dataset([name], datasets_root=root, custom=custom), loader=[])
        for name in names
    ]


def ring_and_false_one():
    content = coco_content()["annotations"][0]
    box = {"image_id": content["image_id"], "category_id": content["category_id"]}
    return [
        {**box, "bbox": content["bbox"], "score": 0.75},
        {**box, "bbox": [30, 20, 9, 9], "score": 0.5},
    ]


def test_calibration_is_asked_for_used_and_recorded(tmp_path, config_file, detections, monkeypatch):
    asked = []

    def make(config, info, checkpoint):
        asked.append((info.name, checkpoint))
        return (lambda score: score / 2) if config.test.pcb.enable else None

    monkeypatch.setattr(assembly_eval, "make_calibrator", make)
    detections += ring_and_false_one()
    sets = toy_sets(tmp_path, "toy_test_all")
    checkpoint = tmp_path / "run" / "ckpt_0" / "defrcn-9.json"
    for enable, words in ((True, "with PCB"), (False, "without PCB")):
        config = load_config(config_file, [f"--test.pcb.enable={enable}", "--test.report=true"])
        folder = tmp_path / f"eval_{enable}"
        text, figures = evaluate_sets(config, None, sets, folder, checkpoint=checkpoint)
        assert figures == json.loads((folder / "metrics.json").read_text())
        assert figures["toy_test_all"]["pcb"] is enable
        assert f"gfsod (2 base and 1 novel class), {words}" in text
        scores = [row["score"] for row in json.loads((folder / "detections.json").read_text())]
        assert scores == ([0.375, 0.25] if enable else [0.75, 0.5])
        page = (folder / "report" / "index.html").read_text()
        assert f"scores {words}" in page
        assert "defrcn-9.json" in page
    assert asked == [("toy_test_all", checkpoint)] * 2
    evaluate_sets(config, None, sets, tmp_path / "eval_9")
    assert asked[-1] == ("toy_test_all", None)


def test_missing_weights_of_the_calibration_are_named_before_anything_is_done(config_file):
    config = load_config(config_file, ["--test.pcb.enable=true", "--pcb_modelpath=no.ckpt"])
    with pytest.raises(InputError, match=r"pcb_modelpath.*no\.ckpt.*pth2ckpt"):
        open_test_sets(config)


def test_a_file_of_surgery_cannot_be_evaluated(tmp_path):
    path = tmp_path / "model_reset_remove.ckpt"
    write_ckpt(path, {"affine_rpn.bias": np.zeros(3, np.float32)})
    with pytest.raises(InputError, match=r"reset_remove\.ckpt has no class and box layer; if it"):
        assembly_eval.load_for_evaluation(None, path, ("a", "b"))


def test_what_was_forgotten_is_on_the_page(tmp_path, config_file, detections, monkeypatch):
    """The base detector's results are those of eval.py; no object of the star counts."""
    monkeypatch.setattr(page, "_write_plots", lambda folder, analysis: None)
    detections += ring_and_false_one()
    sets = toy_sets(tmp_path, "toy_test_base", "toy_test_all")
    evaluate_sets(load_config(config_file), None, sets[:1], tmp_path / "base")
    detections.pop()
    detections[0]["bbox"] = [30, 20, 9, 9]
    key = f"--test.report_before={tmp_path / 'base'}"
    config = load_config(config_file, ["--test.report=true", key])
    _, figures = evaluate_sets(config, None, sets[1:], tmp_path / "all")
    assert figures["toy_test_all"]["per_class_objects"] == {"cross": 1, "star": 0, "ring": 1}
    with (tmp_path / "all" / "report" / "forgotten.csv").open(newline="") as handle:
        ring, cross = csv.DictReader(handle)
    assert (ring["class"], ring["AP_before"], ring["difference"]) == ("ring", "100", "-100")
    assert (cross["class"], cross["AP_before"], cross["difference"]) == ("cross", "0", "0")
    shown = " ".join((tmp_path / "all/report/index.html").read_text().split())
    assert "(toy_test_base, 2 images, without PCB; folder base)" in shown
    assert 'class="warning"' not in shown  # the test sets are alike
    # without the page it is not read
    config = load_config(config_file, ["--test.report_before=gone"])
    evaluate_sets(config, None, sets[1:], tmp_path / "none")


def test_results_that_are_none_are_named_before_anything_is_done(tmp_path, config_file, detections):
    (sets,) = toy_sets(tmp_path, "toy_test_all")
    config = load_config(config_file, ["--test.report=true", "--test.report_before=gone"])
    with pytest.raises(InputError, match=r"^test\.report_before: gone does not exist"):
        open_test_sets(config)
    with pytest.raises(InputError, match=r"^test\.report_before: gone does not exist"):
        evaluate_sets(config, None, [sets], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "mindrecord").exists()


def test_figures_of_several_sets(tmp_path, config_file, detections):
    detections += ring_and_false_one()
    config = load_config(config_file, ["--test.visualize_images=1"])
    sets = toy_sets(tmp_path, "toy_test_all", "toy_test_base")
    text, figures = evaluate_sets(config, None, sets, tmp_path / "out")
    assert list(figures) == ["toy_test_all", "toy_test_base"]
    # ring: found; cross: not; star: a crowd only, so not defined
    assert figures["toy_test_all"]["results"]["bAP50"] == pytest.approx(50)
    assert figures["toy_test_all"]["results"]["nAP50"] == -100
    assert figures["toy_test_base"]["per_class_AP50"] == pytest.approx({"cross": 0, "ring": 100})
    assert "base training (2 base classes only)" in figures["toy_test_base"]["protocol"]
    assert [name for name in figures if text.count(f"{name}: ") == 1] == list(figures)
    for name in figures:
        assert (tmp_path / "out" / name / "detections.json").is_file()
        assert len(list((tmp_path / "out" / name / "pictures").iterdir())) == 2
    assert not (tmp_path / "out" / "toy_test_all" / "report").exists()


def test_metric_of_ones_own_voc_set(tmp_path, config_file, detections):
    """VOC-style files are judged by COCO's rules unless VOC's are asked for."""
    folder = tmp_path / "toy"
    write_image(folder / "images" / "a.jpg", 40, 60)
    (folder / "xml").mkdir()
    objects = [("ring", 5, 5, 24, 24, 0), ("ring", 31, 5, 50, 24, 0), ("star", 1, 1, 4, 4, 1)]
    (folder / "xml" / "a.xml").write_text(voc_xml(40, 60, objects))
    text = config_file.read_text().replace("format: coco", "format: voc")
    config_file.write_text(text.replace("toy/train.json", "toy/xml"))
    detections.append(
        {"image_id": "a", "category_id": 1, "bbox": [4.0, 4.0, 20.0, 20.0], "score": 0.5}
    )
    aps = {}
    for metric in ("auto", "coco", "voc07", "voc12"):
        config = load_config(config_file, [f"--test.metric={metric}"])
        info, records = assembly_eval.read_sets(config, config.data.test)
        sets = [assembly_eval.TestSet(info, records, loader=[])]
        _, figures = evaluate_sets(config, None, sets, tmp_path / metric)
        aps[metric] = figures["toy_test_all"]["per_class_AP"]["ring"]
    # one of two found: 51 of 101 points, 6 of 11, half of the area
    assert aps == pytest.approx(
        {"auto": 100 * 51 / 101, "coco": 100 * 51 / 101, "voc07": 100 * 6 / 11, "voc12": 50}
    )


def test_sets_of_other_classes_are_refused(tmp_path, config_file, monkeypatch):
    """Before anything is built, so that no training starts that could not be evaluated."""
    coco_tree(tmp_path)
    built = []
    monkeypatch.setattr(training, "build_mindrecord", lambda *_, **__: built.append(1))
    monkeypatch.setattr(assembly_eval, "EvalLoader", lambda *_, **__: SimpleNamespace())
    config = load_config(config_file)
    with pytest.raises(InputError, match=r"data\.test: toy_test_all has 3 classes .* has 2 "):
        open_test_sets(config, ("cross", "ring"))
    assert not built
    assert len(open_test_sets(config, ("cross", "star", "ring"))) == 1
    assert len(open_test_sets(config)) == 1
    config = load_config(config_file, ["--data.test=[toy_test_all, toy_test_base]"])
    with pytest.raises(InputError, match=r"toy_test_base has 2 classes .*test set toy_test_all"):
        open_test_sets(config)
