# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Read COCO-format annotation files into records."""

from __future__ import annotations

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

from src.defrcn.built_datacategory import COCO_CATEGORIES, class_fields
from src.defrcn.data_types import XYWH, Annotation, DatasetInfo, FewShot, Record
from src.defrcn.few_shot import class_file, draw
from src.model_utils.errors import InputError
from src.util import read_regular, suggestion

logger = logging.getLogger(__name__)

Json = dict[str, Any]
LISTS = ("images", "annotations", "categories")
MAX_SIDE = (1 << 31) - 1
MAX_ID = (1 << 63) - 1  # what NumPy and MindRecord hold
_COCO_REMEDY = (
    "; python -m src.tools.prepare_coco --source=DOWNLOADS makes it, or name the folder that has "
    "it with datasets_root"
)
_OWN_REMEDY = "; correct its path (data.custom below datasets_root, or the flag that names it)"


def image_path(image_root: Path, file_name: object, source: str) -> str:
    """Join an image's name from an annotation file to the image folder.

    The name is foreign text, so it may not lead out of the folder: absolute names and `..` are
    refused. Links inside the folder are followed; they are the user's own (`prepare_coco` makes
    `trainval2014` out of links).

    Args:
        image_root: folder of the images.
        file_name: the name as written in the annotation file; `/` separates folders.
        source: annotation file and entry, for the message.

    Raises:
        InputError: the name is not a relative path below the folder.
    """
    if not isinstance(file_name, str) or not file_name.strip():
        raise InputError(f"{source}: file_name {file_name!r} is not a file's name")
    try:
        file_name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{source}: file_name {file_name!r} is not valid text") from None
    path = PurePosixPath(file_name.replace("\\", "/"))
    drive = path.parts and re.match("[A-Za-z]:", path.parts[0])
    if not path.parts or path.is_absolute() or drive or ".." in path.parts or "\0" in file_name:
        raise InputError(
            f"{source}: file_name {file_name!r} leaves the image folder {image_root}; "
            "give names relative to that folder"
        )
    return str(image_root / file_name)


def finite_box(box: object, source: str) -> tuple[float, float, float, float]:
    """Check that a box is four finite numbers.

    Raises:
        InputError: it is not; `source` (file, image, annotation) is in the message.
    """
    entries = box if isinstance(box, (list, tuple)) else ()
    if len(entries) != 4 or not all(type(entry) in (int, float) for entry in entries):
        raise InputError(f"{source}: box {box!r} is not a list of four numbers")
    try:
        x, y, width, height = map(float, entries)
    except OverflowError:
        raise InputError(f"{source}: the numbers of the box are too large") from None
    if not all(map(math.isfinite, (x, y, width, height))):
        raise InputError(f"{source}: box {box!r} holds NaN or infinity; correct or remove it")
    return x, y, width, height


