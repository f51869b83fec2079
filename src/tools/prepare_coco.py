# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Make the COCO 2014 tree that training expects out of the official downloads, or check one.

    python -m src.tools.prepare_coco --source=DIR     # DIR has train2014, val2014, annotations
    python -m src.tools.prepare_coco --check

The tree, under `--datasets_root` (default `datasets`):

    coco/{train2014,val2014,annotations}        the downloads, or links to them
    coco/trainval2014                           links to every image of both
    cocosplit/datasplit/5k.json                 the 5000 test images of the few-shot split
    cocosplit/datasplit/trainvalno5k.json       every other image that has an object
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from src.defrcn.built_datacategory import COCO_CATEGORIES, DatasetInfo, resolve_dataset
from src.defrcn.data_types import Record
from src.defrcn.meta_coco import load_records, read_json
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.errors import InputError
from src.util import listing, run_main, set_up_logging, write_json

logger = logging.getLogger(__name__)

TEST_IDS = Path(__file__).resolve().with_name("coco_5k_ids.txt")
PARTS = ("train2014", "val2014")
OFFICIAL_IMAGES = 82_783 + 40_504
OFFICIAL_COUNTS = {"5k": (5_000, 35_511), "trainvalno5k": (117_264, None)}
FLAGS: Flags = {
    "--datasets_root": dict(type=Path, default=Path("datasets")),
    "--coco_root": dict(default="", help="images; default <datasets_root>/coco"),
    "--source": dict(type=Path, help="unpacked downloads; default: coco_root"),
    "--check": dict(action="store_true", help="change nothing; say what is missing"),
    "--overwrite": dict(action="store_true", help="write the split files anew"),
    "--allow_partial": dict(action="store_true", help="take a part of COCO 2014"),
}

Json = dict[str, Any]


def read_test_ids() -> frozenset[int]:
    """The ids of the 5000 val2014 images that few-shot work on COCO is tested on."""
    return frozenset(int(line) for line in TEST_IDS.read_text(encoding="ascii").split())


def split_annotations(train: Json, val: Json, test_ids: frozenset[int]) -> tuple[Json, Json]:
    """Divide the official annotations into test and training part.

    Args:
        train: content of `instances_train2014.json`.
        val: content of `instances_val2014.json`.
        test_ids: ids of the test images; those that occur in `val` are taken.

    Returns:
        The test part, with all images of `test_ids`, and the training part, with every other
        image that has at least one annotation, crowds included.
    """
    annotated = {entry["image_id"] for part in (train, val) for entry in part["annotations"]}
    val_ids = {image["id"] for image in val["images"]}
    test = test_ids & val_ids

    def part(sources: Sequence[Json], wanted: set[int] | frozenset[int]) -> Json:
        images = [image for source in sources for image in source["images"]]
        entries = [entry for source in sources for entry in source["annotations"]]
        return {
            **{key: val[key] for key in ("info", "licenses") if key in val},
            "images": [image for image in images if image["id"] in wanted],
            "annotations": [entry for entry in entries if entry["image_id"] in wanted],
            "categories": val["categories"],
        }

    return part([val], test), part([train, val], annotated - test)


def _link(content: str | Path, target: Path) -> bool:
    """Make `target` a link with this content unless it is there; True if a link was made."""
    if target.exists():
        return False
    try:
        if target.is_symlink():  # leads nowhere, perhaps because the downloads were moved
            target.unlink()
        os.symlink(content, target)
    except OSError as error:
        raise InputError(f"{target} cannot be linked to {content}: {error}") from error
    return True


