# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""K-shot files of one's own data: nested, seeded, whole pictures where possible, and refusals."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from src.dataset import load_dataset
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.model_utils.errors import InputError
from src.tools import draw_kshot
from src.tools.draw_kshot import nested_counts
from tests.helpers.data_helpers import coco_content, shared

SHOTS = (1, 2, 3, 5, 10)


def content(counts: dict[str, list[int]]) -> dict:
    """An annotation file; per class the number of its boxes in each picture."""
    pictures = max(map(len, counts.values()))
    images = [
        {"id": 100 - n, "file_name": f"{n}.png", "height": 60, "width": 80} for n in range(pictures)
    ]
    annotations = []
    for category, numbers in enumerate(counts.values(), start=1):
        for image, number in zip(images, numbers):
            for place in range(number):
                box = [place, category, 10 + place, 12]
                entry = {"image_id": image["id"], "category_id": category, "bbox": box}
                annotations.append({"id": len(annotations), "iscrowd": 0, **entry})
    categories = [{"id": n, "name": name} for n, name in enumerate(counts, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(root: Path, value: dict) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "train.json").write_text(json.dumps(value))
    return root / "train.json"


def run(root: Path, *flags: str, value: dict | None = None) -> Path:
    if value is not None:
        write(root, value)
    flags = (f"--annotations={root / 'train.json'}", f"--output={root / 'split'}", *flags)
    assert draw_kshot.main(flags) == 0
    return root / "split"


def drawn(folder: Path, seed: int, shot: int, name: str) -> dict:
    path = folder / f"seed{seed}" / f"full_box_{shot}shot_{name}_trainval.json"
    return json.loads(path.read_text())


def ids(folder: Path, seed: int, shot: int, name: str) -> set[int]:
    found = drawn(folder, seed, shot, name)["annotations"]
    assert len({entry["id"] for entry in found}) == len(found)
    return {entry["id"] for entry in found}


PLENTY = {"cat": [1, 2, 1, 3, 1, 2, 5, 1], "dog": [0, 4, 4, 4, 4], "traffic light": [2] * 8}


def test_files_are_nested_and_exact(tmp_path):
    folder = run(tmp_path, "--seeds", "3", "--seed", "4", value=PLENTY and content(PLENTY))
    assert sorted(path.name for path in folder.iterdir()) == ["seed4", "seed5", "seed6"]
    source = json.loads((tmp_path / "train.json").read_text())
    for seed in (4, 5, 6):
        for category, name in enumerate(PLENTY, start=1):
            before: set[int] = set()
            for shot in SHOTS:
                part = drawn(folder, seed, shot, name)
                found = ids(folder, seed, shot, name)
                assert len(found) == shot and before < found
                before = found
                assert all(entry in source["annotations"] for entry in part["annotations"])
                assert {entry["category_id"] for entry in part["annotations"]} == {category}
                listed = [image["id"] for image in part["images"]]
                assert listed == sorted({entry["image_id"] for entry in part["annotations"]})
                assert all(image in source["images"] for image in part["images"])
                assert part["categories"] == source["categories"]


def test_draws_depend_on_seed_and_class_only(tmp_path):
    value = content({"a": [1] * 40, "b": [1] * 40})
    first = run(tmp_path / "1", "--seeds=2", value=value)
    again = run(tmp_path / "2", "--seeds=1", "--seed=1", "--shots", "5", "3", value=value)
    for shot in (3, 5):
        for name in ("a", "b"):
            assert drawn(first, 1, shot, name) == drawn(again, 1, shot, name)
    assert not (again / "seed1" / "full_box_1shot_a_trainval.json").exists()
    sets = [
        ids(first, 0, 10, "a"),
        ids(first, 1, 10, "a"),
        {i - 40 for i in ids(first, 0, 10, "b")},
    ]
    assert sets[0] != sets[1] and sets[0] != sets[2]
    run(tmp_path / "1", "--seeds=3")  # the same draw, and one more, is no conflict


def test_every_picture_can_be_drawn():
    groups = {n: [{"id": n}] for n in range(8)}
    seen = Counter(
        entry["id"]
        for seed in range(400)
        for entry in draw_kshot.draw_class("a", groups, (1,), seed).entries(1)
    )
    # 50 expected each; 20 and 80 are more than four standard deviations away
    assert set(seen) == set(range(8)) and all(20 < count < 80 for count in seen.values())


@pytest.mark.parametrize(
    ("counts", "shots", "expected"),
    [
        # whole pictures, in their order
        ({7: 1, 8: 1, 9: 2}, (1, 2, 4), {1: {7: 1}, 2: {7: 1, 8: 1}, 4: {7: 1, 8: 1, 9: 2}}),
        # a picture that does not fit is passed over
        ({7: 3, 8: 1, 9: 2}, (1, 3), {1: {8: 1}, 3: {8: 1, 9: 2}}),
        # none fits: the smallest is cut, then completed
        ({7: 5, 8: 3, 9: 4}, (1, 2, 3, 5), {1: {8: 1}, 2: {8: 2}, 3: {8: 3}, 5: {8: 3, 9: 2}}),
        # the cut picture stays cut as long as it has too many
        ({7: 9}, (1, 2, 5, 9), {1: {7: 1}, 2: {7: 2}, 5: {7: 5}, 9: {7: 9}}),
        # a cut picture is completed before another is taken
        ({7: 2, 8: 4}, (1, 2, 3), {1: {7: 1}, 2: {7: 2}, 3: {7: 2, 8: 1}}),
        ({}, (), {}),
    ],
)
def test_pictures_by_hand(counts, shots, expected):
    assert nested_counts(counts, shots) == expected


def test_pictures_of_random_counts():
    rng = np.random.default_rng(0)
    for _ in range(300):
        counts = dict(enumerate(rng.integers(1, 7, size=rng.integers(5, 20)).tolist()))
        if sum(counts.values()) < 10:
            continue
        before: dict[int, int] = {}
        for shot, taken in nested_counts(counts, SHOTS).items():
            assert sum(taken.values()) == shot
            assert all(0 < n <= counts[picture] for picture, n in taken.items())
            assert all(taken[picture] >= n for picture, n in before.items())
            cut = [picture for picture, n in taken.items() if n < counts[picture]]
            assert len(cut) <= 1
            before = taken


def test_crowds_and_empty_boxes_are_not_drawn(tmp_path):
    value = content({"a": [1, 1, 1, 1, 1, 1]})
    value["annotations"][0]["iscrowd"] = 1
    value["annotations"][1]["bbox"] = [3, 3, 0, 5]
    value["annotations"][2]["bbox"] = [80, 3, 9, 5]  # outside
    value["annotations"][3]["image_id"] = 4711
    value["annotations"].append(
        {**value["annotations"][0], "id": 99, "iscrowd": 0, "image_id": [1]}
    )
    folder = run(tmp_path, "--shots", "2", "--seeds", "5", value=value)
    assert all(ids(folder, seed, 2, "a") == {4, 5} for seed in range(5))
    with pytest.raises(InputError, match="3 shots need 3 boxes of each class, but a has 2;"):
        run(tmp_path, "--shots", "3")


def test_table(tmp_path, capsys):
    run(tmp_path, "--shots=1", "--seed=3", value=content({"a": [2, 2], "b": [1, 0]}))
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4]]
    assert cells[0] == ["set", "class", "boxes", "pictures", "1-shot pictures"]
    assert cells[2:] == [["seed3", "a", "4", "2", "1 (1 cut)"], ["seed3", "b", "1", "1", "1"]]
    text = "\n".join(lines)
    assert "trained as background" in text or "sees those boxes as background" in text
    assert "NAME_train_{novel,all}_{1}shot_seed{S}" in text


