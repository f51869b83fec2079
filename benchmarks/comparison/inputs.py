# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The numbers that both sides get, made anew in each process from a seed; NumPy alone.

Weights follow the rules of the golden vectors (`tests/golden/weights.py`): activations stay of
order one through all layers, and scores and boxes differ from place to place, so that suppression
and sampling have the work that a trained network gives them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.comparison.cases import Case
from tests.golden import weights

SEED = 1
LEARNING_RATE = 1e-6  # the optimizer works, the losses stay
SCORES = (0.05, 1.0)


def weights_for(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Weights of a network, given the shapes of its parameters by their official names."""
    return weights.make_state_dict({name: tuple(one) for name, one in shapes.items()}, SEED)


def fingerprint(arrays: Mapping[str, np.ndarray]) -> int:
    """A number that two sides with other weights will not share."""
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name].tobytes(), zlib.crc32(name.encode(), total))
    return total


def picture(height: int, width: int, seed: int = SEED) -> np.ndarray:
    """Squares of all sizes, (H, W, 3) uint8 BGR."""
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 116.0)
    for side, contrast in ((96, 36), (40, 30), (16, 24), (5, 16), (1, 6)):
        rows, columns = np.arange(height) // side, np.arange(width) // side
        blocks = rng.standard_normal((rows[-1] + 1, columns[-1] + 1, 3))
        total += contrast * blocks[rows][:, columns]
    return np.clip(total, 0, 255).astype(np.uint8)


def images(case: Case, section: Any, number: int = 0) -> np.ndarray:  # noqa: ANN401
    """A batch (N, 3, H, W) float32 of size `number`, normalised by the `input` section."""
    height, width = case.sizes[number]
    mean, std = np.float32(section.pixel_mean), np.float32(section.pixel_std)
    batch = [(picture(height, width, SEED + i) - mean) / std for i in range(case.images)]
    return np.ascontiguousarray(np.stack(batch).transpose(0, 3, 1, 2).astype(np.float32))


@dataclass(frozen=True)
class Training:
    """A batch for a training step; all slots are in use.

    Attributes:
        images: (N, 3, H, W) float32.
        sizes: (N, 2) float32, height and width.
        boxes: (N, G, 4) float32.
        classes: (N, G) int32.
        rpn_noise: (N, A) float32 in [0, 1).
        roi_noise: (N, P + G) float32.
        dropout_noise: (N * S, 2C) float32, or (1, 1) without dropout.
    """

    images: np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    rpn_noise: np.ndarray
    roi_noise: np.ndarray
    dropout_noise: np.ndarray


def training(case: Case, config: Any) -> Training:  # noqa: ANN401
    """The batch of a training case, by its configuration."""
    rng = np.random.default_rng(SEED)
    height, width = case.sizes[0]
    model, count = config.model, (case.images, case.objects)
    least, most = 24, min(height, width) / 2
    corners = rng.uniform(0, 1, (*count, 2)) * (np.array([width, height]) - most)
    spans = rng.uniform(least, most, (*count, 2))
    cells = -(-height // 16) * -(-width // 16)
    anchors = len(model.anchors.sizes) * len(model.anchors.aspect_ratios)
    drops = (1, 1)
    if model.roi_heads.cls_dropout:
        rows = case.images * model.roi_heads.batch_size_per_image
        drops = (rows, 8 * model.backbone.res2_out_channels)
    return Training(
        images(case, config.input),
        np.tile(np.float32([height, width]), (case.images, 1)),
        np.concatenate((corners, corners + spans), -1).astype(np.float32),
        rng.integers(0, case.classes, count).astype(np.int32),
        rng.random((case.images, cells * anchors), np.float32),
        rng.random((case.images, model.rpn.post_nms_topk_train + case.objects), np.float32),
        rng.random(drops, np.float32),
    )


@dataclass(frozen=True)
class Calibration:
    """Detections of a picture: pixels, boxes (R, 4), scores (R,), classes (R,), prototypes."""

    pixels: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    prototypes: np.ndarray


def calibration(case: Case) -> Calibration:
    """The picture and detections of the calibration case; prototypes are (K, 1000)."""
    rng = np.random.default_rng(SEED)
    height, width = case.sizes[0]
    corners = rng.uniform(0, 0.7, (case.objects, 2)) * (width, height)
    spans = rng.uniform(0.05, 0.3, (case.objects, 2)) * (width, height)
    return Calibration(
        picture(height, width),
        np.concatenate((corners, corners + spans), 1).astype(np.float32),
        rng.uniform(*SCORES, case.objects).astype(np.float32),
        rng.integers(0, case.classes, case.objects),
        rng.standard_normal((case.classes, 1000)).astype(np.float32),
    )


def annotations(case: Case) -> tuple[dict, list[dict]]:
    """Ground truth in COCO's format and rows of detections, near objects and elsewhere."""
    rng = np.random.default_rng(SEED)
    # some versions of pycocotools copy "info" whether it is there or not
    table: dict[str, list[dict]] = {
        "info": [],
        "images": [],
        "annotations": [],
        "categories": [],
    }
    table["categories"] = [{"id": k + 1, "name": f"class{k}"} for k in range(case.classes)]
    rows = []
    for image in range(1, case.images + 1):
        table["images"].append({"id": image, "height": 480, "width": 640})
        objects = _boxes(rng, rng.integers(1, 15))
        labels = rng.integers(1, case.classes + 1, len(objects))
        for box, label in zip(objects.round(2).tolist(), labels.tolist()):
            table["annotations"].append(
                {
                    "id": len(table["annotations"]) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
        found, guesses = _boxes(rng, case.objects), rng.integers(1, case.classes + 1, case.objects)
        near = rng.integers(0, len(objects), case.objects // 4)
        found[: len(near)] = objects[near] * rng.uniform(0.8, 1.2, (len(near), 4))
        guesses[: len(near)] = labels[near]
        scores = np.sort(rng.random(case.objects))[::-1]
        rows += [
            {"image_id": image, "category_id": label, "bbox": box, "score": score}
            for label, box, score in zip(
                guesses.tolist(), found.round(2).tolist(), scores.round(6).tolist()
            )
        ]
    return table, rows


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes (x, y, width, height) of all of COCO's areas in a picture of 640 x 480."""
    sides = np.exp(rng.uniform(np.log(8), np.log(260), (count, 2)))
    return np.concatenate((rng.uniform(0, 1, (count, 2)) * ((640, 480) - sides), sides), 1)
