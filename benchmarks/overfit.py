# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Over-fit a small network, from scratch, to a few photographs: proof that everything learns.

    python benchmarks/overfit.py --data DATASETS_ROOT --output DIR [--images 8] [--steps 1200]

DATASETS_ROOT holds COCO in the official layout (see the README). The pictures are the first
ones of trainvalno5k with two to six large base-class objects, no two of a class so close that
non-maximum suppression must drop one; training and evaluation use the same pictures. AP50 should
reach 0.9: what is missing shows a fault, not a hard data set.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.defrcn.built_datacategory import COCO_NOVEL_CLASSES  # noqa: E402
from src.util import write_json, write_text  # noqa: E402


def _separable(entries: list[dict]) -> bool:
    """Whether no two objects of one class overlap by more than the test's NMS threshold, 0.5."""
    classes = np.array([entry["category_id"] for entry in entries])
    boxes = np.array([entry["bbox"] for entry in entries], np.float64)  # x, y, width, height
    same = np.triu(classes[:, None] == classes[None], k=1)
    overlaps = mask.iou(boxes, boxes, [0] * len(boxes))
    return bool((overlaps[same] <= 0.5).all())


def choose(annotations: dict, count: int) -> dict:
    """The first `count` pictures with a few large base objects and nothing else."""
    names = {category["id"]: category["name"] for category in annotations["categories"]}
    by_image: dict[int, list] = {}
    for entry in annotations["annotations"]:
        by_image.setdefault(entry["image_id"], []).append(entry)
    chosen = []
    for image in annotations["images"]:
        entries = by_image.get(image["id"], [])
        base = all(names[e["category_id"]] not in COCO_NOVEL_CLASSES for e in entries)
        large = all(min(e["bbox"][2:]) > 60 and not e["iscrowd"] for e in entries)
        if 2 <= len(entries) <= 6 and base and large and _separable(entries):
            chosen.append(image)
    chosen = chosen[:count]
    if len(chosen) < count:
        raise SystemExit(f"only {len(chosen)} pictures fit; name a larger data set")
    kept = [entry for image in chosen for entry in by_image[image["id"]]]
    used = {entry["category_id"] for entry in kept}
    categories = [c for c in annotations["categories"] if c["id"] in used]
    return {"images": chosen, "annotations": kept, "categories": categories}


def main(argv: Sequence[str] | None = None) -> int:
    """Choose the pictures, train, evaluate on them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args(argv)
    import train

    source = arguments.data / "cocosplit" / "datasplit" / "trainvalno5k.json"
    output = arguments.output.resolve()
    write_json(output / "few.json", choose(json.loads(source.read_text()), arguments.images))
    pictures = (arguments.data / "coco" / "trainval2014").resolve()
    steps = arguments.steps
    same = f"{{annotations: {json.dumps(str(output / 'few.json'))}, images: {json.dumps(str(pictures))}}}"
    write_text(
        output / "few.yaml",
        f"base: {json.dumps(str(ROOT / 'configs' / 'demo' / 'shapes_base.yaml'))}\n"
        "data:\n  train: [few_train_all]\n  test: [few_test_all]\n  custom:\n"
        f"    few: {{format: coco, train: {same}, test: {same}}}\n"
        "input: {min_size_train: [256], max_size_train: 400, min_size_test: 256, max_size_test: 400}\n"
        # L1 and more samples than the demo has: boxes that overlap their neighbours must be exact.
        "model:\n  anchors: {sizes: [32, 64, 96, 144, 216]}\n"
        "  roi_heads: {batch_size_per_image: 64, smooth_l1_beta: 0.0}\n"
        f"solver: {{max_iter: {steps}, steps: [{steps * 3 // 4}, {steps * 9 // 10}]}}\n",
    )
    return train.main(
        [
            f"--config_path={output / 'few.yaml'}",
            f"--train_mindrecord_dir={output / 'mindrecord' / 'train'}",
            f"--test_mindrecord_dir={output / 'mindrecord' / 'test'}",
            f"--save_checkpoint_path={output}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
