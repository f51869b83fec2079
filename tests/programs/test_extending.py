# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""docs/extending.md: its steps for a data format, done as they stand, in a copy of the project."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from src.model_utils.paths import project_folder
from tests.helpers.data_helpers import write_image

ROOT = project_folder()
COLUMNS = ("file_name", "height", "width", "class", "x1", "y1", "x2", "y2")
# Both formats' classes and records of a set, and what model surgery would make of the classes.
COMPARE = """
import sys
from src.assembly.data import read_sets
from src.model_surgery import configured_classes
from src.model_utils.config import load_config
config = load_config(sys.argv[1])
for split in ("all", "base", "novel"):
    info, records = read_sets(config, (f"{sys.argv[2]}_train_{split}",))
    print(info.class_names, info.base_classes, info.novel_classes, len(records))
    for record in sorted(records, key=lambda record: record.file_name):
        boxes = []
        for one in record.annotations:
            x, y, third, fourth = one.bbox
            right, bottom = (x + third, y + fourth) if one.bbox_mode else (third, fourth)
            box = tuple(round(value, 3) for value in (x, y, right, bottom))
            boxes.append((one.category_id, *box))
        print(record.file_name, record.height, record.width, sorted(boxes))
print(configured_classes(config, "test", ()))
"""


def blocks(section: str, kind: str) -> list[str]:
    """The code blocks of one kind in a section of the page."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def write_coco(folder, part: str) -> dict:
    """Eight pictures, two or three objects each, of three classes; ids in another order."""
    names = {7: "ring", 3: "disc", 5: "cross"}
    images, objects = [], []
    for number in range(1, 9):
        name = f"{number:03d}.png"
        write_image(folder / "images" / part / name, 40, 60, seed=number)
        images.append({"id": number, "file_name": name, "height": 40, "width": 60})
        for index in range(2 + number % 2):
            box = [2.5 + index, 3.25, 10.0 + number, 8.5]
            one = {"id": 10 * number + index, "image_id": number, "bbox": box, "iscrowd": 0}
            kind = (7, 3, 5)[(number + index) % 3]
            objects.append(one | {"category_id": kind, "area": box[2] * box[3]})
    table = {"images": images, "annotations": objects}
    table["categories"] = [{"id": number, "name": name} for number, name in names.items()]
    path = folder / "annotations" / f"{part}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(table), encoding="utf-8")
    return table


def write_csv(table: dict, path) -> None:
    """The same data as a COCO table, one line an object."""
    images = {entry["id"]: entry for entry in table["images"]}
    names = {entry["id"]: entry["name"] for entry in table["categories"]}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for one in table["annotations"]:
            image, (x, y, width, height) = images[one["image_id"]], one["bbox"]
            values = (image["file_name"], image["height"], image["width"])
            box = (x, y, x + width, y + height)
            writer.writerow(dict(zip(COLUMNS, (*values, names[one["category_id"]], *box))))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the project with the page's module and changes."""
    place = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", place / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", place)
    shutil.copytree(ROOT / "configs", place / "configs")
    (module,) = blocks("A data format", "python")
    (place / "src" / "defrcn" / "meta_csv.py").write_text(module, encoding="utf-8")
    (changes,) = blocks("A data format", "diff")
    for name, lines in re.findall(r"^--- (\S+)\n(.*?)(?=^--- |\Z)", changes, re.M | re.DOTALL):
        content = (place / name).read_text(encoding="utf-8")
        pairs = re.findall(r"^-(.*)\n\+(.*)$", lines, re.MULTILINE)
        assert pairs
        for before, after in pairs:
            assert content.count(f"{before}\n") == 1, before
            content = content.replace(before, after)
        (place / name).write_text(content, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def data(copy):
    """Pictures with annotations in both formats, and a configuration of each."""
    root = copy / "data"
    demo = (ROOT / "configs" / "demo" / "shapes_base.yaml").read_text(encoding="utf-8")
    settings = yaml.safe_load(demo) | {"base": str(ROOT / "configs" / "defrcn_base.yaml")}
    settings |= {
        "datasets_root": str(root),
        "save_checkpoint_path": str(copy / "run"),
        "train_mindrecord_dir": str(copy / "mindrecord"),
        "test_mindrecord_dir": str(copy / "mindrecord_test"),
    }
    own = settings["data"]["custom"]["shapes"]
    own["novel_classes"] = ["cross"]
    as_csv = json.loads(json.dumps(own)) | {"format": "csv"}
    for part in ("train", "test"):
        path = root / own[part]["annotations"]
        write_csv(write_coco(root / "shapes", part), path.with_suffix(".csv"))
        as_csv[part]["annotations"] = str(path.with_suffix(".csv").relative_to(root))
    settings["data"]["custom"]["lines"] = as_csv
    paths = {}
    for name in ("shapes", "lines"):
        settings["data"]["train"] = [f"{name}_train_base"]
        paths[name] = copy / f"{name}.yaml"
        paths[name].write_text(yaml.safe_dump(settings), encoding="utf-8")
    return paths


def run(copy, *words) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=copy, capture_output=True, text=True
    )


def test_the_new_format_reads_what_coco_reads(copy, data):
    found = {name: run(copy, "-c", COMPARE, path, name) for name, path in data.items()}
    for result in found.values():
        assert result.returncode == 0, result.stderr
    lines = {name: result.stdout.splitlines() for name, result in found.items()}
    assert len(lines["lines"]) == len(lines["shapes"]) == 3 * (1 + 8) + 1
    # Classes in the order of the alphabet there, of their ids here.
    assert lines["shapes"][0].startswith("('disc', 'cross', 'ring')")
    assert lines["lines"][0].startswith("('cross', 'disc', 'ring')")
    assert boxes_of(lines["lines"]) == boxes_of(lines["shapes"])


def boxes_of(lines: list[str]) -> list[tuple]:
    """For each picture its size and the boxes by name of the class."""
    found, names = [], ()
    for line in lines[:-1]:
        if line.startswith("("):
            names = tuple(re.findall(r"'([^']+)'", line.split(")")[0]))
            found.append(tuple(sorted(names)))
            continue
        head, _, boxes = line.partition(" [")
        parsed = re.findall(r"\((\d+), ([^)]*)\)", boxes)
        found.append((head, sorted((names[int(index)], box) for index, box in parsed)))
    return found


def test_a_line_that_is_wrong_is_named(copy, data):
    path = copy / "data" / "shapes" / "annotations" / "train.csv"
    before = path.read_text(encoding="utf-8")
    lines = before.splitlines()
    lines[3] = lines[3].rpartition(",")[0] + ",wide"
    try:
        path.write_text("\n".join(lines), encoding="utf-8")
        result = run(copy, "-c", COMPARE, data["lines"], "lines")
    finally:
        path.write_text(before, encoding="utf-8")
    assert result.returncode == 1
    assert "train.csv, line 4: ValueError" in result.stderr


def test_a_training_starts_from_it(copy, data):
    """The program itself: MindRecord is written and opened; no step is needed to see that."""
    result = run(
        copy, "train.py", f"--config_path={data['lines']}", "--model.num_classes=99",
    )  # fmt: skip
    assert result.returncode == 1
    assert "the data set has 2 classes" in result.stdout + result.stderr
