# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The tool: its grid, its choice, its text; and the program on the demo's shipped detector."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import eval as evaluation
from src.assembly import base_draws
from src.assembly.calibration import supports_of
from src.assembly.data import read_sets
from src.assembly.encoders import make_encoder
from src.calibration.pictures import reader
from src.defrcn.data_types import Annotation, Record
from src.defrcn.pcb import Calibrator, build_prototypes
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.predict import checkpoint as predict
from src.tools import choose_alpha
from src.tools.choose_alpha import Setting, Tried, choose, grid, interval, text
from tests.helpers import tiny_onnx

ROOT = project_folder()


def tried(alpha, values, lower=0.05):
    return Tried(Setting(alpha, lower, 1.0), {"AP": values, "AP50": [2 * v for v in values]})


def test_interval():
    """t(0.975, 2) is 4.303: 4.303 * 1 / sqrt(3)."""
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.4841), abs=1e-4)
    assert interval([5.0]) == (5.0, None)


def test_the_grid_has_the_configured_setting_once():
    options = SimpleNamespace(alphas=[0.0, 0.5], lowers=[0.05, 0.9], uppers=[0.5, 1.0])
    found = grid(options, Setting(0.5, 0.05, 1.0))
    assert len(found) == 2 * 3 == len(set(found))  # (0.9, 0.5] is none
    assert len(grid(options, Setting(0.7, 0.05, 1.0))) == 7


def test_the_highest_mean_is_chosen_and_of_equals_the_smallest_change():
    some = [tried(0.2, [1.0, 5.0]), tried(0.4, [3.5, 3.5]), tried(0.6, [3.0, 4.0])]
    assert choose(some, "AP").setting.alpha == 0.6


def test_text():
    base = SimpleNamespace(
        info=SimpleNamespace(name="a_base", class_names="abc"),
        judged=[1, 2],
        draws=[1, 2],
        own=True,
    )
    some = [tried(0.3, [3.0, 4.0]), tried(0.5, [2.5, 3.5])]
    found = text(base, "AP", {"AP": 3.0, "AP50": 6.0}, some, some[1])
    assert "AP of 3 base classes" in found and "2 pictures of a_base" in found
    assert "the detector was trained on them" in found
    # Paired by draw: the difference is 0.5 in both.
    assert "alpha 0.3 for scores in (0.05, 1]; AP +0.50 ± 0.00 against the configured" in found
    assert yaml.safe_load(found[found.index("test:\n") :]) == {
        "test": {"pcb": {"alpha": 0.3, "lower": 0.05, "upper": 1}}
    }
    assert "no setting is better" not in found
    worse = text(base, "AP", {"AP": 9.0, "AP50": 9.0}, some, some[1])
    assert "no setting is better" in worse


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--alphas", "0.5", "1.5"], "--alphas: 1.5 must lie within 0 and 1"),
        (["--lowers", "0.5", "--uppers", "0.4"], "--lowers and --uppers leave no scores"),
        (["--draws=0"], "--draws 0 must be 1 or more"),
        (["--shots=0"], "--shots 0"),
        (["--pictures=-1"], "--pictures -1"),
    ],
)
def test_wrong_flags(flags, words):
    with pytest.raises(InputError, match=words):
        choose_alpha.parse([f"--config_path={ROOT / 'configs/defrcn_base.yaml'}", *flags])


