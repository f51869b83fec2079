# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""K-shot files in TFA's layout: where the file of a class is, and which K boxes count.

Each class has a file of its own, below a folder for each numbered set (`seed0`, `seed1`, ...):
`full_box_{K}shot_{class}_trainval.json` in COCO format, or `box_{K}shot_{class}_train.txt`, a list
of images, in VOC format. A data set in YOLO format has the files of COCO format; one's own in VOC
format has either.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from src.defrcn.data_types import FewShot
from src.model_utils.errors import InputError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
FILE_NAMES = {"coco": "full_box_{}shot_{}_trainval.json", "voc": "box_{}shot_{}_train.txt"}


def file_name(form: str, shot: int, class_name: str) -> str:
    """Name of a class's K-shot file.

    Args:
        form: "coco" or "voc".
        shot: K.
        class_name: as in the annotations.

    Raises:
        InputError: the class's name cannot be a part of a file's name.
    """
    if not class_name.strip() or re.search(r"[/\\\0]", class_name):
        raise InputError(
            f"class {class_name!r} cannot be part of a K-shot file's name; rename the class"
        )
    return FILE_NAMES[form].format(shot, class_name)


def has_files(few_shot: FewShot, form: str, class_names: Sequence[str]) -> bool:
    """Whether some class of a K-shot set has a file of a form, "coco" or "voc"."""
    folder = few_shot.folder / f"seed{few_shot.seed}"
    return any((folder / file_name(form, few_shot.shot, name)).is_file() for name in class_names)


def class_file(few_shot: FewShot, form: str, class_name: str) -> Path:
    """The K-shot file of a class, which exists.

    Raises:
        InputError: it does not; the message says what the folder does hold.
    """
    folder = few_shot.folder / f"seed{few_shot.seed}"
    path = folder / file_name(form, few_shot.shot, class_name)
    if path.is_file():
        return path
    if not folder.is_dir():
        seeds = sorted(
            int(entry.name[4:])
            for entry in few_shot.folder.glob("seed*")
            if entry.name[4:].isdecimal()
        )
        there = f"seeds there are {', '.join(map(str, seeds))}" if seeds else "it has no seed"
        if (few_shot.folder / path.name).is_file():
            there = "TFA's files that lie in no seed's folder are seed 0: move them to seed0"
        raise InputError(f"folder of K-shot files {folder} does not exist; {there}")
    shots = [k for k in range(1, 101) if (folder / file_name(form, k, class_name)).is_file()]
    there = f"shots there are {', '.join(map(str, shots))}" if shots else "it has no file"
    raise InputError(f"K-shot file {path} does not exist; {there} for class {class_name!r}")


def draw(items: Sequence[Item], few_shot: FewShot, class_name: str, source: Path) -> list[Item]:
    """Keep K of a class's boxes, in their order.

    With `few_shot.seeded`, which boxes are kept depends on the set's seed, on K, on the class's
    name and on the number of items: training and calibration see the same ones, and so do a
    `novel` and an `all` set. The official code draws VOC's boxes without a seed.

    Args:
        items: everything that the class's file lists.
        few_shot: K and the seed.
        class_name: for the seed and for messages.
        source: the file, for messages.

    Raises:
        InputError: there is no item.
    """
    shot = few_shot.shot
    if not items:
        raise InputError(f"{source}: lists no box of class {class_name!r}")
    if len(items) < shot:
        logger.warning("%s: %d boxes of class %s, not %d", source, len(items), class_name, shot)
    if len(items) <= shot:
        return list(items)
    entropy = (few_shot.seed, shot, zlib.crc32(class_name.encode())) if few_shot.seeded else None
    chosen = np.random.default_rng(entropy).choice(len(items), shot, replace=False)
    return [items[index] for index in sorted(chosen)]
