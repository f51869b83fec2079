# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Tables of the data sets: classes, base and novel split, names to paths. No file is read here.

The tables and the lists of novel classes are written once; every other view (base classes,
contiguous order, category ids of a split) is computed from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from src.defrcn.data_types import (
    XYWH,
    XYXY,
    Annotation,
    DatasetInfo,
    FewShot,
    Record,
)
from src.model_utils.custom_sets import CustomDataset
from src.model_utils.errors import InputError
from src.model_utils.set_names import SetName, name_patterns, names_like, parse_name
from src.util import suggestion

__all__ = [
    "COCO_CATEGORIES",
    "COCO_NOVEL_CLASSES",
    "VOC_CLASSES",
    "VOC_NOVEL_CLASSES",
    "XYWH",
    "XYXY",
    "Annotation",
    "DatasetInfo",
    "FewShot",
    "Record",
    "resolve_dataset",
    "split_classes",
    "voc_categories",
]

# What TFA's files hold: shots, and how many numbered sets.
COCO_SHOTS, COCO_SEEDS = (1, 2, 3, 5, 10, 30), 10
VOC_SHOTS, VOC_SEEDS = (1, 2, 3, 5, 10), 30

# COCO's category ids have gaps (12, 26, 29, ...): id, name.
COCO_CATEGORIES: tuple[tuple[int, str], ...] = (
    (1, "person"),
    (2, "bicycle"),
    (3, "car"),
    (4, "motorcycle"),
    (5, "airplane"),
    (6, "bus"),
    (7, "train"),
    (8, "truck"),
    (9, "boat"),
    (10, "traffic light"),
    (11, "fire hydrant"),
    (13, "stop sign"),
    (14, "parking meter"),
    (15, "bench"),
    (16, "bird"),
    (17, "cat"),
    (18, "dog"),
    (19, "horse"),
    (20, "sheep"),
    (21, "cow"),
    (22, "elephant"),
    (23, "bear"),
    (24, "zebra"),
    (25, "giraffe"),
    (27, "backpack"),
    (28, "umbrella"),
    (31, "handbag"),
    (32, "tie"),
    (33, "suitcase"),
    (34, "frisbee"),
    (35, "skis"),
    (36, "snowboard"),
    (37, "sports ball"),
    (38, "kite"),
    (39, "baseball bat"),
    (40, "baseball glove"),
    (41, "skateboard"),
    (42, "surfboard"),
    (43, "tennis racket"),
    (44, "bottle"),
    (46, "wine glass"),
    (47, "cup"),
    (48, "fork"),
    (49, "knife"),
    (50, "spoon"),
    (51, "bowl"),
    (52, "banana"),
    (53, "apple"),
    (54, "sandwich"),
    (55, "orange"),
    (56, "broccoli"),
    (57, "carrot"),
    (58, "hot dog"),
    (59, "pizza"),
    (60, "donut"),
    (61, "cake"),
    (62, "chair"),
    (63, "couch"),
    (64, "potted plant"),
    (65, "bed"),
    (67, "dining table"),
    (70, "toilet"),
    (72, "tv"),
    (73, "laptop"),
    (74, "mouse"),
    (75, "remote"),
    (76, "keyboard"),
    (77, "cell phone"),
    (78, "microwave"),
    (79, "oven"),
    (80, "toaster"),
    (81, "sink"),
    (82, "refrigerator"),
    (84, "book"),
    (85, "clock"),
    (86, "vase"),
    (87, "scissors"),
    (88, "teddy bear"),
    (89, "hair drier"),
    (90, "toothbrush"),
)

# The classes that COCO shares with PASCAL VOC are the novel ones.
COCO_NOVEL_CLASSES: tuple[str, ...] = tuple(
    "person,bicycle,car,motorcycle,airplane,bus,train,boat,bird,cat,dog,horse,sheep,cow,bottle,"
    "chair,couch,potted plant,dining table,tv".split(",")
)

# PASCAL VOC's classes. In each of its three splits five are novel, and those come last.
VOC_CLASSES: tuple[str, ...] = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor".split()
)
VOC_NOVEL_CLASSES: dict[int, tuple[str, ...]] = {
    1: ("bird", "bus", "cow", "motorbike", "sofa"),
    2: ("aeroplane", "bottle", "cow", "horse", "sofa"),
    3: ("boat", "cat", "motorbike", "sheep", "sofa"),
}


