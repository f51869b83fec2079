# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Read YOLO-style data sets into records: data.yaml with the classes, a text file a picture.

A line of a text file is `class cx cy w h`, centre and size of a box as shares of the picture's
width and height after its EXIF orientation, or `class x1 y1 x2 y2 ...`, the corners of a polygon,
of which the bounding box is taken.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from src.defrcn.data_types import XYWH, Annotation, DatasetInfo, FewShot, Record
from src.defrcn.meta_coco import image_path, with_classes
from src.defrcn.meta_coco import load_few_shot as load_coco_few_shot
from src.defrcn.picture_file import SUFFIXES, size_of
from src.model_utils.errors import InputError
from src.model_utils.yaml_reader import read_texts
from src.util import read_regular

logger = logging.getLogger(__name__)

Shares = tuple[float, float, float, float]
IMAGES, LABELS = "images", "labels"  # folders that stand side by side
ROUNDING = 1e-3  # how far beyond the border rounded numbers may lie
BOX = 5  # numbers of a line that is a box; a polygon has more
MAX_LABEL_BYTES = 16 << 20


def _index(text: object) -> int:
    """A whole number from 0 on as it is written in YAML; -1 for anything else."""
    return int(text) if isinstance(text, str) and re.fullmatch("[0-9]{1,6}", text) else -1


def read_names(path: Path) -> list[str]:
    """The classes of a data.yaml in their order: a list of names, or a mapping from 0, 1, ...

    The keys that say where pictures are (`path`, `train`, ...) are not followed.

    Raises:
        InputError: the file is missing, is not plain YAML, or its classes are wrong.
    """
    if not path.is_file():
        raise InputError(
            f"{path} is not a file; annotations is the path of a YOLO data set's data.yaml, below "
            "datasets_root"
        )
    tree = read_texts(path)
    found = tree.get("names")
    if "kpt_shape" in tree:
        raise InputError(f"{path}: kpt_shape: labels with key points are not read, only boxes")
    if isinstance(found, dict):
        numbers = sorted(map(_index, found))
        if numbers != list(range(len(found))):
            raise InputError(f"{path}: names must have the numbers 0 to {len(found) - 1} as keys")
        found = [found[key] for key in sorted(found, key=_index)]
    if not isinstance(found, list) or not found:
        raise InputError(f"{path} has no list of classes; write names: [cat, dog]")
    for place, name in enumerate(found):
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InputError(f"{path}: names: class {place} is {name!r:.60}, which is no name")
        if name in found[:place]:
            raise InputError(f"{path}: names: class {name!r} is there twice")
    if "nc" in tree and _index(tree["nc"]) != len(found):
        raise InputError(f"{path}: nc is {tree['nc']!r:.60}, but names has {len(found)} classes")
    return found


def read_classes(info: DatasetInfo) -> DatasetInfo:
    """Fill in the classes in the order of the training part's data.yaml; ids are 1..K."""
    if info.class_names or info.class_source is None:
        return info
    return with_classes(info, list(enumerate(read_names(info.class_source), start=1)))


def _root(info: DatasetInfo) -> Path:
    """The folder that pictures are named from: the one of the list, if they are listed."""
    listed = info.image_root.suffix.lower() == ".txt" and not info.image_root.is_dir()
    return info.image_root.parent if listed else info.image_root


def _in_folder(folder: Path) -> list[str]:
    """Names of all pictures below a folder, sorted."""
    names = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names += [
            (Path(place) / name).relative_to(folder).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    if not names:
        raise InputError(f"image folder {folder} holds no picture ({' '.join(SUFFIXES)})")
    return sorted(names)


def _in_list(path: Path) -> list[str]:
    """Names in the order of a list, relative to its folder."""
    try:
        lines = read_regular(path).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"list of pictures {path} cannot be read: {error}") from error
    names = [Path(line.strip().replace("\\", "/")).as_posix() for line in lines if line.strip()]
    if not names:
        raise InputError(f"list of pictures {path} is empty")
    return names


def _picture_names(info: DatasetInfo, root: Path) -> list[str]:
    """Names of the pictures below `root`, each once and within it."""
    if root != info.image_root:
        names = _in_list(info.image_root)
    elif info.image_root.is_dir():
        names = _in_folder(info.image_root)
    else:
        raise InputError(f"image folder {info.image_root} does not exist")
    owners: dict[str, str] = {}
    for name in names:
        image_path(root, name, str(info.image_root))  # refuses what leads out of the folder
        stem = os.path.splitext(name)[0]
        if owners.get(stem) == name:
            raise InputError(f"{info.image_root} names the picture {name} twice")
        if stem in owners:
            raise InputError(
                f"{info.image_root}: {owners[stem]} and {name} would share one file of labels; "
                "rename one of them, with its labels"
            )
        owners[stem] = name
    return names


def _labels_beside(folder: Path) -> Path:
    """Where the labels of a folder's pictures are: in a sibling tree, else among the pictures."""
    for place in reversed(range(len(folder.parts))):
        if folder.parts[place] == IMAGES:
            twin = Path(*folder.parts[:place], LABELS, *folder.parts[place + 1 :])
            if twin.is_dir():
                return twin
    return folder


