# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
r"""Make the benchmark's data of NEU-DET in YOLO format, as docs/results.md says where to get it.

    python -m benchmarks.real_photographs.prepare_data --yolo FOLDER --output FOLDER_OF_NEU_DET

FOLDER holds train/{images,labels} and test/{images,labels}; data.yaml is in it or beside it. The
output has all pictures, byte for byte, in `images`, and COCO files in `annotations`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.dataset import load_dataset
from src.defrcn.data_types import DatasetInfo, Record
from src.evaluation.detection_rows import ground_truth_from_records
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.model_utils.errors import InputError
from src.util import pipe_table, run_main, set_up_logging, write_json

FLAGS: Flags = {
    "--yolo": dict(type=Path, required=True, help="NEU-DET in YOLO format"),
    "--output": dict(type=Path, required=True, help="folder to be made"),
}
CLASSES = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
# Part as the data set's names have it, name of its file, and before the first of its ids: of
# pictures and of boxes. K-shot draws and the order of training go by ids, so these decide figures.
PARTS = (("train", "trainval", 0, 0), ("test", "test", 10_000, 100_000))
DIGITS = 4  # of a pixel; differences of shares leave rounding errors below that


def natural(record: Record) -> list[int | str]:
    """Key that puts `crazing_2` before `crazing_10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", _name(record))]


def _name(record: Record) -> str:
    return Path(record.file_name).name


def read_parts(folder: Path) -> tuple[DatasetInfo, dict[str, list[Record]]]:
    """The data set's classes, and the records of both parts in the order of their numbers.

    Args:
        folder: with `train` and `test`; data.yaml is in it or in the folder that it is in.

    Raises:
        InputError: something is missing or wrong, or a name is in both parts.
    """
    folder = folder.absolute()
    places = [folder / "data.yaml", folder.parent / "data.yaml"]
    names = next((path for path in places if path.is_file()), None)
    wanted = {name: folder / name / "images" for name, *_ in PARTS}
    missing = [path for path in wanted.values() if not path.is_dir()]
    if names is None or missing:
        what = missing[0] if missing else f"{places[0]} or {places[1]}"
        raise InputError(f"--yolo: {what} is missing; name the folder NEU-DET of the YOLO copy")
    sources = {
        name: CustomSource(annotations=str(names), images=str(path))
        for name, path in wanted.items()
    }
    custom = {"neu": CustomDataset(format="yolo", **sources)}
    parts: dict[str, list[Record]] = {}
    for name in wanted:
        info, records = load_dataset([f"neu_{name}_all"], datasets_root=folder, custom=custom)
        parts[name] = sorted(records, key=natural)
    if info.class_names != CLASSES:
        raise InputError(f"{names}: names must be {', '.join(CLASSES)}, in this order")
    counts = Counter(_name(record) for records in parts.values() for record in records)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise InputError(f"--yolo: {folder} has {twice[0]} more than once; rename or remove one")
    return info, parts


def coco_content(
    info: DatasetInfo, records: Sequence[Record], images_before: int, boxes_before: int
) -> dict[str, Any]:
    """Records as the content of a COCO file; ids follow the numbers given, in order."""
    content = ground_truth_from_records(records, info.class_names, info.category_ids)
    numbers = {}
    for number, (image, record) in enumerate(zip(content["images"], records), images_before + 1):
        numbers[record.image_id] = number
        image.update(id=number, file_name=_name(record))
    for number, entry in enumerate(content["annotations"], boxes_before + 1):
        bbox = [round(side, DIGITS) for side in entry["bbox"]]
        area = round(bbox[2] * bbox[3], DIGITS)
        entry.update(id=number, image_id=numbers[entry["image_id"]], bbox=bbox, area=area)
        del entry["difficult"]  # PASCAL VOC's
    return content


def write_all(output: Path, info: DatasetInfo, parts: dict[str, list[Record]]) -> dict[str, Any]:
    """Write pictures and annotations, all or nothing.

    Returns:
        What the COCO files hold, by part.

    Raises:
        InputError: something is in the folder already.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output: {output} is there already; remove it, or name another folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    contents = {}
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".") as place:
        whole = Path(place) / "whole"
        (whole / "images").mkdir(parents=True)
        for name, file, *before in PARTS:
            contents[name] = coco_content(info, parts[name], *before)
            write_json(
                whole / "annotations" / f"instances_{file}.json", contents[name], indent=None
            )
            for record in parts[name]:
                shutil.copyfile(record.file_name, whole / "images" / _name(record))
        os.replace(whole, output)
    return contents


def table(contents: dict[str, Any]) -> str:
    """Pictures, boxes, and boxes of each class, a line a part."""
    rows = []
    for name, content in contents.items():
        counts = Counter(entry["category_id"] for entry in content["annotations"])
        each = [counts[category["id"]] for category in content["categories"]]
        rows.append([name, len(content["images"]), sum(each), *each])
    heads = ["part", "pictures", "boxes", *CLASSES]
    return pipe_table(rows, heads, ["left", *["right"] * (len(heads) - 1)])


def main(argv: Sequence[str] | None = None) -> int:
    """Read, write, and print what there is."""
    parser = command_parser(FLAGS, program="prepare_data", description=__doc__)
    options: argparse.Namespace = parser.parse_args(argv)
    set_up_logging()
    contents = write_all(options.output, *read_parts(options.yolo))
    sys.stdout.write(table(contents) + "\n")
    return 0


if __name__ == "__main__":
    run_main(main)