def split_classes(
    categories: Iterable[tuple[int, str]], novel: Iterable[str], split: str
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and category ids of one split.

    Args:
        categories: (id, name) in the data set's order.
        novel: names of the novel classes; their order does not matter.
        split: "all", "base" or "novel".

    Returns:
        Names and ids in the order of `categories`.
    """
    novel = frozenset(novel)
    wanted = [
        (number, name)
        for number, name in categories
        if split == "all" or (name in novel) == (split == "novel")
    ]
    return tuple(name for _, name in wanted), tuple(number for number, _ in wanted)


def voc_categories(number: int) -> tuple[tuple[int, str], ...]:
    """(id, name) of PASCAL VOC's classes in split 1, 2 or 3: base classes first; ids from 1."""
    novel = VOC_NOVEL_CLASSES[number]
    base = tuple(name for name in VOC_CLASSES if name not in novel)
    return tuple(enumerate((*base, *novel), start=1))


def class_fields(
    categories: Sequence[tuple[int, str]], novel: Iterable[str], split: str
) -> dict[str, Any]:
    """The fields of `DatasetInfo` about classes, from (id, name) in the data set's order."""
    names, numbers = split_classes(categories, novel, split)
    return {
        "class_names": names,
        "category_ids": numbers,
        "base_classes": split_classes(categories, novel, "base")[0],
        "novel_classes": split_classes(categories, novel, "novel")[0],
        "split": split,
        "known_category_ids": tuple(number for number, _ in categories),
    }


def _coco14(parsed: SetName, datasets_root: Path, coco_root: Path) -> DatasetInfo:
    splits = datasets_root / "cocosplit" / "datasplit"
    trainval = parsed.part == "trainval"
    return DatasetInfo(
        name=parsed.full,
        format="coco",
        annotations=splits / ("trainvalno5k.json" if trainval else "5k.json"),
        image_root=coco_root / ("trainval2014" if trainval else "val2014"),
        image_list=None,
        **class_fields(COCO_CATEGORIES, COCO_NOVEL_CLASSES, parsed.split),
    )


def _voc(parsed: SetName, datasets_root: Path) -> DatasetInfo:
    root = datasets_root / f"VOC{parsed.family[-4:]}"
    novel = VOC_NOVEL_CLASSES[parsed.number]
    return DatasetInfo(
        name=parsed.full,
        format="voc",
        annotations=root / "Annotations",
        image_root=root / "JPEGImages",
        image_list=root / "ImageSets" / "Main" / f"{parsed.part}.txt",
        **class_fields(voc_categories(parsed.number), novel, parsed.split),
    )


def _custom(parsed: SetName, own: CustomDataset, root: Path) -> DatasetInfo:
    if parsed.split == "novel" and not own.novel_classes:
        raise InputError(f"{parsed.full}: the data set {parsed.family!r} names no novel classes")
    source = own.train if parsed.part == "train" else own.test

    def listed(path: str) -> Path | None:
        return root / path if path else None

    return DatasetInfo(
        name=parsed.full,
        format=own.format,
        annotations=root / source.annotations,
        image_root=root / source.images,
        image_list=listed(source.image_list),
        class_names=(),
        category_ids=(),
        base_classes=(),
        novel_classes=own.novel_classes,
        split=parsed.split,
        class_source=root / own.train.annotations,
        class_source_list=listed(own.train.image_list),
        declared_classes=own.classes,
    )


def _few_shot(
    name: str, family: str, shots: tuple[int, int], root: Path, *, seeded: bool
) -> FewShot:
    """Where TFA's files of a K-shot set are; refuses shots and seeds that they do not have."""
    shot, seed = shots
    of_coco = family == "coco14"
    numbers, seeds = (COCO_SHOTS, COCO_SEEDS) if of_coco else (VOC_SHOTS, VOC_SEEDS)
    if shot not in numbers:
        listing = ", ".join(map(str, numbers))
        raise InputError(f"data set {name!r}: {shot} shots do not exist, only {listing}")
    if seed >= seeds:
        raise InputError(
            f"data set {name!r}: seed {seed} does not exist, only 0 to {seeds - 1}; "
            "choose the set with --shot_seed"
        )
    if of_coco:
        return FewShot(root / "cocosplit", shot, seed)
    return FewShot(root / "vocsplit", shot, seed, seeded=seeded, voc_root=root)


def resolve_dataset(
    name: str,
    *,
    datasets_root: str | Path = "datasets",
    coco_root: str | Path = "",
    custom: Mapping[str, CustomDataset] | None = None,
    official_vocsplit_sampling: bool = False,
) -> DatasetInfo:
    """Look up a data set by name.

    Args:
        name: `coco14_{trainval,test}_{all,base,novel}`;
            `coco14_trainval_{all,novel}_{K}shot_seed{S}` with K of 1, 2, 3, 5, 10, 30 and S 0-9;
            `voc_{2007,2012}_trainval_{all,base,novel}{1,2,3}`,
            `voc_2007_test_{all,base,novel}{1,2,3}`, where the digit is the split;
            `voc_{2007,2012}_trainval_{all,novel}{1,2,3}_{K}shot_seed{S}` with K up to 10 and S
            0-29: both years name the same images, which are of both;
            `<own>_{train,test}_{all,base,novel}` for each key `<own>` of `custom`, and
            `<own>_train_{all,novel}_{K}shot_seed{S}` if it has K-shot files.
        datasets_root: folder that the official layout starts from.
        coco_root: folder with COCO's images; empty for `<datasets_root>/coco`.
        custom: data sets of one's own.
        official_vocsplit_sampling: draw PASCAL VOC's K boxes anew at every reading.

    Raises:
        InputError: the name is unknown, a novel split is asked of a set without novel classes, or
            there are no such shots or seeds.
    """
    root, sets = Path(datasets_root), custom or {}
    parsed = parse_name(name, sets)
    if parsed is None:
        hint = suggestion(name, names_like(name, sets))
        raise InputError(
            f"data set {name!r} is unknown{hint}; known are {', '.join(name_patterns(sets))}"
        )
    if parsed.own:
        info = _custom(parsed, sets[parsed.family], root)
    elif parsed.family == "coco14":
        info = _coco14(parsed, root, Path(coco_root) if str(coco_root) else root / "coco")
    else:
        info = _voc(parsed, root)
    if parsed.shots is None:
        return info
    if not parsed.own:
        seeded = not official_vocsplit_sampling
        files = _few_shot(name, parsed.family, parsed.shots, root, seeded=seeded)
    elif sets[parsed.family].few_shot:
        files = FewShot(root / sets[parsed.family].few_shot, *parsed.shots)
    else:
        raise InputError(
            f"data set {name!r}: data.custom.{parsed.family}.few_shot is empty; draw K-shot files "
            "with python -m src.tools.draw_kshot and name their folder there"
        )
    return replace(info, name=name, few_shot=files)
