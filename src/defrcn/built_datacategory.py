# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Tables of the data sets: classes, base and novel split, names to paths. No file is read here.

The tables and the lists of novel classes are written once; every other view (base classes,
contiguous order, category ids of a split) is computed from them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from src.defrcn.data_types import (
    XYWH,
    XYXY,
    Annotation,
    CustomDataset,
    CustomSource,
    DatasetInfo,
    FewShot,
    Record,
)
from src.model_utils.errors import InputError

__all__ = [
    "COCO_CATEGORIES",
    "COCO_NOVEL_CLASSES",
    "VOC_CLASSES",
    "VOC_NOVEL_CLASSES",
    "XYWH",
    "XYXY",
    "Annotation",
    "CustomDataset",
    "CustomSource",
    "DatasetInfo",
    "FewShot",
    "Record",
    "is_few_shot",
    "resolve_dataset",
    "split_classes",
    "suggestion",
    "voc_categories",
]

SPLITS = ("all", "base", "novel")
FORMATS = ("coco", "voc")
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

_COCO_NAME = re.compile(r"coco14_(?P<part>trainval|test)_(?P<split>all|base|novel)")
_VOC_NAME = re.compile(
    r"voc_(?P<year>2007|2012)_(?P<part>trainval|test)_(?P<split>all|base|novel)(?P<number>[123])"
)
_FEW_SHOT_NAME = re.compile(r"(?P<full>.+)_(?P<shot>[1-9]\d{0,8})shot_seed(?P<seed>0|[1-9]\d{0,8})")


def suggestion(word: str, candidates: Iterable[str]) -> str:
    """Return ' (did you mean X?)' for the candidate closest to a misspelt word, or ''."""
    close = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


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


def is_few_shot(name: str) -> bool:
    """Whether a data set's name is that of a K-shot set, known or not."""
    return bool(re.search(r"_\d+shot_seed\w+$", name))


def _coco14(name: str, datasets_root: Path, coco_root: Path) -> DatasetInfo | None:
    found = _COCO_NAME.fullmatch(name)
    if found is None:
        return None
    split = found["split"]
    names, numbers = split_classes(COCO_CATEGORIES, COCO_NOVEL_CLASSES, split)
    splits = datasets_root / "cocosplit" / "datasplit"
    trainval = found["part"] == "trainval"
    return DatasetInfo(
        name=name,
        format="coco",
        annotations=splits / ("trainvalno5k.json" if trainval else "5k.json"),
        image_root=coco_root / ("trainval2014" if trainval else "val2014"),
        image_list=None,
        class_names=names,
        category_ids=numbers,
        base_classes=split_classes(COCO_CATEGORIES, COCO_NOVEL_CLASSES, "base")[0],
        novel_classes=split_classes(COCO_CATEGORIES, COCO_NOVEL_CLASSES, "novel")[0],
        split=split,
        known_category_ids=tuple(number for number, _ in COCO_CATEGORIES),
    )


def _voc(name: str, datasets_root: Path) -> DatasetInfo | None:
    found = _VOC_NAME.fullmatch(name)
    if found is None or (found["year"], found["part"]) == ("2012", "test"):
        return None
    split, number = found["split"], int(found["number"])
    categories = voc_categories(number)
    names, numbers = split_classes(categories, VOC_NOVEL_CLASSES[number], split)
    root = datasets_root / f"VOC{found['year']}"
    return DatasetInfo(
        name=name,
        format="voc",
        annotations=root / "Annotations",
        image_root=root / "JPEGImages",
        image_list=root / "ImageSets" / "Main" / f"{found['part']}.txt",
        class_names=names,
        category_ids=numbers,
        base_classes=split_classes(categories, VOC_NOVEL_CLASSES[number], "base")[0],
        novel_classes=VOC_NOVEL_CLASSES[number],
        split=split,
        known_category_ids=tuple(number for number, _ in categories),
    )


def _custom(name: str, sets: Mapping[str, CustomDataset], root: Path) -> DatasetInfo | None:
    stem, part, split = ("", "", *name.rsplit("_", 2))[-3:]
    if stem not in sets or part not in ("train", "test") or split not in SPLITS:
        return None
    own = sets[stem]
    if own.format not in FORMATS:
        raise InputError(
            f"data set {stem!r}: format {own.format!r} is unknown; use one of {', '.join(FORMATS)}"
        )
    if split == "novel" and not own.novel_classes:
        raise InputError(f"{name}: the data set {stem!r} names no novel classes")
    source = own.train if part == "train" else own.test

    def listed(path: str) -> Path | None:
        return root / path if path else None

    return DatasetInfo(
        name=name,
        format=own.format,
        annotations=root / source.annotations,
        image_root=root / source.images,
        image_list=listed(source.image_list),
        class_names=(),
        category_ids=(),
        base_classes=(),
        novel_classes=tuple(own.novel_classes),
        split=split,
        class_source=root / own.train.annotations,
        class_source_list=listed(own.train.image_list),
        declared_classes=tuple(own.classes),
    )


