# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Generate the demo's data set: pictures of shapes in COCO format.

    python -m src.demo.make_data --output datasets/shapes --seed 0

The folder holds `annotations/{train,test}.json`, `images/{train,test}/*.jpg`, `preview.png` (some
test pictures with their boxes) and `manifest.json`. Twelve classes, three of them novel; the
novel ones are rarer in the training pictures. One seed decides every byte. A folder that is
complete and has the same settings is used again; anything else of this tool is replaced whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from src.demo.scenes import draw_scene
from src.demo.shapes import CLASSES, ShapeClass
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.errors import InputError
from src.util import run_main, set_up_logging, sha256_file, write_json

logger = logging.getLogger(__name__)

SPLITS = ("train", "test")
NOVEL_WEIGHT = {"train": 0.15, "test": 1.0}
"""How often a novel class appears for each appearance of a base class."""
OBJECT_COUNTS = (1, 2, 3, 4, 5)
OBJECT_COUNT_SHARES = (0.14, 0.26, 0.3, 0.2, 0.1)
_GENERATOR_VERSION = 2
_MANIFEST = "manifest.json"
_JPEG_QUALITY = 92
FLAGS: Flags = {
    "--output": dict(type=Path, required=True, help="folder of the data set"),
    "--seed": dict(type=int, default=0, help="decides every byte (default 0)"),
    "--train": dict(type=int, default=400, help="training pictures (default 400)"),
    "--test": dict(type=int, default=150, help="test pictures (default 150)"),
}
_PREVIEW_COLUMNS, _PREVIEW_ROWS, _PREVIEW_CELL = 4, 3, 232


@dataclass(frozen=True)
class PicturePlan:
    """What one picture will hold, decided before any is drawn.

    Attributes:
        path: the file, relative to the data set's folder.
        image_id: id in the annotation file, unique over both splits.
        height: pixels.
        width: pixels.
        classes: one entry per object, from back to front.
        entropy: seed of the picture's own generator.
    """

    path: str
    image_id: int
    height: int
    width: int
    classes: tuple[ShapeClass, ...]
    entropy: tuple[int, ...]


def deal_classes(rng: np.random.Generator, total: int, novel_weight: float) -> list[ShapeClass]:
    """Return `total` classes in random order, each class as often as its weight says.

    Counts differ from the exact share by less than one.
    """
    weights = np.asarray([novel_weight if shape.novel else 1.0 for shape in CLASSES])
    bounds = np.rint(np.cumsum(weights) / weights.sum() * total).astype(np.int64)
    counts = np.diff(bounds, prepend=0)
    deck = [shape for shape, count in zip(CLASSES, counts) for _ in range(int(count))]
    return [deck[int(index)] for index in rng.permutation(len(deck))]


def plan_split(split: str, count: int, seed: int, first_id: int) -> list[PicturePlan]:
    """Decide sizes and classes of a split's pictures.

    Args:
        split: "train" or "test".
        count: number of pictures.
        seed: the data set's seed.
        first_id: id of the first picture.
    """
    number = SPLITS.index(split)
    rng = np.random.default_rng([seed, number])
    counts = rng.choice(OBJECT_COUNTS, size=count, p=OBJECT_COUNT_SHARES)
    deck = iter(deal_classes(rng, int(counts.sum()), NOVEL_WEIGHT[split]))
    plans = []
    for index in range(count):
        long_edge, short_edge = int(rng.integers(192, 225)), int(rng.integers(160, 193))
        height, width = (short_edge, long_edge) if rng.random() < 0.6 else (long_edge, short_edge)
        classes = tuple(next(deck) for _ in range(int(counts[index])))
        path = f"images/{split}/{first_id + index:06d}.jpg"
        plans.append(
            PicturePlan(path, first_id + index, height, width, classes, (seed, number, index))
        )
    return plans


def draw_picture(folder: Path, plan: PicturePlan) -> list[dict[str, Any]]:
    """Draw a picture into `folder`; return its annotations (COCO, without ids)."""
    rng = np.random.default_rng(plan.entropy)
    scene = draw_scene(rng, plan.height, plan.width, plan.classes)
    Image.fromarray(scene.pixels).save(
        folder / plan.path, quality=_JPEG_QUALITY, subsampling=0, optimize=False
    )
    return [
        {
            "image_id": plan.image_id,
            "category_id": item.shape.category_id,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": item.area,
            "iscrowd": 0,
        }
        for item in scene.objects
        for x1, y1, x2, y2 in [item.box]
    ]