@pytest.fixture(scope="module")
def place(trained_demo, tmp_path_factory):
    """The demo's configuration and detector on the shared pictures, an encoder of mean colours."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "m.onnx").write_bytes(tiny_onnx.crop_model((24, 24)))
    encoder = {"model": "m.onnx", "features": "crop", "size": [24, 24]}
    encoder |= {"mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / "e.yaml").write_text(yaml.safe_dump(encoder))
    settings = {
        "base": str(ROOT / "configs/demo/shapes_base.yaml"),
        "datasets_root": str(trained_demo.root),
        "save_checkpoint_path": str(folder / "run"),
        "test_mindrecord_dir": str(folder / "mindrecord"),
        "eval_checkpoint_path": str(ROOT / "configs/demo/shapes_base.ckpt"),
        "test": {"visualize_images": 0, "pcb": {"encoder": str(folder / "e.yaml")}},
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture(scope="module")
def compiled(place):
    """All programs here have the same weights, so one compiled network does for all."""
    known = []

    def remembered(config, net, make=base_draws.make_inference):
        if not known:
            known.append(make(config, net))
        return known[0]

    with pytest.MonkeyPatch.context() as patch:
        for module in (base_draws, evaluation, predict):
            patch.setattr(module, "make_inference", remembered)
        yield


def go(place, result, *flags):
    words = [f"--config_path={place / 'c.yaml'}", f"--result_path={place / result}"]
    words += ["--on=shapes_test_base", "--shots=2", "--draws=2", "--alphas", "0.2", "0.7"]
    assert choose_alpha.main([*words, "--lowers", "0.1", *flags]) == 0
    return json.loads((place / result / "alpha.json").read_text())


@pytest.fixture(scope="module")
def chosen(place, compiled):
    return go(place, "chosen")


@pytest.fixture(scope="module")
def evaluated(place, compiled):
    """eval.py's rows and figures, without calibration."""
    folder = place / "evaluated"
    assert evaluation.main([f"--config_path={place / 'c.yaml'}", f"--result_path={folder}"]) == 0
    rows = json.loads((folder / "detections.json").read_text())
    figures = json.loads((folder / "metrics.json").read_text())["shapes_test_base"]["results"]
    return rows, figures


def test_without_calibration_it_judges_as_eval_does(chosen, evaluated):
    _, figures = evaluated
    assert figures["bAP"] > 20  # a detector that finds something
    assert chosen["uncalibrated"]["AP"] == pytest.approx(figures["bAP"], abs=1e-9)
    assert chosen["uncalibrated"]["AP50"] == pytest.approx(figures["bAP50"], abs=1e-9)
    assert chosen["judged"]["trained_on"] is False and chosen["figure"] == "AP"


def test_figures_are_those_of_the_block_with_the_boxes_that_it_names(place, chosen, evaluated):
    """From eval.py's rows, the boxes in the JSON file, the block, and pycocotools."""
    config = load_config(place / "c.yaml")
    info, records = read_sets(config, ("shapes_test_base",))
    read, encoder = reader(10**8), make_encoder(config)
    index_of = {name: index for index, name in enumerate(info.class_names)}
    names = {record.image_id: record.file_name for record in records}
    truth = COCO(str(info.annotations))
    for setting in chosen["grid"]:
        for draw, described in enumerate(chosen["judged"]["draws"]):
            support = []
            for one in described:
                boxes = [
                    Annotation(tuple(each["bbox"]), each["mode"], index_of[each["class"]])
                    for each in one["boxes"]
                ]
                size = cv2.imread(one["file_name"]).shape[:2]
                support.append(Record(one["file_name"], 0, *size, tuple(boxes)))
            supports = supports_of(support, range(9), short_edge=144, max_size=288)
            calibrate = Calibrator(
                encoder,
                build_prototypes(encoder, supports, 9, read=read),
                excluded=[],
                **{key: setting[key] for key in ("alpha", "lower", "upper")},
                read=read,
            )
            rows = recalibrated(evaluated[0], calibrate, names, info)
            assert average_precision(truth, rows, info) == pytest.approx(
                setting["AP"][draw], abs=1e-6
            )
    assert len(chosen["grid"]) == 3  # and the configured one
    means = [one["mean"] for one in chosen["grid"]]
    assert max(means) - min(means) > 0.1 and chosen["chosen"]["mean"] == max(means)


