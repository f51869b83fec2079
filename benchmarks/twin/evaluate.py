# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A whole evaluation: pictures, detections, pycocotools' figures."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.twin.detector import Detector, load
from src.model_utils.config import load_config
from src.weights.note import read_weights

logger = logging.getLogger(__name__)


def resized(picture: Image.Image, short: int, longest: int) -> Image.Image:
    """A picture with that short edge, or that long edge if it would be longer."""
    width, height = picture.size
    scale = short / min(height, width)
    if max(height, width) * scale > longest:
        scale = longest / max(height, width)
    size = (int(width * scale + 0.5), int(height * scale + 0.5))
    return picture.resize(size, Image.Resampling.BILINEAR)


def tensor_of(picture: Image.Image, section) -> torch.Tensor:
    """(1, 3, H, W) of a picture, normalised by the `input` section."""
    pixels = np.asarray(picture)[..., ::-1].astype(np.float32)
    pixels = (pixels - np.float32(section.pixel_mean)) / np.float32(section.pixel_std)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def evaluate_folder(config_path: str, data: Path, checkpoint: Path, result: Path) -> None:
    """Judge a checkpoint on the base classes of a data set of one's own; write `metrics.json`.

    Args:
        config_path: its configuration.
        data: folder of `annotations/test.json` and `images/test`.
        checkpoint: a `.ckpt` file or a folder of checkpoints.
        result: folder to write to.
    """
    config = load_config(config_path)
    truth = COCO(str(data / "annotations" / "test.json"))
    (own,) = config.data.custom.values()
    names = sorted(truth.cats.items())
    categories = [number for number, one in names if one["name"] not in own.novel_classes]
    net = Detector(config.model, len(categories)).eval()
    load(net, read_weights(checkpoint, "--checkpoint").params)
    rows = []
    for identity, record in truth.imgs.items():
        with Image.open(data / "images" / "test" / record["file_name"]) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        frame = resized(picture, config.input.min_size_test, config.input.max_size_test)
        size, original = frame.size[::-1], picture.size[::-1]
        found = net.detect(
            tensor_of(frame, config.input), tuple(map(float, size)), original, config.test
        )
        sides = torch.cat((found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]), 1)
        rows += [
            {"image_id": identity, "category_id": categories[k], "bbox": box, "score": score}
            for k, box, score in zip(found.classes.tolist(), sides.tolist(), found.scores.tolist())
        ]
    judge = COCOeval(truth, truth.loadRes(rows), "bbox")
    judge.params.catIds = categories
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    figures = dict(zip(("AP", "AP50", "AP75"), (float(one) * 100 for one in judge.stats)))
    result.mkdir(parents=True, exist_ok=True)
    (result / "detections.json").write_text(json.dumps(rows))
    (result / "metrics.json").write_text(json.dumps(figures) + "\n")
    logger.info("%d pictures, %d detections, %s", len(truth.imgs), len(rows), figures)
