"""Tables of the data sets: classes, base and novel split, names to paths. No file is read here.

The COCO table and the list of its novel classes are written once; every other view (base classes,
contiguous order, category ids of a split) is computed from them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from src.model_utils.errors import InputError

XYXY = 0
XYWH = 1
SPLITS = ("all", "base", "novel")
FORMATS = ("coco", "voc")

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
COCO_NOVEL_CLASSES: tuple[str, ...] = (
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "boat",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "bottle",
    "chair",
    "couch",
    "potted plant",
    "dining table",
    "tv",
)


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
    bbox_mode: int
    category_id: int
    iscrowd: int = 0
    difficult: int = 0


@dataclass(frozen=True)
class Record:
    """One image: path, id, height and width in pixels (EXIF orientation applied), objects."""

    file_name: str
    image_id: int | str
    height: int
    width: int
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True)
class CustomSource:
    """Where a part of a data set of one's own lies; paths relative to the data sets' root.

    Attributes:
        annotations: COCO-format JSON file, or folder of VOC-style XML files.
        images: folder of the images.
        image_list: VOC format only: text file with one image id a line (default: every XML file).
    """

    annotations: str
    images: str
    image_list: str = ""


@dataclass(frozen=True)
class CustomDataset:
    """A data set of one's own: format ("coco" or "voc"), two parts, the names of novel classes.

    `classes` fixes the class order of a VOC-format set; without it the names found in the training
    files are sorted. A COCO-format set has the order of its category ids.
    """

    format: str
    train: CustomSource
    test: CustomSource
    novel_classes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set's name stands for.

    Attributes:
        name: for example `coco14_trainval_base`.
        format: "coco" or "voc".
        annotations: COCO JSON file, or folder of VOC XML files.
        image_root: folder of the images.
        image_list: VOC format: optional file with the image ids, one a line.
        class_names: the classes of this split; the position is the class index.
        category_ids: the annotation file's ids in the same order (VOC format: 1..K).
        base_classes: names; base and novel together are the classes of the whole data set.
        novel_classes: names.
        split: "all", "base" or "novel": which classes `class_names` holds.
        known_category_ids: every id that may occur in the annotations; an id outside is an error,
            an id inside but of another split is left out.
        class_source: data set of one's own: the training annotations, whose classes decide.
        class_source_list: VOC format: the image list that goes with `class_source`.
        declared_classes: VOC format: class order given by the user, or empty.

    The class fields of a data set of one's own are empty until `meta_coco.read_classes` or
    `meta_voc.read_classes` has read them from `class_source`.
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


def _coco14(part: str, split: str, datasets_root: Path, coco_root: Path) -> DatasetInfo:
    names, numbers = split_classes(COCO_CATEGORIES, COCO_NOVEL_CLASSES, split)
    splits = datasets_root / "cocosplit" / "datasplit"
    trainval = part == "trainval"
    return DatasetInfo(
        name=f"coco14_{part}_{split}",
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


def _custom(name: str, part: str, split: str, own: CustomDataset, root: Path) -> DatasetInfo:
    full_name = f"{name}_{part}_{split}"
    if own.format not in FORMATS:
        raise InputError(
            f"data set {name!r}: format {own.format!r} is unknown; use one of {', '.join(FORMATS)}"
        )
    if split == "novel" and not own.novel_classes:
        raise InputError(f"{full_name}: the data set {name!r} names no novel classes")
    source = own.train if part == "train" else own.test

    def listed(path: str) -> Path | None:
        return root / path if path else None

    return DatasetInfo(
        name=full_name,
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


def resolve_dataset(
    name: str,
    *,
    datasets_root: str | Path = "datasets",
    coco_root: str | Path = "",
    custom: Mapping[str, CustomDataset] | None = None,
) -> DatasetInfo:
    """Look up a data set by name.

    Args:
        name: `coco14_{trainval,test}_{all,base,novel}`, or `<own>_{train,test}_{all,base,novel}`
            for each key `<own>` of `custom`.
        datasets_root: folder that the official layout starts from.
        coco_root: folder with COCO's images; empty for `<datasets_root>/coco`.
        custom: data sets of one's own.

    Raises:
        InputError: the name is unknown, or a novel split is asked of a set without novel classes.
    """
    root = Path(datasets_root)
    coco = Path(coco_root) if str(coco_root) else root / "coco"
    own = dict(custom or {})
    known = {f"coco14_{part}_{split}" for part in ("trainval", "test") for split in SPLITS}
    known |= {
        f"{key}_{part}_{split}" for key in own for part in ("train", "test") for split in SPLITS
    }
    if name not in known:
        raise InputError(
            f"data set {name!r} is unknown{suggestion(name, sorted(known))}; "
            f"known are {', '.join(sorted(known))}"
        )
    stem, part, split = name.rsplit("_", 2)
    if stem in own:
        return _custom(stem, part, split, own[stem], root)
    return _coco14(part, split, root, coco)
