# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Surgery, fine-tuning, calibration and evaluation on real pictures, by the entry points.

COCO photographs (fsod), VOC photographs (gfsod, split 1) and blood cells, which are a data set of
one's own. The configurations are those that users run, with a narrow network at reduced size.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import eval as eval_program
import train as train_program
from src import model_surgery
from src.assembly import training as assembly
from src.assembly.calibration import make_calibrator, read_support
from src.assembly.data import read_sets
from src.calibration.support_set import FILE_NAME, read_support_set
from src.defrcn.built_datacategory import COCO_CATEGORIES, COCO_NOVEL_CLASSES, VOC_NOVEL_CLASSES
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.network_define import parameters_of
from src.tools import draw_kshot
from src.weights.checkpoint import load_training_checkpoint, load_weights, save_checkpoint
from src.weights.ckpt_format import write_ckpt
from src.weights.initialise import initialise
from tests.defrcn.test_pcb_encoder import parameters as encoder_parameters
from tests.helpers.data_helpers import shared

CONFIGS = project_folder() / "configs"
STEPS = 2
FROZEN = re.compile(r"backbone\.(stem|res[23])\.|roi_heads\.res5\.|.*\.norm\.")
PREDICTOR = "roi_heads.box_predictor."
SMALL = (
    "--model.backbone.depth=26",
    "--model.backbone.stem_out_channels=8",
    "--model.backbone.res2_out_channels=32",
    "--model.rpn.batch_size_per_image=32",
    "--model.rpn.post_nms_topk_train=24",
    "--model.rpn.post_nms_topk_test=12",
    "--model.roi_heads.batch_size_per_image=16",
    "--input.min_size_train=[96,112]",
    "--input.max_size_train=176",
    "--input.min_size_test=112",
    "--input.max_size_test=176",
    "--input.pixel_std=[57.375,57.12,58.395]",
    "--solver.scale_to_batch=false",
    "--solver.images_per_card=1",
    "--solver.base_lr=0.01",
    f"--solver.max_iter={STEPS}",
    "--solver.steps=[]",
    "--test.score_threshold=0",
    "--test.visualize_images=0",
    "--log.period=1",
)


def coco_data(root: Path) -> tuple[int, int]:
    """COCO's tree with four test pictures; returns their number and that of novel objects."""
    source = shared("coco_mini") / "datasets"
    (root / "cocosplit" / "datasplit").mkdir(parents=True)
    (root / "coco").symlink_to((source / "coco").resolve())
    for seed in ("seed0", "seed1"):
        (root / "cocosplit" / seed).symlink_to((source / "cocosplit" / seed).resolve())
    split = source / "cocosplit" / "datasplit"
    train = (split / "trainvalno5k.json").resolve()
    (root / "cocosplit" / "datasplit" / "trainvalno5k.json").symlink_to(train)
    ids = [number for number, name in COCO_CATEGORIES if name in COCO_NOVEL_CLASSES]
    target = root / "cocosplit" / "datasplit" / "5k.json"
    return cut(split / "5k.json", target, 4, ids)


def cut(source: Path, target: Path, count: int, category_ids: list[int]) -> tuple[int, int]:
    """Keep the first pictures of a COCO-format file; count them and the classes' objects."""
    content = json.loads(source.read_text())
    content["images"] = content["images"][:count]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    target.write_text(json.dumps(content))
    wanted = [a for a in content["annotations"] if a["category_id"] in category_ids]
    return count, sum(not a["iscrowd"] for a in wanted)