def recalibrated(rows, calibrate, names, info):
    found = []
    for identity, name in names.items():
        own = [row for row in rows if row["image_id"] == identity]
        boxes = np.array([row["bbox"] for row in own], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        classes = np.array([info.category_ids.index(row["category_id"]) for row in own], int)
        scores = calibrate(name, boxes, np.array([row["score"] for row in own], "f"), classes)
        found += [{**row, "score": float(score)} for row, score in zip(own, scores)]
    return found


def average_precision(truth, rows, info) -> float:
    judged = COCOeval(truth, truth.loadRes(rows), "bbox")
    judged.params.catIds = list(info.category_ids)
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    return 100 * judged.stats[0]


def test_novel_annotations_never_enter(place, chosen, trained_demo):
    """Poisoned in both files, the result is the same, but for nothing."""
    names = {"crescent", "cross", "checkerboard"}
    folder = place / "poisoned"
    folder.mkdir()
    flags = []
    for half in ("train", "test"):
        path = trained_demo.root / "shapes" / "annotations" / f"{half}.json"
        content = json.loads(path.read_text())
        novel = {one["id"] for one in content["categories"] if one["name"] in names}
        changed = 0
        for number, one in enumerate(content["annotations"]):
            if one["category_id"] in novel:
                one["bbox"] = [1.0 + number % 7, 2.0, 9.0, 8.0]
                one["category_id"] = sorted(novel)[number % 3]
                changed += 1
        assert changed > 0
        (folder / f"{half}.json").write_text(json.dumps(content))
        flags.append(f"--data.custom.shapes.{half}.annotations={folder / f'{half}.json'}")
    assert go(place, "again", *flags) == chosen


def test_scores_of_predict_have_the_encoders_share(place, compiled, trained_demo, evaluated):
    """The program with another encoder: a base class counts as novel, with its one box."""
    novel = "square"
    flags = [
        f"--config_path={place / 'c.yaml'}",
        f"--input_path={trained_demo.root / 'shapes/images/test'}",
        f"--result_path={place / 'predicted'}",
        "--score_threshold=0",
        "--test.pcb.enable=true",
        f"--data.custom.shapes.novel_classes=[{novel}]",
        "--data.custom.shapes.few_shot=shapes/split",
        "--data.train=[shapes_train_novel_1shot_seed0]",
    ]
    assert predict.main(flags) == 0
    found = json.loads((place / "predicted" / "detections.json").read_text())
    assert found["calibrated"] is True
    split = trained_demo.root / "shapes/split/seed0" / f"full_box_1shot_{novel}_trainval.json"
    shot = json.loads(split.read_text())
    support = colour(
        trained_demo.root / "shapes/images/train" / shot["images"][0]["file_name"],
        shot["annotations"][0]["bbox"],
    )
    table = json.loads((trained_demo.root / "shapes/annotations/test.json").read_text())
    identities = {one["file_name"]: one["id"] for one in table["images"]}
    changed = 0
    for entry in found["images"]:
        rows = [row for row in evaluated[0] if row["image_id"] == identities[entry["file"]]]
        before = {tuple(row["bbox"]): row["score"] for row in rows}
        assert len(before) == len(rows) == len(entry["detections"])
        for one in entry["detections"]:
            score, box = before[tuple(one["bbox_xywh"])], one["bbox_xywh"]
            if one["label"] != novel or score <= 0.05:
                assert one["score"] == score
                continue
            own = colour(trained_demo.root / "shapes/images/test" / entry["file"], box)
            cosine = own @ support / np.linalg.norm(own) / np.linalg.norm(support)
            assert one["score"] == pytest.approx(0.5 * score + 0.5 * cosine, abs=0.05)
            changed += 1
    assert changed > 0


def colour(path, box):
    """The mean colour within a box, red first, normalised; whole pixels."""
    x, y, width, height = box
    pixels = cv2.imread(str(path))
    rows = slice(max(round(y), 0), round(y + height))
    part = pixels[rows, max(round(x), 0) : round(x + width), ::-1] / 255
    return (part.mean((0, 1)) - 0.5) / 0.25