def _inside(value: float, source: str, what: str) -> float:
    """A share, brought into the picture if it is out of it by no more than rounding."""
    if not -ROUNDING <= value <= 1 + ROUNDING:
        raise InputError(
            f"{source}: {what} {value:g} is outside of the picture (0 to 1, shares of its width "
            "and height); correct the line or remove it"
        )
    return min(max(value, 0.0), 1.0)


def _corners(numbers: Sequence[float], source: str) -> Shares:
    """Left, top, right and bottom of a box or polygon, as shares of the picture."""
    if len(numbers) == BOX - 1:
        x, y, width, height = (_inside(number, source, "the number") for number in numbers)
        sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        left, top, right, bottom = (_inside(side, source, "a side of the box") for side in sides)
        return left, top, right, bottom
    points = [_inside(number, source, "the corner") for number in numbers]
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])


def _parse(line: str, num_classes: int, source: str) -> tuple[int, Shares]:
    """Class index and corners of a line."""
    words = line.split()
    if len(words) < BOX or len(words) % 2 == 0:
        raise InputError(
            f"{source}: {len(words)} numbers, where a box has 5 (class cx cy w h) and a polygon 7, "
            "9, ... (class x1 y1 x2 y2 x3 y3 ...); a score is no part of a label"
        )
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise InputError(f"{source}: {line.strip()!r:.80} are not numbers") from None
    if not all(map(math.isfinite, values)):
        raise InputError(f"{source}: {line.strip()!r:.80} holds NaN or infinity")
    if not values[0].is_integer() or not 0 <= values[0] < num_classes:
        raise InputError(
            f"{source}: class {words[0]:.20} is not among the {num_classes} names of data.yaml "
            f"(0 to {num_classes - 1})"
        )
    return int(values[0]), _corners(values[1:], source)


def _read_labels(path: Path, num_classes: int) -> tuple[list[tuple[int, Shares]], int]:
    """The objects of a file of labels, if it exists, and how many lines it had a second time."""
    if not os.path.lexists(path):
        return [], 0
    try:
        lines = read_regular(path, MAX_LABEL_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"file of labels {path} cannot be read: {error}") from error
    kept = {line.strip(): number for number, line in reversed(list(enumerate(lines, start=1)))}
    kept.pop("", None)
    found = [
        _parse(line, num_classes, f"{path}, line {number}")
        for line, number in sorted(kept.items(), key=lambda item: item[1])
    ]
    return found, sum(bool(line.strip()) for line in lines) - len(found)


def _objects(
    found: Sequence[tuple[int, Shares]], info: DatasetInfo, height: int, width: int
) -> tuple[Annotation, ...]:
    """Boxes in pixels; those of the other split's classes are left out."""
    index_of = {number - 1: place for place, number in enumerate(info.category_ids)}
    objects = []
    for number, (left, top, right, bottom) in found:
        if number in index_of:
            box = (left * width, top * height, (right - left) * width, (bottom - top) * height)
            objects.append(Annotation(box, XYWH, index_of[number]))
    return tuple(objects)


def load_records(info: DatasetInfo) -> list[Record]:
    """Read the images of a data set, whose classes are known, with the objects of these.

    Images come in the order of the list or of their names, which are their ids. One without a file
    of labels, or with an empty one, has no objects. Boxes are (x, y, width, height) in pixels. A
    K-shot set is in COCO's format: see `load_few_shot`.

    Raises:
        InputError: a file is missing or wrong; the message names it.
    """
    if info.few_shot is not None:
        return load_few_shot(info, info.few_shot)
    classes = read_names(info.annotations)
    if info.class_source is not None and classes != read_names(info.class_source):
        raise InputError(f"{info.annotations} has other classes than {info.class_source}")
    root = _root(info)
    pictures = {name: root / name for name in _picture_names(info, root)}
    folders = {folder: _labels_beside(folder) for folder in {p.parent for p in pictures.values()}}
    labels = {name: folders[p.parent] / f"{p.stem}.txt" for name, p in pictures.items()}
    if not any(map(os.path.lexists, labels.values())):
        raise InputError(
            f"{info.image_root}: none of {len(labels)} pictures has a file of labels (the first "
            f"would be {next(iter(labels.values()))}); labels lie in a folder {LABELS!r} beside "
            f"{IMAGES!r}, or beside the pictures"
        )
    records, repeated = [], 0
    for name, picture in pictures.items():
        height, width = size_of(picture)
        found, twice = _read_labels(labels[name], len(classes))
        objects = _objects(found, info, height, width)
        records.append(Record(str(picture), name, height, width, objects))
        repeated += twice
    if repeated:
        logger.warning("%s: %d repeated lines of labels ignored", info.image_root, repeated)
    return records


def load_few_shot(info: DatasetInfo, few_shot: FewShot) -> list[Record]:
    """Read a K-shot set, which is kept in COCO's format: see `meta_coco.load_few_shot`."""
    return load_coco_few_shot(replace(info, image_root=_root(info)), few_shot)
