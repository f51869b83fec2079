# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Draw K-shot files for one's own data, in TFA's layout.

    python -m src.tools.draw_kshot --config_path=configs/mine.yaml --shots 1 2 3 5 10 --seeds 10
    python -m src.tools.draw_kshot --annotations=mine/train.json --output=mine/split --shots 5

Set number S, of which there are `--seeds`, from number `--seed` on, goes to
OUTPUT/seed{S}/full_box_{K}shot_{class}_trainval.json. With `data.custom.NAME.few_shot: OUTPUT` the
sets are called NAME_train_{novel,all}_{K}shot_seed{S}.

A draw depends on the annotations, on S and on the class's name. Sets are nested: the boxes of one
shot are among those of two. As in TFA whole pictures are taken where that is possible, with all
their boxes of the class, because a box that is left out would be trained as background. The files
are in COCO's format whatever the data set's is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.data.transforms import clip_boxes, non_empty, to_xyxy
from src.dataset import READERS
from src.defrcn.built_datacategory import resolve_dataset
from src.defrcn.data_types import DatasetInfo, Record
from src.defrcn.few_shot import file_name
from src.defrcn.meta_coco import read_json
from src.evaluation.detection_rows import ground_truth_from_records
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.config import Config, load_config
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.model_utils.errors import InputError
from src.util import numbers, pipe_table, run_main, set_up_logging, suggestion, write_text

Json = dict[str, Any]
# Steps on the way up, whatever was asked for: 5 shots are the same boxes with and without 10.
LADDER = (1, 2, 3, 5, 10, 30)
MAX_SHOTS = 1000
FLAGS: Flags = {
    "--config_path": dict(default="", help="YAML file with data.custom"),
    "--dataset": dict(default="", help="which of data.custom, if there are several"),
    "--annotations": dict(default="", help="COCO JSON file, instead of the YAML"),
    "--output": dict(default="", help="folder; default: the data set's few_shot"),
    "--shots": dict(
        nargs="+", default=["1,2,3,5,10"], metavar="K", help="such as 1 2 5, 1,2,5 or 1-5"
    ),
    "--seeds": dict(type=int, default=1, metavar="N", help="how many sets (1)"),
    "--seed": dict(type=int, default=0, metavar="S", help="number of the first (0)"),
}


@dataclass(frozen=True)
class ClassDraw:
    """What was drawn of one class.

    Attributes:
        name: the class.
        groups: all usable boxes of each picture, as entries of the annotation file.
        taken: for each K the number of boxes of each picture, the first ones of its group.
    """

    name: str
    groups: Mapping[int | str, Sequence[Json]]
    taken: Mapping[int, Mapping[int | str, int]]

    def entries(self, shot: int) -> list[Json]:
        """The K boxes."""
        return [e for number, n in self.taken[shot].items() for e in self.groups[number][:n]]

    def cell(self, shot: int) -> str:
        """For the table: number of pictures, and how many of them have boxes left out."""
        taken = self.taken[shot]
        cut = sum(count < len(self.groups[number]) for number, count in taken.items())
        return f"{len(taken)} ({cut} cut)" if cut else str(len(taken))


def read_content(info: DatasetInfo) -> tuple[Json, list[Record]]:
    """A data set as an annotation file in COCO's format, and the records of all its pictures.

    Checks the whole set.
    """
    records = READERS[info.format].load_records(info)
    if info.format == "coco":
        return read_json(info.annotations), records
    content = ground_truth_from_records(records, info.class_names, info.category_ids)
    for image, record in zip(content["images"], records):
        # a picture's id in YOLO format is its name below the images
        in_folder = info.format == "voc"
        name = os.path.relpath(record.file_name, info.image_root) if in_folder else image["id"]
        image["file_name"] = Path(name).as_posix()
    for number, entry in enumerate(content["annotations"], start=1):
        entry["id"] = number
    return content, records