def read_json(path: Path, optional: Sequence[str] = (), remedy: str = "") -> Json:
    """Read an annotation file.

    Args:
        path: the file.
        optional: lists that are empty if it does not have them.
        remedy: what to do if it does not exist.

    Raises:
        InputError: the file is missing, is not JSON, or has no lists of images and categories.
    """
    try:
        content = json.loads(read_regular(path))
    except FileNotFoundError:
        raise InputError(f"annotation file {path} does not exist{remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"annotation file {path} cannot be read as JSON: {error}") from error
    for key in optional if isinstance(content, dict) else ():
        content.setdefault(key, [])
    for key in LISTS:
        part = content.get(key) if isinstance(content, dict) else None
        if not isinstance(part, list) or not all(isinstance(entry, dict) for entry in part):
            raise InputError(f"annotation file {path} has no list {key!r} as COCO format asks")
    return dict(content)


def _is_id(value: object) -> bool:
    """Whether it is a whole number of 64 bits."""
    return type(value) is int and abs(value) <= MAX_ID


def _categories(content: Json, path: Path) -> list[tuple[int, str]]:
    """(id, name) of an annotation file, sorted by id."""
    found: dict[int, str] = {}
    for entry in content["categories"]:
        number, name = entry.get("id"), entry.get("name")
        if not _is_id(number) or not isinstance(name, str):
            raise InputError(
                f"{path}: category {name!r}: the id is no whole number or too large, or the name "
                "is no text"
            )
        if number in found or name in found.values():
            raise InputError(f"{path}: category id {number} or name {name!r} occurs twice")
        found[number] = name
    return sorted(found.items())


def with_classes(info: DatasetInfo, categories: list[tuple[int, str]]) -> DatasetInfo:
    """Fill the class fields from (id, name) pairs in the data set's order.

    Raises:
        InputError: a novel class is not among them, or none is left in the split.
    """
    names = [name for _, name in categories]
    for novel in info.novel_classes:
        if novel not in names:
            raise InputError(
                f"{info.name}: novel class {novel!r} is not a class of {info.class_source}"
                f"{suggestion(novel, names)}"
            )
    fields = class_fields(categories, info.novel_classes, info.split)
    if not fields["class_names"]:
        raise InputError(f"{info.name}: no class is left in this split of {info.class_source}")
    return replace(info, **fields)


def read_classes(info: DatasetInfo) -> DatasetInfo:
    """Fill in the classes of a data set of one's own from its training annotations."""
    if info.class_names or info.class_source is None:
        return info
    content = read_json(info.class_source, remedy=_OWN_REMEDY)
    return with_classes(info, _categories(content, info.class_source))


def _check_categories(info: DatasetInfo, content: Json) -> None:
    """The file's own category table must not contradict the classes that are in use."""
    own = zip(info.category_ids, info.class_names)
    table = dict(COCO_CATEGORIES if info.class_source is None else own)
    for number, name in _categories(content, info.annotations):
        if table.get(number, name) != name:
            raise InputError(
                f"{info.annotations}: category {number} is {name!r} here but "
                f"{table[number]!r} in the data set {info.name}"
            )


def _annotation(
    entry: Json, info: DatasetInfo, index_of: Mapping[int, int], image: str
) -> Annotation | None:
    """One annotation, or None for a class of the other split."""
    source = f"{info.annotations}: annotation {entry.get('id')!r} of image {image}"
    number = entry.get("category_id")
    if type(number) is not int:
        raise InputError(f"{source}: category_id {number!r} is not a whole number")
    if number not in info.known_category_ids:
        raise InputError(f"{source}: category id {number} is not among the data set's categories")
    if entry.get("ignore", 0):
        raise InputError(f"{source}: 'ignore' is not supported; mark the object as iscrowd")
    box = finite_box(entry.get("bbox"), source)
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise InputError(f"{source}: iscrowd {crowd!r} is neither 0 nor 1")
    if number not in index_of:
        return None
    return Annotation(box, XYWH, index_of[number], int(crowd))


def _images(content: Json, path: Path) -> dict[int | str, Json]:
    """Image entries by id, in the order of their ids."""
    images: dict[int | str, Json] = {}
    for image in content["images"]:
        number = image.get("id")
        if not _is_id(number) and not isinstance(number, str):
            name = image.get("file_name")
            raise InputError(f"{path}: image {name!r} has no id or one that is too large")
        if number in images:
            raise InputError(f"{path}: image id {number!r} occurs twice")
        images[number] = image
    if len({type(number) for number in images}) > 1:
        raise InputError(f"{path}: image ids are partly numbers and partly texts")
    return dict(sorted(images.items()))


def _check_annotation_ids(content: Json, path: Path) -> None:
    """An object listed twice would count twice; ids may be left out."""
    ids = (entry.get("id") for entry in content["annotations"])
    times = Counter(number for number in ids if isinstance(number, (int, str)))
    number, most = max(times.items(), key=itemgetter(1), default=(None, 1))
    if most > 1:
        raise InputError(
            f"{path}: annotation id {number!r} occurs twice; give each object its own, or none"
        )


def _record(
    number: int | str, image: Json, objects: Sequence[Annotation], info: DatasetInfo
) -> Record:
    source = f"{info.annotations}: image {number!r} ({image.get('file_name')!r})"
    for key in ("height", "width"):
        value = image.get(key)
        if type(value) is not int or not 0 < value <= MAX_SIDE:
            raise InputError(f"{source}: {key} {value!r} is not a whole number from 1 on")
    path = image_path(info.image_root, image.get("file_name"), source)
    return Record(path, number, image["height"], image["width"], tuple(objects))


def _objects(
    content: Json, images: Mapping[int | str, Json], info: DatasetInfo, category_ids: Sequence[int]
) -> Iterator[tuple[int | str | None, Annotation | None, Json]]:
    """Each annotation: id of its image (None: unlisted), object (None: another class), entry."""
    index_of = {number: info.category_ids.index(number) for number in category_ids}
    for entry in content["annotations"]:
        number = entry.get("image_id")
        if isinstance(number, (int, str)) and number in images:
            name = images[number].get("file_name")
            yield number, _annotation(entry, info, index_of, f"{name!r}"), entry
        else:
            yield None, None, entry


def load_records(info: DatasetInfo) -> list[Record]:
    """Read the images of a data set, whose classes are known, with the objects of these.

    Images come in the order of their ids and keep their place without objects too; objects come
    in the order of the file. Boxes are as written, (x, y, width, height), also empty ones. A K-shot
    set has the images of its boxes only: see `load_few_shot`.

    Raises:
        InputError: the file cannot be read, or an entry is wrong: size, path, id, class or box.
    """
    if info.few_shot is not None:
        return load_few_shot(info, info.few_shot)
    remedy = _COCO_REMEDY if info.class_source is None else _OWN_REMEDY
    content = read_json(info.annotations, remedy=remedy)
    _check_categories(info, content)
    _check_annotation_ids(content, info.annotations)
    images = _images(content, info.annotations)
    objects: dict[int | str, list[Annotation]] = {number: [] for number in images}
    orphans = 0
    for number, annotation, _ in _objects(content, images, info, info.category_ids):
        orphans += number is None
        if number is not None and annotation is not None:
            objects[number].append(annotation)
    if orphans:
        logger.warning("%s: %d annotations of unlisted images ignored", info.annotations, orphans)
    return [_record(number, image, objects[number], info) for number, image in images.items()]


def _class_boxes(
    info: DatasetInfo, name: str, category: int, few_shot: FewShot
) -> tuple[list[tuple[Record, Annotation]], set[int | str]]:
    """The K boxes of one class with their images, by the images' ids; ids of images with crowds."""
    path = class_file(few_shot, "coco", name)
    info = replace(info, annotations=path)
    content = read_json(path, optional=("categories",))  # without them ids are the data set's
    _check_categories(info, content)
    # an image may be listed once for each of its boxes
    unique = {json.dumps(image, sort_keys=True): image for image in content["images"]}
    content["images"] = list(unique.values())
    images = _images(content, path)
    objects: dict[int | str, list[Annotation]] = {number: [] for number in images}
    crowded: set[int | str] = set()
    for number, annotation, entry in _objects(content, images, info, (category,)):
        if number is None:
            raise InputError(f"{path}: annotation {entry.get('id')!r} is of an unlisted image")
        if annotation is None:
            raise InputError(f"{path}: annotation {entry.get('id')!r} is not of class {name!r}")
        if annotation.iscrowd:
            crowded.add(number)
        else:
            objects[number].append(annotation)
    bare = {number: _record(number, image, (), info) for number, image in images.items()}
    pairs = [(bare[number], found) for number, group in objects.items() for found in group]
    return draw(pairs, few_shot, name, path), crowded


def load_few_shot(info: DatasetInfo, few_shot: FewShot) -> list[Record]:
    """Read a K-shot set: one record an image, with the boxes of all classes merged.

    Images come in the order in which the classes, one after the other, first name them. Crowds
    are left out but for the name of their class, see `Record`.

    Raises:
        InputError: a class has no file or no box, or a file is wrong.
    """
    images: dict[int | str, Record] = {}
    objects: dict[int | str, list[Annotation]] = {}
    crowds: dict[int | str, list[int]] = {}
    for index, (name, category) in enumerate(zip(info.class_names, info.category_ids)):
        pairs, crowded = _class_boxes(info, name, category, few_shot)
        for number in crowded:
            crowds.setdefault(number, []).append(index)
        for image, annotation in pairs:
            if images.setdefault(image.image_id, image) != image:
                raise InputError(
                    f"{class_file(few_shot, 'coco', name)}: image id {image.image_id!r} is another "
                    "image there than in the file of another class"
                )
            objects.setdefault(image.image_id, []).append(annotation)
    return [
        replace(
            image,
            annotations=tuple(objects[number]),
            crowd_classes=tuple(crowds.get(number, ())),
        )
        for number, image in images.items()
    ]