def test_too_few_boxes_names_class_has_and_needs(tmp_path):
    write(tmp_path, content({"a": [9, 9], "b": [1, 2], "c": []}))
    words = r"train\.json: 10 shots need 10 boxes of each class, but b has 3, c has 0; ask"
    with pytest.raises(InputError, match=words):
        run(tmp_path)
    assert not (tmp_path / "split").exists()


CONFIG = """
datasets_root: {root}
data:
  custom:
    mine:
      format: coco
      train: {{annotations: train.json, images: images}}
      test: {{annotations: train.json, images: images}}
      novel_classes: [dog]
      few_shot: shots
"""


def test_by_configuration_and_back_through_the_loader(tmp_path, capsys):
    write(tmp_path, content(PLENTY))
    (tmp_path / "c.yaml").write_text(CONFIG.format(root=tmp_path))
    flags = [f"--config_path={tmp_path / 'c.yaml'}", "--shots", "2,5", "--seeds=2"]
    assert draw_kshot.main(flags) == 0
    assert "data.custom.mine.few_shot" in capsys.readouterr().out
    source = CustomSource(annotations="train.json", images="images")
    custom = {
        "mine": CustomDataset(
            format="coco",
            train=source,
            test=source,
            novel_classes=("dog",),
            classes=(),
            few_shot="shots",
        )
    }
    for seed in (0, 1):
        for shot in (2, 5):
            name = f"mine_train_all_{shot}shot_seed{seed}"
            info, records = load_dataset([name], datasets_root=tmp_path, custom=custom)
            counts = Counter(entry.category_id for r in records for entry in r.annotations)
            assert counts == {0: shot, 1: shot, 2: shot} and len(info.class_names) == 3
    assert draw_kshot.main([*flags, "--data.custom.mine.few_shot=other", "--dataset=mine"]) == 0
    assert (tmp_path / "other" / "seed1").is_dir()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "give either --config_path or --annotations"),
        (["--annotations=a", "--config_path=b"], "give either"),
        (["--annotations={root}/train.json"], "--annotations needs --output"),
        (["--annotations={root}/no.json", "--output={root}/o"], r"no\.json does not exist"),
        (
            ["--annotations={root}/train.json", "--output={root}/o", "--x=1"],
            "'--x=1' is not a flag",
        ),
        (["--annotations=a", "--output=b", "--shots", "0", "5"], "not within 1 to 1000"),
        (["--annotations=a", "--output=b", "--seeds", "0"], "--seeds must be 1 or more"),
        (["--config_path={root}/c.yaml", "--dataset=mien"], "did you mean 'mine'"),
        (["--config_path={root}/c.yaml", '--data.custom.mine.few_shot=""'], "name a folder with"),
        (
            ["--config_path={root}/c.yaml", "--data.custom.mine.format=voc"],
            r"folder of annotations .*train\.json does not exist",
        ),
        (["--config_path={root}/none.yaml"], r"none\.yaml: data\.custom is empty; K-shot files"),
        (["--config_path={root}/c.yaml", "--sed=1"], "--sed: unknown key"),
    ],
)
def test_refusals(tmp_path, flags, words):
    write(tmp_path, coco_content())
    (tmp_path / "c.yaml").write_text(CONFIG.format(root=tmp_path).replace("dog", "star"))
    (tmp_path / "none.yaml").write_text("seed: 1\n")
    with pytest.raises(InputError, match=words):
        draw_kshot.main([flag.format(root=tmp_path) for flag in flags])