def usable_groups(
    content: Json, records: Sequence[Record], info: DatasetInfo
) -> dict[str, dict[int | str, list[Json]]]:
    """Boxes that may be drawn: class -> picture -> entries of the annotation file.

    Left out are crowds, boxes without area inside their picture, and boxes of unlisted pictures.
    """
    images: dict[int | str, Record] = {record.image_id: record for record in records}
    names = dict(zip(info.category_ids, info.class_names))
    groups: dict[str, dict[int | str, list[Json]]] = {name: {} for name in info.class_names}
    for entry in content["annotations"]:
        number = entry.get("image_id")
        image = images.get(number) if isinstance(number, (int, str)) else None
        if image is None or entry.get("iscrowd", 0):
            continue
        box = np.array([to_xyxy(tuple(entry["bbox"]), 1)], dtype=np.float64)
        if non_empty(clip_boxes(box, image.height, image.width), threshold=0.0)[0]:
            groups[names[entry["category_id"]]].setdefault(image.image_id, []).append(entry)
    return groups


def nested_counts(
    counts: Mapping[int | str, int], shots: Sequence[int]
) -> dict[int, dict[int | str, int]]:
    """Choose pictures so that exactly K boxes are taken, for each K, each within the next.

    Args:
        counts: boxes of the class in each picture, in the order in which pictures are considered;
            at least as many in all as the largest K.
        shots: increasing.

    Returns:
        For each K the number of boxes of each chosen picture. Pictures are taken whole if they
        fit; where none does, one of those with the fewest boxes is cut, and completed first when K
        grows, so that at most one picture is cut.
    """
    taken: dict[int | str, int] = {}
    result = {}
    for shot in shots:
        left = shot - sum(taken.values())
        for number in [*taken, *(n for n in counts if n not in taken)]:
            rest = counts[number] - taken.get(number, 0)
            if 0 < rest <= left:
                taken[number] = counts[number]
                left -= rest
        if left:  # every picture that is left has more boxes than are wanted
            partly = [number for number in taken if taken[number] < counts[number]]
            whole = (number for number in counts if number not in taken)
            cut = partly[0] if partly else min(whole, key=lambda number: counts[number])
            taken[cut] = taken.get(cut, 0) + left
        result[shot] = dict(taken)
    return result


