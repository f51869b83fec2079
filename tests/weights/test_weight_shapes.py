# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Layouts: those of the networks that are built, read off names and shapes."""

from __future__ import annotations

import dataclasses

import pytest

from src.assembly.layout import configured_layout
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.network_define import build_detector
from src.weights.weight_shapes import detector_layout, encoder_layout
from tests.helpers.weight_files import (
    ENCODER,
    official_shapes,
    small,
)

ROOT = project_folder()

CONFIGURATIONS = [
    ("demo/shapes_base.yaml", 5),
    ("demo/shapes_fsod_5shot.yaml", 3),
    ("own/bccd_base.yaml", 2),
    ("own/bccd_gfsod_10shot.yaml", 3),
]


@pytest.mark.parametrize(("name", "num_classes"), CONFIGURATIONS)
@pytest.mark.parametrize("coupled", [[], ["--model.rpn.enable_decouple=false"]])
def test_a_layout_is_that_of_the_network(name, num_classes, coupled):
    path = str(ROOT / "configs" / name)
    net = build_detector(
        load_config(path, coupled).model,
        num_classes=num_classes,
        max_size=288,
        masked=False,
    )
    shapes = {parameter.name: tuple(parameter.shape) for parameter in net.get_parameters()}
    configured = configured_layout(path, coupled)
    assert dataclasses.replace(configured, num_classes=num_classes).shapes() == shapes
    assert detector_layout(shapes, "f").shapes() == shapes
    assert configured.num_classes == 0 and configured.affine_rpn == (not coupled)


@pytest.mark.parametrize("kind", ["base", "novel", "all"])
def test_layout_of_official_detectors(kind):
    specs = official_shapes(kind)
    layout = detector_layout(specs, "f")
    assert layout.shapes() == specs
    assert (layout.depth, layout.stem_channels, layout.res2_channels) == (101, 64, 256)
    without = {name: shape for name, shape in specs.items() if "box_predictor" not in name}
    assert detector_layout(without, "f").shapes() == without
    path = str(ROOT / "configs" / "coco" / "defrcn_det_r101_base.yaml")
    flags = [f"--model.num_classes={layout.num_classes}"]
    assert layout.differences(configured_layout(path, flags)) == []


def test_layout_of_torchvision():
    specs = {
        name: s for name, s in official_shapes("pcb").items() if "num_batches_tracked" not in name
    }
    assert encoder_layout(specs, "f").shapes() == specs
    assert encoder_layout(ENCODER.shapes(), "f") == ENCODER


def test_depth_from_the_names():
    shapes = small().shapes()
    assert detector_layout(shapes, "f") == small()
    with pytest.raises(InputError, match="has 7 blocks in backbone.res4.*ResNet-26"):
        detector_layout({**shapes, "backbone.res4.6.conv1.weight": (8, 32, 1, 1)}, "f")


def test_a_width_is_what_most_arrays_say():
    shapes = {**small().shapes(), "backbone.res2.0.conv3.weight": (9, 2, 1, 1)}
    shapes["backbone.stem.conv1.weight"] = (5, 3, 7, 7)
    assert detector_layout(shapes, "f") == small()