def test_another_draw_is_not_overwritten(tmp_path):
    folder = run(tmp_path, "--shots=2", value=content({"a": [1] * 9}))
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    write(tmp_path, content({"a": [1] * 50}))
    with pytest.raises(InputError, match="holds another draw; name another folder"):
        run(tmp_path, "--shots=2")
    assert before == {path: path.read_bytes() for path in folder.rglob("*.json")}


def test_class_names_that_are_no_file_names(tmp_path):
    with pytest.raises(InputError, match="'a/b' cannot be part of a K-shot file's name"):
        run(tmp_path, "--shots=1", value=content({"a/b": [1]}))


def test_blood_cells(tmp_path):
    source = shared("byo_bccd") / "annotations" / "instances_trainval.json"
    assert draw_kshot.main([f"--annotations={source}", f"--output={tmp_path}", "--seeds=2"]) == 0
    assert len(list(tmp_path.rglob("*.json"))) == 2 * 5 * 3
    # no picture has fewer than three red cells, so one is cut; white cells come whole
    assert len(drawn(tmp_path, 0, 1, "RBC")["images"]) == 1
    for seed in (0, 1):
        assert len(ids(tmp_path, seed, 10, "RBC")) == 10
        assert ids(tmp_path, seed, 5, "WBC") < ids(tmp_path, seed, 10, "WBC")