def draw_class(
    name: str, groups: Mapping[int | str, Sequence[Json]], shots: Sequence[int], seed: int
) -> ClassDraw:
    """Draw the K-shot sets of one class."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    numbers = sorted(groups)
    mixed = {}
    for place in rng.permutation(len(numbers)):
        group = groups[numbers[place]]
        mixed[numbers[place]] = [group[index] for index in rng.permutation(len(group))]
    steps = sorted({step for step in LADDER if step <= max(shots)} | set(shots))
    counts = nested_counts({number: len(group) for number, group in mixed.items()}, steps)
    return ClassDraw(name, mixed, {shot: counts[shot] for shot in shots})


def check_counts(
    groups: Mapping[str, Mapping[int | str, Sequence[Json]]], shots: Sequence[int], source: Path
) -> None:
    """Refuse classes with fewer boxes than the largest K.

    Raises:
        InputError: names each class with what it has and what it needs.
    """
    needed = max(shots)
    has = {name: sum(map(len, group.values())) for name, group in groups.items()}
    lacking = [f"{name} has {count}" for name, count in has.items() if count < needed]
    if lacking:
        raise InputError(
            f"{source}: {needed} shots need {needed} boxes of each class, but "
            f"{', '.join(lacking)}; ask for fewer with --shots, or annotate more"
        )


def write_sets(
    draws: Mapping[int, Sequence[ClassDraw]], content: Json, output: Path, shots: Sequence[int]
) -> int:
    """Write the files of all sets.

    Returns:
        The number of files.

    Raises:
        InputError: a file is there already and holds another draw.
    """
    images = {image["id"]: image for image in content["images"]}
    order = {id(entry): place for place, entry in enumerate(content["annotations"])}
    files = {}
    for seed, classes in draws.items():
        for drawn in classes:
            for shot in shots:
                part = {
                    "info": content.get("info", {}),
                    "licenses": content.get("licenses", []),
                    "images": [images[number] for number in sorted(drawn.taken[shot])],
                    "annotations": sorted(drawn.entries(shot), key=lambda e: order[id(e)]),
                    "categories": content["categories"],
                }
                path = output / f"seed{seed}" / file_name("coco", shot, drawn.name)
                files[path] = json.dumps(part) + "\n"
    for path, text in files.items():
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise InputError(
                f"{path} holds another draw; name another folder with --output, or remove that one"
            )
    for path, text in files.items():
        write_text(path, text)
    return len(files)


def table(draws: Mapping[int, Sequence[ClassDraw]], shots: Sequence[int]) -> str:
    """What was drawn: for each set and class its boxes, and the pictures of each K."""
    rows = [
        [
            f"seed{seed}",
            drawn.name,
            sum(map(len, drawn.groups.values())),
            len(drawn.groups),
            *map(drawn.cell, shots),
        ]
        for seed, classes in draws.items()
        for drawn in classes
    ]
    headers = ["set", "class", "boxes", "pictures", *(f"{shot}-shot pictures" for shot in shots)]
    text = pipe_table(rows, headers)
    if any("cut" in str(cell) for row in rows for cell in row[4:]):
        text += (
            "\n\n(n cut): n of the pictures hold more boxes of the class than were taken, because "
            "no whole ones were left that fit; training sees those boxes as background."
        )
    return text


def _configured(options: argparse.Namespace, rest: list[str]) -> tuple[str, DatasetInfo, Path]:
    """Name, description and output folder of a data set of the configuration."""
    config: Config = load_config(options.config_path, rest)
    sets, name = config.data.custom, options.dataset
    if not sets:
        raise InputError(
            f"{options.config_path}: data.custom is empty; K-shot files are drawn for data of "
            "one's own, those of COCO and PASCAL VOC are TFA's"
        )
    if not name:
        if len(sets) != 1:
            raise InputError(
                f"{options.config_path}: data.custom has {len(sets)} data sets "
                f"({', '.join(sets)}); name one with --dataset"
            )
        name = next(iter(sets))
    if name not in sets:
        raise InputError(
            f"--dataset: {name!r} is not in data.custom of {options.config_path}"
            f"{suggestion(name, sets)}"
        )
    own, root = sets[name], Path(config.datasets_root)
    if not (options.output or own.few_shot):
        raise InputError(f"name a folder with --output or data.custom.{name}.few_shot")
    info = resolve_dataset(f"{name}_train_all", datasets_root=root, custom=sets)
    return name, info, Path(options.output) if options.output else root / own.few_shot


def _named(options: argparse.Namespace) -> tuple[str, DatasetInfo, Path]:
    """The same for an annotation file."""
    if not options.output:
        raise InputError("--annotations needs --output, the folder for the K-shot files")
    source = CustomSource(annotations=options.annotations, images=".")
    custom = {"NAME": CustomDataset(format="coco", train=source, test=source)}
    info = resolve_dataset("NAME_train_all", datasets_root=".", custom=custom)
    return "NAME", info, Path(options.output)


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = command_parser(
        FLAGS,
        program="python -m src.tools.draw_kshot",
        description="Draw seeded, nested K-shot files of data of one's own.",
        epilog="With --config_path, --key=value flags change the configuration.",
    )
    options, rest = parser.parse_known_args(argv)
    if bool(options.config_path) == bool(options.annotations):
        raise InputError("give either --config_path or --annotations")
    if rest and options.annotations:
        raise InputError(f"{rest[0]!r} is not a flag of this program")
    options.shots = sorted(numbers(",".join(options.shots), "--shots"))
    if not 1 <= options.shots[0] <= options.shots[-1] <= MAX_SHOTS:
        raise InputError(f"--shots: {options.shots} are not within 1 to {MAX_SHOTS}")
    if options.seeds < 1 or options.seed < 0:
        raise InputError("--seeds must be 1 or more, and --seed 0 or more")
    return options, rest


def main(argv: Sequence[str] | None = None) -> int:
    """Read the annotations, draw, write, and print what was drawn."""
    set_up_logging()
    options, rest = _parse(argv)
    name, info, output = _configured(options, rest) if options.config_path else _named(options)
    info = READERS[info.format].read_classes(info)
    content, records = read_content(info)
    groups = usable_groups(content, records, info)
    check_counts(groups, options.shots, info.annotations)
    draws = {
        seed: [draw_class(one, group, options.shots, seed) for one, group in groups.items()]
        for seed in range(options.seed, options.seed + options.seeds)
    }
    count = write_sets(draws, content, output, options.shots)
    shots = ",".join(map(str, options.shots))
    sys.stdout.write(
        f"{table(draws, options.shots)}\n\n{count} files below {output}; with "
        f"data.custom.{name}.few_shot naming that folder, the sets are called "
        f"{name}_train_{{novel,all}}_{{{shots}}}shot_seed{{S}}.\n"
    )
    return 0


if __name__ == "__main__":
    run_main(main)