def voc_data(root: Path) -> tuple[int, int]:
    """VOC's tree with four test pictures; returns their number and that of their objects."""
    source = (shared("voc_mini") / "datasets").resolve()
    (root / "VOC2007" / "ImageSets" / "Main").mkdir(parents=True)
    for name in ("VOC2012", "vocsplit", "VOC2007/Annotations", "VOC2007/JPEGImages"):
        (root / name).symlink_to(source / name)
    lists = Path("VOC2007", "ImageSets", "Main")
    ids = (source / lists / "test.txt").read_text().split()[:4]
    (root / lists / "test.txt").write_text("\n".join(ids) + "\n")
    (root / lists / "trainval.txt").symlink_to(source / lists / "trainval.txt")
    files = [source / "VOC2007" / "Annotations" / f"{name}.xml" for name in ids]
    found = [entry for file in files for entry in ElementTree.parse(file).iter("object")]
    return len(ids), sum(entry.findtext("difficult") != "1" for entry in found)


def blood_data(root: Path) -> tuple[int, int]:
    """The blood cells with three test pictures and K-shot sets that are drawn here."""
    source = shared("byo_bccd").resolve()
    (root / "bccd" / "annotations").mkdir(parents=True)
    (root / "bccd" / "images").symlink_to(source / "images")
    train = "annotations/instances_trainval.json"
    (root / "bccd" / train).symlink_to(source / train)
    config = CONFIGS / "own" / "bccd_base.yaml"
    flags = [f"--datasets_root={root}", "--shots", "5", "10", "--seeds", "2"]
    assert draw_kshot.main([f"--config_path={config}", *flags]) == 0
    test = "annotations/instances_test.json"
    return cut(source / test, root / "bccd" / test, 3, [2])


@dataclass(frozen=True)
class Case:
    """A data set, what is done with it, and what has to come out.

    Attributes:
        data: makes the tree; returns the numbers of test pictures and of objects to be judged.
        config: below configs/.
        dataset: for surgery; a configuration's path below configs/, or a built-in name.
        method: of surgery.
        result: its file.
        sets: the base set, the K-shot set, the test set.
        classes: how many base ones, and how many of the test set.
        novel: names.
        shots: K.
        protocol: a part of the text.
    """

    data: Callable[[Path], tuple[int, int]]
    config: str
    dataset: str
    method: str
    result: str
    sets: tuple[str, str, str]
    classes: tuple[int, int]
    novel: tuple[str, ...]
    shots: int
    protocol: str


CASES = {
    "coco": Case(
        coco_data,
        "coco/defrcn_fsod_r101_novel_2shot.yaml",
        "coco",
        "remove",
        "model_reset_remove.ckpt",
        ("coco14_trainval_base", "coco14_trainval_novel_2shot_seed0", "coco14_test_novel"),
        (60, 20),
        COCO_NOVEL_CLASSES,
        2,
        "COCO box AP in percent, IoU 0.50:0.95, at most 100 detections an image and class; "
        "fsod (20 novel classes only)",
    ),
    "voc": Case(
        voc_data,
        "voc/defrcn_gfsod_r101_novel1_2shot.yaml",
        "voc",
        "randinit",
        "model_reset_surgery.ckpt",
        ("voc_2012_trainval_base1", "voc_2007_trainval_all1_2shot_seed0", "voc_2007_test_all1"),
        (15, 20),
        VOC_NOVEL_CLASSES[1],
        2,
        "VOC 2007 box AP in percent (11 points), IoU 0.50:0.95, difficult objects ignored; "
        "gfsod (15 base and 5 novel classes)",
    ),
    "blood": Case(
        blood_data,
        "own/bccd_fsod_10shot.yaml",
        "own/bccd_base.yaml",
        "remove",
        "model_reset_remove.ckpt",
        ("bccd_train_base", "bccd_train_novel_10shot_seed0", "bccd_test_novel"),
        (2, 1),
        ("WBC",),
        10,
        "COCO box AP in percent, IoU 0.50:0.95, at most 100 detections an image and class; "
        "fsod (1 novel class only)",
    ),
}


@dataclass(frozen=True)
class Run:
    """What a case left behind; rows are COCO's result rows."""

    case: Case
    folder: Path
    flags: list[str]
    counts: tuple[int, int]
    plain: list[dict]
    calibrated: list[dict]
    limits: tuple[float, float]

    @property
    def config(self) -> Path:
        return CONFIGS / self.case.config


