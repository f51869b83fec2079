# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What data sets are made of: objects, images, and descriptions of sets. No file is read here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Union

XYXY: Literal[0] = 0
XYWH: Literal[1] = 1
ImageId = Union[int, str]


@dataclass(frozen=True)
class Annotation:
    """One labelled object.

    Attributes:
        bbox: four numbers in image-frame pixels, read according to `bbox_mode`.
        bbox_mode: 0 for (x1, y1, x2, y2), 1 for (x, y, width, height).
        category_id: class index 0..K-1 of the data set that was asked for.
        iscrowd: 1 for a region with many objects, which is not trained on.
        difficult: 1 for PASCAL VOC's 'difficult' objects: trained on, ignored in evaluation.
    """

    bbox: tuple[float, float, float, float]
    bbox_mode: Literal[0, 1]
    category_id: int
    iscrowd: int = 0
    difficult: int = 0


@dataclass(frozen=True)
class Record:
    """One image: path, id, height and width in pixels (EXIF orientation applied), objects.

    Attributes:
        crowd_classes: class indices of crowds that K-shot files have on it: these are no objects of
            the set, but say what the image is labelled for.
    """

    file_name: str
    image_id: ImageId
    height: int
    width: int
    annotations: tuple[Annotation, ...]
    # not in the text that tells MindRecord folders apart: most do not depend on it
    crowd_classes: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class FewShot:
    """Which K-shot files a few-shot set is read from (TFA's layout: one file a class).

    Attributes:
        folder: folder of the seeds' folders: `seed0`, `seed1`, ...
        shot: K, the number of boxes of a class.
        seed: number of the set; it also seeds the draw where a file lists more than K boxes.
        seeded: False draws differently at every reading, as the official code does for VOC.
        voc_root: PASCAL VOC only: folder of VOC2007 and VOC2012; a file lists images of both.
    """

    folder: Path
    shot: int
    seed: int
    seeded: bool = True
    voc_root: Path | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set's name stands for.

    Attributes:
        name: for example `coco14_trainval_base`.
        format: "coco", "voc" or "yolo".
        annotations: COCO JSON file, folder of VOC XML files, or YOLO's data.yaml.
        image_root: folder of the images; YOLO format: or a text file that lists them.
        image_list: VOC format: optional file with the image ids, one a line.
        class_names: the classes of this split; the position is the class index.
        category_ids: the annotation file's ids in the same order (VOC and YOLO format: 1..K).
        base_classes: names; base and novel together are the classes of the whole data set.
        novel_classes: names.
        split: "all", "base" or "novel": which classes `class_names` holds.
        known_category_ids: every id that may occur in the annotations; an id outside is an error,
            an id inside but of another split is left out.
        class_source: data set of one's own: the training annotations, whose classes decide.
        class_source_list: VOC format: the image list that goes with `class_source`.
        declared_classes: VOC format: class order given by the user, or empty.
        few_shot: the K-shot files that the records come from; None for a full set.

    The class fields of a data set of one's own are empty until `read_classes` of its format's
    module (`meta_coco`, `meta_voc`, `meta_yolo`) has read them from `class_source`.
    """

    name: str
    format: str
    annotations: Path
    image_root: Path
    image_list: Path | None
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    base_classes: tuple[str, ...]
    novel_classes: tuple[str, ...]
    split: str = "all"
    known_category_ids: tuple[int, ...] = ()
    class_source: Path | None = None
    class_source_list: Path | None = None
    declared_classes: tuple[str, ...] = ()
    few_shot: FewShot | None = None
