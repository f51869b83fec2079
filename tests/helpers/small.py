# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A small detector, its inputs, and the two modes that code runs in."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.de_frcn import DeFRCN
from src.defrcn.fast import make_fast
from src.model_utils.config_model import ModelSection
from src.network_define import build_detector
from src.weights.initialise import initialise

NUM_CLASSES = 3


def eager(function):
    return function


def compiled(function):
    """`fullgraph` refuses what would fall back to Python."""
    return ms.jit(function, fullgraph=True)


MODES = pytest.mark.parametrize("mode", [eager, compiled])


def section(**changes) -> ModelSection:
    """A small `model` section; keys such as `rpn__freeze=True` change it."""
    values: dict = {
        "backbone": {"depth": 26, "stem_out_channels": 8, "res2_out_channels": 32, "freeze_at": 2},
        "anchors": {"sizes": (16.0, 32.0, 64.0)},
        "rpn": {
            "batch_size_per_image": 32,
            "pre_nms_topk_train": 200,
            "post_nms_topk_train": 20,
            "pre_nms_topk_test": 200,
            "post_nms_topk_test": 16,
        },
        "roi_heads": {"batch_size_per_image": 16},
    }
    for key, value in changes.items():
        part, _, name = key.partition("__")
        values[part] = {**values.get(part, {}), name: value}
    return ModelSection(**values)


def detector(
    model: ModelSection | None = None, *, masked: bool = False, fast: bool = True, seed: int = 0
) -> DeFRCN:
    """A detector with random weights and, if frozen, random statistics of its norms."""
    net = build_detector(model or section(), num_classes=NUM_CLASSES, max_size=256, masked=masked)
    if fast:
        make_fast(net)
    initialise(net, seed)
    rng = np.random.default_rng(seed)
    for parameter in net.get_parameters():
        owner, _, kind = parameter.name.rpartition(".")
        shape = parameter.shape
        if owner.endswith("norm") and not parameter.requires_grad:
            low, high = {"bias": (-0.3, 0.3), "running_mean": (-0.3, 0.3)}.get(kind, (0.5, 1.2))
            parameter.set_data(Tensor(rng.uniform(low, high, shape).astype(np.float32)))
        elif "cls_score" in parameter.name or "bbox_pred" in parameter.name:
            parameter.set_data(Tensor(rng.normal(0, 0.05, shape).astype(np.float32)))
        elif "rpn_head" in parameter.name and len(shape) > 1:
            parameter.set_data(Tensor(rng.normal(0, 0.03, shape).astype(np.float32)))
        elif "affine" in parameter.name:
            changed = parameter.asnumpy() + rng.normal(0, 0.1, shape).astype(np.float32)
            parameter.set_data(Tensor(changed))
    return net


def pictures(sizes, seed: int = 0, shape=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images padded to the largest or to `shape`, sizes (N, 2) float32, padded size (2,)."""
    rng = np.random.default_rng(seed)
    largest = np.max(sizes, 0)
    images = np.zeros((len(sizes), 3, *(shape or largest)), np.float32)
    for slot, (height, width) in zip(images, sizes):
        slot[:, :height, :width] = rng.normal(0, 60, (3, height, width))
    return images, np.array(sizes, np.float32), largest.astype(np.int32)


def boxes_in(size, count: int, seed: int = 0) -> np.ndarray:
    """Random boxes (count, 4) of some extent inside (height, width)."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.6, (count, 2)) * np.array(size)[::-1]
    extent = rng.uniform(0.15, 0.4, (count, 2)) * np.array(size)[::-1]
    return np.concatenate((corner, corner + extent), 1).astype(np.float32)


def truth(images: int, slots: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, classes, and which are any: some images have few, the last has none."""
    rng = np.random.default_rng(seed)
    boxes = np.stack([boxes_in((90, 90), slots, seed + i) for i in range(images)])
    boxes[:, -1] = boxes[:, 0]  # equal ones: the first wins
    valid = rng.random((images, slots)) < 0.8
    valid[-1] = False
    return boxes, rng.integers(0, 9, (images, slots)).astype(np.int32), valid


def training_inputs() -> tuple[Tensor, ...]:
    """Those of `DeFRCN.losses`, of a batch of two."""
    boxes, classes, valid = truth(2, 3, 0)
    rng = np.random.default_rng(1)
    noise = rng.random((2, 6 * 7 * 9), np.float32), rng.random((2, 23), np.float32)
    images = pictures(((70, 97), (81, 60)))
    dropout = np.zeros((1, 1), np.float32)
    inputs = (*images, boxes, classes % NUM_CLASSES, valid, *noise, dropout)
    return tuple(map(Tensor, inputs))
