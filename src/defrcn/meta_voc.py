# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Read folders of PASCAL VOC-style XML files into records.

The XML is foreign text: document type declarations and entities are refused, so that no file can
expand without bound or pull in another one.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from src.defrcn.data_types import XYXY, Annotation, DatasetInfo, FewShot, Record
from src.defrcn.few_shot import class_file, draw, has_files
from src.defrcn.meta_coco import MAX_SIDE, image_path, with_classes
from src.defrcn.meta_coco import load_few_shot as load_coco_few_shot
from src.model_utils.errors import InputError
from src.util import read_regular, suggestion

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
MAX_XML_BYTES = 16 << 20


def parse_xml(path: Path) -> ElementTree.Element:
    """Parse one annotation file.

    Raises:
        InputError: the file is missing, too large, not XML, or declares a document type.
    """

    def refuse(*_: object) -> None:
        raise InputError(f"{path}: document type declarations and entities are not accepted")

    checker = expat.ParserCreate()
    checker.StartDoctypeDeclHandler = refuse
    checker.EntityDeclHandler = refuse
    try:
        content = read_regular(path, MAX_XML_BYTES)
        checker.Parse(content, True)
        return ElementTree.fromstring(content)
    except FileNotFoundError:
        raise InputError(f"annotation file {path} does not exist") from None
    except (OSError, ValueError, LookupError, expat.ExpatError, ElementTree.ParseError) as error:
        raise InputError(f"annotation file {path} cannot be read as XML: {error}") from error


def _read_list(path: Path, what: str) -> str:
    try:
        return read_regular(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} {path} cannot be read: {error}") from error


def _image_ids(annotations: Path, image_list: Path | None) -> list[str]:
    """Image ids: the lines of the list, or every XML file of the folder in sorted order."""
    if image_list is None:
        if not annotations.is_dir():
            raise InputError(f"folder of annotations {annotations} does not exist")
        ids = sorted(entry.stem for entry in annotations.iterdir() if entry.suffix == ".xml")
        if not ids:
            raise InputError(f"folder of annotations {annotations} holds no XML file")
        return ids
    # a list of one class has a second column (1, -1, 0), which is not an id
    lines = _read_list(image_list, "image list").splitlines()
    ids = [line.split()[0] for line in lines if line.strip()]
    if len(set(ids)) < len(ids):
        raise InputError(f"image list {image_list} names an image twice")
    return ids


def _text(element: ElementTree.Element, tag: str, source: str) -> str:
    found = element.findtext(tag)
    if found is None or not found.strip():
        raise InputError(f"{source}: <{tag}> is missing")
    return found.strip()


def _number(element: ElementTree.Element, tag: str, source: str) -> float:
    text = _text(element, tag, source)
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{source}: <{tag}> is {text!r}, not a number") from None
    if not math.isfinite(value):
        raise InputError(f"{source}: <{tag}> is {text}; correct or remove the box")
    return value


def _object(
    element: ElementTree.Element, class_ids: dict[str, int], known: list[str], source: str
) -> Annotation | None:
    """One object, or None for a class of the other split."""
    name = _text(element, "name", source)
    source = f"{source}: object {name!r}"
    if name not in known:
        raise InputError(f"{source}: not a class of the data set{suggestion(name, known)}")
    box = element.find("bndbox")
    if box is None:
        raise InputError(f"{source}: <bndbox> is missing")
    x1, y1, x2, y2 = (_number(box, tag, source) for tag in ("xmin", "ymin", "xmax", "ymax"))
    if name not in class_ids:
        return None
    # VOC counts pixels from 1 and includes the last one: only the first corner moves.
    corners = (x1 - 1.0, y1 - 1.0, x2, y2)
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return Annotation(corners, XYXY, class_ids[name], difficult=int(difficult))


def read_classes(info: DatasetInfo) -> DatasetInfo:
    """Fill in the classes: as declared, or every name of the training files in sorted order."""
    if info.class_names or info.class_source is None:
        return info
    names = list(info.declared_classes)
    if not names:
        ids = _image_ids(info.class_source, info.class_source_list)
        paths = [_annotation_path(info.class_source, image_id) for image_id in ids]
        objects = ((path, one) for path in paths for one in parse_xml(path).iter("object"))
        names = sorted({_text(one, "name", str(path)) for path, one in objects})
    if len(set(names)) < len(names):
        raise InputError(f"{info.name}: a class is declared twice in {names}")
    return with_classes(info, list(enumerate(names, start=1)))