def coco_file(
    plans: Sequence[PicturePlan], annotations: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Assemble the content of a COCO annotation file."""
    return {
        "info": {"description": "Generated shapes, DeFRCN demo", "version": "1.0"},
        "images": [
            {
                "id": plan.image_id,
                "file_name": Path(plan.path).name,
                "height": plan.height,
                "width": plan.width,
            }
            for plan in plans
        ],
        "annotations": [{"id": index + 1, **row} for index, row in enumerate(annotations)],
        "categories": [
            {"id": shape.category_id, "name": shape.name, "supercategory": "shape"}
            for shape in CLASSES
        ],
    }


def make_demo_data(output: Path, *, seed: int, num_train: int, num_test: int) -> bool:
    """Generate the data set, or use what is there.

    Args:
        output: the data set's folder. It is written beside itself and renamed when whole.
        seed: decides every byte.
        num_train: number of training pictures.
        num_test: number of test pictures.

    Returns:
        True if the data set was generated, False if a complete one was there.

    Raises:
        InputError: for counts below one, a negative seed, a folder that holds something else,
            or one that cannot be written.
    """
    if num_train < 1 or num_test < 1:
        raise InputError("--train and --test: at least one picture each is needed.")
    if seed < 0:
        raise InputError(f"--seed {seed}: must be 0 or more.")
    settings = {
        "generator": _GENERATOR_VERSION,
        "seed": seed,
        "train": num_train,
        "test": num_test,
    }
    _check_replaceable(output)
    if _is_complete(output, settings):
        logger.info("%s is complete; using it again", output)
        return False
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.partial-"))
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written ({error}).") from error
    try:
        _write_data_set(partial, settings)
        _swap(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def _write_data_set(folder: Path, settings: dict[str, int]) -> None:
    """Write pictures, annotations, preview and, last, the manifest."""
    first_id = 1
    for split in SPLITS:
        plans = plan_split(split, settings[split], settings["seed"], first_id)
        first_id += len(plans)
        (folder / "images" / split).mkdir(parents=True)
        bar = tqdm(
            _draw_all(folder, plans),
            total=len(plans),
            desc=f"drawing {split}",
            mininterval=0.2 if sys.stderr.isatty() else 5.0,
        )
        rows = [row for picture in bar for row in picture]
        write_json(folder / "annotations" / f"{split}.json", coco_file(plans, rows), indent=None)
        counts = Counter(row["category_id"] for row in rows)
        logger.info(
            "%s: %d pictures, %d objects (%s)",
            split,
            len(plans),
            len(rows),
            ", ".join(f"{shape.name} {counts[shape.category_id]}" for shape in CLASSES),
        )
    _write_preview(folder)
    write_json(folder / _MANIFEST, {"settings": settings, "sha256": _checksums(folder)})


def _draw_all(folder: Path, plans: Sequence[PicturePlan]) -> Iterator[list[dict[str, Any]]]:
    """Draw pictures in several processes; results come in the order of the plans."""
    workers = min(os.cpu_count() or 1, 8, len(plans) // 32)
    if workers < 2:
        yield from (draw_picture(folder, plan) for plan in plans)
        return
    # Spawned, not forked: the caller may hold threads (MindSpore's, in tests).
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
        yield from pool.map(draw_picture, [folder] * len(plans), plans, chunksize=4)


def _write_preview(folder: Path) -> None:
    """Write a sheet of test pictures with their boxes and names."""
    content = json.loads((folder / "annotations" / "test.json").read_text(encoding="utf-8"))
    names = {shape.category_id: shape.name for shape in CLASSES}
    cell = _PREVIEW_CELL
    sheet = Image.new("RGB", (_PREVIEW_COLUMNS * cell, _PREVIEW_ROWS * cell), (245, 245, 245))
    for index, image in enumerate(content["images"][: _PREVIEW_COLUMNS * _PREVIEW_ROWS]):
        with Image.open(folder / "images" / "test" / image["file_name"]) as picture:
            canvas = picture.convert("RGB")
        draw = ImageDraw.Draw(canvas)
        for row in content["annotations"]:
            if row["image_id"] == image["id"]:
                x, y, width, height = row["bbox"]
                draw.rectangle((x, y, x + width, y + height), outline=(255, 255, 255))
                draw.text((x + 2, y), names[row["category_id"]], fill=(255, 255, 255),
                          stroke_width=1, stroke_fill=(0, 0, 0))  # fmt: skip
        left = index % _PREVIEW_COLUMNS * cell + (cell - canvas.width) // 2
        top = index // _PREVIEW_COLUMNS * cell + (cell - canvas.height) // 2
        sheet.paste(canvas, (left, top))
    sheet.save(folder / "preview.png")


def _checksums(folder: Path) -> dict[str, str]:
    """Return SHA-256 of each annotation file and of each image folder's names and bytes."""
    sums = {}
    for split in SPLITS:
        name = f"annotations/{split}.json"
        sums[name] = sha256_file(folder / name)
        digest = hashlib.sha256()
        for path in sorted((folder / "images" / split).iterdir()):
            digest.update(f"{path.name} {sha256_file(path)}\n".encode())
        sums[f"images/{split}"] = digest.hexdigest()
    return sums


def _is_complete(folder: Path, settings: dict[str, int]) -> bool:
    """Say whether a folder holds these settings' data set, undamaged."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest["settings"] == settings and manifest["sha256"] == _checksums(folder))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_replaceable(output: Path) -> None:
    """Refuse a folder that this tool did not make."""
    if not output.exists():
        return
    if not output.is_dir():
        raise InputError(f"--output {output}: is a file; name a folder.")
    if any(output.iterdir()) and not (output / _MANIFEST).is_file():
        raise InputError(
            f"--output {output}: holds other files (no {_MANIFEST}); name an empty or new folder."
        )


def _swap(partial: Path, output: Path) -> None:
    """Put the finished folder in its place; an older one goes away last."""
    partial.chmod(0o755)
    if not output.exists():
        os.replace(partial, output)
        return
    old = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.old-"))
    os.replace(output, old / output.name)
    os.replace(partial, output)
    shutil.rmtree(old)


def main(argv: Sequence[str] | None = None) -> int:
    """Generate the data set named on the command line."""
    parser = command_parser(
        FLAGS, program="python -m src.demo.make_data", description="Generate the demo's pictures."
    )
    arguments = parser.parse_args(argv)
    set_up_logging()
    make_demo_data(
        arguments.output,
        seed=arguments.seed,
        num_train=arguments.train,
        num_test=arguments.test,
    )
    return 0


if __name__ == "__main__":
    run_main(main)