def base_detector(case: Case, config: Path, flags: list[str], folder: Path) -> None:
    """A checkpoint of base training: random weights, the base classes' names."""
    changes = [f"--data.train=[{case.sets[0]}]", "--model.num_classes=null"]
    settings = load_config(config, [*flags, *changes])
    info, _ = read_sets(settings, settings.data.train)
    assert len(info.class_names) == case.classes[0]
    net = assembly.make_detector(settings, info.class_names)
    initialise(net, 5)
    notes = {"class_names": info.class_names}
    save_checkpoint(folder / "ckpt_0", 1, parameters_of(net), {}, notes)


def read(path: Path):
    return json.loads(path.read_text())


@pytest.fixture(
    scope="module", params=["coco", "voc", pytest.param("blood", marks=pytest.mark.slow)]
)
def run(request, tmp_path_factory) -> Run:
    """Surgery, fine-tuning with evaluation at its end, and evaluation with calibration."""
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    root = folder / "datasets"
    counts = case.data(root)
    config, base = CONFIGS / case.config, folder / "base"
    places = [
        f"--datasets_root={root}",
        f"--train_mindrecord_dir={folder / 'train'}",
        f"--test_mindrecord_dir={folder / 'test'}",
        f"--save_checkpoint_path={folder / 'run'}",
        f"--model_pretrained_path={base / case.result}",
        f"--pcb_modelpath={folder / 'encoder.ckpt'}",
    ]
    flags = [*places, *SMALL]
    write_ckpt(folder / "encoder.ckpt", encoder_parameters())
    base_detector(case, config, flags, base)
    surgery = [f"--dataset={case.dataset}", f"--method={case.method}", f"--src-path={base}"]
    if case.dataset.endswith(".yaml"):
        surgery[0] = f"--dataset={CONFIGS / case.dataset}"
        surgery.append(places[0])
    assert model_surgery.main(surgery) == 0
    given = [f"--config_path={config}", *flags]
    assert train_program.main([*given, "--test.pcb.enable=false"]) == 0
    plain = read(folder / "run" / f"eval_{STEPS}" / "detections.json")
    # A third of the scores is above the limits, a third below, and none is equal to one.
    scores = np.unique([row["score"] for row in plain])
    lower, upper = (float(scores[i : i + 2].mean()) for i in np.array([1, 2]) * len(scores) // 3)
    more = [f"--test.pcb.lower={lower}", f"--test.pcb.upper={upper}"]
    more += [f"--eval_checkpoint_path={folder / 'run'}", f"--result_path={folder / 'results'}"]
    assert eval_program.main([*given, *more]) == 0
    calibrated = read(folder / "results" / "detections.json")
    return Run(case, folder, flags, counts, plain, calibrated, (lower, upper))


def test_what_is_judged_and_how(run):
    before = read(run.folder / "run" / f"eval_{STEPS}" / "metrics.json")
    after = read(run.folder / "results" / "metrics.json")
    for figures, calibrated in ((before, False), (after, True)):
        assert list(figures) == [run.case.sets[2]]
        (found,) = figures.values()
        assert (found["num_images"], found["num_objects"]) == run.counts
        assert found["num_objects"] > 0
        assert found["protocol"].startswith(run.case.protocol)
        assert found["pcb"] is calibrated
        assert len(found["per_class_AP"]) == run.case.classes[1]
        assert set(run.case.novel) <= set(found["per_class_AP"])
        assert 0 <= found["results"]["nAP50"] <= 100
        assert ("bAP" in found["results"]) == (run.case.method == "randinit")
    assert after[run.case.sets[2]]["num_detections"] == len(run.calibrated)


def test_what_fine_tuning_moves(run):
    saved = load_training_checkpoint(run.folder / "run" / "ckpt_0")
    assert saved.step == STEPS
    assert len(saved.class_names) == run.case.classes[1]
    start = load_weights(run.folder / "base" / run.case.result)
    new = set(saved.params) - set(start)
    removed = {name for name in saved.params if name.startswith(PREDICTOR)}
    assert new == (removed if run.case.method == "remove" else set())
    if new:  # the layers that started anew: as training draws them
        config = load_config(run.config, run.flags)
        net = assembly.make_detector(config, saved.class_names)
        initialise(net, config.seed)
        start.update({name: parameters_of(net)[name] for name in new})
    same = {name for name, array in start.items() if np.array_equal(array, saved.params[name])}
    assert same == {name for name in saved.params if FROZEN.match(name)}
    assert all(np.isfinite(array).all() for array in saved.params.values())
    lines = (run.folder / "run" / "loss_0.log").read_text().splitlines()
    assert len(lines) == STEPS


def test_the_support_set_is_what_was_drawn_and_what_calibrates(run):
    written = read_support_set(run.folder / "run" / FILE_NAME)
    assert written.dataset == run.case.sets[1]
    boxes = Counter(
        written.class_names[entry.category_id]
        for record in written.records
        for entry in record.annotations
    )
    trained = load_training_checkpoint(run.folder / "run" / "ckpt_0").class_names
    assert written.class_names == trained
    assert boxes == dict.fromkeys(trained, run.case.shots)
    config = load_config(run.config, run.flags)
    support = read_support(config)
    assert support.to_json() == written.to_json()
    info, _ = read_sets(config, config.data.test)
    calibrator = make_calibrator(config, info, run.folder / "run")
    expected = [run.case.shots if name in run.case.novel else 0 for name in info.class_names]
    assert calibrator.prototypes.counts.tolist() == expected
    another = load_config(run.config, [*run.flags, "--shot_seed=1"])
    assert read_support(another).sha256 != written.sha256
    with pytest.raises(InputError, match=r"seed1.* is not the one that .* was trained on.*seed0"):
        make_calibrator(another, info, run.folder / "run")


def test_calibration_changes_novel_scores_within_the_limits_only(run):
    config = load_config(run.config, run.flags)
    info, _ = read_sets(config, config.data.test)
    novel = {
        number
        for number, name in zip(info.category_ids, info.class_names)
        if name in run.case.novel
    }
    lower, upper = run.limits
    assert len(run.plain) == len(run.calibrated) > 12
    changed = Counter()
    for before, after in zip(run.plain, run.calibrated):
        for key in ("image_id", "category_id", "bbox"):
            assert before[key] == after[key]
        inside = lower < before["score"] <= upper and before["category_id"] in novel
        assert (before["score"] != after["score"]) == inside, (before, after)
        # 0.5 * score + 0.5 * cosine
        assert not inside or -1.001 <= 2 * after["score"] - before["score"] <= 1.001
        changed[inside] += 1
    assert changed[True] >= 3 and changed[False] >= 3


def test_the_tutorial_shows_what_is_there():
    """Its configuration is the file's own text; what its commands name exists."""
    text = (CONFIGS.parent / "docs" / "own_data.md").read_text(encoding="utf-8")
    shown, *_ = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert shown in (CONFIGS / "own" / "bccd_base.yaml").read_text(encoding="utf-8")
    named = re.findall(r"(?:--config_path|--dataset|--overlay)=([\w/]+\.yaml)", text)
    named += re.findall(r"python (\w+\.py)", text)
    for module in re.findall(r"python -m (src[.\w]+)", text):
        path = module.replace(".", "/")
        whole = (CONFIGS.parent / path / "__main__.py").exists()  # `python -m` of a package
        named.append(f"{path}/__main__.py" if whole else f"{path}.py")
    named += [f"docs/{link}" for link in re.findall(r"\]\((?!http)([^)#]+)\)", text)]
    assert len(named) > 12
    missing = [name for name in named if not (CONFIGS.parent / name).exists()]
    assert not missing
