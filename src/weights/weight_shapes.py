# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Names and shapes that official weight files must have, to account for every parameter.

Sizes are those of the published files (ResNet-50, -101 or -152, 64 channels after the stem).
A detector's class count and anchor count are taken from the file itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from src.model_utils.errors import InputError

Shapes = dict[str, tuple[int, ...]]

#: Blocks of the third stage (res4, layer3) tell the depth; the other stages are in the order
#: first, second, fourth.
_BLOCKS = {6: (3, 4, 3), 23: (3, 4, 3), 36: (3, 8, 3)}
_STEM_CHANNELS = 64
_STAGE_CHANNELS = (256, 512, 1024, 2048)
_NUM_IMAGENET_CLASSES = 1000
_NORM = ("weight", "bias", "running_mean", "running_var")


def _blocks(names: Iterable[str], third_stage: str, source: object) -> tuple[int, int, int, int]:
    """Return the number of blocks of the four stages, told by the third one's."""
    indices = {
        name[len(third_stage) + 1 :].partition(".")[0]
        for name in names
        if name.startswith(f"{third_stage}.")
    }
    third = len(indices)
    if third not in _BLOCKS or indices != {str(index) for index in range(third)}:
        raise InputError(
            f"{source} has {third} blocks in {third_stage}, but a ResNet-50 has 6, a ResNet-101 "
            "23 and a ResNet-152 36; use one of these files"
        )
    first, second, fourth = _BLOCKS[third]
    return first, second, third, fourth


def _convolution(shapes: Shapes, name: str, norm: str, size: tuple[int, int, int]) -> None:
    """Add a square convolution (out, in, side) without bias and its norm."""
    out_channels, in_channels, side = size
    shapes[f"{name}.weight"] = (out_channels, in_channels, side, side)
    shapes.update({f"{norm}.{part}": (out_channels,) for part in _NORM})


def _stage(
    shapes: Shapes, prefix: str, index: int, num_blocks: int, names: tuple[str, str, str]
) -> None:
    """Add a stage of bottleneck blocks.

    Args:
        shapes: filled in place.
        prefix: name of the stage.
        index: 0 to 3.
        num_blocks: how many.
        names: name of the shortcut convolution, of its norm, and the pattern of the others' norms
            (`{}` is the number of the convolution).
    """
    channels = _STAGE_CHANNELS[index]
    middle = channels // 4
    for block in range(num_blocks):
        before = channels if block else (_STEM_CHANNELS if index == 0 else channels // 2)
        sizes = ((middle, before, 1), (middle, middle, 3), (channels, middle, 1))
        if block == 0:
            size = (channels, before, 1)
            _convolution(
                shapes, f"{prefix}.{block}.{names[0]}", f"{prefix}.{block}.{names[1]}", size
            )
        for number, size in enumerate(sizes, start=1):
            name = f"{prefix}.{block}.conv{number}"
            _convolution(shapes, name, f"{prefix}.{block}.{names[2].format(number)}", size)


def backbone_shapes(names: Iterable[str], source: object) -> Shapes:
    """Shapes of `backbone.*` and `roi_heads.res5.*`, the depth taken from the names.

    Raises:
        InputError: the names tell no depth.
    """
    blocks = _blocks(names, "backbone.res4", source)
    shapes: Shapes = {}
    _convolution(shapes, "backbone.stem.conv1", "backbone.stem.conv1.norm", (_STEM_CHANNELS, 3, 7))
    style = ("shortcut", "shortcut.norm", "conv{}.norm")
    for index in range(3):
        _stage(shapes, f"backbone.res{index + 2}", index, blocks[index], style)
    _stage(shapes, "roi_heads.res5", 3, blocks[3], style)
    return shapes


def detector_shapes(params: Mapping[str, np.ndarray], source: object) -> Shapes:
    """Shapes of a whole official detector; numbers of classes and anchors from the arrays.

    Raises:
        InputError: the arrays tell no depth, number of anchors or number of classes.
    """
    shapes = backbone_shapes(params, source)
    anchors = _rows(params, "proposal_generator.rpn_head.objectness_logits.bias", source)
    features, pooled = _STAGE_CHANNELS[2:]
    head = "proposal_generator.rpn_head"
    shapes[f"{head}.conv.weight"] = (features, features, 3, 3)
    shapes[f"{head}.conv.bias"] = (features,)
    for name, rows in (("objectness_logits", anchors), ("anchor_deltas", 4 * anchors)):
        shapes[f"{head}.{name}.weight"] = (rows, features, 1, 1)
        shapes[f"{head}.{name}.bias"] = (rows,)
    for name in ("affine_rpn", "affine_rcnn"):
        shapes.update({f"{name}.{part}": (1, features, 1, 1) for part in ("weight", "bias")})
    predictor = "roi_heads.box_predictor"
    if any(name.startswith(f"{predictor}.") for name in params):
        scores = _rows(params, f"{predictor}.cls_score.bias", source)
        for name, rows in (("cls_score", scores), ("bbox_pred", 4 * (scores - 1))):
            shapes[f"{predictor}.{name}.weight"] = (rows, pooled)
            shapes[f"{predictor}.{name}.bias"] = (rows,)
    return shapes


def _rows(params: Mapping[str, np.ndarray], name: str, source: object) -> int:
    if name not in params or params[name].ndim != 1:
        raise InputError(f"{source} has no usable '{name}'; it is no whole DeFRCN detector")
    return int(params[name].shape[0])


def torchvision_shapes(names: Iterable[str], source: object) -> Shapes:
    """Shapes of torchvision's ResNet without `num_batches_tracked`.

    Raises:
        InputError: the names tell no depth.
    """
    blocks = _blocks(names, "layer3", source)
    shapes: Shapes = {}
    _convolution(shapes, "conv1", "bn1", (_STEM_CHANNELS, 3, 7))
    for index in range(4):
        style = ("downsample.0", "downsample.1", "bn{}")
        _stage(shapes, f"layer{index + 1}", index, blocks[index], style)
    shapes["fc.weight"] = (_NUM_IMAGENET_CLASSES, _STAGE_CHANNELS[3])
    shapes["fc.bias"] = (_NUM_IMAGENET_CLASSES,)
    return shapes
