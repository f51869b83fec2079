# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The layout of the detector that a configuration builds, for weights that are to fit it."""

from __future__ import annotations

from collections.abc import Sequence

from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.weights.weight_shapes import DetectorLayout


def configured_layout(config_path: str | None, flags: Sequence[str]) -> DetectorLayout | None:
    """Read the layout off a configuration; None without one.

    Args:
        config_path: the YAML file.
        flags: `--key=value` words that change it.

    Raises:
        InputError: the configuration has problems, or there are flags without one.
    """
    if config_path is None:
        if flags:
            raise InputError(
                f"{flags[0]}: unknown flag; --help lists those that there are, keys of a "
                "configuration go with --config_path"
            )
        return None
    model = load_config(config_path, flags).model
    return DetectorLayout(
        depth=model.backbone.depth,
        stem_channels=model.backbone.stem_out_channels,
        res2_channels=model.backbone.res2_out_channels,
        num_anchors=len(model.anchors.sizes) * len(model.anchors.aspect_ratios),
        num_classes=model.num_classes or 0,
        affine_rpn=model.rpn.enable_decouple,
        affine_rcnn=model.roi_heads.enable_decouple,
    )