def _check_numbered(name: str, shot: int, seed: int, shots: Iterable[int], seeds: int) -> None:
    """Refuse shots and seeds that TFA's files do not have."""
    if shot not in shots:
        listing = ", ".join(map(str, shots))
        raise InputError(f"data set {name!r}: {shot} shots do not exist, only {listing}")
    if seed >= seeds:
        raise InputError(
            f"data set {name!r}: seed {seed} does not exist, only 0 to {seeds - 1}; "
            "choose the set with --shot_seed"
        )


def _few_shot(
    info: DatasetInfo,
    shot: int,
    seed: int,
    root: Path,
    own: Mapping[str, CustomDataset],
    *,
    seeded: bool,
) -> DatasetInfo | None:
    """The K-shot set of a full one, or None where there is none (test and base sets)."""
    name = f"{info.name}_{shot}shot_seed{seed}"
    if info.split == "base" or re.search(r"_test_[a-z]+\d?$", info.name):
        return None
    if info.class_source is None and info.format == "coco":
        _check_numbered(name, shot, seed, COCO_SHOTS, COCO_SEEDS)
        return replace(info, name=name, few_shot=FewShot(root / "cocosplit", shot, seed))
    if info.class_source is None:
        _check_numbered(name, shot, seed, VOC_SHOTS, VOC_SEEDS)
        files = FewShot(root / "vocsplit", shot, seed, seeded, voc_root=root)
        return replace(info, name=name, few_shot=files)
    stem = info.name.rsplit("_", 2)[0]
    if not own[stem].few_shot:
        raise InputError(
            f"data set {name!r}: data.custom.{stem}.few_shot is empty; draw K-shot files with "
            "python -m src.tools.draw_kshot and name their folder there"
        )
    return replace(info, name=name, few_shot=FewShot(root / own[stem].few_shot, shot, seed))


def _known_names(own: Iterable[str], ending: str) -> list[str]:
    """Every name of a full set, or with the ending of a K-shot set every one of that kind."""
    splits = ("all", "novel") if ending else SPLITS
    parts = ("trainval",) if ending else ("trainval", "test")
    names = [f"coco14_{part}_{split}" for part in parts for split in splits]
    for number in VOC_NOVEL_CLASSES:
        for year in ("2007", "2012"):
            names += [f"voc_{year}_trainval_{split}{number}" for split in splits]
        names += [] if ending else [f"voc_2007_test_{split}{number}" for split in splits]
    parts = ("train",) if ending else ("train", "test")
    names += [f"{key}_{part}_{split}" for key in own for part in parts for split in splits]
    return [name + ending for name in names]


def _unknown(name: str, own: Iterable[str]) -> InputError:
    """One sentence with the nearest name and the patterns of all names."""
    found = re.search(r"_\d+_?shots?_seed\w*$", name)
    ending = ""
    if found:
        shot, seed = re.findall(r"\d+", found[0])[0], re.search(r"seed(\d+)$", name)
        ending = f"_{shot}shot_seed{seed[1] if seed else 0}"
    patterns = [
        "coco14_{trainval,test}_{all,base,novel}",
        "coco14_trainval_{all,novel}_{K}shot_seed{S}",
        "voc_{2007,2012}_trainval_{all,base,novel}{1,2,3}",
        "voc_2007_test_{all,base,novel}{1,2,3}",
        "voc_{2007,2012}_trainval_{all,novel}{1,2,3}_{K}shot_seed{S}",
    ]
    for key in sorted(own):
        patterns += [f"{key}_{{train,test}}_{{all,base,novel}}"]
        patterns += [f"{key}_train_{{all,novel}}_{{K}}shot_seed{{S}}"]
    hint = suggestion(name, _known_names(sorted(own), ending))
    return InputError(f"data set {name!r} is unknown{hint}; known are {', '.join(patterns)}")


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
    root = Path(datasets_root)
    coco = Path(coco_root) if str(coco_root) else root / "coco"
    own = dict(custom or {})
    numbered = _FEW_SHOT_NAME.fullmatch(name)
    full_name = numbered["full"] if numbered else name
    info = _custom(full_name, own, root) or _coco14(full_name, root, coco) or _voc(full_name, root)
    if info is not None and numbered:
        shot, seed = int(numbered["shot"]), int(numbered["seed"])
        info = _few_shot(info, shot, seed, root, own, seeded=not official_vocsplit_sampling)
    if info is None:
        raise _unknown(name, own)
    return info
