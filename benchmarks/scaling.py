# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What several cards exchange and read: trained parameters in bytes, seconds to prepare a picture.

    python benchmarks/scaling.py [--json FILE]

Builds the R-101 detector of three configurations (nothing is trained) and prepares one generated
picture of COCO's usual size in one thread. docs/scaling.md goes on from these numbers.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CONFIGS = {
    "base": ("configs/coco/defrcn_det_r101_base.yaml", 60),
    "fsod": ("configs/coco/defrcn_fsod_r101_novel_10shot.yaml", 20),
    "gfsod": ("configs/coco/defrcn_gfsod_r101_novel_10shot.yaml", 80),
}
CARDS = (2, 8, 64)
HEIGHT, WIDTH = 480, 640
REPEATS = 20


def parameter_bytes(path: str, num_classes: int) -> dict[str, int]:
    """Number and bytes of parameters, all of them and those that are trained."""
    from src.assembly.training import make_detector
    from src.model_utils.config import load_config

    net = make_detector(load_config(ROOT / path), tuple(map(str, range(num_classes))))
    trained = list(net.trainable_params())
    return {
        "arrays": len(trained),
        "trained": sum(parameter.size for parameter in trained),
        "trained_bytes": sum(parameter.nbytes for parameter in trained),
        "all_bytes": sum(parameter.nbytes for parameter in net.get_parameters()),
    }


def picture_seconds() -> dict[str, float]:
    """Least and median seconds to decode, resize and normalise a picture in one thread."""
    from src.data.batching import Preprocessing, run_job
    from src.data.mindrecord_io import Row
    from src.data.transforms import resized_shape

    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    buffer = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(1.5)).save(buffer, "JPEG", quality=95)
    boxes, classes = np.array([[10, 10, 200, 200]], np.float32), np.zeros(1, np.int32)
    row = Row(buffer.getvalue(), boxes, classes, HEIGHT, WIDTH, 1, "generated.jpg")
    settings = Preprocessing(
        max_size=1333,
        pixel_mean=(103.53, 116.28, 123.675),
        pixel_std=(1.0, 1.0, 1.0),
        shapes=(),
        num_slots=1,
        max_pixels=10**8,
    )
    size = resized_shape(HEIGHT, WIDTH, 800, 1333)
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        batch = run_job([(row, size, True)], settings)
        taken.append(time.perf_counter() - started)
    return {
        "file_bytes": len(row.content),
        "input_bytes": batch.images.nbytes,
        "least": min(taken),
        "median": float(np.median(taken)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    found = {name: parameter_bytes(*config) for name, config in CONFIGS.items()}
    print("configuration  arrays  trained parameters  MB of gradients  MB of all weights")  # noqa: T201
    for name, one in found.items():
        print(  # noqa: T201
            f"{name:13}  {one['arrays']:6}  {one['trained']:18,}  {one['trained_bytes'] / 1e6:15.1f}"
            f"  {one['all_bytes'] / 1e6:17.1f}"
        )
    print(  # noqa: T201
        "\nMB that each card sends (and receives) in a ring all-reduce: 2 (n - 1) / n x gradients"
    )
    for name, one in found.items():
        sent = [2 * (n - 1) / n * one["trained_bytes"] / 1e6 for n in CARDS]
        text = "  ".join(f"{n} cards {value:.1f}" for n, value in zip(CARDS, sent))
        print(f"{name:13}  {text}")  # noqa: T201
    picture = picture_seconds()
    print(  # noqa: T201
        f"\npicture {WIDTH} x {HEIGHT}, {picture['file_bytes'] / 1e3:.0f} kB: "
        f"{1e3 * picture['least']:.1f} ms (median {1e3 * picture['median']:.1f}) in one thread, "
        f"input of {picture['input_bytes'] / 1e6:.1f} MB"
    )
    if options.json:
        options.json.write_text(json.dumps({"parameters": found, "picture": picture}, indent=2))


if __name__ == "__main__":
    main()