def _annotation_path(folder: Path, image_id: str) -> Path:
    """The XML file of an image id, which may not lead out of the folder."""
    return Path(image_path(folder, f"{image_id}.xml", f"image id {image_id!r}"))


def _read_image(
    info: DatasetInfo, image_id: str, class_ids: dict[str, int], present: set[str]
) -> Record:
    """One annotation file with the objects of some classes."""
    path = _annotation_path(info.annotations, image_id)
    root = parse_xml(path)
    source = str(path)
    height, width = (int(_number(root, f"size/{tag}", source)) for tag in ("height", "width"))
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise InputError(f"{source}: <size> says {width} x {height} pixels")
    known = [*info.base_classes, *info.novel_classes]
    objects = [_object(item, class_ids, known, source) for item in root.findall("object")]
    kept = tuple(item for item in objects if item is not None)
    # the same name with an image suffix, or as <filename> says
    stated = (root.findtext("filename") or "").strip() or f"{image_id}.jpg"
    names = (image_id + ending for suffix in IMAGE_SUFFIXES for ending in (suffix, suffix.upper()))
    name = next((name for name in names if name in present), stated)
    file_name = image_path(info.image_root, name, source)
    return Record(file_name, image_id, height, width, kept)


def load_records(info: DatasetInfo) -> list[Record]:
    """Read the images of a data set, whose classes are known, with the objects of these.

    Images come in the order of the image list (without one: of their names). Boxes are
    (x1, y1, x2, y2) with 1 taken from the first corner, as VOC counts pixels from 1. A K-shot set
    is another matter: see `load_few_shot`.

    Raises:
        InputError: a file is missing or wrong; the message names it.
    """
    if info.few_shot is not None:
        return load_few_shot(info, info.few_shot)
    present = _images_of(info)
    class_ids = {name: index for index, name in enumerate(info.class_names)}
    ids = _image_ids(info.annotations, info.image_list)
    return [_read_image(info, image_id, class_ids, present) for image_id in ids]


def _images_of(info: DatasetInfo) -> set[str]:
    if not info.image_root.is_dir():
        raise InputError(f"image folder {info.image_root} does not exist")
    return set(os.listdir(info.image_root))


def _listed_ids(path: Path) -> list[str]:
    """Image ids of a K-shot list: paths such as datasets/VOC2007/JPEGImages/000013.jpg, or ids.

    Some of TFA's lists name an image twice, and its objects then count twice, as officially.
    """
    lines = _read_list(path, "K-shot list").split()
    return [re.sub(r"\.(jpe?g|png|bmp)$", "", line.split("/")[-1], flags=re.I) for line in lines]


def _year(info: DatasetInfo, image_id: str, voc_root: Path) -> DatasetInfo:
    """PASCAL VOC's folders for an image: only those of 2012 have an underscore in their ids."""
    root = voc_root / ("VOC2012" if "_" in image_id else "VOC2007")
    return replace(info, annotations=root / "Annotations", image_root=root / "JPEGImages")


def load_few_shot(info: DatasetInfo, few_shot: FewShot) -> list[Record]:
    """Read a K-shot set: one record an object, class after class.

    One's own may be in COCO's format, as `src.tools.draw_kshot` writes it: see
    `meta_coco.load_few_shot`. Otherwise a class's list names images; all objects of the class in
    them, also difficult ones, are taken or, if they are more than K, K of them. The draw is seeded
    by the set's seed (the official code's is not): see `few_shot.draw`.

    Raises:
        InputError: a class has no list or no object, or a file is missing or wrong.
    """
    lists = few_shot.voc_root is not None or has_files(few_shot, "voc", info.class_names)
    if not lists and has_files(few_shot, "coco", info.class_names):
        return load_coco_few_shot(info, few_shot)
    records = []
    folders: dict[Path, set[str]] = {}
    for index, name in enumerate(info.class_names):
        path = class_file(few_shot, "voc", name)
        found = []
        for image_id in _listed_ids(path):
            place = _year(info, image_id, few_shot.voc_root) if few_shot.voc_root else info
            if place.image_root not in folders:
                folders[place.image_root] = _images_of(place)
            image = _read_image(place, image_id, {name: index}, folders[place.image_root])
            found += [replace(image, annotations=(entry,)) for entry in image.annotations]
        records += draw(found, few_shot, name, path)
    return records