def _downloads(source: Path) -> dict[str, Path]:
    """The parts of the official downloads.

    Raises:
        InputError: naming everything that is missing.
    """
    folders = {part: source / part for part in PARTS}
    names = [f"instances_{part}" for part in PARTS]
    files = {name: source / "annotations" / f"{name}.json" for name in names}
    missing = [str(path) for path in folders.values() if not path.is_dir()]
    missing += [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise InputError(
            f"missing: {', '.join(missing)}; download train2014.zip, val2014.zip and "
            f"annotations_trainval2014.zip from cocodataset.org and unpack them in {source}, or "
            "name their folder with --source"
        )
    return {**folders, **files}


def link_images(downloads: dict[str, Path], coco: Path, show_progress: bool) -> int:
    """Fill `trainval2014` with links to both image folders, and link what lies elsewhere.

    Returns:
        The number of new links in `trainval2014`.
    """
    together = coco / "trainval2014"
    together.mkdir(parents=True, exist_ok=True)
    (coco / "annotations").mkdir(exist_ok=True)
    for part in PARTS:
        _link(downloads[part].resolve(), coco / part)
        annotations = downloads[f"instances_{part}"]
        _link(annotations.resolve(), coco / "annotations" / annotations.name)
    made = 0
    for part in PARTS:
        names = sorted(entry.name for entry in os.scandir(downloads[part]))
        names = [name for name in names if name.lower().endswith(".jpg")]
        for name in tqdm(names, desc=part, unit="link", disable=not show_progress):
            made += _link(Path("..", part, name), together / name)
    return made


def _check_official(train: Json, val: Json, test: Json, trainval: Json, partial: bool) -> None:
    """Refuse inputs that do not give the published split."""
    names = {entry.get("id"): entry.get("name") for entry in val["categories"]}
    if names != dict(COCO_CATEGORIES):
        raise InputError("the categories of instances_val2014.json are not COCO's 80")
    if len(train["images"]) + len(val["images"]) != OFFICIAL_IMAGES:
        if not partial:
            raise InputError(
                f"the annotation files list {len(train['images']) + len(val['images'])} images, "
                f"not COCO 2014's {OFFICIAL_IMAGES}; --allow_partial takes a part of it"
            )
        return
    for name, part in (("5k", test), ("trainvalno5k", trainval)):
        images, boxes = OFFICIAL_COUNTS[name]
        found = (len(part["images"]), len(part["annotations"]))
        if found[0] != images or boxes not in (None, found[1]):
            raise InputError(
                f"{name}.json would hold {found[0]} images with {found[1]} annotations, which is "
                "not the published split; are the annotation files the official ones?"
            )


def write_splits(
    downloads: dict[str, Path], splits: Path, *, partial: bool, overwrite: bool
) -> None:
    """Write `5k.json` and `trainvalno5k.json`; files that are there are kept."""
    targets = [splits / "5k.json", splits / "trainvalno5k.json"]
    if all(path.exists() for path in targets) and not overwrite:
        logger.info("%s: both annotation files are there and kept (--overwrite)", splits)
        return
    logger.info("reading the official annotations (some minutes, up to 6 GB of memory)")
    train = read_json(downloads["instances_train2014"])
    val = read_json(downloads["instances_val2014"])
    test, trainval = split_annotations(train, val, read_test_ids())
    _check_official(train, val, test, trainval, partial)
    for path, part in zip(targets, (test, trainval)):
        if path.exists() and not overwrite:
            logger.info("%s is there and kept (--overwrite)", path)
            continue
        write_json(path, part, indent=None)
        logger.info(
            "%s: %d images, %d annotations", path, len(part["images"]), len(part["annotations"])
        )


def check_set(info: DatasetInfo) -> tuple[list[str], list[Record]]:
    """What is missing of one data set, one line each, and its images if nothing is."""
    lines = [f"missing: {info.annotations}"] if not info.annotations.is_file() else []
    if not info.image_root.is_dir():
        lines.append(f"missing: {info.image_root} (folder)")
    if lines:
        return lines, []
    try:
        records = load_records(info)
    except InputError as error:
        return [f"wrong: {error}"], []
    with os.scandir(info.image_root) as entries:  # links that lead nowhere are no files
        present = {entry.name for entry in entries if entry.is_file()}
    names = [Path(record.file_name) for record in records]
    missing = [str(path) for path in names if path.name not in present and not path.is_file()]
    if missing:
        lines = [
            f"missing: {len(missing)} images that {info.annotations} lists: {listing(missing)}"
        ]
    return lines, records


def check_tree(datasets_root: Path, coco_root: str) -> tuple[list[str], list[str]]:
    """Check the tree that `coco14_*` data sets need.

    Returns:
        Lines on what is fine or remarkable, and lines on what is missing or wrong.
    """
    good, bad = [], []
    for part in ("trainval", "test"):
        info = resolve_dataset(
            f"coco14_{part}_all", datasets_root=datasets_root, coco_root=coco_root
        )
        lines, records = check_set(info)
        bad += lines
        if lines:
            continue
        boxes = sum(len(record.annotations) for record in records)
        good.append(f"ok: {info.annotations}: {len(records)} images, {boxes} annotations")
        test_ids = read_test_ids()
        known = {record.image_id for record in records} & test_ids
        if part == "test" and len(known) < len(test_ids):
            good.append(
                f"note: only {len(known)} of the {len(test_ids)} published test images are in "
                f"{info.annotations}"
            )
        if part == "trainval" and known:
            bad.append(f"wrong: {len(known)} published test images are in {info.annotations}")
    return good, bad


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare and check, or only check; 0 if the tree is complete, else 1."""
    parser = command_parser(FLAGS, program="python -m src.tools.prepare_coco", description=__doc__)
    flags = parser.parse_args(argv)
    set_up_logging()
    coco = Path(flags.coco_root) if flags.coco_root else flags.datasets_root / "coco"
    if not flags.check:
        downloads = _downloads(flags.source or coco)
        made = link_images(downloads, coco, show_progress=sys.stderr.isatty())
        logger.info("%s: %d new links", coco / "trainval2014", made)
        splits = flags.datasets_root / "cocosplit" / "datasplit"
        write_splits(downloads, splits, partial=flags.allow_partial, overwrite=flags.overwrite)
    good, bad = check_tree(flags.datasets_root, flags.coco_root)
    sys.stdout.write("\n".join([*good, *bad]) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    run_main(main)
